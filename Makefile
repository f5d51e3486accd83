# make reproduce   install, run the seven notebooks, print the claims and where the report is
# make test        install, check the style, run the test suite
# make test-extras install the optional extras as well (Ray, lmms-eval), run their tests
# make lab         install, open the notebooks in JupyterLab
# make clean       remove generated results (not .venv)
PROFILE ?= testbed
# The first Python of these that is 3.11 or newer; another: make reproduce PYTHON=path/to/python
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d ' ' -f 1)

.PHONY: reproduce test test-extras lab clean

reproduce: $(STAMP)
	$(BIN)/auditdm run params/$(PROFILE).yaml

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

test-extras: $(STAMP)
	$(BIN)/python -m pip install --no-deps -r requirements-extras.lock
	$(BIN)/python -m pytest tests/test_bulk.py tests/test_lmms.py

lab: $(STAMP)
	$(BIN)/auditdm lab

# Installed again only when the lock or pyproject.toml changed: the stamp's name carries their checksum.
$(STAMP):
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found; name one: make reproduce PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	rm -f .venv/installed-*
	touch $@

clean:
	rm -rf runs
	find figures -mindepth 1 -maxdepth 1 ! -name README.md ! -name paper_values.csv ! -name reference \
		-exec rm -rf {} +
