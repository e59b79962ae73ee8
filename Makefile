# mien: `make demo` and `make test` set up everything they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# FER-2013 for the tests that need it; they skip where it is absent.
export MIEN_DATA ?= $(abspath $(CURDIR)/../shared/data)

.PHONY: help demo test lint docs bench release-check clean

help:
	@echo "make demo           read the example picture, write demo/report.html"
	@echo "make test           lint, types and the whole suite"
	@echo "make lint           ruff and mypy alone"
	@echo "make docs           write the generated pages of docs/ again"
	@echo "make bench          measure mien on this machine"
	@echo "make release-check  the long checks as well, and the built wheel"

# The core alone: what `pip install mien` brings.
$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

# The lab and the tools of development on top.
$(VENV)/all: $(VENV)/core
	$(PIP) -e ".[lab,dev]"
	@touch $@

demo: $(VENV)/core
	@mkdir -p demo
	@$(BIN)/mien predict examples/astronaut.png --html demo/report.html --save demo
	@echo "The report: demo/report.html (open it in a browser); the annotated picture: demo/astronaut.mien.png"

test: $(VENV)/all lint
	$(BIN)/python -m pytest

lint: $(VENV)/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/all
	$(BIN)/python tools/write_docs.py
	$(BIN)/python tools/write_claims.py

bench: $(VENV)/all
	$(BIN)/mien benchmark

release-check: $(VENV)/all lint
	$(BIN)/python -m pytest -m "release or not release"

clean:
	rm -rf $(VENV) demo build dist *.egg-info src/*.egg-info .pytest_cache .ruff_cache .mypy_cache
