# Everything works from a bare python3 with pip: `.venv` is made on first use, and again only when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-quick test-slow test-oldest test-newest lint format generated bench bench-full clean

$(STAMP): pyproject.toml
	@echo "Installing into $(VENV) (once; a minute or two) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" 2>&1 | grep -v "^WARNING: Location" || true
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $(STAMP)

setup: $(STAMP)  ## install everything

demo: $(STAMP)  ## train FedAvg and SCAFFOLD on real data, side by side
	@$(BIN)/fedjax-sim demo

test: $(STAMP)  ## the suite, on two workers (a quarter of an hour)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-quick: $(STAMP)  ## the inner loop: one law, one closed form, configuration, structure (a minute)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m quick

test-slow: $(STAMP)  ## full products, 64-bit oracles, fuzzing, kills
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

generated: $(STAMP)  ## write the schema, the stub, the reference and the tables of the README
	@$(BIN)/python docs/generate.py

OLDEST := .venv-oldest
$(OLDEST)/.installed: pyproject.toml tests/oldest.txt
	@command -v python3.13 >/dev/null || { echo "make test-oldest needs python3.13, which Colab has: install it, then try again"; exit 2; }
	@python3.13 -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" 2>&1 | grep -v "^WARNING: Location" || true
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable . --group dev --constraint tests/oldest.txt
	@touch $@

test-oldest: $(OLDEST)/.installed  ## the suite on the oldest supported stack, on Python 3.13
	@$(OLDEST)/bin/python -m pytest -n 2 --dist loadgroup -m "not slow"

NEWEST := .venv-newest
$(NEWEST)/.installed: pyproject.toml
	@command -v python3.13 >/dev/null || { echo "make test-newest needs python3.13, which the newest JAX asks for: install it, then try again"; exit 2; }
	@python3.13 -m venv $(NEWEST)
	@$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" 2>&1 | grep -v "^WARNING: Location" || true
	@$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

test-newest: $(NEWEST)/.installed  ## the suite on the newest JAX, on Python 3.13 (JAX for 3.11 ends at 0.10)
	@$(NEWEST)/bin/python -m pytest -n 2 --dist loadgroup -m "not slow"

lint: $(STAMP)  ## ruff and pyright
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright

format: $(STAMP)  ## fix what ruff can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP)  ## the round against a plain scan of the same steps (a few minutes)
	@$(BIN)/python -m benchmarks

bench-full: $(STAMP)  ## everything, other simulators too, written to benchmarks/results (two hours)
	@$(BIN)/python -m benchmarks --full

clean:  ## forget the environment and caches
	@rm -rf $(VENV) $(OLDEST) $(NEWEST) .pytest_cache .ruff_cache
