"""What a bundle's folder holds, and where the one is that comes with the package."""

from pathlib import Path

FORMAT = "etaflow-bundle/1"
# Beside `ssl`, `vocoder` and, with an Eta model, `eta` and `speaker`; each may be missing.
VERIFIER, SEPARATOR, METRICS = "verifier", "separator", "metrics"
# The parts that are trained, as a card and the page name them.
NAMES = {
    "ssl": "SSL encoder",
    "speaker": "speaker encoder",
    "eta": "Eta model",
    "vocoder": "vocoder",
}
# What is fetched of a repository: pickles only where the loader of a bundled model reads them.
FILES = (
    *("*.json", "*.md", "*.safetensors", "*.tsv", f"{SEPARATOR}/hyperparams.yaml"),
    *("ssl/pytorch_model*.bin", "speaker/embedding_model.ckpt"),
    *(f"{VERIFIER}/encoder/embedding_model.ckpt", f"{VERIFIER}/encoder/pytorch_model*.bin"),
    *(f"{VERIFIER}/encoder/*.pt", f"{VERIFIER}/encoder/*.pth", f"{SEPARATOR}/*.ckpt"),
)

# The part of the shipped bundle that a model of the registry's source `package` is.
PARTS = {"wavlm": "ssl", "etaflow-vocoder": "vocoder", "etaflow-encoder": "speaker"}

_SHIPPED = Path(__file__).parent / "bundled"


def shipped_bundle() -> Path:
    """The folder of the bundle that comes with etaflow.

    Raises:
        FileNotFoundError: it did not come with this installation.
    """
    if not (_SHIPPED / "config.json").is_file():
        raise FileNotFoundError(
            f"{_SHIPPED} has no config.json: this etaflow was installed without the models that "
            "come with it. Install it anew from a whole checkout or a wheel, or name a bundle of "
            "your own: results/RUN/bundle of a run, or OWNER/NAME on the Hugging Face Hub"
        )
    return _SHIPPED


def shipped_files(architecture: str) -> list[Path]:
    """The files of the part that a model of the registry's source `package` is, in order."""
    folder = shipped_bundle() / PARTS[architecture]
    return sorted(file for file in folder.glob("[!.]*") if file.is_file())
