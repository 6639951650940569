"""What systems do with more or less speech of the target."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from etaflow.evaluation.tables import read_converted

METRICS = ["wer", "eer_per_target", "similarity_target", "dnsmos"]


def reference_table(
    entries: Iterable[tuple[str, str, Path]], metrics: pd.DataFrame
) -> pd.DataFrame:
    """A row a figure: `base asked seconds targets short metric value low high weights`.

    `seconds` is the median over targets of the reference really used, `short` how many of the
    `targets` had less than was asked.

    Args:
        entries: base system, seconds asked for (or `all`), folder of the system made so.
        metrics: of all systems, as `metrics_table` makes them, with figures as numbers.

    Raises:
        ValueError: a system's table does not say how much reference was used.
    """
    rows = []
    for base, asked, folder in entries:
        table = read_converted(folder / "converted.tsv")
        if "reference_seconds" not in table:
            raise ValueError(
                f"{folder / 'converted.tsv'}: no column reference_seconds; run the rule convert"
            )
        table["reference_seconds"] = table["reference_seconds"].astype(float)
        used = table.groupby("target_speaker")["reference_seconds"].median()
        # A frame less is no lack.
        short = 0 if asked == "all" else int((used < float(asked) - 0.1).sum())
        shared = {
            "base": base,
            "asked": asked,
            "seconds": used.median(),
            "targets": len(used),
            "short": short,
        }
        found = metrics[(metrics["system"] == folder.name) & metrics["metric"].isin(METRICS)]
        columns = ["metric", "value", "low", "high", "weights"]
        rows += [shared | figures for figures in found[columns].to_dict("records")]
    return pd.DataFrame(rows)
