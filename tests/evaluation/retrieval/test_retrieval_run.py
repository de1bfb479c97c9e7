"""Retrieval in whole runs: what is written, when it is left out, what stops."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from data_prep.clips import clip_dataset
from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import clip_selection
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import cross_view
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.evaluation.retrieval import retrieval_table
from sum_l_jax.train import metric_log
from tests.support import runs
from tests.support import tiny_data


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  config.stages = ("joint",)
  config.eval.retrieval = True
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.joint_stage.total = "2 steps"
  return config


def read_entry(workdir):
  result = json.loads((workdir / "result.json").read_text())
  return result["splits"]["val"], result


def items(dataset, vectors, table, rows):
  labels = {
    task: [frozenset({dataset.tasks[task].class_names[c.labels[task][0]]}) for c in dataset.clips]
    for task in dataset.tasks
  }
  texts = [clip.narration for clip in dataset.clips]
  return cross_view.Items(vectors, labels, texts, table.lookup(texts)).take(rows)


def test_result_is_that_of_the_checkpoints_embeddings(
  config, finished, tiny_ego, tiny_exo, tiny_narrations, tmp_path
):
  config.stages = ("exo", "joint")
  config.joint_stage.total = "6 steps"
  config.eval.clips = 2
  config.eval.retrieval_clips = 4
  table = main.run(config, tmp_path, mode="eval", checkpoint=str(finished[0]))
  entry, result = read_entry(tmp_path)
  found = entry["retrieval"]
  assert set(found) == {*cross_view.DIRECTIONS, "mir"}
  assert "retrieval" in result["definitions"]

  embedder = embedding.Embedder(weight_files.read_weights(finished[0]), clips=2, batch_size=4)
  sides = []
  for folder, split, rows in ((tiny_ego, "val", [0, 1, 2, 3]), (tiny_exo, "train", [0, 2, 5, 8])):
    data = records.ClipDataset(folder, split)
    rows = clip_selection.spaced(len(data), 4)
    sides.append(items(data, embedder(data).vectors, tiny_narrations, rows.tolist()))
  assert clip_selection.spaced(11, 4).tolist() == [0, 2, 5, 8]
  expected = cross_view.compare(*sides, multi_instance=True)
  for direction, metrics in expected.items():
    assert found[direction] == pytest.approx(metrics), direction
  assert found["ego_to_exo"]["keys"] == 4
  texts = {c.narration for c in records.ClipDataset(tiny_ego, "val").clips[:4]}
  assert found["text_to_ego"]["queries"] == len({*sides[0].texts}) <= len(texts) + 1
  assert entry["retrieval_of"] == {
    "exo_split": "train",
    "exo_fingerprints": [records.ClipDataset(tiny_exo, "train").fingerprint],
    "exo": {tiny_exo.as_posix(): 4},
    "views": 2,
    "text_model": "random-16",
  }

  assert "retrieval, val: ego clips against exo clips of split 'train'" in table
  row = next(line for line in table.splitlines() if line.startswith("ego -> exo"))
  metrics = found["ego_to_exo"]
  shown = metrics.get("recall_at_1")
  assert row.split()[3] == ("-" if shown is None else f"{100 * shown:.1f}")
  assert row.split()[-1] == "4"
  assert re.search(r"multi-instance retrieval .*: mAP [\d.]+ \(random", table)


def test_scalars_while_training(config, tmp_path):
  main.run(config, tmp_path)
  found, _ = read_entry(tmp_path)
  logged = metric_log.read(tmp_path / "joint")
  values = {name: line.values[-1] for name, line in logged.items() if name.startswith("eval/")}
  retrieval = {n: v for n, v in values.items() if "/retrieval/" in n}
  assert "eval/val/retrieval/ego_to_exo_ndcg" in retrieval
  assert "eval/val/retrieval/mir_mean_map" in retrieval
  assert "eval/val/retrieval/text_to_exo_text_recall_at_5" in retrieval
  assert all(0 <= v <= 1 for v in retrieval.values())
  assert not [n for n in retrieval if "rank" in n or "random" in n]
  assert found["retrieval"]["ego_to_exo"]["queries"] == 5


def test_off_by_default_and_without_projections(config, finished, tmp_path, caplog):
  config.eval.retrieval = False
  table = main.run(config, tmp_path / "off", mode="eval", checkpoint=str(finished[0]))
  assert "retrieval" not in read_entry(tmp_path / "off")[0]
  assert "retrieval" not in table
  config.eval.retrieval = True
  config.method = "fpv_only"
  with caplog.at_level("INFO", logger="absl"):
    table = main.run(config, tmp_path / "fpv")
  assert "retrieval" not in read_entry(tmp_path / "fpv")[0]
  assert "retrieval" not in table
  assert "method 'fpv_only' trains no projections" in caplog.text
  assert "Retrieval is left out: of " in caplog.text
  assert "has no projection into the text space" in caplog.text


def test_what_stops(config, finished, tiny_narrations, tmp_path):
  def error(**fields):
    wrong = config.copy_and_resolve_references()
    wrong.update_from_flattened_dict(fields)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
      main.run(wrong, tmp_path / "eval", mode="eval", checkpoint=str(finished[0]))
    return str(caught.value)

  assert "no split 'test'; it has ['train']" in error(**{"eval.retrieval_exo_split": "test"})
  assert "config.exo.datasets is empty" in error(**{"exo.datasets": ()})
  assert "config.narrations is empty" in error(narrations="")
  assert "model.projection_prenorm = False, the config says True" in error(objective="released")
  assert "exo.channel_order = RGB, the config says BGR" in error(**{"exo.channel_order": "BGR"})
  assert "eval.retrieval_clips must be 1 or more" in error(**{"eval.retrieval_clips": 0})
  tables = {}
  for name, model, dim in (("model", "other", 16), ("dim", "random-16", 8)):
    narration_table.NarrationTable(
      tiny_narrations.narrations, tiny_narrations.vectors[:, :dim], model
    ).save(tmp_path / f"{name}.npz")
    tables[name] = error(narrations=str(tmp_path / f"{name}.npz"))
  assert "by model 'random-16', but" in tables["model"]
  assert "of 16 numbers" in tables["dim"] and "has 8 by" in tables["dim"]


def test_a_narration_of_the_last_evaluation_is_missed_before_training(
  config, tiny_tables, tmp_path
):
  clips = tiny_data.noise_clips("c", 3, seed=5)
  odd = [type(c)(**{**vars(c), "narration": "wash hands"}) for c in clips]
  clip_dataset.write_clip_dataset(
    tmp_path / "ego",
    name="tiny",
    view="ego",
    tasks=tiny_data.SOFTMAX_TASKS,
    splits={
      "train": lambda: tiny_data.noise_clips("t", 6, seed=1),
      "val": lambda: clips,
      "test": lambda: odd,
    },
  )
  table = narration_table.NarrationTable.load(tiny_tables / "narrations.npz")
  known = [f"{v} {n}" for v in tiny_data.VERBS.class_names for n in tiny_data.NOUNS.class_names]
  folder = tmp_path / "tables"
  folder.mkdir()
  vectors = np.random.default_rng(0).standard_normal((len(known), 16))
  runs.write_pairs(
    tmp_path / "ego",
    config.exo.datasets[0],
    narration_table.NarrationTable(known, vectors, table.model),
    folder,
  )
  config.ego.dataset = str(tmp_path / "ego")
  config.narrations = str(folder / "narrations.npz")
  config.pairs.table = str(folder / "pairs.npz")
  config.eval.splits = ("val", "test")
  with pytest.raises(ValueError, match="'wash hands'.*embed_narrations"):
    main.run(config, tmp_path / "run")
  assert not list((tmp_path / "run").glob("joint/checkpoints/[0-9]*"))


def test_texts_are_distinct_and_keep_their_first_labels():
  labels = {"verb": [frozenset({v}) for v in ("take", "put", "cut")]}
  vectors = np.eye(3)
  clips = cross_view.Items(-vectors, labels, ["Take  it", "take it", "cut"], vectors)
  texts = clips.distinct_texts()
  assert list(texts.texts) == ["Take  it", "cut"]
  assert texts.labels["verb"] == [frozenset({"take"}), frozenset({"cut"})]
  np.testing.assert_array_equal(texts.vectors, vectors[[0, 2]])


def test_without_a_common_task_narrations_alone_say_what_is_relevant():
  rng = np.random.default_rng(0)
  vectors = rng.standard_normal((4, 3))
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  texts = ["a", "b", "c", "d"]
  one = lambda task: cross_view.Items(vectors, {task: [frozenset({"x"})] * 4}, texts, vectors)
  found = cross_view.compare(one("verb"), one("action"), multi_instance=False)
  assert "mir" not in found
  assert "recall_at_1" not in found["ego_to_exo"]
  assert found["ego_to_exo"]["text_recall_at_1"] == 1.0
  assert found["ego_to_text"]["recall_at_1"] == 1.0
  table = retrieval_table.format_retrieval(
    "val", {"retrieval": found, "retrieval_of": {"exo_split": "train"}}
  )
  assert "relevance by narrations" in table
  assert table.splitlines()[3].split()[3:6] == ["100.0"] * 3
