# `make demo` and `make test` work on a fresh clone with Python 3.11 or newer and make; everything lands in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread a process is many times faster than two on busy cores, and byte-equal results need pinned threads.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Test processes; `make test WORKERS=0` runs all tests in one.
WORKERS ?= auto
TESTS := $(ONE_THREAD) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: help setup demo demo-text test test-all lint types format notebooks docs benchmarks clean

help:
	@echo "make demo        steer the shipped text-to-image model; writes outputs/demo/report.html"
	@echo "make demo-text   steer the shipped text model; writes outputs/demo_text/report.html (under 2 minutes)"
	@echo "make test        ruff, mypy, import rules and the quick tests (minutes)"
	@echo "make test-all    the same with the slow tests, the notebooks and the site"
	@echo "make docs        the guides and the API reference as a site: outputs/site/index.html"
	@echo "make benchmarks  the figures of the README (about an hour)"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fklit needs Python 3.11 or newer; set PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Installed again only when the project's metadata or the pins change.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs,notebooks]'
	touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/python -m fklit.demo

demo-text: setup
	$(ONE_THREAD) $(BIN)/python -m fklit.demo.text

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

test: lint types
	$(TESTS) -m "not slow"

notebooks: setup
	$(ONE_THREAD) $(BIN)/python -m pytest --nbmake --nbmake-timeout=900 notebooks

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test-all: lint types
	$(TESTS) --durations=25 --nbmake --nbmake-timeout=900 tests notebooks

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmarks: setup
	$(BIN)/python benchmarks/steering.py
	$(BIN)/python benchmarks/overhead.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis outputs
