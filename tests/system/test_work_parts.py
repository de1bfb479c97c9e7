"""Work in parts: divided, made, found again, and refused where it doesn't fit."""

from __future__ import annotations

import argparse
import json
import os

from etils import epath
from hypothesis import given
from hypothesis import strategies
import pytest

from sum_l_jax.system import storage
from sum_l_jax.system import work_parts

COMMAND = "python -m data_prep.mine_pairs '--ego=a b' --merge=3"


def _work(folder, *, weights=(1,) * 7, **values):
  return work_parts.Parts(epath.Path(folder) / "out.npz", {"top_k": 10, **values}, weights)


def _make(work, number, of=3, text="x"):
  def do(items, folder):
    (folder / "items.txt").write_text(" ".join(map(str, items)))
    (folder / "below").mkdir()
    (folder / "below" / "file").write_text(text)
    return {"sum": sum(items)}

  return work.make(work_parts.Part(number, of), do)


@given(strategies.lists(strategies.floats(0, 1e9), max_size=60), strategies.integers(1, 12))
def test_every_item_is_in_one_part(weights, of):
  shares = [work_parts.Part(number, of).share(weights) for number in range(of)]
  assert [item for share in shares for item in share] == list(range(len(weights)))


def test_parts_are_of_nearly_equal_weight():
  weights = [1 + (n * 7919) % 13 for n in range(1000)]
  sums = [sum(weights[i] for i in work_parts.Part(n, 8).share(weights)) for n in range(8)]
  assert max(sums) - min(sums) <= 2 * max(weights)


@pytest.mark.parametrize("text", ["/40", "3", "a/40", "$(JOB_COMPLETION_INDEX)/40", "-1/4", "1/0"])
def test_what_is_no_part(text):
  with pytest.raises(argparse.ArgumentTypeError, match="counted from 0"):
    work_parts.Part.parse(text)


def test_the_last_part_is_one_less():
  assert work_parts.Part.parse("39/40") == work_parts.Part(39, 40)
  with pytest.raises(argparse.ArgumentTypeError, match=r"0/40 to 39/40"):
    work_parts.Part.parse("40/40")


def test_all_parts_are_found_in_order(tmp_path):
  work = _work(tmp_path)
  for number in (2, 0, 1):
    assert _make(work, number).startswith(f"wrote part {number}/3")
  assert "is there already" in _make(work, 1)
  made = work.collect(3, COMMAND)
  texts = [(one.folder / "items.txt").read_text() for one in made]
  assert " ".join(texts) == "0 1 2 3 4 5 6"
  assert [one.result["sum"] for one in made] == [sum(one.items) for one in made]
  work.clear()
  assert not os.listdir(tmp_path)


def test_missing_parts_are_named_with_their_command(tmp_path):
  work = _work(tmp_path)
  _make(work, 1, of=5)

  def fail(items, folder):
    raise ValueError("m.csv, line 3: no video")

  with pytest.raises(ValueError, match="no video"):
    work.make(work_parts.Part(3, 5), fail)
  with pytest.raises(work_parts.MissingPartsError) as error:
    work.collect(5, COMMAND.replace("=3", " 5"))
  text = str(error.value)
  assert "4 of 5 parts are missing" in text and ": 0, 2 to 4." in text
  assert "Part 3: it ended with ValueError: m.csv, line 3: no video" in text
  assert "\n  python -m data_prep.mine_pairs '--ego=a b' --part=0/5\n" in text
  assert "--array=0,2-4" in text
  # It is made again alone, and what was said of it is gone.
  for number in (0, 2, 3, 4):
    _make(work, number, of=5)
  assert len(work.collect(5, COMMAND)) == 5
  assert sorted(path.name for path in work.folder.iterdir()) == [
    work_parts.Part(number, 5).name for number in range(5)
  ]


def test_another_number_of_parts_is_named(tmp_path):
  work = _work(tmp_path)
  _make(work, 0, of=8)
  with pytest.raises(
    work_parts.MissingPartsError, match=r"There are parts of 8: did you mean --merge=8\?"
  ):
    work.collect(3, COMMAND)


def _cut_off(folder):
  path = folder / "items.txt"
  path.write_text(path.read_text()[:-1])


def _change(folder):
  path = folder / "below" / "file"
  path.write_text("y")


def _damage(folder):
  (folder / work_parts.FILE).write_text('{"format": 1')


def _shift(folder):
  said = json.loads((folder / work_parts.FILE).read_text())
  said["first"] += 1
  (folder / work_parts.FILE).write_text(json.dumps(said))


@pytest.mark.parametrize(
  "harm, reason",
  [
    (lambda folder: (folder / work_parts.FILE).unlink(), ""),
    (lambda folder: (folder / "items.txt").unlink(), "items.txt is missing"),
    (_cut_off, "items.txt has 4 bytes, of 5"),
    (_change, "below/file was changed"),
    (_damage, "part.json is damaged"),
    (_shift, "it begins with item 3, not 2"),
  ],
)
def test_what_is_damaged_is_not_taken(tmp_path, harm, reason):
  work = _work(tmp_path)
  for number in range(3):
    _make(work, number)
  harm(work.place(work_parts.Part(1, 3)))
  with pytest.raises(work_parts.MissingPartsError) as error:
    work.collect(3, COMMAND)
  assert "1 of 3 parts are missing" in str(error.value) and reason in str(error.value)
  if harm is not _shift:
    assert _make(work, 1).startswith("wrote")
    assert len(work.collect(3, COMMAND)) == 3


def test_parts_of_other_work_are_not_taken(tmp_path):
  for number in range(3):
    _make(_work(tmp_path), number)
  other = _work(tmp_path, top_k=5)
  with pytest.raises(work_parts.MissingPartsError, match="top_k was 10, and is 5 now"):
    other.collect(3, COMMAND)
  with pytest.raises(work_parts.MissingPartsError, match="items was 7, and is 8 now"):
    _work(tmp_path, weights=[1] * 8).collect(3, COMMAND)
  for number in range(3):
    assert _make(other, number).startswith("wrote")
  assert len(other.collect(3, COMMAND)) == 3


def test_of_two_that_make_one_part_the_first_is_kept(tmp_path):
  """The scheduler gave a part up for dead, and started it once more."""
  work = _work(tmp_path)

  def slow(items, folder):
    _make(work, 1, text="first")
    (folder / "items.txt").write_text("2 3 4")
    return {}

  assert work.make(work_parts.Part(1, 3), slow).startswith("wrote")
  assert (work.place(work_parts.Part(1, 3)) / "below" / "file").read_text() == "first"


def test_parts_in_a_bucket(bucket):
  work = _work(bucket)

  def fail(items, folder):
    raise ValueError("no video")

  with pytest.raises(ValueError, match="no video"):
    work.make(work_parts.Part(2, 3), fail)
  for number in (1, 0):
    assert _make(work, number).startswith("wrote")
  with pytest.raises(work_parts.MissingPartsError, match="Part 2: it ended with .*no video"):
    work.collect(3, COMMAND)
  _make(work, 2)
  assert "is there already" in _make(work, 1)
  made = work.collect(3, COMMAND)
  texts = [storage.read_text(one.folder / "items.txt") for one in made]
  assert " ".join(texts) == "0 1 2 3 4 5 6"
  # What is half there was never finished, and is made again.
  storage.remove(work.place(work_parts.Part(1, 3)) / work_parts.FILE)
  with pytest.raises(work_parts.MissingPartsError, match="1 of 3"):
    work.collect(3, COMMAND)
  assert _make(work, 1).startswith("wrote")
  storage.write_text(work.place(work_parts.Part(0, 3)) / "below" / "file", "y")
  with pytest.raises(work_parts.MissingPartsError, match="below/file was changed"):
    work.collect(3, COMMAND)
  work.clear()
  assert not storage.files_below(bucket)
