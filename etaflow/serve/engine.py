"""What a worker does with jobs: models loaded once, requests computed together, references kept."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from etaflow.analysis import analyze
from etaflow.audio import SAMPLE_RATE, Waveform, resample, resampled_length
from etaflow.bundles import SEPARATOR, VERIFIER
from etaflow.converter import FIT_CHUNKS, VoiceConverter, check_inside
from etaflow.separation.networks import load_separator
from etaflow.separation.separate import separate
from etaflow.serve.incoming import check, read
from etaflow.serve.messages import Audio, Job, Outcome, Recording
from etaflow.serve.outgoing import encode
from etaflow.store import Floats
from etaflow.vad import speech_span
from etaflow.verification.verifier import Verifier

log = logging.getLogger(__name__)


@dataclass
class Known:
    """What is known of a recording: features (T, D), and its embedding (V,) once it was needed."""

    features: torch.Tensor
    embedding: Floats | None = None

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return self.features.nbytes + (0 if self.embedding is None else self.embedding.nbytes)


# Of the sources and of the references of some jobs, by their hashes.
Prepared = tuple[dict[str, Known], dict[str, Known]]


class References:
    """The references of the last conversions, by the hash of what was sent, up to a size."""

    def __init__(self, room: int) -> None:
        """Keep at most `room` bytes; a reference that is larger by itself is not kept."""
        self.room = room
        self._kept: OrderedDict[str, Known] = OrderedDict()

    def get(self, digest: str) -> Known | None:
        """The reference of this hash, if it is kept; it is then the last to go."""
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
        return found

    def keep(self, digest: str, reference: Known) -> None:
        """Keep a reference that fits; those that were not asked for the longest go."""
        if reference.nbytes > self.room:
            return
        self._kept[digest] = reference
        self._kept.move_to_end(digest)
        while sum(each.nbytes for each in self._kept.values()) > self.room:
            self._kept.popitem(last=False)


class Engine:
    """The models of a bundle, and the tasks they do."""

    def __init__(self, folder: Path, tasks: Sequence[str], device: torch.device, room: int) -> None:
        """Load what the tasks need and run it once, so that the first request is no slower.

        Args:
            folder: of the bundle.
            tasks: those of its `weights`, see `etaflow.serve.bundle.ServedBundle`.
            device: where to compute.
            room: bytes for references that are kept.
        """
        for part in (f"{VERIFIER}/encoder", SEPARATOR):
            if (folder / part).is_dir():
                check_inside(folder, part)
        self.converter = VoiceConverter.from_pretrained(folder, device)
        self.verifier = self.separator = None
        if "verify" in tasks:
            self.verifier = Verifier.from_pretrained(folder / VERIFIER, device)
        if "separate" in tasks:
            self.separator = load_separator(folder / SEPARATOR)[1].to(device)
        self.references = References(room)
        self._warm(tasks)

    def _warm(self, tasks: Sequence[str]) -> None:
        noise = np.random.default_rng(0).normal(0, 0.05, 2 * SAMPLE_RATE)
        recording = check("noise", encode(noise.astype(np.float32), SAMPLE_RATE), 60.0)
        method = "knn-eta" if "analyze" in tasks else "knn"
        jobs = {
            "convert": Job("convert", (recording, recording), method, 4),
            "analyze": Job("analyze", (recording,)),
            "verify": Job("verify", (recording, recording)),
            "separate": Job("separate", (recording,)),
        }
        self.run([jobs[task] for task in tasks])
        self.references = References(self.references.room)

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Do jobs; of one that cannot be done its outcome says why, and the others do not notice.

        What conversions need of their recordings is computed together.
        """
        together: Prepared = ({}, {})
        conversions = [job for job in jobs if job.task == "convert"]
        if len(conversions) > 1:
            try:
                together = self._prepare(conversions)
            except Exception as error:
                # One of them, or all at once were too much: each is tried by itself below.
                log.info("%d conversions not prepared at once: %s", len(conversions), error)
        tasks: dict[str, Callable[[Job], Outcome]] = {
            "convert": lambda job: self._convert(job, together),
            "analyze": self._analyze,
            "verify": self._verify,
            "separate": self._separate,
        }
        return [_attempt(tasks[job.task], job) for job in jobs]

    @torch.inference_mode()
    def _prepare(self, jobs: Sequence[Job]) -> Prepared:
        """What conversions need of their sources and references, by hash, in one go."""
        sources = {job.recordings[0].digest: _at_16k(job.recordings[0]) for job in jobs}
        targets: dict[str, Known] = {}
        new: dict[str, Waveform] = {}
        for recording in (each for job in jobs for each in job.recordings[1:]):
            kept = self.references.get(recording.digest)
            if kept is not None:
                targets[recording.digest] = kept
            elif recording.digest not in new:
                new[recording.digest] = _at_16k(recording)
        ssl = self.converter.ssl
        features = ssl.encode([*sources.values(), *new.values()])
        found = dict(zip(sources, map(Known, features), strict=False))
        for (digest, waveform), frames in zip(new.items(), features[len(sources) :], strict=True):
            within = ssl.grid.within(*speech_span(waveform))
            # A copy: what is kept shall not hold the memory of what was cut off.
            targets[digest] = Known(frames[within].clone())
        self._embed(jobs, found, targets)
        for digest, reference in targets.items():
            self.references.keep(digest, reference)
        return found, targets

    def _embed(
        self, jobs: Sequence[Job], sources: dict[str, Known], targets: dict[str, Known]
    ) -> None:
        """Embed the recordings whose job needs it, as far as it is not done."""
        missing: dict[int, tuple[Known, Recording]] = {}
        for job in jobs:
            method = self.converter.method(job.method)
            source, *references = job.recordings
            asked = [(sources[source.digest], source)] if method.needs_eta else []
            if method.space == "eta":
                asked += [(targets[each.digest], each) for each in references]
            missing |= {
                id(known): (known, each) for known, each in asked if known.embedding is None
            }
        if missing:
            waveforms = [_at_16k(recording) for _, recording in missing.values()]
            embeddings = self.converter.embed(waveforms)
            for (known, _), embedding in zip(missing.values(), embeddings, strict=True):
                known.embedding = embedding

    @torch.inference_mode()
    def _convert(self, job: Job, together: Prepared) -> Outcome:
        """As `VoiceConverter.convert`, but for references that are known already."""
        converter, method = self.converter, self.converter.method(job.method)
        if job.recordings[0].digest not in together[0]:
            together = self._prepare([job])
        source = together[0][job.recordings[0].digest]
        references = [together[1][each.digest] for each in job.recordings[1:]]
        embeddings = [each.embedding for each in references if each.embedding is not None]
        voice = converter.voice(
            job.method,
            [each.features.numpy() for each in references] if method.steps else [],
            np.stack(embeddings) if method.space == "eta" and embeddings else None,
            job.topk,
        )
        size = resampled_length(job.recordings[0].num_samples, job.recordings[0].rate)
        spans = islice(converter.ssl.grid.spans(size), FIT_CHUNKS)
        fitted = source.features[: sum(last - first for _, _, first, last in spans)]
        converted = voice.mapping(fitted, source.embedding)(source.features)
        made = converter.vocode(converted.cpu().numpy(), size)
        gain = converter.gain(job.method, made)
        gain /= max(1.0, gain * float(np.abs(made).max()))
        return Outcome(Audio((made * np.float32(gain),), converter.sample_rate))

    def _analyze(self, job: Job) -> Outcome:
        return Outcome(facts=analyze(_at_16k(job.recordings[0]), self.converter).measures())

    def _verify(self, job: Job) -> Outcome:
        assert self.verifier is not None
        one, other = map(_at_16k, job.recordings)
        decision = self.verifier.score(one, other)
        facts = {"system": self.verifier.name, "trials": dict(self.verifier.trials)}
        return Outcome(facts={**vars(decision), **facts})

    def _separate(self, job: Job) -> Outcome:
        """As `etaflow.separation.files.separate_file`."""
        assert self.separator is not None
        mixture, network = job.recordings[0], self.separator
        waveform = resample(read(mixture), mixture.rate, network.sample_rate)
        size = mixture.num_samples
        sources = tuple(
            resample(source, network.sample_rate, mixture.rate)[:size]
            for source in separate(network, waveform)
        )
        return Outcome(Audio(sources, mixture.rate))


def _at_16k(recording: Recording) -> Waveform:
    return resample(read(recording), recording.rate, SAMPLE_RATE)


def _attempt(task: Callable[[Job], Outcome], job: Job) -> Outcome:
    """Do a job. What is wrong with a request is a `ValueError` throughout etaflow."""
    try:
        return task(job)
    except ValueError as error:
        return Outcome(refused=str(error))
    except Exception:
        log.exception("a job to %s failed, of %s", job.task, _sizes(job))
        return Outcome(failed=True)


def _sizes(job: Job) -> str:
    return ", ".join(f"{each.seconds:.2f} s ({each.digest})" for each in job.recordings)
