"""What each process of a run states about itself, so that all are alike."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import platform
from typing import Any

from etils import epath
import jax

from sum_l_jax import build
from sum_l_jax import build_data
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.config.schema import Settings
from sum_l_jax.data import records
from sum_l_jax.models import backbones
from sum_l_jax.system import storage

# Libraries that change what is computed.
LIBRARIES = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "array-record",
  "numpy",
  "ml_dtypes",
  "simplejpeg",
  "opencv-python-headless",
)
# Options of JAX that change what is computed.
_OPTIONS = (
  "jax_enable_x64",
  "jax_default_matmul_precision",
  "jax_default_prng_impl",
  "jax_threefry_partitionable",
  "jax_numpy_dtype_promotion",
)


def make(settings: Settings, *, mode: str, checkpoint: str) -> dict[str, Any]:
  """States what this process is about to do, with what.

  Paths of data don't count, their contents do.

  Args:
    settings: resolved settings.
    mode: "train" or "eval".
    checkpoint: what is evaluated instead of the workdir's checkpoint.

  Returns:
    Values of JSON by name.

  Raises:
    FileNotFoundError, ValueError: data that are missing or do not fit.
  """
  device = jax.local_devices()[0]
  stated: dict[str, Any] = {
    **{f"config.{n}": v for n, v in read.without_places(settings.flatten()).items()},
    "mode": mode,
    "checkpoint": weight_files.file_digest(checkpoint) if checkpoint else "",
    "sum_l_jax": version("sum_l_jax"),
    "code of sum_l_jax": code_digest(),
    **{
      f"code of the backbone of {view}": _backbone_digest(settings.backbone(view))
      for view in types.VIEWS
      if not settings.stored(view)
    },
    "python": platform.python_version(),
    **{name: version(name) for name in LIBRARIES},
    **{name: str(getattr(jax.config, name, None)) for name in _OPTIONS},
    "devices": f"{jax.local_device_count()} of {device.device_kind}",
    "driver of the devices": device.client.platform_version,
  }
  for name, value in _data(settings, mode).items():
    stated[f"data: {name}"] = value
  return stated


def _data(settings: Settings, mode: str) -> dict[str, Any]:
  """Digests of the data that the run reads."""
  found: dict[str, Any] = {}
  if mode == "train":
    for stage in settings.stages:
      data = build_data.open_data(settings, stage)
      found |= {f"{stage} {name}": value for name, value in data.fingerprints.items()}
    found |= {f"init.{view}": digest for view, digest in build.init_digests(settings).items()}
  folder = settings.ego.dataset
  if schema.JOINT_STAGE in settings.stages and folder:
    there = records.read_card(folder)["splits"]
    for split in {*settings.eval.splits, settings.eval.during_split} & there.keys():
      found[f"split {split}"] = records.ClipDataset(folder, split).fingerprint
  return found


def version(library: str) -> str:
  """Version of an installed library, or "not installed"."""
  try:
    return importlib.metadata.version(library)
  except importlib.metadata.PackageNotFoundError:
    return "not installed"


@functools.cache
def code_digest() -> str:
  """Digest of the package's own files, which a version number may not tell apart."""
  root = epath.Path(__file__).parents[1]
  digest = hashlib.sha256()
  for name, path in storage.files_below(root).items():
    if name.endswith(".py"):
      content = storage.sha256(path)
      digest.update(f"{name} {content}\n".encode())
  return digest.hexdigest()[:16]


def _backbone_digest(name: str) -> str:
  """Digest of the file that a backbone comes from: it may be a user's own."""
  try:
    file = inspect.getsourcefile(inspect.unwrap(backbones.BACKBONES[name].make))
  except TypeError:  # It was defined in a notebook.
    return ""
  return storage.sha256(file)[:16] if file else ""
