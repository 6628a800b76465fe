# Each target makes and reuses its own .venv; Python 3.11+ and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/notifyd-*)
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run test lint contract bench bench-peers
help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("notifyd needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# Plugins install beside the server in one call, so that their dependency on it is met from this checkout.
$(STAMP): pyproject.toml $(wildcard plugins/*/pyproject.toml) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,dev]' $(addprefix -e ./,$(PLUGINS))
	@touch $@

run: $(STAMP) ## start the daemon with an example config and play one approval from event to resume
	@$(BIN)/notifyd demo

# Tests start hundreds of processes; where Python is told to write no bytecode, each would compile everything again.
test: $(STAMP) ## run all tests
	@$(BIN)/python -m compileall -q notifyd plugins tests
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: $(STAMP) ## ruff, mypy --strict, import-linter, deptry
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry notifyd

contract: $(STAMP) ## write the files of the contract anew, from the records, routes and faults
	@$(BIN)/python -m tests.contract

bench: $(STAMP) ## measure against bare handlers in the same run
	@$(BIN)/python -m compileall -q notifyd plugins tests
	@$(BIN)/python -m tests.bench

bench-peers: $(STAMP) ## the same, with Alertmanager and Apprise where they are installed
	@$(BIN)/python -m compileall -q notifyd plugins tests
	@$(BIN)/python -m tests.bench --peers
