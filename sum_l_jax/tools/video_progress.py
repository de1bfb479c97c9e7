"""How far commands are that read videos from their beginning to their end."""

from __future__ import annotations

from sum_l_jax.system import progress


class VideoProgress:
  """Shows how far the reading of one video after the other is."""

  def __init__(self) -> None:
    """Shows nothing yet."""
    self._bar: progress.Progress | None = None
    self._video = ""

  def __call__(self, video: str, seconds: float, duration: float | None) -> None:
    """Takes the name of the video, the seconds read, and those it lasts or None."""
    if self._bar is None or video != self._video:
      self.close()
      # The speed, in seconds a second, is how many times faster than real time.
      total = round(duration) if duration else None
      self._bar, self._video = progress.Progress(video, total=total, unit="s"), video
    self._bar.update(int(seconds) - self._bar.n)

  def clear(self) -> None:
    """Makes room on the terminal for other text."""
    if self._bar is not None:
      self._bar.clear()

  def close(self) -> None:
    """Takes the bar away."""
    if self._bar is not None:
      self._bar.close()
    self._bar = None
