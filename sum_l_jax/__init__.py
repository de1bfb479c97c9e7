"""SUM-L: semantics-based unpaired multiview learning of egocentric video.

A trained model looks at a video:

  model = sum_l_jax.load("runs/epic55")
  model.predict("video.mp4")

The names below are looked up when they are first used, so that importing the
package takes no time and no JAX.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING
from typing import Any

# Before `epath` and the client of buckets are imported, which read them once: both
# take TensorFlow's client where TensorFlow is installed, and would believe old
# listings in place of looking. The last one asks for a bucket's type, which needs
# a permission that few have, and waits a minute for the answer.
os.environ.setdefault("EPATH_USE_TF", "false")
os.environ.setdefault("FSSPEC_GS", '{"use_listings_cache": false}')
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

if TYPE_CHECKING:
  from sum_l_jax import losses
  from sum_l_jax.build import Trainer
  from sum_l_jax.losses.objective import Objective
  from sum_l_jax.models.multiview import make_model
  from sum_l_jax.prediction.predictor import load
  from sum_l_jax.tools.export.exported_model import load_exported

# The one place: setup.py reads it; a test compares CHANGELOG.md and
# CITATION.cff.
__version__ = "0.1.0"

__all__ = ("Objective", "Trainer", "__version__", "load", "load_exported", "losses", "make_model")

_MODULES = {
  "Objective": "sum_l_jax.losses.objective",
  "Trainer": "sum_l_jax.build",
  "load": "sum_l_jax.prediction.predictor",
  "load_exported": "sum_l_jax.tools.export.exported_model",
  "make_model": "sum_l_jax.models.multiview",
}


def __getattr__(name: str) -> Any:
  """Imports a public name at its first use."""
  if name == "losses":
    return importlib.import_module("sum_l_jax.losses")
  if name not in _MODULES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})


if sys.argv[:1] == ["-m"]:
  # Python looks for the module of `python -m sum_l_jax.NAME`, and would say only that
  # there is none.
  from sum_l_jax.system import commands

  commands.check_module(__name__)
