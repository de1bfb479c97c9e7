"""Multi-instance retrieval against a statement of the official scorer's formulas."""

from __future__ import annotations

import ast
import csv

from etils import epath
import numpy as np
import pytest

from sum_l_jax.evaluation.benchmarks import epic100_mir
from tests.support import epic100_files

DIRECTIONS = ("video_to_text", "text_to_video")
CLIPS = [
  epic100_files.row("P01_11_0", 0, [0]),
  epic100_files.row("P01_11_1", 1, [0, 1]),
  epic100_files.row("P02_01_0", 0, [0], "pick up cup, then\nthe rest"),
  epic100_files.row("P02_01_1", 2, [2, 3]),
  epic100_files.row("P02_01_2", 1, [1, 0]),
  epic100_files.row("P02_02_10", 2, [2]),
]
# The last two texts are shifted against their ids; one id's text repeats another's.
SENTENCES = [
  ("P01_11_0", "take cup"),
  ("P01_11_1", "put cup pan"),
  ("P02_01_1", "cut apple knife"),
  ("P02_02_10", "take cup"),
  ("P01_11_0", "cut apple"),
]


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
  folder = tmp_path / "retrieval_annotations"
  test, sentences = ("EPIC_100_retrieval_test.csv", "EPIC_100_retrieval_test_sentence.csv")
  epic100_files.write_rows(folder / test, epic100_files.COLUMNS, CLIPS)
  epic100_files.write_rows(folder / sentences, ("narration_id", "narration"), SENTENCES)
  return epath.Path(tmp_path)


def _relevance():
  """Computes the relevance from the classes as they are written, by Python's sets."""
  classes = {row[0]: (row[10], set(ast.literal_eval(row[14]))) for row in CLIPS}
  out = np.zeros((len(CLIPS), len(SENTENCES)))
  for i, row in enumerate(CLIPS):
    for j, (name, _) in enumerate(SENTENCES):
      (verb, nouns), (other, others) = classes[row[0]], classes[name]
      out[i, j] = (verb == other) / 2 + len(nouns & others) / len(nouns | others) / 2
  return out


def _official(scores, relevance):
  """mAP, nDCG and mAP of relevance 1 alone, query by query."""
  averages, gains, strict = [], [], []
  for own, graded in zip(scores, relevance):
    ranked = graded[np.argsort(-own)]
    places = [k for k, value in enumerate(ranked) if value == 1]
    averages.append(np.mean([ranked[: k + 1].sum() / (k + 1) for k in places]))
    strict.append(np.mean([(ranked[: k + 1] == 1).sum() / (k + 1) for k in places]))
    discount = 1 / np.log2(np.arange((graded > 0).sum()) + 2)
    both = [discount @ values[: len(discount)] for values in (ranked, -np.sort(-graded))]
    gains.append(both[0] / both[1])
  return np.array(averages), np.array(gains), np.array(strict)


def test_the_gallery_keeps_repeats_and_takes_texts_by_id(folder):
  gallery = epic100_mir.read_gallery(folder)
  assert gallery.clip_ids == tuple(row[0] for row in CLIPS)
  assert gallery.texts == ("take cup", "put cup pan", "cut apple knife", "cut apple", "take cup")
  np.testing.assert_allclose(gallery.relevance, _relevance(), rtol=1e-15)
  assert gallery.relevance[:, 0].tolist() == gallery.relevance[:, 4].tolist()
  first, second = gallery.notes
  assert "2 rows" in first and "'take cup' for 'cut apple'" in first and "id's clip is" in first
  assert "1 of the 5 sentences are repeats" in second
  written = epic100_mir.read_gallery(folder, texts="by_file")
  assert written.texts == tuple(text for _, text in SENTENCES)
  assert "The file's text is taken" in written.notes[0]
  np.testing.assert_array_equal(written.relevance, gallery.relevance)
  # The folder itself serves as well.
  inner = epic100_mir.read_gallery(folder / "retrieval_annotations")
  assert inner.texts == gallery.texts


def test_scores_are_those_of_the_official_formulas(folder):
  gallery = epic100_mir.read_gallery(folder)
  scores = np.random.default_rng(1).standard_normal(gallery.relevance.shape)
  found = epic100_mir.score(scores, gallery, block=4)
  graded = _relevance()
  directions = {
    "video_to_text": _official(scores, graded),
    "text_to_video": _official(scores.T, graded.T),
  }
  for place, metric in enumerate(("map", "ndcg", "strict_map")):
    for name, each in directions.items():
      score = found.metrics[f"{name}_{metric}"]
      assert score.value == pytest.approx(each[place].mean(), abs=1e-12)
      np.testing.assert_allclose(score.per_query, each[place], atol=1e-12)
    mean = np.mean([each[place].mean() for each in directions.values()])
    assert found.metrics[f"mean_{metric}"].value == pytest.approx(mean, abs=1e-12)
  assert next(iter(found.metrics)) == "mean_map"
  assert found.counts == {"clips": 6, "sentences": 5, "distinct_sentences": 4}


def test_chance_is_the_mean_over_random_orders(folder):
  gallery, rng = epic100_mir.read_gallery(folder), np.random.default_rng(3)
  found = epic100_mir.score(np.zeros(gallery.relevance.shape), gallery).metrics
  drawn = [_official(rng.random(gallery.relevance.shape), gallery.relevance) for _ in range(800)]
  for place, metric in enumerate(("map", "ndcg", "strict_map")):
    score = found[f"video_to_text_{metric}"]
    mean = np.mean([each[place].mean() for each in drawn])
    assert score.chance == pytest.approx(mean, abs=0.02)
    # All scores are one tie here, which is chance.
    assert score.value == pytest.approx(score.chance)


def test_what_is_wrong_with_the_files_is_said(folder):
  inner = folder / "retrieval_annotations"
  with pytest.raises(ValueError, match=r"\(6, 5\), got \(5, 6\)"):
    epic100_mir.score(np.zeros((5, 6)), epic100_mir.read_gallery(folder))
  path = inner / "EPIC_100_retrieval_test_sentence.csv"
  path.write_text("narration_id,narration\nP09_0,take cup\n")
  with pytest.raises(ValueError, match=r"sentence.csv, line 2: narration_id 'P09_0' is of no clip"):
    epic100_mir.read_gallery(folder)
  path.write_text("narration_id\nP01_11_0\n")
  with pytest.raises(ValueError, match="lacks column 'narration'"):
    epic100_mir.read_gallery(folder)
  path.unlink()
  with pytest.raises(FileNotFoundError, match="no EPIC_100_retrieval_test_sentence.csv"):
    epic100_mir.read_gallery(folder)
  test = inner / "EPIC_100_retrieval_test.csv"
  test.write_text(test.read_text().replace("[2]", "[2"))
  with pytest.raises(ValueError, match=r"like \[17, 52\]; got '\[2'"):
    epic100_mir.read_gallery(folder)


@pytest.mark.slow
@pytest.mark.skipif(
  not epic100_files.OFFICIAL.exists(),
  reason=f"needs {'/'.join(epic100_files.OFFICIAL.parts[-4:])} (CC BY-NC 4.0)",
)
def test_the_official_gallery_and_its_golden_values():
  """A lexical score without ties, by the official formulas in another program."""
  gallery = epic100_mir.read_gallery(epath.Path(epic100_files.OFFICIAL))
  assert gallery.relevance.shape == (9668, 3842) and len(set(gallery.texts)) == 3835
  assert gallery.relevance.mean() == pytest.approx(0.0549, abs=5e-5)
  assert gallery.notes[0].startswith("6 rows of EPIC_100_retrieval_test_sentence.csv have another")
  text_of = dict(zip(gallery.clip_ids, _narrations(epic100_files.OFFICIAL), strict=True))
  sides = [[set(text.split()) for text in texts] for texts in (text_of.values(), gallery.texts)]
  words = {word: i for i, word in enumerate(sorted(set().union(*sides[0], *sides[1])))}
  hot = [np.zeros((len(side), len(words))) for side in sides]
  for array, side in zip(hot, sides):
    for row, own in enumerate(side):
      array[row, [words[word] for word in own]] = 1.0
  shared = hot[0] @ hot[1].T
  jaccard = shared / (hot[0].sum(1)[:, None] + hot[1].sum(1) - shared)
  rows, columns = np.arange(9668)[:, None], np.arange(3842)
  order = (7919 * rows + 104729 * columns) % 1000003 / 1000003
  found = epic100_mir.score(jaccard + 1e-6 * order, gallery).metrics
  for name, value in {
    "video_to_text_map": 0.7330019965,
    "text_to_video_map": 0.8069064444,
    "video_to_text_strict_map": 0.5575351338,
    "text_to_video_strict_map": 0.6755726635,
    "video_to_text_ndcg": 0.6370901011,
    "text_to_video_ndcg": 0.6355169627,
  }.items():
    assert found[name].value == pytest.approx(value, abs=1e-9), name
  chances = [found[f"{n}_{m}"].chance for m in ("map", "ndcg") for n in DIRECTIONS]
  # Published: 5.7, 5.6, 10.8 and 10.9 %; four draws of the official scorer agree.
  assert chances == pytest.approx([0.0569, 0.0558, 0.1080, 0.1095], abs=1e-4)


def _narrations(folder):
  path = folder / "retrieval_annotations/EPIC_100_retrieval_test.csv"
  with path.open(newline="", encoding="utf-8") as file:
    return [row["narration"] for row in csv.DictReader(file)]
