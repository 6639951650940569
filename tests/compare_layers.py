"""How often the nearest frame of another speaker is of another phone, by layer of small WavLMs.

    python -m tests.compare_layers MANIFEST FOLDER ...

MANIFEST is that of a corpus with English texts, of which the first 12 utterances of each test
speaker are taken; each FOLDER holds a WavLM with its `model.json`. See `neighbour_error`.
"""

import json
import sys
from pathlib import Path

import numpy as np

from etaflow.audio import read_audio
from etaflow.manifest import read_manifest
from etaflow.ssl import SSLEncoder
from etaflow.ssl.pretraining.measures import neighbour_error
from scripts.pretrain_ssl import phones_of

UTTERANCES = 12


def main() -> None:
    manifest, *folders = sys.argv[1:]
    table = read_manifest(manifest).query("split == 'test'")
    table = table.groupby("speaker_id").head(UTTERANCES)
    waveforms = [read_audio(path) for path in table["path"]]
    phones = None
    for folder in map(Path, folders):
        depth = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
        layers = range(1, depth + 1)
        encoder = SSLEncoder.from_pretrained(folder, layer=[*layers], normalize=True)
        found = dict(zip(table["utterance_id"], encoder.encode_layers(waveforms), strict=True))
        if phones is None:  # the frames of all these models are the same
            lengths = {name: each[1] for name, each in found.items()}
            phones = phones_of(table, lengths, workers=2)
        owners = dict(zip(table["utterance_id"], table["speaker_id"], strict=True))
        labels = np.concatenate([each[each != ""] for each in phones.values()])
        speakers = np.concatenate(
            [np.full((each != "").sum(), owners[name]) for name, each in phones.items()]
        )
        errors = {}
        for layer in layers:
            frames = [found[n][layer].numpy()[each != ""] for n, each in phones.items()]
            error = neighbour_error(np.concatenate(frames), labels, speakers)
            errors[layer] = round(error, 3)
        print(json.dumps({"model": str(folder), "frames": len(labels), "errors": errors}))


if __name__ == "__main__":
    main()
