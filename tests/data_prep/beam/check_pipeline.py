"""Pipelines on the DirectRunner, with two worker processes: `make beam`.

They run in Beam's own environment. `make test` doesn't look into this file, whose
name is not that of its tests.
"""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from data_prep import build_dataset
from data_prep import mine_pairs
from data_prep.beam.__main__ import main
import sum_l_jax.tools.embed.__main__
from tests.support import annotation_files
from tests.support import clip_bytes
from tests.support import numbered_video

PARTS = 4
OPTIONS = "--direct_running_mode=multi_processing --direct_num_workers=2"


def on_beam(command, *arguments):
  return main(
    [f"--parts={PARTS}", "--runner=DirectRunner", f"--options={OPTIONS}", command, *arguments]
  )


@pytest.fixture(name="source")
def source_fixture(tmp_path):
  """24 clips of four videos; the options that build them."""
  for video in "abcd":
    numbered_video.write_video(tmp_path / f"{video}.mp4", list(range(60)))
  rows = [
    {
      **annotation_files.MANIFEST_ROW,
      "clip_id": f"c{n}",
      "path": f"{'abcd'[n // 6]}.mp4",
      "start_seconds": str(n % 6 / 10),
      "stop_seconds": str(n % 6 / 10 + 0.3),
      "split": "validation" if n // 6 == 2 else "train",
    }
    for n in range(24)
  ]
  annotation_files.write_rows(tmp_path / "m.csv", rows)
  return [
    *("--dataset=manifest", "--view=exo", "--name=exo", "--processes=1"),
    f"--annotations={tmp_path / 'm.csv'}",
  ]


def test_building_gives_the_same(source, tmp_path):
  assert build_dataset.main([*source, f"--output={tmp_path / 'whole'}"]) == 0
  assert on_beam("build_dataset", *source, f"--output={tmp_path / 'out'}") == 0
  assert clip_bytes.content(tmp_path / "out") == clip_bytes.content(tmp_path / "whole")
  assert not (tmp_path / "out.parts").exists()


def test_a_broken_video_costs_its_part_alone(source, tmp_path, capfd):
  assert build_dataset.main([*source, f"--output={tmp_path / 'whole'}"]) == 0
  video = tmp_path / "b.mp4"
  data = video.read_bytes()
  video.write_bytes(data[:1000])
  options = [*source, f"--output={tmp_path / 'out'}"]
  assert on_beam("build_dataset", *options) == 2
  error = capfd.readouterr().err
  assert "1 of 4 parts are missing" in error and "Part 1: it ended with ValueError" in error
  assert len(list((tmp_path / "out.parts").glob("part-*-of-00004/part.json"))) == 3
  assert not (tmp_path / "out").exists()
  video.write_bytes(data)
  assert on_beam("build_dataset", *options) == 0
  assert "part 0/4 is there already" in capfd.readouterr().out
  assert clip_bytes.content(tmp_path / "out") == clip_bytes.content(tmp_path / "whole")


# Python runs it when it starts.
_DIES_ONCE = """
import os, pathlib, signal, sys
mark = pathlib.Path(__file__).with_name("died")
if "--part=2/4" in sys.orig_argv and not mark.exists():
  mark.touch()
  os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_part_that_dies_is_made_again_alone(source, tmp_path, monkeypatch, capfd):
  site = tmp_path / "site"
  site.mkdir()
  (site / "sitecustomize.py").write_text(_DIES_ONCE)
  places = [str(site), os.environ.get("PYTHONPATH", "")]
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
  assert build_dataset.main([*source, f"--output={tmp_path / 'whole'}"]) == 0
  options = [*source, f"--output={tmp_path / 'out'}"]
  assert on_beam("build_dataset", *options) == 2
  assert (site / "died").exists()
  error = capfd.readouterr().err
  assert "the pipeline ended with" in error and "--part=2/4" in error
  assert on_beam("build_dataset", *options) == 0
  assert clip_bytes.content(tmp_path / "out") == clip_bytes.content(tmp_path / "whole")


def test_mining_gives_the_same(tiny_ego, tiny_exo, tiny_narrations, tmp_path):
  tiny_narrations.save(tmp_path / "n.npz")
  options = [f"--ego={tiny_ego}", f"--exo={tiny_exo}", f"--narrations={tmp_path / 'n.npz'}"]
  assert mine_pairs.main([*options, f"--output={tmp_path / 'whole.npz'}"]) == 0
  assert on_beam("mine_pairs", *options, f"--output={tmp_path / 'out.npz'}") == 0
  assert (tmp_path / "out.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_embedding_clips_gives_the_same(finished, tiny_ego, tiny_exo, tmp_path):
  options = [
    f"--checkpoint={finished[0]}",
    f"--datasets={tiny_ego}:val,{tiny_exo}:train",
    "--batch_size=3",
  ]
  assert sum_l_jax.tools.embed.__main__.main([*options, f"--output={tmp_path / 'whole.npz'}"]) == 0
  assert on_beam("embed", *options, f"--output={tmp_path / 'out.npz'}") == 0
  found, wanted = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("out", "whole"))
  assert json.loads(str(found["about"])) == json.loads(str(wanted["about"]))
  for name, column in wanted.items():
    np.testing.assert_array_equal(found[name], column)
