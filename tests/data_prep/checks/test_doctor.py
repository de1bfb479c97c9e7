"""The doctor: data sets damaged on purpose, and what is said of each."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import simplejpeg

from data_prep import doctor
from data_prep.mining import pseudo_pairs
from sum_l_jax import types
from sum_l_jax.data import clip_selection
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.data.finding import Finding
from sum_l_jax.system import storage
from tests.support import damaged_sets
from tests.support import tiny_data

# What was written, and what is there.


def _resize(folder, *, quality):
  """The clips of a data set, encoded anew."""
  data = records.ClipDataset(folder, "train")
  clips = []
  for index, info in enumerate(data.clips):
    frames = [
      simplejpeg.encode_jpeg(simplejpeg.decode_jpeg(frame), quality=quality)
      for frame in data.read_frames(index, range(info.num_frames))
    ]
    fields = ("clip_id", "fps", "narration", "labels", "video_id", "start_seconds")
    clips.append(types.Clip(frames=frames, **{f: getattr(info, f) for f in fields}))
  return clips


def test_verify_finds_frames_of_another_build(examine, ego, tmp_path):
  status, text, _ = examine(ego, "--verify")
  assert status == 0
  assert "content (all frames of 17 clips are those that were written)" in text
  other = damaged_sets.write(tmp_path / "other", {"train": _resize(ego, quality=50)})
  (shard,), (better,) = (list(f.glob("*-train.array_record*")) for f in (ego, other))
  shutil.copy(better, shard)
  # One other check sees it, by the size: names, order and numbers are the same.
  _, _, found = examine(ego)
  assert {f["check"] for f in found if f["severity"] == "error"} == {"shards"}
  status, _, found = examine(ego, "--verify")
  assert status == 1
  damaged_sets.only(found, "content", "train", "error", 17)


def test_fingerprints_cover_pixels_and_annotations(ego, tmp_path):
  """Independent of the place; of the annotations alone where pairs need no more."""
  train = records.ClipDataset(ego, "train")
  moved = records.ClipDataset(shutil.copytree(ego, tmp_path / "else"), "train")
  assert moved.fingerprint == train.fingerprint
  pixels = damaged_sets.write(tmp_path / "pixels", {"train": _resize(ego, quality=50)})
  same = damaged_sets.write(tmp_path / "same", {"train": _resize(ego, quality=50)})
  pixels, same = (records.ClipDataset(folder, "train") for folder in (pixels, same))
  assert pixels.fingerprint == same.fingerprint != train.fingerprint
  assert pixels.annotation_fingerprint == train.annotation_fingerprint
  # A part has the fingerprint of its own clips.
  first = clip_selection.subset(train, np.arange(3))
  again = clip_selection.subset(clip_selection.subset(train, np.arange(5)), np.arange(3))
  other = clip_selection.subset(pixels, np.arange(3))
  assert first.fingerprint == again.fingerprint != other.fingerprint
  assert len({d.annotation_fingerprint for d in (first, other, train)}) == 2
  for field, value in (
    ("narration", "put the cup"),
    ("clip_id", "x"),
    ("labels", {"verb": [2], "noun": [3]}),
  ):
    folder = shutil.copytree(ego, tmp_path / field)
    damaged_sets.edit_clip(folder, 0, **{field: value})
    changed = records.ClipDataset(folder, "train")
    assert changed.fingerprint != train.fingerprint, field
    assert changed.annotation_fingerprint != train.annotation_fingerprint, field
  folder = shutil.copytree(ego, tmp_path / "classes")
  damaged_sets.edit_card(folder, lambda card: card["tasks"]["verb"]["class_names"].reverse())
  changed = records.ClipDataset(folder, "train")
  assert changed.fingerprint != train.fingerprint
  assert changed.annotation_fingerprint != train.annotation_fingerprint
  # Another rate counts as other clips, and needs no new pairs.
  folder = shutil.copytree(ego, tmp_path / "rate")
  damaged_sets.edit_clip(folder, 0, fps=24.0)
  changed = records.ClipDataset(folder, "train")
  assert changed.fingerprint != train.fingerprint
  assert changed.annotation_fingerprint == train.annotation_fingerprint


# Sound data.


def test_sound_data_sets(examine, tiny_ego, tiny_exo, tiny_tables):
  status, text, found = examine(
    tiny_ego,
    tiny_exo,
    "--deep",
    f"--narrations={tiny_tables / 'narrations.npz'}",
    f"--pairs={tiny_tables / 'pairs.npz'}",
  )
  assert status == 0
  assert [f for f in found if f["severity"] == "error"] == []
  assert "0 error(s)" in text
  assert (
    "ok train: number, order, records, shards, labels, narrations, ids,"
    " vectors, frames (both ends of 17 decoded)"
  ) in text
  assert str(tiny_tables / "pairs.npz") in text


def test_only_some_clips_are_decoded_without_deep(examine, tiny_ego):
  status, text, _ = examine(tiny_ego)
  assert status == 0 and "frames (first frame of 1 decoded)" in text


# The index.


def test_no_data_set_there(examine, tmp_path):
  (tmp_path / "empty").mkdir()
  status, text, found = examine(tmp_path / "empty")
  assert status == 1 and "1 error(s)" in text
  finding = damaged_sets.only(found, "readable", "", "error", 1)
  assert "card.json is missing" in finding["message"]
  assert finding["message"].endswith("Copy what is missing, or build the data set again.")
  assert finding["dataset"] == str(tmp_path / "empty")


@pytest.mark.parametrize(
  "fields, words",
  [
    ({"num_frames": "9"}, "line 3 is damaged"),
    ({"num_frames": 0}, "line 3 is damaged"),
    ({"fps": None}, "line 3 is damaged"),
    ({"labels": {"verb": ["cut"], "noun": [0]}}, "line 3 is damaged"),
    ({"labels": {"verb": [-1], "noun": [0]}}, "line 3 is damaged"),
    ({"labels": 3}, "line 3 is damaged"),
  ],
  ids=str,
)
def test_unreadable_split(examine, ego, fields, words):
  damaged_sets.edit_clip(ego, 2, **fields)
  status, _, found = examine(ego)
  assert status == 1
  finding = damaged_sets.only(found, "readable", "train", "error", 1)
  assert words in finding["message"] and "clips_train" in finding["message"]
  assert "build the data set again" in finding["message"]
  assert not [f for f in found if f["split"] == "val"]


@pytest.mark.parametrize(
  "key, value", [("metadata", 3), ("tasks", {"verb": {}}), ("splits", {}), ("name", None)]
)
def test_damaged_card(examine, ego, key, value):
  def change(card):
    card[key] = value
    if value is None:
      del card[key]

  damaged_sets.edit_card(ego, change)
  status, _, found = examine(ego)
  assert status == 1
  assert {f["check"] for f in found} == {"readable"}
  assert "build the data set again" in found[0]["message"]


def test_classes_without_names(examine, ego):
  def change(card):
    card["metadata"].update(source="epic100")
    card["tasks"]["verb"]["class_names"] = [f"class_{i}" for i in range(97)]
    card["tasks"]["noun"]["class_names"] = [f"noun {i}" for i in range(300)]

  damaged_sets.edit_card(ego, change)
  _, _, found = examine(ego)
  assert (
    "The verb classes have no names"
    in damaged_sets.only(found, "class lists", "", "warning", 1)["message"]
  )


def test_class_names_that_look_like_mistakes(examine, ego):
  damaged_sets.edit_card(
    ego, lambda card: card["tasks"]["verb"].update(class_names=["cut", "Cut", "[cut, put]"])
  )
  _, _, found = examine(ego)
  texts = [f["message"] for f in found if f["check"] == "class names"]
  assert len(texts) == 2
  assert "'[cut, put]'" in texts[0] and "'cut' and 'Cut'" in texts[1]


def test_one_class_only(examine, ego):
  same = lambda clips: [c | {"labels": {"verb": [1], "noun": c["labels"]["noun"]}} for c in clips]
  damaged_sets.edit_lines(ego, same, "val")
  _, _, found = examine(ego)
  assert [f for f in found if f["check"] == "variety"] == []
  damaged_sets.edit_lines(ego, same)
  status, _, found = examine(ego)
  assert status == 0
  finding = damaged_sets.only(found, "variety", "train", "warning", 1)
  assert "All 17 clips have the same verb: 'put'" in finding["message"]


def test_unequal_frame_rates(examine, ego, tiny_exo, tmp_path):
  damaged_sets.edit_clip(ego, 3, fps=24.0)
  _, _, found = examine(ego)
  finding = damaged_sets.only(found, "rates", "", "warning", 1)
  assert "12 (21 clips) and 24 (1 clip)" in finding["message"] and "--fps=12" in finding["message"]
  # Pools of one view train together; ego and exo may differ.
  pools = [shutil.copytree(tiny_exo, tmp_path / name) for name in ("a", "b")]
  damaged_sets.edit_lines(pools[1], lambda clips: [clip | {"fps": 30.0} for clip in clips])
  _, _, found = examine(*pools)
  finding = damaged_sets.only(found, "rates", "", "warning", 1)
  assert finding["dataset"] == f"{pools[0]}, {pools[1]}"
  damaged_sets.edit_clip(ego, 3, fps=12.0)
  _, _, found = examine(ego, pools[1])
  assert [f for f in found if f["check"] == "rates"] == []


@pytest.mark.parametrize("value", [3, "x", [[1]], {"a": 1}, {}, [], None])
def test_metadata_of_strangers(examine, ego, value):
  """A card may hold any JSON there: the checks that read it go on."""
  names = ("dropped_actions", "videos_without_length", "official_rates", "annotations", "split")
  damaged_sets.edit_card(
    ego, lambda card: card["metadata"].update(dict.fromkeys(names, value), source="epic100")
  )
  (ego / "skipped.csv").write_bytes(b'clip_id,where,reason\n"' + b"x" * 200_000)
  damaged_sets.edit_card(ego, lambda card: card.update(tasks={"action": card["tasks"]["verb"]}))
  for split in ("train", "val"):
    damaged_sets.edit_lines(
      ego, lambda clips: [c | {"labels": {"action": c["labels"]["verb"]}} for c in clips], split
    )
  status, _, found = examine(ego)
  assert status == 0
  assert (
    "skipped.csv can't be read" in damaged_sets.only(found, "skipped", "", "warning", 1)["message"]
  )


def test_pools_that_write_a_class_differently(examine, tiny_exo, tmp_path):
  pools = [shutil.copytree(tiny_exo, tmp_path / name) for name in ("a", "b")]
  _, _, found = examine(*pools)
  assert [f for f in found if f["check"] == "class names"] == []
  damaged_sets.edit_card(
    pools[1], lambda card: card["tasks"]["verb"].update(class_names=["take", "Put", "saw"])
  )
  _, _, found = examine(*pools)
  finding = damaged_sets.only(found, "class names", "", "warning", 1)
  assert "'put' and 'Put'" in finding["message"]
  assert finding["dataset"] == f"{pools[0]}, {pools[1]}"


def test_order_of_the_index(examine, ego):
  def swap(clips):
    clips[3], clips[4] = clips[4], clips[3]
    return clips

  damaged_sets.edit_lines(ego, swap)
  status, _, found = examine(ego)
  assert status == 1
  # Both, and the clip after them.
  finding = damaged_sets.only(found, "order", "train", "error", 3)
  assert "ego_train_004" in finding["clips"]
  assert "don't start where" in finding["message"]


def test_records_the_shards_lack(examine, ego):
  # 17 clips of fewer than 64 frames have a record each; now one has two.
  damaged_sets.edit_clip(ego, 16, num_frames=70)
  status, _, found = examine(ego)
  assert status == 1
  finding = damaged_sets.only(found, "records", "train", "error", 1)
  assert "hold 17 records" in finding["message"]
  assert "promises 18" in finding["message"]


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "info"])
def test_damaged_shards(examine, ego, damage):
  (shard,) = ego.glob("*-train.array_record*")
  if damage == "missing":
    shard.unlink()
  elif damage == "info":
    (ego / "dataset_info.json").write_text("{")
  else:
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
  status, _, found = examine(ego)
  assert status == 1
  assert damaged_sets.only(found, "records", "train", "error", 1)["message"].startswith(
    "The shards can't be opened"
  )
  # Other readers need that file, training doesn't.
  if damage != "info":
    damaged_sets.only(found, "frames", "train", "error", 1)
  assert ("shards" in {f["check"] for f in found}) == (damage in ("cut", "empty"))


def test_a_bucket_is_examined(examine, ego, tiny_tables, bucket):
  """Shards by the checksums that the bucket keeps, also where sizes agree."""
  storage.upload_folder(ego, bucket / "ego", last="card.json")
  storage.upload(tiny_tables / "narrations.npz", bucket / "narrations.npz")
  status, text, _ = examine(bucket / "ego", f"--narrations={bucket / 'narrations.npz'}")
  assert status == 0, text
  (shard,) = ego.glob("*-val.array_record*")
  data = bytearray(shard.read_bytes())
  data[-1] ^= 1  # Behind all records.
  storage.write_bytes(bucket / "ego" / shard.name, bytes(data))
  status, _, found = examine(bucket / "ego")
  assert status == 1
  assert shard.name in damaged_sets.only(found, "shards", "val", "error", 1)["message"]


def test_labels(examine, ego):
  damaged_sets.edit_clip(ego, 1, labels={"verb": [3], "noun": [0]})
  damaged_sets.edit_clip(ego, 2, labels={"verb": [0], "noun": [1, 2]})
  damaged_sets.edit_clip(ego, 3, labels={"verb": [0], "noun": [0], "tool": [0]})
  status, _, found = examine(ego)
  assert status == 1
  outside, several, unknown = [f for f in found if f["check"] == "labels"]
  assert {f["severity"] for f in (outside, several, unknown)} == {"error"}
  assert outside["clips"] == ["ego_train_001"]
  assert "verb label outside 0 to 2" in outside["message"]
  assert several["clips"] == ["ego_train_002"]
  assert "--multi_label=noun" in several["message"]
  assert unknown["clips"] == ["ego_train_003"]


def test_clips_without_a_label_are_a_warning(examine, ego):
  damaged_sets.edit_clip(ego, 1, labels={"verb": [], "noun": [0]})
  status, _, found = examine(ego)
  assert status == 0
  finding = damaged_sets.only(found, "labels", "train", "warning", 1)
  assert finding["clips"] == ["ego_train_001"]
  assert "1 of 17 clips have no verb label" in finding["message"]


def test_narrations_that_are_alike(examine, ego):
  damaged_sets.edit_lines(ego, lambda clips: [c | {"narration": "a clip"} for c in clips])
  status, _, found = examine(ego)
  assert status == 0
  finding = damaged_sets.only(found, "narrations differ", "train", "warning", 17)
  assert "All 17 narrations are 'a clip'" in finding["message"]


def test_multi_label_tasks_may_have_none_or_several(examine, tiny_exo_multi_label, tmp_path):
  folder = shutil.copytree(tiny_exo_multi_label, tmp_path / "exo")
  damaged_sets.edit_clip(folder, 0, labels={"verb": [], "noun": [0, 1, 2]})
  status, _, found = examine(folder)
  assert status == 0 and found == []


def test_empty_narration(examine, ego):
  damaged_sets.edit_clip(ego, 5, narration=" ")
  status, _, found = examine(ego)
  assert status == 1
  finding = damaged_sets.only(found, "narrations", "train", "error", 1)
  assert finding["clips"] == ["ego_train_005"]


def test_short_clips(examine, tiny_ego):
  clips = records.ClipDataset(tiny_ego, "train").clips
  short = [clip.clip_id for clip in clips if clip.num_frames < 10]
  assert 0 < len(short) < 17
  status, _, found = examine(tiny_ego, "--frames=10")
  assert status == 0
  finding = damaged_sets.only(found, "length", "train", "warning", len(short))
  assert finding["clips"] == short
  _, _, found = examine(tiny_ego)
  assert not [f for f in found if f["check"] == "length"]


def test_classes_that_never_train(examine, ego):
  damaged_sets.edit_lines(
    ego, lambda clips: [clip | {"labels": clip["labels"] | {"noun": [0]}} for clip in clips]
  )
  val = records.ClipDataset(ego, "val").clips
  unseen = {clip.labels["noun"][0] for clip in val} - {0}
  assert unseen
  status, _, found = examine(ego)
  assert status == 0
  finding = damaged_sets.only(found, "classes", "val", "warning", len(unseen))
  assert finding["clips"] == [clip.clip_id for clip in val if clip.labels["noun"][0] != 0]
  assert repr(tiny_data.NOUNS.class_names[min(unseen)]) in finding["message"]


def test_duplicate_ids(examine, ego):
  damaged_sets.edit_clip(ego, 4, clip_id="ego_train_003")
  damaged_sets.edit_clip(ego, 0, split="val", clip_id="ego_train_009")
  status, _, found = examine(ego)
  assert status == 1
  within = damaged_sets.only(found, "ids", "train", "error", 1)
  assert within["clips"] == ["ego_train_003"]
  across = damaged_sets.only(found, "ids", "val", "error", 1)
  assert across["clips"] == ["ego_train_009"]
  assert "are in train too" in across["message"]


def test_the_same_video_in_two_splits(examine, tmp_path):
  clips = {
    split: [
      dataclasses.replace(clip, video_id=video, start_seconds=float(start))
      for clip, video, start in zip(tiny_data.noise_clips(split, 3, seed=1), videos, starts)
    ]
    for split, videos, starts in (
      ("val", ("P01_01", "P02_01", ""), (0, 5, 0)),
      ("test", ("P04_01", "P02_01", ""), (0, 9, 0)),
      ("train", ("P01_01", "P03_01", ""), (0, 0, 0)),
    )
  }
  status, _, found = examine(damaged_sets.write(tmp_path / "d", clips))
  assert status == 1
  videos = damaged_sets.only(found, "leakage", "val", "error", 1)
  assert "'P01_01'" in videos["message"] and videos["clips"] == ["val000"]
  # The same start and, by the seed, the same length.
  assert damaged_sets.only(found, "spans", "val", "error", 1)["clips"] == ["val000"]
  # Two splits that don't train: a warning, and other stretches of the video.
  other = damaged_sets.only(found, "leakage", "test", "warning", 1)
  assert "'P02_01'" in other["message"] and "in val too" in other["message"]
  assert [f["check"] for f in found].count("spans") == 1


# Frames.


def damage_frame(clip, position, data=None):
  frames = list(clip.frames)
  cut = frames[position][: len(frames[position]) // 2]
  frames[position] = cut if data is None else data
  return dataclasses.replace(clip, frames=frames)


def test_undecodable_clips_are_listed_and_skipped(examine, tmp_path):
  clips = tiny_data.noise_clips("c", 60, seed=1)
  for number, position in ((7, 0), (50, 0), (58, -1)):
    clips[number] = damage_frame(clips[number], position)
  folder = damaged_sets.write(tmp_path / "d", {"train": clips})
  skip_list = tmp_path / "lists" / "skip.txt"
  status, text, found = examine(folder, f"--skip_list={skip_list}")
  assert status == 1 and "complete only with --deep" in text
  assert damaged_sets.only(found, "frames", "train", "error", 1)["clips"] == ["c050"]
  status, text, found = examine(folder, "--deep", f"--skip_list={skip_list}")
  assert status == 1 and "skip.txt: 3 clips" in text
  assert "complete only" not in text
  finding = damaged_sets.only(found, "frames", "train", "error", 3)
  assert "3 of 60 clips tried" in finding["message"]
  assert "config.ego.skip_list" in finding["message"]
  assert skip_list.read_text() == "c007\nc050\nc058\n"


def test_frame_size_that_changes(examine, tmp_path):
  clips = tiny_data.noise_clips("c", 3, seed=1)
  other = simplejpeg.encode_jpeg(np.zeros((32, 64, 3), np.uint8))
  clips[1] = damage_frame(clips[1], -1, other)
  folder = damaged_sets.write(tmp_path / "d", {"train": clips})
  status, _, found = examine(folder, "--deep")
  assert status == 1
  assert damaged_sets.only(found, "frame size", "train", "error", 1)["clips"] == ["c001"]
  assert [f["check"] for f in found] == ["frame size"]


def test_long_lists_are_cut_in_the_report_alone(tmp_path):
  ids = tuple(f"c{i}" for i in range(1500))
  found = Finding.error("frames", "m", ids)
  (entry,) = doctor.as_json([found])
  assert entry["clips"] == list(ids[:1000]) and entry["count"] == 1500
  assert doctor.skipped_clips([found]) == list(ids)


# Tables.


def test_narrations_without_vector(examine, ego, tiny_tables):
  for number in range(4):
    damaged_sets.edit_clip(ego, number, narration=f"Fold  towel {number}")
  table = tiny_tables / "narrations.npz"
  status, _text, found = examine(ego, f"--narrations={table}")
  assert status == 1
  finding = damaged_sets.only(found, "vectors", "train", "error", 4)
  assert len(finding["clips"]) == 4
  assert "'fold towel 0', 'fold towel 1', 'fold towel 2' and 1 more" in (finding["message"])
  assert "data_prep.embed_narrations" in finding["message"]


@pytest.mark.parametrize("row, severity", [(np.nan, "error"), (0.0, "error"), (0.4, "warning")])
def test_vectors_that_are_not_unit(examine, tiny_ego, tmp_path, row, severity):
  clips = records.ClipDataset(tiny_ego, "train").clips
  clips += records.ClipDataset(tiny_ego, "val").clips
  texts = sorted({clip.narration for clip in clips})
  vectors = np.full((len(texts), 16), 0.25, np.float16)
  vectors[1] = row
  path = tmp_path / "n.npz"
  np.savez(path, narrations=texts, vectors=vectors, model="m", command="")
  status, _, found = examine(tiny_ego, f"--narrations={path}")
  assert status == (severity == "error")
  finding = damaged_sets.only(found, "vectors", "", severity, 1)
  assert repr(texts[1]) in finding["message"]
  assert finding["dataset"] == str(path)


def test_long_narrations_with_one_vector(examine, tiny_ego, tmp_path):
  """What a sentence model makes of texts that differ beyond what it reads."""
  clips = records.ClipDataset(tiny_ego, "train").clips
  clips += records.ClipDataset(tiny_ego, "val").clips
  texts = sorted({clip.narration for clip in clips})
  long = [f"{'open the door and ' * 10}{end}" for end in ("leave", "sing", "dance")]
  rng = np.random.default_rng(0)
  vectors = rng.standard_normal((len(texts) + 3, 16))
  # The second of the long ones as the first, but for rounding; also two short ones.
  vectors[-2] = vectors[-3] + 1e-7
  vectors[1] = vectors[0]
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  path = tmp_path / "n.npz"
  np.savez(path, narrations=[*texts, *long], vectors=vectors, model="m", command="")
  status, _, found = examine(tiny_ego, f"--narrations={path}")
  assert status == 0
  finding = damaged_sets.only(found, "cut texts", "", "warning", 1)
  assert "open the door and sing'" in finding["message"] and "leave" not in finding["message"]


def test_damaged_table(examine, tiny_ego, tmp_path):
  path = tmp_path / "n.npz"
  path.write_bytes(b"PK")
  status, _, found = examine(tiny_ego, f"--narrations={path}")
  assert status == 1
  assert "can't be read" in damaged_sets.only(found, "readable", "", "error", 1)["message"]


def table_options(folder):
  return (f"--narrations={folder / 'narrations.npz'}", f"--pairs={folder / 'pairs.npz'}")


def test_pairs_of_other_data(examine, ego, tiny_exo, tiny_tables):
  damaged_sets.edit_clip(ego, 3, clip_id="another")
  status, _, found = examine(ego, tiny_exo, *table_options(tiny_tables))
  assert status == 1
  finding = damaged_sets.only(found, "belongs", "", "error", 1)
  assert "the ego data set" in finding["message"]
  assert "data_prep.mine_pairs" in finding["message"]
  assert finding["dataset"] == str(tiny_tables / "pairs.npz")


def test_pairs_that_point_nowhere(examine, tiny_ego, tiny_exo, tiny_tables, tmp_path):
  shutil.copytree(tiny_tables, tmp_path / "tables")
  pairs = pairing.PairTable.load(tiny_tables / "pairs.npz")
  index = pairs.clip_index.copy()
  index[[0, 2]] = 11, 12  # There are 11 clips.
  dataclasses.replace(pairs, clip_index=index).save(tmp_path / "tables" / "pairs.npz")
  status, _, found = examine(tiny_ego, tiny_exo, *table_options(tmp_path / "tables"))
  assert status == 1
  message = damaged_sets.only(found, "belongs", "", "error", 1)["message"]
  assert "has 11 clips, and the table names clip 12" in message


@pytest.mark.parametrize("cosine, warned", [(0.5, True), (0.51, False)])
def test_share_of_good_pairs(examine, tiny_ego, tiny_exo, tiny_tables, tmp_path, cosine, warned):
  shutil.copytree(tiny_tables, tmp_path / "tables")
  pairs = pairing.PairTable.load(tiny_tables / "pairs.npz")
  similarity = np.full_like(pairs.similarity, cosine)
  dataclasses.replace(pairs, similarity=similarity).save(tmp_path / "tables" / "pairs.npz")
  status, text, found = examine(tiny_ego, tiny_exo, *table_options(tmp_path / "tables"))
  assert status == 0
  share = "None of 17 pairs has" if warned else "100.0% of 17 pairs have"
  assert f"{share} a cosine above 0.5" in text
  assert [f["check"] for f in found if f["check"] == "share"] == (["share"] * warned)
  if warned:
    damaged_sets.only(found, "share", "", "warning", 17)


def test_pairs_and_a_data_set_that_cannot_be_read(examine, ego, tiny_exo, tiny_tables):
  (ego / records.CARD_FILE).write_text("{")
  status, _, found = examine(ego, tiny_exo, *table_options(tiny_tables))
  assert status == 1
  assert "Not checked" in damaged_sets.only(found, "belongs", "", "error", 1)["message"]


def test_pairs_of_a_split_that_is_not_train(examine, tiny_ego, tiny_exo, tiny_narrations, tmp_path):
  ego = records.ClipDataset(tiny_ego, "val")
  exo = records.ClipDataset(tiny_exo, "train")
  pairs = pseudo_pairs.mine(ego, [exo], tiny_narrations)
  pairs.save(tmp_path / "pairs.npz")
  tiny_narrations.save(tmp_path / "narrations.npz")
  status, text, _ = examine(tiny_ego, tiny_exo, *table_options(tmp_path))
  assert status == 0 and "of 5 pairs have a cosine" in text


# Wrong usage.


def test_wrong_usage(examine, tiny_ego, tiny_exo, tiny_tables, tmp_path):
  tables = table_options(tiny_tables)
  for options, words in (
    ([tmp_path / "nowhere"], "no folder"),
    ([tiny_ego, tiny_ego], "given twice"),
    ([tiny_ego, "--frames=-1"], "--frames must be 0 or more, got -1"),
    ([tiny_ego, f"--narrations={tmp_path / 'n'}"], "--narrations: there is"),
    ([tiny_ego, tiny_exo, tables[1]], "--pairs needs --narrations"),
    ([tiny_ego, *tables], "at least one of view exo"),
    ([tiny_exo, *tables], "exactly one data set of view ego"),
  ):
    status, text, found = examine(*options)
    assert status == 2 and found is None
    assert text.startswith("error: ") and words in text
  with pytest.raises(SystemExit) as caught:
    doctor.main([])
  assert caught.value.code == 2


def test_float16_rounding_is_no_finding(examine, tiny_ego, tiny_narrations, tmp_path):
  path = tmp_path / "n.npz"
  np.savez(
    path,
    narrations=tiny_narrations.narrations,
    model="m",
    command="",
    vectors=tiny_narrations.vectors.astype(np.float16),
  )
  assert len(narration_table.NarrationTable.load(path)) > 1
  status, _, found = examine(tiny_ego, f"--narrations={path}")
  assert status == 0
  assert not [f for f in found if f["check"] == "vectors"]
