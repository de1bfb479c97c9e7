"""Attention of queries over keys: the one place that decides how it is computed.

Every way gives softmax(q k^T / sqrt(Dh)) v, with the logits capped first where
the network asks for it, and its gradient.

  way     what it is                               where
  plain   the formula; keeps all logits            anywhere
  xla     `jax.nn.dot_product_attention`; blocks   anywhere, without a cap
          of a transformer compute it twice
  cudnn   cuDNN's fused attention                  NVIDIA GPUs, see `cudnn`
  blocks  blocks of queries and keys, no logits    anywhere
          kept (`block_attention`)
  splash  a Pallas kernel (`splash_attention`)     TPUs; elsewhere it is interpreted, for tests

"auto" chooses for each call, by the backend and the shapes (`way_of`).
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from sum_l_jax.models.layers import block_attention
from sum_l_jax.models.layers import kept

# The name of what an attention leaves for its backward pass, for `jax.checkpoint`.
KEPT = block_attention.KEPT

# A name of operations, by which what prints programs tells attention apart.
SCOPE = "attend"
AUTO = "auto"
WAYS = ("plain", "xla", "cudnn", "blocks", "splash")

# Fewer logits than this, of a head and a clip, are cheaper kept than computed
# again: tokens of one place through time, or one query. On CPU the formula was
# faster for 16 x 16 and slower for 196 x 196.
_FEW_LOGITS = 2**14
_CUDNN_TYPES = (jnp.float16, jnp.bfloat16)
_CUDNN_HEAD = 128


def plain(query: jax.Array, key: jax.Array, value: jax.Array, *, cap: float = 0.0) -> jax.Array:
  """The formula, with logits and softmax in float32.

  Args:
    query: `[B, N, H, Dh]`, not scaled.
    key: `[B, M, H, Dh]`.
    value: `[B, M, H, Dh]`.
    cap: c, where logits become c tanh(logit / c); 0 is off.

  Returns:
    `[B, N, H, Dh]` in the type of `value`.
  """
  scale = query.shape[-1] ** -0.5
  logits = jnp.einsum("bnhd,bmhd->bhnm", query * scale, key, preferred_element_type=jnp.float32)
  logits = kept.keep(logits)
  if cap:
    logits = cap * jnp.tanh(logits / cap)
  weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
  return kept.keep(jnp.einsum("bhnm,bmhd->bnhd", weights, value))


def xla(query: jax.Array, key: jax.Array, value: jax.Array, *, cap: float = 0.0) -> jax.Array:
  """JAX's own attention in XLA's operations; arguments as those of `plain`.

  Raises:
    ValueError: there is a cap, which it does not know.
  """
  _refuse_cap("xla", cap)
  return jax.nn.dot_product_attention(query, key, value, implementation="xla")


def cudnn(query: jax.Array, key: jax.Array, value: jax.Array, *, cap: float = 0.0) -> jax.Array:
  """The fused attention of cuDNN; arguments as those of `plain`.

  It takes float16 and bfloat16, heads of up to 128 channels, a multiple of 8,
  and no cap, on NVIDIA GPUs from Ampere on. It can't be compiled ahead of time
  without one.

  Raises:
    ValueError: the arguments or the backend are others.
  """
  problem = cudnn_problem(query.dtype, query.shape[-1], cap)
  if problem:
    raise ValueError(
      f"model.attention='cudnn' {problem}. Take 'auto', which chooses 'blocks' in its place."
    )
  return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def _refuse_cap(way: str, cap: float) -> None:
  if cap:
    raise ValueError(
      f"model.attention={way!r} knows no cap of the logits, and this network's is {cap}. Take"
      " 'auto', 'plain', 'blocks' or 'splash'."
    )


def cudnn_problem(dtype: Any, head: int, cap: float) -> str:
  """Why cuDNN can't compute an attention in this process; "" where it can.

  Args:
    dtype: type of queries, keys and values.
    head: Dh, channels of a head.
    cap: bound of the logits; 0 is none.
  """
  if cap:
    return f"knows no cap of the logits, and this network's is {cap}"
  if dtype not in _CUDNN_TYPES:
    return f"needs config.precision='bfloat16' (or float16), got {jnp.dtype(dtype).name}"
  if head > _CUDNN_HEAD or head % 8:
    return f"needs heads of at most {_CUDNN_HEAD} channels, a multiple of 8, got {head}"
  device = jax.devices()[0]
  # "8.9" of an NVIDIA GPU, "gfx90a" of another.
  version = str(getattr(device, "compute_capability", ""))
  if device.platform != "gpu" or not version.replace(".", "", 1).isdecimal():
    return f"needs an NVIDIA GPU, and JAX runs on {device.device_kind!r}"
  if float(version) < 8.0:
    return f"needs an NVIDIA GPU from Ampere on, and this is {device.device_kind!r}"
  return ""


def way_of(
  backend: str, *, queries: int, keys: int, head: int, dtype: Any, cap: float = 0.0
) -> str:
  """The way that "auto" takes.

  Args:
    backend: "cpu", "gpu", "tpu", or another one's name.
    queries: N, number of queries.
    keys: M, number of keys.
    head: Dh, channels of a head.
    dtype: type of queries, keys and values.
    cap: bound of the logits; 0 is none.
  """
  if queries * keys < _FEW_LOGITS:
    return "plain"
  if backend == "tpu":
    return "splash"
  if backend == "gpu" and not cudnn_problem(dtype, head, cap):
    return "cudnn"
  return "blocks"


@dataclasses.dataclass(frozen=True)
class Attend:
  """How attention is computed, see `choose`.

  Attributes:
    name: one of `WAYS`, or "auto".
    backend: backend that is computed on.
  """

  name: str
  backend: str

  def _way(self, queries: int, keys: int, head: int, dtype: Any, cap: float) -> str:
    if self.name != AUTO:
      return self.name
    return way_of(self.backend, queries=queries, keys=keys, head=head, dtype=dtype, cap=cap)

  def padded(self, count: int, *, head: int, dtype: Any, cap: float) -> int:
    """Number of tokens to give to an attention of `count` tokens over each other.

    A kernel that takes whole blocks pads queries, keys and values. It is cheaper
    to pad the tokens that these are made from, once and before there are heads.
    """
    if self._way(count, count, head, dtype, cap) != "splash":
      return count
    from sum_l_jax.models.layers import splash_attention

    side = splash_attention.block_size(count)
    return math.ceil(count / side) * side

  def __call__(
    self,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    cap: float = 0.0,
    count: int | None = None,
  ) -> jax.Array:
    """Arguments as those of `plain`.

    Args:
      query: `[B, N, H, Dh]`.
      key: `[B, M, H, Dh]`.
      value: `[B, M, H, Dh]`.
      cap: bound of the logits; 0 is none.
      count: number of tokens, where they were padded (`padded`): the keys behind
        them are not seen.
    """
    way = self._way(
      count or query.shape[1], count or key.shape[1], query.shape[-1], query.dtype, cap
    )
    own = {} if count is None else {"count": count}
    with jax.named_scope(SCOPE):
      return _computed(way, self.backend)(query, key, value, cap=cap, **own)


PLAIN = Attend("plain", "cpu")  # The formula is the same for every backend.


def choose(name: str, backend: str) -> Attend:
  """How attention is computed.

  Args:
    name: one of `WAYS`, or "auto", see `way_of`.
    backend: backend that is computed on: "cpu", "gpu", "tpu", or another one's
      name. It is known where a program is compiled for another machine.

  Raises:
    ValueError: there is no such way; names the choices.
  """
  if name != AUTO and name not in WAYS:
    raise ValueError(f"attention must be one of {(AUTO, *WAYS)}, got {name!r}.")
  return Attend(name, backend)


def _computed(way: str, backend: str) -> Callable[..., jax.Array]:
  if way == "splash":
    # Not above: who has no TPU need not load Pallas.
    from sum_l_jax.models.layers import splash_attention

    kernel = functools.partial(splash_attention.splash, interpret=backend != "tpu")
    return _on_each_chip(kernel)
  if way == "blocks":
    # Processors are fastest where the logits of a block stay in the cache.
    return _on_each_chip(functools.partial(block_attention.blocks, one_by_one=backend == "cpu"))
  return {"plain": plain, "xla": xla, "cudnn": cudnn}[way]


def _on_each_chip(attend: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """Lets each chip compute the attention of its own clips.

  The compiler can't divide a kernel among chips, and a loop over clips only by
  gathering them. The mesh is that of the context (`system.devices.jit_over`),
  and clips are divided along all its axes; where they can't be, each chip
  computes all.
  """

  def run(query: jax.Array, key: jax.Array, value: jax.Array, **options: Any) -> jax.Array:
    function = functools.partial(attend, **options)
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(mesh.axis_names)
    if mesh.size <= 1 or jax.sharding.AxisType.Manual in mesh.axis_types:
      return function(query, key, value)
    whole = len(query) % math.prod(mesh.axis_sizes)
    spec = jax.sharding.PartitionSpec() if whole else jax.sharding.PartitionSpec(axes)
    # Kernels don't say along which axes their results differ, which the check asks.
    return jax.shard_map(function, in_specs=spec, out_specs=spec, check_vma=False)(
      query, key, value
    )

  return run
