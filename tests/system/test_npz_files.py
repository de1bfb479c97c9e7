"""Tables of arrays: what is refused before it costs anything."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from sum_l_jax.system import npz_files


def test_small_files_that_would_fill_the_memory(tmp_path):
  path = tmp_path / "t.npz"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    with archive.open("a.npy", "w") as file:
      for _ in range(257):
        file.write(bytes(2**20))
  assert path.stat().st_size < 2**21
  with pytest.raises(npz_files.TooLargeError, match="would become 269,484,032 bytes"):
    npz_files.read_npz(path, ["a"], what="table", command="make")


def test_real_tables_are_far_from_the_limit(tmp_path):
  """Pairs and narrations of a large set: repeated texts and ranks shrink most."""
  path = tmp_path / "t.npz"
  texts = np.array([f"put the cup on table {i % 50}" for i in range(20_000)])
  ranks = np.arange(20_000)[:, None] + np.arange(5)
  npz_files.write_npz(path, texts=texts, ranks=ranks, scores=np.zeros((20_000, 5), np.float32))
  assert texts.nbytes + ranks.nbytes < npz_files._MOST_TIMES * path.stat().st_size
  found = npz_files.read_npz(path, ["texts", "ranks"], what="table", command="make")
  np.testing.assert_array_equal(found["texts"], texts)
