# Everything a person needs to run or change Cherry. `make help` lists it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
RUNS   := $(VENV)/.runs
NEEDED := train,graders,embedded,demo
EXTRAS := $(NEEDED),dev,docs
OLDER  := .venv-older
OLDEST := 'torch==2.11.*' 'transformers==5.17.*'
# What transformers 5.17 does otherwise (docs/models.md): gpt-oss' channels, LFM2.5's earlier thoughts, the page of families.
NEWER  := gpt-oss or gptoss or lfm2_2_5 or test_masks_wait_for_the_thoughts or its_page_has_each_family

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_NO_ADVISORY_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-real up docs docs-serve test test-long test-older browser check fmt lint types fast families bench-engine bench-scale bench-api bench-upload bench-followers bench-json bench-dashboard bench-graders bench-stability bench-long-runs bench-rank bench-gpu-counts bench-gold sandbox-soak soak fuzz fuzz-tests conformance node-client vllm test-vllm gate-webhooks clean bench-sampler gguf

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Cherry needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 ..."; exit 1; }
	@echo "Making $(VENV) (some seconds) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip

# What runs Cherry, and nothing that only changes it: the developers' tools are in $(STAMP).
$(RUNS): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what Cherry runs on, into $(VENV): PyTorch, transformers, Postgres, Valkey. It is done once. PyTorch is most of"
	@echo "it: 0.2 GB where pip finds its build for CPUs, some GB with CUDA's libraries (README.md, Install, says how to choose)."
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --constraint constraints.txt --editable '.[$(NEEDED)]'
	@echo "Installed. The first job compiles kernels for this machine, once (10 to 20 s)."
	@touch $@

$(STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $(RUNS) $@

setup: $(STAMP) ## make .venv with everything in it, developers' tools too

demo: $(RUNS) ## train the built-in model for real and show before and after (KEEP=1 leaves it running)
	@$(BIN)/python -m examples.demo $(if $(KEEP),--keep)

demo-real: $(RUNS) ## the same on a real model, SmolLM2-135M-Instruct, which is fetched (93 MB; KEEP=1 leaves it running)
	@$(BIN)/python -m examples.demo_real $(if $(KEEP),--keep)

up: $(RUNS) ## the whole service on this machine
	@$(BIN)/cherry up

test: $(STAMP) browser ## every test but the long ones, under twelve minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not long'

test-long: $(STAMP) ## the long ones: whole trainings, killed processes, gates (well over half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long

test-older: ## the engine's tests with the oldest torch and transformers that it works with (5 GB; half an hour)
	test -x $(OLDER)/bin/python || $(PYTHON) -m venv $(OLDER)
	grep -vE '^(torch|transformers|huggingface_hub|triton|setuptools)==' constraints.txt > $(OLDER)/constraints.txt
	$(OLDER)/bin/python -m pip install --quiet --constraint $(OLDER)/constraints.txt --editable '.[$(EXTRAS)]' $(OLDEST)
	OMP_NUM_THREADS=1 $(OLDER)/bin/python -m pytest -n 2 --dist loadfile -m 'not long' -k 'not ($(NEWER))' tests/gpu tests/workers/training

browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	  else echo "No Chromium here: the browser tests will skip. Install it with your package manager."; fi

check: lint types fast ## format, lint, types, import contracts, fast tests

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

docs: $(STAMP) ## the documentation as a site, in .site/html; a link that leads nowhere fails (5 s; docs-serve shows it)
	$(BIN)/python -m scripts.site

docs-serve: $(STAMP)
	$(BIN)/python -m scripts.site serve

types: $(STAMP)
	$(BIN)/mypy

fast: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not e2e and not long'

fmt: $(STAMP) ## format and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

families: $(STAMP) ## every family of models by every method, and the table of docs/models.md (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.families

bench-engine: $(STAMP) ## the training engine beside stock TRL, under half an hour on one core (QUICK=1: 3 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.engine $(if $(QUICK),--quick)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.engine.thoughts
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.engine.episodes

LLAMA_ENV ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cherry/llama-cpp-python-0.3.36
LLAMA_FLAGS := -DGGML_NATIVE=ON -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF

$(LLAMA_ENV)/.installed:
	$(PYTHON) -m venv $(LLAMA_ENV)
	CMAKE_ARGS="$(LLAMA_FLAGS)" nice -n 10 $(LLAMA_ENV)/bin/python -m pip install --quiet llama-cpp-python==0.3.36 gguf==0.19.0
	@touch $@

bench-sampler: $(STAMP) $(LLAMA_ENV)/.installed ## our sampler beside transformers and llama.cpp, which is built once (STORIES260K_MODEL=, SMOLLM2_MODEL=: folders)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sampler --llama $(LLAMA_ENV)/bin/python --flags="$(LLAMA_FLAGS)"

gguf: $(STAMP) $(LLAMA_ENV)/.installed ## GGUF files in llama.cpp itself, which is built once (CHERRY_SHARED=, SMOLLM2_MODEL=: folders)
	OMP_NUM_THREADS=1 CHERRY_TEST_LLAMA_PYTHON=$(LLAMA_ENV)/bin/python $(BIN)/python -m pytest -q tests/workers/exports/gguf tests/app/cli/test_gguf_models.py

bench-scale: $(STAMP) ## step time and memory as sizes grow, with a chart
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scale --out docs/images/scale.svg

bench-api: $(STAMP) ## the API under load: calls a second, waiting times, memory, a million grades (3 minutes)
	$(BIN)/python -m benchmarks.api

bench-upload: $(STAMP) ## a gigabyte in, whole and in parts, and out again; fails if the API's memory grows
	$(BIN)/python -m benchmarks.api.upload

bench-followers: $(STAMP) ## a thousand clients that follow jobs live; fails if one misses an event or hangs at the stop
	$(BIN)/python -m benchmarks.followers

bench-dashboard: $(STAMP) browser ## the page of a job of 10,000 steps: the server's time for its curves, and Chromium's to draw them
	$(BIN)/python -m benchmarks.dashboard

bench-json: $(STAMP) ## what reading lines strictly costs beside json.loads
	$(BIN)/python -m benchmarks.strict_json

bench-graders: $(STAMP) ## python graders from the warm pool beside one process a call, the built-in kinds, and rubrics beside their calls
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.graders

bench-gpu-counts: $(STAMP) ## kernels, graphs, waits and copies that a GPU would be asked for, counted without one (2 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.gpu_counts

bench-gold: $(STAMP) ## how soon the gap to a gold judge tells of a judge that can be talked to, 2 judges x 3 seeds (ten minutes; CHERRY_SHARED=)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.gold_gap

bench-stability: CHUNK ?= 1200
bench-stability: $(STAMP) ## hundreds of jobs on good and bad data, TRL beside them, in chunks of 20 minutes that resume (ONLY=ours|trl|coin|smol, CHUNK=seconds)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.stability run --chunk-seconds $(CHUNK) $(if $(ONLY),--only $(ONLY))
	@$(BIN)/python -m benchmarks.stability report

bench-rank: $(STAMP) ## training by `rank`, with a judge that knows, beside the exact grader: two story tasks, three seeds (10 minutes on one core)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.rank

bench-long-runs: CHUNK ?= 1200
bench-long-runs: $(STAMP) ## 48 rows for 200 epochs beside 20, 4 tasks x 3 seeds, in chunks of 20 minutes that resume (CHUNK=seconds)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.long_runs run --chunk-seconds $(CHUNK)
	@$(BIN)/python -m benchmarks.long_runs report

sandbox-soak: $(STAMP) ## the sandbox: mixed tenants, killed owners, 100,000 grades, forged answers (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sandbox_soak

soak: $(STAMP) ## 2,000 training steps; fails if memory grows
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak --steps 2000

fuzz: $(STAMP) ## 200 made-up requests for each operation of the API, every hostile value of each parameter, 10,000 hostile bodies, 20,000 hostile lines
	CHERRY_FUZZ_EXAMPLES=200 $(BIN)/python -m pytest -q tests/app/http/test_fuzz.py
	CHERRY_HOSTILE_VALUES=1000 $(BIN)/python -m pytest -q tests/app/http/test_parameters.py
	CHERRY_HOSTILE_BODIES=10000 CHERRY_HOSTILE_LINES=20000 $(BIN)/python -m pytest -q tests/app/http/test_hostile.py

fuzz-tests: SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
fuzz-tests: $(STAMP) ## property tests on new examples, 50 times as many (half an hour; SEED=n repeats a run)
	@echo "make fuzz-tests SEED=$(SEED)"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'hypothesis and not e2e' --ignore tests/app/http/test_fuzz.py \
	  --hypothesis-profile fuzz --hypothesis-seed $(SEED) || { echo "To repeat it: make fuzz-tests SEED=$(SEED)"; exit 1; }

conformance: $(STAMP) ## the official client's own test suite against this service
	$(BIN)/python -m scripts.conformance

node-client: $(STAMP) ## OpenAI's client for Node against this service (needs node and npm)
	$(BIN)/python -m scripts.node

vllm: $(STAMP) ## a real vLLM server behind this service, in an environment of its own (3.5 GB; VLLM_FOLDER=)
	$(BIN)/python -m scripts.vllm $(if $(VLLM_FOLDER),--folder $(VLLM_FOLDER))

test-vllm: $(STAMP) ## rollouts by a real vLLM server, in the same environment (ten minutes; VLLM_FOLDER=)
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.vllm --rollouts $(if $(VLLM_FOLDER),--folder $(VLLM_FOLDER))

gate-webhooks: $(STAMP) ## a receiver that fails, a relay that is killed: every event arrives
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s tests/e2e/test_webhook_gate.py

clean: ## remove the virtual environments and caches (not your data)
	rm -rf $(VENV) $(OLDER) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
