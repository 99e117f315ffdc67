# The commands of this project. Each works on a fresh machine and does nothing twice.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
WORKERS ?= 2
FUZZ_SECONDS ?= 30
SOAK_FUZZ_SECONDS ?= 600
# What is held to `ruff format`; "." once everything passes.
FORMATTED ?= fuzz/run.py tests/architecture tests/conftest.py

.PHONY: help run test check lint coverage soak fuzz bench pages screenshots lock clean debian npm
.DEFAULT_GOAL := help

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: $(VENV)/run.stamp ## Start the demo: console, relay and a catcher on this machine; TRAFFIC=1 plays a day's mail
	@exec $(BIN)/postbud serve --demo $(if $(TRAFFIC),--traffic)

test: $(VENV)/dev.stamp debian npm coverage ## Run every test (installs the Debian packages that they need, when root)
	@$(MAKE) --no-print-directory fuzz
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not soak" -q tests

check: lint ## Lint, types, floors, docs: at most three minutes
	@$(BIN)/pytest -q tests/architecture

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check $(FORMATTED)
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry --no-ansi src
	@! $(BIN)/vulture | grep -v '^src/postbud/console/' # Django finds what is there by its name
	$(BIN)/codespell

# The pure floors have no branch that no unit test takes.
PURE := model wire mime policy bounce shaping
coverage: $(VENV)/dev.stamp
	@$(BIN)/pytest -q -n $(WORKERS) $(wildcard $(PURE:%=tests/unit/%)) $(PURE:%=--cov=postbud.%) \
		--cov-branch --cov-fail-under=100 --cov-report=term-missing:skip-covered

fuzz: $(VENV)/dev.stamp ## Run every fuzz target for FUZZ_SECONDS (30)
	@$(BIN)/python fuzz/run.py --seconds $(FUZZ_SECONDS) --jobs $(WORKERS)

soak: $(VENV)/dev.stamp debian npm ## What is too long for every run: kills, long fuzzing, big queues
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=$(SOAK_FUZZ_SECONDS)
	@$(BIN)/pytest -q -m soak --timeout=0 -s tests

bench: $(VENV)/dev.stamp debian ## The same load on Postbud and its peers, ratios printed; FULL=1 the whole table, WRITE=1 into docs
	@$(BIN)/python -m bench.run $(if $(FULL),--full) $(if $(WRITE),--write)
	@$(if $(FULL),$(BIN)/python -m bench.microseconds $(if $(WRITE),--write),true)

pages: $(VENV)/run.stamp ## Make the pages' styles, scripts, icons and translations anew
	@$(BIN)/python hatch_build.py

COMPILE := $(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-header --no-annotate \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options
lock: $(VENV)/dev.stamp ## Lock the requirements anew (UPGRADE=--upgrade for newer versions)
	$(COMPILE) $(UPGRADE) --output-file requirements/build.txt requirements/build.in
	$(COMPILE) $(UPGRADE) --output-file requirements/run.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --output-file requirements/dev.txt pyproject.toml requirements/dev.in
	@$(BIN)/pytest -q tests/architecture/test_repository.py

clean: ## Remove what was made here, but neither data nor spool
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage

screenshots: $(VENV)/dev.stamp ## Every page, light, dark, small and in Danish, into build/screenshots
	@$(BIN)/python -m tests.browser.screenshots

debian:
	@.ci/debian

npm: tests/interop/node_modules/.package-lock.json tests/browser/node_modules/.package-lock.json

%/node_modules/.package-lock.json: %/package-lock.json
	@npm ci --prefix $* --silent --no-progress --ignore-scripts
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Postbud needs Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The installation makes the pages' static files and the translations too (hatch_build.py); `make pages` makes them anew.
$(VENV)/run.stamp: requirements/run.txt requirements/build.txt pyproject.toml hatch_build.py frontend/package-lock.json | $(BIN)/python
	@echo "Installing what Postbud needs, and making its pages"
	@$(PIP) install --require-hashes -r requirements/run.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	@echo "Installing tools and test libraries"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
