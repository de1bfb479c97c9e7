"""Networks of one view, rebuilt from checkpoints.

Backbone, pixels, frames and crop are those of the checkpoint's card, so that
right weights can't meet wrong pixels. Arithmetic is float32, even where the
training was in bfloat16.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from typing import Any

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import transforms
from sum_l_jax.models import backbones
from sum_l_jax.system import checked_json
from sum_l_jax.train.state import Network

Card = Mapping[str, Any]


def class_model(
  card: Card, view: str, options: models.EncoderOptions | None = None
) -> models.MultiviewModel:
  """Makes the encoder and class heads of a view.

  Args:
    card: card of a checkpoint with both.
    view: "ego" or "exo".
    options: how the encoder computes.

  Raises:
    ValueError: the card is damaged.
  """
  weight_files.check_card(card, view=view)
  return models.make_model(
    backbone=weight_files.backbone_of(card, view),
    tasks={view: {task: len(names) for task, names in card["tasks"][view].items()}},
    embedding_dim=None,
    pixels={view: models.PixelSpec.from_json(card["pixels"][view])},
    probe=probe_options(card),
    options=options,
  )


def embedding_model(card: Card, view: str, dim: int) -> models.MultiviewModel:
  """Makes the encoder and projection of a view, without class heads."""
  weight_files.check_card(card)
  return models.make_model(
    backbone=weight_files.backbone_of(card, view),
    tasks={view: {}},
    embedding_dim=dim,
    prenorm=prenorm(card),
    probe=probe_options(card),
    pixels={view: models.PixelSpec.from_json(card["pixels"][view])},
  )


def probe_options(card: Card) -> models.ProbeOptions | None:
  """What reads the tokens; None where heads read the pooled feature."""
  # A converted file says it in `network`, a run in its config, and neither if it
  # is older than probes.
  said = {**read_config(card)}
  said.update({f"model.{name}": value for name, value in card.get("network", {}).items()})
  return models.ProbeOptions.of_head(
    said.get("model.head", types.LINEAR_HEAD),
    depth=said.get("model.probe_depth", models.ProbeOptions.depth),
    heads=said.get("model.probe_heads", models.ProbeOptions.heads),
  )


def prenorm(card: Card) -> bool:
  """Whether a checkpoint's projections take features of unit length."""
  # A converted file says it in `network`, a run in its config.
  network = card.get("network", {})
  if "projection_prenorm" in network:
    return bool(network["projection_prenorm"])
  return read_config(card)["model.projection_prenorm"] == "true"


def pool_window(card: Card, view: str) -> int:
  """Side of the windows that evaluation pools; 0 is the whole map."""
  if probe_options(card) is not None:
    return 0
  # A converted file says it in `network`, a run in its config.
  network, config = card.get("network", {}), read_config(card)
  if "pool_window" in network:
    return int(network["pool_window"])
  own = config.get(f"{view}.frames.crop_size", 0)
  return backbones.find(weight_files.backbone_of(card, view)).pool_window(
    config.get("eval.pool_window", 0),
    train_crop=own or config.get("frames.crop_size", 0),
    test_crop=weight_files.frames_of(card, view)["crop_size"],
  )


def read_config(card: Card) -> dict[str, Any]:
  """The config of the run, by dotted name; empty for converted weights."""
  return checked_json.decode(card.get("config") or "{}", checked_json.Object)


def eval_transform(card: Card, view: str) -> transforms.ClipTransform:
  """Sampling and cropping of a view at test time, as the checkpoint's card says."""
  said = weight_files.frames_of(card, view)
  return transforms.ClipTransform.for_testing(
    said["count"], said["stride"], said["crop_size"], said.get("sampling", types.BY_STRIDE)
  )


def select(
  params: Mapping[str, Any], stats: Mapping[str, Any], view: str, parts: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Selects parts of one view's tower.

  An exo tower that shares the ego encoder gets its parameters; its statistics
  are always its own. A probe is selected with what reads it, with their queries
  alone.

  Args:
    params: parameters of a run, by view.
    stats: statistics of a run, by view.
    view: "ego" or "exo".
    parts: "encoder", and "heads" or "projection" or both.

  Returns:
    Parameters and statistics, `{view: {part: ...}}` each, of those parts that
    the run has.
  """
  own = {"encoder": params.get(types.EGO, {}).get("encoder"), **params.get(view, {})}
  if "probe" in own and {"heads", "projection"} & {*parts}:
    reader = {"queries": "heads", "projection_query": "projection"}
    own["probe"] = {n: x for n, x in own["probe"].items() if reader.get(n) in (None, *parts)}
    parts = {*parts, "probe"}
  of_view = lambda tree: {view: {part: tree[part] for part in parts if tree.get(part)}}
  return of_view(own), of_view(stats.get(view, {}))


def arrays(
  weights: weight_files.Weights, view: str, network: Network
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Selects what a network of one view has, checked against its own arrays.

  Raises:
    ValueError: an array is missing or has another shape.
  """
  trees = select(weights.params, weights.stats, view, network.shapes[0][view])
  for saved, shapes in zip(trees, network.shapes):
    manager.check_same_arrays(saved, shapes, where=weights.source)
  return trees
