"""Files that appear whole or not at all."""

from __future__ import annotations

import pytest

from sum_l_jax.system import storage


def test_a_file_is_replaced_at_the_end(tmp_path):
  path = tmp_path / "film.mp4"
  path.write_text("old")
  with storage.replacing(path) as scratch:
    assert scratch.parent == tmp_path and scratch.suffix == ".mp4" and scratch.name[0] == "."
    scratch.write_text("new")
    assert path.read_text() == "old"
  assert path.read_text() == "new"
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [False, True])
def test_an_error_leaves_what_was_there(there, tmp_path):
  path = tmp_path / "a.json"
  if there:
    path.write_text("old")

  def half():
    with storage.replacing(path) as scratch:
      scratch.write_text("ne")
      raise RuntimeError("half way")

  with pytest.raises(RuntimeError, match="half way"):
    half()
  assert [p.read_text() for p in tmp_path.iterdir()] == ["old"] * there
  with pytest.raises(UnicodeEncodeError):
    storage.write_text(path, "a\ud800")
  assert [p.read_text() for p in tmp_path.iterdir()] == ["old"] * there


def test_text_is_utf_8(tmp_path):
  storage.write_text(tmp_path / "a.txt", "für\n")
  assert (tmp_path / "a.txt").read_bytes() == b"f\xc3\xbcr\n"
