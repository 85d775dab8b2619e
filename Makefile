# make demo    the quick suite and its report from nothing: about a minute after installation
# make test    what every change must pass: the checks of `make lint`, and the tests
# make lint    lint, format, types, and where imports may point
# make slow    the tests that take longer, some hours; each is named when it is done
# make matrix  the tests on each Python that is installed, and with the oldest dependencies
# make notebooks   executes the notebooks and puts their outputs into them
# make tables  writes what the registries and published results say into README, guide and index
# make published   trains the networks that come with the package, and runs the suites that do
# make docs    the documentation site, into build/site; it needs no network
# make bench   draws per second, cost of exact gradients, time of the psa suite, on this machine
# make peer    side by side with storchastic and plain JAX and torch, in an environment of its own
# make clean   removes what the targets above made

# PYTHON is the interpreter that .venv is made of, JAX a version of JAX in the place of the newest
# allowed: `make test PYTHON=python3.12 JAX="==0.12.*"` in a clean checkout. TESTS are the files or
# folders that `make matrix` tests, all of them by default: `make matrix TESTS=tests/core`.
PYTHON ?= python3
JAX ?=
TESTS ?=
BIN := .venv/bin
PIN := $(if $(JAX),"jax$(JAX)" "jaxlib$(JAX)")

.PHONY: demo lint test slow matrix notebooks tables published docs bench peer clean
.NOTPARALLEL:

demo: .venv/installed
	$(BIN)/gradbench run quick --out results/quick
	$(BIN)/gradbench report results/quick

lint: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n 2 --dist loadfile

slow: .venv/installed-for-tests
	$(BIN)/pytest -m slow -n 2 --dist loadfile -v

matrix:
	tests/matrix.sh $(TESTS)

notebooks: .venv/installed-for-tests
	$(BIN)/python notebooks/execute.py

tables: .venv/installed-for-tests
	$(BIN)/python -m gradbench.estimators
	$(BIN)/python notebooks/readme_tables.py

published: .venv/installed
	$(BIN)/python -m gradbench.suites.publish

docs: .venv/installed-for-tests
	$(BIN)/python -m sphinx -W -q -b html -d build/doctrees -c notebooks/site notebooks build/site

bench: .venv/installed
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/entry_points.py
	$(BIN)/python benchmarks/wide_networks.py
	$(BIN)/python benchmarks/commands.py

peer: .venv-peer/installed
	.venv-peer/bin/python benchmarks/peer.py
	.venv-peer/bin/python benchmarks/protocol.py

clean:
	rm -rf .venv .venv-matrix .venv-peer results/quick build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find gradbench tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Makes .venv, and installs into it this checkout with its EXTRAS. It is uv that installs, in a tenth of
# the time of pip; pip does where uv cannot, as from an index that is in pip's settings alone.
define install
$(PYTHON) -m venv .venv
$(BIN)/python -m pip install --quiet --disable-pip-version-check uv && \
    UV_SYSTEM_CERTS=true $(BIN)/uv pip install --quiet --python $(BIN)/python --editable ".$(EXTRAS)" $(PIN) || \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".$(EXTRAS)" $(PIN)
endef

# The stamps are made last, so that an interrupted installation is begun again, and are older than
# pyproject.toml when that has changed.
.venv/installed: pyproject.toml
	$(install)
	touch $@

.venv/installed-for-tests: EXTRAS := [test,dev]
.venv/installed-for-tests: pyproject.toml
	$(install)
	touch $@ .venv/installed

.venv-peer/installed: pyproject.toml
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install --quiet --editable ".[peer]"
	touch $@
