"""Video encoders with class heads and a projection, for one view or two.

Names are loaded when they are first used, so that the registry of backbones
can be read without importing JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING
from typing import Any

from sum_l_jax.models.backbones import BACKBONES
from sum_l_jax.models.backbones import Backbone
from sum_l_jax.models.backbones import EncoderOptions
from sum_l_jax.models.backbones import register_backbone

if TYPE_CHECKING:
  from sum_l_jax.models.multiview import MultiviewModel
  from sum_l_jax.models.multiview import count_parameters
  from sum_l_jax.models.multiview import make_model
  from sum_l_jax.models.pixel_format import PixelSpec

__all__ = (
  "BACKBONES",
  "Backbone",
  "EncoderOptions",
  "MultiviewModel",
  "PixelSpec",
  "count_parameters",
  "make_model",
  "register_backbone",
)
_MODULES = {
  "MultiviewModel": "multiview",
  "PixelSpec": "pixel_format",
  "count_parameters": "multiview",
  "make_model": "multiview",
}


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
