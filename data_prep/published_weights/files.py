"""Reads weight files of strangers without executing what is in them.

A pickle is a program: `torch.load` and `pickle.load` run whatever the file says.
Here PyTorch files go through its weights-only loader, and Caffe2 files through
`safe_pickle`, which admits numpy arrays and plain containers alone.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any
import zipfile

import numpy as np

from data_prep.sources import safe_pickle
from sum_l_jax.system import npz_files

# What an old-style PyTorch file begins with, pickled.
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C

_WEIGHTS = safe_pickle.Kind(
  "weights", "a PyTorch file (.pyth, .pth, .pt) or a Caffe2 pickle (.pkl)"
)


@dataclasses.dataclass(frozen=True)
class WeightFile:
  """What a file holds.

  Attributes:
    path: path of the file, for messages.
    container: "torch" or "caffe2".
    tensors: arrays by flat name.
    card: what `--export` of this library wrote beside them, as JSON; or "".
  """

  path: pathlib.Path
  container: str
  tensors: Mapping[str, np.ndarray]
  card: str = ""


def _broken(path: pathlib.Path, detail: str) -> ValueError:
  return safe_pickle.damage(path, detail, _WEIGHTS)


def _load_torch(path: pathlib.Path) -> Any:
  """Reads a file through PyTorch's weights-only loader."""
  import torch

  # Training scripts leave best accuracies and the like as numpy scalars.
  numbers = [
    np._core.multiarray.scalar,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
  ]
  try:
    with torch.serialization.safe_globals(numbers):
      return torch.load(path, map_location="cpu", weights_only=True)
  except safe_pickle.UnpicklingError as error:
    text = str(error)
    _, marker, rest = text.partition("GLOBAL ")
    if marker:
      raise safe_pickle.refusal(path, rest.split()[0], _WEIGHTS) from None
    raise _broken(path, text.splitlines()[0]) from error
  # PyTorch's unpickler doesn't check for damage, and stumbles over it anywhere.
  except (*npz_files.DAMAGED, AssertionError) as error:
    text = str(error).strip() or type(error).__name__
    raise _broken(path, text.splitlines()[0]) from error


def _as_arrays(state: Any, path: pathlib.Path) -> dict[str, np.ndarray]:
  """Turns tensors or arrays by name into numpy; anything else is an error."""
  if not isinstance(state, Mapping) or not state:
    raise _broken(path, f"its weights are a {type(state).__name__}")
  arrays = {}
  for name, value in state.items():
    if hasattr(value, "detach"):  # A tensor.
      # numpy has no bfloat16; float32 holds it exactly.
      value = value.float() if value.dtype.is_floating_point else value
      value = value.detach().numpy()
    if not isinstance(value, np.ndarray | np.generic | float | int):
      raise _broken(path, f"{name!r} is a {type(value).__name__}, no array")
    arrays[str(name)] = np.asarray(value)
  return arrays


def read(path: str | pathlib.Path) -> WeightFile:
  """Reads a PyTorch or Caffe2 file, which its content tells apart.

  Args:
    path: path of the file. PyTorch: a dict with `model_state` (PySlowFast,
      pytorchvideo), `state_dict`, or the arrays themselves. Caffe2: a dict with
      `blobs`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file has no weights, is damaged, or would execute something.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"There is no file {str(path)!r}.")
  try:
    zipped = zipfile.is_zipfile(path)
  except zipfile.BadZipFile as error:  # Raised for some files that are no zip files.
    raise _broken(path, str(error)) from error
  if zipped:
    content, container = _load_torch(path), "torch"
  else:
    content, container = safe_pickle.load(path, kind=_WEIGHTS), "caffe2"
    if content == _TORCH_MAGIC:
      content, container = _load_torch(path), "torch"
  if not isinstance(content, Mapping):
    raise _broken(path, f"it holds a {type(content).__name__}, no dict")
  if container == "caffe2":
    return WeightFile(path, container, _as_arrays(content.get("blobs", content), path))
  for key in ("model_state", "state_dict"):
    if key in content:
      card = content.get("sum_l_jax_card", "")
      return WeightFile(path, container, _as_arrays(content[key], path), card)
  return WeightFile(path, container, _as_arrays(content, path))


def write_torch(path: str | pathlib.Path, tensors: Mapping[str, np.ndarray], card: str) -> None:
  """Writes a `.pyth` file as PySlowFast does.

  Args:
    path: the file to write.
    tensors: arrays with PyTorch's names and layouts.
    card: JSON that is kept beside them for `read`.
  """
  import torch

  state = {name: torch.from_numpy(np.array(v)) for name, v in tensors.items()}
  torch.save({"epoch": 0, "model_state": state, "sum_l_jax_card": card}, path)
