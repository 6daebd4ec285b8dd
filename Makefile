# Five words. Each installs what it needs into .venv first; called again, it starts at once.
#
#   make serve   serve the demo checkpoints         PORT=8000  ARGS="--max-num-seqs 8"
#   make test    run the tests                      ARGS="-m 'not slow'"
#   make check   format, lint and types
#   make train   train the demo models on a CPU     ARGS="--full"
#   make load    60 s of load from 32 users         HOST=http://127.0.0.1:8000  ARGS="--users 8"
#
# PIP_FLAGS goes to pip: which torch is installed (CPU, CUDA) is decided by the package index it names.

PYTHON ?= python3
PORT ?= 8000
HOST ?=
ARGS ?=
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)

.PHONY: help serve test check train load clients

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

serve: $(VENV)/.installed
	exec $(BIN)/groundup serve $(dir $(wildcard checkpoints/*/config.json)) --port $(PORT) $(ARGS)

# Tests share out the cores among processes of one thread each; `ARGS=-n0` keeps to a single one, as --pdb needs it.
test: export OMP_NUM_THREADS ?= 1
test: export OMP_WAIT_POLICY ?= PASSIVE
test: export TORCHINDUCTOR_CACHE_DIR ?= $(CURDIR)/$(VENV)/compiled
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

# Other people's clients, in an environment of their own, for the tests that are skipped without it.
clients: $(CLIENTS)/.installed

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

train: $(VENV)/.installed-training
	$(BIN)/groundup train-demo $(ARGS)

load: $(VENV)/.installed-load
	$(BIN)/python -m loadtest $(if $(HOST),--host $(HOST)) $(ARGS)

# An empty file records each installation; it is older than its sources when something has to be installed anew.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV); the first time takes a few minutes ..."
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	@echo "Installing what $* needs into $(VENV) ..."
	$(INSTALL) --editable ".[$*]"
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(CLIENTS)/.installed: tests/service/clients/requirements.txt
	@echo "Installing clients into $(CLIENTS) ..."
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_FLAGS) --requirement $<
	if command -v npm >/dev/null; then npm install --silent --no-save --prefix $(CLIENTS) openai@6.49.0; fi
	@touch $@
