# Needs Python >= 3.11 and a package index; everything else goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# pytest-xdist: one worker a core, two at most, since the tests themselves use the cores.
JOBS ?= 2

.PHONY: demo test lint docs bench fuzz kills

demo: $(VENV)/ready
	$(BIN)/wszoo fit-inrs digits --out zoos/digits-inrs
	$(BIN)/wszoo show zoos/digits-inrs --out samples.png
	$(BIN)/wszoo train classify zoos/digits-inrs --model probe --out runs/digits-probe
	@echo "The zoo is in zoos/digits-inrs, and samples.png shows some of it. A model that reads it"
	@echo "is in runs/digits-probe; its figures/confusion.png shows what it takes for what."

test: $(VENV)/ready
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site, in site/; `mkdocs serve` shows it while it is written.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/docs: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

# Seeded; SECONDS, or counts: make fuzz COUNTS='--zoos 100000 --imports 20000 --runs 2000 --builds 500'.
SECONDS ?= 180
SEED ?= 0
COUNTS ?= --seconds $(SECONDS)
fuzz: $(VENV)/ready
	$(BIN)/python -m hostile.fuzz --seed $(SEED) $(COUNTS)

# 1,000 kill -9 and 200 SIGTERM; fewer: make kills KILLS=100 TERMS=20.
KILLS ?= 1000
TERMS ?= 200
kills: $(VENV)/ready
	$(BIN)/python -m hostile.kills --seed $(SEED) --kills $(KILLS) --terms $(TERMS)

bench: $(VENV)/ready
	$(BIN)/python benchmarks/fitting.py
	$(BIN)/python benchmarks/shapes.py
	$(BIN)/python benchmarks/recipes.py
	$(BIN)/python benchmarks/classifiers.py
	$(BIN)/python benchmarks/storage.py
	$(BIN)/python benchmarks/processors.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/cluster.py

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "wszoo needs Python >= 3.11; choose one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
