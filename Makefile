# Two commands on a fresh machine: `make report` and `make test`. Both install what is missing.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# replaces any machine-wide constraints; pip before 25.3 applies it to isolated builds as well
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
# pip 25.3 and newer apply only this one there; older ones ignore it
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help report test test-fast check clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

report: $(VENV)/.installed ## install what is missing, build the sample report into reports/
	$(BIN)/reportgen build sample_models/manifest.yaml

test: $(VENV)/.installed-test check ## the same set-up, then linters, types and the whole test-suite
	$(BIN)/pytest -n 2 --durations=10

test-fast: $(VENV)/.installed-test ## the tests that answer within two minutes
	$(BIN)/pytest -n 2 -m "not slow"

check: $(VENV)/.installed-test ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove the virtual environment, caches and built reports
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis build dist reports/manifest
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt | system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "reportgen needs Python 3.11 or newer; say which: make PYTHON=python3.12"; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[all]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed | system-test
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@

# What pip cannot install: what is there already is not asked for again.
.PHONY: system system-test
system:
	@SUDO=$(SUDO) PYTHON=$(PYTHON) bash .ci/system-libraries graphviz pango fonts venv

system-test:
	@SUDO=$(SUDO) PYTHON=$(PYTHON) bash .ci/system-libraries chromium poppler atomic
