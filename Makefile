# Cupola's front door. `make` alone lists the targets.
#
#   make serve    everything from a clean clone to a chat page
#   make test     the same set-up, then the tests

PYTHON ?= python3
VENV ?= .venv
GOLDENS_VENV ?= .venv-goldens
MODEL ?= smollm2
HOST ?= 127.0.0.1
PORT ?= 8000
PYTEST_ARGS ?=
GPU_DEVICE ?= webgpu
BENCH_ARGS ?=
PIP ?= $(BIN)/python -m pip
PINNED := scripts/constraints.txt
GOLDENS_PINNED := scripts/goldens/constraints.txt

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := $(VENV)/bin
MADE := $(VENV)/.made
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.tools
GOLDENS_READY := $(GOLDENS_VENV)/.installed
GOLDENS_IN := build/goldens/inputs
GOLDENS_NEW := build/goldens/new
CONFORMANCE := build/conformance
CONFORMANCE_READY := $(patsubst %,$(CONFORMANCE)/%/.installed,clients clients-openai2 node) $(CONFORMANCE)/jsonschema/.unpacked

CPP := $(shell find cpp -name '*.h' -o -name '*.cc')

.PHONY: help venv environments install serve test test-families chaos families-gpu conformance lint format bench goldens goldens-check sanitize check-install check-serve clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | \
	  while IFS=$$'\t' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done
	@printf '\n  variables: MODEL=%s HOST=%s PORT=%s PYTHON=%s VENV=%s PYTEST_ARGS=\n' \
	  '$(MODEL)' '$(HOST)' '$(PORT)' '$(PYTHON)' '$(VENV)'

# --- set-up ---------------------------------------------------------------------------------------------------------

$(MADE):
	@command -v $(PYTHON) > /dev/null || \
	  { echo "error: $(PYTHON) is not installed; hint: install Python 3.11 or later (apt-get install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), but Cupola needs Python 3.11 or later; hint: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
	  { echo "error: $(PYTHON) cannot make virtual environments; hint: apt-get install python3-venv" >&2; exit 1; }
	@command -v $${CXX:-c++} > /dev/null || \
	  { echo "error: there is no C++ compiler ($${CXX:-c++}); hint: apt-get install g++, or set CXX" >&2; exit 1; }
	@echo "Making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Without build isolation the build folder is good for the next time, so that an edit compiles one file and not all.
$(INSTALLED): pyproject.toml CMakeLists.txt $(PINNED) $(CPP) | $(MADE)
	@echo "Installing Cupola and what it needs into $(VENV)"
	@$(PIP) install --disable-pip-version-check --quiet -c $(PINNED) -r <($(BIN)/python scripts/requirements.py build)
	@$(PIP) install --disable-pip-version-check --quiet -c $(PINNED) --no-build-isolation -e .
	@touch $@

$(TOOLS): pyproject.toml $(PINNED) | $(INSTALLED)
	@echo "Installing the tools for tests and checks into $(VENV)"
	@$(PIP) install --disable-pip-version-check --quiet -c $(PINNED) -r <($(BIN)/python scripts/requirements.py test dev)
	@touch $@

venv: $(MADE)  ## make the virtual environment
environments: $(INSTALLED) $(TOOLS) $(GOLDENS_READY) $(CONFORMANCE_READY)  ## make all environments of all checks
install: $(INSTALLED)  ## install Cupola into it (again only when pyproject.toml, CMakeLists.txt or cpp/ changed)

# --- use ------------------------------------------------------------------------------------------------------------

serve: $(INSTALLED)  ## serve MODEL on HOST:PORT with a chat page (fetches and compiles it the first time)
	@exec $(BIN)/cupola serve $(MODEL) --host $(HOST) --port $(PORT)

bench: $(INSTALLED)  ## measure the server against llama.cpp and others (installs them), write docs/performance.md
	@$(BIN)/python scripts/compare_peers.py $(BENCH_ARGS)

bench-embeddings: $(INSTALLED) $(GOLDENS_READY)  ## measure embeddings against sentence-transformers, write docs/embeddings.md
	@$(BIN)/python scripts/compare_embeddings.py --python $(GOLDENS_VENV)/bin/python $(BENCH_ARGS)

# --- checks ---------------------------------------------------------------------------------------------------------

test: $(INSTALLED) $(TOOLS)  ## all fast tests, also those on the real model
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

families-gpu: $(INSTALLED) $(TOOLS)  ## every family and encoder, on GPU_DEVICE (webgpu or opencl), against transformers
	@CUPOLA_GPU_FAMILIES=all CUPOLA_GPU_DEVICE=$(GPU_DEVICE) $(BIN)/python -m pytest -m '' tests/gpu/test_gpu_families.py \
	  tests/gpu/test_gpu_windows.py tests/gpu/test_gpu_encoders.py tests/kernels/gpu/test_gpu_attention_units.py \
	  tests/kernels/gpu/test_cuda_attention.py tests/kernels/gpu/test_gpu_latent_units.py $(PYTEST_ARGS)

.PHONY: cuda-engine
cuda-engine: $(INSTALLED) $(TOOLS)  ## the whole engine on TVM's runtime for CUDA, over an interpreter of PTX (needs nvcc)
	@$(BIN)/python tests/cuda/cuda_stand_in.py $(BIN)/python -m pytest -m cuda_engine \
	  --numprocesses 2 --dist loadfile tests/cuda/engine $(PYTEST_ARGS)

test-families: $(INSTALLED) $(TOOLS)  ## every family's tiny model against transformers (f32, q8, q4) and llama.cpp; minutes
	@$(BIN)/python -m pytest -m '' tests/numerics/test_families.py tests/numerics/test_llama_cpp.py \
	  tests/numerics/test_quantized_families.py $(PYTEST_ARGS)

cuda-executed: $(INSTALLED) $(TOOLS)  ## CUDA's kernels on the interpreter of PTX (tests/ptx), against NumPy; needs nvcc; minutes
	@$(BIN)/python -m pytest -m '' tests/ptx tests/kernels/gpu/test_cuda_executed.py \
	  tests/kernels/gpu/test_cuda_executed_attention.py tests/kernels/gpu/test_cuda_executed_products.py $(PYTEST_ARGS)

.PHONY: opencl-checked
opencl-checked: $(INSTALLED) $(TOOLS)  ## a tiny model on OpenCL under oclgrind: races between threads, places outside of tensors
	@$(BIN)/python -m pytest -m '' tests/gpu/test_opencl_checked.py $(PYTEST_ARGS)

chaos: $(INSTALLED) $(TOOLS)  ## faults, overload and clients that leave, at full size; prints what it measured
	@CUPOLA_CHAOS=full $(BIN)/python -m pytest tests/chaos $(PYTEST_ARGS)

conformance: $(INSTALLED) $(TOOLS) $(CONFORMANCE_READY)  ## run other people's clients against the server, write docs/conformance.md
	@$(BIN)/python scripts/conformance/run.py

lint: $(INSTALLED) $(TOOLS)  ## style, types, import rule, C++ format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(INSTALLED) $(TOOLS)  ## bring all files into format
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format
	@$(BIN)/clang-format -i $(CPP)

sanitize: $(INSTALLED) $(TOOLS)  ## tests of the native engine under the address, undefined and thread sanitizers
	@PATH="$(abspath $(BIN)):$$PATH" scripts/sanitize

check-install:  ## `pip install .` into an empty environment: it works, and pulls neither torch nor CUDA
	@PYTHON=$(PYTHON) scripts/check_install

check-serve: $(INSTALLED)  ## start the server twice: it answers, is ready soon the second time, ends on SIGTERM
	@scripts/check_serve

# --- conformance: clients in environments of their own; everything is pinned, so that pip has nothing to resolve -------

$(CONFORMANCE)/clients/.installed: scripts/conformance/requirements.txt
$(CONFORMANCE)/clients-openai2/.installed: scripts/conformance/requirements-openai2.txt
$(CONFORMANCE)/%/.installed:
	@$(PYTHON) -m venv $(@D)
	@echo "Installing clients into $(@D)"
	@$(@D)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-compile -r $<
	@touch $@

$(CONFORMANCE)/node/.installed: scripts/conformance/package.json scripts/conformance/package-lock.json
	@mkdir -p $(@D)
	@echo "Installing clients into $(@D)"
	@cp $^ $(@D)
	@if command -v npm > /dev/null && npm ci --prefix $(@D) --silent --no-audit --no-fund; then touch $@; else \
	  echo "warning: npm or its registry is not there; its clients are left out; hint: apt-get install nodejs npm" >&2; fi

# The official test suite of JSON Schema is part of this package's source, but not of what pip installs.
$(CONFORMANCE)/jsonschema/.unpacked: $(CONFORMANCE)/clients/.installed
	@mkdir -p $(@D)
	@$(<D)/bin/python -m pip download --disable-pip-version-check --quiet --no-deps --no-build-isolation \
	  --no-binary jsonschema --dest $(@D) $$(grep -x 'jsonschema==.*' scripts/conformance/requirements.txt)
	@tar --extract --gzip --strip-components=1 --file $$(ls $(@D)/*.tar.gz) --directory $(@D)
	@touch $@

# --- goldens: what transformers and torch compute, in an environment of their own -----------------------------------

# By the environment, because some of these packages are built, where pip looks for nothing on the command line.
$(GOLDENS_READY): scripts/goldens/requirements.txt $(GOLDENS_PINNED)
	@$(PYTHON) -m venv $(GOLDENS_VENV)
	@echo "Installing torch and transformers into $(GOLDENS_VENV)"
	@PIP_CONSTRAINT=$(abspath $(GOLDENS_PINNED)) PIP_BUILD_CONSTRAINT=$(abspath $(GOLDENS_PINNED)) \
	  $(GOLDENS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet -r scripts/goldens/requirements.txt
	@touch $@

.PHONY: goldens-new bench-embeddings
goldens-new: $(INSTALLED) $(GOLDENS_READY)
	@PYTHONPATH=tests:tests/weights $(BIN)/python scripts/goldens/inputs.py $(GOLDENS_IN)
	@PYTHONPATH=tests $(GOLDENS_VENV)/bin/python scripts/goldens/write.py --out $(GOLDENS_NEW) \
	  --gguf $(GOLDENS_IN)/model.gguf --tokenizer $(GOLDENS_IN)/tokenizer.json \
	  --encoder $(GOLDENS_IN)/encoder --gemma3 $(GOLDENS_IN)/gemma3 \
	  --family-files $(GOLDENS_IN)/families

goldens: goldens-new  ## write tests/goldens anew with transformers and torch
	@cp -r $(GOLDENS_NEW)/. tests/goldens/

goldens-check: goldens-new  ## write them elsewhere, and fail when they differ from tests/goldens
	@$(GOLDENS_VENV)/bin/python scripts/goldens/check.py tests/goldens $(GOLDENS_NEW)

.PHONY: lm-eval
lm-eval: $(INSTALLED) $(TOOLS) $(GOLDENS_READY)  ## lm-eval through /v1/completions and through torch: the same scores on the same weights
	@PYTHONPATH=tests:tests/weights $(BIN)/python scripts/goldens/inputs.py $(GOLDENS_IN)
	@PYTHONPATH=tests $(BIN)/python scripts/evaluation/compare.py --evaluator $(GOLDENS_VENV)/bin/python \
	  --inputs $(GOLDENS_IN) --out build/lm-eval

.PHONY: targets
targets: $(INSTALLED) $(TOOLS)  ## compile for every target, emulate Arm, inspect the rest; write docs/targets.md
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python scripts/targets.py
	@CUPOLA_TARGET_ROWS=$(abspath build/targets/rows.json) $(BIN)/python -m pytest tests/device_checks $(PYTEST_ARGS)

clean:  ## remove the environments and everything built (not the cache of models)
	rm -rf $(VENV) $(GOLDENS_VENV) build dist artifacts .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .schemathesis
