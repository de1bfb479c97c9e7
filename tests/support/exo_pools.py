"""Four exo pools with different labels, each built by its real builder.

LEMMA (verbs and nouns, several a clip), Charades-Ego's third-person videos
(actions, several a clip), a folder of videos by class as Kinetics comes (one
action a clip), and videos with captions and no labels at all.
"""

from __future__ import annotations

import csv
import json
import pathlib
import pickle

from data_prep import build_dataset
from data_prep import init_manifest
from tests.support import annotation_files
from tests.support import numbered_video

NAMES = ("lemma", "charades", "kinetics", "captions")
LEMMA_VERBS, LEMMA_NOUNS, CHARADES_ACTIONS, KINETICS_ACTIONS = 25, 64, 157, 3

_HOIS = ("put${m0}@object-1:{m1}@object-3:{s2}@object-0", "stand-up$", "null$")
_ACTIONS = ([13, [[1], [3], [0]]], [17, [[]]])
_CHARADES_COLUMNS = (
  "id,subject,scene,quality,relevance,verified,script,objects,"
  "descriptions,actions,length,egocentric,charades_video"
)


def _build(*options: str) -> None:
  assert build_dataset.main([*options, "--processes=1"]) == 0


def _write_lemma(folder: pathlib.Path) -> None:
  verbs = [f"verb-{i}" for i in range(LEMMA_VERBS)]
  verbs[13], verbs[17] = "put", "stand-up"
  videos = {"k1": "train", "k2": "train", "k3": "val"}
  rows = []
  for number, video in enumerate(videos):
    names = numbered_video.write_frames(folder / "frames" / video, range(9))
    for frame in names:
      hoi = number % 2
      path = f"frames/{video}/frame_{frame:010d}.jpg"
      rows.append([video, frame, "P1", [], [path], [0] * 4, [_ACTIONS[hoi]], [[0]], [hoi]])
  files = {
    "metadata/all_acts.json": verbs,
    "metadata/all_objs.json": [f"object-{i}" for i in range(LEMMA_NOUNS)],
    "metadata/all_hois.json": list(_HOIS),
    "annotations/full/rec_tpv_frames.p": rows,
    "annotations/full/rec_fpv_segments_indices.p": [
      (video, start, 4) for video in videos for start in (0, 4)
    ],
    **{
      f"annotations/splits/{kind}_{split}.json": [v for v in videos if videos[v] == split]
      for kind in ("1x1", "1x2")
      for split in ("train", "val", "test")
    },
  }
  for name, content in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
      path.write_text(json.dumps(content), encoding="utf-8")
    else:
      path.write_bytes(pickle.dumps(content, protocol=2))


def _write_charades(folder: pathlib.Path) -> None:
  folder.mkdir()
  (folder / "Charades_v1_classes.txt").write_text(
    "".join(f"c{i:03d} Doing thing {i}\n" for i in range(CHARADES_ACTIONS)), encoding="utf-8"
  )
  for split, videos in (
    ("train", {"AAAAA": "c001 0.0 0.6;c007 0.4 0.9", "BBBBB": "c002 0.5 1.0"}),
    ("test", {"CCCCC": "c001 0.1 0.4"}),
  ):
    with (folder / f"CharadesEgo_v1_{split}.csv").open("w", encoding="utf-8", newline="") as file:
      lines = csv.writer(file)
      lines.writerow(_CHARADES_COLUMNS.split(","))
      for video, actions in videos.items():
        row = [video, "S1", "Kitchen", "6", "7", "Yes", "He enters.", "cup", "He tidies up."]
        lines.writerow([*row, actions, "1.00", "No", "X"])
        written = numbered_video.write_frames(folder / "frames" / video, range(1, 25))
        for number in written:
          path = folder / "frames" / video / f"frame_{number:010d}.jpg"
          path.rename(path.with_name(f"{video}-{number:06d}.jpg"))


def _write_kinetics(folder: pathlib.Path) -> None:
  for split, count in (("train", 2), ("val", 1)):
    for action in ("juggling_balls", "washing_dishes", "cutting_onion")[:KINETICS_ACTIONS]:
      for number in range(count):
        (folder / split / action).mkdir(parents=True, exist_ok=True)
        numbered_video.write_video(
          folder / split / action / f"{split}{number}.mp4", list(range(10))
        )
  assert init_manifest.main([str(folder), "--label=action"]) == 0


def _write_captions(folder: pathlib.Path) -> None:
  folder.mkdir()
  numbered_video.write_video(folder / "v.mp4", list(range(30)))
  texts = ("a man slices an onion", "a woman opens a tap", "somebody stands up")
  annotation_files.write_rows(
    folder / "manifest.csv",
    [
      {
        "clip_id": f"caption{number}",
        "path": "v.mp4",
        "start_seconds": f"{number * 0.3:.1f}",
        "stop_seconds": f"{number * 0.3 + 0.3:.1f}",
        "narration": text,
      }
      for number, text in enumerate(texts)
    ],
  )


def build(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Builds the four pools below a folder; returns theirs by name, in order."""
  sources = {name: folder / "sources" / name for name in NAMES}
  (folder / "sources").mkdir(parents=True)
  _write_lemma(sources["lemma"])
  _write_charades(sources["charades"])
  _write_kinetics(sources["kinetics"])
  _write_captions(sources["captions"])
  options = {
    "lemma": ["--dataset=lemma", f"--annotations={sources['lemma']}"],
    "charades": [
      "--dataset=charades_ego",
      "--view=exo",
      "--examples=windows",
      "--window=0.5",
      f"--annotations={sources['charades']}",
      f"--media={sources['charades'] / 'frames'}",
    ],
    "kinetics": [
      "--dataset=manifest",
      "--view=exo",
      "--name=kinetics",
      f"--annotations={sources['kinetics'] / 'manifest.csv'}",
    ],
    "captions": [
      "--dataset=manifest",
      "--view=exo",
      "--name=captions",
      f"--annotations={sources['captions'] / 'manifest.csv'}",
      "--split=train",
    ],
  }
  for name, given in options.items():
    _build(*given, f"--output={folder / name}")
  return {name: folder / name for name in NAMES}
