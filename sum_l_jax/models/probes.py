"""Heads that attend to an encoder's tokens, instead of reading its pooled feature.

    tokens -- blocks -- attention of a query for each task -- MLP -- heads/<task>
                  '---- attention of one more query -------- MLP -- projection

is the attentive probe of V-JEPA 2; VideoPrism's pooler is one query for all.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax import types
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.layers import attention
from sum_l_jax.models.layers import token_pool
from sum_l_jax.models.layers import transformer

Generators = Mapping[str, np.random.Generator]
_EPS = 1e-5  # Of V-JEPA's probe, whose encoder has 1e-6.
_MLP_RATIO = 4


@dataclasses.dataclass(frozen=True)
class ProbeOptions:
  """What reads the tokens.

  Attributes:
    kind: "attentive" is V-JEPA's probe, "pooler" VideoPrism's pooler.
    depth: blocks of the attentive probe, of which the last one has the queries.
    heads: heads of each attention. Where they don't divide the width of the
      tokens, it is the largest number below that does.
  """

  kind: str = "attentive"
  depth: int = 4
  heads: int = 16

  def __post_init__(self) -> None:
    kinds = tuple(kind for kind in types.HEADS if kind != types.LINEAR_HEAD)
    if self.kind not in kinds:
      raise ValueError(f"kind must be one of {kinds}, got {self.kind!r}.")
    for name in ("depth", "heads"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")

  @classmethod
  def of_head(cls, head: str, *, depth: int, heads: int) -> ProbeOptions | None:
    """The options of one of `types.HEADS`; None for the linear one, which needs no probe."""
    return None if head == types.LINEAR_HEAD else cls(head, depth, heads)

  def heads_of(self, width: int) -> int:
    """Heads of an attention over tokens of this width."""
    return max(n for n in range(1, min(self.heads, width) + 1) if width % n == 0)


class Readings(NamedTuple):
  """What a probe reads from the tokens.

  Attributes:
    tasks: vectors `[B, D]` by task, float32.
    projection: vector of the projection `[B, D]`, or None without one.
  """

  tasks: Mapping[str, jax.Array]
  projection: jax.Array | None


class CrossBlock(nnx.Module):
  """y = query + Attention(query, LN(tokens)); y + MLP(LN(y)).

  The queries aren't normalised, and the attention has no projection of what it
  gives (src/models/utils/modules.py of V-JEPA 2, CrossAttentionBlock).

  Attributes:
    norm1, attention, norm2, mlp: the two branches.
  """

  def __init__(self, options: transformer.BlockOptions, *, keys: transformer.Keys):
    norm = lambda: transformer.LayerNorm(options.width, eps=options.eps, dtype=options.dtype)
    self.norm1, self.norm2 = norm(), norm()
    self.attention = transformer.Attention(options, keys=keys, project_out=False)
    self.mlp = transformer.Mlp(options, keys=keys)

  def __call__(self, queries: jax.Array, tokens: jax.Array) -> jax.Array:
    """Queries `[B, M, D]` over tokens `[B, N, D]` -> `[B, M, D]`."""
    y = queries + self.attention.cross(queries, self.norm1(tokens))
    return y + self.mlp(self.norm2(y))


class AttentiveProbe(nnx.Module):
  """V-JEPA 2's probe: blocks over all tokens, then one query for each reader.

  It is drawn and its last matrices are scaled as there: those of block i by
  1 / sqrt(2 i), the cross block's MLP as that of the last block before it
  (src/models/attentive_pooler.py).

  Attributes:
    blocks: the `Stack` before the cross block, or None at depth 1.
    cross: the block of the queries.
    queries: `nnx.Dict` of `[1, D]` by task.
    projection_query: `[1, D]`, the projection's, or None.
  """

  def __init__(
    self,
    width: int,
    options: ProbeOptions,
    encoder: EncoderOptions,
    *,
    tasks: Generators,
    projection: np.random.Generator | None,
    rng: np.random.Generator,
  ):
    keys = transformer.Keys(rng)
    block = transformer.BlockOptions(
      width=width,
      mlp=_MLP_RATIO * width,
      heads=options.heads_of(width),
      eps=_EPS,
      dtype=encoder.dtype,
      attend=attention.choose(encoder.attention, encoder.backend),
    )
    depth = options.depth - 1
    self.blocks = transformer.Stack(block, depth, keys=keys) if depth else None
    self.cross = CrossBlock(block, keys=keys)
    if self.blocks is not None:
      factors = (2.0 * jnp.arange(1, depth + 1)[:, None, None]) ** -0.5
      _scale(self.blocks.block.attention.out, factors)
      _scale(self.blocks.block.mlp.down, factors)
    _scale(self.cross.mlp.down, (2.0 * max(depth, 1)) ** -0.5)
    query = lambda own: transformer.normal(transformer.Keys(own)(), (1, width))
    self.queries = nnx.Dict({task: query(own) for task, own in tasks.items()})
    self.projection_query = query(projection) if projection else None
    self.remat = encoder.remat == "blocks"

  def __call__(self, tokens: jax.Array, *, train: bool) -> Readings:
    """`[B, N, D]` -> vectors `[B, D]` for each reader."""
    dtype = self.cross.norm1.dtype
    x = tokens.astype(dtype)
    if self.blocks is not None:
      with jax.named_scope("blocks"):
        x = self.blocks(x, remat=train and self.remat)
    queries = [query[...] for query in self.queries.values()]
    if self.projection_query is not None:
      queries.append(self.projection_query[...])
    stacked = jnp.concatenate(queries)
    # Rounded after they were repeated, so that their gradients are float32 sums.
    stacked = jnp.broadcast_to(stacked, (x.shape[0], *stacked.shape)).astype(dtype)
    with jax.named_scope("cross"):
      y = self.cross(stacked, x)
    y = y.astype(jnp.float32)
    tasks = {task: y[:, index] for index, task in enumerate(self.queries)}
    return Readings(tasks, y[:, -1] if self.projection_query is not None else None)


def _scale(layer: transformer.Dense | None, factor: jax.Array | float) -> None:
  assert layer is not None
  layer.kernel[...] = layer.kernel[...] * factor


class PoolerProbe(nnx.Module):
  """VideoPrism's pooler with inner width D: one vector, which all readers read.

  Attributes:
    pool: the pooler.
  """

  def __init__(
    self,
    width: int,
    options: ProbeOptions,
    encoder: EncoderOptions,
    *,
    tasks: Generators,
    projection: np.random.Generator | None,
    rng: np.random.Generator,
  ):
    self.pool = token_pool.Pooler(
      width,
      inner=width,
      heads=options.heads_of(width),
      keys=transformer.Keys(rng),
      dtype=encoder.dtype,
    )
    self.tasks, self.projection = tuple(tasks), projection is not None

  def __call__(self, tokens: jax.Array, *, train: bool) -> Readings:
    """`[B, N, D]` -> the same vector `[B, D]` for each reader."""
    del train
    vector = self.pool(tokens)
    return Readings(dict.fromkeys(self.tasks, vector), vector if self.projection else None)


Probe = AttentiveProbe | PoolerProbe


def make_probe(
  width: int,
  options: ProbeOptions,
  encoder: EncoderOptions,
  *,
  tasks: Generators,
  projection: np.random.Generator | None,
  rng: np.random.Generator,
) -> Probe:
  """Builds a probe.

  Args:
    width: D, the width of the tokens.
    options: kind and size.
    encoder: how the encoder computes; precision, attention and recomputation
      are the probe's too.
    tasks: generators of the tasks' queries, by task.
    projection: generator of the projection's query; None if there is no
      projection.
    rng: generator of what they share.
  """
  kinds = {"attentive": AttentiveProbe, "pooler": PoolerProbe}
  return kinds[options.kind](width, options, encoder, tasks=tasks, projection=projection, rng=rng)
