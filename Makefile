# Each target sets up what it needs in .venv.
#
#   make demo     the whole method, small
#   make test     all tests
#   make quick    the tests that take a moment
#   make lowest   the same with the lowest versions that setup.py allows
#   make newest   the same with the newest ones
#   make check    lint, format and types
#   make docs     the pages in build/site, strictly
#   make wheel    the wheel, tried where nothing else is installed
#   make beam     pipelines of Apache Beam, in an environment of its own
#   make ci       check, docs, wheel, test and beam: what CI runs
#   make soak     kills at random moments, damaged inputs, made videos: docs/reliability.md
#   make storage  a server of Cloud Storage's protocol, for trials of gs://
#   make bench    the measurements of docs/performance.md; QUICK=1 for smaller ones
#   make device-check  a GPU or TPU checked and measured, in MINUTES=8

PYTHON ?= python3
# Processes of pytest; the tests of one file stay in one process.
WORKERS ?= 2
BIN := .venv/bin
# Compiling all modules takes a third of the time of an installation; Python compiles
# those that it imports by itself.
INSTALL := -m pip install --quiet --no-compile
# A newer pip is nothing that anybody who waits for the demo must read of.
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test quick lowest newest check docs wheel beam ci soak storage bench device-check clean

demo: .venv/demo.stamp
	@echo "Rendering a small world of clips and training on it: two to four minutes on two cores."
	$(BIN)/python -m sum_l_jax.main --config=configs/demo.py --workdir=runs/demo

test: .venv/test.stamp
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

quick: .venv/test.stamp
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m quick

# In environments of their own. uv can choose the lowest versions; `PYTHON=`
# chooses another Python, for which there may be newer ones.
lowest: RESOLUTION = lowest-direct
newest: RESOLUTION = highest
lowest newest:
	$(PYTHON) -m venv .venv-$@
	.venv-$@/bin/python -m pip install --quiet uv
	.venv-$@/bin/uv pip install --quiet --python .venv-$@/bin/python --upgrade \
	  --resolution $(RESOLUTION) --editable '.[test]'
	JAX_COMPILATION_CACHE_DIR=$(CURDIR)/.cache/$@ .venv-$@/bin/python -m pytest \
	  -n $(WORKERS) --dist loadfile -m quick

check: .venv/check.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Beam holds protobuf below what the others need.
beam: .venv-beam/beam.stamp
	.venv-beam/bin/python -m pytest tests/data_prep/beam/check_pipeline.py

ci: check docs wheel test beam

KILLS ?= 200
PREEMPTIONS ?= 200
INPUTS ?= 10000
CONTAINERS ?= 350

soak: .venv/test.stamp
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.stress.soak --kills=$(KILLS) \
	  --inputs=$(INPUTS) --containers=$(CONTAINERS) --seed=0 --output=benchmarks/results/soak.json
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.stress.preemptions --kills=$(PREEMPTIONS) \
	  --seed=0 --output=benchmarks/results/preemptions.json

# PORT= and BUCKET= choose others.
storage: PORT ?= 4443
storage: BUCKET ?= trial
storage: .venv/test.stamp
	@$(BIN)/python -m tests.support.storage_server --port=$(PORT) --bucket=$(BUCKET)

# One that fails does not stop the others. faiss is compared with where pip can
# get it.
BENCHMARKS := step cpu_layers input_rate mining_rate start_up evaluation growth

bench: .venv/test.stamp
	-$(BIN)/python -m pip install --quiet --target .venv/faiss --no-deps faiss-cpu
	@failed=; for name in $(BENCHMARKS); do \
	  echo "== $$name"; options=; \
	  if [ $$name = mining_rate ]; then options=--faiss=.venv/faiss; fi; \
	  JAX_PLATFORMS=cpu $(BIN)/python -m benchmarks.$$name $$options \
	    $(if $(QUICK),--quick) --output=benchmarks/results/$$name.json \
	    || failed="$$failed $$name"; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed:$$failed"; exit 1; fi

# In .venv if it is there, or else with PYTHON, whose JAX must see the chip.
# Nothing is installed.
MINUTES ?= 8

device-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m sum_l_jax device_check \
	  --minutes=$(MINUTES) --output=benchmarks/results/device_check.json

# Strict: a page, link or anchor that is not there ends it.
docs: .venv/docs.stamp
	$(BIN)/python docs/generate_configuration.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Written: build/site/index.html"

# Builds the wheel and tries it where nothing else is installed.
wheel: .venv/bin/python
	$(BIN)/python -m tests.support.try_wheel

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(None if v >= (3, 11) else "Python 3.11 or newer is needed, %s is %d.%d. Say: make PYTHON=python3.12" % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv .venv

# Training, and the report at its end: no TensorFlow and no PyTorch.
.venv/demo.stamp: setup.py constraints.txt | .venv/bin/python
	@echo "Installing the library and what the demo needs into .venv: about a minute."
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[report]'
	@touch $@

.venv/test.stamp: setup.py constraints.txt | .venv/bin/python
	@echo "Installing what the tests need into .venv, PyTorch and TensorFlow among it: minutes."
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[test]'
	@touch $@ .venv/demo.stamp

# The type checker looks into the libraries that the tests install.
.venv/check.stamp: .venv/test.stamp
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[check]'
	@touch $@

.venv/docs.stamp: setup.py constraints.txt | .venv/bin/python
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[docs]'
	@touch $@

.venv-beam/beam.stamp: setup.py constraints-beam.txt
	$(PYTHON) -m venv .venv-beam
	.venv-beam/bin/python $(INSTALL) --constraint constraints-beam.txt \
	  --editable '.[beam,gcs]' pytest
	@touch $@

clean:
	rm -rf .venv .venv-lowest .venv-newest .venv-beam .cache build dist *.egg-info
