# make demo: install into .venv, train on handwritten digits, show the result.   make test: install, run all tests.
VENV ?= .venv
PYTHON3 ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/installed.stamp

.PHONY: install demo test points test-backends lint docs docs-serve bench clean

install: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: Python 3.10 or newer is needed; name one with make PYTHON3=...")'
	$(PYTHON3) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[test]'
	@touch $@

demo: install
	$(BIN)/python scripts/train_image.py

# Two processes with one thread each: more threads than cores slow small tensors down.
test: install
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

# torch-cluster and torch-scatter, from wheels that are built once and kept in ~/.cache/pointmix
points: install
	.ci/points $(BIN)/python

test-backends: points
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/ops -k "not triton" $(ARGS)

# Style, layers of the package (import-linter) and types
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The documentation site, in site/; docs-serve shows it at http://127.0.0.1:8000 and follows changes
docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

$(VENV)/docs.stamp: $(STAMP) requirements-docs.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements-docs.txt
	@touch $@

bench: install
	@mkdir -p runs
	$(BIN)/python benchmarks/run.py --no-compile --csv runs/goals.csv

clean:
	rm -rf $(VENV) build site *.egg-info
