"""The backbones by name: how each is built, and the frames it is fed with.

Importing this module imports no JAX.

An encoder of your own joins the others by a module like this. A config file
that imports the module and sets `config.model.backbone = "mine"` trains it.

    from flax import nnx
    from sum_l_jax.models import backbones

    class Mine(nnx.Module):  # A `backbones.Encoder`.
      feature_dim = 64

      def __init__(self, options, rng):  # EncoderOptions, np.random.Generator.
        patch, rngs = (2, 8, 8), nnx.Rngs(int(rng.integers(2**31)))
        self.patches = nnx.Conv(3, 64, patch, patch, dtype=options.dtype, rngs=rngs)

      def __call__(self, video, *, train, prepare):
        x = nnx.gelu(self.patches(prepare(video)))  # [B, T / 2, H / 8, W / 8, 64]
        return x.mean((1, 2, 3), dtype="float32"), {}

    backbones.register_backbone("mine", Mine, num_frames=8, stride=4, frames_multiple=2)

Sources of the stage tables: SlowFast Networks (Feichtenhofer et al., ICCV
2019), Table 1, and its published configurations. "R3D-50" in the SUM-L paper is
the slow pathway alone, 8 frames at stride 8. "8x8" counts the slow pathway: 8
frames, stride 8.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol

import numpy as np

if TYPE_CHECKING:
  import jax

SLOW = "slow"
FAST = "fast"


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
  """How an encoder computes, where a run decides it.

  An encoder may ignore what it has no use for.

  Attributes:
    conv: backend whose ways of computing convolutions, normalisation and
      pooling are used: "cpu", "gpu", "tpu", "native" (none of them), or "auto",
      the backend of this process. See `models/layers/convolution.py`.
    dtype: type of the activations. Parameters, statistics, the pooled feature
      and what follows it are always float32.
    bn_group_size: number of examples that share batch statistics; 0 is the
      whole batch.
    remat: what the backward pass computes again, to save memory: "none",
      "blocks" (each block of every stage after the first), or stages by name,
      such as "s1,s2", whose activations are the largest. All stages cost a
      third more arithmetic and save most of the memory.
    pool_window: side of the windows that evaluation averages instead of the
      whole map; 0 is the whole map. With windows the feature is `[B, P, C]` and
      the logits are `[B, P, K]`, P positions, whose scores are averaged.
    pack_clips: most clips that thin stages of SlowFast compute side by side in
      training on a TPU: a divisor of the batch, or 0, which chooses as many as
      divide the clips of a chip, up to 8.
  """

  conv: str = "auto"
  dtype: Any = np.float32
  bn_group_size: int = 0
  remat: str = "none"
  pool_window: int = 0
  pack_clips: int = 0

  @property
  def backend(self) -> str:
    """`conv` with "auto" resolved.

    Raises:
      ValueError: `conv` is not one of the names above.
    """
    from sum_l_jax.models.layers import convolution  # Imports JAX.

    return convolution.resolve_backend(self.conv)

  def remat_stages(self, stage_names: Sequence[str]) -> tuple[str, ...]:
    """Those of an encoder's stages that `remat` names.

    Raises:
      ValueError: `remat` names a stage that the encoder does not have.
    """
    if self.remat == "blocks":
      return tuple(stage_names[1:])
    if self.remat == "none":
      return ()
    names = tuple(name.strip() for name in self.remat.split(","))
    if set(names) - set(stage_names):
      raise ValueError(
        f"remat must be 'none', 'blocks' or some of {tuple(stage_names)}, separated by"
        f" commas; got {self.remat!r}."
      )
    return names


class Encoder(Protocol):
  """What a registered encoder is: an `nnx.Module` with these members.

  Its variables are `nnx.Param`, float32, and `nnx.BatchStat` (running
  statistics); training knows no others.

  Attributes:
    feature_dim: C, the width of the pooled feature.
  """

  feature_dim: int

  def __call__(
    self, video: jax.Array, *, train: bool, prepare: Callable[[jax.Array], jax.Array]
  ) -> tuple[jax.Array, Mapping[str, Mapping[str, jax.Array]]]:
    """Encodes clips.

    Args:
      video: uint8 `[B, T, H, W, 3]`.
      train: whether batch statistics are used, which moves the running ones.
      prepare: normalises frames, `[B, T', H, W, 3]` to float32. An encoder
        that leaves frames out calls it after choosing: bytes are cheaper.

    Returns:
      The pooled feature `[B, C]`, float32, and the activations of the stages by
      name and pathway, `[B, T', H', W', C']` each; {} if there are none to show.
    """
    ...


EncoderFactory = Callable[[EncoderOptions, np.random.Generator], Encoder]


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
  """

  make: EncoderFactory
  num_frames: int
  stride: int
  frames_multiple: int = 1
  stage_names: tuple[str, ...] = ()
  spec: NetworkSpec | None = None


@dataclasses.dataclass(frozen=True)
class StemSpec:
  """The first convolution.

  Attributes:
    features: number of channels that it gives.
    kernel: size [Tk, Hk, Wk].
    stride: stride in H and W.
    max_pool: whether a [1, 3, 3] max-pool of stride 2 follows.
    differences: whether it sees the differences to the neighbouring frames
      beside each frame (9 channels instead of 3).
  """

  features: int
  kernel: tuple[int, int, int]
  stride: int = 2
  max_pool: bool = True
  differences: bool = False


@dataclasses.dataclass(frozen=True)
class StageSpec:
  """A row of bottleneck blocks.

  Attributes:
    blocks: number of blocks.
    inner: channels of a and b.
    out: channels of c.
    temporal_kernel: Tk of a.
    stride: stride in H and W, which b of the first block has.
  """

  blocks: int
  inner: int
  out: int
  temporal_kernel: int = 1
  stride: int = 2


@dataclasses.dataclass(frozen=True)
class PathwaySpec:
  """A stem (s1) and the stages after it (s2, s3 ...)."""

  stem: StemSpec
  stages: tuple[StageSpec, ...]

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels after s1, s2 ..."""
    return (self.stem.features, *(stage.out for stage in self.stages))


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
  """A network of one or two pathways.

  Attributes:
    slow: the only pathway, or the slow one of two.
    fast: the fast pathway, or None.
    alpha: frames of the fast pathway per frame of the slow one.
    fusion_kernel: temporal kernel of the fast-to-slow convolutions.
  """

  slow: PathwaySpec
  fast: PathwaySpec | None = None
  alpha: int = 1
  fusion_kernel: int = 0

  @property
  def pathways(self) -> dict[str, PathwaySpec]:
    """The pathways by name, slow first."""
    return {SLOW: self.slow} | ({FAST: self.fast} if self.fast else {})

  @property
  def stage_names(self) -> tuple[str, ...]:
    """The stages in order: "s1", "s2" ..."""
    return tuple(f"s{i + 1}" for i in range(len(self.slow.widths)))

  @property
  def feature_dim(self) -> int:
    """Channels of the pooled feature, slow first."""
    return sum(path.widths[-1] for path in self.pathways.values())


def from_tables(spec: NetworkSpec, *, num_frames: int, stride: int) -> Backbone:
  """The entry of a network of this library's two families."""

  def make(options: EncoderOptions, rng: np.random.Generator) -> Encoder:
    # Imported here, because these modules import JAX.
    if spec.fast is None:
      from sum_l_jax.models import resnet3d

      return resnet3d.ResNet3D(spec, options, rng)
    from sum_l_jax.models import slowfast

    return slowfast.SlowFast(spec, options, rng)

  return Backbone(make, num_frames, stride, spec.alpha, spec.stage_names, spec)


_Blocks = tuple[int, int, int, int]


def _pathway(
  blocks: _Blocks, *, width: int, stem: tuple[int, int, int], temporal: _Blocks
) -> PathwaySpec:
  """A pathway of the paper's Table 1: each stage has twice the channels of the one before.

  Args:
    blocks: number of blocks of s2, s3, s4, s5.
    width: channels of the stem.
    stem: kernel of the stem.
    temporal: temporal kernels of s2, s3, s4, s5.
  """
  stages = tuple(
    StageSpec(
      count, inner=width << i, out=4 * width << i, temporal_kernel=size, stride=min(1 + i, 2)
    )
    for i, (count, size) in enumerate(zip(blocks, temporal))
  )
  return PathwaySpec(StemSpec(width, stem), stages)


def _slow_pathway(blocks: _Blocks) -> PathwaySpec:
  return _pathway(blocks, width=64, stem=(1, 7, 7), temporal=(1, 1, 3, 3))


# For two CPU cores and minutes, 56 to 64 pixels; not from the paper.
_TINY = PathwaySpec(
  stem=StemSpec(features=16, kernel=(1, 4, 4), stride=4, max_pool=False, differences=True),
  stages=(
    StageSpec(1, inner=16, out=32, temporal_kernel=3),
    StageSpec(1, inner=24, out=64, temporal_kernel=3),
    StageSpec(1, inner=48, out=128, temporal_kernel=3),
  ),
)
_R50 = (3, 4, 6, 3)
_R101 = (3, 4, 23, 3)


def _slowfast(blocks: _Blocks, *, alpha: int, fusion_kernel: int) -> Backbone:
  fast = _pathway(blocks, width=8, stem=(5, 7, 7), temporal=(3, 3, 3, 3))
  spec = NetworkSpec(_slow_pathway(blocks), fast, alpha, fusion_kernel)
  return from_tables(spec, num_frames=32, stride=2)


BACKBONES: dict[str, Backbone] = {
  "tiny": from_tables(NetworkSpec(_TINY), num_frames=8, stride=2),
  "slow_r50": from_tables(NetworkSpec(_slow_pathway(_R50)), num_frames=8, stride=8),
  "slowfast_r50": _slowfast(_R50, alpha=4, fusion_kernel=7),
  "slowfast_r50_4x16": _slowfast(_R50, alpha=8, fusion_kernel=5),
  "slowfast_r101": _slowfast(_R101, alpha=4, fusion_kernel=5),
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
) -> None:
  """Adds an encoder to the registry; this module's docstring has an example.

  The name is the value of `config.model.backbone`, `make` the encoder's class,
  and the other arguments are fields of `Backbone`. A second registration under
  a name replaces the first, as when a notebook's cell runs again.

  Raises:
    ValueError: the name is one of this library's own.
  """
  if name in _OURS:
    raise ValueError(
      f"The backbone {name!r} is part of this library; register yours under another name."
    )
  BACKBONES[name] = Backbone(make, num_frames, stride, frames_multiple, tuple(stage_names))


def find(name: str) -> Backbone:
  """The entry of that name.

  Raises:
    ValueError: nobody has registered it; names the choices.
  """
  if name not in BACKBONES:
    raise ValueError(
      f"backbone must be one of {tuple(BACKBONES)}, got {name!r}. An encoder of your own must be"
      " registered first (sum_l_jax.models.register_backbone): import its module."
    )
  return BACKBONES[name]
