"""The keystep recognition benchmark of Ego-Exo4D and LaGTran's Ego2Exo, in miniature."""

from __future__ import annotations

import hashlib
import json
import shutil

from etils import epath
import pytest

from data_prep import build_dataset
from data_prep import doctor
from data_prep.sources import ego2exo
from data_prep.sources import keystep_clips
from sum_l_jax.data import records
from sum_l_jax.data import segment_ids
from sum_l_jax.evaluation.benchmarks import keystep_files
from tests.support import ego_exo_files
from tests.support import numbered_video
from tests.support.ego_exo_files import BIKE
from tests.support.ego_exo_files import BREW
from tests.support.ego_exo_files import HIDDEN


@pytest.fixture(name="release", scope="module")
def release_fixture(tmp_path_factory):
  folder = ego_exo_files.write(tmp_path_factory.mktemp("keysteps"))
  ego_exo_files.write_benchmark(folder)
  ego_exo_files.write_json(folder / "ego2exo.json", ego_exo_files.ego2exo())
  return folder


def build(dataset, annotations, media, output, *options):
  return build_dataset.main(
    [
      f"--dataset={dataset}",
      f"--annotations={annotations}",
      f"--media={media}",
      f"--output={output}",
      "--processes=1",
      *options,
    ]
  )


def test_benchmark_clips_of_the_first_person(release, tmp_path, capsys):
  assert build("egoexo4d_keysteps", release, release, tmp_path / "ego", "--test_sets") == 0
  splits = {s: records.ClipDataset(tmp_path / "ego", s) for s in ("train", "validation", "test")}
  # Two steps of one name are told apart by their scenarios.
  assert splits["train"].tasks["keystep"].class_names == (
    *("Unbox package (covid)", "Brew coffee", "Check paper recipe", "Unbox package (bike)"),
  )
  seen = [(c.clip_id, c.narration, c.labels["keystep"]) for c in splits["train"].clips]
  assert seen == [
    (f"{BREW}_0.50000_1.50000_492@aria02", "Brew coffee", (1,)),
    (f"{BIKE}_0.00000_0.90000_843@gp05", "Unbox package", (0,)),
  ]
  test = splits["test"]
  assert not test.labelled and [c.clip_id for c in test.clips] == [
    f"{HIDDEN}_1.00000_2.00000_unannotated@aria01"
  ]
  # Files 0, 3, 6 and 8 are those of the first person; each is a clip, whole.
  for split, clip, file in (("train", 0, 0), ("train", 1, 3), ("validation", 0, 6), ("test", 0, 8)):
    frames = splits[split].read_frames(clip, range(6))
    assert [numbered_video.read(f) for f in frames] == [10 * file + n for n in range(6)]
  assert "has 4 classes; the benchmark has 278" in capsys.readouterr().err
  # The doctor says it again, and what is known of the files.
  assert doctor.main([str(tmp_path / "ego")]) == 0
  said = " ".join(capsys.readouterr().out.split())
  assert "4 keystep classes; egoexo4d_keysteps has 278" in said
  assert "the test segments are of the first person alone" in said


def test_benchmark_clips_of_the_third_person(release):
  def read(**options):
    found = keystep_clips.read_annotations(
      epath.Path(release / "annotations/keystep_benchmark"),
      view="exo",
      media_roots=[epath.Path(release / "keystep_benchmark/clips_448p")],
      **options,
    )
    return [c.clip_id.rpartition("@")[2] for c in found.clips], found.notes

  with pytest.raises(FileNotFoundError, match="Ego-Exo4D's takes.json is missing"):
    read()
  shutil.copy(release / "takes.json", release / "annotations")
  cameras, notes = read()
  assert cameras == ["cam02", "cam01"]
  assert notes == [
    "1 left out: segments without a clip of the take's best camera, or whose take has none"
    " (--cameras=all takes every one)"
  ]
  assert read(cameras="all") == (["cam01", "cam02", "gp01", "gp02", "cam01"], [])


def test_no_capture_of_the_benchmark_is_in_both_views(release):
  def takes(view, **options):
    found = keystep_clips.read_annotations(
      epath.Path(release), view=view, media_roots=[epath.Path(release)], unpaired=True, **options
    )
    return {c.video_id for c in found.clips}, {c.video_id for c in found.unlabelled.get("test", ())}

  ego, tested = takes("ego", test_sets=True)
  exo, _ = takes("exo", cameras="all")
  # The rule, restated: the first byte of a hash of the capture's id.
  ego_side = lambda n: hashlib.sha256(f"unpaired capture-{n}".encode()).digest()[0] < 128
  names = {1: "uni_brew_1", 2: "uni_bike_2", 3: "uni_salad_3"}
  assert ego == {name for n, name in names.items() if ego_side(n)}
  assert exo == set(names.values()) - ego and ego and exo
  # The test has no other view, and stays.
  assert tested == {"uni_salad_4"}


def test_a_segment_has_one_id_in_all_its_files(release):
  """Clips of takes and those of the benchmark name the same moment alike."""
  segments = keystep_files.read_segments(
    epath.Path(release / "annotations/keystep_benchmark/keystep_segment_train.json"), 4
  )
  content = json.loads((release / "annotations/keystep_train.json").read_text())
  known = {
    segment_ids.moment(uid, s["start_time"], s["end_time"], s["step_unique_id"])
    for uid, steps in content["annotations"].items()
    for s in steps["segments"]
  }
  assert {s.segment_id for s in segments} < known
  with pytest.raises(ValueError, match="doesn't say which segment it shows"):
    segment_ids.segment_of("P01_01_3")
  with pytest.raises(ValueError, match="must not be empty or hold '@'"):
    segment_ids.clip_id("a", "cam@1")


@pytest.mark.parametrize(
  "change, text",
  [
    (lambda v: v.update(label_id=4), "label_id 4 is not in label_mapping.csv, whose numbers are 0"),
    (lambda v: v.pop("label_id"), "label_id is missing"),
    (lambda v: v.update(end_time=0.2), "must start before it stops, got 0.5 to 0.2"),
    (lambda v: v.update(ego_segment_name="train/x.mp4"), "must be called start<seconds>_end"),
    (
      lambda v: v.update(ego_segment_name="../start1_end2_cam01.mp4"),
      "the clip's path must name something below",
    ),
    (
      lambda v: v.update(ego_segment_name="train/start1_end2_cam09.mp4"),
      "no frames and no video of .*@cam09 were found",
    ),
  ],
)
def test_segments_that_cannot_be_used(release, tmp_path, change, text):
  shutil.copytree(release / "annotations/keystep_benchmark", tmp_path / "keystep_benchmark")
  path = tmp_path / "keystep_benchmark/keystep_segment_train.json"
  content = json.loads(path.read_text())
  change(content["segments"][0])
  ego_exo_files.write_json(path, content)
  with pytest.raises((ValueError, FileNotFoundError), match=text):
    keystep_clips.read_annotations(
      epath.Path(tmp_path), view="ego", media_roots=[epath.Path(release)]
    )


@pytest.mark.parametrize(
  "lines, text",
  [
    (["0,1,a,b", "2,3,c,d"], "label_id must count from 0 to 1, each once; got 0 to 2"),
    (["0,1,a,b", "0,3,c,d"], "each label_id must occur once"),
    (["0,1,,b"], "with a step_name"),
    (["x,1,a,b"], "label_id must be a whole number, got 'x'"),
  ],
)
def test_class_lists_that_are_none(tmp_path, lines, text):
  path = tmp_path / "label_mapping.csv"
  path.write_text("label_id,step_unique_id,step_name,scenario_name\n" + "\n".join(lines) + "\n")
  with pytest.raises(ValueError, match=text):
    keystep_files.read_classes(epath.Path(path))


def test_options_that_do_not_fit_the_view(release, tmp_path, capsys):
  for options, text in (
    (["--cameras=all"], "--cameras is for --view=exo"),
    (["--view=exo", "--test_sets"], "--test_sets is for --view=ego"),
  ):
    assert build("egoexo4d_keysteps", release, release, tmp_path / "x", *options) == 2
    assert text in capsys.readouterr().err
  assert build("egoexo4d_keysteps", tmp_path, release, tmp_path / "x") == 2
  assert "label_mapping.csv is missing. Tried:" in capsys.readouterr().err


def test_ego2exo(release, tmp_path, capsys):
  for view in ("ego", "exo"):
    path = release / "ego2exo.json"
    assert build("ego2exo", path, release, tmp_path / view, f"--view={view}") == 0
  ego, exo = (records.ClipDataset(tmp_path / view, "train") for view in ("ego", "exo"))
  assert ego.tasks["keystep"].class_names == ("Clean up", "Cook")
  seen = [(c.clip_id, c.narration, c.labels["keystep"], c.video_id) for c in ego.clips]
  assert seen == [
    ("11@aria02", "pours water.stirs.", (1,), BREW),
    # The small video isn't there, and the large one is.
    ("12@gp05", "wipes it.", (0,), BIKE),
  ]
  first = ego_exo_files.FIRST["uni_bike_2", "gp05"]
  assert [numbered_video.read(f) for f in ego.read_frames(1, range(15))] == [
    first + 30 + n for n in range(15)
  ]
  assert [(c.clip_id, c.num_frames) for c in exo.clips] == [("13@cam02", 30)]
  validation = [records.ClipDataset(tmp_path / view, "validation").clips for view in ("ego", "exo")]
  assert [[(c.clip_id, c.narration) for c in clips] for clips in validation] == [
    [("14@aria01", "Clean up")],
    [("14@cam01", "Clean up")],
  ]
  said = capsys.readouterr().err
  assert said.count("note: 1 segments have no text; the name of their class") == 2
  # The published numbers are known by view.
  assert doctor.main([str(tmp_path / "ego"), str(tmp_path / "exo")]) == 0
  said = " ".join(capsys.readouterr().out.split())
  for text in ("2 clips; the official split has 4,100", "1 clips; the official split has 4,986"):
    assert text in said
  assert said.count("1 clips; the official split has 3,168") == 2


@pytest.mark.parametrize(
  "change, text",
  [
    (lambda v: v["categories"].pop(0), "category 1 is none of 0 to 0"),
    (lambda v: v["categories"].pop(1), "categories must have the ids 0, 1, 2"),
    (lambda v: v["ego_train"]["metadata"].pop(0), "in clips and not in metadata"),
    (
      lambda v: v["ego_train"]["annotations"].append(v["ego_train"]["annotations"][0]),
      "segment 12 is twice in annotations",
    ),
    (
      lambda v: v["ego_train"]["clips"].append(v["ego_train"]["clips"][0]),
      "segment 11: it is twice in clips",
    ),
    (lambda v: v["exo_train"]["metadata"][0].update(end_time=1.0), "got 1.5 to 1"),
    (lambda v: v["exo_val"]["clips"][0].update(id=-1), "is damaged"),
    (
      lambda v: v["ego_train"]["clips"][0].update(video_file_name="/etc/passwd.mp4"),
      "video_file_name must name something below",
    ),
    (lambda v: v.pop("ego_val"), "missing required field `ego_val`"),
  ],
)
def test_ego2exo_files_that_are_damaged(release, tmp_path, change, text):
  content = ego_exo_files.ego2exo()
  change(content)
  ego_exo_files.write_json(tmp_path / "ego2exo.json", content)
  with pytest.raises(ValueError, match=text):
    ego2exo.read_annotations(epath.Path(tmp_path), view="ego", media_roots=[epath.Path(release)])
