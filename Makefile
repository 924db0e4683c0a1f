# make serve: install what the service needs into .venv and serve the shipped models on :8000.
# make test:  install what the tests need and run them all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# onnxruntime and onnxruntime-gpu are one package under two names: take the one that this machine can use.
RUNTIME ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help serve test lint bench bench-gigapixel bench-gpu soak models report image-test lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

serve: $(VENV)/.serve  ## serve ./models on http://127.0.0.1:8000 (on the GPU if there is one)
	$(BIN)/python -m service

test: $(VENV)/.test $(VENV)/.kserve  ## run every test
	$(BIN)/python -m pytest

lint: $(VENV)/.test  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test  ## measure the service against its ceiling; writes benchmarks/results/
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.tiny
	$(BIN)/python -m benchmarks.ragged
	$(BIN)/python -m benchmarks.overload
	$(BIN)/python -m benchmarks.pooling
	$(BIN)/python -m benchmarks.protocol
	$(BIN)/python -m benchmarks.memory

bench-gpu: $(VENV)/.test  ## measure mixed sizes on a CUDA device; refuses where there is none
	@nvidia-smi -L >/dev/null 2>&1 || { echo "bench-gpu: expected an NVIDIA GPU, nvidia-smi shows none" >&2; exit 1; }
	$(BIN)/python -m pip uninstall --quiet --yes onnxruntime  # the same package under another name would be overwritten
	$(PIP) --editable '.[gpu]'
	$(BIN)/python -m benchmarks.gpu

bench-gigapixel: $(VENV)/.test  ## classify a JPEG of 40000×30000 (ten minutes on two cores, or more); writes benchmarks/results/
	$(BIN)/python -m benchmarks.gigapixel

soak: $(VENV)/.test  ## swap versions under 32 clients for ten minutes (SECONDS=60 for less); writes benchmarks/results/
	$(BIN)/python -m benchmarks.soak $(if $(SECONDS),--seconds $(SECONDS))

models: $(VENV)/.test  ## train and export everything in models/ (up to an hour on two cores)
	$(BIN)/python -m export models

report: $(VENV)/.test  ## measure the accuracy of the shipped models at every size; writes docs/accuracy.md and the README's table
	$(BIN)/python -m export report

image-test:  ## build the container (cpu target) without Docker and serve from it
	deploy/image-test

lock: $(VENV)/.test  ## write the versions that are installed now into constraints.txt; the GPU's, which are not here, stay
	{ $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; grep -E '^(nvidia-|onnxruntime-gpu)' constraints.txt; } \
	    | LC_ALL=C sort -fu > constraints.new && mv constraints.new constraints.txt

clean:  ## remove what make has made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[$(RUNTIME)]'
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[cpu,export,test]'
	touch $@ $(VENV)/.serve

# KServe's client wants another protobuf than we have, so it lives in an environment of its own.
$(VENV)/.kserve: $(VENV)/bin/python tests/e2e/kserve.txt
	$(PYTHON) -m venv $(VENV)/kserve
	$(VENV)/kserve/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/e2e/kserve.txt
	touch $@
