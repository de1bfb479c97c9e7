"""One tower of a checkpoint, with its encoder and heads."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import json
from typing import Any

import jax

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.train.state import Network


def check_view(weights: weight_files.Weights, view: str) -> None:
  """Refuses a checkpoint that has no class scores for a view.

  Raises:
    ValueError: it lacks the encoder or the head.
  """
  own = weights.params.get(view, {})
  shared = "encoder" in weights.params.get(types.EGO, {})
  if own and ("encoder" in own or shared) and own.get("heads"):
    return
  raise ValueError(
    f"{weights.source} has no {view} encoder with a class head; it has"
    f" towers {sorted(weights.params)}. Give a checkpoint that was trained"
    f" on {view} clips, or a data set of another view."
  )


def maker(card: Mapping[str, Any], view: str) -> Callable[[], models.MultiviewModel]:
  """What builds the network of one view, without projection."""
  pixels = models.PixelSpec.from_json(card["pixels"][view])
  return lambda: models.make_model(
    backbone=card["backbone"],
    tasks={view: {t: len(n) for t, n in card["tasks"][view].items()}},
    embedding_dim=None,
    pixels={view: pixels},
  )


def trees(weights: weight_files.Weights, view: str, network: Network) -> tuple[Any, Any]:
  """Parameters and statistics of the tower, on the device.

  An exo tower that shares the ego encoder gets its parameters.

  Raises:
    ValueError: the arrays are not those of the network.
  """
  owner = view if "encoder" in weights.params[view] else types.EGO
  params = {
    view: {"encoder": weights.params[owner]["encoder"], "heads": weights.params[view]["heads"]}
  }
  # Not there: the check says so.
  stats = {view: {"encoder": weights.stats.get(view, {}).get("encoder", {})}}
  for saved, wanted in zip((params, stats), network.shapes):
    manager.check_same_arrays(saved, wanted, where=weights.source)
  return jax.device_put((params, stats))


def method_name(weights: weight_files.Weights) -> str:
  """How the checkpoint was trained, such as "sum_l"; "" where unknown."""
  return json.loads(weights.card.get("config") or "{}").get("method", "")
