"""An exported network: a folder that runs without this package.

  card.json                           class names, pixels, frames, what goes in
                                      and what comes out
  README.md                           how to run it
  model.jax_export and weights.npz    the program (StableHLO) and its arrays
  saved_model/                        program and arrays for TensorFlow, in place
                                      of these two
  model.onnx                          program and arrays for ONNX's runtimes,
                                      likewise; large arrays are in
                                      model.onnx.data

JAX's program is a function of the weights, which keeps it small and lets XLA
treat them as data; folding them as constants would take minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import importlib.metadata
import json
from typing import Any
from typing import Literal

from etils import epath
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.evaluation import towers
from sum_l_jax.prediction import predictor
from sum_l_jax.prediction import score_network
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import extras
from sum_l_jax.system import storage
from sum_l_jax.tools import jax_config
from sum_l_jax.tools.export import export_format
from sum_l_jax.tools.export import onnx_file
from sum_l_jax.tools.export import saved_model

Arrays = Mapping[str, Any]
_JAX_FILES = (export_format.MODEL, export_format.ARRAYS)


def make_function(
  weights: weight_files.Weights, *, file_format: str = "jax"
) -> tuple[Callable[[Arrays, Any], dict[str, Any]], dict[str, np.ndarray]]:
  """Makes the network as a function of arrays and video.

  It is made for all platforms at once, and for ONNX of operations that ONNX has.

  Args:
    weights: weights of a checkpoint with an ego encoder and heads.
    file_format: one of `export_format.FORMATS`.

  Returns:
    (arrays by name, uint8 `[B, T, H, W, 3]`) -> {task: probabilities `[B, K]`},
    and the arrays.

  Raises:
    ValueError: no ego encoder or head, or not the network's arrays.
  """
  weight_files.require_view(weights, types.EGO)
  made = {
    platform: score_network.make_score(weights.card, **options)
    for platform, options in _ways(file_format).items()
  }
  steps = {platform: score for platform, (score, _) in made.items()}
  # The arrays are the same, whatever computes the convolutions.
  network = next(iter(made.values()))[1]
  params, stats = towers.arrays(weights, types.EGO, network)

  def run(arrays: Arrays, video: Any) -> dict[str, Any]:
    tree = weight_files.unflatten(arrays)
    # An encoder without BatchNorm has no statistics, and a flat tree no place for none.
    inputs = tree["params"], tree.get("stats", {}), {"video": video}
    if len(steps) == 1:
      (step,) = steps.values()
      return dict(step(*inputs))
    return dict(jax.lax.platform_dependent(*inputs, **steps))

  flat = weight_files.flatten({"params": params, "stats": stats})
  return run, {name: np.asarray(value) for name, value in flat.items()}


def _ways(file_format: str) -> dict[str, dict[str, str]]:
  """How the network is computed, by platform."""
  if file_format == export_format.ONNX:
    return {"onnxruntime": {"conv": export_format.ONNX_CONV, "attention": "plain"}}
  return {platform: {"conv": conv} for platform, conv in export_format.PLATFORMS.items()}


def make_card(
  weights: weight_files.Weights, *, file_format: str, batch: int | str
) -> dict[str, Any]:
  """Makes what `card.json` says, as JSON values."""
  recipe = score_network.checkpoint_recipe(weights.card)
  meanings = {
    types.SOFTMAX: "probabilities of the classes, of sum 1",
    types.MULTI_LABEL: "probability of each class by itself",
  }
  size = "batch" if batch == export_format.DYNAMIC else batch
  return {
    "format": file_format,
    "platforms": list(_ways(file_format)),
    "backbone": weight_files.backbone_of(weights.card, types.EGO),
    "input": {
      "name": "video",
      "dtype": "uint8",
      "shape": [size, *recipe.video_shape],
      "meaning": "RGB frames: clip, time, height, width, channel",
    },
    "outputs": {
      task: {
        "dtype": "float32",
        "shape": [size, len(names)],
        "kind": recipe.kinds[task],
        "meaning": meanings[recipe.kinds[task]],
      }
      for task, names in recipe.class_names.items()
    },
    "class_names": {t: list(n) for t, n in recipe.class_names.items()},
    "frames": {
      "count": recipe.num_frames,
      "stride": recipe.stride,
      "sampling": recipe.sampling,
      "crop_size": recipe.crop_size,
      "fps": recipe.fps,
      "rates": list(recipe.rates),
    },
    # The program applies them; they are here to be looked up.
    "pixels": weights.card["pixels"][types.EGO],
    "pool_window": towers.pool_window(weights.card, types.EGO),
    "checkpoint": {"step": weights.step, "sha256": weight_files.weights_sha256(weights, types.EGO)},
    "versions": {
      name: importlib.metadata.version(name)
      for name in ("jax", *(["onnx"] if file_format == export_format.ONNX else []))
    },
  }


def write_model(
  folder: epath.Path,
  run: Callable[[Arrays, Any], dict[str, Any]],
  arrays: Arrays,
  card: dict[str, Any],
) -> None:
  """Writes program, weights and card; the card last, when all is there.

  Args:
    folder: an empty folder.
    run: function from `make_function`.
    arrays: its arrays.
    card: card from `make_card`, to which the files' hashes are added.

  Raises:
    ImportError: TensorFlow or onnx is wanted and missing.
    ValueError: jax2tf is wanted and missing, or the network can't be written as ONNX.
  """
  shape = tuple(card["input"]["shape"])
  platforms = tuple(export_format.PLATFORMS)
  # Else each operation carries the path and line of the code behind it, in files
  # on this machine.
  with jax_config.changed("jax_traceback_in_locations_limit", 0):
    if card["format"] == export_format.SAVED_MODEL:
      path = folder / export_format.SAVED_MODEL
      saved_model.write(path, run, arrays, video_shape=shape, platforms=platforms)
    elif card["format"] == export_format.ONNX:
      _add_hashes(card, folder, onnx_file.write(folder, run, arrays, card))
    else:
      video = jax.export.symbolic_shape(", ".join(map(str, shape)))
      abstract = {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in arrays.items()}
      export = jax.export.export(jax.jit(run), platforms=platforms)
      program = export(abstract, jax.ShapeDtypeStruct(video, jnp.uint8))
      storage.write_bytes(folder / export_format.MODEL, bytes(program.serialize()))
      np.savez(folder / export_format.ARRAYS, **arrays)
      _add_hashes(card, folder, _JAX_FILES)
  text = json.dumps(card, indent=1, ensure_ascii=False)
  storage.write_text(folder / export_format.CARD, text + "\n")


def _add_hashes(card: dict[str, Any], folder: epath.Path, names: Iterable[str]) -> None:
  card["sha256"] = {name: storage.sha256(folder / name) for name in names}


@dataclasses.dataclass(frozen=True)
class _Input:
  shape: tuple[checked_json.Count | Literal["batch"], ...]


@dataclasses.dataclass(frozen=True)
class _Output:
  kind: Literal["softmax", "multi_label"]


@dataclasses.dataclass(frozen=True)
class _Card:
  """What a card must hold, as far as it is read again."""

  input: _Input
  outputs: dict[str, _Output]
  class_names: dict[str, list[str]]
  frames: weight_files.Frames
  sha256: dict[str, checked_json.Sha256] = dataclasses.field(default_factory=dict)


def read_card(folder: epath.Path) -> dict[str, Any]:
  """Reads `card.json`.

  Raises:
    FileNotFoundError: there is no card.
    ValueError: it is not the card of an exported network.
  """
  path = folder / export_format.CARD
  if not storage.is_file(path):
    raise FileNotFoundError(
      f"There is no {export_format.CARD} in {str(folder)!r}. Give a folder that `python -m"
      " sum_l_jax.tools.export` wrote; it writes the card last."
    )
  try:
    card = checked_json.decode(storage.read_bytes(path), checked_json.Object)
    checked_json.check(card.get("format"), str)
    known = card["format"] in export_format.FORMATS
    if known:
      checked_json.check(card, _Card)
  except (checked_json.JsonError, TypeError) as error:
    raise ValueError(f"{str(path)!r} is not the card of an exported network ({error}).") from error
  if not known:
    raise ValueError(
      f"{str(path)!r} says format {card['format']!r}; known are {export_format.FORMATS}. It was"
      " written by a newer version."
    )
  return card


def load_exported(folder: addresses.PathLike, *, batch_size: int = 8) -> predictor.Predictor:
  """Loads an exported network, ready for videos.

  Args:
    folder: folder that `python -m sum_l_jax.tools.export` wrote.
    batch_size: most windows that are scored together; a network exported for a
      fixed batch takes that number instead.

  Raises:
    FileNotFoundError: no exported network there.
    ImportError: TensorFlow or onnxruntime is wanted and missing; says how to install it.
    ValueError: its files are damaged.
  """
  folder = addresses.path(folder)
  card = read_card(folder)
  try:
    score = _READERS[card["format"]](folder, card.get("sha256", {}))
  except ImportError as error:
    raise ImportError(extras.advice(error) or str(error), name=error.name) from error
  recipe = score_network.make_recipe(
    card["class_names"],
    {task: output["kind"] for task, output in card["outputs"].items()},
    card["frames"],
  )
  size = card["input"]["shape"][0]
  fixed = isinstance(size, int)
  return predictor.Predictor(
    recipe, score, batch_size=size if fixed else batch_size, fixed_batch=fixed
  )


def _check_files(folder: epath.Path, names: Iterable[str], hashes: Mapping[str, str]) -> None:
  """Raises an error where a file is missing, or not the one that was written."""
  for name in names:
    path = folder / name
    if not storage.is_file(path):
      raise FileNotFoundError(f"{str(path)!r} is missing. Copy it again.")
    if storage.sha256(path) != hashes.get(name):
      raise ValueError(
        f"{str(path)!r} is not the file that was exported: its SHA-256 differs from that in"
        f" {export_format.CARD}. Copy or export it again."
      )


def _read_jax(folder: epath.Path, hashes: Mapping[str, str]) -> predictor.Score:
  _check_files(folder, _JAX_FILES, hashes)
  data = bytearray(storage.read_bytes(folder / export_format.MODEL))
  call = jax.jit(jax.export.deserialize(data).call)
  with (
    storage.open_binary(folder / export_format.ARRAYS) as stored,
    np.load(stored, allow_pickle=False) as file,
  ):
    arrays = jax.device_put({name: file[name] for name in file.files})
  return lambda video: call(arrays, video)


def _read_saved_model(folder: epath.Path, hashes: Mapping[str, str]) -> predictor.Score:
  del hashes  # TensorFlow's folder has a fingerprint of its own.
  with storage.local_folder(folder / export_format.SAVED_MODEL) as copy:
    return saved_model.read(epath.Path(copy))


def _read_onnx(folder: epath.Path, hashes: Mapping[str, str]) -> predictor.Score:
  _check_files(folder, {onnx_file.MODEL, *hashes}, hashes)
  with storage.local_folder(folder) as copy:
    return onnx_file.read(epath.Path(copy))


_READERS = {
  "jax": _read_jax,
  export_format.SAVED_MODEL: _read_saved_model,
  export_format.ONNX: _read_onnx,
}
