"""What the page takes, and where videos are cut; needs nothing to be imported."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Limits:
  """What is refused, so that one video can't fill the disk or keep the machine busy.

  Attributes:
    megabytes: largest upload, in 10^6 bytes.
    seconds: longest video.
    videos: most videos that wait or are kept; of those that are done, the oldest
      goes first.
  """

  megabytes: float = 500.0
  seconds: float = 600.0
  videos: int = 4

  def __post_init__(self) -> None:
    if not (0 < self.megabytes < math.inf and 0 < self.seconds < math.inf and self.videos > 0):
      raise ValueError(
        "--max_megabytes and --max_seconds must be positive, got"
        f" {self.megabytes:g} and {self.seconds:g}."
      )

  @property
  def bytes(self) -> int:
    """Largest upload in bytes."""
    return int(self.megabytes * 1e6)


@dataclasses.dataclass(frozen=True)
class Cut:
  """How a video is cut into windows; see `predict`.

  Attributes:
    window: length of a window in seconds.
    stride: seconds from one window to the next.
    top: classes shown for a task.
    neighbours: clips shown for a window.
    short_side: short side that larger frames are shrunk to, as the training data
      was when it was built.
  """

  window: float = 2.0
  stride: float = 1.0
  top: int = 5
  neighbours: int = 4
  short_side: int = 320

  def __post_init__(self) -> None:
    if self.top < 1 or self.neighbours < 1:
      raise ValueError(
        f"--top and --neighbours must be 1 or more, got {self.top} and {self.neighbours}."
      )


class TooLong(ValueError):
  """A video that is longer than the limit."""
