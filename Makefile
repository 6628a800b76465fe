# Each target makes and reuses its own .venv; Python 3.11+ and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/notifyd-*)
STAMP := $(VENV)/.installed

.PHONY: help run test lint bench
help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Plugins install beside the server in one call, so that their dependency on it is met from this checkout.
$(STAMP): pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,dev]' $(addprefix -e ./,$(PLUGINS))
	@touch $@

run: $(STAMP) ## start the daemon with an example config and play one approval from event to resume
	@$(BIN)/notifyd demo

test: $(STAMP) ## run all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP) ## ruff, mypy --strict, import-linter, deptry
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry notifyd

bench: $(STAMP) ## measure against bare handlers in the same run
	$(BIN)/python -m tests.bench
