"""The two-view model: an encoder, class heads and a projection for each view.

    ego video -- encoder, pooling -- feature -+- dropout -- heads/<task> -- logits
                                              '- projection (Eq. 5) ------- embedding
    exo video -- the same, with parameters of its own

An encoder that ran before training (`models/stored_tokens.py`) has no parameters, and
its view no video: heads, probe and projection stand on what it gave.

With a probe (`models/probes.py`), heads and projection read what it makes of the
encoder's tokens instead of the feature.

The parameter tree is `ego/{encoder,heads,projection}` and
`exo/{encoder,heads,projection}`, with a `probe` in each if there is one; only the
views asked for exist. Evaluation uses the ego tower alone (paper, section 3). In
the ablation of Table 6 the exo encoder shares the ego encoder's parameters, or is
frozen.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
import math
from typing import Any
import zlib

from flax import nnx
import jax
from jax import ad_checkpoint
import jax.numpy as jnp
import numpy as np

from sum_l_jax import types
from sum_l_jax.models import backbones
from sum_l_jax.models import draws
from sum_l_jax.models import pixel_format
from sum_l_jax.models import probes
from sum_l_jax.models.encoder import Encoder
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.encoder import Encoding
from sum_l_jax.models.stored_tokens import StoredSpec
from sum_l_jax.models.stored_tokens import StoredTokens


def l2_normalize(x: jax.Array) -> jax.Array:
  """Unit vectors along the last axis, float32; a zero vector stays zero.

  The gradient is finite everywhere, also at zero.
  """
  x = x.astype(jnp.float32)
  squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))


def dropout(x: jax.Array, rate: float, key: draws.Key) -> jax.Array:
  """Zeroes a fraction `rate` of x and scales the rest by 1 / (1 - rate)."""
  keep = draws.bernoulli(key, 1.0 - rate, x.shape)
  return jnp.where(keep, x / (1.0 - rate), 0.0)


class Linear(nnx.Module):
  """x @ kernel + bias in float32; a class head.

  Attributes:
    kernel: `[C, K]`, starts as N(0, 0.01), as in the reference networks.
    bias: `[K]`, starts at zero.
  """

  def __init__(self, in_features: int, out_features: int, *, rng: np.random.Generator):
    draw = rng.standard_normal((in_features, out_features), np.float32)
    self.kernel = nnx.Param(jnp.asarray(np.float32(0.01) * draw))
    self.bias = nnx.Param(jnp.asarray(np.zeros((out_features,), np.float32)))

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, C]` -> `[B, K]`."""
    return x.astype(jnp.float32) @ self.kernel[...] + self.bias[...]


class Projection(Linear):
  """Eq. 5: z = h(f) / |h(f)|, a linear layer h, then unit length.

  f is the encoder's feature, its activations averaged over time and space. The
  same z stands beside the other view's and beside the text's vector, so its
  width D is that of the text vectors.

  `prenorm` brings f to unit length too, as the released code does and its
  weights need; Eq. 5 normalises only after h.
  """

  def __init__(
    self, in_features: int, out_features: int, *, prenorm: bool = False, rng: np.random.Generator
  ):
    super().__init__(in_features, out_features, rng=rng)
    self.prenorm = prenorm

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, C]` -> unit vectors `[B, D]`, float32 (Eq. 5)."""
    if self.prenorm:
      x = l2_normalize(x)
    return l2_normalize(super().__call__(x))


class Tower(nnx.Module):
  """Everything of one view.

  Attributes:
    encoder: encoder of the view; its parameters may be the other view's too.
    frozen: whether the encoder gets no gradient and keeps its statistics.
    probe: what reads the encoder's tokens, or None.
    heads: `nnx.Dict` of `Linear` by task name.
    projection: the projection of Eq. 5, or None.
  """

  def __init__(
    self,
    encoder: Encoder,
    *,
    probe: probes.Probe | None,
    heads: Mapping[str, Linear],
    projection: Projection | None,
    frozen: bool,
    dropout: float,
    pixels: pixel_format.PixelSpec,
  ):
    self.encoder = encoder
    self.probe = probe
    self.heads = nnx.Dict(heads)
    self.projection = projection
    self.frozen = frozen
    self.dropout = dropout
    self.pixels = pixels

  def __call__(
    self, inputs: Mapping[str, jax.Array], *, train: bool, key: draws.Key | None
  ) -> dict[str, Any]:
    """See `MultiviewModel.__call__`."""
    given = "tokens" if isinstance(self.encoder, StoredTokens) else "video"
    if given not in inputs:
      raise ValueError(
        f"The encoder {type(self.encoder).__name__} reads {given!r}, and the batch has {[*inputs]}."
      )
    encoding = Encoding(
      *self.encoder(
        inputs[given],
        train=train and not self.frozen,
        prepare=lambda video: pixel_format.normalize(
          video, self.pixels, inputs.get("color_offset")
        ),
        key=None if key is None else draws.fold_in(key, _number("encoder")),
      )
    )
    if self.frozen:
      # Named, so that whoever computes activations twice may keep these.
      encoding = jax.tree.map(
        lambda x: ad_checkpoint.checkpoint_name(jax.lax.stop_gradient(x), "frozen"), encoding
      )
    outputs = {"features": encoding.feature, "stages": encoding.stages}
    if encoding.tokens is not None:
      outputs["tokens"] = encoding.tokens
    read = self._read(encoding, train=train)
    if self.projection is not None and read.projection is not None:
      with jax.named_scope("projection"):
        outputs["embedding"] = self.projection(read.projection)
    seen = read.tasks
    # One mask for all tasks, as in the reference's multi-task head.
    if train and self.dropout > 0:
      assert key is not None  # The model has checked it.
      seen = {task: dropout(x, self.dropout, key) for task, x in seen.items()}
    with jax.named_scope("heads"):
      outputs["logits"] = {task: head(seen[task]) for task, head in self.heads.items()}
    return outputs

  def _read(self, encoding: Encoding, *, train: bool) -> probes.Readings:
    """What heads and projection stand on: the feature, or what the probe makes of tokens."""
    if self.probe is None:
      return probes.Readings(dict.fromkeys(self.heads, encoding.feature), encoding.feature)
    if encoding.tokens is None:
      raise ValueError(
        f"The encoder {type(self.encoder).__name__} gives no tokens, which a probe attends to. Its"
        " Encoding must have them, or choose model.head='linear'."
      )
    if encoding.tokens.shape[-1] != self.encoder.feature_dim:
      raise ValueError(
        f"The encoder {type(self.encoder).__name__} gives tokens of {encoding.tokens.shape[-1]}"
        f" channels, and features of {self.encoder.feature_dim}; a probe needs both alike."
      )
    with jax.named_scope("probe"):
      return self.probe(encoding.tokens, train=train)


class MultiviewModel(nnx.Module):
  """Two towers, or one; built by `make_model`.

  Attributes:
    ego: first-person tower, if built.
    exo: third-person tower, if built.
  """

  def __init__(self, towers: Mapping[str, Tower]):
    self.views = tuple(view for view in types.VIEWS if view in towers)
    for view in self.views:
      setattr(self, view, towers[view])

  def __call__(
    self, inputs: types.Batch, *, train: bool, key: draws.Key | None = None
  ) -> types.Outputs:
    """Computes the views that are present in `inputs`.

    Args:
      inputs: {view: {"video": uint8 `[B, T, H, W, 3]`, "color_offset":
        float32 `[B, 3]`, optional}}, or {view: {"tokens": `[B, N, C]`}} where the
        encoder ran before; other entries are ignored.
      train: whether there is dropout and batch statistics are used, which
        moves the running ones.
      key: key of the dropout. Each view folds in its own name, so that one
        view's randomness does not depend on the other's presence.

    Returns:
      {view: {"logits": {task: float32 `[B, K]`}, "embedding": float32
      `[B, D]` of unit length (with a projection), "features": float32
      `[B, C]`, "stages": {"s1": {pathway: `[B, T', H', W', C']`} ...},
      "tokens": `[B, N, C]` (of encoders that have them)}}.

    Raises:
      ValueError: a view was not built, none is given, or `train` lacks a key
        that dropout needs.
    """
    unknown = sorted(set(inputs) - set(self.views))
    if unknown or not inputs:
      raise ValueError(
        f"inputs must be of the views {self.views} that the model has, at"
        f" least one; got {tuple(inputs)}."
      )
    outputs = {}
    for view in self.views:
      if view not in inputs:
        continue
      tower = getattr(self, view)
      if train and tower.dropout > 0 and key is None:
        raise ValueError(
          f"key is None, but {view} has dropout={tower.dropout}; training needs a key."
        )
      view_key = key if key is None else draws.fold_in(key, _number(view))
      # Names of operations, in profiles and in what `sum_l_jax.tools.aot` prints.
      with jax.named_scope(view):
        outputs[view] = tower(inputs[view], train=train, key=view_key)
    return outputs


def _number(name: str) -> int:
  # Not hash(), which Python salts in every process.
  return zlib.crc32(name.encode())


def _with_own_statistics(encoder: Encoder) -> Encoder:
  """A second encoder with the same parameters, each of them one array.

  Its running statistics are its own: the views' pixels differ, and statistics
  of both together would fit neither, while in training each batch is normalised
  by its own.
  """
  assert isinstance(encoder, nnx.Module)
  other = nnx.clone(encoder)
  modules = dict(nnx.iter_modules(encoder))
  for path, module in nnx.iter_modules(other):
    for name, value in vars(modules[path]).items():
      if isinstance(value, nnx.Param):
        setattr(module, name, value)
  return other


def make_model(
  *,
  backbone: str | Mapping[str, str],
  tasks: Mapping[str, Mapping[str, int]],
  embedding_dim: int | None,
  dropout: float = 0.5,
  pixels: Mapping[str, pixel_format.PixelSpec] | None = None,
  share_encoder: bool = False,
  frozen: Collection[str] = (),
  prenorm: bool = False,
  probe: probes.ProbeOptions | None = None,
  options: EncoderOptions | Mapping[str, EncoderOptions] | None = None,
  stored: Mapping[str, StoredSpec] | None = None,
  seed: int = 0,
) -> MultiviewModel:
  """Builds the model.

  Parameters of an encoder, probe or projection depend on (seed, view) alone,
  those of a head on (seed, view, task): every method starts from the same ego tower.

  Args:
    backbone: name of the encoder, a key of `BACKBONES`, or names by view.
    tasks: {view: {task name: number of classes}}; only these views are built.
      A view may have no tasks.
    embedding_dim: D, the width of the text vectors; None builds no projection.
    dropout: rate before the class heads.
    pixels: normalisation by view; `PixelSpec()` where absent.
    share_encoder: whether the exo tower uses the ego encoder's parameters
      (Table 6, "shared weights"); running statistics are each view's own.
    frozen: views whose encoder gets no gradient and runs as at test time, on its
      running statistics (Table 6, "frozen", for the exo view).
    prenorm: whether the feature is normalised before the projection too, as in
      the released code.
    probe: what reads the encoders' tokens for heads and projection, in each view
      with parameters of its own; None reads the pooled feature.
    options: how the encoders compute, also by view; `EncoderOptions()` where
      absent.
    stored: what an encoder gave before training, by view; such a view has no encoder
      of its own, and `backbone` need not name one.
    seed: seed of the initial parameters.

  Raises:
    ValueError: an argument is out of range; names it and the choices.
  """
  pixels = pixels or {}
  by_view = options if isinstance(options, Mapping) else dict.fromkeys(types.VIEWS, options)
  computing = {view: by_view.get(view) or EncoderOptions() for view in types.VIEWS}
  stored = stored or {}
  names = dict.fromkeys(tasks, backbone) if isinstance(backbone, str) else backbone
  own = [view for view in tasks if view not in stored]
  entries = {view: backbones.find(names[view]) for view in own if view in names}
  _check(tasks, pixels, dropout, share_encoder)
  if {*own} - names.keys() or (share_encoder and len({names[view] for view in own}) > 1):
    raise ValueError(
      f"backbone must name an encoder of each view {tuple(own)}, and the same one where the views"
      f" share it; got {dict(names)}."
    )
  if share_encoder and stored:
    raise ValueError(f"share_encoder needs encoders, but these ran before: {sorted(stored)}.")
  for view, spec in stored.items():
    spec.check_head(probe is not None, view)

  def generator(*part: str) -> np.random.Generator:
    """The random generator of one part of the model, by its place in the tree."""
    return np.random.default_rng([seed, *map(_number, part)])

  towers: dict[str, Tower] = {}
  for view in (view for view in types.VIEWS if view in tasks):
    if view in stored:
      encoder = StoredTokens(stored[view])
    elif view == types.EXO and share_encoder:
      encoder = _with_own_statistics(towers[types.EGO].encoder)
    else:
      encoder = entries[view].make(computing[view], generator(view, "encoder"))
    width = encoder.feature_dim
    projection = None
    if embedding_dim is not None:
      rng = generator(view, "projection")
      projection = Projection(width, embedding_dim, prenorm=prenorm, rng=rng)
    reader = None
    if probe is not None and (tasks[view] or projection is not None):
      reader = probes.make_probe(
        width,
        probe,
        computing[view],
        tasks={task: generator(view, "probe", "queries", task) for task in tasks[view]},
        projection=None if projection is None else generator(view, "probe", "projection"),
        rng=generator(view, "probe"),
      )
    towers[view] = Tower(
      encoder,
      probe=reader,
      heads={
        task: Linear(width, num_classes, rng=generator(view, "heads", task))
        for task, num_classes in tasks[view].items()
      },
      projection=projection,
      frozen=view in frozen,
      dropout=dropout,
      pixels=pixels.get(view, pixel_format.PixelSpec()),
    )
  return MultiviewModel(towers)


def _check(
  tasks: Mapping[str, Mapping[str, int]],
  pixels: Mapping[str, pixel_format.PixelSpec],
  dropout: float,
  share_encoder: bool,
) -> None:
  for name, given in (("tasks", tasks), ("pixels", pixels)):
    unknown = sorted(set(given) - set(types.VIEWS))
    if unknown:
      raise ValueError(f"{name} must be keyed by {types.VIEWS}, got {unknown} as well.")
  if not tasks:
    raise ValueError(f"tasks is empty; name at least one of {types.VIEWS}.")
  if not 0.0 <= dropout < 1.0:
    raise ValueError(f"dropout must lie in [0, 1), got {dropout}.")
  if share_encoder and types.EGO not in tasks:
    raise ValueError(
      "share_encoder uses the ego encoder, but tasks has only"
      f" {tuple(tasks)}; add 'ego' or set share_encoder=False."
    )


def count_parameters(tree: Any) -> int:
  """Number of parameters of a module, or of elements of a tree of arrays."""
  if isinstance(tree, nnx.Module):
    tree = nnx.state(tree, nnx.Param)
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
