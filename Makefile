# `make run` and `make test` do everything from a fresh clone: Python 3.11 or newer is all they need.
SHELL := bash
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
# Two files of tests at a time: many wait, for a cluster or for Snakemake to start.
PYTEST := OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
REPORT := results/mini/report.html
METRICS := $(addprefix results/mini/,$(addsuffix /metrics.tsv,conversion verification separation))

.PHONY: env run serve test test-fast lint format bench

env: $(VENV)/ready

$(VENV)/ready: envs/requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("etaflow needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	grep -v '^#' envs/requirements.txt | awk '{ print > ("$(VENV)/part." NR % 8) }'
	printf '%s\n' $(VENV)/part.? \
		| xargs -P 2 -n 1 pip install --quiet --no-deps --no-compile -r  # pip takes one core
	rm $(VENV)/part.?
	-python -m compileall -q -j 0 -x /tests/ $(VENV)/lib
	pip install --quiet --no-deps --editable .
	touch $@

# Manifests first: shards whose manifest comes out the same are then left alone, where there are any.
run: env
	[ ! -d results/mini ] || snakemake --cores $(CORES) --quiet rules -- manifests
	snakemake --cores $(CORES) --quiet rules
	@[ -f $(REPORT) ] && [ -z "$$(find results/mini/report rules/captions -newer $(REPORT))" ] \
		|| snakemake --cores 1 --quiet all --report $(REPORT)
	@python scripts/show_metrics.py $(METRICS)
	@echo "Report: $(REPORT)"

# The page at http://127.0.0.1:8000, of the bundle that `make run` makes.
serve: env
	snakemake --cores $(CORES) --quiet rules -- results/mini/bundle/config.json
	etaflow serve --bundle results/mini/bundle

# Not the files of most tests first: those of few take longest, and would leave one worker idle in the end.
test: test-fast
	$(PYTEST) --no-loadscope-reorder -m slow --durations=25

test-fast: env
	$(PYTEST) -m "not slow"

lint: env
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	mypy
	lint-imports
	snakemake --lint

format: env
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

bench: env
	python tests/bench.py
	python -m tests.bench_planning
	python -m tests.bench_rates
	python tests/bench_features.py
	python -m tests.bench_vocoder
	python tests/bench_training.py
	python -m tests.bench_verification
	python -m tests.bench_separation
	python -m tests.bench_serving
