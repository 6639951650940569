"""Archives of made-up corpora."""

import hashlib
import io
import tarfile

import numpy as np
import soundfile


def audio(file_format: str, rate: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, rate)
    soundfile.write(buffer, noise, rate, format=file_format)
    return buffer.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
