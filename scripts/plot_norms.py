"""Plot the norms of utterance means, of their η and of the speaker components."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from etaflow.eta import EtaModel
from etaflow.figures.base import save_figure
from etaflow.figures.eta import plot_norms
from etaflow.script import new_app
from etaflow.store import Embeddings, FeatureStore

app = new_app()


@app.command()
def main(
    features: Annotated[list[Path], typer.Argument(help="HDF5 shards of features")],
    embeddings: Annotated[Path, typer.Option(help="HDF5 of speaker embeddings")],
    eta: Annotated[Path, typer.Option(help="folder of the Eta model")],
    output: Annotated[Path, typer.Option(help="SVG to write")],
) -> None:
    """Draw three histograms over all utterances of the corpus."""
    store, model = FeatureStore(features), EtaModel.from_pretrained(eta)
    raw = store.frame_sum / store.num_frames[:, None]
    vectors = Embeddings.read(embeddings).rows(store.utterance_ids)
    removed = np.stack([model.speaker_component(vector) for vector in vectors])
    norms = {
        name: np.linalg.norm(vectors, axis=1)
        for name, vectors in {
            "raw": raw,
            "speaker component": removed,
            "speaker component without b": removed - model.bias,
            "η, speaker removed": raw - removed,
        }.items()
    }
    note = f"means of {len(store)} utterances; {model.config['weights']} weights"
    save_figure(plot_norms(norms, note), output)


if __name__ == "__main__":
    app()
