"""What takes the numbers, pictures and hyper-parameters of a stage, beside its logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

# Value of a hyper-parameter.
Value = str | bool | int | float


class StageWriter(Protocol):
  """One place to which a stage's numbers go, such as event files for TensorBoard."""

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers by name."""

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures by name, uint8 `[N, H, W, 3]` each."""

  def write_histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes histograms of arrays by name."""

  def write_hyper_parameters(self, values: Mapping[str, Value]) -> None:
    """Writes what the stage is trained with, once."""

  def flush(self) -> None:
    """Hands on what was written; another thread may call it."""

  def close(self) -> None:
    """Waits until everything is written."""


def plain(values: Mapping[str, object]) -> dict[str, Value]:
  """Settings by dotted name as hyper-parameters: lists become texts."""
  return {
    name: value if isinstance(value, str | bool | int | float) else str(value)
    for name, value in values.items()
  }
