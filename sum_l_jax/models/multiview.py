"""The two-view model: an encoder, class heads and a projection per view.

    ego video -- encoder -- feature -+- dropout -- heads/<task> --> logits
                                     '- projection -- unit length -> embedding
    exo video -- encoder -- (the same, with its own parameters)

The parameter tree is `ego/{encoder,heads,projection}` and
`exo/{encoder,heads,projection}`; only the views asked for exist. Evaluation
uses the ego half alone (paper, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
import math
import zlib

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax import types
from sum_l_jax.models import backbones
from sum_l_jax.models import heads
from sum_l_jax.models import pixel_format
from sum_l_jax.models import resnet3d
from sum_l_jax.models import slowfast
from sum_l_jax.models.layers import convolution


def _number(name: str) -> int:
  # Not hash(): Python salts it anew in every process.
  return zlib.crc32(name.encode())


def _generator(seed: int, *names: str) -> np.random.Generator:
  """The random generator of one part of the model, by its place in the tree."""
  return np.random.default_rng([seed, *map(_number, names)])


class Tower(nnx.Module):
  """Everything of one view.

  Attributes:
    encoder: of the view; its parameters may be another view's too.
    heads: `nnx.Dict` of `heads.Linear` by task name.
    projection: absent where `embedding_dim` is None.
  """

  def __init__(
    self,
    spec: backbones.BackboneSpec,
    *,
    tasks: Mapping[str, int],
    embedding_dim: int | None,
    own_encoder: bool,
    frozen: bool,
    dropout: float,
    prenorm: bool,
    pixels: pixel_format.PixelSpec,
    seed: int,
    view: str,
    **encoder_options,
  ):
    self.dropout = dropout
    self.frozen = frozen
    self.pixels = pixels
    if own_encoder:
      encoder = slowfast.SlowFast if spec.fast else resnet3d.ResNet3D
      self.encoder = encoder(spec, rng=_generator(seed, view, "encoder"), **encoder_options)
    self.heads = nnx.Dict(
      {
        task: heads.Linear(spec.feature_dim, num_classes, rng=_generator(seed, view, "heads", task))
        for task, num_classes in tasks.items()
      }
    )
    self.has_projection = embedding_dim is not None
    if self.has_projection:
      self.projection = heads.Projection(
        spec.feature_dim, embedding_dim, prenorm=prenorm, rng=_generator(seed, view, "projection")
      )

  def __call__(self, inputs, *, train: bool, key: jax.Array | None):
    """See `MultiviewModel`."""
    feature, stages = self.encoder(
      inputs["video"],
      train=train and not self.frozen,
      prepare=lambda video: pixel_format.normalize(video, self.pixels, inputs.get("color_offset")),
    )
    if self.frozen:
      feature = jax.lax.stop_gradient(feature)
    outputs = {"features": feature, "stages": stages}
    if self.has_projection:
      with jax.named_scope("projection"):
        outputs["embedding"] = self.projection(feature)
    # One mask for all tasks, as in the reference's multi-task head.
    if train and self.dropout > 0:
      feature = heads.dropout(feature, self.dropout, key)
    with jax.named_scope("heads"):
      outputs["logits"] = {task: head(feature) for task, head in self.heads.items()}
    return outputs


def _with_own_statistics(encoder: nnx.Module) -> nnx.Module:
  """A second encoder of the same parameters, each of them one array.

  The views' pixels have other statistics: running ones of both together fit
  neither, where each batch in training is normalised by its own.
  """
  other = nnx.clone(encoder)
  modules = dict(nnx.iter_modules(encoder))
  for path, module in nnx.iter_modules(other):
    for name, value in vars(modules[path]).items():
      if isinstance(value, nnx.Param):
        setattr(module, name, value)
  return other


class MultiviewModel(nnx.Module):
  """Two towers, or one; built by `make_model`.

  Attributes:
    ego: the first-person tower, if built.
    exo: the third-person tower, if built.
  """

  def __init__(self, towers: Mapping[str, Tower], *, share_encoder: bool):
    self.views = tuple(view for view in types.VIEWS if view in towers)
    for view in self.views:
      setattr(self, view, towers[view])
    if share_encoder and types.EXO in towers:
      self.exo.encoder = _with_own_statistics(self.ego.encoder)

  def __call__(
    self, inputs: types.Batch, *, train: bool, key: jax.Array | None = None
  ) -> types.Outputs:
    """Computes the views present in `inputs`.

    Args:
      inputs: {view: {"video": uint8 `[B, T, H, W, 3]`, "color_offset":
        float32 `[B, 3]`, optional}}; other entries are ignored.
      train: dropout and batch statistics, moving the running ones.
      key: of the dropout; each view folds in its own name, so that one view's
        randomness does not depend on the other's presence.

    Returns:
      {view: {"logits": {task: float32 `[B, K]`}, "embedding": float32
      `[B, D]` of unit length (with a projection), "features": float32
      `[B, C]`, "stages": {"s1": {pathway: `[B, T', H', W', C']`} ...}}}.

    Raises:
      ValueError: if a view was not built, none is given, or `train` lacks a
        key that dropout needs.
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
      view_key = key if key is None else jax.random.fold_in(key, _number(view))
      # Names of operations, in profiles and in what `sum_l_jax.tools.aot` prints.
      with jax.named_scope(view):
        outputs[view] = tower(inputs[view], train=train, key=view_key)
    return outputs


def _check(backbone, tasks, pixels, dropout, share_encoder) -> None:
  if backbone not in backbones.BACKBONES:
    raise ValueError(f"backbone must be one of {tuple(backbones.BACKBONES)}, got {backbone!r}.")
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


def _remat_stages(remat: bool | str, spec: backbones.BackboneSpec) -> tuple[str, ...]:
  """The stages that `remat` names."""
  if remat is True or remat == "blocks":
    return spec.stage_names[1:]
  if not remat or remat == "none":
    return ()
  names = tuple(name.strip() for name in remat.split(","))
  if set(names) - set(spec.stage_names):
    raise ValueError(
      f"remat must be 'none', 'blocks' or some of {spec.stage_names},"
      f" separated by commas; got {remat!r}."
    )
  return names


def make_model(
  *,
  backbone: str,
  tasks: Mapping[str, Mapping[str, int]],
  embedding_dim: int | None,
  dropout: float = 0.5,
  pixels: Mapping[str, pixel_format.PixelSpec] | None = None,
  share_encoder: bool = False,
  freeze_exo: bool = False,
  prenorm: bool = False,
  bn_group_size: int = 0,
  dtype: jnp.dtype = jnp.float32,
  conv: str = "auto",
  remat: bool | str = "none",
  pack_clips: int = 0,
  pool_window: int = 0,
  seed: int = 0,
) -> MultiviewModel:
  """Builds the model.

  Parameters of a tower depend on (seed, view) alone, those of a head on
  (seed, view, task): every method starts from the same ego tower.

  Args:
    backbone: a key of `BACKBONES`.
    tasks: {view: {task name: number of classes}}; only these views are built.
      A view may have no tasks.
    embedding_dim: D, the width of the text vectors; None builds no projection.
    dropout: rate before the class heads.
    pixels: normalisation by view; `PixelSpec()` where absent.
    share_encoder: the exo tower uses the ego encoder's parameters (Table 6,
      "shared weights"); running statistics are each view's own.
    freeze_exo: no gradient for the exo encoder, which runs on its running
      statistics (Table 6, "frozen").
    prenorm: normalise the feature before the projection too (released code).
    bn_group_size: examples that share batch statistics; 0 is the whole batch.
    dtype: of the encoder's arithmetic; parameters, statistics, logits and
      embeddings are float32 always.
    conv: "auto", "native", "cpu", "gpu" or "tpu", see `models/layers/convolution.py`.
    remat: what is recomputed in the backward pass, to save memory: "none",
      "blocks" (or True: each block of every stage), or stages by name, such as
      "s1,s2", whose activations are the largest.
    pack_clips: how many clips thin stages of SlowFast compute side by side in
      training with conv="tpu" (`slowfast.SlowFast`): a divisor of the batch,
      or 0, which chooses.
    pool_window: for evaluation: average windows of this side in place of the
      whole map; logits then are `[B, P, K]`, P positions, whose scores are to
      be averaged. 0 is the whole map.
    seed: of the initial parameters.

  Raises:
    ValueError: if an argument is out of range, naming it and the choices.
  """
  pixels = pixels or {}
  _check(backbone, tasks, pixels, dropout, share_encoder)
  spec = backbones.BACKBONES[backbone]
  towers = {
    view: Tower(
      spec,
      tasks=tasks[view],
      embedding_dim=embedding_dim,
      own_encoder=not (share_encoder and view == types.EXO),
      frozen=freeze_exo and view == types.EXO,
      dropout=dropout,
      prenorm=prenorm,
      pixels=pixels.get(view, pixel_format.PixelSpec()),
      seed=seed,
      view=view,
      **({"pack_clips": pack_clips} if spec.fast else {}),
      backend=convolution.resolve_backend(conv),
      bn_group_size=bn_group_size,
      dtype=dtype,
      remat=_remat_stages(remat, spec),
      pool_window=pool_window,
    )
    for view in tasks
  }
  return MultiviewModel(towers, share_encoder=share_encoder)


def count_parameters(tree) -> int:
  """Number of parameters of a module, or of elements of a tree of arrays."""
  if isinstance(tree, nnx.Module):
    tree = nnx.state(tree, nnx.Param)
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
