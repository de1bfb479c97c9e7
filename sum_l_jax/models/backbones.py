"""The backbones by name: how each is built, and the frames it is fed with.

An encoder of your own joins the others by a module like this. A config file
that imports the module and sets `config.model.backbone = "mine"` trains it.

    from flax import nnx
    from sum_l_jax.models import backbones
    from sum_l_jax.models import encoder

    class Mine(nnx.Module):  # An `encoder.Encoder`.
      feature_dim = 64

      def __init__(self, options, rng):  # encoder.EncoderOptions, np.random.Generator.
        patch, rngs = (2, 8, 8), nnx.Rngs(int(rng.integers(2**31)))
        self.patches = nnx.Conv(3, 64, patch, patch, dtype=options.dtype, rngs=rngs)

      def __call__(self, video, *, train, prepare, key=None):
        x = nnx.gelu(self.patches(prepare(video)))  # [B, T / 2, H / 8, W / 8, 64]
        return encoder.Encoding(x.mean((1, 2, 3), dtype="float32"))

    backbones.register_backbone("mine", Mine, num_frames=8, stride=4, frames_multiple=2)
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from sum_l_jax import types
from sum_l_jax.models import network_spec
from sum_l_jax.models import resnet3d
from sum_l_jax.models import slowfast
from sum_l_jax.models import vit
from sum_l_jax.models import vit_spec
from sum_l_jax.models.encoder import Encoder
from sum_l_jax.models.encoder import EncoderFactory
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.layer_order import LayerOrder
from sum_l_jax.models.network_spec import NetworkSpec
from sum_l_jax.models.vit_spec import VitSpec


@dataclasses.dataclass(frozen=True)
class Backbone:
  """An entry of the registry.

  Attributes:
    make: function (or class) that builds the encoder from the options and the
      generator of its weights.
    num_frames: T, number of frames of a clip that it was designed for.
    stride: distance of these frames, in stored frames.
    frames_multiple: number that T must be a multiple of.
    stage_names: names of the stages whose activations it returns, in order.
    spec: stage tables of the networks of this library, None for others.
    windows: whether its authors score windows at test time that span the map of
      the training crop, and average these scores; else the whole map is pooled.
    vit: row of a vision transformer of this library, None for others.
    order: which layer each parameter belongs to, for layers that are frozen or
      trained at rates of their own; None where nobody knows.
    crop_size: side in pixels of the clips that it was designed for.
    crop_multiple: number that this side must be a multiple of.
    short_sides: range of the short side in pixels before the random crop; None
      is 8/7 to 10/7 of the crop, which are 256 to 320 for 224.
    eval_crop_size: side in pixels at test time; 0 is that of training.
    normalization: mean and standard deviation of the pixels that it was designed
      for, a key of `types.NORMALIZATIONS`.
  """

  make: EncoderFactory
  num_frames: int
  stride: int
  frames_multiple: int = 1
  stage_names: tuple[str, ...] = ()
  spec: NetworkSpec | None = None
  windows: bool = False
  vit: VitSpec | None = None
  crop_size: int = 224
  crop_multiple: int = 1
  short_sides: tuple[int, int] | None = (256, 320)
  eval_crop_size: int = 256
  normalization: str = "video"
  order: LayerOrder | None = None

  @property
  def num_layers(self) -> int:
    """Blocks or stages, which can be frozen one by one; 0 where nobody knows."""
    return self.order.count if self.order else 0

  @property
  def convolutional(self) -> bool:
    """Whether it is known to have neither low-rank updates nor paths to drop."""
    return self.spec is not None

  def short_sides_of(self, crop: int) -> tuple[int, int]:
    """Range of the short side in pixels before a random crop of this side."""
    return self.short_sides or (crop * 8 // 7, crop * 10 // 7)

  def eval_crop_of(self, crop: int) -> int:
    """Side in pixels at test time, where `crop` is that of training."""
    return self.eval_crop_size or crop

  def pool_window(self, window: int, *, train_crop: int, test_crop: int) -> int:
    """Side of the windows that are pooled at test time; 0 is the whole map.

    Args:
      window: what is asked for, `eval.pool_window`; -1 is what its authors do.
      train_crop: side of the training crop in pixels.
      test_crop: side of the test crop. No window fits one that is smaller.
    """
    if window >= 0:
      return window
    return train_crop // 32 if self.windows and test_crop >= train_crop else 0


def from_tables(
  spec: NetworkSpec, *, num_frames: int, stride: int, windows: bool = False
) -> Backbone:
  """Makes the entry of a network of one or two pathways."""

  def make(options: EncoderOptions, rng: np.random.Generator) -> Encoder:
    family = resnet3d.ResNet3D if spec.fast is None else slowfast.SlowFast
    return family(spec, options, rng)

  return Backbone(
    make,
    num_frames,
    stride,
    spec.alpha,
    spec.stage_names,
    spec,
    windows,
    order=spec.order,
  )


def from_vit(
  spec: VitSpec, *, stride: int, normalization: str, crop_size: int | None = None
) -> Backbone:
  """Makes the entry of a vision transformer; its crop is its table's unless it is given."""

  def make(options: EncoderOptions, rng: np.random.Generator) -> Encoder:
    return vit.Vit(spec, options, rng)

  return Backbone(
    make,
    spec.frames,
    stride,
    spec.patch[0],
    vit=spec,
    crop_size=crop_size or spec.image,
    crop_multiple=math.lcm(*spec.patch[1:]),
    short_sides=None,
    eval_crop_size=0,
    normalization=normalization,
    order=spec.order,
  )


# Stored frames between two of a clip, and pixels, by the first part of the name.
_VIT_INPUTS: dict[str, tuple[int, str]] = {
  "vit_tiny": (2, "video"),
  "videoprism": (2, "unit"),
  "vjepa2": (4, "imagenet"),
  "vjepa21": (4, "imagenet"),
  "videomae": (4, "imagenet"),
  "avion": (4, "lavila"),
  "lavila": (4, "lavila"),
  "siglip2": (8, "half"),
  "dinov2": (8, "imagenet"),
}
# Its positions are made for 518 pixels, and published scores are of 224.
_VIT_CROPS = {"dinov2": 224}


def _vits() -> dict[str, Backbone]:
  entries = {}
  for name, spec in vit_spec.SPECS.items():
    family = name.split("_")[0]
    stride, normalization = _VIT_INPUTS.get(name) or _VIT_INPUTS[family]
    entries[name] = from_vit(
      spec, stride=stride, normalization=normalization, crop_size=_VIT_CROPS.get(family)
    )
  return entries


BACKBONES: dict[str, Backbone] = {
  "tiny": from_tables(network_spec.TINY, num_frames=8, stride=2),
  # The SUM-L authors' networks of one pathway score windows (as Ego-Exo's of one
  # and of two do), and those of two pathways pool the whole map.
  "slow_r50": from_tables(network_spec.SLOW_R50, num_frames=8, stride=8, windows=True),
  "slowfast_r50": from_tables(network_spec.SLOWFAST_R50, num_frames=32, stride=2),
  "slowfast_r50_4x16": from_tables(network_spec.SLOWFAST_R50_4X16, num_frames=32, stride=2),
  "slowfast_r101": from_tables(network_spec.SLOWFAST_R101, num_frames=32, stride=2),
  # For weights of mmaction2, whose SLOW is slow_r50.
  "mmaction2_slowfast_r50": from_tables(
    network_spec.MMACTION2_SLOWFAST_R50, num_frames=32, stride=2
  ),
  "mmaction2_slowfast_r50_4x16": from_tables(
    network_spec.MMACTION2_SLOWFAST_R50_4X16, num_frames=32, stride=2
  ),
  "mmaction2_slowfast_r101": from_tables(
    network_spec.MMACTION2_SLOWFAST_R101, num_frames=32, stride=2
  ),
  **_vits(),
}
_OURS = frozenset(BACKBONES)


def register_backbone(
  name: str,
  make: EncoderFactory,
  *,
  num_frames: int,
  stride: int,
  frames_multiple: int = 1,
  stage_names: Sequence[str] = (),
  crop_size: int = 224,
  crop_multiple: int = 1,
  short_sides: tuple[int, int] | None = (256, 320),
  eval_crop_size: int = 256,
  normalization: str = "video",
  order: LayerOrder | None = None,
) -> None:
  """Adds an encoder to the registry; this module's docstring has an example.

  The name is the value of `config.model.backbone`, `make` the encoder's class,
  and the other arguments are fields of `Backbone`. A second registration under
  a name replaces the first, as when a notebook's cell runs again.

  Raises:
    ValueError: the name is one of this library's own, or there is no such
      normalization.
  """
  entry = Backbone(
    make,
    num_frames,
    stride,
    frames_multiple,
    tuple(stage_names),
    crop_size=crop_size,
    crop_multiple=crop_multiple,
    short_sides=short_sides,
    eval_crop_size=eval_crop_size,
    normalization=normalization,
    order=order,
  )
  _add(name, entry)


def register_vit(name: str, spec: VitSpec, *, stride: int, normalization: str = "video") -> None:
  """Adds a vision transformer to the registry; `models/vit_spec.py` has an example.

  Args:
    name: value of `config.model.backbone`.
    spec: its row.
    stride: distance of the frames, in stored frames.
    normalization: a key of `types.NORMALIZATIONS`.

  Raises:
    ValueError: the name is one of this library's own, or there is no such
      normalization.
  """
  _add(name, from_vit(spec, stride=stride, normalization=normalization))


def _add(name: str, entry: Backbone) -> None:
  if entry.normalization not in types.NORMALIZATIONS:
    raise ValueError(
      f"normalization must be one of {tuple(types.NORMALIZATIONS)}, got {entry.normalization!r}."
    )
  if name in _OURS:
    raise ValueError(
      f"The backbone {name!r} is part of this library; register yours under another name."
    )
  BACKBONES[name] = entry


def find(name: str) -> Backbone:
  """The entry of that name.

  Raises:
    ValueError: nobody has registered it; names the choices.
  """
  if name not in BACKBONES:
    raise ValueError(
      f"backbone must be one of {tuple(BACKBONES)}, got {name!r}. An encoder of your own must be"
      " registered first (sum_l_jax.models.register_backbone): import its module, or give a"
      " command the file, as in `python -m sum_l_jax --import=FILE.py predict`."
    )
  return BACKBONES[name]
