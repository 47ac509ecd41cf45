# Everything runs in .venv, which the first target creates from constraints.txt. `make` alone lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.heliostat-installed
SOURCES := scheduler jobs serving platform
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help demo test lint e2e sim fuzz mutants bench clean install wheel

help:  ## List the targets
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-9s %s\n", $$1, $$2}'

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Heliostat needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11.")'
	@echo "Installing into $(VENV): about 190 packages, 350 MB to download where pip finds a CPU build of torch, about 3 GB with PyPI's CUDA build on Linux."
	@echo "Without a GPU, take the small one: PIP_EXTRA_INDEX_URL=<PyTorch's CPU wheel index> make (see docs/install.md)."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@start=$$(date +%s); $(BIN)/python -m pip install --quiet --upgrade pip && \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[server,jobs,serving,dev]' && \
	  echo "Installed in $$(( $$(date +%s) - start )) s."
	@touch $@

install: $(STAMP)  ## Create .venv from constraints.txt

demo: $(STAMP)  ## Three acts on logical GPUs: preemption, elastic training, a model behind HTTP; about four minutes
	$(BIN)/helio demo $(ARGS)

test: $(STAMP)  ## Unit tests, then those that start Ray, but for the slow ones
	$(BIN)/python -m pytest -q tests --ignore=tests/e2e -m 'not slow'
	$(BIN)/python -m pytest -q tests/e2e -m 'not slow'

lint: $(STAMP)  ## ruff, mypy --strict, import contracts, layout guard
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES) tests benchmarks
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.layout_guard

e2e: $(STAMP)  ## The slow tests without Ray, then all that start Ray (about an hour)
	$(BIN)/python -m pytest -q tests --ignore=tests/e2e -m slow
	$(BIN)/python -m pytest -q tests/e2e

sim: $(STAMP)  ## Replay the shared scheduling scenarios
	$(BIN)/python -m heliostat_scheduler.simulator scenarios tests/simulation/scenarios.yaml

fuzz: $(STAMP)  ## 100,000 cycles of seeded faults, each followed by the fixpoint check; ARGS="--seed 7 --cycles 5000"
	$(BIN)/python -m heliostat_scheduler.simulator fuzz $(ARGS)

mutants: $(STAMP)  ## 200 mutants of the engine drawn by seed, and which of them the tests kill; ARGS="--number 20"
	$(BIN)/python -m tests.mutants $(ARGS)

bench: $(STAMP)  ## Platform benchmark beside its baselines; ARGS="--quick" for a short one
	$(BIN)/python -m benchmarks.platform $(ARGS)

wheel: $(STAMP)  ## Build the wheel that every node of a cluster installs
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## Remove caches and .venv (never $$HELIOSTAT_HOME)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build mutants
