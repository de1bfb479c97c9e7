"""Which frames of a clip a network sees.

A sample is `num_frames` frames, `stride` stored frames apart, out of a clip of
`length` frames. Positions are clamped to the clip: a clip shorter than the
sample repeats its first or last frame and never shows its neighbours.

Or it is one frame of each of `num_frames` equal parts of a segment, however long
that is: a random one in training, that in the middle at test time, as TSN and the
recipes of LaViLa and AVION have it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# One view at test time is the reference's validation view: number 5 of 10.
_SINGLE_VIEW = (5, 10)


def clip_span(num_frames: int, stride: int) -> int:
  """Number of frames from the first to the last of a sample, both included."""
  if num_frames < 1 or stride < 1:
    raise ValueError(
      f"num_frames and stride must be at least 1, got num_frames={num_frames} and stride={stride}."
    )
  return (num_frames - 1) * stride + 1


def train_frame_indices(
  length: int, num_frames: int, stride: int, rng: np.random.Generator
) -> np.ndarray:
  """Draws a training sample.

  Args:
    length: number of frames of the clip, at least 1.
    num_frames: number of sampled frames, T.
    stride: stored frames between two sampled ones.
    rng: generator, consumed by one draw.

  Returns:
    int64 `[T]`, not descending, in `[0, length)`.
  """
  start = draw_start(length, clip_span(num_frames, stride), rng)
  return positions(start, length, num_frames, stride)


def draw_start(
  length: int,
  span: int,
  rng: np.random.Generator,
  allowed: Callable[[np.ndarray], np.ndarray] | None = None,
) -> int:
  """Draws where a training sample starts.

  The start is uniform over `0..length - span`, or in a clip shorter than the
  span over `length - span..0`, so that the clip lies anywhere within the sample.

  Args:
    length: number of frames of the clip, at least 1.
    span: frames from the first to the last of a sample, both included.
    rng: generator, consumed by one draw.
    allowed: says of starts `[N]` which may be drawn, bool `[N]`; with None, or
      where it allows none, all may.

  Returns:
    The position of the first frame, before it is clamped to the clip.
  """
  last = length - span
  low, high = min(last, 0), max(last, 0) + 1
  if allowed is not None:
    starts = np.arange(low, high)
    starts = starts[allowed(starts)]
    if len(starts):
      return int(starts[rng.integers(len(starts))])
  return int(rng.integers(low, high))


def test_frame_indices(
  length: int, num_frames: int, stride: int, clip: int, num_clips: int
) -> np.ndarray:
  """Positions of temporal sample `clip` of `num_clips`, evenly spread.

  The first starts at frame 0, the last ends with the clip; starts between are
  rounded half to even. `num_clips=1` gives sample 5 of 10, slightly after the
  middle: what the reference validates on during training.

  Args:
    length: number of frames of the clip, at least 1.
    num_frames: number of sampled frames, T.
    stride: stored frames between two sampled ones.
    clip: number of the temporal sample, in `[0, num_clips)`.
    num_clips: number of temporal samples of a clip.

  Returns:
    int64 `[T]`, not descending, in `[0, length)`.
  """
  _check_number(clip, num_clips)
  if num_clips == 1:
    clip, num_clips = _SINGLE_VIEW
  last = max(length - clip_span(num_frames, stride), 0)
  # Python rounds half to even. The gap comes first, as in the reference.
  start = round(last / (num_clips - 1) * clip)
  return positions(start, length, num_frames, stride)


def positions(start: int, length: int, num_frames: int, stride: int) -> np.ndarray:
  """The frames of a sample, int64 `[T]`, not descending, in `[0, length)`."""
  if length < 1:
    raise ValueError(f"A clip must have at least one frame, got {length}.")
  return np.clip(start + stride * np.arange(num_frames), 0, length - 1)


def draw_part_positions(
  start: int, span: int, num_frames: int, rng: np.random.Generator
) -> np.ndarray:
  """Draws a frame of each of equal parts of a segment.

  Args:
    start: first frame of the segment.
    span: number of frames of the segment, at least 1.
    num_frames: number of parts, T.
    rng: generator, consumed by T draws.

  Returns:
    int64 `[T]`, not descending, in `[start, start + span)`.
  """
  return _part_positions(start, span, num_frames, rng.random(num_frames))


def test_part_positions(length: int, num_frames: int, clip: int, num_clips: int) -> np.ndarray:
  """Positions of temporal sample `clip` of `num_clips`: a frame of each part of a clip.

  A single sample has the middle of each part; several lie evenly in the parts.

  Args:
    length: number of frames of the clip, at least 1.
    num_frames: number of parts, T.
    clip: number of the temporal sample, in `[0, num_clips)`.
    num_clips: number of temporal samples of a clip.

  Returns:
    int64 `[T]`, not descending, in `[0, length)`.
  """
  _check_number(clip, num_clips)
  return _part_positions(0, length, num_frames, np.array((clip + 0.5) / num_clips))


def _part_positions(start: int, span: int, num_frames: int, shares: np.ndarray) -> np.ndarray:
  """The frames at shares in [0, 1) of each part."""
  if span < 1:
    raise ValueError(f"A clip must have at least one frame, got {span}.")
  places = np.floor((np.arange(num_frames) + shares) * span / num_frames).astype(np.int64)
  # A share just below 1 may round up to the end.
  return start + np.minimum(places, span - 1)


def _check_number(clip: int, num_clips: int) -> None:
  if not 0 <= clip < num_clips:
    raise ValueError(f"clip must be in [0, num_clips), got clip={clip} and num_clips={num_clips}.")
