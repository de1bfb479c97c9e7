"""The command on miniatures of AE2's two layouts."""

from __future__ import annotations

import json
import pickle
import shutil
import sys

import numpy as np
import pytest

from sum_l_jax.evaluation.benchmarks import frame_alignment
from sum_l_jax.tools.benchmark.__main__ import main

_VIDEOS = {
  "train": {"ego": ("S07_1", "S10_1"), "exo": ("S07_9",)},
  "test": {"ego": ("S09_2", "S09_10"), "exo": ("S13_ego", "S14")},
}


@pytest.fixture(name="places", scope="module")
def places_fixture(tmp_path_factory):
  """A set in each layout, and vectors with the views apart and in one folder."""
  places = tmp_path_factory.mktemp("ae2")
  lists, folders = places / "break_eggs", places / "pour_liquid"
  rng, labels = np.random.default_rng(5), {}
  for split, views in _VIDEOS.items():
    for view, names in views.items():
      (folders / split / view).mkdir(parents=True)
      for place in (lists / view, places / "apart" / view, places / "one"):
        place.mkdir(parents=True, exist_ok=True)
      # As the released lists are: a file a line, in no order.
      (lists / view / f"{split}.csv").write_text("".join(f"{n}.mp4\n" for n in names[::-1]))
      for name in names:
        (folders / split / view / f"{name}.mp4").touch()
        n = int(rng.integers(12, 30))
        phases = np.arange(n) * 2 // n
        # The released file may have lists or arrays.
        labels[name] = phases if name.startswith("S1") else phases.tolist()
        vectors = rng.standard_normal((n, 3)) + phases[:, None]
        np.save(places / "apart" / view / f"{name}.npy", vectors.astype(np.float32))
        np.save(places / "one" / f"{name}.npy", vectors.astype(np.float32))
  for folder in (lists, folders):
    (folder / "label.pickle").write_bytes(pickle.dumps(labels))
    (folder / "notes.txt").touch()
  return places


def run(places, output, folder, vectors, *options):
  command = ["ae2", f"--annotations={places / folder}", f"--embeddings={places / vectors}"]
  assert main([*command, *options, f"--output={output}"]) == 0
  return json.loads(output.read_text("utf-8"))


def test_both_layouts_give_the_scorers_numbers(places, tmp_path, capsys):
  result = run(places, tmp_path / "a.json", "break_eggs", "apart")
  assert "kendalls_tau" in capsys.readouterr().out
  labels = pickle.loads((places / "break_eggs" / "label.pickle").read_bytes())

  def videos(split):
    # By path, as the released code sorts them: S09_10 is before S09_2.
    return [
      frame_alignment.Video(
        n, view, np.load(places / "apart" / view / f"{n}.npy"), np.array(labels[n])
      )
      for view in ("ego", "exo")
      for n in sorted(_VIDEOS[split][view])
    ]

  expected = frame_alignment.score(videos("train"), videos("test"))
  values = {name: found["value"] for name, found in result["metrics"].items()}
  assert values == {name: score.value for name, score in expected.metrics.items()}
  assert result["of"]["vectors"]["files"] == 7 and result["switches"]["time_column"] == "by_set"
  assert sum("1 exo videos have 'ego' in their name" in note for note in result["notes"]) == 1
  # The other layout, of the set whose regression has a time column.
  timed = run(places, tmp_path / "b.json", "pour_liquid", "one")
  with_time = frame_alignment.progression(videos("train"), videos("test"), time_column=True)
  assert timed["metrics"]["progression"]["value"] == with_time.value != values["progression"]
  assert "Progression has a time column" in " ".join(timed["notes"])
  for name in values.keys() - {"progression"}:
    assert timed["metrics"][name]["value"] == values[name]
  plain = run(places, tmp_path / "c.json", "pour_liquid", "one", "--set=time_column=never")
  assert plain["metrics"]["progression"]["value"] == values["progression"]
  assert any("official choice is 'by_set'" in note for note in plain["notes"])


def test_what_is_refused(places, tmp_path, capsys, monkeypatch):
  def error(folder, *options):
    assert (
      main(["ae2", f"--annotations={folder}", *options, f"--output={tmp_path / 'x.json'}"]) == 2
    )
    return " ".join(capsys.readouterr().err.split())

  given = f"--embeddings={places / 'one'}"
  lists = shutil.copytree(places / "break_eggs", tmp_path / "set")
  assert "ae2 needs --embeddings: folder with a vector for each frame" in error(lists)
  assert "does not read --checkpoint" in error(lists, given, "--checkpoint=runs/x")
  assert "There is no folder" in error(lists, f"--embeddings={tmp_path / 'nowhere'}")
  assert "no set of AE2 with the split 'val'" in error(lists, given, "--set=split=val")
  with monkeypatch.context() as patch:
    patch.setitem(sys.modules, "sklearn", None)
    patch.setitem(sys.modules, "sklearn.svm", None)
    assert "pip install 'sum_l_jax[benchmarks]'" in error(lists, given)
  # One vector for each frame of each video.
  vectors = shutil.copytree(places / "one", tmp_path / "one")
  given = f"--embeddings={vectors}"
  np.save(vectors / "S14.npy", np.zeros((3, 3)))
  assert "S14.npy' has 3 vectors, and label.pickle has phases of" in error(lists, given)
  np.save(vectors / "S14.npy", np.zeros(3))
  assert "must be an array [frames, D] of floats, got (3,) float64" in error(lists, given)
  np.save(vectors / "S14.npy", np.array([[{}]]), allow_pickle=True)
  assert "S14.npy' can't be read" in error(lists, given)
  (vectors / "S14.npy").unlink()
  assert "The exo video 'S14' has no vectors at" in error(lists, given)
  # The layouts.
  (lists / "exo" / "test.csv").write_text("S09_2.mp4\n")
  assert "An ego and an exo video are both called 'S09_2'" in error(lists, given)
  (lists / "exo" / "test.csv").write_text("S99.mp4\n")
  assert "1 videos of the split 'test' have no phases in label.pickle: 'S99'" in error(lists, given)
  (lists / "exo" / "test.csv").write_text("\n")
  assert "lists no video (.mp4)" in error(lists, given)
  (lists / "test" / "ego").mkdir(parents=True)
  assert "says twice which videos are of the split 'test'" in error(lists, given)
  # The labels.
  for content, message in (
    (["a"], "it is no dict with names of videos"),
    ({"a": [0, [1]]}, "'a' has no list of phases from 0"),
    ({"a": [0, -1]}, "'a' has no list of phases from 0"),
    ({"a": [0.5]}, "'a' has no list of phases from 0"),
    ({"a": print}, "is refused: opening it would call builtins.print"),
  ):
    (lists / "label.pickle").write_bytes(pickle.dumps(content))
    assert message in error(lists, given), content
  (lists / "label.pickle").unlink()
  assert "which has AE2's phase labels" in error(lists, given)
