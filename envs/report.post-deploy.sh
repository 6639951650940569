#!/usr/bin/env bash
# Written by `python -m tests.environments`. Snakemake runs it in the new environment.
set -euo pipefail
if ! grep -qs '^name = "etaflow"' pyproject.toml; then
  echo "etaflow is installed from its folder: run snakemake --sdm conda there" >&2
  exit 1
fi
pip install --no-deps --editable .
