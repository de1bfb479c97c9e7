"""3-D ResNet of bottleneck blocks: one pathway, and the network of one.

x ----------------------------------------.
| a  [Tk, 1, 1]            BN ReLU        |  shortcut [1, 1, 1] stride s, BN
| b  [1, 3, 3]  stride s   BN ReLU        |  (first block of a stage only,
| c  [1, 1, 1]             BN (scale 0)   |  otherwise the identity)
'------------------ + --------------------'
                    |
                   ReLU
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models import backbones
from sum_l_jax.models.layers import convolution
from sum_l_jax.models.layers import difference
from sum_l_jax.models.layers import norm
from sum_l_jax.models.layers import packing
from sum_l_jax.models.layers import pool


class ConvNorm(nnx.Module):
  """Convolution, batch normalisation and, unless `relu=False`, ReLU."""

  def __init__(
    self,
    in_features: int | tuple[int, ...],
    out_features: int,
    kernel_size: convolution.Size3,
    strides: convolution.Size3 = (1, 1, 1),
    *,
    layer: type[nnx.Module] = convolution.Conv3D,
    relu: bool = True,
    zero_scale: bool = False,
    backend: str,
    bn_group_size: int,
    dtype: jnp.dtype,
    rng: np.random.Generator,
  ):
    self.relu = relu
    self.conv = layer(
      in_features, out_features, kernel_size, strides, backend=backend, dtype=dtype, rng=rng
    )
    self.norm = norm.BatchNorm(
      out_features, backend=backend, zero_scale=zero_scale, group_size=bn_group_size
    )

  def __call__(self, x: jax.Array, *, train: bool, **conv_options) -> jax.Array:
    """`[B, T, H, W, C]` -> `[B, T', H', W', O]`."""
    return self.norm(self.conv(x, **conv_options), train=train, relu=self.relu)


class Bottleneck(nnx.Module):
  """One residual block, see the drawing above.

  Attributes:
    a, b, c: the branch.
    shortcut: exists where channels or size change.
  """

  def __init__(
    self, in_features: int | tuple[int, ...], spec: backbones.StageSpec, *, stride: int, **common
  ):
    """Args:
    in_features: channels, see `conv.Conv3D`.
    spec: of the stage.
    stride: of H and W.
    **common: backend, bn_group_size, dtype, rng.
    """
    out, inner, size = spec.out, spec.inner, spec.temporal_kernel
    strides = (1, stride, stride)
    self.a = ConvNorm(in_features, inner, (size, 1, 1), **common)
    self.b = ConvNorm(inner, inner, (1, 3, 3), strides, **common)
    self.c = ConvNorm(inner, out, (1, 1, 1), relu=False, zero_scale=True, **common)
    self.has_shortcut = bool(np.sum(in_features) != out or stride != 1)
    if self.has_shortcut:
      self.shortcut = ConvNorm(in_features, out, (1, 1, 1), strides, relu=False, **common)

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    y = x
    for name in ("a", "b", "c"):
      with jax.named_scope(name):
        y = getattr(self, name)(y, train=train)
    if self.has_shortcut:
      with jax.named_scope("shortcut"):
        x = self.shortcut(x, train=train)
    else:
      x = packing.clip_by_clip(x, self.a.conv.parts)
    return jax.nn.relu(x + y)


def _rematerialized(
  module: nnx.Module, x: jax.Array, run: Callable[[nnx.Module, jax.Array], jax.Array]
) -> jax.Array:
  """`run(module, x)`, keeping only x for the backward pass."""
  graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)

  @jax.checkpoint
  def pure(params, stats, x):
    copy = nnx.merge(graphdef, params, stats, copy=True)
    y = run(copy, x)
    return y, nnx.state(copy, nnx.BatchStat)

  y, stats = pure(params, stats, x)
  nnx.update(module, stats)
  return y


class Pathway(nnx.Module):
  """Stem and stages; the caller decides what happens between the stages.

  Attributes:
    stem: s1.
    s2, s3 ...: `nnx.List` of blocks.
  """

  def __init__(
    self,
    spec: backbones.PathwaySpec,
    *,
    name: str,
    extra_features: tuple[int, ...] = (),
    remat: Collection[str] = (),
    **common,
  ):
    """Args:
    spec: the stage table.
    name: "slow" or "fast", for the names of operations.
    extra_features: channels that the caller appends before s2, s3 ...
    remat: stages that are recomputed in the backward pass: s1 as a whole,
      the others block by block. All of them cost a third more arithmetic
      and save most of the memory.
    **common: backend, bn_group_size, dtype, rng.
    """
    self.spec = spec
    self.name = name
    self.backend = common["backend"]
    self.remat = tuple(remat)
    stem = spec.stem
    self.stem = ConvNorm(
      3,
      stem.features,
      stem.kernel,
      (1, stem.stride, stem.stride),
      layer=(difference.DifferenceConv if stem.differences else convolution.Conv3D),
      **common,
    )
    for index, stage in enumerate(spec.stages):
      width = (spec.widths[index], *extra_features[index : index + 1])
      blocks = []
      for block in range(stage.blocks):
        blocks.append(Bottleneck(width, stage, stride=stage.stride if block == 0 else 1, **common))
        width = stage.out
      setattr(self, f"s{index + 2}", nnx.List(blocks))

  def run_stem(self, x: jax.Array, *, train: bool, pack: int = 1, frames: int = 1) -> jax.Array:
    """Pixels `[B, T, H, W, 3]` -> s1, `[B / pack, T, H', W', pack * C]`.

    Args:
      x: normalised.
      train: as for the network.
      pack: clips side by side.
      frames: computed side by side.
    """
    options = {"pack": pack, "frames": frames} if pack * frames > 1 else {}

    def run(stem, x):
      x = stem(x, train=train, **options)
      if self.spec.stem.max_pool:
        x = pool.max_pool(x, backend=self.backend)
      return packing.unpack_frames(x, frames, pack)

    with jax.named_scope(f"{self.name}/s1"):
      return self._run("s1", self.stem, x, run, train)

  def run_stage(self, name: str, x: jax.Array, *, train: bool) -> jax.Array:
    """Runs the blocks of "s2", "s3" ..."""

    def run(block, x):
      return block(x, train=train)

    first, *rest = getattr(self, name)
    with jax.named_scope(f"{self.name}/{name}/0"):
      x = self._run(name, first, x, run, train)
    for index, block in enumerate(rest, start=1):
      with jax.named_scope(f"{self.name}/{name}/{index}"):
        x = self._run(name, block, x, run, train)
    return x

  def _run(self, stage, module, x, run, train: bool) -> jax.Array:
    if train and stage in self.remat:
      return _rematerialized(module, x, run)
    return run(module, x)


class ResNet3D(nnx.Module):
  """The network of one pathway: R3D-50 (SLOW 8x8 R50) and `tiny`."""

  def __init__(
    self, spec: backbones.NetworkSpec, options: backbones.EncoderOptions, rng: np.random.Generator
  ):
    self.stage_names = spec.stage_names
    self.feature_dim = spec.feature_dim
    self.pool_window = options.pool_window
    self.slow = Pathway(
      spec.slow,
      name=backbones.SLOW,
      remat=options.remat_stages(spec.stage_names),
      backend=options.backend,
      bn_group_size=options.bn_group_size,
      dtype=options.dtype,
      rng=rng,
    )

  def __call__(
    self, x: jax.Array, *, train: bool, prepare: Callable[[jax.Array], jax.Array] = lambda x: x
  ) -> tuple[jax.Array, dict[str, dict[str, jax.Array]]]:
    """Encodes clips.

    Args:
      x: clips `[B, T, H, W, 3]`, normalised by `prepare` if not before.
      train: batch statistics (and moves the running ones) or running ones.
      prepare: applied to the frames of a pathway.

    Returns:
      The pooled feature `[B, C]`, float32 (see `pool.mean_pool` for windows),
      and {stage: {"slow": activation}}.
    """
    x = self.slow.run_stem(prepare(x), train=train)
    stages = {self.stage_names[0]: {backbones.SLOW: x}}
    for name in self.stage_names[1:]:
      x = self.slow.run_stage(name, x, train=train)
      stages[name] = {backbones.SLOW: x}
    return pool.mean_pool(x, self.pool_window), stages
