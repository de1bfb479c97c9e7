"""Tiny data sets of noise clips, written in a moment."""

from __future__ import annotations

import pathlib

import numpy as np
import simplejpeg

from data_prep.clips import clip_dataset
from sum_l_jax import types

VERBS = types.Task("verb", types.SOFTMAX, ("take", "put", "cut"))
NOUNS = types.Task("noun", types.SOFTMAX, ("cup", "pan", "apple", "knife"))
SOFTMAX_TASKS = {"verb": VERBS, "noun": NOUNS}
MULTI_LABEL_TASKS = {
  name: types.Task(name, types.MULTI_LABEL, task.class_names)
  for name, task in SOFTMAX_TASKS.items()
}


def noise_clips(
  prefix: str, count: int, *, seed: int, multi_label: bool = False
) -> list[types.Clip]:
  """Clips of 6 to 20 noise frames, 48 x 64 pixels, coarse enough for JPEG."""
  rng = np.random.default_rng(seed)
  clips = []
  for number in range(count):
    verb, noun = int(rng.integers(3)), int(rng.integers(4))
    frames = []
    for _ in range(int(rng.integers(6, 21))):
      coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
      pixels = np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1))
      frames.append(simplejpeg.encode_jpeg(pixels, quality=90))
    labels = {"verb": (verb,), "noun": (noun,)}
    if multi_label:
      labels["noun"] = tuple(sorted({noun, (noun + 1) % 4}))
    clips.append(
      types.Clip(
        clip_id=f"{prefix}{number:03d}",
        frames=frames,
        fps=12.0,
        narration=f"{VERBS.class_names[verb]} {NOUNS.class_names[noun]}",
        labels=labels,
        video_id=f"{prefix}_video",
      )
    )
  return clips


def write_tiny(directory: pathlib.Path, view: str, sizes, multi_label=False):
  """Writes a data set of noise clips, sizes by split; returns its folder."""
  clip_dataset.write_clip_dataset(
    directory,
    name="tiny",
    view=view,
    tasks=MULTI_LABEL_TASKS if multi_label else SOFTMAX_TASKS,
    splits={
      split: lambda split=split, size=size, seed=seed: noise_clips(
        f"{view}_{split}_", size, seed=seed, multi_label=multi_label
      )
      for seed, (split, size) in enumerate(sizes.items(), len(view))
    },
    metadata={"seed": len(view)},
  )
  return directory
