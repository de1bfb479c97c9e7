"""A clock that stands still until a test moves it."""

from __future__ import annotations


class Now:
  """Seconds that a test sets; called like `time.monotonic`."""

  def __init__(self) -> None:
    self.time = 100.0

  def __call__(self) -> float:
    return self.time
