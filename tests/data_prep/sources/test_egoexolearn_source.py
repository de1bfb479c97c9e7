"""EgoExoLearn as clip data sets: miniatures of all its tables, and the official files."""

from __future__ import annotations

import ast
import collections
import functools
import hashlib
import io
import json
import tarfile

from etils import epath
import pytest

from data_prep import build_dataset
from data_prep import doctor
from data_prep.checks import official_checks
from data_prep.sources import egoexolearn_source
from sum_l_jax.data import records
from sum_l_jax.evaluation.benchmarks import egoexolearn
from sum_l_jax.evaluation.benchmarks import egomcq
from tests.support import choice_files
from tests.support import numbered_video
from tests.support import official_egoexolearn

FPS = 25


@pytest.fixture(name="place", scope="module")
def place_fixture(tmp_path_factory):
  """The miniature repository, and videos of 8 s in a folder of each view."""
  root = tmp_path_factory.mktemp("egoexolearn")
  folders = official_egoexolearn.write_repository(root / "repository")
  for video in ("exo/2c-1", "exo/bee-8", "ego/bee-3"):
    path = root / "media" / f"{video}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    numbered_video.write_video(
      path, list(range(8 * FPS)), time_base=numbered_video.Fraction(1, FPS)
    )
  return folders | {"media": root / "media"}


def _build(annotations, media, output, *options, view="exo"):
  return build_dataset.main(
    [
      "--dataset=egoexolearn",
      f"--view={view}",
      f"--annotations={annotations}",
      f"--media={media}",
      f"--output={output}",
      "--processes=1",
      *options,
    ]
  )


def _numbers(data, index):
  frames = data.read_frames(index, range(data.clips[index].num_frames))
  return [numbered_video.read(frame) for frame in frames]


def test_anticipation_tables(place, tmp_path, capsys):
  media = f"{place['media']}/ego,{place['media']}/exo"
  assert _build(place["anticipation"], media, tmp_path / "exo") == 0
  data = {s: records.ClipDataset(tmp_path / "exo", s) for s in ("train", "validation", "test")}
  train = data["train"]
  # Classes are positions in valid_verbs.txt and valid_nouns.txt.
  assert train.tasks["verb"].class_names == ("take", "cut_(chop,_slice)", "hold_(grasp)")
  assert train.tasks["noun"].class_names == ("apple", "knife", "meat_(ham,_beef)")
  assert {task.kind for task in train.tasks.values()} == {"multi_label"}
  assert [(c.clip_id, c.labels, c.narration) for c in train.clips] == [
    ("2c-1_aaaa1111", {"verb": (0, 1), "noun": (1,)}, "take, cut knife"),
    ("2c-1_aaaa2222", {"verb": (1,), "noun": ()}, "cut"),
    ("bee-8_aaaa3333", {"verb": (), "noun": (0, 1)}, "apple, knife"),
  ]
  assert _numbers(train, 1) == list(range(4 * FPS, 5 * FPS))
  assert {clip.fps for part in data.values() for clip in part.clips} == {25.0}
  assert [clip.clip_id for clip in data["validation"].clips] == ["2c-1_bbbb1111"]
  told = capsys.readouterr().err
  assert "of 6 clips 1 no verb and 2 no noun among the classes" in told
  assert "6 rows have no narration in the official table" in told


def test_the_context_of_anticipation(place, tmp_path, capsys):
  output = tmp_path / "context"
  # The folder above holds a folder of each view.
  assert _build(place["anticipation"], place["media"], output, "--span=context") == 0
  train, test = (records.ClipDataset(output, split) for split in ("train", "test"))
  assert [clip.clip_id for clip in train.clips] == ["2c-1_aaaa2222", "bee-8_aaaa3333"]
  assert _numbers(train, 0) == list(range(1 * FPS, 3 * FPS))
  assert [clip.clip_id for clip in test.clips] == ["2c-1_cccc1111"]
  assert "2 segments begin in the first 3 s" in capsys.readouterr().err


def test_whole_videos_can_be_held_out(place, tmp_path, capsys):
  assert _build(place["anticipation"], place["media"], tmp_path / "official") == 0
  assert _build(place["anticipation"], place["media"], tmp_path / "ours", "--hold_out=videos") == 0
  splits = records.read_card(tmp_path / "ours")["splits"]
  expected = collections.Counter()
  for rows in official_egoexolearn.ANTICIPATED.values():
    for row in rows:
      share = int(hashlib.sha256(row["video_id"].encode()).hexdigest(), 16) / 2**256
      expected["train" if share < 0.7 else "validation" if share < 0.8 else "test"] += 1
  assert splits == expected and len(splits) > 1
  capsys.readouterr()
  assert doctor.main([str(tmp_path / "official")]) == 0
  told = " ".join(capsys.readouterr().out.split())
  assert "clips are of videos that are in train too ('2c-1')" in told
  assert "The official splits divide segments" in told and "--hold_out=videos" in told
  assert "3 clips; the official split has 6,090 (egoexolearn)" in told
  assert doctor.main([str(tmp_path / "ours")]) == 0
  told = " ".join(capsys.readouterr().out.split())
  assert "leakage" in told and "divide segments, so" not in told
  assert "6 clips; the official tables have 12,915 (egoexolearn)" in told


@pytest.mark.parametrize(
  "options, narration",
  [
    ((), "Hold the knife,\nand cut the apple."),
    (("--narration=no_hands",), "Cut the apple with the knife."),
    (("--narration=hands",), "The right hand holds the knife."),
    (("--narration=chinese",), "用刀切苹果"),
    (("--narration=classes",), "cut, hold apple, knife"),
  ],
)
def test_narrations_of_the_association_table(place, tmp_path, options, narration):
  assert _build(place["association"], place["media"], tmp_path / "exo", *options) == 0
  data = records.ClipDataset(tmp_path / "exo", "train")
  (clip,) = data.clips
  assert clip.narration == narration
  assert clip.labels == {"verb": (17, 36), "noun": (1, 268)}
  assert [data.tasks[task].num_classes for task in ("verb", "noun")] == [125, 627]


def test_fine_annotations(place, tmp_path, capsys):
  assert _build(place["fine"], place["media"], tmp_path / "exo", "--narration=hands") == 0
  card = records.read_card(tmp_path / "exo")
  assert card["splits"] == {"train": 1, "validation": 1, "test": 1}
  assert (card["tasks"], card["unlabelled"]) == ({}, ["test"])
  assert records.ClipDataset(tmp_path / "exo", "train").clips[0].narration == "hand: Cut the apple."
  assert records.ClipDataset(tmp_path / "exo", "test").clips[0].narration == ""
  assert "1 rows have neither narrations nor labels" in capsys.readouterr().err
  assert _build(place["fine"], place["media"], tmp_path / "ego", view="ego") == 0
  assert records.read_card(tmp_path / "ego")["splits"] == {"train": 1}
  # The test table alone makes clips to embed, and nothing else.
  table = place["fine"] / "fine_annotation_test.csv"
  assert _build(table, place["media"], tmp_path / "test") == 0
  assert records.read_card(tmp_path / "test")["splits"] == {"test": 1}
  assert doctor.main([str(tmp_path / "test")]) == 0
  # With every video in one split, test segments of videos that train are left out.
  assert _build(place["fine"], place["media"], tmp_path / "ours", "--hold_out=videos") == 0
  assert sum(records.read_card(tmp_path / "ours")["splits"].values()) == 2
  assert "fine_annotation_test.csv is left out" in capsys.readouterr().err


def test_a_clip_beyond_the_end_of_its_video(place, tmp_path, capsys):
  rows = [official_egoexolearn.NARRATED, {**official_egoexolearn.NARRATED}]
  rows[1] |= {"annotation_id": "late", "start_sec": "7.0", "end_sec": "9.0"}
  table = official_egoexolearn.write(tmp_path / "exo_train.csv", rows)
  lists = f"--class_lists={place['fine']}"
  assert _build(table, place["media"], tmp_path / "exo", lists) == 2
  told = capsys.readouterr().err
  assert "clip '2c-1_late'" in told and "ends at 8.00 s, before the clip does" in told
  assert _build(table, place["media"], tmp_path / "exo", lists, "--on_error=skip") == 0
  assert records.read_card(tmp_path / "exo")["splits"] == {"train": 1}
  assert "2c-1_late" in (tmp_path / "exo/skipped.csv").read_text()


def test_what_does_not_fit_is_said(place, tmp_path, capsys):
  def refused(annotations, *options, view="exo"):
    assert _build(annotations, place["media"], tmp_path / "x", *options, view=view) == 2
    return capsys.readouterr().err

  assert "--view=exo (third person)" in _without_view(place, tmp_path, capsys)
  assert "of the view 'exo'" in refused(place["association"] / "exo_train.csv", view="ego")
  assert "holds no official table" in refused(place["association"], view="ego")
  told = refused(place["fine"], "--narration=chinese")
  assert "no column narration_ch" in told
  assert "the fine annotations have no classes" in refused(place["fine"], "--narration=classes")
  assert "--narration must be one of" in refused(place["fine"], "--narration=templates")
  told = refused(place["anticipation"], f"--class_lists={tmp_path}")
  assert "narration_verb_taxonomy.csv' is missing" in told
  table = official_egoexolearn.write(
    tmp_path / "exo_test_valid.csv", official_egoexolearn.ANTICIPATED["test"]
  )
  for task in ("verb", "noun"):
    (tmp_path / f"valid_{task}s.txt").write_text("36\n1")
  told = refused(table, f"--class_lists={place['fine']}")
  assert "verb 93 is not in valid_verbs.txt" in told


def _without_view(place, tmp_path, capsys):
  options = [f"--annotations={place['fine']}", f"--output={tmp_path / 'x'}"]
  assert build_dataset.main(["--dataset=egoexolearn", *options]) == 2
  return capsys.readouterr().err


def _archive(path, files, **info):
  with tarfile.open(path, "w:gz") as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      for key, value in info.items():
        setattr(member, key, value)
      archive.addfile(member, io.BytesIO(content))
  return path


def _step(start, stop, attribute, step_id, text="1. Cut the apple."):
  entry = {"start": start, "end": stop, "attribute": attribute, "id": step_id, "type": 0}
  return entry | {"textAttribute_en": text}


def test_coarse_steps(place, tmp_path, capsys):
  entries = [
    _step(1, 2.5, "27", "g1"),
    _step(3, 4, "", "g2"),
    _step(5.0, 5.0, "1", "g3"),
    _step(4, 5, "1", "g4", "1. Take it.\n2. Cut it."),
  ]
  files = {"l1/bee-3.json": json.dumps(entries).encode()}
  path = _archive(tmp_path / "coarse_annotations.tar.gz", files)
  assert _build(path, place["media"], tmp_path / "steps", view="ego") == 0
  data = records.ClipDataset(tmp_path / "steps", "train")
  assert [(c.clip_id, c.labels["step"], c.narration) for c in data.clips] == [
    ("bee-3_g1", (26,), "1. Cut the apple."),
    ("bee-3_g4", (0,), "1. Take it.\n2. Cut it."),
  ]
  assert _numbers(data, 1) == list(range(4 * FPS, 5 * FPS))
  assert "2 coarse steps have no class, or stop where they start" in capsys.readouterr().err
  # What the archive unpacks to is read alike.
  (tmp_path / "l1").mkdir()
  (tmp_path / "l1/bee-3.json").write_bytes(files["l1/bee-3.json"])
  found = egoexolearn_source.read_annotations(
    epath.Path(tmp_path / "l1"), view="ego", media_roots=[epath.Path(place["media"])]
  )
  assert [clip.clip_id for clip in found.clips] == ["bee-3_g1", "bee-3_g4"]
  assert _build(path, place["media"], tmp_path / "exo") == 2
  assert "Give --view=ego" in capsys.readouterr().err


@pytest.mark.parametrize(
  "files, info, reason",
  [
    ({"l1/../../a.json": b"[]"}, {}, "ordinary files"),
    ({"/l1/a.json": b"[]"}, {}, "ordinary files"),
    ({"l1/a.json": b""}, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "ordinary files"),
    ({"l1/a.json": b"[{}]"}, {}, "l1/a.json is damaged"),
    ({"l1/a.json": b"__import__('os')"}, {}, "l1/a.json is damaged"),
    ({"l1/a.json": json.dumps([_step(2, 1, "1", "x")]).encode()}, {}, "entry 1: start, end"),
    ({"l1/a.json": json.dumps([_step(1, 2, "28", "x")]).encode()}, {}, "a class from 1 to 27"),
    ({"l1/a.json": b" " * (65 << 20)}, {}, "more than 64 MiB"),
    ({}, {}, "holds no file"),
  ],
)
def test_archives_that_are_refused(tmp_path, files, info, reason):
  path = _archive(tmp_path / "a.tar.gz", files, **info)
  with pytest.raises(ValueError, match=reason):
    egoexolearn_source.read_annotations(epath.Path(path), view="ego", media_roots=[])


def test_a_damaged_archive_is_named(tmp_path):
  path = tmp_path / "a.tar.gz"
  path.write_bytes(b"no archive")
  with pytest.raises(ValueError, match=r"can't be read as a \.tar\.gz file"):
    egoexolearn_source.read_annotations(epath.Path(path), view="ego", media_roots=[])


def _read_official(path, view, monkeypatch, **options):
  """Reads official tables as if every video were there."""
  found = functools.cache(lambda video_id: epath.Path(f"{video_id}.mp4"))
  find = lambda self, video_id, where: found(video_id)
  monkeypatch.setattr(egoexolearn_source.video_finder.VideoFinder, "find", find)
  return egoexolearn_source.read_annotations(epath.Path(path), view=view, media_roots=[], **options)


@official_egoexolearn.NEEDED
@pytest.mark.parametrize("view", ["ego", "exo"])
def test_the_official_anticipation_tables(view, monkeypatch):
  folder = official_egoexolearn.ANTICIPATION
  source = _read_official(folder, view, monkeypatch)
  official = official_checks.OFFICIAL["egoexolearn"].tables
  numbers = collections.Counter(clip.split for clip in source.clips)
  for split, number in numbers.items():
    assert number == official["anticipation", view, split]
  expected = {"ego": (34_584, 7_701, 17_253), "exo": (6_090, 2_076, 4_749)}[view]
  assert [numbers[split] for split in ("train", "validation", "test")] == [*expected]
  videos = collections.defaultdict(set)
  for clip in source.clips:
    videos[clip.split].add(clip.video_id)
  counts = {"ego": (421, 420, 421), "exo": (286, 138, 197)}[view]
  assert [len(videos[split]) for split in ("train", "validation", "test")] == [*counts]
  if view == "exo":
    pairs = (("train", "validation"), ("train", "test"), ("validation", "test"))
    assert [len(videos[a] & videos[b]) for a, b in pairs] == [133, 181, 81]
  empty = {
    task: [
      sum(not c.labels[task] for c in source.clips if c.split == split)
      for split in ("train", "validation", "test")
    ]
    for task in ("verb", "noun")
  }
  assert (
    empty
    == {
      "ego": {"verb": [1_088, 159, 278], "noun": [3_172, 972, 2_022]},
      "exo": {"verb": [146, 116, 268], "noun": [209, 161, 253]},
    }[view]
  )
  words = "adjust cover cut fill hold mix move open operate pour press put remove scoop shake take"
  names = source.tasks["verb"].class_names
  assert [egoexolearn_source.class_words(n) for n in names] == [
    *words.split(),
    "throw",
    "turn",
    "wash",
  ]
  assert source.tasks["noun"].num_classes == 31
  # Labels of a split in the file's order, against the cells and the list of classes.
  rows = official_egoexolearn.read(folder / f"{view}_val_valid.csv")
  ids = [int(line) for line in (folder / "valid_nouns.txt").read_text().split()]
  clips = [clip for clip in source.clips if clip.split == "validation"]
  for clip, row in zip(clips, rows, strict=True):
    assert clip.labels["noun"] == tuple(sorted(map(ids.index, ast.literal_eval(row["noun"]))))
  if view == "ego":
    return
  ours = _read_official(folder, view, monkeypatch, hold_out="videos")
  by_video = collections.defaultdict(set)
  for clip in ours.clips:
    by_video[clip.video_id].add(clip.split)
  assert {len(splits) for splits in by_video.values()} == {1}
  counted = collections.Counter(next(iter(splits)) for splits in by_video.values())
  assert [counted[split] for split in ("train", "validation", "test")] == [212, 24, 68]


@official_egoexolearn.NEEDED
def test_the_other_official_files(monkeypatch):
  official = official_checks.OFFICIAL["egoexolearn"].tables
  folder = official_egoexolearn.ANNOTATIONS
  for view in ("ego", "exo"):
    source = _read_official(folder, view, monkeypatch)
    assert not source.clips and not source.tasks
    assert len(source.unlabelled["test"]) == official["fine", view, "test"]
  source = _read_official(official_egoexolearn.ASSOCIATION, "exo", monkeypatch)
  assert len(source.clips) == official["association", "exo", "train"] == 6_270
  assert source.tasks["noun"].class_names[1] == "apple"
  source = _read_official(folder / "coarse_annotations.tar.gz", "ego", monkeypatch)
  assert len(source.clips) == official["steps", "ego", "train"] == 6_691 - 4
  assert source.notes[0].startswith("4 coarse steps")
  assert {c.labels["step"][0] for c in source.clips} == set(range(27))


@official_egoexolearn.NEEDED
@pytest.mark.parametrize(
  "annotations, view, video, expected",
  [
    (official_egoexolearn.ANTICIPATION, "exo", "2c23b45a-56c4-11ee-88ee-80615f12b59e", "train"),
    (official_egoexolearn.ASSOCIATION, "exo", "2c23b45a-56c4-11ee-88ee-80615f12b59e", "train"),
    (official_egoexolearn.ANNOTATIONS, "ego", "bee9f31c-ac78-11ee-819f-80615f12b59e", "test"),
    (
      official_egoexolearn.ANNOTATIONS / "coarse_annotations.tar.gz",
      "ego",
      "bee96ec4-ac78-11ee-819f-80615f12b59e",
      "train",
    ),
  ],
)
def test_official_files_with_a_tiny_video(tmp_path, annotations, view, video, expected):
  """One video of 100 s, one frame a second: what lies in it is built, the rest is listed."""
  media = tmp_path / view
  media.mkdir()
  one_second = numbered_video.Fraction(1, 1)
  numbered_video.write_video(media / f"{video}.mp4", list(range(100)), time_base=one_second)
  output = tmp_path / "built"
  assert _build(annotations, media, output, "--on_error=skip", "--fps=1", view=view) == 0
  data = records.ClipDataset(output, expected)
  assert {clip.video_id for clip in data.clips} == {video}
  for index, clip in enumerate(data.clips):
    first = _numbers(data, index)[0]
    assert abs(first - clip.start_seconds) <= 1
  skipped = official_egoexolearn.read(output / "skipped.csv")
  late = [row for row in skipped if "before the clip does" in row["reason"]]
  assert late and all(row["clip_id"].startswith(f"{video}_") for row in late)


def test_clips_of_questions(place, tmp_path, capsys):
  path = choice_files.write_association(tmp_path / "association_test_hard.json")
  media = tmp_path / "media"
  media.mkdir()
  for video in ("2c-1", "2c-2", "bee-1", "bee-2"):
    source = place["media"] / "exo/2c-1.mp4"
    (media / f"{video}.mp4").symlink_to(source)
  questions = egoexolearn.read_questions(epath.Path(path))
  built = {}
  for view in ("ego", "exo"):
    assert _build(path, media, tmp_path / view, view=view) == 0
    card = records.read_card(tmp_path / view)
    assert (card["unlabelled"], card["metadata"]["table"]) == (["test"], "questions")
    built[view] = records.ClipDataset(tmp_path / view, "test")
    wanted = [span.clip_id for span in egoexolearn.spans(questions, view)]
    assert [clip.clip_id for clip in built[view].clips] == wanted
  told = capsys.readouterr().err
  # One ends at 9.5 s of 8 s; another lasts half a second, and shows one.
  assert told.count("1 of them end beyond their video, or are shorter than a second") == 2
  assert _numbers(built["exo"], 3) == list(range(7 * FPS, 8 * FPS))
  assert _numbers(built["ego"], 2) == list(range(FPS))
  assert _build(path, media, tmp_path / "x", "--hold_out=videos") == 2
  assert "Leave --narration, --hold_out and --span out" in capsys.readouterr().err


def test_clips_of_egomcq(place, tmp_path, capsys):
  path = choice_files.write_egomcq(tmp_path / "egomcq.json")
  for video in ("v1", "v2"):
    (tmp_path / f"{video}.mp4").symlink_to(place["media"] / "exo/2c-1.mp4")
  command = ["--dataset=egomcq", f"--annotations={path}", f"--output={tmp_path / 'built'}"]
  assert build_dataset.main([*command, "--processes=1"]) == 2
  assert "no video of v3 were found" in capsys.readouterr().err
  (tmp_path / "v3.mp4").symlink_to(place["media"] / "exo/2c-1.mp4")
  assert build_dataset.main([*command, "--processes=1"]) == 0
  data = records.ClipDataset(tmp_path / "built", "test")
  spans = egomcq.spans(egomcq.read_questions(epath.Path(path)))
  assert [clip.clip_id for clip in data.clips] == [span.clip_id for span in spans]
  assert (data.view, data.labelled) == ("ego", False)
  assert _numbers(data, 4) == list(range(4 * FPS, 5 * FPS))
