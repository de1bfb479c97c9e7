"""A network as a TensorFlow SavedModel, through jax2tf.

TensorFlow is imported when a SavedModel is written or read.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from etils import epath
import numpy as np

SIGNATURE = "serving_default"


def write(
  folder: epath.Path,
  run: Callable[[Mapping[str, Any], Any], dict[str, Any]],
  arrays: Mapping[str, Any],
  *,
  video_shape: Sequence[int | str],
  platforms: Sequence[str],
) -> None:
  """Writes the folder; the weights are its variables.

  Args:
    folder: folder to make.
    run: (arrays, video) -> {task: probabilities}.
    arrays: the weights.
    video_shape: `[B, T, H, W, 3]`; a text for B is any number of clips.
    platforms: platforms that the program is made for, as JAX calls them.

  Raises:
    ImportError: TensorFlow is missing.
    ValueError: jax2tf is missing.
  """
  import tensorflow as tf

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
  module: Any = tf.Module()
  # TensorFlow reserves "/" in the names of variables for scopes.
  module.weights = [
    tf.Variable(arrays[name], trainable=False, name=name.replace("/", ".")) for name in names
  ]

  @tf.function(
    autograph=False,
    input_signature=[tf.TensorSpec([None if dynamic else size, *rest], tf.uint8, name="video")],
  )
  def serve(video: Any) -> Any:
    return converted(dict(zip(names, module.weights)), video)

  tf.saved_model.save(module, str(folder), signatures={SIGNATURE: serve})


def read(folder: epath.Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
  """Makes a function from uint8 `[B, T, H, W, 3]` to probabilities.

  Raises:
    FileNotFoundError: no SavedModel there.
    ImportError: TensorFlow is missing.
    ValueError: the SavedModel is damaged.
  """
  import tensorflow as tf

  if not folder.is_dir():
    raise FileNotFoundError(f"There is no folder {str(folder)!r}.")
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
