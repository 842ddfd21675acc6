# Two commands for a fresh machine: `make demo` and `make test`. `make test-all` adds what is slow.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
DEMO = runs/demo

PYTEST = $(RUN) -m pytest -n 2 --dist=worksteal

.PHONY: install demo test test-all test-oldest coverage mutants lint docs clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxrobust needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable ".[test]"
	@touch $@

# Cross-entropy and the dynamic loss on scikit-learn's digits with wrong labels and a long tail.
demo: install
	@$(RUN) -m jaxrobust.demo $(DEMO)

test: install
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

# Adds notebooks 2-4, browser, benchmarks and long trainings; what .ci/run calls.
test-all: install
	$(PYTEST) $(PYTEST_ARGS)

# With the oldest supported versions: JAX 0.7.2 and what Colab has beside it.
test-oldest:
	$(MAKE) test-all VENV=.venv-oldest PIP_CONSTRAINT=$(CURDIR)/constraints-oldest.txt

coverage: install
	$(PYTEST) -m "not slow" --cov --cov-report=term --cov-fail-under=95 $(PYTEST_ARGS)

# A seeded sample of small mistakes, each of which the nearest tests should notice; two hours.
mutants: install
	JAXROBUST_SIGNS=1 $(RUN) -m pytest tests/test_mutants.py
	$(RUN) tests/mutants.py --sample=300 $(MUTANTS_ARGS)

$(VENV)/.dev: $(VENV)/.installed
	$(RUN) -m pip install --quiet --editable ".[dev]"
	@touch $@

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

docs: $(VENV)/.dev
	$(RUN) -m mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-oldest runs site .coverage* .pytest_cache .ruff_cache
