"""SlowFast: two pathways at two frame rates, the fast one feeding the slow.

    slow  T/alpha frames   s1 -+- s2 -+- s3 -+- s4 -+- s5 -- pool -.
                               ^      ^      ^      ^               concat
    fast  T frames         s1 -'- s2 -'- s3 -'- s4 -'- s5 -- pool -'

Each arrow is a lateral connection: a [k, 1, 1] convolution of stride alpha in
time, to twice the fast channels, BN and ReLU (neither in mmaction2's networks),
appended after the slow channels.
Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Callable
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models import draws
from sum_l_jax.models import network_spec
from sum_l_jax.models import pixel_format
from sum_l_jax.models import resnet3d
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.encoder import Encoding
from sum_l_jax.models.layers import packing
from sum_l_jax.models.layers import pool
from sum_l_jax.models.layers.conv_norm import ConvNorm


class SlowFast(nnx.Module):
  """The network of two pathways; an `Encoder`.

  Attributes:
    slow, fast: the pathways.
    fusion: lateral connections after s1, s2, s3, s4, in this order.
  """

  def __init__(
    self, spec: network_spec.NetworkSpec, options: EncoderOptions, rng: np.random.Generator
  ):
    if spec.fast is None:
      raise ValueError("SlowFast needs a fast pathway, got None; ResNet3D has one pathway.")
    self.stage_names = spec.stage_names
    self.feature_dim = spec.feature_dim
    self.alpha = spec.alpha
    self.pool_window = options.pool_window
    self.frozen = options.frozen
    self.spec = spec
    fused = tuple(2 * width for width in spec.fast.widths[:-1])
    pathway = functools.partial(
      resnet3d.Pathway, options=options, rng=rng, remat=options.remat_stages(spec.stage_names)
    )
    self.slow = pathway(spec.slow, name=network_spec.SLOW, extra_features=fused)
    self.fast = pathway(spec.fast, name=network_spec.FAST)
    self.fusion = nnx.List(
      ConvNorm(
        width // 2,
        width,
        (spec.fusion_kernel, 1, 1),
        (spec.alpha, 1, 1),
        options=options,
        rng=rng,
        normalize=spec.fusion_norm,
      )
      for width in fused
    )

  def __call__(
    self,
    video: jax.Array,
    *,
    train: bool,
    prepare: Callable[[jax.Array], jax.Array],
    key: draws.Key | None = None,
  ) -> Encoding:
    """Encodes clips, see `Encoder`; T is a multiple of alpha.

    Returns:
      The feature `[B, C]`, float32, the mean over time and space, slow channels
      first (see `pool.mean_pool` for windows), {stage: {pathway: activation}},
      before the lateral connection, and the last activations as tokens: the
      fast pathway's, averaged over the frames of each slow one, stand beside
      the slow pathway's.
    """
    del key
    fast = prepare(video)
    # In slices: XLA reads all frames to gather some.
    indices = pixel_format.slow_indices(
      video.shape[1], self.alpha, regular=self.spec.regular_frames
    )
    slow = prepare(jnp.concatenate([video[:, i : i + 1] for i in indices], axis=1))
    tables = self.spec.pathways
    stages: resnet3d.Stages = {}
    for index, name in enumerate(self.stage_names):
      trained = train and index >= self.frozen
      slow = self.slow.run_stage(name, slow, train=trained)
      fast = self.fast.run_stage(name, fast, train=trained)
      stages[name] = {
        pathway: packing.apart(x, tables[pathway].widths[index])
        for pathway, x in ((network_spec.SLOW, slow), (network_spec.FAST, fast))
      }
      if index < len(self.fusion):
        with jax.named_scope(f"fusion/{name}"):
          fused = self.fusion[index](fast, train=trained)
          slow, fast = packing.append(slow, fused, fast, self.spec, index)
      if index < self.frozen:
        slow, fast = jax.lax.stop_gradient((slow, fast))
    last = stages[self.stage_names[-1]]
    pooled = [pool.mean_pool(x, self.pool_window) for x in last.values()]
    slow, fast = last[network_spec.SLOW], last[network_spec.FAST]
    fast = fast.reshape(*slow.shape[:2], -1, *fast.shape[2:]).mean(2)
    tokens = jnp.concatenate([slow, fast], axis=-1).reshape(slow.shape[0], -1, self.feature_dim)
    return Encoding(jnp.concatenate(pooled, axis=-1), stages, tokens)
