"""What the jobs of pretraining are made of; see `conversion_stages`."""

from typing import Any

from etaflow.planning import variants
from etaflow.planning.speech import UNKNOWN
from etaflow.planning.study import HOURS, Amount, Study

BYTES_AN_HOUR = 50 * 3600 * 2  # a code a frame


def cluster_frames(study: Study, wildcards: dict[str, str]) -> Amount:
    """Hours of training speech."""
    entry = study.config["pretraining"][wildcards["pretrained"]]
    corpora = [entry["corpus"]] if isinstance(entry["corpus"], str) else entry["corpus"]
    parts = [study.whole(name, "train") for name in corpora]
    variant = variants.targets_variant(study.config, entry["targets"])
    known = [part.hours for part in parts if part.hours is not None]
    if len(known) < len(parts):
        return Amount(None, HOURS, variant, UNKNOWN)
    hours = sum(known)
    source = ", ".join(dict.fromkeys(part.source for part in parts))
    return Amount(hours, HOURS, variant, source, written=hours * BYTES_AN_HOUR)


def pretrain_ssl(study: Study, wildcards: dict[str, str]) -> Amount:
    """Steps."""
    entry: dict[str, Any] = study.config["pretraining"][wildcards["pretrained"]]
    return Amount(
        entry["steps"], "steps", variants.pretraining_variant(study.config, entry), "config"
    )
