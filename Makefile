# make demo    a whole study on made-up images, with a report at runs/demo/report.html
# make test    the tests
# make test-all  the tests, slow ones included
# make test-newest  the tests, with the newest versions that setup.cfg allows
# make setup   only the virtual environment
# make check   lint, types, tests and documentation, as in continuous integration
# make docs    the documentation as a site, at site/index.html
# make screenshots  the pictures of pages in the documentation, after make demo
# make bench   the benchmarks
# make clean   delete the environment, the runs and the site
#
# The first call makes .venv and installs; later calls install nothing again.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
# The newest one has the newest packages.
NEWEST_PYTHON ?= $(shell for p in python3.13 python3.12 python3.11; do \
	$$p -c '' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo test test-all test-newest setup check docs screenshots bench clean

demo: .venv/installed
	$(BIN)/kerasmed demo

# Most tests use one core; each process takes up to 4 GiB.
PYTEST := python -m pytest -n 2 --dist worksteal --benchmark-disable

test: .venv/installed-dev
	$(BIN)/$(PYTEST)

test-all: .venv/installed-dev
	$(BIN)/$(PYTEST) -m "not gpu and not network and not realdata" --hypothesis-profile=thorough

# An environment of its own, updated by each call.
test-newest: | .venv-newest/bin/python
	.venv-newest/bin/python -m pip install --quiet --no-compile --upgrade \
		--upgrade-strategy eager -e '.[test,dev]'
	.venv-newest/bin/$(PYTEST)

setup: .venv/installed

PROSE := README.md CONTRIBUTING.md CHANGELOG.md $(wildcard docs/*.md docs/*/*.md)

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/proselint check --config docs/site/proselint.json $(PROSE)
	$(MAKE) test
	$(MAKE) docs

# The variable silences an advertisement of mkdocs-material for its successor. With --quiet,
# warnings would not count as errors.
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -f docs/site/mkdocs.yml

screenshots: .venv/installed-dev
	$(BIN)/python docs/site/screenshots.py

bench: .venv/installed-dev
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "kerasmed needs Python 3.11, 3.12 or 3.13; install one." >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv-newest/bin/python:
	$(NEWEST_PYTHON) -m venv .venv-newest

# Byte-compiling every installed file would take longer than the installation itself.
.venv/installed: setup.cfg constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[test,dev]'
	@touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv .venv-newest runs site
