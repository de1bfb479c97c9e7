"""What can be chosen where features of sliding windows are extracted."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses

import numpy as np

# What stands for a clip: what class heads read where there is no probe, the unit
# vector beside the text's (Eq. 5), or the mean of the encoder's tokens.
POOLED, PROJECTION, TOKENS_MEAN = "pooled", "projection", "tokens_mean"
FEATURES = (POOLED, PROJECTION, TOKENS_MEAN)
# How the encoder's frames are chosen from a window.
SPREAD, STRIDE = "spread", "stride"
SAMPLINGS = (SPREAD, STRIDE)
# Types of the arithmetic, and of what is stored.
COMPUTED_IN = ("float32", "bfloat16")
DTYPES = ("float32", "float16")
# Most frames of one window, whose crops are held: 300 MB at 224 pixels.
MAX_FRAMES = 2_000


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a file of features is laid out.

  Attributes:
    suffix: suffix of the file.
    key: name of the array `[T, C]`; "" where the file is that array.
    times: names of the start and the end of each row, float64 `[T]` in seconds.
  """

  suffix: str
  key: str = ""
  times: tuple[str, str] = ("start_seconds", "end_seconds")


LAYOUTS = {
  # ActionFormer's loaders of Ego4D, THUMOS and ActivityNet, and most others.
  "npy": Layout(".npy"),
  # ActionFormer's loader of EPIC-Kitchens.
  "npz": Layout(".npz", "feats"),
  # What Ego4D's extraction keeps of a window, with the names that it has there.
  "ego4d": Layout(".npz", "features", ("start_time_sec", "end_time_sec")),
}


def check_choice(name: str, given: str, choices: Iterable[str]) -> None:
  """Raises ValueError for a value that is none of the choices."""
  if given not in choices:
    raise ValueError(f"{name} must be one of {tuple(choices)}, got {given!r}.")


@dataclasses.dataclass(frozen=True)
class Grid:
  """Which frames the windows of a video have.

  Attributes:
    window: frames of a window.
    stride: frames from the start of one window to the next.
    fps: frames a second at which videos are read.
    lead: whether windows begin before the video, whose first frame is then repeated, so
      that the first window ends with the first frame. With stride 1 there is one
      window for each frame.
  """

  window: int = 32
  stride: int = 16
  fps: float = 30.0
  lead: bool = False

  def __post_init__(self) -> None:
    if not (1 <= self.window <= MAX_FRAMES and self.stride >= 1):
      raise ValueError(
        f"window must be 1 to {MAX_FRAMES} frames and stride 1 or more, got"
        f" window={self.window} and stride={self.stride}. Both count frames at fps={self.fps:g}."
      )
    if not 0 < self.fps < 1000:
      raise ValueError(f"fps must be a positive number below 1000, got {self.fps}.")

  def starts(self, frames: int) -> np.ndarray:
    """First frame of each window of a video, int64 `[W]`; negative before the video.

    Args:
      frames: frames of the video at `fps`, at least 1.
    """
    first = 1 - self.window if self.lead else 0
    last = frames - self.window if self.lead else max(frames - self.window, 0)
    starts = np.arange(first, last + 1, self.stride)
    # As pytorchvideo's UniformClipSampler does it with backpad_last.
    return starts if starts[-1] == last else np.append(starts, last)

  def seconds(self, frames: int, begin: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of each window in seconds, float64 `[W]` each.

    Args:
      frames: see `starts`.
      begin: time of the first frame.
    """
    starts = self.starts(frames)
    ends = np.minimum(starts + self.window, frames)
    return begin + np.maximum(starts, 0) / self.fps, begin + ends / self.fps
