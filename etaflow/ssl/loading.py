"""Models of transformers from folders, with every weight accounted for."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from etaflow.models import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def load_model(
    files: Path, config: "PreTrainedConfig", kind: Any = None, unused: Iterable[str] = ()
) -> "PreTrainedModel":
    """A model in float32, whatever its weights are stored in.

    Args:
        files: the folder.
        config: of the model; with fewer blocks than the folder's, the rest is left out.
        kind: class to load it with; None for `AutoModel`.
        unused: starts of the names of weights that may be missing.

    Raises:
        ModelError: a weight is missing.
    """
    from transformers import AutoModel  # slow to load
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    # The blocks that are left out are no news to report.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, loading = (kind or AutoModel).from_pretrained(
            files,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
        )
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    needless = ("masked_spec_embed", *unused)
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith(needless))
    if missing:
        raise ModelError(f"{len(missing)} weight(s) missing in {files}, the first is {missing[0]}")
    return model
