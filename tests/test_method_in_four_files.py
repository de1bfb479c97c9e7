"""The method stands in four files, and those are the ones that a run calls.

A reader who has the paper in one hand finds Eq. 1 to 12 in the docstrings of
functions of these files. Mining and steps are traced: each of these functions
must be called, so that none is a second copy for show.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Iterator
import inspect
import pathlib
import re
import sys

import jax
import pytest

from data_prep import mine_pairs
from sum_l_jax import build
from sum_l_jax.config import read
from sum_l_jax.system import devices
from tests.support import runs

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[1]
# The equations that a file has. Eq. 1 is used in mining and, as the similarity of
# each pair of a batch, in the losses; the step differentiates Eq. 12.
FILES = {
  "data_prep/mining/pseudo_pairs.py": {1},
  "sum_l_jax/models/multiview.py": {5},
  "sum_l_jax/losses/sum_l.py": {1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12},
  "sum_l_jax/train/step.py": set(),
}
_NUMBERS = re.compile(r"Eq\. (\d+)(?:(?:, (\d+))* (?:and|to) (\d+))?")


def _equations(docstring: str | None) -> set[int]:
  """Numbers that a docstring names."""
  found = set()
  for match in _NUMBERS.finditer(docstring or ""):
    first, *others = (int(number) for number in match.groups() if number)
    if " to " in match.group():
      found.update(range(first, others[-1] + 1))
    found.update((first, *others))
  return found


def _documented(file: str) -> Iterator[tuple[str, str]]:
  """Name and docstring of a file's functions and methods."""
  for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
    if isinstance(node, ast.FunctionDef):
      yield node.name, ast.get_docstring(node) or ""
    elif isinstance(node, ast.ClassDef):
      for method in node.body:
        if isinstance(method, ast.FunctionDef):
          yield f"{node.name}.{method.name}", ast.get_docstring(method) or ""


def _calls(run: Callable[[], object]) -> set[tuple[str, str]]:
  """(file, function) of every call to the four files during a run."""
  files = {str(ROOT / file): file for file in FILES}
  seen = set()

  def note(frame, event, argument):
    del argument
    if event == "call" and frame.f_code.co_filename in files:
      seen.add((files[frame.f_code.co_filename], frame.f_code.co_qualname))

  sys.setprofile(note)
  try:
    run()
  finally:
    sys.setprofile(None)
  return seen


@pytest.fixture(name="called", scope="module")
def called_fixture(tiny_ego, tiny_exo, tiny_tables, tmp_path_factory):
  """What a run of the method calls, by name of the cross-view loss."""
  table = tmp_path_factory.mktemp("mined") / "pairs.npz"

  def mine():
    arguments = [
      f"--ego={tiny_ego}",
      f"--exo={tiny_exo}",
      f"--narrations={tiny_tables / 'narrations.npz'}",
      f"--output={table}",
    ]
    assert mine_pairs.main(arguments) == 0

  def trace(cross_view):
    config = runs.small(read.default_config(), ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
    config.loss.cross_view = cross_view
    config.pairs.table = str(table)
    mesh = devices.make_mesh(1)
    trainer = build.Trainer.open(build.resolve(config), "joint", mesh)
    with trainer.stream(start_step=0) as batches:
      batch = next(iter(batches))
    trainer.step.lower(jax.eval_shape(trainer.initial_state), batch)

  mined = _calls(mine)
  return {
    kind: mined | _calls(lambda kind=kind: trace(kind))
    for kind in ("weighted", "filtered", "info_nce")
  }


@pytest.mark.parametrize("file", FILES)
def test_every_equation_is_named_where_it_is_computed(file, called):
  named = set()
  every_call = set().union(*called.values())
  for function, docstring in _documented(file):
    numbers = _equations(docstring)
    named |= numbers & FILES[file]
    if numbers:
      assert (file, function) in every_call, f"{file}: nothing calls {function}"
  assert named == FILES[file]


def test_sum_l_itself_runs_its_own_equations(called):
  """Eq. 1 and 5 to 12; Eq. 2 to 4 are InfoNCE, from which the paper starts."""
  run = {}
  for file in FILES:
    for function, docstring in _documented(file):
      if (file, function) in called["weighted"]:
        for number in _equations(docstring):
          run.setdefault(number, set()).add(f"{file}::{function}")
  assert ("sum_l_jax/train/step.py", "make_train_step.<locals>.step") in called["weighted"]
  missing = {1, *range(5, 13)} - run.keys()
  assert not missing, f"A run of SUM-L calls no function that names Eq. {sorted(missing)}"


def test_the_step_fits_on_a_screen():
  lines, _ = inspect.getsourcelines(build.make_train_step)
  assert len(lines) <= 60
