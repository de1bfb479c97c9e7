"""SlowFast: two pathways at two frame rates, the fast one feeding the slow.

    slow  T/alpha frames   s1 -+- s2 -+- s3 -+- s4 -+- s5 -- pool -.
                               ^      ^      ^      ^               concat
    fast  T frames         s1 -'- s2 -'- s3 -'- s4 -'- s5 -- pool -'

Each arrow is a fusion: [k, 1, 1] convolution of stride alpha in time, to twice
the fast channels, BN, ReLU, appended after the slow channels.
"""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models import backbones
from sum_l_jax.models import pixel_format
from sum_l_jax.models import resnet3d
from sum_l_jax.models.layers import packing
from sum_l_jax.models.layers import pool


def _packs(spec: backbones.PathwaySpec, count: int) -> tuple[int, ...]:
  """Clips side by side after s1, s2 ...: as many as fill the lanes.

  Each has half of the one before or as many: wide stages would only multiply
  by more zeros.
  """
  inner = (spec.stem.features, *(s.inner for s in spec.stages))
  packs = []
  for width in inner:
    while count > 1 and count * width > packing.LANES and count % 2 == 0:
      count //= 2
    packs.append(count if count * width <= packing.LANES else 1)
  return tuple(packs)


def _repack(x: jax.Array, before: int, after: int) -> jax.Array:
  """Fewer clips side by side: `after` divides `before`."""
  with jax.named_scope("pack"):
    return packing.unpack_clips(x, before // after)


class SlowFast(nnx.Module):
  """The network of two pathways.

  Attributes:
    slow, fast: the pathways.
    fusion: after s1, s2, s3, s4, in this order.
  """

  def __init__(
    self, spec: backbones.NetworkSpec, options: backbones.EncoderOptions, rng: np.random.Generator
  ):
    assert spec.fast is not None
    common = dict(
      backend=options.backend, bn_group_size=options.bn_group_size, dtype=options.dtype, rng=rng
    )
    remat = options.remat_stages(spec.stage_names)
    self.pack_clips = options.pack_clips if options.backend == "tpu" else 1
    self.bn_group_size = options.bn_group_size
    self.feature_dim = spec.feature_dim
    self.spec = spec
    self.stage_names = spec.stage_names
    self.pool_window = options.pool_window
    self.alpha = spec.alpha
    fused = tuple(2 * width for width in spec.fast.widths[:-1])
    self.slow = resnet3d.Pathway(
      spec.slow, name=backbones.SLOW, extra_features=fused, remat=remat, **common
    )
    self.fast = resnet3d.Pathway(spec.fast, name=backbones.FAST, remat=remat, **common)
    self.fusion = nnx.List(
      resnet3d.ConvNorm(width // 2, width, (spec.fusion_kernel, 1, 1), (spec.alpha, 1, 1), **common)
      for width in fused
    )

  def __call__(
    self, x: jax.Array, *, train: bool, prepare: Callable[[jax.Array], jax.Array] = lambda x: x
  ) -> tuple[jax.Array, dict[str, dict[str, jax.Array]]]:
    """Encodes clips.

    Args:
      x: clips `[B, T, H, W, 3]`, T a multiple of alpha, normalised by `prepare`
        if not before.
      train: batch statistics (and moves the running ones) or running ones.
      prepare: applied to the frames of each pathway. Of bytes the slow
        pathway's frames are chosen at half the cost of normalised ones.

    Returns:
      The pooled feature `[B, C]`, float32, slow channels first (see
      `pool.mean_pool` for windows), and {stage: {pathway: activation}}, before
      the fusion.
    """
    fast = prepare(x)
    slow_packs, fast_packs = self._choose_packs(x.shape[0], train)
    # In slices: XLA reads all frames to gather some.
    indices = pixel_format.slow_indices(x.shape[1], self.alpha)
    slow = prepare(jnp.concatenate([x[:, i : i + 1] for i in indices], axis=1))
    slow = self.slow.run_stem(slow, train=train, pack=slow_packs[0])
    fast = self.fast.run_stem(
      fast, train=train, pack=fast_packs[0], frames=self._choose_frames(x.shape[1], fast_packs[0])
    )
    stages = {}
    for index, name in enumerate(self.stage_names):
      if index:
        slow = self.slow.run_stage(name, slow, train=train)
        fast = _repack(fast, fast_packs[index - 1], fast_packs[index])
        fast = self.fast.run_stage(name, fast, train=train)
      stages[name] = {
        # Where nobody looks at them, they are not computed.
        backbones.SLOW: packing.unpack_clips(slow, slow_packs[index]),
        backbones.FAST: packing.unpack_clips(fast, fast_packs[index]),
      }
      if index < len(self.fusion):
        with jax.named_scope(f"fusion/{name}"):
          fused = self.fusion[index](fast, train=train)
          after = slow_packs[index + 1]
          slow = jnp.concatenate(
            [_repack(slow, slow_packs[index], after), _repack(fused, fast_packs[index], after)],
            axis=-1,
          )
    slow = packing.unpack_clips(slow, slow_packs[-1])
    fast = packing.unpack_clips(fast, fast_packs[-1])
    pooled = [pool.mean_pool(x, self.pool_window) for x in (slow, fast)]
    return jnp.concatenate(pooled, axis=-1), stages

  def _choose_packs(self, batch: int, train: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Clips side by side after s1, s2 ... of the slow and the fast pathway."""
    count = self.pack_clips if train else 1
    count = count or packing.fitting_count(batch, self.bn_group_size)
    if batch % count:
      raise ValueError(
        f"pack_clips={count} must divide the batch, which has {batch} clips,"
        " and should divide the clips of a chip; 0 chooses."
      )
    return _packs(self.spec.slow, count), _packs(self.spec.fast, count)

  def _choose_frames(self, frames: int, pack: int) -> int:
    """Frames side by side in the fast stem, where packed clips leave lanes."""
    if pack == 1:
      return 1
    count = 1
    width = pack * self.spec.fast.stem.features
    while 2 * count * width <= packing.LANES and frames % (2 * count) == 0:
      count *= 2
    return count
