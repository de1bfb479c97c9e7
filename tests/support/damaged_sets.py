"""Built data sets that a test damages, and the doctor's findings."""

from __future__ import annotations

import json

from data_prep.clips import clip_dataset
from sum_l_jax.data import records
from tests.support import tiny_data


def edit_lines(folder, change, split="train"):
  """Applies a function to the index: list of dicts to list of dicts."""
  path = folder / records.clips_file(split)
  clips = [json.loads(line) for line in path.read_text().splitlines()]
  clips = change(clips)
  path.write_text("".join(json.dumps(clip) + "\n" for clip in clips))
  edit_card(folder, lambda card: card["splits"].update({split: len(clips)}))


def edit_clip(folder, number, split="train", **fields):
  def change(clips):
    clips[number].update(fields)
    return clips

  edit_lines(folder, change, split)


def edit_card(folder, change):
  path = folder / records.CARD_FILE
  card = json.loads(path.read_text())
  change(card)
  path.write_text(json.dumps(card))


def write(folder, clips):
  """An ego data set of softmax tasks from lists of clips by split."""
  clip_dataset.write_clip_dataset(
    folder,
    name="d",
    view="ego",
    tasks=tiny_data.SOFTMAX_TASKS,
    splits={s: lambda c=c: c for s, c in clips.items()},
  )
  return folder


def only(found, check, split, severity, count):
  """The one finding of a check and split, after a look at its fields."""
  (finding,) = [f for f in found if (f["check"], f["split"]) == (check, split)]
  assert set(finding) == {"dataset", "split", "check", "severity", "count", "message", "clips"}
  assert (finding["severity"], finding["count"]) == (severity, count)
  return finding
