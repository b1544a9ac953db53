# Every target works alone, from a fresh clone: it makes .venv, installs what it needs once, and runs.
# On a machine with Python 3.11 or later, make and a package index:
#   make demo    the main job, on data that scikit-learn ships
#   make test    the tests
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

.PHONY: help demo test check docs bench format clean
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(VENV)/.demo ## run the main job on a table of digits, writes to runs/demo
	$(BIN)/kinfolk demo --resume

test: $(VENV)/.test ## run the tests
	$(BIN)/pytest -q -n $(WORKERS)

check: $(VENV)/.check $(VENV)/.test $(VENV)/.docs ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(VENV)/.docs ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.demo ## run the benchmarks by hand: time, memory, quality
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

format: $(VENV)/.check ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what can be made again
	rm -rf $(VENV) site build dist .pytest_cache .ruff_cache .hypothesis

# An environment that exists is taken as it is. The version is asked before anything is made.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Kinfolk needs Python 3.11 or later. '$(PYTHON)' is: $$($(PYTHON) --version 2>&1). Say which one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp per set of extras: installed again only when what is asked for changes.
$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --editable . --constraint constraints.txt
	@touch $@

$(VENV)/.test $(VENV)/.check $(VENV)/.docs: $(VENV)/.%: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --editable '.[$*]' --constraint constraints.txt
	@touch $@
