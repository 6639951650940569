"""Vocoders of several sizes and kinds, trained with the same CPU time on the same features.

    python -m tests.compare_vocoders MANIFEST VARIANTS SECONDS [SHARD ...]

MANIFEST is that of a corpus `mini`; VARIANTS a JSON file {name: what differs from `DEFAULTS`};
SECONDS the CPU time of each training, in one thread. The features are those of the shards or, if
none are given, log-mel spectrograms with their 50 frames a second. Judged are copy-syntheses of
utterances of speakers that were not trained on. The learning rate falls by half a cosine, weights
are averaged; both as a training of known length would have it.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from etaflow.asr import PocketSphinx
from etaflow.audio import read_audio, write_audio
from etaflow.corpora.mini import grammar_jsgf
from etaflow.evaluation.quality import load_dnsmos, mel_distance
from etaflow.fetching import fetch_model
from etaflow.manifest import read_manifest
from etaflow.metrics import word_errors
from etaflow.pitch import track_pitch
from etaflow.speaker import load_speaker_encoder
from etaflow.store import FeatureMeta, FeatureStore, FeatureWriter, unit_rows
from etaflow.training.trainer import average_of
from etaflow.vocoder import Generator, log_mel, read_config
from etaflow.vocoder.discriminator import DiscriminatorConfig
from etaflow.vocoder.task import VocoderTask
from etaflow.waveforms import Waveforms

JUDGED = 20
HIFIGAN = {
    "hidden_dim": 128,
    "upsample_channels": 256,
    "resblock_kernels": [3],
    "resblock_dilations": [[1, 3]],
}
DEFAULTS: dict[str, Any] = {
    "generator": HIFIGAN,
    "discriminator": {"width": 0.0625, "periods": [2, 3, 5, 7, 11], "scales": 0},
    "segment_frames": 32,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "adversarial_from": 0.5,  # part of the time
    "adversarial_rate": None,  # the learning rate from there on, if it is another
    "ema": 0.99,
    "mel_windows": None,  # of the loss, ms
    "seed": 0,
}


class Alone:
    """Stands for a `Trainer`, without processes."""

    def __init__(self, task: VocoderTask) -> None:
        self.task = task

    def plain(self, name: str) -> torch.nn.Module:
        return self.task.modules[name]

    def update(self, name: str, loss: torch.Tensor) -> None:
        self.task.optimizers[name].zero_grad()
        loss.backward()
        self.task.optimizers[name].step()


def dump_log_mels(table: Any, path: Path) -> None:
    waves = [read_audio(each) for each in table["path"]]
    frames = [len(wave) // 320 for wave in waves]
    names, speakers = list(table["utterance_id"]), list(table["speaker_id"])
    sizes = [len(wave) for wave in waves]
    meta = FeatureMeta("log-mel", "0", 0, False, 16_000, 320)
    with FeatureWriter(path, meta, names, speakers, sizes, frames, 80) as writer:
        for name, wave, count in zip(names, waves, frames, strict=True):
            mel = log_mel(torch.from_numpy(wave)[None])[0].T[:count]
            writer.write(name, mel.numpy())


def fit(variant: dict[str, Any], store: FeatureStore, table: Any, seconds: float) -> Any:
    """Train for so many CPU seconds; the averaged generator, and what the training was like."""
    torch.manual_seed(variant["seed"])
    generator = Generator(read_config({"feature_dim": store.dim, **variant["generator"]}))
    files = {
        name: (path, checksum)
        for name, path, checksum in zip(
            table["utterance_id"], table["path"], table["checksum"], strict=True
        )
    }
    train = sorted(table.query("split == 'train'")["utterance_id"])
    task = VocoderTask(
        generator,
        DiscriminatorConfig(**variant["discriminator"]),
        store,
        Waveforms(files),
        train[1:],
        train[:1],
        segment_frames=variant["segment_frames"],
        batch_size=variant["batch_size"],
        lr_decay=1.0,
        adversarial_from=1,
        mel_windows=variant["mel_windows"],
    )
    averaged = AveragedModel(generator, multi_avg_fn=average_of(variant["ema"]))
    random = np.random.default_rng(variant["seed"])
    trainer, start, steps, joined, curve = Alone(task), time.process_time(), 0, 0, []
    while (share := (time.process_time() - start) / seconds) < 1:
        adversarial = share >= variant["adversarial_from"]
        if adversarial and not joined:
            joined = steps
        rate = variant["learning_rate"]
        if adversarial and variant["adversarial_rate"]:
            rate = variant["adversarial_rate"]
        warm = min(1.0, (steps + 1) / 50)
        task._rate = rate * warm * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * share)))
        draws = random.integers(len(task.dataset), size=task.batch_size)
        items = [task.dataset[int(index), [int(random.integers(1 << 40))]] for index in draws]
        batch = torch.utils.data.default_collate(items)
        losses = task.training_step(batch, int(adversarial), trainer)
        averaged.update_parameters(generator)
        steps += 1
        if steps % 100 == 0:
            curve.append({name: round(loss.item(), 3) for name, loss in losses.items()})
            print(steps, round(share, 3), curve[-1], file=sys.stderr, flush=True)
    return averaged.module.eval().remove_weight_norm(), {"steps": steps, "joined": joined}


def similarity(made: list[np.ndarray], real: list[np.ndarray]) -> float:
    """The mean cosine of Resemblyzer's embeddings of copies and recordings."""
    entry = {"source": "package", "architecture": "resemblyzer"}
    with tempfile.TemporaryDirectory() as folder:
        fetch_model("resemblyzer", entry, folder)
        encoder = load_speaker_encoder(Path(folder), torch.device("cpu"))
    pairs = unit_rows(encoder.embed(made)), unit_rows(encoder.embed(real))
    return float((pairs[0] * pairs[1]).sum(axis=1).mean())


def wrong_pitch(made: np.ndarray, real: np.ndarray) -> float:
    """How many of the frames that are voiced in both are more than a semitone off: 0 to 1."""
    both = torch.from_numpy(np.stack([made, real]))
    pitch, voiced = track_pitch(both, len(made) // 320, 16_000)
    wrong = (pitch[0] / pitch[1]).log2().abs() > 1 / 12
    return float(wrong[voiced.all(dim=0)].float().mean())


def judge(generator: Generator | None, store: FeatureStore, table: Any, folder: Path) -> Any:
    test = table.query("split == 'test'")
    chosen = test.iloc[np.linspace(0, len(test) - 1, JUDGED).astype(int)]
    dnsmos, made, real, mels, taken, length = load_dnsmos(), [], [], [], 0.0, 0
    for name, path in zip(chosen["utterance_id"], chosen["path"], strict=True):
        recording = read_audio(path)
        features = torch.from_numpy(store.read(name))
        recording = np.pad(recording, (0, 320))[: 320 * len(features)]
        start = time.process_time()
        sound = recording if generator is None else generator.synthesise(features).numpy()
        taken, length = taken + time.process_time() - start, length + len(sound)
        made.append(sound)
        real.append(recording)
        mels.append(mel_distance(sound, recording))
        write_audio(folder / f"{name}.wav", sound)
    heard = PocketSphinx(grammar_jsgf()).transcribe(made)
    errors = np.array([word_errors(a, b) for a, b in zip(chosen["text"], heard, strict=True)])
    return {
        "mel_distance": round(float(np.mean(mels)), 3),
        "wer": round(100 * errors[:, 0].sum() / errors[:, 1].sum(), 1),
        "similarity": round(similarity(made, real), 3),
        "pitch_error": round(float(np.mean([*map(wrong_pitch, made, real)])), 2),
        "dnsmos": round(float(np.mean([dnsmos(sound) for sound in made])), 2),
        "rtf": round(taken / (length / 16_000), 4),
    }


def main() -> None:
    torch.set_num_threads(1)
    manifest, variants, seconds, *shards = sys.argv[1:]
    table = read_manifest(manifest)
    with tempfile.TemporaryDirectory() as place:
        if not shards:
            shards = [f"{place}/0.h5"]
            dump_log_mels(table, Path(shards[0]))
        store = FeatureStore([Path(shard) for shard in shards])
        sounds = Path(variants).with_suffix("")
        for name, changes in json.loads(Path(variants).read_text()).items():
            folder = sounds / name
            folder.mkdir(parents=True, exist_ok=True)
            if changes is None:
                row: dict[str, Any] = judge(None, store, table, folder)
            else:
                budget = changes.pop("seconds", float(seconds))
                generator, facts = fit(DEFAULTS | changes, store, table, budget)
                generator.save_pretrained(folder)
                row = {"parameters": generator.num_parameters(), **facts}
                row |= judge(generator, store, table, folder)
            print(json.dumps({"name": name, **row}), flush=True)


if __name__ == "__main__":
    main()
