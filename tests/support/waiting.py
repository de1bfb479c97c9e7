"""Waits for what other threads and processes do."""

from __future__ import annotations

from collections.abc import Callable
import time


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
  """Returns once the condition holds; fails if it doesn't for so long."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, f"It still doesn't hold after {seconds} s."
    time.sleep(0.02)
