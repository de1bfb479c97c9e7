# make demo | test | check | soak | bench | docs | wheel: each sets up what it
# needs, in .venv.

PYTHON ?= python3
# Of pytest; a file of tests stays in one.
WORKERS ?= 2
BIN := .venv/bin

.PHONY: demo test check soak bench docs wheel clean

demo: .venv/demo.stamp
	$(BIN)/python -m sum_l_jax.main --config=configs/demo.py --workdir=runs/demo

test: .venv/test.stamp
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: .venv/test.stamp
	$(BIN)/ruff check .

# Kills at random moments and damaged inputs: docs/reliability.md.
soak: .venv/test.stamp
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.stress.soak --kills=200 \
	  --inputs=10000 --seed=0 --output=benchmarks/results/soak.json

# All, or QUICK=1 for smaller ones: docs/performance.md. One that fails stops
# none of the others. faiss is compared with where pip can get it.
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
	$(BIN)/python -m pip install --quiet --upgrade pip

# Training, and the report at its end: no TensorFlow and no PyTorch.
.venv/demo.stamp: setup.py constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[report]'
	@touch $@

.venv/test.stamp: setup.py constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@ .venv/demo.stamp

.venv/docs.stamp: setup.py constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

clean:
	rm -rf .venv .cache build dist *.egg-info
