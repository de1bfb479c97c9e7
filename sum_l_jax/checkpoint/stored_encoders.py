"""Puts the encoder in front of weights that were trained on what it had made before."""

from __future__ import annotations

import dataclasses

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files


def fingerprint(weights: weight_files.Weights, view: str) -> str:
  """Hashes the encoder of a view alone, as the card of its features names it.

  Raises:
    ValueError: there is no encoder of this view.
  """
  own = weights.params.get(view, {})
  # An exo tower may share the ego encoder.
  holder = own if "encoder" in own else weights.params.get(types.EGO, {})
  if not own or "encoder" not in holder:
    raise ValueError(f"{weights.source} has no {view} encoder; it has {sorted(weights.params)}.")
  stats = weights.stats.get(view, {})
  alone = dataclasses.replace(
    weights,
    params={types.EGO: {"encoder": holder["encoder"]}},
    stats={types.EGO: {"encoder": stats["encoder"]}} if "encoder" in stats else {},
  )
  return weight_files.weights_sha256(alone, types.EGO)


def with_encoder(
  weights: weight_files.Weights, encoder: weight_files.Weights, view: str
) -> weight_files.Weights:
  """Joins a tower on stored features and the encoder that made them.

  Args:
    weights: weights that were trained on stored features.
    encoder: weights with that encoder, in whichever view.
    view: view of the tower.

  Returns:
    Weights that read frames. Their card says no more of the features.

  Raises:
    ValueError: the tower has an encoder already, or this isn't the one.
  """
  features = weight_files.features_of(weights, view)
  if features is None:
    raise ValueError(
      f"The {view} view of {weights.source} was not trained on stored features, and needs no"
      " encoder."
    )
  wanted = features["encoder"]
  found = {}
  for origin in (v for v in types.VIEWS if v in encoder.params):
    if "encoder" in encoder.params[origin]:
      found[origin] = fingerprint(encoder, origin)
  origin = next((v for v, digest in found.items() if digest == wanted["weights"]), None)
  if origin is None:
    raise ValueError(
      f"{encoder.source} is not the encoder of the {view} features of {weights.source}: these were"
      f" made by {wanted['name']!r} with the fingerprint {wanted['weights']!r}, and it has"
      f" {found or 'no encoder'}. Give the weights that were given to extract_features."
    )
  tower = {**weights.params[view], "encoder": encoder.params[origin]["encoder"]}
  params = {**weights.params, view: tower}
  stats = {**weights.stats}
  if "encoder" in encoder.stats.get(origin, {}):
    stats[view] = {**stats.get(view, {}), "encoder": encoder.stats[origin]["encoder"]}
  left = {v: said for v, said in weights.card["features"].items() if v != view}
  card = {name: value for name, value in weights.card.items() if name != "features"}
  if left:
    card["features"] = left
  return dataclasses.replace(weights, params=params, stats=stats, card=card)
