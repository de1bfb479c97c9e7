"""The caption files of EgoYC2 and YouCook2: what they say, and every bad input."""

from __future__ import annotations

import collections
import json

from etils import epath
import pytest

from sum_l_jax.evaluation.benchmarks import caption_files
from tests.support import recipe_captions


def test_steps_of_a_file(tmp_path):
  root = epath.Path(recipe_captions.write(tmp_path / "data"))
  files = caption_files.find_files(root, "youcook2")
  assert {split: file.name for split, file in files.items()} == caption_files.FILES["youcook2"]
  steps = caption_files.read_steps(files["validation"])
  assert [(s.clip_id, s.start_seconds, s.stop_seconds, s.sentence, s.recipe) for s in steps] == [
    ("dddddddddd4_00", 0.0, 0.4, "butter two breads", "113"),
    ("dddddddddd4_01", 0.4, 0.8, "cut it", "113"),
    ("eeeeeeeeee5_00", 0.0, 0.4, "cook the noodles", "204"),
    ("eeeeeeeeee5_01", 0.4, 0.8, "add the sauce", "204"),
  ]


@pytest.mark.parametrize("folder", [".", "data", "data/egoyc2", "data/egoyc2/captiondata"])
def test_files_are_found_from_any_folder_above(tmp_path, folder):
  recipe_captions.write(tmp_path / "data")
  expected = {
    split: tmp_path / "data/egoyc2/captiondata" / name
    for split, name in caption_files.FILES["egoyc2"].items()
  }
  found = caption_files.find_files(epath.Path(tmp_path / folder), "egoyc2")
  assert {split: str(file) for split, file in found.items()} == {
    split: str(file) for split, file in expected.items()
  }
  one = epath.Path(expected["validation"])
  assert caption_files.find_files(one, "egoyc2") == {"validation": one}


def test_files_that_are_not_there(tmp_path):
  with pytest.raises(FileNotFoundError, match="no caption files of youcook2"):
    caption_files.find_files(epath.Path(tmp_path), "youcook2")
  with pytest.raises(ValueError, match="the name says which split"):
    caption_files.find_files(epath.Path(tmp_path / "yc2_test.json"), "youcook2")
  with pytest.raises(FileNotFoundError, match="There is no file"):
    caption_files.read_steps(epath.Path(tmp_path / "yc2_eval_wacv25.json"))


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda entry: entry.pop("sentences"), "video 'v1': there must be .* sentences is missing"),
    (lambda entry: entry.update(recipe_type="118"), "89 recipe types of YouCook2.* got '118'"),
    (lambda entry: entry.update(recipe_type=[1]), "89 recipe types"),
    (lambda entry: entry["sentences"].pop(), "as many timestamps as sentences, got 2 and 1"),
    (lambda entry: entry.update(timestamps=3), "got no and 2"),
    (lambda entry: entry["sentences"].append(" ") or entry["timestamps"].append([1, 2]), "step 3"),
    (lambda entry: entry["timestamps"][1].reverse(), "step 2: the timestamps must be two numbers"),
    (lambda entry: entry["timestamps"].__setitem__(0, [0, float("nan")]), "step 1: the timestamps"),
    (lambda entry: entry["timestamps"].__setitem__(0, [-1, 2]), "not negative; got"),
    (lambda entry: entry["timestamps"].__setitem__(0, [False, 2]), "step 1: the timestamps"),
  ],
)
def test_a_damaged_entry_is_named(tmp_path, change, message):
  entry = recipe_captions.entry("113", ["cut it", "fry it"])
  change(entry)
  path = tmp_path / "x.json"
  path.write_text(json.dumps({"v1": entry}))
  with pytest.raises(ValueError, match=message) as error:
    caption_files.read_steps(epath.Path(path))
  assert "x.json" in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "[" * 100_000, b"\xff"])
def test_a_file_that_holds_something_else(tmp_path, text):
  path = tmp_path / "x.json"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(ValueError, match="Take the caption file"):
    caption_files.read_steps(epath.Path(path))


@pytest.mark.parametrize("video", ["1m17Yoh73uU", "r2_s20_1m17", "r2_s20_1m17Yoh73uUx", ""])
def test_only_ids_of_egoyc2_name_another_video(video):
  with pytest.raises(ValueError, match="like r2_s20_1m17Yoh73uU, got"):
    caption_files.reenacted_video(video)


@pytest.mark.skipif(not recipe_captions.DATA.exists(), reason=recipe_captions.NO_DATA)
def test_official_files():
  """Counts of videos, steps and recipes; every ego video has the sentences of its exo one."""
  steps, videos = {}, {}
  for name in caption_files.FILES:
    files = caption_files.find_files(epath.Path(recipe_captions.DATA), name)
    for split, file in files.items():
      steps[name, split] = caption_files.read_steps(file)
      grouped = collections.defaultdict(list)
      for step in steps[name, split]:
        grouped[step.video_id].append(step)
      videos[name, split] = grouped
  assert {key: (len(videos[key]), len(steps[key])) for key in steps} == {
    ("egoyc2", "train"): (151, 964),
    ("egoyc2", "validation"): (75, 511),
    ("youcook2", "train"): (1716, 13_324),
    ("youcook2", "validation"): (74, 505),
  }
  recipes = {
    name: {s.recipe for key, part in steps.items() if key[0] == name for s in part}
    for name in caption_files.FILES
  }
  assert recipes["youcook2"] == set(caption_files.RECIPES) and len(caption_files.RECIPES) == 89
  assert len(recipes["egoyc2"]) == 21
  reenacted = set()
  for split in ("train", "validation"):
    for video, own in videos["egoyc2", split].items():
      exo = caption_files.reenacted_video(video)
      reenacted.add(exo)
      other = videos["youcook2", split][exo]
      assert [(s.sentence, s.recipe) for s in own] == [(s.sentence, s.recipe) for s in other]
  assert videos["youcook2", "validation"].keys() <= reenacted
