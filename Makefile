# Two commands do everything: `make serve` runs a real application under a master, `make test` runs the tests.
# Each sets up what it needs in .venv, from the package index, and is quick the second time.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first interpreter that is new enough; `make PYTHON=...` takes another one.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11 python; do \
	command -v $$candidate >/dev/null 2>&1 && $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && echo $$candidate && break; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# End-to-end tests mostly wait, so more run at the same time than there are cores.
JOBS ?= 6

# How long each target is fuzzed, and which ones.
SECONDS ?= 60
TARGETS ?= http connection websockets yaml

# How many calls of each kind fail in each phase, and for how long failures are tried.
FIRST ?= 2
MINUTES ?= 60

# How long the soak takes, with which seed (0: another one each time), and with what more on the service's command line.
SOAK_SECONDS ?= 600
SOAK_SEED ?= 0
SOAK_ARGUMENTS ?=

# How many messages a case of many has in `make autobahn`.
MESSAGES ?= 100


.PHONY: help serve test check fuzz day soak corpus-count audit format generate clean autobahn systemd-test bench bench-full guard exchange image-test inject

help:
	@echo "make serve     run examples/ under a master with two workers"
	@echo "make test      run all tests"
	@echo "make dependents     run the tests of projects that use uvicorn, with 0.37.0 and with this tree; NAMES=\"httpx mcp\""
	@echo "make systemd-test   boot Debian, and run the life cycles of deploy/systemd under its systemd; needs root"
	@echo "make image-test     build the image of deploy/docker, run it, and the compose file; needs root, buildah and podman"
	@echo "make check     lint, formatting, types, import contracts, generated files"
	@echo "make fuzz      fuzz what reads bytes of others, SECONDS=60 for each target; needs atheris"
	@echo "make inject    let the master's system calls fail, one at a time, for MINUTES=60; needs strace"
	@echo "make day       all that operators do to a service, under load, and what is shown beside what the clients count"
	@echo "make soak      all kinds of clients and disturbances at once, SOAK_SECONDS=600; prints a report"
	@echo "make autobahn  hold every WebSocket implementation to RFC 6455 and RFC 7692; MESSAGES=1000 for Autobahn's counts"
	@echo "make bench     compare with uvicorn, granian, gunicorn and hypercorn, in a few minutes; make bench-full: all of it"
	@echo "make guard     what the request path costs in the process, beside the recorded figure; some seconds"
	@echo "make exchange  send thousands of WebSocket messages of every size both ways, and watch the server's memory"
	@echo "make audit     look for published weaknesses of what is installed; needs the network"
	@echo "make format    format the code"
	@echo "make generate  write docs/settings.md and the JSON Schema again"
	@echo "make clean     remove .venv, .venv-bench and caches"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found; name one: make PYTHON=/path/to/python"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip

$(VENV)/.serve: $(BIN)/python pyproject.toml
	@echo "Installing uvicorn with its standard extras, and what the example needs ..."
	@$(PIP) install --editable '.[standard,metrics]' --group example
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml
	@echo "Installing uvicorn with all its extras, and what the tests need ..."
	@$(PIP) install --editable '.[standard,wsproto,metrics]' --group test --group frameworks
	@touch $@

$(VENV)/.check: $(VENV)/.test
	@echo "Installing linters and type checkers ..."
	@$(PIP) install --group check
	@touch $@

$(VENV)/.fuzz: $(VENV)/.test
	@echo "Installing atheris ..."
	@$(PIP) install --group fuzz
	@touch $@

$(VENV)/.bench: $(BIN)/python pyproject.toml
	@echo "Installing uvicorn with its standard extras, and what the benchmark needs ..."
	@$(PIP) install --editable '.[standard]' --group bench
	@touch $@

serve: $(VENV)/.serve
	@echo
	@echo "  The application    http://127.0.0.1:8000/"
	@echo "  Status             http://127.0.0.1:8001/ for people, /status.json and /readyz for programs"
	@echo "  Reload             kill -HUP \$$(pgrep -f 'uvicorn: master')     after a change in examples/; or, to be told"
	@echo "                     how it ended: .venv/bin/uvicornctl --socket uvicorn.sock reload"
	@echo "  One worker more    kill -TTIN \$$(pgrep -f 'uvicorn: master')"
	@echo "  Live table         .venv/bin/uvicornctl --socket uvicorn.sock top"
	@echo "  Settings           examples/uvicorn.yaml; all of them: .venv/bin/uvicorn --help"
	@echo "  Stop               Ctrl-C"
	@echo
	@UVICORN_USER=$$(id -u) exec $(BIN)/uvicorn --config examples/uvicorn.yaml

test: $(VENV)/.test
	@echo "Running the tests ..."
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal --quiet $(ARGS)

.PHONY: dependents
dependents: $(BIN)/python
	@$(BIN)/python -m tests.dependents $(NAMES)

systemd-test: $(VENV)/.test
	@$(BIN)/python -m tests.real.systemd $(ARGS)

image-test: $(VENV)/.test
	@$(BIN)/python -m tests.real.image $(ARGS)
	@$(BIN)/python -m tests.real.compose $(ARGS)

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	$(BIN)/python -m uvicorn.settings --check
	$(BIN)/python -m pytest --quiet tests/test_typing.py

fuzz: $(VENV)/.fuzz
	@for target in $(TARGETS); do \
		echo "Fuzzing $$target for $(SECONDS) seconds ..."; \
		nice -n 19 $(BIN)/python -m tests.fuzz $$target --seconds $(SECONDS) || exit 1; \
	done

inject: $(VENV)/.test
	@$(BIN)/python -m tests.inject --first $(FIRST) --minutes $(MINUTES)

day: $(VENV)/.test
	@$(BIN)/python -m tests.day

soak: $(VENV)/.test
	$(BIN)/python -m tests.soak --seconds $(SOAK_SECONDS) --seed $(SOAK_SEED) -- $(SOAK_ARGUMENTS)

corpus-count: $(VENV)/.test
	@$(BIN)/python -m tests.protocols.http.count

autobahn: $(VENV)/.test
	@$(BIN)/python -m tests.autobahn --messages $(MESSAGES)
	@$(BIN)/python -m tests.autobahn.original

bench: $(VENV)/.bench
	@$(BIN)/python -m bench run --rounds 3

bench-full: $(VENV)/.bench
	@$(BIN)/python -m bench run --scenarios all --rounds 7

guard: $(VENV)/.test
	@$(BIN)/python -m bench guard

exchange: $(VENV)/.test
	@$(BIN)/python -m tests.e2e.exchange

# Strict: what could not be looked up was not audited. The second looks for what bandit looks for, but for assert, which
# states here what the type checker cannot know, and decides nothing.
audit: $(VENV)/.serve $(VENV)/.check
	@$(PIP) install --group audit
	@$(BIN)/python -m pip --quiet freeze --local --exclude-editable >$(VENV)/installed.txt
	@$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/installed.txt || { \
		echo "Not audited, or weaknesses are listed above. It asks https://pypi.org/pypi/NAME/VERSION/json: 'not found on"; \
		echo "PyPI' and errors of the connection mean that this database cannot be reached from here, and say nothing of what"; \
		echo "is installed."; exit 1; } >&2
	$(BIN)/ruff check --select S --ignore S101 uvicorn

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(VENV)/.test
	$(BIN)/python -m uvicorn.settings

clean:
	rm -rf $(VENV) .venv-bench .fuzz .autobahn .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
