import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from etaflow.audio import read_audio
from etaflow.models import ModelError
from etaflow.ssl import SSLEncoder, frames, layers
from tests.conftest import small_model


def plain_features(folder: Path, waveform: np.ndarray, layer: int, normalize: bool) -> np.ndarray:
    """One file, full depth, `hidden_states[layer]`: the reference that everyone uses."""
    model = AutoModel.from_pretrained(folder).eval()
    values = torch.from_numpy(waveform)[None]
    if normalize:
        values = (values - values.mean()) / torch.sqrt(values.var(correction=0) + 1e-7)
    captured: list[torch.Tensor] = []
    block = model.encoder.layers[layer - 1]
    block.register_forward_hook(
        lambda _m, _i, out: captured.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.inference_mode():
        model(values)
    return captured[0][0].numpy() if captured[0].ndim == 3 else captured[0].numpy()


@pytest.mark.parametrize("layer", [1, 3, 4])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_layer_is_the_output_of_its_block_batched_or_alone(
    ssl_model: Path, waveforms: list[np.ndarray], layer: int, normalize: bool
) -> None:
    encoder = SSLEncoder.from_pretrained(ssl_model, layer, normalize)
    batched = encoder.encode(waveforms)
    for waveform, features in zip(waveforms, batched, strict=True):
        reference = plain_features(ssl_model, waveform, layer, normalize)
        assert features.shape == (encoder.num_frames(len(waveform)), 128) == reference.shape
        error = np.abs(features.numpy() - reference).max() / np.abs(reference).max()
        assert error < 1e-5


def test_frames_are_counted_as_the_models_papers_do(wavlm_tiny: Path) -> None:
    encoder = SSLEncoder.from_pretrained(wavlm_tiny, 1)
    for samples in (400, 719, 720, 16_000, 48_001):
        assert encoder.num_frames(samples) == (samples - 400) // 320 + 1
    assert encoder.hop_length == 320


def test_a_small_batch_budget_changes_nothing(wavlm_tiny: Path, waveforms: list) -> None:
    encoder = SSLEncoder.from_pretrained(wavlm_tiny, 2)
    for one, other in zip(
        encoder.encode(waveforms), encoder.encode(waveforms, max_batch_seconds=0.1), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_layer_beyond_the_models_depth_is_refused(wavlm_tiny: Path) -> None:
    with pytest.raises(ValueError, match="layers 1 to 4, asked for 5"):
        SSLEncoder.from_pretrained(wavlm_tiny, 5)


def test_another_sampling_rate_and_too_short_waveforms_are_refused(wavlm_tiny: Path) -> None:
    encoder = SSLEncoder.from_pretrained(wavlm_tiny, 1)
    with pytest.raises(ValueError, match="8000 Hz; resample first"):
        encoder.encode([np.zeros(16_000, np.float32)], sample_rate=8_000)
    with pytest.raises(ValueError, match="399 samples is too short"):
        encoder.encode([np.zeros(399, np.float32)])


def test_a_checkpoint_without_one_of_its_weights_is_refused(
    wavlm_tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(wavlm_tiny, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layers.1.attention.k_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert SSLEncoder.from_pretrained(folder, 1).layer == 1
    with pytest.raises(ModelError, match=r"1 weight\(s\) missing.*layers\.1\.attention\.k_proj"):
        SSLEncoder.from_pretrained(folder, 2)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_long_waveform_in_chunks_is_close_to_the_whole(
    wavlm_tiny: Path, monkeypatch: pytest.MonkeyPatch, normalize: bool
) -> None:
    waveform = np.random.default_rng(0).normal(0, 0.1, 16_000 * 20 + 123).astype(np.float32)
    encoder = SSLEncoder.from_pretrained(wavlm_tiny, 3, normalize)
    (whole,) = encoder.encode([waveform])
    monkeypatch.setattr(frames, "CHUNK_FRAMES", 300)
    (chunked,) = encoder.encode([waveform])
    assert chunked.shape == whole.shape
    error = (chunked - whole).norm() / (whole - whole.mean(dim=0)).norm()
    assert error < 0.1
    # Without context the frames at the seams are far off: the context is what helps.
    monkeypatch.setattr(frames, "CONTEXT_FRAMES", 0)
    (cut,) = encoder.encode([waveform])
    seams = torch.tensor([299, 300, 599, 600])
    assert (cut - whole)[seams].norm() > 2 * (chunked - whole)[seams].norm()


def test_chunks_cover_every_frame_once(wavlm_tiny: Path) -> None:
    encoder = SSLEncoder.from_pretrained(wavlm_tiny, 1)
    assert encoder.field == 400
    for samples in (400, 16_000 * 64, 16_000 * 65, 16_000 * 200 + 17, 16_000 * 3600):
        kept = 0
        for start, stop, first, last in encoder.grid.spans(samples):
            assert start // 320 + first == kept
            assert last <= encoder.num_frames(stop - start)
            kept += last - first
        assert kept == encoder.num_frames(samples)


def test_several_layers_come_from_one_pass(ssl_model: Path, waveforms: list) -> None:
    together = SSLEncoder.from_pretrained(ssl_model, [3, 1])
    assert (together.layers, together.layer) == ((1, 3), 3)
    encoded = together.encode_layers(waveforms)
    for layer in (1, 3):
        alone = SSLEncoder.from_pretrained(ssl_model, layer).encode(waveforms)
        for features, expected in zip(encoded, alone, strict=True):
            assert set(features) == {1, 3}
            torch.testing.assert_close(features[layer], expected, atol=1e-5, rtol=1e-5)
    for features, deepest in zip(encoded, together.encode(waveforms), strict=True):
        assert torch.equal(features[3], deepest)


def test_a_processor_without_avx512_gives_the_same(
    ssl_model: Path, waveforms: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SSLEncoder.from_pretrained(ssl_model, 4)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    convolved = encoder.encode(waveforms)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    for one, other in zip(convolved, encoder.encode(waveforms), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_blocks_of_the_front_end_leave_no_seam(ssl_model: Path) -> None:
    waveform = np.random.default_rng(0).normal(0, 0.1, 16_000 * 7 + 77).astype(np.float32)
    (features,) = SSLEncoder.from_pretrained(ssl_model, 1).encode([waveform])
    reference = plain_features(ssl_model, waveform, 1, normalize=False)
    assert len(features) > 2 * layers.BLOCK_FRAMES
    assert np.abs(features.numpy() - reference).max() < 1e-5 * np.abs(reference).max()


def test_half_precision_is_close_and_not_the_same(wavlm_tiny: Path, waveforms: list) -> None:
    full = SSLEncoder.from_pretrained(wavlm_tiny, 3).encode(waveforms)
    half = SSLEncoder.from_pretrained(wavlm_tiny, 3, precision="float16").encode(waveforms)
    for one, other in zip(full, half, strict=True):
        assert other.dtype == torch.float32
        assert 0 < (one - other).norm() / one.norm() < 5e-3
    with pytest.raises(ValueError, match="'bfloat16': allowed are float32 and float16"):
        SSLEncoder.from_pretrained(wavlm_tiny, 3, precision="bfloat16")


def test_real_clips_in_a_batch_equal_the_plain_loop(ssl_model: Path, speech_dir: Path) -> None:
    paths = sorted(speech_dir.glob("LibriTTS/**/*.wav"))
    clips = [read_audio(path) for path in paths]
    clips = [clip for clip in clips if len(clip) % 320][:30:4]
    assert len({len(clip) for clip in clips}) > 4
    encoder = SSLEncoder.from_pretrained(ssl_model, [1, 3, 4])
    for clip, features in zip(clips, encoder.encode_layers(clips), strict=True):
        for layer, found in features.items():
            reference = plain_features(ssl_model, clip, layer, normalize=False)
            error = np.abs(found.numpy() - reference).max() / np.abs(reference).max()
            assert error < 1e-5


def test_a_group_norm_sees_the_whole_of_a_long_waveform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SSLEncoder.from_pretrained(small_model(tmp_path / "base", "wavlm-base"), 1)
    waveform = np.random.default_rng(0).normal(0, 0.1, 16_000 * 12).astype(np.float32)
    waveform[: 16_000 * 7] *= 0.05
    (whole,) = encoder.encode([waveform])
    monkeypatch.setattr(frames, "CHUNK_FRAMES", 300)
    (chunked,) = encoder.encode([waveform])
    error = (chunked - whole).norm(dim=1) / whole.norm(dim=1)
    assert error.max() < 0.05


def test_an_offset_costs_a_group_norm_no_precision(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "base", "hubert-base")
    waveform = np.random.default_rng(0).normal(0.9, 0.01, 16_000).astype(np.float32)
    model = AutoModel.from_pretrained(folder).eval().double()
    with torch.inference_mode():
        values = torch.from_numpy(waveform).double()[None]
        exact = model(values, output_hidden_states=True).hidden_states[1][0].numpy()
    (features,) = SSLEncoder.from_pretrained(folder, 1).encode([waveform])
    assert np.abs(features.numpy() - exact).max() < 1e-4 * np.abs(exact).max()


def test_threads_may_share_an_encoder(wavlm_tiny: Path, waveforms: list) -> None:
    encoder = SSLEncoder.from_pretrained(wavlm_tiny, 2)
    expected = encoder.encode(waveforms)
    with ThreadPoolExecutor(3) as pool:
        for encoded in pool.map(lambda _: encoder.encode(waveforms), range(12)):
            for one, other in zip(encoded, expected, strict=True):
                # Not to the bit: threads of a pool may compute with another number of cores.
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_weights_stored_in_half_precision_are_used_in_full(
    wavlm_tiny: Path, tmp_path: Path, waveforms: list
) -> None:
    folder = tmp_path / "half"
    AutoModel.from_pretrained(wavlm_tiny).half().save_pretrained(folder)
    shutil.copy(wavlm_tiny / "model.json", folder)
    (features,) = SSLEncoder.from_pretrained(folder, 2).encode(waveforms[:1])
    (full,) = SSLEncoder.from_pretrained(wavlm_tiny, 2).encode(waveforms[:1])
    assert 0 < (features - full).norm() / full.norm() < 1e-2


@pytest.mark.parametrize(
    ("waveform", "shape"),
    [(np.zeros(800, np.int16), r"\(800,\), int16"), (np.zeros((800, 2)), r"\(800, 2\), float64")],
)
def test_what_is_no_waveform_is_refused(wavlm_tiny: Path, waveform: Any, shape: str) -> None:
    encoder = SSLEncoder.from_pretrained(wavlm_tiny, 1)
    with pytest.raises(ValueError, match=shape):
        encoder.encode([waveform])


def test_waveforms_may_be_views_of_any_precision(wavlm_tiny: Path, waveforms: list) -> None:
    encoder = SSLEncoder.from_pretrained(wavlm_tiny, 1)
    (expected,) = encoder.encode([waveforms[0][::-1].copy()])
    (features,) = encoder.encode([waveforms[0].astype(np.float64)[::-1]])
    assert torch.equal(features, expected)
