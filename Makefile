# `make` alone lists the targets. PYTHON chooses the interpreter that .venv is made with: 3.11 to 3.13.
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo unusable)
# The stamps carry the interpreter's version: another PYTHON finds none and makes .venv anew.
LOCKED := $(VENV)/.locked-$(VERSION)
READY := $(VENV)/.ready-$(VERSION)

.PHONY: help setup test test-slow demo lock clean python-version
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: python-version $(READY)  ## make .venv with the pinned requirements and switch_jax, editable

python-version:
	@case "$(VERSION)" in 3.11.*|3.12.*|3.13.*) ;; *) echo "switch_jax needs Python 3.11, 3.12 or 3.13;" \
	  "PYTHON=$(PYTHON) is $(VERSION). Try: make setup PYTHON=python3.11" >&2; exit 2 ;; esac

# The constraints hold setuptools to its pin where pip builds a package from source.
$(LOCKED): requirements.txt | python-version
	@echo "setup: installing requirements.txt into $(VENV) with Python $(VERSION) (about two minutes)"
	@$(PYTHON) -m venv --clear $(VENV)
	@PIP_CONSTRAINT=$< PIP_BUILD_CONSTRAINT=$< \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

$(READY): $(LOCKED) setup.py pyproject.toml
	@echo "setup: installing switch_jax into $(VENV), editable"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

test: setup  ## lint, types and the fast tests
	@echo "test: ruff"
	@$(BIN)/ruff check .
	@echo "test: mypy"
	@$(BIN)/mypy switch_jax tasks launch
	@echo "test: pytest, all but the slow tests"
	@$(BIN)/pytest -q -n 2 -m "not slow"

test-slow: setup  ## the tests that take minutes
	@echo "test-slow: pytest, the slow tests"
	@$(BIN)/pytest -q -m slow || [ $$? -eq 5 ]  # 5: there is none

demo: setup  ## pretrain a small Switch model and its dense twin on this machine, and compare them
	@echo "demo: pretraining a small Switch Transformer"
	@$(BIN)/switch_jax train --gin_file=runs/demo_switch.gin
	@echo "demo: pretraining its dense twin"
	@$(BIN)/switch_jax train --gin_file=runs/demo_dense.gin
	@echo "demo: writing runs/demo/report.html"
	@$(BIN)/switch_jax report runs/demo/switch runs/demo/dense --output runs/demo/report.html

lock: python-version  ## remake requirements.txt from setup.py; pins that still fit are kept
	@echo "lock: resolving setup.py and its test extra into requirements.txt"
	@$(PYTHON) -m venv --clear build/lock
	@build/lock/bin/pip install --quiet --disable-pip-version-check uv
	@build/lock/bin/uv pip compile setup.py --quiet --extra test --universal --python-version 3.11 \
	  --no-annotate --custom-compile-command \
	  "make lock (install it with pip install --no-deps; docs/install.md says why)" --output-file requirements.txt
	@sed -i.bak "/sys_platform == 'never'/d" requirements.txt && rm -r requirements.txt.bak build/lock

clean:  ## remove .venv, build outputs and caches; runs/ stays
	@echo "clean: removing $(VENV), build outputs and caches"
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
