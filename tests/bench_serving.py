"""What `make bench` prints of serving: conversions of 5 s over HTTP, in one run.

Models of the published sizes with random weights: WavLM-Large up to layer 6 and kNN-VC's HiFi-GAN.
The plain way is a `VoiceConverter` in a process without a server. Latency is from sending a request
to having its answer, by clients that each send one after another; throughput is of 8 of them.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests
import torch

from etaflow.atomic import write_json
from etaflow.bundles import FORMAT
from etaflow.converter import VoiceConverter
from etaflow.fetching import copy_model, fetch_model
from etaflow.models import read_model_info
from etaflow.serve.outgoing import encode
from etaflow.vocoder import Generator, GeneratorConfig
from tests.serve_tools import serve

RATE, SECONDS, LAYER = 16_000, 5, 6
REQUESTS = 16  # a measurement


def recordings(count: int) -> list[np.ndarray]:
    """Coloured noise of 5 s, each its own."""
    generator = np.random.default_rng(0)
    white = generator.normal(size=(count, RATE * SECONDS + 20))
    waves = [np.convolve(each, np.hanning(21), "valid") for each in white]
    return [(0.3 * each / np.abs(each).max()).astype(np.float32) for each in waves]


def make_bundle(folder: Path) -> Path:
    """One without an Eta model."""
    entry = {"source": "random", "architecture": "wavlm-large", "seed": 0}
    fetch_model("wavlm-large", entry, folder / "wavlm-large")
    bundle = folder / "bundle"
    info = copy_model(folder / "wavlm-large" / "model.json", bundle / "ssl")
    torch.manual_seed(0)
    Generator(GeneratorConfig(feature_dim=1024)).save_pretrained(
        bundle / "vocoder",
        model=info.name,
        revision=read_model_info(bundle / "ssl")[0].revision,
        layer=LAYER,
        normalize=False,
        weights="untrained",
    )
    facts = {"run": "bench", "layer": LAYER, "normalize": False, "weights": "untrained"}
    write_json(bundle / "config.json", {"format": FORMAT, "eta": False, **facts})
    return bundle


def convert(url: str, source: bytes, reference: bytes) -> float:
    """Seconds of a conversion."""
    start = time.perf_counter()
    files = [("source", source), ("references", reference)]
    done = requests.post(f"{url}/v1/convert", files=files, timeout=600)
    assert done.status_code == 200, done.text
    return time.perf_counter() - start


def measure(
    url: str, clients: int, sources: Sequence[bytes], references: Sequence[bytes]
) -> tuple[float, float]:
    """Median latency, and seconds a conversion, of `clients` that ask at the same time."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        latencies = list(pool.map(convert, [url] * len(sources), sources, references))
    return statistics.median(latencies), (time.perf_counter() - start) / len(sources)


def main() -> None:
    """Serve with and without batches, and print what conversions took."""
    waves = recordings(2 * REQUESTS)
    files = [encode(each, RATE) for each in waves]
    sources, others = files[:REQUESTS], files[REQUESTS:]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bundle = make_bundle(folder)
        converter = VoiceConverter.from_pretrained(bundle)
        times = []
        for source, reference in zip(waves[:5], waves[REQUESTS : REQUESTS + 5], strict=True):
            start = time.perf_counter()
            converter.convert(source, [reference])
            times.append(time.perf_counter() - start)
        plain = statistics.median(times[1:])
        del converter
        print(f"{'':<52} seconds   / plain")
        print(f"{'plain, in one process':<52} {plain:7.2f}   {1:7.2f}")

        def show(name: str, seconds: float) -> None:
            print(f"{name:<52} {seconds:7.2f}   {seconds / plain:7.2f}", flush=True)

        throughput = {}
        for batch in (8, 1):
            with serve(bundle, folder / f"batch{batch}", {"batch": batch}) as server:
                known = [others[0]] * REQUESTS
                convert(server.url, sources[0], others[0])
                if batch == 8:
                    show("latency, 1 client", measure(server.url, 1, sources[1:6], others[1:6])[0])
                    show(
                        "latency, 1 client, a reference that is known",
                        measure(server.url, 1, sources[1:6], known[1:6])[0],
                    )
                latency, throughput[batch] = measure(server.url, 8, sources, known)
                show(f"latency, 8 clients, batches of up to {batch}", latency)
                show(f"time a conversion, 8 clients, batches of up to {batch}", throughput[batch])
        print(f"throughput with batches / without: {throughput[1] / throughput[8]:.2f}")


if __name__ == "__main__":
    main()
