"""Opens a folder in the layout of TensorFlow Datasets, without trusting it.

TFDS imports every module that `features.json` names as the class of a feature.
Only its own features are admitted here.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import storage

_FEATURES = "features.json"
_OWN = "tensorflow_datasets.core.features."
# Keys that name a class: the current one, protobuf's own, and the former one.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
_MEND = "Build the data set again, or get it from its original source."


def _class_names(value: object) -> Iterator[str]:
  """All names of classes in a JSON value."""
  if isinstance(value, dict):
    for key, item in value.items():
      if key in _CLASS_KEYS and isinstance(item, str):
        yield item
      yield from _class_names(item)
  elif isinstance(value, list):
    for item in value:
      yield from _class_names(item)


def open_builder(directory: addresses.PathLike) -> Any:
  """Opens a data set that TFDS wrote, for reading.

  Args:
    directory: folder with `features.json` and `dataset_info.json`.

  Raises:
    FileNotFoundError: there is no data set.
    ValueError: its description is damaged, or names a class that is none of TFDS's
      own features.
  """
  path = addresses.path(directory) / _FEATURES
  if not storage.is_file(path):
    raise FileNotFoundError(f"{str(path)!r} is missing. {_MEND}")
  for name in _class_names(checked_json.read(path, checked_json.Object, mend=_MEND)):
    if not name.startswith(_OWN):
      raise ValueError(
        f"{str(path)!r} is refused: opening it would import {name!r}, and only features of"
        f" tensorflow_datasets itself are known here. {_MEND}"
      )
  import tensorflow_datasets as tfds  # 0.5 s; no TensorFlow behind it

  # Annotated, since TFDS's decorator hides the argument.
  builder: Callable[..., Any] = tfds.builder_from_directory
  return builder(directory)
