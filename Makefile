PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test lint proofs bench wheel clean

help:            ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

install: .venv/.installed   ## make .venv with everything a developer needs

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("aitrain needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q aitrain
	touch $@

demo: install    ## train a tiny model on built-in data; ends with a before/after table and a report
	$(BIN)/python -m aitrain recipes/demo.yaml

lint: install    ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint       ## lint, types and the whole suite
	$(BIN)/python -m pytest -n 2

proofs: install  ## the long proofs; results with their date belong in docs/proofs.md
	$(BIN)/python -m pytest proofs -s -p no:cacheprovider

bench: install   ## ratios against floors measured in the same run
	$(BIN)/python scripts/bench_cli.py --first-step
	$(BIN)/python scripts/bench_data.py

wheel: install   ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean:           ## remove what was built, not what was trained
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
