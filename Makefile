# `make` alone lists the targets. PYTHON chooses the interpreter that .venv is made with: 3.11 to 3.13.
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo unusable)
# The stamps carry the interpreter's version: another PYTHON finds none and makes .venv anew.
LOCKED := $(VENV)/.locked-$(VERSION)
READY := $(VENV)/.ready-$(VERSION)
TRANSFORMERS := $(VENV)/.transformers-$(VERSION)
SITE := $(VENV)/.docs-$(VERSION)

.PHONY: help setup test test-slow demo demo-switch demo-dense downstream downstream-t5 downstream-switch languages languages-mt5 languages-mswitch study study-core-0 study-core-1 long_study long_study-core-0 long_study-core-1 lm_study lm_study-core-0 lm_study-core-1 docs lock clean python-version
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: python-version $(READY)  ## make .venv with the pinned requirements and switch_jax, editable

python-version:
	@case "$(VERSION)" in 3.11.*|3.12.*|3.13.*) ;; *) echo "switch_jax needs Python 3.11, 3.12 or 3.13;" \
	  "PYTHON=$(PYTHON) is $(VERSION). Try: make setup PYTHON=python3.11" >&2; exit 2 ;; esac

# The constraints hold setuptools to its pin where pip builds a package from source. pip compiles
# Python files on one core, compileall on all. Some test files of packages do not compile: `|| true`.
$(LOCKED): requirements.txt | python-version
	@echo "setup: installing requirements.txt into $(VENV) with Python $(VERSION) (about two minutes)"
	@$(PYTHON) -m venv --clear $(VENV)
	@PIP_CONSTRAINT=$< PIP_BUILD_CONSTRAINT=$< \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --requirement $<
	@$(BIN)/python -W ignore -m compileall -q -j 0 $(VENV)/lib > /dev/null || true
	@touch $@

$(READY): $(LOCKED) setup.py pyproject.toml
	@echo "setup: installing switch_jax into $(VENV), editable"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "setup: done; activate it with: source $(VENV)/bin/activate"

# Without a build of PyTorch for this Python the tests that need it are skipped.
$(TRANSFORMERS): requirements-transformers.txt $(READY)
	@echo "test: installing transformers and PyTorch, with which converted models are compared"
	@PIP_RETRIES=1 $(BIN)/pip install -qq --disable-pip-version-check --no-deps --requirement $< \
	  && touch $@ || echo "test: they cannot be installed here, so the tests that need them are skipped"

# loadfile: the tests of a file share what it sets up, so they stay in one process. Files keep the
# order of tests/conftest.py.
test: setup $(TRANSFORMERS)  ## lint, types and the fast tests
	@PIP_RETRIES=1 $(MAKE) --silent $(SITE) \
	  || echo "test: what builds the site cannot be installed here, so its test is skipped"
	@echo "test: ruff"
	@$(BIN)/ruff check .
	@echo "test: mypy"
	@$(BIN)/mypy switch_jax tasks launch tools
	@echo "test: pytest, all but the slow tests"
	@$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: setup  ## the tests that take minutes
	@echo "test-slow: pytest, the slow tests"
	@$(BIN)/pytest -q -m slow || [ $$? -eq 5 ]  # 5: there is none

demo: setup  ## pretrain a small Switch model beside its dense twin, and compare them: eight minutes
	@echo "demo: pretraining a small Switch Transformer and, beside it, its dense twin (runs/demo/dense.log)"
	@$(MAKE) --no-print-directory --jobs=2 demo-switch demo-dense
	@echo "demo: writing runs/demo/report.html"
	@$(BIN)/switch_jax report runs/demo/switch runs/demo/dense --examples=5 --output runs/demo/report.html

demo-switch: setup
	@$(call ON_CORE,0) $(BIN)/switch_jax train --gin_file=runs/demo_switch.gin

demo-dense: setup
	@mkdir -p runs/demo
	@$(call ON_CORE,1) $(BIN)/switch_jax train --gin_file=runs/demo_dense.gin > runs/demo/dense.log 2>&1 \
	  || { tail -n 5 runs/demo/dense.log >&2; exit 1; }

# Runs side by side keep to a core each where that is possible (Linux), so that their times compare.
ON_CORE = $(if $(PINS),taskset --cpu-list $(1))
PINS := $(shell taskset --cpu-list 0 true 2>/dev/null && taskset --cpu-list 1 true 2>/dev/null && echo yes)

# The tables and the picture of finished runs. $(1): their folder in runs/, $(2): what draws them.
define DRAW
@echo "$(1): the tables, and the picture runs/$(1)/$(1).png"
@$(BIN)/python benchmarks/$(2) --runs runs/$(1) --picture runs/$(1)/$(1).png
endef

SEEDS := 0 1 2
downstream: setup  ## what a small Switch and its dense twin know, over three seeds: 50 minutes on two cores, resumable
	@$(MAKE) --no-print-directory --jobs=2 downstream-t5 downstream-switch
	$(call DRAW,downstream,downstream.py)

# One of the two models: what its commands print is in runs/downstream/t5.log or switch.log.
downstream-t5: CORE = 0
downstream-switch: CORE = 1
IN_SMALL_t5 = models/t5_demo.gin
IN_SMALL_switch = benchmarks/gin/in_small_switch.gin
downstream-t5 downstream-switch: downstream-%: setup
	@mkdir -p runs/downstream; set -e; log=runs/downstream/$*.log; \
	run() { echo "downstream: $*, seed $$seed, $$1"; shift; \
	  $(call ON_CORE,$(CORE)) $(BIN)/switch_jax "$$@" >> $$log 2>&1 || { tail -n 5 $$log >&2; exit 1; }; }; \
	for seed in $(SEEDS); do \
	  flags="--gin_file=$(IN_SMALL_$*) --gin.RANDOM_SEED=$$seed"; \
	  english=runs/downstream/english_$*_$$seed; facts=runs/downstream/$*_$$seed; \
	  run English train $$flags --gin_file=benchmarks/gin/in_small.gin --gin.MODEL_DIR=$$english; \
	  run facts train $$flags --gin_file=benchmarks/gin/facts.gin --gin.INITIAL_CHECKPOINT_PATH=$$english \
	    --gin.MODEL_DIR=$$facts; \
	  run questions eval $$facts --checkpoint=all --task=factbook_qa_cloze; \
	done

languages: setup runs/large_multilingual/af.train.txt.gz  ## mT5 and mSwitch in small, on 100 languages: an hour on two cores, resumable
	@$(MAKE) --no-print-directory --jobs=2 languages-mt5 languages-mswitch
	$(call DRAW,languages,languages.py)

languages-mt5: CORE = 0
languages-mswitch: CORE = 1
MODEL_mt5 = --gin_file=models/t5_study.gin
MODEL_mswitch = --gin_file=models/switch_study.gin --gin.NUM_EXPERTS=16
languages-mt5 languages-mswitch: languages-%: setup
	@mkdir -p runs/languages; echo "languages: pretraining $* (runs/languages/$*.log)"
	@$(call ON_CORE,$(CORE)) $(BIN)/switch_jax train $(MODEL_$*) --gin_file=benchmarks/gin/languages.gin \
	  --gin.MODEL_DIR=runs/languages/$* >> runs/languages/$*.log 2>&1 \
	  || { tail -n 5 runs/languages/$*.log >&2; exit 1; }

# The study: which runs, and on which core each runs. A name ends in the seed.
STUDY_CORE_0 := dense_0 experts_32_0 dense_1 dense_large_0
STUDY_CORE_1 := experts_8_0 experts_16_0 experts_8_1 experts_4_0 experts_2_0
LONG_STUDY_CORE_0 := dense_0 dense_large_0 dense_1
LONG_STUDY_CORE_1 := experts_32_0 experts_8_0 experts_64_0 experts_32_1
LM_STUDY := dense_0 experts_8_0 experts_32_0
# Their models: models/NAME_study.gin.
DENSE := t5
SPARSE := switch
# More flags for each run. With another task in them the text is not built.
STUDY_FLAGS ?=
STUDY_TEXT = $(if $(findstring MIXTURE_OR_TASK_NAME,$(STUDY_FLAGS)),,runs/$(1))
study: setup $(call STUDY_TEXT,large_english/train.txt.gz)  ## the paper's Figure 1 in small: an hour and a half on two cores, resumable
	@$(MAKE) --no-print-directory --jobs=2 study-core-0 study-core-1
	$(call DRAW,study,study.py study)

long_study: setup $(call STUDY_TEXT,large_code/train.txt)  ## the study with 40,000 steps, on C code: a night on two cores, resumable
	@$(MAKE) --no-print-directory --jobs=2 long_study-core-0 long_study-core-1
	$(call DRAW,long_study,study.py long_study)

lm_study: setup $(call STUDY_TEXT,large_english/train.txt.gz) $(call STUDY_TEXT,large_code/train.txt)  ## language models with experts: half an hour on two cores, resumable
	@$(MAKE) --no-print-directory --jobs=2 lm_study-core-0 lm_study-core-1
	$(call DRAW,lm_english,study.py lm_english)
	$(call DRAW,lm_code,study.py lm_code)

study-core-0 study-core-1: study-core-%: setup
	$(call TRAIN_STUDY,study,$*,$(STUDY_CORE_$*))

# What has experts or is larger soon passes what the dense model reaches, and needs no more steps.
long_study-core-0 long_study-core-1: long_study-core-%: setup
	$(call TRAIN_STUDY,long_study,$*,$(LONG_STUDY_CORE_$*),--gin.TRAIN_STEPS=15000)

# A text for each core.
lm_study-core-0 lm_study-core-1: DENSE := lm
lm_study-core-0 lm_study-core-1: SPARSE := switch_lm
lm_study-core-0: setup
	$(call TRAIN_STUDY,lm_english,0,$(LM_STUDY))
lm_study-core-1: setup
	$(call TRAIN_STUDY,lm_code,1,$(LM_STUDY))

# The runs of one core, one after the other. What they print is in runs/STUDY/RUN.log. $(1): the
# study, $(2): the core, $(3): its runs, $(4): flags for all but the dense models of equal FLOPs.
define TRAIN_STUDY
@mkdir -p runs/$(1); set -e; for run in $(3); do \
  echo "$(1): core $(2), $$run"; model=$(DENSE); size=; flags=; \
  case $$run in \
    dense_large_*) size=_large; flags="$(4)" ;; \
    experts_*) model=$(SPARSE); experts=$${run#experts_}; flags="--gin.NUM_EXPERTS=$${experts%_*} $(4)" ;; \
  esac; \
  $(call ON_CORE,$(2)) $(BIN)/switch_jax train --gin_file=models/$${model}_study$${size}.gin \
    --gin_file=benchmarks/gin/$(1).gin $$flags --gin.MODEL_DIR=runs/$(1)/$$run --gin.RANDOM_SEED=$${run##*_} \
    $(STUDY_FLAGS) >> runs/$(1)/$$run.log 2>&1 || { tail -n 5 runs/$(1)/$$run.log >&2; exit 1; }; \
done
endef

# Texts that are built from packages of Debian: $(1) is a folder of runs/, $(2) what it is built from.
define BUILD_TEXT
@echo "$(1): fetching the text's packages and building runs/$(1) (some minutes)"
@mkdir -p runs/$(1)/packages
@cd runs/$(1)/packages && if [ -z "$$(ls)" ]; then \
  command -v apt-get > /dev/null || { \
    echo "$(1): there is no apt-get here; put the .deb files of these packages of Debian into" \
    "runs/$(1)/packages: $(2)" >&2; exit 2; }; \
  apt-get download --quiet $(2) || { rm -f *.deb; exit 1; }; \
fi
@$(BIN)/python benchmarks/corpora/build_$(1).py runs/$(1)/packages
endef

runs/large_english/train.txt.gz: | setup
	$(call BUILD_TEXT,large_english,anarchism debian-handbook dict-foldoc dict-gcide gnome-user-docs \
	  libreoffice-help-en-us linux-doc-6.12 postgresql-doc-17 python3.13-doc sqlite3-doc)

runs/large_code/train.txt: | setup
	$(call BUILD_TEXT,large_code,linux-source-6.12)

HELP_LANGUAGES := ca cs da de el en-us es et eu fi fr gl hi hu id it ja km ko nl pl pt pt-br ru sl sv tr \
  vi zh-cn zh-tw
runs/large_multilingual/af.train.txt.gz: | setup
	$(call BUILD_TEXT,large_multilingual,debian-handbook gnome-user-docs installation-guide-amd64 \
	  $(addprefix libreoffice-help-,$(HELP_LANGUAGES)))

$(SITE): requirements-docs.txt $(READY)
	@echo "docs: installing what builds the site"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

docs: setup $(SITE)  ## build the documentation site in build/site; warnings are errors
	@echo "docs: writing the reference from the code"
	@$(BIN)/python -m tools.reference
	@echo "docs: building build/site/index.html"
	@$(BIN)/zensical build --clean --strict
	@echo "docs: to search it, too: python3 -m http.server --directory build/site, then http://localhost:8000"

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
	@rm -rf $(VENV) build dist *.egg-info .cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
