"""Options of JAX, changed for a while."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any

import jax


@contextlib.contextmanager
def changed(option: str, value: Any) -> Iterator[None]:
  """Changes an option of JAX within a block."""
  before = getattr(jax.config, option)
  jax.config.update(option, value)
  try:
    yield
  finally:
    jax.config.update(option, before)
