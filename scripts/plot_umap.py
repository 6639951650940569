"""Plot utterance means of features with and without the speaker."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from etaflow.eta import EtaModel
from etaflow.figures.base import save_figure, spread
from etaflow.figures.umap import Map, plot_umap, utterance_umap
from etaflow.manifest import read_manifest
from etaflow.script import new_app
from etaflow.store import Embeddings, FeatureStore, unit_rows

app = new_app()


@app.command()
def main(
    features: Annotated[list[Path], typer.Argument(help="HDF5 shards of features")],
    manifest: Annotated[Path, typer.Option(help="manifest of the corpus")],
    embeddings: Annotated[Path, typer.Option(help="HDF5 of speaker embeddings")],
    eta: Annotated[Path, typer.Option(help="folder of the Eta model")],
    output: Annotated[Path, typer.Option(help="SVG to write")],
    limit: Annotated[int, typer.Option(help="utterances shown at most, drawn evenly")],
    seed: Annotated[int, typer.Option(help="seed of UMAP")],
) -> None:
    """Draw raw and eta means side by side, coloured by speaker."""
    store, model = FeatureStore(features), EtaModel.from_pretrained(eta)
    table = read_manifest(manifest)
    order = np.argsort(store.utterance_ids)[spread(len(store), limit)]
    names = [store.utterance_ids[u] for u in order]
    raw = store.frame_sum[order] / store.num_frames[order, None]
    vectors = Embeddings.read(embeddings).rows(names)
    removed = np.stack([model.speaker_component(vector) for vector in vectors])
    speakers = [store.speaker_ids[u] for u in order]
    shown = {"raw": raw - raw.mean(axis=0), "η, speaker removed": raw - removed}
    maps = [
        Map(title, utterance_umap(unit_rows(means), seed), speakers)
        for title, means in shown.items()
    ]
    split = table.set_index("utterance_id").loc[names, "split"]
    note = (
        f"{len(names)} utterance means, {(split == 'train').sum()} of them used in the fit; "
        f"{model.config['weights']} weights"
    )
    save_figure(plot_umap(maps, note), output)


if __name__ == "__main__":
    app()
