# Every target makes .venv first, once: Python 3.11 and git are all that a machine needs. `make` lists the targets.
PYTHON ?= python3.11
VENV ?= .venv
SEED ?= 1
SECONDS ?= 120
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLING := $(VENV)/.installing
PROTOCOL := shared/mammofed_shared/protocol

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-risk test faults check proto bench-exchange bench-preprocess fuzz fuzz-service clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: $(INSTALLED) ## install what is pinned into .venv; at once when nothing changed

# The pinned pip first: it resolves in half the time of the one that Python 3.11 brings.
# DS_BUILD_OPS=0: DeepSpeed compiles no kernels at installation, so that no CUDA compiler is needed.
# --build-constraint: what is built from source (DeepSpeed, this package) is built with pinned tools as well.
# compileall: on all cores, where pip uses one. Not left to the first import: a warning of the compiler about another
# package's source would then be an error in the tests.
# .installing: an interrupted pip leaves half a package behind that it later takes for a whole one, so the next call
# starts afresh.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
		{ echo "$(PYTHON) was not found. Install Python 3.11, or name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@if [ -e $(INSTALLING) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then $(PYTHON) -m venv --clear $(VENV); fi
	@rm -f $(INSTALLED) && touch $(INSTALLING)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --no-compile --progress-bar off \
		-c constraints.txt --build-constraint constraints.txt -e '.[dev,demo]'
	@$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true
	@mv $(INSTALLING) $(INSTALLED)

demo: $(INSTALLED) ## train three phantom hospitals together on this machine: make demo SEED=1
	$(BIN)/python -m mammofed_simulation.demo --seed $(SEED) --output demo-output/seed-$(SEED)

demo-risk: $(INSTALLED) ## two risk heads, an autoencoder and their reasons, after make demo: make demo-risk SEED=1
	$(BIN)/python -m mammofed_simulation.demo_risk --seed $(SEED)

test: check ## all checks, then all tests
	$(BIN)/python -m pytest

faults: $(INSTALLED) ## play every case of the fault matrix (up to 20 minutes) and write docs/reliability.md
	PYTHONPATH=tests $(BIN)/python -m faults.play

check: $(INSTALLED) ## lint, format, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

proto: $(INSTALLED) ## generate the protocol's Python files anew from federation.proto
	$(BIN)/python -m grpc_tools.protoc -I $(PROTOCOL) --python_out=$(PROTOCOL) --pyi_out=$(PROTOCOL) federation.proto

bench-exchange: $(INSTALLED) ## time the hand-off of a 715 MB state beside a bare gRPC stream
	$(BIN)/python tests/benchmarks/exchange.py

bench-preprocess: $(INSTALLED) ## time the intake of full-size images beside bare decoding, medip and the authors' steps
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python tests/benchmarks/preprocess.py

fuzz: $(INSTALLED) ## feed the DICOM reader mutated files for five minutes; findings in fuzz-output/
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz_reader.py --seconds 300

fuzz-service: $(INSTALLED) ## attack a coordinator as a hostile site would: make fuzz-service SECONDS=120
	$(BIN)/python tests/fuzz/fuzz_service.py --seconds $(SECONDS) --write

clean: ## remove caches, builds and demo results; .venv stays
	rm -rf build dist demo-output faults-output fuzz-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find shared server site_client deploy tests -name __pycache__ -type d -prune -exec rm -rf {} +
