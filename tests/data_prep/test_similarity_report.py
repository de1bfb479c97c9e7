"""The similarity report against plain loops, and its files."""

from __future__ import annotations

import collections
import json
import sys

import cv2
import numpy as np
import pytest

from data_prep import similarity_report
from data_prep.mining import pair_summary
from sum_l_jax.data import narration_table
from sum_l_jax.data import records


def _datasets(*folders):
  return [records.ClipDataset(folder, "train") for folder in folders]


def _partner(clip, exo, table):
  """Best cosine and the first clip of the alphabetically first best text."""
  (query,) = table.lookup([clip.narration]).astype(float)
  ranked = []
  for pool, data in enumerate(exo):
    for i, other in enumerate(data.clips):
      cosine = float(table.lookup([other.narration])[0].astype(float) @ query)
      ranked.append((-round(cosine, 6), other.narration, pool, i))
  cosine, _, pool, i = min(ranked)
  return -cosine, exo[pool], exo[pool].clips[i]


def _band_name(cosine):
  if cosine > 0.999:
    return "identical"
  for lowest, name in (
    (0.9, "0.9 - 1"),
    (0.7, "0.7 - 0.9"),
    (0.5, "0.5 - 0.7"),
    (0.3, "0.3 - 0.5"),
  ):
    if cosine >= lowest:
      return name
  return "below 0.3"


def _shared(ego, clip, data, partner):
  names = [
    task
    for task in ("verb", "noun")
    if {ego.tasks[task].class_names[label] for label in clip.labels[task]}
    & {data.tasks[task].class_names[label] for label in partner.labels[task]}
  ]
  return " and ".join(names) or "neither"


def test_bands_equal_plain_loops(tiny_ego, tiny_exo, tiny_exo_multi_label, tiny_narrations):
  ego, *exo = _datasets(tiny_ego, tiny_exo, tiny_exo_multi_label)
  for data in exo:  # So that not every narration has a twin.
    data.clips = data.clips[:3]
  report = similarity_report.similarity_report(ego, exo, tiny_narrations)
  bands, labels, texts = [], collections.Counter(), collections.Counter()
  for clip in ego.clips:
    cosine, data, partner = _partner(clip, exo, tiny_narrations)
    bands.append(_band_name(cosine))
    labels[bands[-1], _shared(ego, clip, data, partner)] += 1
    texts[bands[-1], clip.narration, partner.narration] += 1
  assert len(set(bands)) > 1
  assert report["clips"]["number"] == len(ego) == 17
  for row in report["clips"]["bands"]:
    assert row["clips"] == bands.count(row["name"])
    assert row["share"] == row["clips"] / 17
    assert row["shared_labels"] == {name: labels[row["name"], name] for name in pair_summary.SHARED}
    counts = [count for key, count in texts.items() if key[0] == row["name"]]
    examples = row["examples"]
    assert [pair["clips"] for pair in examples] == sorted(counts)[::-1][:3]
    for pair in examples:
      assert texts[row["name"], pair["ego"], pair["exo"]] == pair["clips"]


def test_classes_equal_plain_loops(tiny_ego, tiny_exo, tiny_narrations):
  ego, exo = _datasets(tiny_ego, tiny_exo)
  classes = similarity_report.similarity_report(ego, [exo], tiny_narrations)["classes"]
  ego_texts = {clip.narration for clip in ego.clips}
  exo_texts = {clip.narration for clip in exo.clips}
  assert classes["ego"] == len(ego_texts)
  assert classes["exo"] == len(exo_texts)
  assert classes["in_common"] == len(ego_texts & exo_texts)
  cosines = [
    [
      float(
        tiny_narrations.lookup([a])[0].astype(float) @ tiny_narrations.lookup([b])[0].astype(float)
      )
      for b in sorted(exo_texts)
    ]
    for a in sorted(ego_texts)
  ]
  # Cosines of 1 may be a hair longer; the last bin has both its edges.
  cosines = np.minimum(cosines, 1.0)
  edges = classes["bin_edges"]
  assert len(edges) == 41 and (edges[0], edges[-1]) == (-1.0, 1.0)
  assert classes["all_pairs"] == np.histogram(cosines, edges)[0].tolist()
  best = cosines.max(axis=1)
  assert classes["best"] == np.histogram(best, edges)[0].tolist()
  assert classes["best_percentiles"]["50"] == pytest.approx(np.median(best), abs=2e-6)


def test_borders_of_bands():
  cosines = np.float32([1.0, 0.999001, 0.999, 0.9, 0.7, 0.5, 0.3, 0.299999, -1])
  bands = similarity_report.band(cosines)
  assert bands.tolist() == [0, 0, 1, 1, 2, 3, 4, 5, 5]


def test_histogram_keeps_round_cosines_in_the_upper_bin():
  edges = np.linspace(-1, 1, 41)[:-1]
  counts = similarity_report._histogram(edges.astype(np.float32))
  assert counts.tolist() == [1] * 40


def test_the_threshold(tiny_ego, tiny_exo, tiny_narrations):
  """Counts of what is strictly above it, as the losses take pairs."""
  ego, exo = _datasets(tiny_ego, tiny_exo)
  lookup = lambda data: tiny_narrations.lookup([clip.narration for clip in data.clips])
  cosines = (lookup(ego) @ lookup(exo).T).max(axis=1).round(6)
  for threshold in (0.5, 0.2, 1.0):
    found = similarity_report.similarity_report(ego, [exo], tiny_narrations, threshold=threshold)
    assert found["threshold"]["cosine"] == threshold
    assert found["threshold"]["clips"] == int(np.sum(cosines > threshold + 1e-7))
    line = f"above the threshold of {threshold:g}: {found['threshold']['clips']} of 17 ego clips"
    assert line in similarity_report.as_text(found)


@pytest.mark.parametrize(
  "threshold, place", [(1.0, -0.5), (0.9, 1.5), (0.8, 2.0), (0.5, 3.5), (0.4, 4.0), (-1.0, 5.5)]
)
def test_the_place_of_the_threshold_among_the_bars(threshold, place):
  """On the border of two bars, or inside one."""
  assert similarity_report.place_of(threshold) == pytest.approx(place)


def _arguments(tmp_path, ego, exo, table, name="report.png"):
  table.save(tmp_path / "n.npz")
  return [
    f"--ego={ego}",
    f"--exo={exo}",
    f"--narrations={tmp_path / 'n.npz'}",
    f"--output={tmp_path / 'out' / name}",
  ]


def test_command(tmp_path, tiny_ego, tiny_exo, tiny_narrations, capsys):
  arguments = _arguments(tmp_path, tiny_ego, tiny_exo, tiny_narrations)
  assert similarity_report.main(arguments) == 0
  picture = cv2.imread(str(tmp_path / "out" / "report.png"))
  assert picture.shape == (700, 1200, 3)
  assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
  ego, exo = _datasets(tiny_ego, tiny_exo)
  stored = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
  assert stored == similarity_report.similarity_report(ego, [exo], tiny_narrations)
  out = capsys.readouterr().out
  assert "best cosine of the 17 ego clips" in out
  assert "verb and noun" in out and "  identical" in out


def test_sets_without_common_classes(tmp_path, tiny_ego, tiny_exo, tiny_narrations):
  ego, exo = _datasets(tiny_ego, tiny_exo)
  exo.tasks = {}
  report = similarity_report.similarity_report(ego, [exo], tiny_narrations)
  assert all(row["shared_labels"] is None for row in report["clips"]["bands"])
  assert "no verb and noun" in similarity_report.as_text(report)
  similarity_report.draw(report, tmp_path / "plain.png")
  assert cv2.imread(str(tmp_path / "plain.png")).shape == (700, 1200, 3)


def test_bad_input(tmp_path, tiny_ego, tiny_exo, tiny_narrations, capsys):

  def error(arguments):
    assert similarity_report.main(arguments) == 2
    return " ".join(capsys.readouterr().err.split())

  arguments = _arguments(tmp_path, tiny_ego, tiny_exo, tiny_narrations, "r.pdf")
  assert "--output must name a .png file" in error(arguments)
  arguments = _arguments(tmp_path, tiny_exo, tiny_exo, tiny_narrations)
  assert "--ego needs a data set of view 'ego'" in error(arguments)
  arguments = _arguments(tmp_path, tiny_ego, tmp_path, tiny_narrations)
  assert "No clip data set" in error(arguments)
  arguments = [*_arguments(tmp_path, tiny_ego, tiny_exo, tiny_narrations), "--threshold=50"]
  assert "--threshold must be a cosine, from -1 to 1, got 50.0" in error(arguments)
  few = narration_table.NarrationTable(["fold towel"], tiny_narrations.vectors[:1], "m")
  arguments = _arguments(tmp_path, tiny_ego, tiny_exo, few)
  assert "data_prep.embed_narrations" in error(arguments)
  assert not (tmp_path / "out").exists()


def test_without_matplotlib(tmp_path, tiny_ego, tiny_exo, tiny_narrations, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  arguments = _arguments(tmp_path, tiny_ego, tiny_exo, tiny_narrations)
  assert similarity_report.main(arguments) == 2
  assert "matplotlib is not installed: pip install 'sum_l_jax[report]'" in capsys.readouterr().err
