"""The parts of a transformer: Dense, LayerNorm, Attention, Mlp, Block, Stack.

A `Stack` holds the parameters of all its blocks in one array each, whose first
axis counts the blocks, and runs them with `lax.scan`: a network of 40 blocks
compiles as fast as one of two. LayerNorm and softmax are float32 whatever the
type of the activations is.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models import draws
from sum_l_jax.models.layers import attention
from sum_l_jax.models.layers import kept
from sum_l_jax.models.layers import product
from sum_l_jax.system import sharding

# Cosines and sines [N, Dh] of what queries and keys are turned by.
Rotary = tuple[jax.Array, jax.Array]


class Keys:
  """A stream of random keys for initial values.

  The values are drawn by JAX: under `eval_shape`, and where they are created
  sharded, no array of their size is made on the host.
  """

  def __init__(self, rng: np.random.Generator):
    self._key = jax.random.key(int(rng.integers(2**31)))

  def __call__(self) -> jax.Array:
    """The next key."""
    self._key, key = jax.random.split(self._key)
    return key


@dataclasses.dataclass(frozen=True)
class BlockOptions:
  """What the blocks of a stack have in common.

  Attributes:
    width: D.
    mlp: channels within the MLP.
    heads: H.
    activation: a key of `ACTIVATIONS`.
    eps: epsilon of the LayerNorms.
    norm_offset: what is added to their scales.
    cap: bound of the attention logits; 0 is none.
    key_bias: whether keys have a bias, as queries and values have.
    layer_scale: whether branches are multiplied by learned factors.
    divided: whether an attention through time precedes the one in space.
    dtype: type of the activations.
    attend: how attention is computed, of `layers.attention`.
    lora_rank: rank of the low-rank updates beside each matrix; 0 is none.
    lora_alpha: their scale is lora_alpha / lora_rank.
  """

  width: int
  mlp: int
  heads: int
  activation: str = "gelu"
  eps: float = 1e-6
  norm_offset: float = 0.0
  cap: float = 0.0
  key_bias: bool = True
  layer_scale: bool = False
  divided: bool = False
  dtype: Any = np.float32
  attend: attention.Attend = attention.PLAIN
  lora_rank: int = 0
  lora_alpha: float = 16.0


ACTIVATIONS = {
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
  "relu": jax.nn.relu,
}


def normal(key: jax.Array, shape: tuple[int, ...], std: float = 0.02) -> nnx.Param:
  """A parameter drawn from N(0, std) cut at two deviations."""
  return nnx.Param(std * jax.random.truncated_normal(key, -2.0, 2.0, shape, jnp.float32))


class Dense(nnx.Module):
  """x @ kernel + bias, with a low-rank update where it is asked for (LoRA).

  Attributes:
    kernel: `[..., I, O]`.
    bias: `[..., O]`, or None.
    lora_a, lora_b: `[..., I, r]` and `[..., r, O]`, or None. lora_b starts at
      zero, so that the layer starts as it was (Hu et al., LoRA, 2021).
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    keys: Keys,
    lead: tuple[int, ...] = (),
    bias: bool = True,
    dtype: Any = np.float32,
    lora_rank: int = 0,
    lora_alpha: float = 16.0,
  ):
    self.kernel = normal(keys(), (*lead, inputs, outputs))
    self.bias = nnx.Param(jnp.zeros((*lead, outputs), jnp.float32)) if bias else None
    self.dtype = dtype
    self.lora_scale = lora_alpha / lora_rank if lora_rank else 0.0
    low = bool(lora_rank)
    self.lora_a = normal(keys(), (*lead, inputs, lora_rank), inputs**-0.5) if low else None
    self.lora_b = nnx.Param(jnp.zeros((*lead, lora_rank, outputs), jnp.float32)) if low else None

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[..., I]` -> `[..., O]`."""
    x = x.astype(self.dtype)
    y = product.product(x, self.kernel[...])
    if self.lora_a is not None and self.lora_b is not None:
      low = product.product(x, self.lora_a[...])
      y = y + self.lora_scale * product.product(low, self.lora_b[...])
    return y if self.bias is None else product.shifted(y, self.bias[...])


class LayerNorm(nnx.Module):
  """(x - mean) / sqrt(variance + eps) * (scale + offset) + bias over the last axis.

  The variance is the mean square of what is left after the mean is taken away;
  E[x^2] - E[x]^2 would cancel. VideoPrism's scales are stored with an offset of
  1: as sums, the small ones would lose bits.
  """

  def __init__(
    self,
    width: int,
    *,
    eps: float,
    offset: float = 0.0,
    lead: tuple[int, ...] = (),
    dtype: Any = np.float32,
  ):
    self.scale = nnx.Param(jnp.full((*lead, width), 1.0 - offset, jnp.float32))
    self.bias = nnx.Param(jnp.zeros((*lead, width), jnp.float32))
    self.eps = eps
    self.offset = offset
    self.dtype = dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[..., D]` -> `[..., D]`."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps)
    scale = self.scale[...] + self.offset
    return (x * scale + self.bias[...]).astype(self.dtype)


def rotate(x: jax.Array, rotary: Rotary) -> jax.Array:
  """Turns adjacent channels of `[B, N, H, Dh]` by the angles of their tokens.

  out[2k] = x[2k] cos[2k] - x[2k+1] sin[2k] and
  out[2k+1] = x[2k+1] cos[2k+1] + x[2k] sin[2k+1].
  """
  cos, sin = (table[:, None] for table in rotary)
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x.shape)
  return (x * cos + turned * sin).astype(x.dtype)


class Attention(nnx.Module):
  """Multi-head self-attention.

  Attributes:
    query, key, value: `Dense` layers `[D, D]`.
    out: the same after the attention, or None.
  """

  def __init__(
    self,
    options: BlockOptions,
    *,
    keys: Keys,
    lead: tuple[int, ...] = (),
    project_out: bool = True,
  ):
    dense = functools.partial(
      Dense,
      options.width,
      options.width,
      keys=keys,
      lead=lead,
      dtype=options.dtype,
      lora_rank=options.lora_rank,
      lora_alpha=options.lora_alpha,
    )
    self.query = dense()
    self.key = dense(bias=options.key_bias)
    self.value = dense()
    self.out = dense() if project_out else None
    self.options = options

  def project(
    self, x: jax.Array, rotary: Rotary | None = None
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`[B, N, D]` -> queries, keys and values `[B, N, H, Dh]`."""
    query, key, value = (
      self._split(self.query(x)),
      self._split(self.key(x)),
      self._split(self.value(x)),
    )
    if rotary is not None:
      query, key = rotate(query, rotary), rotate(key, rotary)
    return kept.keep(query), kept.keep(key), kept.keep(value)

  def __call__(self, x: jax.Array, rotary: Rotary | None = None) -> jax.Array:
    """`[B, N, D]` -> `[B, N, D]`; all tokens see each other."""
    options, count = self.options, x.shape[1]
    length = options.attend.padded(
      count, head=options.width // options.heads, dtype=options.dtype, cap=options.cap
    )
    padding = ((0, length - count), (0, 0))
    if rotary is not None:
      rotary = jnp.pad(rotary[0], padding), jnp.pad(rotary[1], padding)
    query, key, value = self.project(jnp.pad(x, ((0, 0), *padding)), rotary)
    known = count if length > count else None
    return self._join(options.attend(query, key, value, cap=options.cap, count=known))[:, :count]

  def cross(self, queries: jax.Array, tokens: jax.Array) -> jax.Array:
    """Queries `[B, M, D]` over tokens `[B, N, D]` -> `[B, M, D]`."""
    query, key, value = (
      self._split(self.query(queries)),
      self._split(self.key(tokens)),
      self._split(self.value(tokens)),
    )
    return self._join(self.options.attend(query, key, value, cap=self.options.cap))

  def along(self, x: jax.Array, grid: tuple[int, int], axis: int) -> jax.Array:
    """Attention along one axis of a grid of tokens, after a class token.

    The class token's query sees all tokens; a patch's query sees the class token
    and the patches of its own line.

    Args:
      x: `[B, 1 + T n, D]`.
      grid: T and n.
      axis: 0 is through time, at one place; 1 within a frame.

    Returns:
      `[B, 1 + T n, D]`.
    """
    query, key, value = self.project(x)
    attend = functools.partial(self.options.attend, cap=self.options.cap)
    first = attend(query[:, :1], key, value)
    batch, lines = x.shape[0], grid[1 - axis]

    def fold(y: jax.Array) -> jax.Array:  # [B, T n, H, Dh] -> [B lines, length, H, Dh]
      y = y.reshape(batch, *grid, *y.shape[2:])
      y = jnp.swapaxes(y, 1, 2) if axis == 0 else y
      return y.reshape(batch * lines, -1, *y.shape[3:])

    def with_class(y: jax.Array) -> jax.Array:
      return jnp.concatenate([jnp.repeat(y[:, :1], lines, axis=0), fold(y[:, 1:])], axis=1)

    rest = attend(fold(query[:, 1:]), with_class(key), with_class(value))
    rest = rest.reshape(batch, lines, -1, *rest.shape[2:])
    rest = jnp.swapaxes(rest, 1, 2) if axis == 0 else rest
    rest = rest.reshape(batch, -1, *rest.shape[3:])
    return self._join(jnp.concatenate([first, rest], axis=1))

  def _split(self, y: jax.Array) -> jax.Array:
    with jax.named_scope(attention.SCOPE):  # The copies that it may take are attention's.
      return y.reshape(*y.shape[:-1], self.options.heads, -1)

  def _join(self, y: jax.Array) -> jax.Array:
    with jax.named_scope(attention.SCOPE):
      y = y.reshape(*y.shape[:-2], -1)
    return y if self.out is None else kept.keep(self.out(y))


class Mlp(nnx.Module):
  """Two `Dense` layers with an activation between them."""

  def __init__(
    self,
    options: BlockOptions,
    *,
    keys: Keys,
    lead: tuple[int, ...] = (),
  ):
    dense = functools.partial(
      Dense,
      keys=keys,
      lead=lead,
      dtype=options.dtype,
      lora_rank=options.lora_rank,
      lora_alpha=options.lora_alpha,
    )
    self.up = dense(options.width, options.mlp)
    self.down = dense(options.mlp, options.width)
    self.activation = ACTIVATIONS[options.activation]

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, N, D]` -> `[B, N, D]`."""
    # The second one is kept where layer scale needs it.
    return kept.keep(self.down(self.activation(kept.keep(self.up(x)))))


class Block(nnx.Module):
  """x + Attention(LN(x)), then x + MLP(LN(x)); or the divided block.

  The divided block (TimeSformer, as Frozen in Time and LaViLa have it) is
  t = x + TimeAttention(LN(x)); s = x + SpaceAttention(LN(t)); s + MLP(LN(s)).
  It starts as the block without attention through time, so that a network of
  images can become one of videos: the projection after that attention is zero.
  (Its authors have ones there, and zeros in queries, keys and values, from where
  queries and keys get no gradient.)

  Attributes:
    norm1, attention, norm2, mlp: the two branches.
    scale1, scale2: factors of the branches `[D]`, or None.
    time_norm, time_attention: the first of the divided attentions, or None.
  """

  def __init__(self, options: BlockOptions, *, keys: Keys, lead: tuple[int, ...] = ()):
    norm = functools.partial(
      LayerNorm,
      options.width,
      eps=options.eps,
      offset=options.norm_offset,
      lead=lead,
      dtype=options.dtype,
    )
    self.norm1, self.norm2 = norm(), norm()
    self.attention = Attention(options, keys=keys, lead=lead)
    self.mlp = Mlp(options, keys=keys, lead=lead)
    factors = lambda: nnx.Param(jnp.ones((*lead, options.width), jnp.float32))
    self.scale1 = factors() if options.layer_scale else None
    self.scale2 = factors() if options.layer_scale else None
    self.time_norm = norm() if options.divided else None
    self.time_attention = Attention(options, keys=keys, lead=lead) if options.divided else None
    if self.time_attention is not None and self.time_attention.out is not None:
      self.time_attention.out.kernel[...] = jnp.zeros_like(self.time_attention.out.kernel[...])

  def __call__(
    self,
    x: jax.Array,
    *,
    rotary: Rotary | None = None,
    grid: tuple[int, int] = (1, 1),
    keep: jax.Array | None = None,
  ) -> jax.Array:
    """`[B, N, D]` -> `[B, N, D]`.

    Args:
      x: tokens.
      rotary: what queries and keys are turned by, or None.
      grid: frames and places, of the divided block.
      keep: factors `[2, B]` of the two branches, 0 where a path is dropped.
    """
    if self.time_attention is not None and self.time_norm is not None:
      through_time = x + self.time_attention.along(self.time_norm(x), grid, 0)
      branch = self.attention.along(self.norm1(through_time), grid, 1)
    else:
      branch = self.attention(self.norm1(x), rotary)
    x = x + _branch(branch, self.scale1, keep, 0)
    return x + _branch(self.mlp(self.norm2(x)), self.scale2, keep, 1)


def _branch(y: jax.Array, scale: nnx.Param | None, keep: jax.Array | None, index: int) -> jax.Array:
  if scale is not None:
    y = product.scaled(y, scale[...])
  return y if keep is None else y * keep[index, :, None, None].astype(y.dtype)


def drop_rates(depth: int, rate: float, *, constant: bool = False) -> tuple[float, ...]:
  """Share of the paths that each block drops: from 0 to `rate`, or `rate` in all."""
  if constant or depth == 1:
    return (rate,) * depth
  return tuple(rate * index / (depth - 1) for index in range(depth))


class Stack(nnx.Module):
  """Blocks of one kind, one after the other.

  Attributes:
    block: a `Block` whose parameters have a first axis, the number of the block.
    depth: number of blocks.
  """

  def __init__(self, options: BlockOptions, depth: int, *, keys: Keys):
    self.block = Block(options, keys=keys, lead=(depth,))
    self.depth = depth

  def _whole(self, params: Any) -> Any:
    """One block's parameters, put together where devices share them.

    Matrices are left to the products that they are in (`layers.product`).
    """
    return jax.tree.map(lambda leaf: leaf if leaf.ndim > 1 else sharding.whole(leaf), params)

  def __call__(
    self,
    x: jax.Array,
    *,
    rates: tuple[float, ...] = (),
    key: draws.Key | None = None,
    remat: bool = False,
    frozen: int = 0,
    **inputs: Any,
  ) -> jax.Array:
    """`[B, N, D]` -> `[B, N, D]`.

    Args:
      x: tokens.
      rates: share of the paths that each block drops; () is none. Frozen blocks
        drop none.
      key: random key of dropping, where there are rates.
      remat: whether the backward pass computes each block again, but for what its
        attention gave. Otherwise it keeps what `layers.kept` says.
      frozen: number of blocks at the start that get no gradient.
      **inputs: what each block is called with.
    """
    graph, params = nnx.split(self.block)
    rates = tuple(0.0 if index < frozen else rate for index, rate in enumerate(rates))
    drops = any(rates)

    def run(x: jax.Array, given: Mapping[str, Any]) -> tuple[jax.Array, None]:
      block = nnx.merge(graph, self._whole(given["params"]))
      keep = None
      if drops:
        share = 1.0 - given["rate"]
        keep = draws.bernoulli(given["key"], share, (2, len(x)), axis=1) / share
      return block(x, keep=keep, **inputs), None

    if remat:
      run = jax.checkpoint(
        run, policy=jax.checkpoint_policies.save_only_these_names(attention.KEPT)
      )
    else:
      # Parameters that devices share are no part of what is kept: they are put
      # together again. A scan's passes are two loops, between which nothing that
      # is computed twice can be found and merged.
      run = jax.checkpoint(run, policy=kept.policy, prevent_cse=False)
    given: dict[str, Any] = {"params": params}
    if drops:
      if key is None:
        raise ValueError("Dropping paths needs a key.")
      given["rate"] = jnp.asarray(rates, jnp.float32)
      given["key"] = draws.split(key, self.depth)
    if frozen:
      # Before the scan too, or the backward pass of these blocks is traced and kept.
      first = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf[:frozen]), given)
      x = jax.lax.stop_gradient(jax.lax.scan(run, jax.lax.stop_gradient(x), first)[0])
      given = jax.tree.map(lambda leaf: leaf[frozen:], given)
    return jax.lax.scan(run, x, given)[0]
