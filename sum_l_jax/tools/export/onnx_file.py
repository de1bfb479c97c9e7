"""A network as an ONNX file, and onnxruntime's side of it.

onnx is imported when a file is written, and onnxruntime when one is read.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import json
from typing import Any

from etils import epath
import numpy as np

MODEL = "model.onnx"
# The arrays of a network that is too large for one file of protobuf, 2 GiB.
DATA = "model.onnx.data"
MOST_IN_ONE_FILE = 1 << 30

# What the file carries of the card, each as JSON.
METADATA = ("class_names", "outputs", "frames", "pixels", "pool_window", "backbone", "checkpoint")


def write(
  folder: epath.Path,
  run: Callable[[Mapping[str, Any], Any], dict[str, Any]],
  arrays: Mapping[str, Any],
  card: Mapping[str, Any],
) -> list[str]:
  """Writes the file.

  Args:
    folder: folder on the local disk.
    run: (arrays, video) -> {task: probabilities}.
    arrays: the weights.
    card: card of `exported_model.make_card`.

  Returns:
    Names of the files.

  Raises:
    ImportError: onnx is missing.
    ValueError: the network computes something that is not expressed in ONNX.
  """
  import onnx

  from sum_l_jax.tools.export import onnx_graph
  from sum_l_jax.tools.export import onnx_program

  metadata = {name: json.dumps(card[name], ensure_ascii=False) for name in METADATA}
  try:
    model = onnx_program.make_model(
      run, arrays, video_shape=card["input"]["shape"], metadata=metadata, producer="sum_l_jax"
    )
  except onnx_graph.Unsupported as error:
    raise ValueError(
      f"The backbone {card['backbone']!r} can't be exported as ONNX: {error}. Export it with"
      " --format=jax or --format=saved_model."
    ) from error
  large = sum(len(array.raw_data) for array in model.graph.initializer) > MOST_IN_ONE_FILE
  onnx.save_model(
    model,
    str(folder / MODEL),
    save_as_external_data=large,
    location=DATA if large else None,
  )
  # By its path, which reaches the arrays beside it.
  onnx.checker.check_model(str(folder / MODEL), full_check=True)
  return [MODEL, DATA] if large else [MODEL]


def read(folder: epath.Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
  """Makes a function from uint8 `[B, T, H, W, 3]` to probabilities.

  Args:
    folder: folder on the local disk.

  Raises:
    ImportError: onnxruntime is missing.
    ValueError: onnxruntime can't load the file.
  """
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3  # Errors; warnings tell what it optimizes.
  try:
    session = onnxruntime.InferenceSession(
      str(folder / MODEL), options, providers=onnxruntime.get_available_providers()
    )
  except Exception as error:
    # Its errors have no class in common.
    if not type(error).__module__.startswith("onnxruntime"):
      raise
    raise ValueError(
      f"onnxruntime {onnxruntime.__version__} can't load {str(folder / MODEL)!r} ({error})."
      " Install a newer onnxruntime, or export again."
    ) from error
  names = [output.name for output in session.get_outputs()]
  (video_input,) = session.get_inputs()

  def score(video: np.ndarray) -> dict[str, np.ndarray]:
    outputs = session.run(names, {video_input.name: video})
    return {name: np.asarray(output) for name, output in zip(names, outputs)}

  return score
