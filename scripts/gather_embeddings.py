"""Join the speaker embeddings of a corpus's shards."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.script import new_app
from etaflow.store import Embeddings

app = new_app()


@app.command()
def main(
    shards: Annotated[list[Path], typer.Argument(help="HDF5 files of embeddings, a shard each")],
    output: Annotated[Path, typer.Option(help="HDF5 file to write")],
) -> None:
    """Write the embeddings of all shards, in order of utterance id, and each speaker's mean."""
    Embeddings.read_shards(shards).write(output)


if __name__ == "__main__":
    app()
