"""EgoYC2 and YouCook2 as clip data sets, and what may know which video is re-enacted."""

from __future__ import annotations

import json
import pathlib

from etils import epath
import numpy as np
import pytest

from data_prep import build_dataset
from data_prep.checks import official_checks
from data_prep.mining import pseudo_pairs
from data_prep.sources import clip_specs
from data_prep.sources import youcook2
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.benchmarks import caption_files
from tests.support import numbered_video
from tests.support import recipe_captions

ROOT = pathlib.Path(__file__).parents[3]
# Other pairs of the same ego videos, each within its recipe and split.
SCRAMBLED = {
  "train": {"r1_s2_aaaaaaaaaa1": "bbbbbbbbb_2", "r3_s4_zzzzzzzzzzz": "-ccccccccc3"},
  "validation": {"r2_s20_eeeeeeeeee5": "dddddddddd4", "r2_s5_dddddddddd4": "eeeeeeeeee5"},
}


def _build(folder, dataset, *options, media="videos"):
  output = folder / "built" / dataset
  status = build_dataset.main(
    [
      f"--dataset={dataset}",
      f"--annotations={folder / 'data'}",
      f"--media={folder / media}",
      f"--output={output}",
      "--processes=1",
      *options,
    ]
  )
  return status, output


def _write_videos(folder, ego=recipe_captions.EGO):
  """Twelve frames a step, 30 a second; exo ones as YouCook2's downloader puts them."""
  (folder / "videos").mkdir()
  for split, videos in recipe_captions.EXO.items():
    for video, (recipe, sentences) in videos.items():
      place = folder / f"videos/raw_videos/{'training' if split == 'train' else split}/{recipe}"
      place.mkdir(parents=True, exist_ok=True)
      numbered_video.write_video(place / f"{video}.mp4", list(range(12 * len(sentences))))
  for split, pairs in ego.items():
    for video, exo in pairs.items():
      count = 12 * len(recipe_captions.EXO[split][exo][1])
      numbered_video.write_video(folder / f"videos/{video}.mp4", list(range(count)))


@pytest.fixture(name="built", scope="module")
def built_fixture(tmp_path_factory):
  """Both data sets, from the same root."""
  folder = tmp_path_factory.mktemp("captions")
  recipe_captions.write(folder / "data")
  _write_videos(folder)
  assert _build(folder, "egoyc2")[0] == 0
  assert _build(folder, "youcook2", media="videos/raw_videos")[0] == 0
  return folder


def test_clips_are_the_steps(built):
  steps = {}
  for view, dataset in (("ego", "egoyc2"), ("exo", "youcook2")):
    directory = built / "built" / dataset
    card = records.read_card(directory)
    assert card["view"] == view and card["splits"].keys() == {"train", "validation"}
    for split in card["splits"]:
      data = records.ClipDataset(directory, split)
      assert data.tasks["recipe"].class_names == caption_files.RECIPES
      assert data.labelled and data.narrated
      steps[dataset, split] = [
        (clip.clip_id, clip.video_id, clip.narration, data.tasks["recipe"].class_names[label])
        for clip in data.clips
        for label in clip.labels["recipe"]
      ]
      for index, clip in enumerate(data.clips):
        number = int(clip.clip_id.rpartition("_")[2])
        frames = [numbered_video.read(f) for f in data.read_frames(index, range(clip.num_frames))]
        assert frames == list(range(12 * number, 12 * number + 12))
  assert steps["youcook2", "validation"] == [
    ("dddddddddd4_00", "dddddddddd4", "butter two breads", "113"),
    ("dddddddddd4_01", "dddddddddd4", "cut it", "113"),
    ("eeeeeeeeee5_00", "eeeeeeeeee5", "cook the noodles", "204"),
    ("eeeeeeeeee5_01", "eeeeeeeeee5", "add the sauce", "204"),
  ]
  assert [step[0] for step in steps["egoyc2", "train"]] == [
    "r1_s2_bbbbbbbbb_2_00",
    "r1_s2_bbbbbbbbb_2_01",
    "r1_s2_bbbbbbbbb_2_02",
    "r3_s4_-ccccccccc3_00",
  ]


def test_a_missing_video_is_named_or_left_out(tmp_path, capsys):
  recipe_captions.write(tmp_path / "data")
  _write_videos(tmp_path)
  (tmp_path / "videos/r2_s5_eeeeeeeeee5.mp4").unlink()
  status, _ = _build(tmp_path, "egoyc2")
  assert status == 2
  assert "no frames and no video of r2_s5_eeeeeeeeee5 were found" in capsys.readouterr().err
  status, output = _build(tmp_path, "egoyc2", "--on_error=skip")
  assert status == 0 and records.read_card(output)["splits"] == {"train": 4, "validation": 2}
  assert "r2_s5_eeeeeeeeee5,,2," in (output / "skipped.csv").read_text()


def test_a_video_of_both_splits_and_an_id_that_leads_away(tmp_path):
  root = recipe_captions.write(tmp_path / "data")
  _write_videos(tmp_path)
  folder = root / "egoyc2/captiondata"
  train = json.loads((folder / "egoyc2_train_wacv25.json").read_text())

  def read():
    roots = [epath.Path(tmp_path / "videos")]
    return youcook2.read_annotations(epath.Path(root), dataset="egoyc2", media_roots=roots)

  (folder / "egoyc2_eval_wacv25.json").write_text(json.dumps(train))
  with pytest.raises(ValueError, match="is in egoyc2_train_wacv25.json as well"):
    read()
  away = {"../r1_s2_bbbbbbbbb_2": train["r1_s2_bbbbbbbbb_2"]}
  (folder / "egoyc2_eval_wacv25.json").write_text(json.dumps(away))
  with pytest.raises(ValueError, match="must name something below the folders of --media"):
    read()


def test_the_doctor_knows_the_numbers(built):
  data = records.ClipDataset(built / "built/egoyc2", "validation")
  (finding,) = official_checks.check_number(data)
  assert "4 clips; the official split has 511 (egoyc2)" in finding.message
  assert finding.count == 507
  (quirks,) = official_checks.check_quirks({"validation": data})
  assert "151 and 75 videos" in quirks.message
  assert list(official_checks.check_class_lists({"validation": data})) == []


def test_mining_does_not_know_which_video_is_re_enacted(built, tmp_path):
  """Ego ids that name other videos give the same pairs, clip by clip."""
  (tmp_path / "data").mkdir()
  recipe_captions.write(tmp_path / "data", SCRAMBLED)
  _write_videos(tmp_path, SCRAMBLED)
  assert _build(tmp_path, "egoyc2")[0] == 0
  exo = records.ClipDataset(built / "built/youcook2", "train")
  texts = sorted({clip.narration for clip in exo.clips} | {"x"})
  vectors = np.random.default_rng(0).standard_normal((len(texts), 8))
  table = narration_table.NarrationTable(texts, vectors, "random")
  found = []
  for folder in (built, tmp_path):
    ego = records.ClipDataset(folder / "built/egoyc2", "train")
    pairs = pseudo_pairs.mine(ego, [exo], table, top_k=2)
    found.append(
      (
        pairs.ego_rows.tolist(),
        pairs.neighbours.tolist(),
        pairs.similarity.tolist(),
        pairs.clip_offsets.tolist(),
        pairs.clip_index.tolist(),
      )
    )
  assert found[0] == found[1]


def test_only_what_scores_reads_the_pairing():
  """No module that builds, mines or trains names `reenacted_video`."""
  callers = {
    path.relative_to(ROOT).as_posix()
    for top in ("sum_l_jax", "data_prep")
    for path in (ROOT / top).rglob("*.py")
    if "reenacted_video" in path.read_text("utf-8")
  }
  scoring = ("sum_l_jax/evaluation/benchmarks/", "sum_l_jax/tools/benchmark/")
  assert callers and all(path.startswith(scoring) for path in callers)


@pytest.mark.skipif(not recipe_captions.DATA.exists(), reason=recipe_captions.NO_DATA)
@pytest.mark.parametrize("dataset", ["egoyc2", "youcook2"])
def test_every_official_step_asks_for_its_video(dataset, tmp_path):
  problems = clip_specs.Problems(skip=True)
  read = youcook2.read_annotations(
    epath.Path(recipe_captions.DATA),
    dataset=dataset,
    media_roots=[epath.Path(tmp_path)],
    problems=problems,
  )
  official = official_checks.OFFICIAL[dataset]
  assert not read.clips and not problems.skipped
  assert sum(video.rows for video in problems.missing.values()) == sum(official.clips.values())
  assert len(problems.missing) == {"egoyc2": 226, "youcook2": 1790}[dataset]
