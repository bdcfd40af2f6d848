PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST_VENV := .venv-test
TEST_PYTHON := $(CURDIR)/$(TEST_VENV)/bin/python
ARGS ?=
# Processes that test side by side, each with a Label Studio of its own; most of their time they wait for one.
JOBS ?= 3
# Bytecode at once: where PYTHONDONTWRITEBYTECODE is set, every process would compile Label Studio and scikit-learn anew.
INSTALL = $(BIN)/uv pip install -q --compile-bytecode

.PHONY: help demo test check bench clean

help:  ## Show this list.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "lsbatch needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml $(BIN)/uv
	$(INSTALL) -p $(BIN)/python -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(BIN)/uv
	$(BIN)/uv pip install -q -p $(BIN)/python -e '.[test,dev]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed  ## Pre-label a project on a local Label Studio, from nothing to a table.
	$(BIN)/lsbatch demo $(ARGS)

# Threads of side-by-side trainings would only wait for each other.
test: export OMP_NUM_THREADS = 1
# The wheel, not this folder, is what the tests import: they run from an empty directory.
test: $(BIN)/uv  ## Install the wheel in a fresh place and run all tests on it.
	$(PYTHON) -m venv --without-pip $(TEST_VENV)
	rm -rf dist && $(BIN)/uv build -q --wheel -o dist
	$(INSTALL) -p $(TEST_PYTHON) --reinstall-package lsbatch "$$(echo dist/*.whl)[test]"
	empty=$$(mktemp -d) && cd $$empty && $(TEST_PYTHON) -m pytest -c $(CURDIR)/pyproject.toml --rootdir $(CURDIR) \
	  -o pythonpath=tests -o cache_dir=$(CURDIR)/.pytest_cache -n $(JOBS) --dist loadfile $(if $(ARGS),$(ARGS),$(CURDIR)/tests); \
	  code=$$?; rm -rf $$empty; exit $$code

check: $(VENV)/.dev  ## Lint, types, imports, and what is in the wheel.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	rm -rf dist && $(BIN)/uv build -q --wheel -o dist
	$(BIN)/check-wheel-contents dist/*.whl

# gunicorn serves Label Studio on PostgreSQL, as people run it; only the benchmarks do that here.
bench: $(VENV)/.installed  ## Measure against the raw requests on a local Label Studio; ARGS="NAME --tasks N" for others.
	$(BIN)/uv pip install -q -p $(BIN)/python 'flask>=3' 'gunicorn>=22' 'matplotlib>=3.8'
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## Remove what the other commands made.
	rm -rf $(VENV) $(TEST_VENV) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
