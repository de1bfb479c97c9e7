"""Damaged and made-up inputs: every answer is a result or an error that speaks.

A few dozen of each kind; `python -m tests.stress.soak --inputs=10000` reads more.
"""

from __future__ import annotations

import json

import hypothesis
from hypothesis import given
from hypothesis import strategies
import numpy as np
import pytest

from data_prep.sources import clip_specs
from data_prep.sources import lemma_narration
from sum_l_jax import build
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.system import csv_rows
from tests.stress import hostile_inputs

_NUMBER = 40


@pytest.mark.parametrize("name", hostile_inputs.TARGETS)
def test_damaged_files(name, tmp_path):
  target = hostile_inputs.TARGETS[name]
  valid = target.make()
  ends = []
  for number in range(-1, _NUMBER):
    data = target.input(valid, number, seed=1) if number >= 0 else valid
    folder = tmp_path / str(number)
    folder.mkdir()
    ends.append(hostile_inputs.attempt(target, data, folder))
  # The file itself is read, so that the errors are about the damage.
  assert ends[0] == "result"
  assert (
    "result" not in ends or set(ends) - {"result"} or "jpg" in name or name in ("metrics", "texts")
  )


@pytest.mark.parametrize("number", [106, 832])
def test_weights_that_libraries_trip_over(number, tmp_path):
  """Found by the soak: an IndexError of PyTorch, a BadZipFile of zipfile."""
  target = hostile_inputs.TARGETS["weights.pyth"]
  rng = np.random.default_rng([0, number])
  data = hostile_inputs.mutate(target.make(), rng)
  assert hostile_inputs.attempt(target, data, tmp_path) == "ValueError"


_FEW = hypothesis.settings(max_examples=60, deadline=None, database=None)


@_FEW
@given(strategies.text(max_size=60))
def test_hois(text):
  try:
    assert lemma_narration.narrate(text).strip()
  except ValueError as error:
    assert len(str(error)) > 10


@_FEW
@given(strategies.text(max_size=30))
def test_times_and_numbers(text):
  for parse, least in ((clip_specs.parse_seconds, 0.0), (csv_rows.parse_int, float("-inf"))):
    try:
      assert least <= parse(text, "column", "here") < float("inf")
    except ValueError as error:
      assert str(error).startswith("here: column must be")


@_FEW
@given(
  strategies.one_of(
    strategies.none(),
    strategies.text(max_size=9),
    strategies.floats(),
    strategies.integers(),
    strategies.lists(strategies.integers(), max_size=3),
    strategies.dictionaries(strategies.text(max_size=3), strategies.integers()),
  )
)
def test_lines_of_a_clip_list(value):
  whole = json.loads(
    records.ClipInfo("a", "cut", {"verb": (0,)}, 9, 12.0, "v", 0.0, 0, "").to_json()
  )
  for name in whole:
    line = json.dumps({**whole, name: value})
    try:
      records.ClipInfo.from_json(line)
    except (ValueError, TypeError, AttributeError, KeyError):
      pass  # What the reader of the file turns into a named line.


@_FEW
@given(strategies.sampled_from(sorted(schema.Settings().flatten())), strategies.text(max_size=20))
def test_config_overrides(name, text):
  config = read.default_config()
  if not isinstance(schema.Settings().flatten()[name], str):
    return
  config.update_from_flattened_dict({name: text})
  try:
    build.resolve(config)
  except ValueError as error:
    assert len(str(error)) > 10


@pytest.mark.parametrize("name", ["name", "view", "metadata", "tasks", "splits", "shards"])
def test_a_card_that_lacks_a_field(name, tmp_path):
  card = json.loads(hostile_inputs.TARGETS["card"].make())
  del card[name]
  (tmp_path / "card.json").write_text(json.dumps(card))
  with pytest.raises(ValueError, match=f"card.json' is damaged: .* field `{name}`"):
    records.ClipDataset(tmp_path, "train")


def test_a_clip_list_that_is_no_text(tmp_path):
  (tmp_path / "card.json").write_bytes(hostile_inputs.TARGETS["card"].make())
  lines = hostile_inputs.TARGETS["clips"].make().splitlines(keepends=True)
  (tmp_path / "clips_train.jsonl").write_bytes(lines[0] + b"\xff" + lines[1])
  with pytest.raises(ValueError, match="clips_train.jsonl, line 2 is damaged"):
    records.ClipDataset(tmp_path, "train")


def test_tables_of_other_types(tmp_path):
  path = tmp_path / "t.npz"
  for arrays, load, words in (
    ({"narrations": np.arange(3)}, narration_table.NarrationTable.load, "narrations must be texts"),
    ({"ego_rows": np.array(["a", "b"])}, pairing.PairTable.load, "ego_rows is <U1"),
    ({"clip_offsets": np.array([], np.int64)}, pairing.PairTable.load, "Broken pair table"),
  ):
    kind = "pairs.npz" if "narrations" not in arrays else "narrations.npz"
    path.write_bytes(hostile_inputs.TARGETS[kind].make())
    with np.load(path, allow_pickle=False) as file:
      stored = dict(file.items())
    np.savez(path, **(stored | arrays))
    with pytest.raises(ValueError, match=words):
      load(path)
