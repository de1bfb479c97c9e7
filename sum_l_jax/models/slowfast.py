"""SlowFast: two pathways at two frame rates, the fast one feeding the slow.

    slow  T/alpha frames   s1 -+- s2 -+- s3 -+- s4 -+- s5 -- pool -.
                               ^      ^      ^      ^               concat
    fast  T frames         s1 -'- s2 -'- s3 -'- s4 -'- s5 -- pool -'

Each arrow is a fusion: [k, 1, 1] convolution of stride alpha in time, to twice
the fast channels, BN, ReLU, appended after the slow channels.
"""

from __future__ import annotations

from collections.abc import Collection

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models import backbones
from sum_l_jax.models import pixels
from sum_l_jax.models import pool
from sum_l_jax.models import resnet3d


class SlowFast(nnx.Module):
  """The network of two pathways.

  Attributes:
    slow, fast: the pathways.
    fusion: after s1, s2, s3, s4, in this order.
  """

  def __init__(
      self,
      spec: backbones.BackboneSpec,
      *,
      pool_window: int = 0,
      remat: Collection[str] = (),
      **common,
  ):
    self.stage_names = spec.stage_names
    self.pool_window = pool_window
    self.alpha = spec.alpha
    fused = tuple(2 * width for width in spec.fast.widths[:-1])
    self.slow = resnet3d.Pathway(
        spec.slow, name=backbones.SLOW, extra_features=fused, remat=remat,
        **common,
    )
    self.fast = resnet3d.Pathway(
        spec.fast, name=backbones.FAST, remat=remat, **common
    )
    self.fusion = nnx.List(
        resnet3d.ConvNorm(
            width // 2,
            width,
            (spec.fusion_kernel, 1, 1),
            (spec.alpha, 1, 1),
            **common,
        )
        for width in fused
    )

  def __call__(
      self, x: jax.Array, *, train: bool
  ) -> tuple[jax.Array, dict[str, dict[str, jax.Array]]]:
    """Encodes clips.

    Args:
      x: normalised pixels `[B, T, H, W, 3]`, T a multiple of alpha.
      train: batch statistics (and moves the running ones) or running ones.

    Returns:
      The pooled feature `[B, C]`, float32, slow channels first (see
      `pool.mean_pool` for windows), and {stage: {pathway: activation}}, before
      the fusion.
    """
    indices = np.asarray(pixels.slow_indices(x.shape[1], self.alpha))
    slow = self.slow.run_stem(x[:, indices], train=train)
    fast = self.fast.run_stem(x, train=train)
    stages = {}
    for index, name in enumerate(self.stage_names):
      if index:
        slow = self.slow.run_stage(name, slow, train=train)
        fast = self.fast.run_stage(name, fast, train=train)
      stages[name] = {backbones.SLOW: slow, backbones.FAST: fast}
      if index < len(self.fusion):
        with jax.named_scope(f"fusion/{name}"):
          fused = self.fusion[index](fast, train=train)
          slow = jnp.concatenate([slow, fused], axis=-1)
    pooled = [pool.mean_pool(x, self.pool_window) for x in (slow, fast)]
    return jnp.concatenate(pooled, axis=-1), stages
