# make demo and make test each do everything on a machine that has Python 3.11+ with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install demo test lint types layers docs docs-check pytest report clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("thr_probe needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/thr-probe demo --out demo --overwrite

test: lint layers types docs-check pytest

lint: install
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

layers: install
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

docs: install
	$(BIN)/python -m thr_probe.cli.docs

docs-check: install
	$(BIN)/python -m thr_probe.cli.docs --check

pytest: install
	$(BIN)/pytest --numprocesses 2 --dist worksteal --quiet

report: install
	$(BIN)/python reports/make_report.py

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
