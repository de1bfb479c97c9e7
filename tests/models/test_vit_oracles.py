"""The vision transformers against statements of them in PyTorch, in float64.

Each statement is written from the authors' description, without the tricks of
`models/vit.py`: divided attention is a mask over all pairs of tokens, rotations
are products of complex numbers, patches are cut by a convolution. All parameters
are random, and rows of the table are shrunk, so that what distinguishes a family
is what the table says of it.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax.models import vit
from sum_l_jax.models import vit_spec
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.layers import token_pool
from sum_l_jax.models.layers import transformer

F = torch.nn.functional

# Relative to the standard deviation of what is compared.
TOLERANCE = 1e-5
GRADIENT = 1e-4
SMALL = {"width": 24, "depth": 2, "mlp": 40, "heads": 2, "image": 12, "frames": 4}


def small(name: str, **fields) -> vit_spec.VitSpec:
  """A row of the table, shrunk."""
  row = vit_spec.SPECS[name]
  stacks = {"time_depth": min(row.time_depth, 1), "joint_depth": min(row.joint_depth, 1)}
  patch = (row.patch[0], 4, 4)
  return dataclasses.replace(row, **{"patch": patch, **SMALL, **stacks, **fields})


def make(spec: vit_spec.VitSpec, **options) -> vit.Vit:
  """An encoder with random values in all parameters."""
  rng = np.random.default_rng(3)
  encoder = nnx.eval_shape(lambda: vit.Vit(spec, EncoderOptions(**options), rng))

  def draw(path, leaf):
    name, shape = jax.tree_util.keystr(path), leaf.shape
    value = rng.standard_normal(shape)
    if "stem_norm" in name and "scale" in name:
      value = 0.1 + 0.03 * value  # So small that the blocks' epsilon counts.
    elif "scale" in name:
      value = 1 - spec.norm_offset + 0.3 * value
    elif "kernel" in name:
      value = 1.4 * value / math.sqrt(shape[-2])
    else:
      value = 0.3 * value
    return jnp.asarray(value, jnp.float32)

  graph, params = nnx.split(encoder)
  return nnx.merge(graph, jax.tree_util.tree_map_with_path(draw, params))


def clips(spec: vit_spec.VitSpec, *, batch: int = 2, frames: int = 0, sides=None) -> np.ndarray:
  """Random clips, `[B, T, H, W, 3]`."""
  sides = sides or (spec.image, spec.image)
  shape = (batch, frames or spec.frames, *sides, 3)
  return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def encode(encoder: vit.Vit, video: np.ndarray, **call):
  """The feature and the tokens, as float32 arrays."""
  graph, params = nnx.split(encoder)
  call = {"train": False, "prepare": lambda x: x, **call}
  run = jax.jit(lambda params: nnx.merge(graph, params)(jnp.asarray(video), **call)[::2])
  feature, tokens = run(params)
  return np.asarray(feature, np.float32), np.asarray(tokens, np.float32)


def tensors(encoder: vit.Vit) -> dict[str, torch.Tensor]:
  """The parameters by path, float64, ready for gradients."""
  flat = nnx.to_flat_state(nnx.state(encoder, nnx.Param))
  return {
    "/".join(map(str, path)): torch.tensor(
      np.asarray(leaf[...]), dtype=torch.float64, requires_grad=True
    )
    for path, leaf in flat
  }


def close(got, wanted, tolerance=TOLERANCE) -> None:
  """Compares relative to the standard deviation of what is wanted."""
  wanted = np.asarray(wanted)
  assert got.shape == wanted.shape
  assert np.abs(np.asarray(got, np.float64) - wanted).max() <= tolerance * wanted.std()


# --- The statements. p holds parameters by path; x is [B, N, D].


def norm(x, p, name, eps):
  return F.layer_norm(x, x.shape[-1:], p[f"{name}/scale"], p[f"{name}/bias"], eps)


def dense(x, p, name):
  y = x @ p[f"{name}/kernel"]
  return y + p[f"{name}/bias"] if f"{name}/bias" in p else y


def layer(p, stack, index):
  """Parameters of one block of a stack."""
  start = f"{stack}/block/"
  return {name[len(start) :]: p[name][index] for name in p if name.startswith(start)}


def attend(x, p, name, heads, *, mask=None, turn=lambda y: y):
  """Attention; the mask `[N, N]` says which keys a query sees."""
  split = lambda y: y.unflatten(-1, (heads, -1)).transpose(1, 2)
  query, key, value = (split(dense(x, p, f"{name}/{part}")) for part in ("query", "key", "value"))
  y = F.scaled_dot_product_attention(turn(query), turn(key), value, attn_mask=mask)
  return dense(y.transpose(1, 2).flatten(2), p, f"{name}/out")


def mlp(x, p, activation):
  return dense(activation(dense(x, p, "mlp/up")), p, "mlp/down")


def cut(video, p, patch):
  """Patches by a convolution, `[B, T', h, w, D]`."""
  kernel = p["patches/kernel"].unflatten(0, (*patch, 3)).permute(4, 3, 0, 1, 2)
  x = F.conv3d(video.permute(0, 4, 1, 2, 3), kernel, p.get("patches/bias"), stride=patch)
  return x.permute(0, 2, 3, 4, 1)


def with_class_token(video, p, spec):
  """Patches with the sum of both positions behind the class token, after ln_pre."""
  x = cut(video, p, spec.patch).flatten(2, 3)
  batch, frames, places, width = x.shape
  cls, position = p["class_token"], p["space"]
  rows = [(cls[0] + position[0]).expand(batch, width)]
  for t in range(frames):
    rows += [x[:, t, n] + position[1 + n] + p["time"][t] for n in range(places)]
  return torch.stack(rows, 1)


def avion(video, p, spec):
  """AVION: all tokens see each other, exact GELU, every epsilon 1e-6, ln_post on cls."""
  x = norm(with_class_token(video, p, spec), p, "stem_norm", 1e-6)
  for index in range(spec.depth):
    q = layer(p, "blocks", index)
    x = x + attend(norm(x, q, "norm1", 1e-6), q, "attention", spec.heads)
    x = x + mlp(norm(x, q, "norm2", 1e-6), q, F.gelu)
  x = norm(x, p, "norm", 1e-6)
  return x[:, 0], x[:, 1:]


def lavila(video, p, spec, keep=(1.0, 1.0)):
  """LaViLa: t = x + Time(LN3 x); s = x + Space(LN1 t); s + MLP(LN2 s); QuickGELU.

  `keep` has factors of the last block's two branches.
  """
  frames, places = spec.frames, spec.grid[1] * spec.grid[2]
  token = torch.arange(frames * places)
  same_place = token[:, None] % places == token[None] % places
  same_frame = token[:, None] // places == token[None] // places
  see = lambda lines: torch.cat(
    [torch.ones(1, len(token) + 1, dtype=torch.bool), F.pad(lines, (1, 0), value=True)]
  )
  quick_gelu = lambda y: y * torch.sigmoid(1.702 * y)
  x = norm(with_class_token(video, p, spec), p, "stem_norm", 1e-5)
  for index in range(spec.depth):
    q = layer(p, "blocks", index)
    space, rest = keep if index == spec.depth - 1 else (1.0, 1.0)
    heads = spec.heads
    t = x + attend(norm(x, q, "time_norm", 1e-6), q, "time_attention", heads, mask=see(same_place))
    s = x + space * attend(norm(t, q, "norm1", 1e-6), q, "attention", heads, mask=see(same_frame))
    x = s + rest * mlp(norm(s, q, "norm2", 1e-6), q, quick_gelu)
  x = norm(x, p, "norm", 1e-6)
  return x[:, 0], x[:, 1:]


def vjepa21(video, p, spec):
  """V-JEPA 2.1: adjacent channels are turned as complex numbers.

  A head has parts for time, row and column, 2 ((Dh // 3) // 2) channels each;
  rows and columns are counted so that the last is 15, whatever their number.
  """
  x = cut(video, p, spec.patch)
  _, *sides, width = x.shape
  part = 2 * (width // spec.heads // 3 // 2)
  turns = torch.ones(*sides, width // spec.heads // 2, dtype=torch.complex128)
  for t, row, column in np.ndindex(*sides):
    places = t, row * 15 / (sides[1] - 1), column * 15 / (sides[2] - 1)
    for axis, place in enumerate(places):
      for i in range(part // 2):
        angle = torch.tensor(place * 10_000 ** (-i / (part / 2)))
        turns[t, row, column, axis * part // 2 + i] = torch.polar(torch.ones(()), angle)
  turns = turns.flatten(0, 2)

  def turn(y):
    pairs = torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)

  x = x.flatten(1, 3)
  for index in range(spec.depth):
    q = layer(p, "blocks", index)
    x = x + attend(norm(x, q, "norm1", 1e-6), q, "attention", spec.heads, turn=turn)
    x = x + mlp(norm(x, q, "norm2", 1e-6), q, F.gelu)
  x = norm(x, p, "norm", 1e-6)
  return x.mean(1), x


def videomae(video, p, spec):
  """VideoMAE: sinusoids of the flat index, no bias of keys, norm after the mean."""
  x = cut(video, p, spec.patch).flatten(1, 3)
  _, count, width = x.shape
  table = torch.zeros(count, width, dtype=torch.float64)
  for index, channel in np.ndindex(count, width):
    angle = index / 10_000 ** (2 * (channel // 2) / width)
    table[index, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
  x = x + table
  assert "blocks/block/attention/query/bias" in p and "blocks/block/attention/key/bias" not in p
  for index in range(spec.depth):
    q = layer(p, "blocks", index)
    x = x + attend(norm(x, q, "norm1", 1e-6), q, "attention", spec.heads)
    x = x + mlp(norm(x, q, "norm2", 1e-6), q, F.gelu)
  return norm(x.mean(1), p, "norm", 1e-6), x


ORACLES = {
  "avion_b": (avion, {}),
  "lavila_b": (lavila, {}),
  "vjepa21_b": (vjepa21, {"sides": (8, 16)}),  # 2 x 4 patches, stretched differently.
  "videomae_b": (videomae, {}),
}


@pytest.mark.parametrize("name", ORACLES)
def test_tokens_feature_and_gradients(name):
  oracle, shape = ORACLES[name]
  spec = small(name)
  encoder, video = make(spec), clips(spec, **shape)
  graph, params = nnx.split(encoder)
  rng = np.random.default_rng(2)
  found = jax.eval_shape(lambda: encoder(video, train=False, prepare=lambda x: x))
  weights = [rng.standard_normal(part.shape) for part in (found.feature, found.tokens)]

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params):
    found = nnx.merge(graph, params, copy=True)(video, train=True, prepare=lambda x: x)
    both = found.feature, found.tokens
    return sum(jnp.sum(x * w.astype(np.float32)) for x, w in zip(both, weights)), both

  (_, both), gradients = jax.jit(loss)(params)
  p = tensors(encoder)
  wanted = oracle(torch.tensor(video, dtype=torch.float64), p, spec)
  for got, want in zip(both, wanted):
    close(got, want.detach().numpy())
  sum((x * torch.tensor(w)).sum() for x, w in zip(wanted, weights)).backward()
  flat = {"/".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(gradients)}
  assert flat.keys() == p.keys()
  all_grads = {path: leaf.grad.numpy() for path, leaf in p.items()}
  size = np.sqrt(np.mean([np.square(one).mean() for one in all_grads.values()]))
  for path, want in all_grads.items():
    # Softmax does not feel a bias of the keys, whose gradient is rounding.
    bound = GRADIENT * np.sqrt(np.square(want).mean()) + 1e-6 * size
    assert np.abs(np.asarray(flat[path]) - want).max() <= bound, path


def test_lavila_drops_two_branches_and_none_through_time():
  spec = small("lavila_b")
  encoder, video = make(spec, drop_path=0.5), clips(spec, batch=1)
  feature, _ = encode(encoder, np.repeat(video, 64, 0), train=True, key=jax.random.key(0))
  p, pixels = tensors(encoder), torch.tensor(video, dtype=torch.float64)
  # Only the last block drops: rates grow from zero.
  factors = [(space, rest) for space in (0.0, 2.0) for rest in (0.0, 2.0)]
  wanted = np.concatenate([lavila(pixels, p, spec, f)[0].detach().numpy() for f in factors])
  distance = np.abs(feature[:, None] - wanted).max(-1)
  assert distance.min(1).max() < 1e-5 * wanted.std()
  assert set(distance.argmin(1)) == {0, 1, 2, 3}


def test_avion_drops_paths_of_every_block():
  spec = small("avion_b")
  encoder = make(spec, drop_path=0.5)
  video = np.repeat(clips(spec, batch=1), 256, 0)
  feature, _ = encode(encoder, video, train=True, key=jax.random.key(0))
  # Two branches of two blocks are there or not.
  assert len(np.unique(feature[:, 0].round(4))) == 16


def torch_cubic(table, size):
  x = torch.tensor(np.asarray(table)).movedim(-1, 0)[None]
  x = F.interpolate(x, size, mode="bicubic", align_corners=False)
  return x[0].movedim(0, -1).numpy()


def torch_linear(table, size):
  """LaViLa's and AVION's way: a table of time as an image, whose columns are channels."""
  x = torch.tensor(np.asarray(table))[None, None]
  return F.interpolate(x, (*size, table.shape[1]), mode="bilinear")[0, 0].numpy()


def jax_linear(table, size):
  return np.asarray(jax.image.resize(table, (*size, table.shape[-1]), "bilinear"))


def first_rows(table, size):
  return np.asarray(table)[: size[0]]


@pytest.mark.parametrize(
  "name, side, frames, space, time",
  [
    ("dinov2_b", 20, 4, torch_cubic, None),
    ("siglip2_b", 8, 4, torch_cubic, None),
    ("videoprism_b", 20, 3, jax_linear, jax_linear),
    ("videoprism_b", 8, 6, jax_linear, jax_linear),
    ("avion_b", 12, 7, None, torch_linear),
    ("avion_b", 12, 3, None, first_rows),
    ("lavila_b", 12, 2, None, first_rows),
  ],
)
def test_positions_of_other_sizes(name, side, frames, space, time):
  """A clip of another size is encoded as by a network whose tables were resized."""
  spec = small(name, depth=1)
  encoder = make(spec)
  _, params = nnx.split(encoder)
  found = encode(encoder, clips(spec, frames=frames, sides=(side, side)))
  fitting = dataclasses.replace(spec, image=side, frames=frames)
  graph, _ = nnx.split(make(fitting))
  if space is not None:
    first, places = jnp.split(params["space"][...], [int(spec.class_token)])
    places = space(places.reshape(*spec.grid[1:], -1), fitting.grid[1:])
    table = jnp.concatenate([first, places.reshape(-1, spec.width)])
    params["space"] = params["space"].replace(table)
  if time is not None:
    table = jnp.asarray(time(params["time"][...], (frames,)))
    params["time"] = params["time"].replace(table)
  wanted = encode(nnx.merge(graph, params), clips(fitting))
  for got, want in zip(found, wanted):
    close(got, want)


def test_pooler():
  """VideoPrism's: logits q k 1.442695041 softplus(s) / sqrt(256), no cap, no residual.

  The norm's scale is stored less 1.
  """
  width, heads, inner = 8, 2, 32
  rng = np.random.default_rng(4)
  pool = nnx.eval_shape(
    lambda: token_pool.Pooler(
      width, inner=inner, heads=heads, norm_offset=1.0, keys=transformer.Keys(rng)
    )
  )
  graph, params = nnx.split(pool)
  draw = lambda x: jnp.asarray(0.5 * rng.standard_normal(x.shape), jnp.float32)
  params = jax.tree.map(draw, params)
  tokens = rng.standard_normal((3, 5, width)).astype(np.float32)
  p = {
    path: np.asarray(leaf.detach(), np.float64)
    for path, leaf in tensors(nnx.merge(graph, params)).items()
  }
  project = lambda x, name: x @ p[f"{name}/kernel"] + p[f"{name}/bias"]
  query = project(p["probe"], "query").reshape(heads, -1)
  query = query * 1.442695041 / np.sqrt(inner / heads) * np.log1p(np.exp(p["scale"]))
  found = jax.jit(lambda params: nnx.merge(graph, params)(jnp.asarray(tokens)))(params)
  for clip, got in zip(tokens, np.asarray(found)):
    keys = project(clip, "key").reshape(5, heads, -1)
    values = project(clip, "value").reshape(5, heads, -1)
    logits = np.einsum("hd,nhd->hn", query, keys)
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = project(np.einsum("hn,nhd->hd", weights, values).reshape(-1), "out")
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-6) * (1 + p["norm/scale"]) + p["norm/bias"]
    close(got, y)


# Root mean square of the difference, in standard deviations of the float32 values.
# A rounding to bfloat16 is 0.0016 of a value on average; two blocks round some
# twenty times. Measured: 0.004 to 0.011, and 0.018 for VideoPrism's four stacks.
BFLOAT16 = 0.025


@pytest.mark.parametrize("name", ["lavila_b", "vjepa2_l", "videoprism_lvt_b", "dinov2_b"])
def test_bfloat16(name):
  spec = small(name)
  video = clips(spec)
  rounded = encode(make(spec, dtype=jnp.bfloat16), video)
  for got, want in zip(rounded, encode(make(spec), video)):
    error = np.sqrt(np.square(got - want).mean()) / want.std()
    assert 1e-3 < error < BFLOAT16
