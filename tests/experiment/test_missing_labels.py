"""Runs on clips of which some have no label, and pools of which some have none."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import simplejpeg

from data_prep.clips import clip_dataset
from data_prep.mining import pseudo_pairs
import sum_l_jax
from sum_l_jax import main
from sum_l_jax.config import read
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.labels import result_files
import sum_l_jax.tools.compare.__main__
from sum_l_jax.tools.report.__main__ import write_report
from sum_l_jax.train import metric_log
from tests.support import runs
from tests.support import tiny_data


def without(clips, *, verb, noun):
  """The clips, of which those with these numbers have no verb or no noun."""
  for number, clip in enumerate(clips):
    gone = {"verb": verb, "noun": noun}
    labels = {task: () if number in gone[task] else ids for task, ids in clip.labels.items()}
    yield dataclasses.replace(clip, labels=labels)


@pytest.fixture(name="run", scope="module")
def run_fixture(tiny_exo, tmp_path_factory):
  """The workdir of a run with one encoder for both views, and its ego data set."""
  folder = tmp_path_factory.mktemp("missing")
  ego, captions = folder / "ego", folder / "captions"
  sizes = {"train": 17, "val": 9}
  holes = {"train": ({0, 3, 4, 9}, {3, 8}), "val": ({1, 2}, {2, 5})}
  clip_dataset.write_clip_dataset(
    ego,
    name="partly",
    view="ego",
    tasks=tiny_data.SOFTMAX_TASKS,
    splits={
      split: lambda split=split, size=size: without(
        tiny_data.noise_clips(f"{split}_", size, seed=size),
        verb=holes[split][0],
        noun=holes[split][1],
      )
      for split, size in sizes.items()
    },
    metadata={},
  )
  clip_dataset.write_clip_dataset(
    captions,
    name="captions",
    view="exo",
    tasks={},
    splits={
      "train": lambda: (
        dataclasses.replace(clip, labels={}) for clip in tiny_data.noise_clips("c", 5, seed=5)
      )
    },
    metadata={},
  )
  sets = [records.ClipDataset(ego, s) for s in sizes] + [
    records.ClipDataset(path, "train") for path in (tiny_exo, captions)
  ]
  texts = sorted({text for data in sets for text in data.moments.narrations})
  vectors = np.random.default_rng(7).standard_normal((len(texts), 16))
  table = narration_table.NarrationTable(texts, vectors, model="random-16")
  table.save(folder / "narrations.npz", command="tests")
  pseudo_pairs.mine(sets[0], sets[2:], table, top_k=3).save(folder / "pairs.npz")
  config = read.default_config()
  runs.small(config, ego=ego, exo="", tables=folder)
  config.exo.datasets = (str(tiny_exo), str(captions))
  config.stages, config.model.share_encoder = ("joint",), True
  config.log_every_steps = 1
  workdir = folder / "run"
  main.run(config, workdir)
  return workdir, ego


def test_every_loss_is_finite(run):
  logged = metric_log.read(run[0] / "joint")
  for term in ("ego_cls", "exo_cls", "ego_exo", "ego_text", "exo_text"):
    values = logged[f"train/loss/{term}"].values
    assert len(values) == 6 and np.all(np.isfinite(values))
  assert np.all(np.array(logged["train/loss/ego_cls"].values) > 0)


def test_scores_are_of_the_labelled_clips(run):
  workdir, ego = run
  metrics = json.loads((workdir / "result.json").read_text(encoding="utf-8"))["splits"]["val"]
  _, scores, labels = result_files.read_scores(workdir, "val")
  right = {}
  for task in ("verb", "noun"):
    assert labels[task].tolist().count(-1) == 2
    right[task] = scores[task].argmax(axis=1) == labels[task]
    known = labels[task] >= 0
    assert metrics["metrics"][f"{task}_top1"] == pytest.approx(right[task][known].mean())
    low, high = metrics["intervals"][f"{task}_top1"]
    assert 0 <= low <= metrics["metrics"][f"{task}_top1"] <= high <= 1
  both = (labels["verb"] >= 0) & (labels["noun"] >= 0)
  action = (right["verb"] & right["noun"])[both].mean()
  assert metrics["metrics"]["action_top1"] == pytest.approx(action)
  # A guess is made of the clips of the training split that have a label.
  train = [clip.labels["noun"] for clip in records.ClipDataset(ego, "train").clips]
  counts = [train.count((noun,)) for noun in range(4)]
  known = labels["noun"][labels["noun"] >= 0]
  guess = (known == counts.index(max(counts))).mean()
  assert metrics["constant_guess"]["noun_top1"] == pytest.approx(guess)


def test_what_is_not_known_is_told(run):
  found = json.loads((run[0] / "findings.json").read_text(encoding="utf-8"))["findings"]
  told = [(f["split"], f["count"]) for f in found if f["check"] == "labels"]
  # Verb and noun of the ego clips, the captions, verb and noun of the evaluated ones.
  assert told == [("train", 4), ("train", 2), ("train", 5), ("val", 2), ("val", 2)]


def test_report_comparison_and_prediction(run, capsys):
  workdir, ego = run
  page = write_report(workdir, number=2).read_text(encoding="utf-8")
  assert "4 of 17 clips have no verb label" in page
  assert sum_l_jax.tools.compare.__main__.main([str(workdir), str(workdir), "--split=val"]) == 0
  assert "verb_top1" in capsys.readouterr().out
  data = records.ClipDataset(ego, "val")
  frames = [simplejpeg.decode_jpeg(f) for f in data.read_frames(1, range(6))]
  found = sum_l_jax.load(workdir).predict(np.stack(frames), fps=12.0)
  assert {best.task for best in found} == {"verb", "noun", "action"}
