"""Moments, the parts of clips that training narrates, pairs and draws.

A clip with one narration and its labels is one moment. A clip of a data set of
untrimmed videos is a whole video, whose actions have spans; which of them are
seen depends on where a sample is drawn. Such a clip has a moment for each set of
actions that a window of the data set's length can touch, with a narration of its
own. Moments are counted over all clips of a data set, in order.

The labels of an example are those of its very frames, from the first to the
last. Its narration is that of the window around these; where windows are as long
as samples, that is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal

import numpy as np

from sum_l_jax.system import checked_json

if TYPE_CHECKING:
  from sum_l_jax import types
  from sum_l_jax.data import records

# Key of the data set's metadata; its value has "seconds", the length of a window,
# and "narration", one of the next two.
METADATA = "moments"
CLASSES = "classes"  # The phrases of a window's classes; the clip's narration without any.
CLIP = "clip"  # The clip's narration.


# No video that the builder cuts has so many frames.
_MOST_FRAMES = 10**6


@dataclasses.dataclass(frozen=True)
class _About:
  """What the metadata must hold under `METADATA`."""

  seconds: checked_json.Positive
  narration: Literal["classes", "clip"]


def check(metadata: Mapping[str, Any]) -> None:
  """Raises checked_json.JsonError for metadata that can't be."""
  if METADATA in metadata:
    checked_json.check(metadata[METADATA], _About)


def touched(actions: Sequence[tuple[int, int, int]], first: int, last: int) -> tuple[int, ...]:
  """Classes of the actions that touch the frames from first to last, both included.

  Args:
    actions: class, first frame and last frame of each action.
    first: first frame.
    last: last frame.
  """
  return tuple(sorted({label for label, start, stop in actions if start <= last and stop >= first}))


class Moments:
  """The moments of a data set's clips.

  Attributes:
    clip: int64 `[M]`, the clip of each moment.
    clips: the clips with narration and labels of each moment; the very clips of
      the data set where each is one moment.
    pairable: bool `[M]`, whether a moment can be a partner: windows in which
      nothing is done can't.
  """

  def __init__(
    self,
    clips: Sequence[records.ClipInfo],
    tasks: Mapping[str, types.Task],
    metadata: Mapping,
  ) -> None:
    """Finds the moments.

    Args:
      clips: clips of a data set.
      tasks: its label sets.
      metadata: its metadata.
    """
    about = metadata.get(METADATA) or {}
    self._seconds = float(about.get("seconds", 0))
    self._tasks = tasks
    self.clip = np.arange(len(clips))
    self.clips: Sequence[records.ClipInfo] = clips
    self.pairable = np.ones(len(clips), bool)
    # First moment of each clip; and of clips with several, that of each window.
    self._first = self.clip
    self._of_window: list[np.ndarray | None] = [None] * len(clips)
    if self._seconds:
      self._divide(clips, about.get("narration") == CLASSES)

  def __len__(self) -> int:
    return len(self.clips)

  @property
  def narrations(self) -> list[str]:
    """Narration of each moment."""
    return [clip.narration for clip in self.clips]

  def _divide(self, clips: Sequence[records.ClipInfo], by_classes: bool) -> None:
    owners, found, pairable, firsts = [], [], [], []
    for number, clip in enumerate(clips):
      firsts.append(len(found))
      if not clip.actions:  # A clip of another split is one moment.
        owners.append(number)
        found.append(clip)
        pairable.append(True)
        continue
      if clip.num_frames > _MOST_FRAMES:
        raise ValueError(
          f"The clip {clip.clip_id!r} has {clip.num_frames} frames, more than"
          f" {_MOST_FRAMES}, the most that an untrimmed video may have. Build the data set again."
        )
      classes = sorted({(task, a[0]) for task, actions in clip.actions.items() for a in actions})
      frames = self._frames(clip)
      starts = np.arange(max(clip.num_frames - frames, 0) + 1)
      ends = np.minimum(starts + frames, clip.num_frames) - 1
      seen = np.zeros((len(classes), len(starts)), bool)
      for row, (task, label) in enumerate(classes):
        for other, first, last in clip.actions[task]:
          if other == label:
            seen[row] |= (first <= ends) & (last >= starts)
      # A column of no classes can't be sorted: then there is one moment.
      sets, kind = seen[:, :1], np.zeros(len(starts), np.int64)
      if classes:
        sets, kind = np.unique(seen, axis=1, return_inverse=True)
      self._of_window[number] = kind.reshape(-1).astype(np.int32)
      for column in sets.T:
        seen_here = [classes[row] for row in np.flatnonzero(column)]
        phrases = [self._tasks[task].class_names[label] for task, label in seen_here]
        labels = {
          task: tuple(label for of, label in seen_here if of == task) for task in clip.actions
        }
        text = ", ".join(phrases) if by_classes and phrases else clip.narration
        found.append(dataclasses.replace(clip, narration=text, labels={**clip.labels, **labels}))
        pairable.append(bool(phrases))
        owners.append(number)
    self.clip, self.pairable = np.array(owners, np.int64), np.array(pairable, bool)
    self.clips, self._first = found, np.array(firsts, np.int64)

  def segment(self, clip: int) -> int:
    """Frames of what a sample shows at most: the clip, or a window of an untrimmed video."""
    info = self.clips[self._first[clip]]
    if self._of_window[clip] is None:
      return info.num_frames
    return min(self._frames(info), info.num_frames)

  def at(self, clip: int, start: int, span: int) -> int:
    """The moment of a sample.

    Args:
      clip: the clip.
      start: frame at which the sample starts; below 0 in a clip that is shorter.
      span: frames from the sample's first to its last, both included.
    """
    windows = self._of_window[clip]
    first = int(self._first[clip])
    if windows is None:
      return first
    return first + int(windows[self._window(clip, start, span)])

  def allows(self, moment: int, span: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """Which starts of a sample show a moment; None where all do.

    Args:
      moment: the moment.
      span: frames of the sample, see `at`.

    Returns:
      A function from starts `[N]` to bool `[N]`.
    """
    clip = int(self.clip[moment])
    windows = self._of_window[clip]
    if windows is None:
      return None
    wanted = moment - self._first[clip]
    return lambda starts: windows[self._window(clip, starts, span)] == wanted

  def _frames(self, clip: records.ClipInfo) -> int:
    return max(1, round(self._seconds * clip.fps))

  def _window(self, clip: int, start: Any, span: int) -> Any:
    """The window in whose middle a sample lies, within the clip."""
    frames = self._frames(self.clips[self._first[clip]])
    windows = self._of_window[clip]
    last = 0 if windows is None else len(windows) - 1
    return np.clip(start - (frames - span) // 2, 0, last)
