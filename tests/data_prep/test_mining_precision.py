"""The command that measures mined partners: its files, its numbers, its errors."""

from __future__ import annotations

import csv
import json
import pathlib

from etils import epath
import numpy as np
import pytest

from data_prep import embed_narrations
from data_prep import mining_precision
from data_prep.mining import word_overlap
from sum_l_jax.data import narration_table
from sum_l_jax.evaluation.benchmarks import gallery
from sum_l_jax.evaluation.benchmarks import mined_partners
from sum_l_jax.evaluation.benchmarks import protocol
from tests.support import recipe_captions

RESULT = pathlib.Path(__file__).parents[2] / "benchmarks/results/mining_precision.json"
EXOLEARN = recipe_captions.DATA.parents[1] / (
  "egoexolearn/association_benchmark/annotations/exo_train.csv"
)
OFFICIAL = {
  name: pytest.param(
    name, path, marks=pytest.mark.skipif(not path.exists(), reason=f"needs {path.name}")
  )
  for name, path in (("egoyc2", recipe_captions.DATA), ("egoexolearn", EXOLEARN))
}
_COLUMNS = (
  *("annotation_id", "start_sec", "end_sec", "narration_ch", "narration_en"),
  *("narration_en_hand_prompt", "narration_en_no_hand_prompt"),
  *("verb", "noun", "scenario", "video_uid"),
)


@pytest.fixture(name="files")
def files_fixture(tmp_path):
  """Options that name miniatures of both data sets."""
  root = recipe_captions.write(tmp_path / "data")
  rows = [
    ("a", "1.0", "2.0", "z1", "Cut the\napple.", "The hand cuts the apple.", "Cut.", "[1]", "[3]"),
    ("b", "1.0", "2.0", "z1", "Cut an apple", "A hand cuts an apple", "Cut.", "[1, 2]", "[3]"),
    ("c", "1.0", "2.0", "z2", "Wash a pan", "The hand washes it", "Wash.", "[4]", "[]"),
  ]
  path = tmp_path / "exo_train.csv"
  with path.open("w", newline="", encoding="utf-8") as handle:
    writer = csv.writer(handle)
    writer.writerow(_COLUMNS)
    writer.writerows((*row, "kitchen", f"v{number}") for number, row in enumerate(rows))
  return [f"--egoyc2={root}", f"--egoexolearn={path}"]


def _table(path, lines, model="random"):
  vectors = np.random.default_rng(0).standard_normal((len(lines), 16))
  narration_table.NarrationTable(lines, vectors, model).save(path)
  return path


def test_sentences_are_written_and_then_measured(files, tmp_path, capsys):
  texts, output = tmp_path / "texts.txt", tmp_path / "result.json"
  assert mining_precision.main([*files, f"--texts={texts}"]) == 0
  lines = texts.read_text("utf-8").splitlines()
  assert len(lines) == len(set(lines)) == 15 and "cut the apple" in lines
  table = _table(tmp_path / "table.npz", lines)
  assert mining_precision.main([*files, f"--narrations={table}", f"--output={output}"]) == 0
  shown = capsys.readouterr().out
  found = json.loads(output.read_text())
  for name, definition in (
    ("egoyc2", mined_partners.EGOYC2),
    ("egoexolearn", mined_partners.EGOEXOLEARN),
  ):
    result = found[name]
    assert result["protocol"]["definition"] == definition.definition
    assert list(result["models"]) == ["word overlap", "TF-IDF", "random"]
    assert list(result["closest"]) == ["random"]
    for metric in result["models"]["random"]["metrics"]:
      assert metric in shown
  assert found["egoyc2"]["models"]["random"]["counts"]["mined_eval_queries_with_answer"] == 0
  words = found["egoexolearn"]["models"]["word overlap"]
  # Rows a and b have a verb and a noun; each finds the other.
  assert words["counts"]["mined_queries"] == 2
  assert words["metrics"]["mined_verb_and_noun"]["value"] == 1.0
  assert words["metrics"]["mined_verb_and_noun"]["chance"] == 0.5
  assert words["metrics"]["mined_same_labels"]["value"] == 0.0


def test_closest_partners_equal_a_loop():
  queries, keys = np.array(["a", "b"]), np.array(["a", "c", "d"])
  allowed = np.array([[False, True, True], [True, True, False]])
  cosines = np.array([[1.0, 0.95, 0.2], [0.4, 0.6, 0.99]])
  texts = mining_precision.Texts(
    mined_partners.EGOYC2, [], frozenset(), None, (queries, keys, allowed)
  )
  found = mining_precision.closest(lambda q, k: cosines * 2**20, texts)
  assert found["clips"] == 2 and found["median_of_all_pairs"] == pytest.approx(0.5)
  shares = {name: share for name, share in found["bands"].items() if share}
  assert shares == {"0.9 - 1": 0.5, "0.5 - 0.7": 0.5}
  assert found["best_percentiles"]["50"] == pytest.approx(0.775)


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda files: files[:0], "Give --egoyc2=DIR, --egoexolearn=FILE.csv, or both"),
    (lambda files: files, "Give --output=FILE.json, or --texts"),
    (lambda files: [*files, "--output=x.csv"], ".json"),
    (
      lambda files: [f"{files[0]}/yc2/captiondata/yc2_eval_wacv25.json", "--output=x.json"],
      "egoyc2",
    ),
  ],
)
def test_wrong_options_are_named(files, change, message, capsys):
  assert mining_precision.main(change(files)) == 2
  assert message in " ".join(capsys.readouterr().err.split())


def test_a_table_that_lacks_a_sentence_and_a_model_that_is_given_twice(files, tmp_path, capsys):
  table = _table(tmp_path / "table.npz", ["cut the apple"])
  output = f"--output={tmp_path / 'x.json'}"
  assert mining_precision.main([*files, f"--narrations={table}", output]) == 2
  assert "are not among the 1 of the narration table" in capsys.readouterr().err
  assert mining_precision.main([*files, f"--narrations={table},{table}", output]) == 2
  assert "Each model must be given once, got random, random" in capsys.readouterr().err
  assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("name, path", OFFICIAL.values())
def test_committed_numbers_are_of_the_official_files(name, path):
  """Their digests, and what needs no model: word overlap on EgoYC2, measured again."""
  texts = getattr(mining_precision, f"{name}_texts")(epath.Path(path))
  committed = json.loads(RESULT.read_text())[name]
  assert committed["protocol"]["definition"] == texts.definition.definition
  assert set(committed["files"]) == {file.name for file in texts.files}
  if name == "egoyc2":
    words = word_overlap.Words(texts.sentences)
    entry = protocol.entry(texts.definition, texts.measure(words.jaccard, words.jaccard))
    expected = committed["models"][mining_precision.WORD_OVERLAP]
    assert entry["counts"] == expected["counts"]
    for metric, number in entry["metrics"].items():
      assert number["value"] == pytest.approx(expected["metrics"][metric]["value"], abs=1e-9)


@pytest.mark.skipif(not recipe_captions.DATA.exists(), reason=recipe_captions.NO_DATA)
def test_a_sentence_model_on_the_evaluation_files():
  """The first of equal cosines is of the same recipe for 45.6 % of the steps.

  This was counted independently of this project, on the same files and vectors. The
  committed number is the expectation over equal cosines.
  """
  ego, exo, _ = mining_precision.read_egoyc2(epath.Path(recipe_captions.DATA))
  queries, keys = ego["validation"], exo["validation"]
  texts = sorted({*queries.sentences.tolist(), *keys.sentences.tolist()})
  table = embed_narrations.embed_narrations(texts, model="all-MiniLM-L6-v2")
  found = mined_partners.mined(mining_precision.by_table(table), queries, keys)
  committed = json.loads(RESULT.read_text())["egoyc2"]["models"]["all-MiniLM-L6-v2"]
  number = committed["metrics"]["mined_eval"]
  assert found.precision().value == pytest.approx(number["value"], abs=0.003)
  assert round(100 * found.precision().chance, 1) == 6.1
  cosines = gallery.cosines(*(table.lookup(s.sentences.tolist()) for s in (queries, keys)))
  cosines[queries.videos[:, None] == keys.videos[None]] = -np.inf
  right = keys.recipes[cosines.argmax(axis=1)] == queries.recipes
  assert right.mean() == pytest.approx(0.456, abs=0.003)
