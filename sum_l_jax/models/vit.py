"""One vision transformer, for every row of `models/vit_spec.py`.

    video -- patches -- + positions -- (norm) -- blocks -- norm -- tokens -- pooling -- feature

A clip of T frames becomes T' h w tokens, time first. "space_then_time" has a
second stack, which sees the tokens of one place through time; with "frame" each
frame is a clip of its own, whose features are averaged.
"""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax.models import draws
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.encoder import Encoding
from sum_l_jax.models.layers import attention
from sum_l_jax.models.layers import product
from sum_l_jax.models.layers import resize
from sum_l_jax.models.layers import token_pool
from sum_l_jax.models.layers import transformer
from sum_l_jax.models.vit_spec import VitSpec

Grid = tuple[int, int, int]
_BASE = 10_000.0  # Of the wavelengths of sinusoids and rotations.


def sincos_table(count: int, width: int) -> np.ndarray:
  """Sinusoids of the index of a token, `[count, D]` (Vaswani et al., 2017).

  Even channels are sin(index / 10000^(2 (j // 2) / D)), odd ones the cosine.
  """
  exponent = 2 * (np.arange(width) // 2) / width
  angle = np.arange(count)[:, None] / _BASE**exponent
  return np.where(np.arange(width) % 2, np.cos(angle), np.sin(angle)).astype(np.float32)


def rotary_tables(
  grid: Grid, head: int, *, tiled: bool, stretched: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Cosines and sines of V-JEPA 2's rotations, `[T' h w, Dh]` each.

  The channels of a head are divided in three parts of d = 2 ((Dh // 3) // 2)
  for time, row and column; what is left over is not turned. Angle i of d / 2 is
  position / 10000^(i / (d / 2)).

  Args:
    grid: patches in time, rows and columns.
    head: Dh, channels of a head.
    tiled: whether channel c has angle c mod d / 2, as V-JEPA 2 was trained with.
      The two channels of a pair then turn by different angles. Otherwise
      channel c has angle c // 2.
    stretched: patches of a side that row and column positions are stretched to,
      so that the last one is stretched - 1; 0 leaves them as they are.
  """
  part = 2 * ((head // 3) // 2)
  half = part // 2
  omega = _BASE ** (-np.arange(half) / max(half, 1))
  omega = np.tile(omega, 2) if tiled else np.repeat(omega, 2)
  angles = np.zeros((*grid, head))
  for axis, count in enumerate(grid):
    places = np.arange(count, dtype=np.float64)
    if stretched and axis and count > 1:
      places *= (stretched - 1) / (count - 1)
    shape = [1, 1, 1, part]
    shape[axis] = count
    angles[..., axis * part : (axis + 1) * part] = (places[:, None] * omega).reshape(shape)
  angles = angles.reshape(-1, head)
  return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def cut_patches(video: jax.Array, patch: tuple[int, int, int]) -> jax.Array:
  """`[B, T, H, W, C]` -> `[B, T', h, w, t p q C]`, patches flattened (t, row, column, channel).

  Raises:
    ValueError: patches do not divide the clip.
  """
  batch, *sides, channels = video.shape
  if any(side % size for side, size in zip(sides, patch)):
    raise ValueError(
      f"A clip of {sides[0]} frames of {sides[1]} x {sides[2]} can't be cut into patches of"
      f" {patch[0]} x {patch[1]} x {patch[2]}: choose frames.count and the crop size (training and"
      " eval) as multiples."
    )
  (time, rows, columns), (t, p, q) = [s // k for s, k in zip(sides, patch)], patch
  x = video.reshape(batch, time, t, rows, p, columns, q, channels)
  x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
  return x.reshape(batch, time, rows, columns, -1)


class Vit(nnx.Module):
  """A vision transformer; an `Encoder`.

  Attributes:
    patches: projection of the patches.
    space: learned positions `[h w, D]` (with one more for the class token in
      front), or None.
    time: learned positions `[T', D]`, or None.
    class_token: `[1, D]`, or None.
    stem_norm, norm: LayerNorms before and after the blocks, or None.
    blocks: the main `Stack`.
    time_blocks, time_norm: the second stack of "space_then_time", or None.
    joint_blocks: the stack over all tokens after both, or None.
    pool: what gives the feature, where the row has a learned pooling.
  """

  def __init__(self, spec: VitSpec, options: EncoderOptions, rng: np.random.Generator):
    options.remat_stages(())  # It has no stages that could be named.
    keys = transformer.Keys(rng)
    self.spec, self.options = spec, options
    self.feature_dim = width = spec.width
    block = transformer.BlockOptions(
      width=width,
      mlp=spec.mlp,
      heads=spec.heads,
      activation=spec.activation,
      eps=spec.norm_eps,
      norm_offset=spec.norm_offset,
      cap=spec.logit_cap,
      key_bias=not spec.query_value_bias_only,
      layer_scale=spec.layer_scale,
      divided=spec.attention == "divided",
      dtype=options.dtype,
      attend=attention.choose(options.attention, options.backend),
      lora_rank=options.lora_rank,
      lora_alpha=options.lora_alpha,
    )
    time, rows, columns = spec.grid
    size = 3 * int(np.prod(spec.patch))
    self.patches = transformer.Dense(
      size, width, keys=keys, bias=spec.patch_bias, dtype=options.dtype
    )
    learned = spec.positions == "learned"
    extra = int(spec.class_token)
    self.space = transformer.normal(keys(), (extra + rows * columns, width)) if learned else None
    self.time = transformer.normal(keys(), (time, width)) if learned and time > 1 else None
    self.class_token = transformer.normal(keys(), (1, width)) if spec.class_token else None
    norm = lambda eps: transformer.LayerNorm(
      width, eps=eps, offset=spec.norm_offset, dtype=options.dtype
    )
    self.stem_norm = norm(spec.stem_eps) if spec.stem_norm else None
    self.norm = norm(spec.norm_eps) if spec.final_norm else None
    self.blocks = transformer.Stack(block, spec.depth, keys=keys)
    stack = lambda depth: transformer.Stack(block, depth, keys=keys) if depth else None
    self.time_blocks = stack(spec.time_depth)
    self.time_norm = norm(spec.norm_eps) if spec.time_depth else None
    self.joint_blocks = stack(spec.joint_depth)
    self.pool = self._make_pool(block, keys)

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
      The feature `[B, D]`, float32, and the tokens `[B, T' h w, D]`.
    """
    spec = self.spec
    with jax.named_scope("patches"):
      x = self.patches(cut_patches(prepare(video), spec.patch))
    batch, time, rows, columns, width = x.shape
    grid = (time, rows, columns)
    x = product.shifted(x.reshape(batch, time, rows * columns, width), self._places(grid))
    if spec.attention in ("frame", "space_then_time"):
      x = x.reshape(batch * time, rows * columns, width)
    else:
      x = x.reshape(batch, time * rows * columns, width)
    first = self._first(x.shape[0])
    x = jnp.concatenate([first.astype(x.dtype), x], axis=1)
    if self.stem_norm is not None:
      x = self.stem_norm(x)
    x = self._run(self.blocks, "blocks", x, grid, train=train, key=key)
    if self.norm is not None and spec.final_norm == "tokens":
      x = self.norm(x)
    classes, x = x[:, : first.shape[1]], x[:, first.shape[1] :]
    if self.time_blocks is not None and self.time_norm is not None:
      x = x.reshape(batch, time, -1, width).swapaxes(1, 2).reshape(-1, time, width)
      x = product.shifted(x, self._times(time))
      x = self.time_norm(self._run(self.time_blocks, "time_blocks", x, grid, train=train, key=key))
      x = x.reshape(batch, -1, time, width).swapaxes(1, 2).reshape(batch, -1, width)
    if self.joint_blocks is not None:
      x = self._run(self.joint_blocks, "joint_blocks", x, grid, train=train, key=key)
    with jax.named_scope("pool"):
      feature = self._pool(classes, x).astype(jnp.float32)
    if spec.attention == "frame":
      feature = feature.reshape(batch, time, width).mean(1)
      # What tells the frames apart for a head that reads tokens.
      x = product.shifted(x.reshape(batch, time, -1, width), self._times(time)[:, None])
    return Encoding(feature, {}, x.reshape(batch, -1, width))

  def _run(
    self,
    stack: transformer.Stack,
    name: str,
    x: jax.Array,
    grid: Grid,
    *,
    train: bool,
    key: draws.Key | None,
  ) -> jax.Array:
    """Runs a stack; drop path, recomputation and freezing are those of the options."""
    options, spec = self.options, self.spec
    earlier = spec.order.stacks[name] - 1
    rotary = None
    if spec.positions.startswith("rotary"):
      tables = rotary_tables(
        grid,
        spec.width // spec.heads,
        tiled=spec.positions == "rotary_tiled",
        stretched=spec.rotary_grid,
      )
      rotary = jnp.asarray(tables[0]), jnp.asarray(tables[1])
    rates: tuple[float, ...] = ()
    if train and options.drop_path:
      rates = transformer.drop_rates(
        stack.depth, options.drop_path, constant=spec.constant_drop_path
      )
      key = key if key is None else draws.fold_in(key, len(name))
    with jax.named_scope(name):
      return stack(
        x,
        rates=rates,
        key=key,
        remat=train and options.remat == "blocks",
        frozen=min(max(options.frozen - earlier, 0), stack.depth),
        rotary=rotary,
        grid=(grid[0], grid[1] * grid[2]),
      )

  def _places(self, grid: Grid) -> jax.Array:
    """What is added to the patches, `[T' or 1, h w, D]`."""
    spec = self.spec
    if spec.positions == "sincos":
      table = sincos_table(int(np.prod(grid)), spec.width)
      return jnp.asarray(table).reshape(grid[0], -1, spec.width)
    if self.space is None:
      return jnp.zeros((1, 1, spec.width), jnp.float32)
    table = self.space[...][int(spec.class_token) :].reshape(*spec.grid[1:], spec.width)
    table = resize.resize(table, grid[1:], spec.interpolation)
    places = table.reshape(1, -1, spec.width)
    if spec.attention in ("joint", "divided") and self.time is not None:
      places = places + self._times(grid[0])[:, None]
    return places

  def _times(self, count: int) -> jax.Array:
    """Learned positions in time, `[T', D]`."""
    if self.time is None:
      return jnp.zeros((count, self.spec.width), jnp.float32)
    table = self.time[...]
    if self.spec.time_positions == "truncate" and count < len(table):
      return table[:count]
    return resize.resize(table, (count,), self.spec.interpolation)

  def _first(self, rows: int) -> jax.Array:
    """The class tokens with their position, `[rows, 1, D]`, or none of them."""
    if self.class_token is None:
      return jnp.zeros((rows, 0, self.spec.width), jnp.float32)
    token = self.class_token[...]
    if self.space is not None:
      token = token + self.space[...][:1]
    return jnp.broadcast_to(token, (rows, 1, self.spec.width))

  def _make_pool(
    self, block: transformer.BlockOptions, keys: transformer.Keys
  ) -> token_pool.MapPool | token_pool.Pooler | None:
    width = self.spec.width
    if self.spec.pooling == "map":
      return token_pool.MapPool(block, keys=keys)
    if self.spec.pooling == "pooler":
      return token_pool.Pooler(
        width,
        inner=4 * width,
        heads=self.spec.heads,
        keys=keys,
        norm_offset=self.spec.norm_offset,
      )
    return None

  def _pool(self, classes: jax.Array, tokens: jax.Array) -> jax.Array:
    if self.pool is not None:
      return self.pool(tokens)
    if self.spec.pooling == "class":
      return classes[:, 0]
    mean = tokens.mean(1, dtype=jnp.float32)
    if self.norm is not None and self.spec.final_norm == "pooled":
      return self.norm(mean)
    return mean
