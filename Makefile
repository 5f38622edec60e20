# Everything runs in .venv, which `setup` makes and the other targets bring up to date.
# Needs Python >= 3.11 and make. ROWMILL_DATABASE_URL and ROWMILL_REDIS_URL name servers to use
# instead of the embedded ones.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
PYTEST_ARGS ?= -n 3
DEMO_ARGS ?=
BENCH_ARGS ?= --help

.PHONY: help setup sdks check format test demo bench lock clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(BIN)/.ready ## make .venv with everything, rowmill and bench included

sdks: .venv-sdks/.ready ## make .venv-sdks, the vendors' clients for the contract tests

check: setup ## format, lint, types, imports, drift of schema and command reference
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/rowmill dev schema --check
	$(BIN)/rowmill dev docs --check

format: setup ## put the code into its form, mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

test: setup sdks ## the whole suite (PYTEST_ARGS="-k name" for a part)
	$(BIN)/pytest $(PYTEST_ARGS)

demo: setup ## both platforms, sixty jobs, one killed worker
	$(BIN)/rowmill demo $(DEMO_ARGS)

bench: setup ## BENCH_ARGS="row-work --jobs 20000 --json"
	$(BIN)/bench $(BENCH_ARGS)

# Universal: one file for every Python and system that is supported.
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet
lock: ## pin the newest versions in requirements/ (needs uv)
	$(LOCK) --output-file requirements/run.txt
	$(LOCK) --output-file requirements/dev.txt --extra demo --group dev --constraints requirements/run.txt
	uv pip compile --group build --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet \
	--constraints requirements/dev.txt --output-file requirements/build.txt
	uv pip compile --group sdks --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet \
	--output-file requirements/sdks.txt

clean: ## remove what was made here, .venv too
	rm -rf .venv .venv-sdks .rowmill dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------ the environment

$(BIN)/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    echo "making .venv with $$("$$python" --version)"; \
	    if command -v uv >/dev/null; then exec uv venv --quiet --seed --python "$$(command -v "$$python")" .venv; fi; \
	    "$$python" -m venv .venv && exit 0; \
	    rm -rf .venv; echo "this Python makes no environment: install its venv module (Debian: python3-venv)" >&2; exit 1; \
	done; \
	echo "Rowmill needs Python 3.11 or newer, and none is on PATH (make PYTHON=/path/to/python setup)" >&2; exit 1

$(BIN)/.ready: requirements/dev.txt pyproject.toml | $(BIN)/python
	@if command -v uv >/dev/null; then install="uv pip install --quiet --python $(BIN)/python"; \
	else install="$(BIN)/python -m pip install --quiet --disable-pip-version-check"; fi; \
	$$install --require-hashes --requirement requirements/dev.txt; \
	$$install --no-deps --no-build-isolation --editable .
	@touch $@

.venv-sdks/.ready: requirements/sdks.txt | $(BIN)/python
	@[ -x .venv-sdks/bin/python ] || $(BIN)/python -m venv .venv-sdks
	@if command -v uv >/dev/null; then install="uv pip install --quiet --python .venv-sdks/bin/python"; \
	else install=".venv-sdks/bin/python -m pip install --quiet --disable-pip-version-check"; fi; \
	$$install --require-hashes --requirement requirements/sdks.txt
	@touch $@
