"""Encoders as the extraction of features uses them: ours, and functions of users."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import importlib
from typing import Any
from typing import Literal
from typing import Protocol
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import feature_card
from sum_l_jax.models import backbones
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import devices
from sum_l_jax.train.state import Network

Kind = Literal["tokens", "pooled"]
Dtype = Literal["bfloat16", "float32"]


@dataclasses.dataclass(frozen=True)
class Stored:
  """What is kept of an encoder's result.

  Attributes:
    kind: "tokens" or "pooled".
    dtype: type of the stored values.
  """

  kind: Kind
  dtype: Dtype = "bfloat16"


class ClipEncoder(Protocol):
  """From clips to features.

  Attributes:
    about: what the card says of it.
    frames: the frames that it takes.
    pixels: what it does to the bytes.
    shape: tokens and channels of its result.
    multiple: number that a batch must be a multiple of.
    short_side: range of the short side in pixels before a random crop.
  """

  about: feature_card.FeatureEncoder
  frames: feature_card.FeatureFrames
  pixels: dict[str, Any]
  shape: tuple[int, int]
  multiple: int
  short_side: tuple[int, int]

  def begin(self, video: np.ndarray, color_offset: np.ndarray) -> Callable[[], np.ndarray]:
    """Starts with a batch.

    Args:
      video: uint8 `[B, T, H, W, 3]`.
      color_offset: float32 `[B, 3]`, to be added to RGB on the scale 0..1.

    Returns:
      A function that waits for the features `[B, tokens, channels]`.
    """
    ...


class OwnEncoder:
  """An encoder of this library, on all devices; a `ClipEncoder`."""

  def __init__(
    self,
    path: addresses.PathLike,
    view: str,
    stored: Stored,
    *,
    tower: str = "",
    precision: str = "float32",
    attention: str = "auto",
  ) -> None:
    """Reads the weights.

    Args:
      path: workdir, stage or checkpoint folder, or `.npz` file.
      view: view of the clips.
      stored: what is kept.
      tower: view whose encoder is taken; "" is that of the clips, or the only one.
      precision: type of the activations, "float32" or "bfloat16".
      attention: see `models.EncoderOptions`.

    Raises:
      FileNotFoundError, ValueError: there are no such weights, or no such encoder
        in them, or it has no tokens.
    """
    weights = weight_files.read_weights(path)
    weight_files.check_card(weights.card, weights.source)
    tower = _tower(weights, view, tower)
    encoder, stats = _encoder_of(weights, tower)
    card = weights.card
    backbone = weight_files.backbone_of(card, tower)
    said = weight_files.frames_of(card, tower)
    self.frames = feature_card.FeatureFrames(
      said["count"], said["stride"], said["crop_size"], said.get("sampling", types.BY_STRIDE)
    )
    self.pixels = dict(card["pixels"][tower])
    self.short_side = backbones.find(backbone).short_sides_of(self.frames.crop_size)
    alone = weight_files.Weights({types.EGO: encoder}, {types.EGO: stats}, card, weights.source)
    self.about = feature_card.FeatureEncoder(
      backbone,
      weights=weight_files.weights_sha256(alone, types.EGO),
      source=weights.source,
      options={"precision": precision, "tower": tower},
    )
    self._mesh = devices.make_mesh()
    self.multiple = self._mesh.size
    network = Network(
      lambda: models.make_model(
        backbone=backbone,
        tasks={types.EGO: {}},
        embedding_dim=None,
        pixels={types.EGO: models.PixelSpec.from_json(self.pixels)},
        options=models.EncoderOptions(dtype=jnp.dtype(precision).type, attention=attention),
      )
    )
    wanted = {types.EGO: encoder}, ({types.EGO: stats} if stats else {})
    for saved, shapes in zip(wanted, network.shapes):
      manager.check_same_arrays(saved, shapes, where=weights.source)
    self._arrays = jax.device_put(wanted, devices.replicated(self._mesh))
    self._step = devices.jit_over(
      self._mesh,
      _make_step(network, stored, backbone),
      out_shardings=devices.batch_sharding(self._mesh),
      params=network.shapes,
    )
    side = self.frames.crop_size
    sizes = {"video": (self.frames.count, side, side, 3), "color_offset": (3,)}
    types_of = {"video": np.uint8, "color_offset": np.float32}
    batch = {
      name: jax.ShapeDtypeStruct((self.multiple, *size), types_of[name])
      for name, size in sizes.items()
    }
    _, tokens, channels = jax.eval_shape(self._step, *self._arrays, batch).shape
    self.shape = (tokens, channels)

  def begin(self, video: np.ndarray, color_offset: np.ndarray) -> Callable[[], np.ndarray]:
    """See `ClipEncoder.begin`."""
    batch = devices.put_batch({"video": video, "color_offset": color_offset}, self._mesh)
    features = self._step(*self._arrays, batch)
    return lambda: np.asarray(jax.device_get(features))


def _tower(weights: weight_files.Weights, view: str, tower: str) -> str:
  """The view whose encoder is taken."""
  has = [v for v in types.VIEWS if v in weights.params and _has_encoder(weights, v)]
  if tower and tower not in has:
    raise ValueError(f"--tower={tower}: {weights.source} has encoders of the views {has}.")
  if not has:
    raise ValueError(f"{weights.source} has no encoder; it has {sorted(weights.params)}.")
  return tower or (view if view in has else has[0])


def _has_encoder(weights: weight_files.Weights, view: str) -> bool:
  # An exo tower may share the ego encoder.
  shared = view == types.EXO and "encoder" in weights.params.get(types.EGO, {})
  return "encoder" in weights.params[view] or shared


def _encoder_of(weights: weight_files.Weights, tower: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """The encoder's parameters and statistics alone; see `evaluation.towers.select`."""
  own = weights.params[tower]
  params = own if "encoder" in own else weights.params[types.EGO]
  stats = weights.stats.get(tower, {})
  part = lambda tree: {"encoder": tree["encoder"]} if "encoder" in tree else {}
  return part(params), part(stats)


def _make_step(network: Network, stored: Stored, backbone: str) -> Callable[..., jax.Array]:
  dtype = jnp.dtype(stored.dtype)

  def step(params: Any, stats: Any, batch: Mapping[str, Any]) -> jax.Array:
    outputs, _ = network.apply(params, stats, {types.EGO: cast(Any, batch)}, train=False)
    if stored.kind == feature_card.POOLED:
      return outputs[types.EGO]["features"][:, None].astype(dtype)
    tokens = outputs[types.EGO].get("tokens")
    if tokens is None:
      raise ValueError(f"The encoder {backbone!r} gives no tokens; give --kind=pooled.")
    return tokens.astype(dtype)

  return step


@dataclasses.dataclass(frozen=True)
class _FunctionCard:
  """What a user's function must say of itself, as `function.card`."""

  name: checked_json.Name
  frames: checked_json.Count
  stride: checked_json.Count
  crop_size: checked_json.Count
  sampling: Literal["stride", "parts"] = types.BY_STRIDE
  weights: str = ""
  options: checked_json.Object = dataclasses.field(default_factory=dict)


class NamedFunction:
  """A function of the user's own, by "module:function"; a `ClipEncoder`.

  It is called with clips uint8 `[n, frames, crop_size, crop_size, 3]`, RGB, and
  returns `[n, tokens, channels]`, or `[n, channels]` for pooled features. Its
  attribute `card` says what it is: "name", "frames", "stride" and "crop_size", and
  maybe "sampling", "weights" (a fingerprint) and "options". A class is called once without
  arguments, and what it gives is the function. The module is imported: it is code
  of whoever runs the command.
  """

  def __init__(self, name: str, stored: Stored) -> None:
    """Imports the function, and tries it with an empty clip.

    Raises:
      ValueError: there is no such function, or it isn't one as above.
    """
    self._name, self._stored = name, stored
    self._function = _load(name)
    said = _card_of(self._function, name)
    self.frames = feature_card.FeatureFrames(
      said.frames, said.stride, said.crop_size, said.sampling
    )
    self.pixels = {}
    self.about = feature_card.FeatureEncoder(
      said.name, weights=said.weights, source=name, options=said.options
    )
    self.multiple = 1
    side = said.crop_size
    self.short_side = (side * 8 // 7, side * 10 // 7)
    self.shape = self._call(np.zeros((1, said.frames, side, side, 3), np.uint8)).shape[1:]

  def begin(self, video: np.ndarray, color_offset: np.ndarray) -> Callable[[], np.ndarray]:
    """See `ClipEncoder.begin`; there is no offset."""
    del color_offset
    features = self._call(video)
    if features.shape[1:] != self.shape:
      raise ValueError(
        f"--encoder={self._name} gave {list(features.shape[1:])} tokens and channels for some clips"
        f" and {list(self.shape)} for others."
      )
    return lambda: features

  def _call(self, video: np.ndarray) -> np.ndarray:
    found = np.asarray(self._function(video))
    if found.ndim == 2 and self._stored.kind == feature_card.POOLED:
      found = found[:, None]
    if found.ndim != 3 or len(found) != len(video) or not jnp.issubdtype(found.dtype, jnp.floating):
      raise ValueError(
        f"--encoder={self._name} must give an array of floats [clips, tokens, channels], or"
        f" [clips, channels] with --kind=pooled; for {len(video)} clips it gave {found.dtype}"
        f" {list(found.shape)}."
      )
    if self._stored.kind == feature_card.POOLED and found.shape[1] != 1:
      raise ValueError(
        f"--encoder={self._name} gives {found.shape[1]} tokens, and --kind=pooled keeps one vector"
        " of a clip. Give --kind=tokens, or have the function pool them."
      )
    return found


def import_module(name: str, *, what: str) -> Any:
  """Imports a module of the user's.

  Args:
    name: its name.
    what: option that names it, for the message.

  Raises:
    ValueError: there is no such module.
  """
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name != name.split(".")[0] and error.name != name:
      raise  # The module is there, and lacks one that it imports.
    raise ValueError(
      f"{what}: there is no module {name!r}. Run the command where the file lies, or add its folder"
      " to PYTHONPATH."
    ) from error


def _load(name: str) -> Any:
  module, colon, attribute = name.partition(":")
  if not colon or not module or not attribute:
    raise ValueError(f"--encoder={name!r} must be MODULE:FUNCTION, such as my_encoder:encode.")
  found = import_module(module, what="--encoder")
  if not hasattr(found, attribute):
    raise ValueError(f"--encoder={name!r}: the module has no {attribute!r}.")
  function = getattr(found, attribute)
  if isinstance(function, type):
    function = function()
  if not callable(function):
    raise ValueError(f"--encoder={name!r} is no function but {type(function).__name__}.")
  return function


def _card_of(function: Any, name: str) -> _FunctionCard:
  card = getattr(function, "card", None)
  if not isinstance(card, Mapping):
    raise ValueError(
      f"--encoder={name!r} has no attribute `card`, a dictionary with name, frames, stride and"
      " crop_size; docs/features.md has an example."
    )
  try:
    return checked_json.check(dict(card), _FunctionCard)
  except checked_json.JsonError as error:
    raise ValueError(f"--encoder={name!r}: its `card` is wrong: {error}.") from error
