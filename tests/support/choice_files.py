"""Miniatures of the question files of EgoExoLearn's association and of EgoMCQ."""

from __future__ import annotations

import json
import pathlib


def association_clip(video: str, start: float, stop: float, text: str = "") -> dict:
  """A clip of a question of `association_test_hard.json`."""
  clip = {"video_uid": video, "start_sec": start, "end_sec": stop, "annotation_id": "x"}
  return {**clip, "narration_en": text, "scenario": "kitchen"}


# Each question: types, query, choices, answer. "bee.." are ego, "2c.." exo videos.
ASSOCIATION = [
  (1, ("bee-1", 1.0, 2.5), [("2c-1", 0.0, 1.5), ("2c-2", 3.0, 5.0), ("2c-1", 4.0, 5.0)], 1),
  (1, ("bee-2", 2.0, 3.0), [("2c-2", 3.0, 5.0), ("2c-1", 0.0, 1.5), ("2c-2", 7.0, 9.5)], 2),
  (2, ("2c-1", 4.0, 5.0), [("bee-1", 1.0, 2.5), ("bee-2", 0.0, 0.5), ("bee-2", 2.0, 3.0)], 0),
]


def write_association(path: pathlib.Path, questions: list = ASSOCIATION) -> pathlib.Path:
  """Writes questions as `association_{val,test}_hard.json` has them."""
  entries = {
    str(number): {
      "answer": answer,
      "types": kind,
      "query": association_clip(*query, text="Cut the apple."),
      "choices": {str(i): association_clip(*clip) for i, clip in enumerate(choices)},
    }
    for number, (kind, query, choices, answer) in enumerate(questions)
  }
  path.write_text(json.dumps(entries))
  return path


# Each question: types, sentence, choices, answer.
EGOMCQ = [
  (1, "#C C cuts an apple", [("v1", 0.0, 1.0), ("v2", 1.0, 2.0), ("v3", 0.5, 1.5)], 2),
  (2, "#C C washes\na knife", [("v1", 0.0, 1.0), ("v1", 2.0, 3.0), ("v1", 4.0, 5.0)], 0),
  # The file's number says inter, and all choices are of one video.
  (1, "#C C opens a door", [("v2", 1.0, 2.0), ("v2", 3.0, 4.0), ("v2", 5.0, 6.0)], 1),
]


def write_egomcq(path: pathlib.Path, questions: list = EGOMCQ) -> pathlib.Path:
  """Writes questions as `egomcq.json` has them."""

  def clip(video: str, start: float, stop: float, text: str = "") -> dict:
    span = {"video_uid": video, "clip_start": start, "clip_end": stop}
    return {**span, "clip_text": text, "tag_noun": [1], "tag_verb": [2]}

  entries = {
    str(number): {
      "query": clip(*choices[answer], text=sentence),
      "choices": {str(i): clip(*own) for i, own in enumerate(choices)},
      "answer": answer,
      "types": kind,
    }
    for number, (kind, sentence, choices, answer) in enumerate(questions)
  }
  path.write_text(json.dumps(entries))
  return path
