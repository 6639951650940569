"""What a run will take: jobs, processor-hours, disk and memory, before anything is spent.

The one part of the library that knows Snakemake, the names of the rules and the config. `jobs` asks
Snakemake what it would run, `speech` counts corpora, `amounts` says what each job is made of,
`rates` what a unit of that took where it was measured, and `table` puts them side by side.
"""

from etaflow.planning.table import plan_table

__all__ = ["plan_table"]
