"""Ego-Exo4D's official files in miniature: takes, annotations, numbered videos.

Frame n of a video carries the number FIRST[take name, camera] + n, so that a clip
tells which camera it is of.
"""

from __future__ import annotations

import json
import pathlib

from tests.support import numbered_video

BREW, BIKE, SALAD, HIDDEN = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abcd")
SECONDS = 4
# Cameras by take: name of the file, and whether a person wears it, as it is written.
CAMERAS = {
  "uni_brew_1": {
    "aria02": ("aria02_214-1", True),
    "cam01": ("cam01", False),
    "cam02": ("cam02", False),
    "moblie": ("moblie", False),
  },
  "uni_bike_2": {"gp01": ("gp01", "0"), "gp02": ("gp02", "0"), "gp05": ("gp05", "1")},
  "uni_salad_3": {"aria01": ("aria01_214-1", 1), "cam01": ("cam01", 0)},
  "uni_salad_4": {"aria01": ("aria01_214-1", True)},
}
FIRST = {
  (take, camera): 300 * number
  for number, (take, camera) in enumerate(
    (take, camera) for take, cameras in CAMERAS.items() for camera in cameras
  )
}
_TAKES = (
  (BREW, "uni_brew_1", "capture-1", "cam02"),
  (BIKE, "uni_bike_2", "capture-2", None),
  (SALAD, "uni_salad_3", "capture-3", "cam01"),
  (HIDDEN, "uni_salad_4", "capture-4", None),
)


def takes():
  """The entries of takes.json."""
  entries = []
  for uid, name, capture, best in _TAKES:
    videos = {"collage": {"0": {"relative_path": "ego_preview.mp4"}}}
    videos["best_exo"] = {"0": {"relative_path": None}}
    for camera, (file, _) in CAMERAS[name].items():
      stream = "rgb" if camera.startswith("aria") else "0"
      streams = {stream: {"relative_path": f"frame_aligned_videos/{file}.mp4"}}
      if stream == "rgb":
        for tracker, code in (("slam-left", "1201-1"), ("slam-right", "1201-2"), ("et", "211-1")):
          path = f"frame_aligned_videos/{camera}_{code}.mp4"
          streams = {tracker: {"relative_path": path, "cam_id": camera}, **streams}
      videos[camera] = streams
    cameras = [{"cam_id": c, "is_ego": ego} for c, (_, ego) in CAMERAS[name].items()]
    entries.append(
      {
        "root_dir": f"takes/{name}",
        "take_name": name,
        "take_uid": uid,
        "participant_uid": 7,
        "capture_uid": capture,
        "capture": {"capture_uid": capture, "cameras": cameras},
        "best_exo": best,
        "parent_task_name": "Bike Repair" if uid == BIKE else "Cooking",
        "task_start_sec": None,
        "duration_sec": float(SECONDS),
        "frame_aligned_videos": videos,
      }
    )
  return entries


def segment(start, stop, step, name, description="", step_id=3):
  return {
    "start_time": start,
    "end_time": stop,
    "step_id": step_id,
    "step_unique_id": step,
    "step_name": name,
    "step_description": description,
    "is_essential": True,
  }


VOCABULARY = {"843": "Unbox package", "502": "Check paper recipe", "492": "Brew coffee"}


def keysteps(split):
  """keystep_{split}.json."""
  steps = {
    "train": {
      BREW: [
        segment(0.5, 1.5, 492, "Brew coffee", "Pours water over the filter"),
        segment(1.5, 3.2, 502, "Check paper recipe", " "),
        segment(1.5, 3.2, 502, "Check paper recipe", "again"),
        segment(3.2, 3.8, None, "Wait", "Does nothing", step_id=10001),
      ],
      BIKE: [segment(0.0, 0.9, 843, "Unbox package", "Opens the box")],
    },
    "val": {SALAD: [segment(2.0, 4.02, 502, "Check paper recipe", "Reads the recipe")]},
  }[split]
  return {
    "annotations": {
      uid: {"take_uid": uid, "scenario": "Cooking", "segments": segments}
      for uid, segments in steps.items()
    },
    "taxonomy": {"Cooking": {"0": {"id": 0, "is_leafnode": False, "name": "Cooking"}}},
    "vocabulary": VOCABULARY,
  }


def description(
  text, time, best="cam01", *, unsure=False, visible=True, subject="C", key="subject"
):
  return {
    "text": text,
    "timestamp": time,
    key: subject,
    "ego_visible": visible,
    "best_exo": {"cam_id": best, "raw_cam_id": "1"},
    "unsure": unsure,
  }


def descriptions(split):
  """atomic_descriptions_{split}.json."""
  found = {
    "train": {
      BREW: [
        {
          "annotation_uid": "pass-1",
          "annotator_id": "1",
          "rejected": False,
          "descriptions": [
            description("C takes a cup.", 0.2),
            description("C lifts something.", 1.0, unsure="1"),
            description("C pours water.", 2.2, visible="0", key="narration_subject"),
            description("The man X walks.", 3.2, "cam02", subject="O", unsure="0"),
          ],
        },
        {
          "annotation_uid": "pass-2",
          "rejected": "1",
          "descriptions": [description("C dances.", 1.0)],
        },
      ],
      BIKE: [
        {
          "annotation_uid": "pass-3",
          "rejected": 0,
          # The camera that is worn is no third person's, and none is named else.
          "descriptions": [
            description("C opens a box.", 1.0, "gp01"),
            description("C closes a box.", 1.5, "gp05"),
          ],
        }
      ],
    },
    "val": {
      SALAD: [
        {
          "annotation_uid": "pass-4",
          "rejected": False,
          "descriptions": [description("C reads.", 3.9, "cam01")],
        }
      ]
    },
  }[split]
  return {"annotations": found}


def benchmark_segments(split):
  """The segments of the keystep benchmark: (take, uid, start, stop, step, label, cameras)."""
  return {
    "train": [
      (
        *("uni_brew_1", BREW, 0.5, 1.5, 492, 1),
        ("aria02_214-1", "cam01", "cam02"),
      ),
      ("uni_bike_2", BIKE, 0.0, 0.9, 843, 0, ("gp05", "gp01", "gp02")),
    ],
    "val": [("uni_salad_3", SALAD, 2.0, 4.02, 502, 2, ("aria01_214-1", "cam01"))],
    "test": [("uni_salad_4", HIDDEN, 1.0, 2.0, None, None, ("aria01_214-1",))],
  }[split]


def write_benchmark(folder: pathlib.Path) -> pathlib.Path:
  """Writes keystep_benchmark beside the annotations, and its clips; returns their folder."""
  labels = folder / "annotations/keystep_benchmark"
  labels.mkdir()
  clips = folder / "keystep_benchmark/clips_448p"
  (labels / "label_mapping.csv").write_text(
    "label_id,step_unique_id,step_name,scenario_name\n"
    '1,492,Brew coffee,cooking\n0,843,"Unbox package",covid\n2,502,Check paper recipe,cooking\n'
    "3,811,Unbox package,bike\n"
  )
  number = 0
  for split in ("train", "val", "test"):
    entries = []
    for take, uid, start, stop, step, label, cameras in benchmark_segments(split):
      names = [f"{split}/{take}/start{start}_end{stop}_{camera}.mp4" for camera in cameras]
      entry = {
        "segment_name_list": names,
        "ego_segment_name": names[0],
        "take_uid": uid,
        "take_name": take,
        "start_time": start,
        "end_time": stop,
      }
      if step is not None:
        entry |= {"step_unique_id": step, "label_id": label, "step_name": VOCABULARY[str(step)]}
      entries.append(entry)
      for name in names:
        (clips / name).parent.mkdir(parents=True, exist_ok=True)
        numbered_video.write_video(clips / name, list(range(6)), first=10 * number)
        number += 1
    name = "test_unannotated" if split == "test" else split
    content = {"date": "04/02/2024", "splits": split, "segments": entries}
    write_json(labels / f"keystep_segment_{name}.json", content)
  return clips


def ego2exo():
  """LaGTran's file: two classes, and the segments 11 to 15."""

  def part(rows):
    return {
      "clips": [{"id": i, "video_file_name": path, "feature_indices": [0]} for i, path, *_ in rows],
      # The lists may be in any order.
      "annotations": [
        {"segment_id": i, "category": label, "class_name": "x"} for i, _, label, *_ in rows[::-1]
      ],
      "metadata": [
        {"segment_id": i, "start_time": a, "end_time": b, "take_uid": uid, "segment_index": 0}
        for i, _, _, uid, a, b, _ in rows
      ],
      "descriptions": [{"segment_id": i, "text_caption": text} for i, *_, text in rows],
    }

  place = "frame_aligned_videos/downscaled/448"
  brew, bike, salad = (f"takes/{name}/{place}" for name in list(CAMERAS)[:3])
  return {
    "categories": [
      {"category_name": "Cook", "category_id": 1},
      {"category_name": "Clean up", "category_id": 0},
    ],
    "ego_train": part(
      [
        (11, f"{brew}/aria02_214-1.mp4", 1, BREW, 0.5, 1.5, "pours water.stirs."),
        (12, f"{bike}/gp05.mp4", 0, BIKE, 1.0, 1.5, "wipes it."),
      ]
    ),
    "exo_train": part([(13, f"{brew}/cam02.mp4", 1, BREW, 1.5, 2.5, "fills a cup.")]),
    "ego_val": part([(14, f"{salad}/aria01_214-1.mp4", 0, SALAD, 0.0, 1.0, "")]),
    "exo_val": part([(14, f"{salad}/cam01.mp4", 0, SALAD, 0.0, 1.0, "")]),
  }


SPLIT_OF = {BREW: "train", BIKE: "train", SALAD: "val", HIDDEN: "test"}


def write(folder: pathlib.Path) -> pathlib.Path:
  """Writes annotations and videos; returns the folder of the download."""
  labels = folder / "annotations"
  labels.mkdir(parents=True)
  write_json(folder / "takes.json", takes())
  write_json(labels / "splits.json", {"take_uid_to_split": SPLIT_OF, "split_to_take_uids": {}})
  for split in ("train", "val"):
    write_json(labels / f"keystep_{split}.json", keysteps(split))
    write_json(labels / f"atomic_descriptions_{split}.json", descriptions(split))
  for (take, camera), first in FIRST.items():
    place = folder / "takes" / take / "frame_aligned_videos"
    # Most of it is downloaded in the small size, and the bike in the large one.
    if take != "uni_bike_2":
      place /= "downscaled/448"
    place.mkdir(parents=True, exist_ok=True)
    name = CAMERAS[take][camera][0]
    times = list(range(30 * SECONDS))
    quick = {"preset": "ultrafast"}
    numbered_video.write_video(place / f"{name}.mp4", times, first=first, options=quick)
  # A large video of which there is a small one is not read.
  (folder / "takes/uni_brew_1/frame_aligned_videos/cam02.mp4").write_bytes(b"no video")
  return folder


def write_json(path: pathlib.Path, value) -> None:
  path.write_text(json.dumps(value), encoding="utf-8")
