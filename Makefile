# `make report` and `make test` run on a fresh machine: both install missing dependencies.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
SARIF_TOOL := @microsoft/sarif-multitool-linux@5.7.0
TYPESCRIPT := typescript@7.0.2
BIN := $(VENV)/bin
# pip unpacks gigabytes: beside the packages, since /tmp may be a small disk in memory
PIP = mkdir -p $(VENV)/tmp && TMPDIR="$(CURDIR)/$(VENV)/tmp" $(BIN)/pip
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# overrides machine-wide constraints; pip before 25.3 applies it to isolated builds as well
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
# for isolated builds, pip 25.3 and newer use only this variable; older versions ignore it
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help report test test-fast check docs clean

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

report: $(VENV)/.installed ## install missing dependencies, build the sample report into reports/
	$(BIN)/reportgen build sample_models/manifest.yaml

test: $(VENV)/.installed-test check ## the same setup, then linters, type checks and all tests
	$(BIN)/pytest -n 2 --dist loadfile --durations=10

test-fast: $(VENV)/.installed-test ## fast tests only, two minutes
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

check: $(VENV)/.installed-test ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-test report ## the documentation, with pictures of the sample report, into build/docs/
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/screenshots.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean: ## remove the virtual environment, caches and built reports
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis build dist reports/manifest
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt | system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "reportgen requires Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --editable '.[all]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed | system-test
	$(PIP) install --quiet --editable '.[test]'
	@# without them, the tests that need them are skipped
	-@! command -v npm >/dev/null || timeout 120 npm install --silent --ignore-scripts \
	  --fetch-retries=1 --prefix $(VENV)/npm $(SARIF_TOOL) $(TYPESCRIPT)
	@touch $@

# System libraries that pip cannot install; installed ones are skipped.
.PHONY: system system-test
system:
	@SUDO=$(SUDO) PYTHON=$(PYTHON) bash .ci/system-libraries graphviz pango fonts venv

system-test:
	@SUDO=$(SUDO) PYTHON=$(PYTHON) bash .ci/system-libraries chromium poppler atomic
