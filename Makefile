# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow lint audit bench fuzz docs tutorials clean

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo 'installing into $(VENV): minutes the first time'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.ready  ## the whole pipeline on the embedded in-silico cortex, then its report
	$(BIN)/pocketcortex demo --out runs/demo

test: $(VENV)/.ready  ## everything that takes seconds
	$(BIN)/pytest -n 2

test-slow: $(VENV)/.ready  ## the checks that take minutes
	$(BIN)/pytest -m slow

lint: $(VENV)/.ready  ## formatting, lint, strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

audit:  ## known vulnerabilities of the pinned packages; asks the package index for its advisories
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

bench: $(VENV)/.ready  ## benchmarks: dated JSON and the table in docs/benchmarks.md
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

fuzz: $(VENV)/.ready  ## 100,000 broken files of every format; hours
	$(BIN)/python tests/fuzz/fuzz.py -n 100000

docs: $(VENV)/.ready  ## the site, into build/site/index.html; nothing is fetched
	$(BIN)/python docs/scripts/command_line.py
	$(BIN)/python docs/scripts/configuration.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

tutorials: $(VENV)/.ready  ## run all tutorials again: what they print, and their figures
	$(BIN)/python docs/scripts/tutorials.py

clean:
	rm -rf $(VENV) build runs .mypy_cache .ruff_cache .pytest_cache
