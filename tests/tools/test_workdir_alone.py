"""Commands that need no more than the workdir of a run: they take the run's own data."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.tools import shared_options


def run(name, *arguments):
  return importlib.import_module(f"sum_l_jax.tools.{name}.__main__").main(list(arguments))


def test_the_runs_own_clips_are_taken(finished, tmp_path, capsys):
  workdir = f"--workdir={finished[0]}"
  assert run("embed", workdir, f"--output={tmp_path / 'e.npz'}") == 0
  with np.load(tmp_path / "e.npz", allow_pickle=False) as found:
    views = found["view"].tolist()
  assert (views.count("ego"), views.count("exo")) == (5, 11)
  assert run("visualize", workdir, "--number=1", f"--output={tmp_path / 'cam.png'}") == 0
  assert (tmp_path / "cam.png").stat().st_size
  assert run("retrieve", workdir, "--number=2", f"--output={tmp_path / 'r.html'}") == 0
  assert "2 queries, the best of 11 keys" in capsys.readouterr().out


def test_weights_of_no_run_say_what_is_missing(finished, tmp_path, capsys):
  weights = weight_files.read_weights(finished[0])
  for card in ({}, {**weights.card, "config": "{}"}):
    for find in (shared_options.evaluated_clips, shared_options.pools):
      with pytest.raises(ValueError, match="name the data sets in the options"):
        find(card)


def test_a_folder_stands_for_the_file_of_the_usual_name(tiny_tables, tiny_ego):
  assert narration_table.NarrationTable.load(tiny_tables).dim == 16
  assert len(pairing.PairTable.load(tiny_tables).ego_rows) == 17
  for load, name in (
    (narration_table.NarrationTable.load, "narrations.npz"),
    (pairing.PairTable.load, "pairs.npz"),
  ):
    with pytest.raises(ValueError, match=f"is a folder, and holds no {name}"):
      load(tiny_ego)
  with pytest.raises(FileNotFoundError, match=r"card.json' is a file. Give the folder"):
    records.read_card(tiny_ego / "card.json")
