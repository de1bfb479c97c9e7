"""SUM-L: semantics-based unpaired multiview learning of egocentric video.

  model = sum_l_jax.load("runs/epic55")
  model.predict("video.mp4")

`load` and `load_exported` are looked up when they are first used, so that
importing the package imports no JAX.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
  "load": "sum_l_jax.prediction.predictor",
  "load_exported": "sum_l_jax.tools.export.exported_model",
}
__all__ = tuple(_WHERE)


def __getattr__(name: str) -> Any:
  if name in _WHERE:
    return getattr(importlib.import_module(_WHERE[name]), name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
