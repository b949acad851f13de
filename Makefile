# Tunesmith. `make help` lists the targets; every one installs what it needs first.

PYTHON ?= $(firstword $(shell command -v python3.11) $(shell command -v python3))
VENV ?= .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# TORCH=cpu installs PyTorch's CPU build from its own index: smaller, but that index must be reachable.
TORCH ?=
DATA ?= .tunesmith
SOURCE ?=
# Processes that `make test` runs tests in; all tests of a file stay in one.
JOBS ?= 2

UV := $(BIN)/uv
# Compiled at once: where PYTHONDONTWRITEBYTECODE is set, every start of a worker would compile PyTorch anew.
UV_INSTALL := $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt $(if $(TORCH),--torch-backend $(TORCH))

.DEFAULT_GOAL := help
.PHONY: help install run up compose compose-check test check format proto bench chaos clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Install Tunesmith with all services into .venv

run: $(VENV)/.installed ## Make a model that invents micro-genres: collect, curate, tune, judge, promote, generate (SOURCE=file or URL)
	@$(BIN)/tunesmith --data $(DATA) run micro_genre $(if $(SOURCE),--source $(SOURCE))

up: $(VENV)/.installed ## Serve all four services on 127.0.0.1:50400 until Ctrl-C
	@$(BIN)/tunesmith --data $(DATA) up

compose: ## Serve all four services in containers, with Kafka and MinIO, on 127.0.0.1:50401 to 50404
	@deploy/compose up

compose-check: $(VENV)/.installed ## Prove the containers: a whole run through them, down and up again, events and objects
	@deploy/compose check

test: $(VENV)/.installed-dev ## Run all tests
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

check: $(VENV)/.installed-dev ## Lint, types, import rules, and drift of the generated code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python proto/generate.py --check

format: $(VENV)/.installed-dev ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

proto: $(VENV)/.installed-dev ## Lint the proto files and generate src/tunesmith_proto
	@$(BIN)/python proto/generate.py

bench: $(VENV)/.installed-dev ## Print every figure that Tunesmith promises, beside its peer
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

chaos: $(VENV)/.installed-dev ## Kill services, workers, broker and store 1,000 times, and count what was lost (ARGS='--kills 100 --seed 7')
	@PYTHONPATH=tools:tools/chaos/inject:tests $(BIN)/python -m chaos $(ARGS)

clean: ## Remove the environment and caches; data folders stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(UV):
	@$(if $(PYTHON),,$(error Python 3.11 or newer is needed: install python3.11, or name it with PYTHON=))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: Tunesmith needs Python 3.11 or newer (PYTHON=...)"; exit 1; }
	@echo "Preparing $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "python -m venv failed: on Debian, install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.installed: $(UV) pyproject.toml constraints.txt
	@echo "Installing Tunesmith (PyTorch included: about 5 GB, a minute on a fast line) ..."
	@$(UV_INSTALL) --editable '.[embedded]'
	@$(BIN)/python -m compileall -q src services
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(UV_INSTALL) --editable '.[embedded,platform,dev]'
	@touch $@
