# One command per want. Everything runs in $(VENV): the active environment, or .venv made here.
PYTHON ?= python3
VENV ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
PIP ?= $(BIN)/python -m pip
EXTRAS ?= train,dashboard,dev
STAMP := $(VENV)/.hybrid-installed

.DEFAULT_GOAL := help
.PHONY: help install demo test soak check bench docs chromium

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

install: $(STAMP) ## install the package, the dashboard and the developer's tools

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -e '.[$(EXTRAS)]' -c constraints.txt
	touch $@

demo: install ## train for real and watch it in the browser (Ctrl-C ends both)
	@$(BIN)/hybrid demo $(DEMO)

test: install chromium ## run every test, browser tests included
	$(BIN)/python -m pytest $(TESTS)

soak: install chromium ## SOAK_MINUTES (5) of kills, fuzz and commands; WATCH_MINUTES (5) of a dashboard's memory
	SOAK_MINUTES=$(or $(SOAK_MINUTES),5) $(BIN)/python -m pytest -m soak tests/soak
	HYBRID_MODEL_EXAMPLES=$(or $(HYBRID_MODEL_EXAMPLES),100) $(BIN)/python -m pytest tests/engine/test_command_model.py
	$(BIN)/hybrid bench dashboard --quick --soak $(or $(WATCH_MINUTES),5)

check: install ## format, lint, types, floors, dependencies, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" $(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(BIN)/python -m trainer_core.spec.render --check

bench: install chromium ## measure the telemetry and the engine on this machine
	$(BIN)/hybrid bench telemetry
	$(BIN)/hybrid bench dashboard
	$(BIN)/hybrid bench engine --quick

docs: install ## regenerate docs/phases.md and docs/configuration.md from spec
	$(BIN)/python -m trainer_core.spec.render

chromium:
	@if command -v "$${CHROMIUM:-chromium}" >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; \
	else \
		echo "chromium is missing: the browser tests will fail; install the package chromium or set CHROMIUM=PATH" >&2; \
	fi
