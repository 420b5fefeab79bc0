# One word each: install, run, check, test. Everything lives in .venv; nothing outside this folder is touched, except
# that `make test` as root installs the Debian packages that it needs.

PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
STAMP := .venv/.installed
ALL_TESTS := $(wildcard tests/integration tests/peers tests/sim tests/faults)

.PHONY: install run check test faults bench lock peers webchat

install: $(STAMP) webchat

$(STAMP): requirements.lock pyproject.toml Makefile
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

# Converse.js for the page at /, by npm; without npm there is no such page.
webchat:
	@c2s/http/chat/vendor

# A cluster with two users; Ctrl-C ends it.
run: install
	$(BIN)/stentor dev --user alice@localhost:alice --user bob@localhost:bob

# Under half a minute: format, lint, types, unit tests.
check: install
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/pytest -q -n auto tests/unit

# Everything.
test: check peers
	$(BIN)/pytest -q $(ALL_TESTS)

# Kill, pause and partition things: real processes for half an hour, then 20,000 simulated runs (an hour and more).
faults: install
	STENTOR_FAULTS=long $(BIN)/pytest -q -s tests/faults
	STENTOR_SIM_SEEDS=1700 $(BIN)/pytest -q -s tests/sim

# CPU per message and memory per session; see bench/README.md.
bench: install
	$(BIN)/python -m bench.measure all

# The third-party programs that tests talk to: Debian's packages, installed where this is root, named where it is not.
peers:
	@tests/peers/install

# After a change of the dependencies in pyproject.toml. Add --upgrade by UV_FLAGS to take newer versions.
lock: install
	$(BIN)/uv pip compile pyproject.toml --all-extras --group test --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet $(UV_FLAGS) -o requirements.lock
	$(BIN)/uv pip compile --group slidge --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet $(UV_FLAGS) -o tests/support/peers/slidge.lock
