"""Windows of many videos, put together into batches of one size."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def in_batches(
  items: Iterable[_Item], size: int, is_window: Callable[[_Item], bool]
) -> Iterator[tuple[list[_Item], int]]:
  """Yields runs of items with at most `size` windows, and the rows to compute.

  Rows are the same in all batches, so there is one compilation. Where there is
  only one batch, and it is not full, they are the next power of two.

  Args:
    items: windows, and what is said between them.
    size: most windows of a batch.
    is_window: whether an item is a window.
  """
  held, windows, first = [], 0, True
  for item in items:
    held.append(item)
    windows += is_window(item)
    if windows == size:
      yield held, size
      held, windows, first = [], 0, False
  if held:
    small = 1 << max(windows - 1, 0).bit_length()
    yield held, min(small, size) if first else size
