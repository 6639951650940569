"""What the jobs on speaker encoders, verification, mixtures and separation are made of.

A function a rule, by its name: the study and the wildcards of a job give its amount.
"""

import math

import numpy as np

from etaflow.corpora import sizes
from etaflow.manifest import shard_names
from etaflow.planning import variants
from etaflow.planning.speech import UNKNOWN
from etaflow.planning.study import Amount, Study

# --- speaker encoders and verification


def train_speaker_encoder(study: Study, wildcards: dict[str, str]) -> Amount:
    """Steps; of epochs, no more than all training utterances make."""
    entry = study.config["encoders"][wildcards["encoder"]]
    variant = variants.encoder_variant(study.config, entry)
    if "steps" in entry:
        return Amount(
            entry["steps"], "steps", variant, "config", at_most=entry["patience"] is not None
        )
    given = entry["corpus"]
    corpora = [given] if isinstance(given, str) else given
    counts = [study.whole(name, "train").utterances for name in corpora]
    if None in counts:
        return Amount(None, "steps", variant, UNKNOWN)
    batch = entry["speakers"] * entry["utterances"]
    steps = math.ceil(entry["epochs"] * sum(count or 0 for count in counts) / batch)
    # The validation speakers are no part of the epochs.
    return Amount(steps, "steps", variant, "config and utterances", at_most=True)


def make_trials(study: Study, wildcards: dict[str, str]) -> Amount:
    """Trials."""
    return _trials(study, wildcards["trials"], "")


def score_verification(study: Study, wildcards: dict[str, str]) -> Amount:
    """Trials."""
    system = study.config["verification"]["systems"][wildcards["verifier"]]
    how = "as-norm" if system.get("as_norm") else "average" if "average" in system else ""
    return _trials(study, wildcards["trials"], how)


def score_calibrated(study: Study, wildcards: dict[str, str]) -> Amount:
    """Trials."""
    return _trials(study, wildcards["trials"], "calibrated")


def _trials(study: Study, name: str, variant: str) -> Amount:
    entry = study.config["verification"]["trials"][name]
    if "list" in entry:
        known = sizes.TRIALS.get(entry["list"])
        source = "VoxCeleb's cleaned lists" if known else "a list of the user's, not read"
        return Amount(known, "trials", variant, source)
    counts = [entry["targets"], entry["nontargets"]]
    if None not in counts:
        return Amount(sum(counts), "trials", variant, "config")
    table = study.corpora[entry["corpus"]].table(entry["split"])
    if table is None:
        return Amount(None, "trials", variant, UNKNOWN)
    own = table.groupby("speaker_id", sort=False).size().to_numpy()
    same = own * (own - 1) // 2
    if entry["across_sessions"]:
        sessions = table.groupby(["speaker_id", "session_id"], sort=False).size()
        within = (sessions * (sessions - 1) // 2).groupby("speaker_id", sort=False).sum()
        several = table.groupby("speaker_id", sort=False)["session_id"].nunique() > 1
        same = same - np.where(several.to_numpy(), within.to_numpy(), 0)
    pairs = len(table) * (len(table) - 1) // 2 - int((own * (own - 1) // 2).sum())
    found = [int(same.sum()) if counts[0] is None else counts[0]]
    found.append(pairs if counts[1] is None else counts[1])
    return Amount(sum(found), "trials", variant, "config and manifests")


# --- mixtures and separation


def _parts(study: Study, name: str, part: str) -> tuple[float | None, float | None, str]:
    """Mixtures of a part, their hours (at most, where published) and the source."""
    entry = study.config["mixtures"][name]
    if "metadata" not in entry:
        return entry["counts"][part], None, "config"
    tables = entry["metadata"][part]
    if any(table not in sizes.MIXTURES for table in tables):
        return None, None, "a table of the user's, not read"
    counts, hours = zip(*(sizes.MIXTURES[table] for table in tables), strict=True)
    return float(sum(counts)), float(sum(hours)), "LibriMix paper, hours of mode max"


def draw_mixtures(study: Study, wildcards: dict[str, str]) -> Amount:
    """Mixtures of a part."""
    count, _, source = _parts(study, wildcards["mixtures"], wildcards["part"])
    return Amount(count, "mixtures", "", source)


def mix_speakers(study: Study, wildcards: dict[str, str]) -> Amount:
    """Mixtures of a shard; they and their parts are written."""
    name, part = wildcards["mixtures"], wildcards["part"]
    entry = study.config["mixtures"][name]
    count, hours, source = _parts(study, name, part)
    shards = len(shard_names(entry["shards"]))
    files = entry["speakers"] + 1 + (entry["kind"] != "clean")
    width = {"wav": 4, "flac": 3}[entry["format"]]
    variant = f"{entry['speakers']} speakers {entry['kind']} {entry['sample_rate']} Hz"
    bytes_an_hour = 3600 * entry["sample_rate"] * files * width
    written = None if hours is None else hours / shards * bytes_an_hour
    value = None if count is None else count / shards
    return Amount(value, "mixtures", variant, source, written=written)


def train_separator(study: Study, wildcards: dict[str, str]) -> Amount:
    """Steps."""
    entry = study.config["separators"][wildcards["separator"]]
    variant = variants.separator_variant(study.config, entry)
    stops = entry["patience"] is not None
    return Amount(entry["steps"], "steps", variant, "config", at_most=stops)


def separate(study: Study, wildcards: dict[str, str]) -> Amount:
    """Test mixtures; estimates are written."""
    name = wildcards["mixtures"]
    count, hours, source = _parts(study, name, "test")
    system = study.config["separation"]["systems"][wildcards["demixer"]]
    entry = study.config["mixtures"][name]
    label = variants.model_label(study.config, system["separator"])
    bytes_an_hour = 3600 * entry["sample_rate"] * entry["speakers"] * 4
    written = None if hours is None else hours * bytes_an_hour
    variant = f"{label} {entry['sample_rate']} Hz"
    return Amount(count, "mixtures", variant, source, written=written)


def score_separation(study: Study, wildcards: dict[str, str]) -> Amount:
    """Test mixtures."""
    name = wildcards["mixtures"]
    count, _, source = _parts(study, name, "test")
    speakers = study.config["mixtures"][name]["speakers"]
    return Amount(count, "mixtures", f"{speakers} speakers", source)
