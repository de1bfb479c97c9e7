"""Makes the clips of toy_kitchen from a seed: labels, narration and frames.

Clip i of a split is a pure function of (seed, view, split, i): its content
does not depend on how many clips are made, in which order, or by how many
processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import functools
import multiprocessing

import numpy as np
import simplejpeg

from data_prep.toy_kitchen import ego
from data_prep.toy_kitchen import exo
from data_prep.toy_kitchen import generic
from data_prep.toy_kitchen import motions
from data_prep.toy_kitchen import narrations
from data_prep.toy_kitchen import vocabulary
from sum_l_jax import types

NUM_FRAMES = 16
FPS = 16.0
JPEG_QUALITY = 90

_SPLITS = ("train", "validation", "test")
# The streams of random numbers of one clip. They are separate, so that a change
# to a renderer leaves labels and texts as they are.
_LABELS, _TEXT, _MOTION, _LOOKS = range(4)
_CHUNK = 32  # Clips that a worker process renders at a time.


def _stream(seed: int, view: str, split: str, index: int, stream: int) -> np.random.Generator:
  view_id, split_id = vocabulary.VIEWS.index(view), _SPLITS.index(split)
  return np.random.default_rng([seed, view_id, split_id, index, stream])


def _pick(
  choices: tuple[vocabulary.Combination, ...], rng: np.random.Generator
) -> vocabulary.Combination:
  weights = np.array([vocabulary.verb_weight(verb) for verb, _ in choices])
  return choices[rng.choice(len(choices), p=weights / weights.sum())]


def clip_labels(seed: int, view: str, split: str, index: int) -> dict[str, int]:
  """Draws the class id of each task of one clip.

  The first clips of a training split go once through all combinations, so that
  none is missing from a small set. Three of four ego validation and test clips
  show a combination of ego training, and every fourth a held-out one.
  """
  vocabulary.check_split(view, split)
  rng = _stream(seed, view, split, index, _LABELS)
  if view == vocabulary.GENERIC:
    return {
      name: int(rng.integers(task.num_classes)) for name, task in vocabulary.tasks(view).items()
    }
  seen = vocabulary.combinations(view, "train")
  if split == "train" and index < len(seen):
    verb, noun = seen[index]
  elif view == types.EGO and split != "train" and index % 4 == 3:
    verb, noun = _pick(vocabulary.HELD_OUT, rng)
  else:
    verb, noun = _pick(seen, rng)
  return {"verb": verb, "noun": noun}


def render_frames(seed: int, view: str, split: str, index: int) -> np.ndarray:
  """Draws the frames of one clip, uint8 `[T, 64, 64, 3]` RGB."""
  labels = clip_labels(seed, view, split, index)
  rng = _stream(seed, view, split, index, _LOOKS)
  if view == vocabulary.GENERIC:
    return generic.render(labels, NUM_FRAMES, rng)
  motion_rng = _stream(seed, view, split, index, _MOTION)
  verb = vocabulary.VERBS[labels["verb"]]
  motion = motions.program(verb, motion_rng, NUM_FRAMES)
  motion = motions.tremble(motion, motion_rng)
  renderer = ego if view == types.EGO else exo
  return renderer.render(motion, labels["noun"], rng)


def make_clip(seed: int, view: str, split: str, index: int) -> types.Clip:
  """Makes one clip of a split.

  Args:
    seed: seed of the world; other seeds give other clips.
    view: "ego", "exo" or "generic".
    split: "train", "validation" or, ego only, "test".
    index: position in the split, from 0.

  Raises:
    ValueError: the view or the split is unknown.
  """
  labels = clip_labels(seed, view, split, index)
  clip_id = f"{view}_{split}_{index:05d}"
  text_rng = _stream(seed, view, split, index, _TEXT)
  return types.Clip(
    clip_id=clip_id,
    frames=[
      # 4:4:4: at 64 pixels halved chroma would blur the nouns away.
      simplejpeg.encode_jpeg(frame, JPEG_QUALITY, "RGB", colorsubsampling="444")
      for frame in render_frames(seed, view, split, index)
    ],
    fps=FPS,
    narration=narrations.narrate(view, labels, text_rng),
    labels={name: (label,) for name, label in labels.items()},
    video_id=clip_id,
  )


def _make_chunk(start: int, *, seed: int, view: str, split: str, count: int) -> list[types.Clip]:
  stop = min(start + _CHUNK, count)
  return [make_clip(seed, view, split, i) for i in range(start, stop)]


def iter_clips(
  view: str, split: str, seed: int, counts: Mapping[str, int] | None = None, *, processes: int = 1
) -> Iterator[types.Clip]:
  """Makes all clips of a split, in order.

  Args:
    view: "ego", "exo" or "generic".
    split: "train", "validation" or, ego only, "test".
    seed: seed of the world.
    counts: number of clips by split; a split that is absent has that of
      `vocabulary.COUNTS[view]`.
    processes: number of processes that render side by side. More than one starts
      fresh interpreters, so that a script's own code must stand behind
      `if __name__ == "__main__"`.

  Raises:
    ValueError: the view or the split is unknown, a count is negative, or there is
      no process.
  """
  vocabulary.check_split(view, split)
  count = {**vocabulary.COUNTS[view], **(counts or {})}[split]
  if count < 0:
    raise ValueError(f"toy_kitchen: counts[{split!r}] must be 0 or more, got {count}.")
  if processes < 1:
    raise ValueError(f"toy_kitchen: processes must be 1 or more, got {processes}.")
  return _iterate(view, split, seed, count, processes)


def _iterate(view: str, split: str, seed: int, count: int, processes: int) -> Iterator[types.Clip]:
  work = functools.partial(_make_chunk, seed=seed, view=view, split=split, count=count)
  starts = range(0, count, _CHUNK)
  if processes == 1:
    for start in starts:
      yield from work(start)
    return
  # Spawned, not forked: the parent may hold threads of TensorFlow or JAX.
  with multiprocessing.get_context("spawn").Pool(processes) as pool:
    for chunk in pool.imap(work, starts):
      yield from chunk
