# Each target makes and reuses its own .venv; Python 3.11+ and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/notifyd-*)
STAMP := $(VENV)/.installed
TESTS ?=
BUILD := build

# Errors only: pip's warnings are about the machine and not about notifyd.
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check
PROJECTS := -e '.[demo,dev]' $(addprefix -e ./,$(PLUGINS))

# Resolves for all Pythons at once, and measures with the newest and the lowest versions.
UV := .venv-tools/bin/uv
LOCK = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make upgrade' --no-emit-package notifyd-server $(addprefix --no-emit-package ,$(notdir $(PLUGINS)))

.DEFAULT_GOAL := help
.PHONY: help run test test-long test-latest test-lowest lint lock upgrade contract bench bench-peers browser chaos deb docs fresh-install gallery man sbom
help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("notifyd needs Python 3.11 or later: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml $(wildcard plugins/*/pyproject.toml requirements/*.txt) | $(BIN)/python
	@echo "Installing what requirements/dev.txt names into $(VENV): about a minute, the first time only"
	@$(PIP) --require-hashes --no-deps -r requirements/build.txt
	@$(PIP) --require-hashes --no-deps --no-build-isolation -r requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation $(PROJECTS)
	@touch $@

$(UV):
	@$(PYTHON) -m venv .venv-tools
	@.venv-tools/bin/python -m pip --disable-pip-version-check install -qq uv

run: $(STAMP) ## start the daemon with an example config and play one approval from event to resume
	@$(BIN)/notifyd demo

# Tests start hundreds of processes; where Python is told to write no bytecode, each would compile everything again.
# Three at a time: many wait for daemons, and two left processors idle.
test: $(STAMP) ## run all tests but those that take long
	@$(BIN)/python -m compileall -q notifyd plugins tests
	@$(BIN)/python -m pytest -q -n 3 --dist worksteal -m "not long" $(TESTS)

test-long: $(STAMP) ## run the tests that take long: kills at each step, nodes that are killed and cut off, motor
	@$(BIN)/python -m compileall -q notifyd plugins tests
	@$(BIN)/python -m pytest -q -n 3 --dist worksteal -m long $(TESTS)

test-latest: $(UV) ## run all tests with the newest versions of everything
	@$(PYTHON) -m venv --clear .venv-latest
	@$(UV) pip install --quiet --python .venv-latest $(PROJECTS)
	@.venv-latest/bin/python -m pytest -q -n 2 --dist worksteal $(TESTS)

test-lowest: $(UV) ## run all tests with the lowest versions that pyproject.toml allows
	@$(PYTHON) -m venv --clear .venv-lowest
	@$(UV) pip install --quiet --python .venv-lowest --resolution lowest-direct $(PROJECTS)
	@.venv-lowest/bin/python -m pytest -q -n 2 --dist worksteal $(TESTS)

lock: $(UV) ## resolve what pyproject.toml asks for anew; what requirements/ has already stays
	@{ echo '-e .[demo,dev]'; printf -- '-e ./%s\n' $(PLUGINS); } | $(LOCK) $(LOCK_OPTIONS) -o requirements/dev.txt -
	@{ echo '-e .'; printf -- '-e ./%s\n' $(PLUGINS); } | $(LOCK) -c requirements/dev.txt -o requirements/production.txt -
	@printf '%s\n' axe-playwright-python playwright | $(LOCK) -c requirements/dev.txt -o requirements/browser.txt -
	@printf '%s\n' furo myst-parser sphinx sphinx-copybutton | $(LOCK) -c requirements/dev.txt -o requirements/docs.txt -
	@printf '%s\n' aiohttp arq 'celery[redis]' 'dramatiq[redis]' huey | $(LOCK) -c requirements/dev.txt -o requirements/peers.txt -
	@printf '%s\n' hatchling editables setuptools | $(LOCK) -c requirements/dev.txt -o requirements/build.txt -

upgrade: LOCK_OPTIONS := --upgrade
upgrade: lock ## take the newest versions into requirements/

lint: $(STAMP) ## ruff, bandit, mypy --strict, import-linter, hadolint, deptry
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/bandit -q -c pyproject.toml -r notifyd plugins
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint Containerfile
	$(BIN)/deptry notifyd
	@set -e; for plugin in $(notdir $(PLUGINS)); do package=$$(echo $$plugin | tr - _); echo "deptry $$plugin"; \
		$(BIN)/deptry --config plugins/$$plugin/pyproject.toml --known-first-party $$package \
		--package-module-name-map notifyd-server=notifyd plugins/$$plugin/$$package; done

# Reproducible: the same lock gives the same bytes.
sbom: $(STAMP) ## write build/sbom.json: what is in production, in CycloneDX, from the lock alone
	@mkdir -p $(BUILD)
	@$(BIN)/python -W ignore::UserWarning -m cyclonedx_py requirements requirements/production.txt \
		--pyproject pyproject.toml --output-reproducible $(SBOM_OPTIONS) -o $(BUILD)/sbom.json

# With the system's own Python, not that of .venv; both are 3.11 or later.
deb: $(STAMP) ## write dist/notifyd_VERSION_ARCH.deb, which takes nothing from the network when it is installed
	@$(BIN)/python -m tests.debian deb dist

man: $(STAMP) ## write build/man: a manual page for each command, and one for the configuration
	@$(BIN)/python -m tests.debian man $(BUILD)/man

contract: $(STAMP) ## write the files of the contract anew, from the records, routes and faults
	@$(BIN)/python -m tests.contract

bench: $(STAMP) ## measure against bare handlers in the same run
	@$(BIN)/python -m compileall -q notifyd plugins tests
	@$(BIN)/python -m tests.bench $(BENCH)

chaos: $(STAMP) ## break what can break while a million events come, and print what came of them: 30 minutes
	@$(BIN)/python -m compileall -q notifyd plugins tests
	@$(BIN)/python -m tests.chaos $(CHAOS)

# The queues have an environment of their own: what they need is no business of the server's.
bench-peers: $(STAMP) ## measure beside others: Alertmanager where it is installed, and queues (some with redis-server)
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements/peers.txt
	@$(BIN)/python -m compileall -q notifyd plugins tests
	@$(BIN)/python -m tests.bench --only peers $(BENCH)

fresh-install: $(STAMP) ## follow docs/operations.md on a fresh Debian with systemd, and restart it under load: needs root
	@$(BIN)/python -m tests.fresh

gallery: $(STAMP) ## write build/gallery: every message in every language, as each channel sends it
	@$(BIN)/python -m tests.gallery build/gallery

browser: $(STAMP) ## decide on a phone's screen in a real browser, and look for what is not accessible: needs Chromium
	@$(PIP) --require-hashes --no-deps -r requirements/browser.txt
	@$(BIN)/python -m pytest -q tests/browser

# Anew each time: what Sphinx keeps of a build does not know that the sidebar has changed.
docs: $(STAMP) ## write build/docs: these pages as a site that can be read and searched without a network
	@$(PIP) --require-hashes --no-deps -r requirements/docs.txt
	@$(BIN)/python -m sphinx -q -E -W --keep-going -j auto -c docs/site -d $(BUILD)/doctrees . $(BUILD)/docs
	@$(BIN)/python -m pytest -q tests/docsite
	@echo "$(BUILD)/docs/index.html"
