# All commands of the project; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest
# Which tests: make test-unit TESTS="tests/unit/test_uids.py -k tenant"
TESTS ?=
# Two workers; tests that would disturb each other stay in one of them (tests/conftest.py).
PARALLEL ?= -n 2 --dist loadscope
# Options of `wado up`: make up OPTIONS="--http 127.0.0.1:8081"
OPTIONS ?=

DEPENDENCIES := $(VENV)/.dependencies
VIEWER := src/wado/viewer/.built
VIEWER_SOURCES := $(shell find viewer -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup system-packages hooks check format test test-unit test-contract test-real \
	test-fault test-browser conformance docs viewer up demo cluster chaos bench \
	ci clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' \
		| while IFS="$$(printf '\t')" read -r name text; do printf 'make %-14s %s\n' "$$name" "$$text"; done

setup: system-packages $(DEPENDENCIES) $(VIEWER) hooks ## everything: programs, .venv, viewer, hooks

system-packages:
	@PYTHON=$(PYTHON) scripts/system_packages.sh

$(DEPENDENCIES): constraints.txt pyproject.toml scripts/python_packages.sh
	@PYTHON=$(PYTHON) scripts/python_packages.sh $(VENV)
	@touch $@

$(VIEWER): $(VIEWER_SOURCES) scripts/build_viewer.sh
	@scripts/build_viewer.sh
	@mkdir -p $(@D) && touch $@

hooks: $(DEPENDENCIES)
	@scripts/install_hooks.sh $(BIN)

check: $(DEPENDENCIES) $(VIEWER) ## format, lint, types, layers, spelling, files
	$(BIN)/ruff format --check src tests scripts
	$(BIN)/ruff check src tests scripts
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md docs src tests scripts
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/python scripts/check_files.py
	cd viewer && npm run --silent check

format: $(DEPENDENCIES) ## format and mend what a machine can
	$(BIN)/ruff format src tests scripts
	$(BIN)/ruff check --fix src tests scripts

test: setup ## all the tests, set-up included
	$(PYTEST) $(PARALLEL) $(TESTS)

test-unit: $(DEPENDENCIES) ## pure code; seconds
	$(PYTEST) $(or $(TESTS),tests/unit)

test-contract: $(DEPENDENCIES) ## every adapter of each port
	$(PYTEST) $(or $(TESTS),tests/contract)

test-real: setup ## integration and conformance: real processes, independent clients
	$(PYTEST) $(or $(TESTS),tests/integration tests/conformance)

test-fault: setup ## crashes, outages, hostile input
	$(PYTEST) $(or $(TESTS),tests/fault)

test-browser: setup ## the built viewer in Chromium
	$(PYTEST) $(or $(TESTS),tests/browser)

conformance: setup ## each line of the PS3.18 checklist, with pass or fail
	PYTHONPATH=tests $(PYTEST) -p conformance_report -q $(PARALLEL) -m ps318 $(TESTS)

docs: $(DEPENDENCIES) ## write the generated documents, then check all of them
	$(BIN)/python scripts/generate_docs.py
	$(PYTEST) tests/unit/test_docs.py

viewer: $(VIEWER) ## build the viewer into src/wado/viewer

up: setup ## one-machine archive on loopback, in the foreground
	@exec $(BIN)/wado up $(OPTIONS)

demo: setup ## the same with a sample CT series; prints the viewer's address
	@exec $(BIN)/python scripts/demo.py $(OPTIONS)

cluster: setup ## the distributed profile on this machine: ROOT=DIR HTTP=HOST:PORT DIMSE=HOST:PORT
	@exec $(BIN)/python scripts/cluster.py $(if $(ROOT),--root $(ROOT)) \
		$(if $(HTTP),--http $(HTTP)) $(if $(DIMSE),--dimse $(DIMSE))

chaos: setup ## senders at work while members of a cluster die: OPTIONS="--minutes 10 --seed 1"
	@PYTHONPATH=scripts exec $(BIN)/python -m chaos $(OPTIONS)

bench: setup ## the figures of docs/benchmarks.md
	@exec $(BIN)/python scripts/bench.py $(OPTIONS)

ci: ## everything CI runs, in order
	.ci/run

clean: ## remove what was built; data/ stays
	rm -rf $(VENV) viewer/node_modules viewer/dist src/wado/viewer .pytest_cache .mypy_cache \
		.ruff_cache .hypothesis .import_linter_cache bench-work
	find src tests scripts -name __pycache__ -prune -exec rm -rf {} +
