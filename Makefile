# make demo | make test | make check: each sets up what it needs, in .venv.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check clean

demo: .venv/demo.stamp
	$(BIN)/python -m sum_l_jax.main --config=configs/demo.py --workdir=runs/demo

test: .venv/test.stamp
	$(BIN)/python -m pytest

check: .venv/test.stamp
	$(BIN)/ruff check .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(None if v >= (3, 11) else "Python 3.11 or newer is needed, %s is %d.%d. Say: make PYTHON=python3.12" % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

# No torch here: training does not use it.
.venv/demo.stamp: setup.py constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/test.stamp: setup.py constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@ .venv/demo.stamp

clean:
	rm -rf .venv .cache build dist *.egg-info
