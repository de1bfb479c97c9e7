"""A network as a TensorFlow SavedModel, through jax2tf.

TensorFlow is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

SIGNATURE = "serving_default"


def _tensorflow() -> Any:
  try:
    import tensorflow as tf
  except ImportError as error:
    raise ValueError(
      f"A SavedModel needs TensorFlow ({error}). Install it with `pip install"
      " tensorflow`, or export with --format=jax, which needs none."
    ) from error
  return tf


def write(
  folder: pathlib.Path,
  run: Callable[[Mapping[str, Any], Any], dict[str, Any]],
  arrays: Mapping[str, np.ndarray],
  *,
  video_shape: Sequence[int | str],
  platforms: Sequence[str],
) -> None:
  """Writes the folder; the weights are its variables.

  Args:
    folder: where to.
    run: (arrays, video) -> {task: probabilities}.
    arrays: the weights.
    video_shape: `[B, T, H, W, 3]`; a text for B is any number of clips.
    platforms: that the program is made for, as JAX calls them.

  Raises:
    ValueError: TensorFlow or jax2tf is missing.
  """
  tf = _tensorflow()
  try:
    from jax.experimental import jax2tf
  except ImportError as error:
    raise ValueError(
      f"This version of JAX comes without jax2tf ({error}). Export with --format=jax."
    ) from error
  size, *rest = video_shape
  dynamic = isinstance(size, str)
  converted = jax2tf.convert(
    run,
    with_gradient=False,
    native_serialization_platforms=platforms,
    polymorphic_shapes=[None, f"({size}, ...)"] if dynamic else None,
  )
  names = list(arrays)
  module = tf.Module()
  # TensorFlow reserves "/" in the names of variables for scopes.
  module.weights = [
    tf.Variable(arrays[name], trainable=False, name=name.replace("/", ".")) for name in names
  ]

  @tf.function(
    autograph=False,
    input_signature=[tf.TensorSpec([None if dynamic else size, *rest], tf.uint8, name="video")],
  )
  def serve(video):
    return converted(dict(zip(names, module.weights)), video)

  tf.saved_model.save(module, str(folder), signatures={SIGNATURE: serve})


def read(folder: pathlib.Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
  """uint8 `[B, T, H, W, 3]` to probabilities, by TensorFlow.

  Raises:
    FileNotFoundError: no SavedModel there.
    ValueError: it is damaged, or TensorFlow is missing.
  """
  if not folder.is_dir():
    raise FileNotFoundError(f"There is no folder {str(folder)!r}.")
  tf = _tensorflow()
  try:
    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures[SIGNATURE]
  except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
    raise ValueError(
      f"{str(folder)!r} can't be loaded ({error}). Copy or export it again."
    ) from error

  def score(
    video: np.ndarray,
    loaded: Any = loaded,  # Its variables live with it.
  ) -> dict[str, np.ndarray]:
    del loaded
    return {k: v.numpy() for k, v in serve(video=tf.constant(video)).items()}

  return score
