#!/usr/bin/env bash
# Run by Snakemake inside the new environment, from the working directory (the project's folder).
set -euo pipefail
pip install --no-deps -r envs/requirements.txt
pip install --no-deps --editable .
