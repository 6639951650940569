"""A recording of several speakers to a file each."""

from pathlib import Path

from etaflow.atomic import atomic_directory
from etaflow.audio import (
    check_audio,
    on_disk,
    read_blocks,
    resampled_blocks,
    write_lossless,
)
from etaflow.decoding import AudioError
from etaflow.progress import progress
from etaflow.separation.network import Separator
from etaflow.separation.separate import stream


def separate_file(network: Separator, path: Path, folder: Path) -> None:
    """Write `source1.wav`, `source2.wav` … into a new folder, whole or not at all.

    The recording may be of any rate, number of channels, which are averaged, and length: what is
    long lies in temporary files. The sources have its rate and length, and are 32-bit float, as
    loud as the network makes them.

    Raises:
        AudioError: the recording is not usable, or the network cannot separate it.
        FileExistsError: the folder exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists: name a folder that does not")
    info = check_audio(path)
    mixture = on_disk(read_blocks(path, network.sample_rate))
    blocks = progress(
        stream(network, mixture),
        f"separating {path.name}",
        "samples",
        len(mixture),
        lambda block: block.shape[1],
    )
    try:
        samples = on_disk(block.T for block in blocks)
    except ValueError as error:
        raise AudioError(path, str(error)) from error
    sources = samples.reshape(-1, network.num_speakers)
    with atomic_directory(folder) as part:
        for index in range(network.num_speakers):
            resampled = resampled_blocks(sources[:, index], network.sample_rate, info.sample_rate)
            source = on_disk(resampled)[: info.num_samples]
            write_lossless(part / f"source{index + 1}.wav", source, info.sample_rate)
