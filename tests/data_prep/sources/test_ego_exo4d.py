"""Ego-Exo4D in a miniature of its documented files."""

from __future__ import annotations

import hashlib
import json
import shutil

from etils import epath
import pytest

from data_prep import build_dataset
from data_prep import doctor
from data_prep.sources import clip_specs
from data_prep.sources import ego_exo4d
from data_prep.sources import take_cameras
from sum_l_jax.data import records
from sum_l_jax.data import segment_ids
from tests.support import ego_exo_files
from tests.support import numbered_video
from tests.support.ego_exo_files import BIKE
from tests.support.ego_exo_files import BREW
from tests.support.ego_exo_files import SALAD


@pytest.fixture(name="release", scope="module")
def release_fixture(tmp_path_factory):
  return ego_exo_files.write(tmp_path_factory.mktemp("egoexo"))


@pytest.fixture(name="copy")
def copy_fixture(release, tmp_path):
  """A copy of the annotations to damage; the videos are the same ones."""
  shutil.copytree(release / "annotations", tmp_path / "annotations")
  shutil.copy(release / "takes.json", tmp_path)
  (tmp_path / "takes").symlink_to(release / "takes")
  return tmp_path


def build(release, output, *options):
  return build_dataset.main(
    [
      "--dataset=egoexo4d",
      f"--annotations={release}",
      f"--media={release}",
      f"--output={output}",
      "--processes=1",
      *options,
    ]
  )


def read(release, view, **options):
  return ego_exo4d.read_annotations(
    epath.Path(release), view=view, media_roots=[epath.Path(release)], **options
  )


def spans(annotations):
  """(clip id, start, stop) of each clip, by what the miniature says."""
  return [
    (c.clip_id, round(c.start_seconds, 3), round(c.stop_seconds, 3)) for c in annotations.clips
  ]


def test_keysteps_of_the_first_person(release, tmp_path, capsys):
  assert build(release, tmp_path / "ego") == 0
  train, validation = (
    records.ClipDataset(tmp_path / "ego", split) for split in ("train", "validation")
  )
  assert train.view == "ego"
  # Classes in the order of the numbers of steps, 492, 502, 843.
  assert train.tasks["keystep"].class_names == (
    *("Brew coffee", "Check paper recipe", "Unbox package"),
  )
  assert train.tasks["keystep"].kind == "softmax"
  seen = [(c.clip_id, c.narration, c.labels["keystep"], c.video_id) for c in train.clips]
  assert seen == [
    (
      f"{BREW}_0.50000_1.50000_492@aria02",
      "Pours water over the filter",
      (0,),
      "uni_brew_1",
    ),
    # Nothing is written of this one but white space.
    (f"{BREW}_1.50000_3.20000_502@aria02", "Check paper recipe", (1,), "uni_brew_1"),
    (f"{BIKE}_0.00000_0.90000_843@gp05", "Opens the box", (2,), "uni_bike_2"),
  ]
  # The last one stops where the take does.
  assert [(c.clip_id, c.num_frames) for c in validation.clips] == [
    (f"{SALAD}_2.00000_4.02000_502@aria01", 60)
  ]
  # Which frames, of which camera: by content.
  for clip, take, camera, start, count in (
    (0, "uni_brew_1", "aria02", 15, 30),
    (2, "uni_bike_2", "gp05", 0, 27),
  ):
    numbers = [numbered_video.read(f) for f in train.read_frames(clip, range(count))]
    first = ego_exo_files.FIRST[take, camera] + start
    assert numbers == list(range(first, first + count))
  said = capsys.readouterr().err
  assert "note: 1 left out: segments of no step of the taxonomy" in said
  assert "note: 1 left out: repetitions of a segment" in said
  assert train.metadata["source"] == "egoexo4d" and train.metadata["unpaired"] is False
  # The doctor knows how many takes the release has.
  assert doctor.main([str(tmp_path / "ego")]) == 0
  said = " ".join(capsys.readouterr().out.split())
  assert "splits.json lists takes {'train': 2, 'val': 1, 'test': 1}; version 2" in said
  assert "{'train': 3072, 'val': 842, 'test': 1121}" in said


def test_third_person_by_the_best_camera_or_all(release, tmp_path):
  assert build(release, tmp_path / "exo", "--view=exo", "--narration=classes") == 0
  train = records.ClipDataset(tmp_path / "exo", "train")
  # The bike's best camera isn't known.
  assert [(c.clip_id.rpartition("@")[2], c.narration) for c in train.clips] == [
    ("cam02", "Brew coffee"),
    ("cam02", "Check paper recipe"),
  ]
  first = ego_exo_files.FIRST["uni_brew_1", "cam02"]
  assert numbered_video.read(train.read_frames(1, [0])[0]) == first + 45
  every = read(release, "exo", cameras="all")
  # "moblie" and "collage" are none, gp05 is worn.
  assert [c.clip_id.rpartition("@")[2] for c in every.clips] == [
    *("cam01", "cam02"),
    *("cam01", "cam02"),
    *("gp01", "gp02"),
    "cam01",
  ]
  # The same moments, by id, from both views.
  ego = read(release, "ego")
  segments = lambda found: {segment_ids.segment_of(c.clip_id) for c in found.clips}
  assert segments(ego) == segments(every)


def test_descriptions_and_their_windows(release):
  exo = read(release, "exo", examples="descriptions", window_seconds=1.0)
  assert spans(exo) == [
    (f"{BREW}_pass-1_0@cam01", 0.0, 0.7),
    (f"{BREW}_pass-1_2@cam01", 1.7, 2.7),
    (f"{BREW}_pass-1_3@cam02", 2.7, 3.7),
    (f"{BIKE}_pass-3_0@gp01", 0.5, 1.5),
    (f"{SALAD}_pass-4_0@cam01", 3.4, 4.0),
  ]
  assert exo.tasks["activity"].class_names == ("Bike Repair", "Cooking")
  assert [c.labels["activity"] for c in exo.clips] == [(1,), (1,), (1,), (0,), (1,)]
  assert [c.narration for c in exo.clips][1:3] == [
    "C pours water.",
    "The man X walks.",
  ]
  assert sorted(exo.notes) == [
    "1 left out: annotations were rejected",
    "1 left out: descriptions whose annotator was unsure",
    "1 left out: examples whose best third-person camera isn't known (--cameras=all takes every"
    " one)",
  ]
  ego = read(release, "ego", examples="descriptions", subjects="wearer")
  half = 63 / 30 / 2
  assert spans(ego) == [
    (f"{BREW}_pass-1_0@aria02", 0.0, round(0.2 + half, 3)),
    (f"{BIKE}_pass-3_0@gp05", 0.0, round(1.0 + half, 3)),
    (f"{BIKE}_pass-3_1@gp05", round(1.5 - half, 3), round(1.5 + half, 3)),
    (f"{SALAD}_pass-4_0@aria01", round(3.9 - half, 3), 4.0),
  ]
  assert "1 left out: descriptions of what the first person's cameras don't show" in ego.notes
  assert "1 left out: descriptions of what somebody else does (--subjects=wearer)" in ego.notes
  assert {c.split for c in ego.clips} == {"train", "validation"}


def test_gap_rule_is_that_of_egovlp(release):
  found = read(release, "ego", examples="descriptions", window_seconds=1.0, window_rule="gap")
  # The points of pass-1 are 0.2, 1, 2.2 and 3.2, those of pass-3 1 and 1.5; pass-4 has one.
  gaps = {"pass-1": (3.2 - 0.2) / 3, "pass-3": 0.5}
  usual = sum(gaps.values()) / len(gaps)
  lengths = {"pass-1": gaps["pass-1"] / usual, "pass-3": gaps["pass-3"] / usual, "pass-4": 1.0}
  expected = []
  for uid, name, number, time in (
    *((BREW, "pass-1", 0, 0.2), (BREW, "pass-1", 3, 3.2)),
    *((BIKE, "pass-3", 0, 1.0), (BIKE, "pass-3", 1, 1.5), (SALAD, "pass-4", 0, 3.9)),
  ):
    span = (max(0, time - lengths[name] / 2), min(4, time + lengths[name] / 2))
    expected.append((f"{uid}_{name}_{number}", *(round(t, 3) for t in span)))
  assert [(segment_ids.segment_of(c), *rest) for c, *rest in spans(found)] == expected
  # The third person's clips of the same points have the same spans.
  exo = read(
    release, "exo", examples="descriptions", cameras="all", window_seconds=1.0, window_rule="gap"
  )
  both = {segment_ids.segment_of(c): tuple(rest) for c, *rest in spans(exo)}
  assert [(segment, *both[segment]) for segment, *_ in expected] == expected


def test_unpaired_shows_no_capture_from_both_views(release, tmp_path):
  """By takes.json itself, and the rule restated."""
  assert build(release, tmp_path / "ego", "--unpaired", "--split=train") == 0
  assert (
    build(release, tmp_path / "exo", "--unpaired", "--split=train", "--view=exo", "--cameras=all")
    == 0
  )
  entries = json.loads((release / "takes.json").read_text())
  capture_of = {e["take_name"]: e["capture_uid"] for e in entries}
  captures = {}
  for view in ("ego", "exo"):
    data = records.ClipDataset(tmp_path / view, "train")
    captures[view] = {capture_of[c.video_id] for c in data.clips}
  assert captures["ego"] and captures["exo"] and not captures["ego"] & captures["exo"]
  annotated = {"capture-1", "capture-2", "capture-3"}
  assert captures["ego"] | captures["exo"] == annotated
  first_byte = lambda c: hashlib.sha256(b"unpaired " + c.encode()).digest()[0]
  assert captures["ego"] == {c for c in annotated if first_byte(c) < 128}
  # Splits are the official ones, and sides are about even.
  assert {c.split for c in read(release, "ego", unpaired=True).clips} <= {"train", "validation"}
  sides = [take_cameras.side(f"{n:08x}-capture") for n in range(2000)]
  assert abs(sides.count("ego") - 1000) < 3 * (2000 * 0.25) ** 0.5


def edit(path, change):
  value = json.loads(path.read_text())
  change(value)
  ego_exo_files.write_json(path, value)


def _set(keys, value):
  def change(content):
    for key in keys[:-1]:
      content = content[key]
    content[keys[-1]] = value

  return change


_STEPS = ("annotations/keystep_train.json", ("annotations", BREW, "segments", 0))


@pytest.mark.parametrize(
  "file, change, text",
  [
    ("takes.json", lambda v: v.pop(0), f"take '{BREW}' is not in takes.json, which lists 3"),
    ("takes.json", lambda v: v.append(v[0]), f"take_uid '{BREW}' occurs twice"),
    ("takes.json", _set((0, "root_dir"), "../secrets"), "must name something below"),
    ("takes.json", _set((0, "capture", "cameras", 0, "is_ego"), "yes"), "must be true or false"),
    ("takes.json", _set((0, "capture"), None), "no camera of the first person with a video"),
    ("takes.json", _set((0, "duration_sec"), -1), "is damaged: Expected `float` > 0.0"),
    (
      "takes.json",
      lambda v: v[0]["frame_aligned_videos"]["aria02"].pop("rgb"),
      "no video in colour; streams: et, slam-right, slam-left",
    ),
    (
      "takes.json",
      _set(
        (0, "frame_aligned_videos", "aria02", "rgb", "relative_path"), "frame_aligned_videos/x.mp4"
      ),
      "no frames and no video of uni_brew_1/aria02 were found",
    ),
    ("annotations/splits.json", _set(("take_uid_to_split", BREW), "val"), "splits.json says 'val'"),
    ("annotations/splits.json", lambda v: v["take_uid_to_split"].pop(BREW), "says 'none'"),
    (_STEPS[0], _set((*_STEPS[1], "start_time"), 1.5), "must start before it stops"),
    (_STEPS[0], _set((*_STEPS[1], "end_time"), "soon"), "Expected `float`, got `str`"),
    (_STEPS[0], _set((*_STEPS[1], "end_time"), float("nan")), "is damaged"),
    (_STEPS[0], _set(("vocabulary", "843"), "Open it"), "step 843 is 'Unbox package', and"),
    (_STEPS[0], _set(("vocabulary", "x"), "Open it"), "a name by each number, got 'x'"),
    (_STEPS[0], _set(("annotations",), []), "Expected `object`, got `array`"),
  ],
)
def test_contradictions_and_damage(copy, tmp_path, capsys, file, change, text):
  edit(copy / file, change)
  assert build(copy, tmp_path / "out") == 2
  said = " ".join(capsys.readouterr().err.split())
  assert text in said
  assert not (tmp_path / "out").exists()


_NOTES = ("annotations", BREW, 0, "descriptions", 0)


@pytest.mark.parametrize(
  "change, text",
  [
    (_set((*_NOTES, "timestamp"), 4.5), "timestamp must lie in the take, 0 to 4 s, got 4.5"),
    (_set((*_NOTES, "text"), " "), "the text is empty"),
    (_set((*_NOTES, "subject"), "D"), "the subject must be C or O, got 'D'"),
    (_set((*_NOTES, "unsure"), "maybe"), "unsure must be true or false, or 1 or 0; got 'maybe'"),
    (_set(("annotations", BREW, 0, "rejected"), "?"), "rejected must be true or false"),
  ],
)
def test_descriptions_that_cannot_be_used(copy, change, text):
  edit(copy / "annotations/atomic_descriptions_train.json", change)
  with pytest.raises(ValueError, match=text):
    read(copy, "exo", examples="descriptions")
  problems = clip_specs.Problems(skip=True)
  found = read(copy, "exo", examples="descriptions", problems=problems)
  assert text in problems.skipped[0][2] and len(problems.skipped) == 1
  # All of an annotation goes only where the annotation itself can't be read.
  assert len(found.clips) == (2 if "rejected" in text else 4)


def test_missing_files_and_options_that_do_nothing(copy, release, tmp_path, capsys):
  def error(*options):
    assert build(copy, tmp_path / "out", *options) == 2
    return " ".join(capsys.readouterr().err.split())

  assert "--window is for --examples=descriptions" in error("--window=3")
  assert "--window_rule is for --examples=descriptions" in error("--window_rule=gap")
  assert "--cameras is for --view=exo" in error("--cameras=all")
  text = error("--examples=descriptions", "--narration=classes")
  assert "--narration is for --examples=keysteps" in text
  text = error("--examples=videos")
  assert "--examples must be one of keysteps, descriptions" in text
  (copy / "annotations/keystep_val.json").unlink()
  text = error()
  assert "keystep_val.json is missing. Tried:" in text and "egoexo --parts metadata" in text
  # The folder of the annotations does as well, and missing videos are counted.
  problems = clip_specs.Problems(skip=True)
  found = ego_exo4d.read_annotations(
    epath.Path(release / "annotations"),
    view="ego",
    media_roots=[epath.Path(release / "takes/uni_bike_2")],
    problems=problems,
  )
  assert not found.clips
  assert {name: v.rows for name, v in problems.missing.items()} == {
    "uni_brew_1/aria02": 2,
    "uni_bike_2/gp05": 1,
    "uni_salad_3/aria01": 1,
  }
