"""3-D ResNet of bottleneck blocks: a pathway, and the network of one.

    x -- a [Tk, 1, 1] -- b [1, 3, 3] stride s -- c [1, 1, 1] -- + -- ReLU
     '--- shortcut [1, 1, 1] stride s, or the identity ---------'

Batch normalisation follows each convolution, and ReLU those of a and b. The
scale of c's starts at zero: a block begins as its shortcut. The first block of
a stage has the stride, and a convolution as its shortcut.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools

from flax import nnx
import jax
import numpy as np

from sum_l_jax.models import draws
from sum_l_jax.models import network_spec
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.encoder import Encoding
from sum_l_jax.models.layers import packing
from sum_l_jax.models.layers import pool
from sum_l_jax.models.layers import remat
from sum_l_jax.models.layers.conv_norm import ConvNorm
from sum_l_jax.models.layers.conv_norm import Identity
from sum_l_jax.models.layers.stem import Stem

Stages = dict[str, dict[str, jax.Array]]


class Bottleneck(nnx.Module):
  """One residual block, drawn above.

  Attributes:
    a, b, c: convolutions of the branch.
    shortcut: convolution where channels or size change, or the identity.
  """

  def __init__(
    self,
    in_features: int | tuple[int, ...],
    spec: network_spec.StageSpec,
    *,
    stride: int,
    options: EncoderOptions,
    rng: np.random.Generator,
  ):
    layer = functools.partial(ConvNorm, options=options, rng=rng)
    inner, out, strides = spec.inner, spec.out, (1, stride, stride)
    self.a = layer(in_features, inner, (spec.temporal_kernel, 1, 1))
    self.b = layer(inner, inner, (1, 3, 3), strides)
    self.c = layer(inner, out, (1, 1, 1), relu=False, zero_scale=True)
    if np.sum(in_features) != out or stride != 1:
      self.shortcut = layer(in_features, out, (1, 1, 1), strides, relu=False)
    else:
      self.shortcut = Identity(in_features)

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """`[B, T, H, W, C]` -> `[B, T, H / s, W / s, O]`."""
    y = x
    for name in ("a", "b", "c"):
      with jax.named_scope(name):
        y = getattr(self, name)(y, train=train)
    with jax.named_scope("shortcut"):
      x = self.shortcut(x, train=train)
    return jax.nn.relu(x + y)


class Pathway(nnx.Module):
  """Stem and stages; the caller decides what happens between the stages.

  Attributes:
    stem: s1.
    s2, s3 ...: `nnx.List` of blocks.
    remat: stages that the backward pass computes again, block by block.
  """

  def __init__(
    self,
    spec: network_spec.PathwaySpec,
    *,
    name: str,
    options: EncoderOptions,
    rng: np.random.Generator,
    extra_features: tuple[int, ...] = (),
    remat: tuple[str, ...] = (),
  ):
    """Builds the layers.

    Args:
      spec: stage table.
      name: "slow" or "fast", for the names of operations.
      options: how the layers compute.
      rng: generator of the weights.
      extra_features: channels that the caller appends before s2, s3 ...
      remat: stages that the backward pass computes again.
    """
    self.name = name
    self.remat = remat
    self.stem = Stem(spec.stem, options, rng)
    for index, stage in enumerate(spec.stages):
      width = (spec.widths[index], *extra_features[index : index + 1])
      blocks = []
      for stride in (stage.stride, *[1] * (stage.blocks - 1)):
        blocks.append(Bottleneck(width, stage, stride=stride, options=options, rng=rng))
        width = stage.out
      setattr(self, f"s{index + 2}", nnx.List(blocks))

  def run_stage(self, name: str, x: jax.Array, *, train: bool) -> jax.Array:
    """Runs the stem, "s1", or the blocks of "s2", "s3" ..."""
    if name == "s1":
      layers = {f"{self.name}/s1": self.stem}
    else:
      layers = {f"{self.name}/{name}/{i}": block for i, block in enumerate(getattr(self, name))}
    for scope, layer in layers.items():
      with jax.named_scope(scope):
        again = train and name in self.remat
        x = remat.run(layer, x) if again else layer(x, train=train)
    return x


class ResNet3D(nnx.Module):
  """The network of one pathway: R3D-50 (SLOW 8x8 R50) and `tiny`.

  It is an `Encoder`.
  """

  def __init__(
    self, spec: network_spec.NetworkSpec, options: EncoderOptions, rng: np.random.Generator
  ):
    self.stage_names = spec.stage_names
    self.feature_dim = spec.feature_dim
    self.pool_window = options.pool_window
    self.frozen = options.frozen
    self.spec = spec
    if spec.slow.stem.differences:  # It has a convolution of its own.
      options = dataclasses.replace(options, pack_clips=1)
    self.slow = Pathway(
      spec.slow,
      name=network_spec.SLOW,
      options=options,
      rng=rng,
      remat=options.remat_stages(spec.stage_names),
    )

  def __call__(
    self,
    video: jax.Array,
    *,
    train: bool,
    prepare: Callable[[jax.Array], jax.Array],
    key: draws.Key | None = None,
  ) -> Encoding:
    """Encodes clips, see `Encoder`.

    Returns:
      The feature `[B, C]`, float32, the mean over time and space (see
      `pool.mean_pool` for windows), {stage: {"slow": activation}}, and the last
      activation as tokens.
    """
    del key
    x = prepare(video)
    table = self.spec.slow
    stages: Stages = {}
    for index, name in enumerate(self.stage_names):
      if index:
        x = packing.fit_stage(x, table, index - 1)
      x = self.slow.run_stage(name, x, train=train and index >= self.frozen)
      if index < self.frozen:
        x = jax.lax.stop_gradient(x)
      stages[name] = {network_spec.SLOW: packing.apart(x, table.widths[index])}
    last = stages[self.stage_names[-1]][network_spec.SLOW]
    tokens = last.reshape(last.shape[0], -1, self.feature_dim)
    return Encoding(pool.mean_pool(last, self.pool_window), stages, tokens)
