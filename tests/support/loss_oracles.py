"""The losses once more, in numpy and torch, sharing no code with the library.

Everything is in double precision and as literal as loops allow.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

from sum_l_jax.losses.objective import Objective

# Unit vectors of the plane by their angle in degrees. The values that the tests
# expect of them were worked out in double precision; those of the released code
# come from running its classes on the same vectors.
EGO, EXO, EGO_TEXT, EXO_TEXT = (
  np.stack([np.cos(np.deg2rad(x)), np.sin(np.deg2rad(x))], axis=1)
  for x in ([0, 90, 200, 310], [30, 100, 150, 300], [0, 60, 100, 250], [20, 100, 190, 255])
)
# (temperature, sigma) of the two columns of expected values.
SHARP, SOFT = (0.06, 0.1), (0.5, 0.5)
# Kinds of the cross-view term that choose pairs by their narrations.
SELECTING = ("weighted", "filtered")


def unit(rng, *shape):
  """Random unit vectors."""
  x = rng.normal(size=shape)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pairs(similarity, dimension=3):
  """Narration vectors whose pair i has the given cosine."""
  similarity = np.asarray(similarity)
  ego = np.zeros((len(similarity), dimension))
  ego[:, 0] = 1
  exo = np.zeros_like(ego)
  exo[:, 0] = similarity
  exo[:, 1] = np.sqrt(1 - similarity**2)
  return ego, exo


def similar_narrations(size, seed=0, noise=0.5):
  """Ego and exo text `[size, 4]`, row by row alike, many of them similar."""
  rng = np.random.default_rng(seed)
  centres = unit(rng, 3, 4)[rng.integers(0, 3, size)]
  noisy = (centres + noise * rng.normal(size=centres.shape) for _ in range(2))
  return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in noisy]


def groups(size, group):
  """Slices of consecutive rows; group 0 is all of them."""
  group = group or size
  return [slice(i, i + group) for i in range(0, size, group)]


def cross_view(ego, exo, texts=(None, None), mask=None, **fields):
  """The cross-view term as an `Objective` computes it, and its diagnostics."""
  objective = Objective(tasks={}, weights={"ego_exo": 1.0}, **fields)
  outputs = {"ego": {"embedding": jnp.asarray(ego)}, "exo": {"embedding": jnp.asarray(exo)}}
  batch = {
    view: {} if text is None else {"narration": jnp.asarray(text)}
    for view, text in zip(("ego", "exo"), texts)
  }
  if mask is not None:
    batch["ego"]["mask"] = jnp.asarray(mask)
  total, terms = jax.jit(objective)(outputs, batch)
  value = terms.pop("ego_exo")
  assert total == value
  return value, terms


def numpy_contrast(
  a,
  b,
  *,
  temperature,
  decoupled,
  mask=None,
  candidates=None,
  weights=None,
  same_view=False,
  texts=None,
  cosine=0.0,
  divide_by=0,
):
  """Eq. 3 and Eq. 6 (Eq. 9 with weights), one direction, as loops over pairs.

  With `cosine`, clips whose narrations are that near to the anchor's or to its
  positive's are no negatives. With `divide_by`, the sum is divided by that number
  instead of the number of anchors, and one anchor is enough.
  """
  rows = [i for i in range(len(a)) if mask is None or mask[i]]
  others = rows if candidates is None else [j for j in range(len(a)) if candidates[j]]
  if len(others if divide_by else rows) < 2:
    return 0.0

  def is_negative(i, j, side):
    if i == j or not cosine:
      return i != j
    return max(texts[0][i] @ texts[side][j], texts[1][i] @ texts[side][j]) < cosine

  values = []
  for i in rows:
    negative = [a[i] @ b[j] for j in others if is_negative(i, j, 1)]
    if same_view:
      negative += [a[i] @ a[j] for j in others if is_negative(i, j, 0)]
    if not negative:
      values.append(0.0)
      continue
    positive = a[i] @ b[i] / temperature
    s_i = np.sum(np.exp(np.array(negative) / temperature))
    if not decoupled:
      s_i += np.exp(positive)
    values.append(np.log(s_i) - (1.0 if weights is None else weights[i]) * positive)
  return np.sum(values) / (divide_by or len(rows))


def torch_contrast(a, b, temperature, decoupled, mask, weights, same_view):
  """The same in matrix form on the selected rows, for its gradients."""
  keep = torch.as_tensor(np.asarray(mask)).bool()
  a, b, w = a[keep], b[keep], torch.as_tensor(weights)[keep]
  logits = a @ b.T / temperature
  own = torch.eye(len(a), dtype=torch.bool)
  positive = torch.diagonal(logits)
  if decoupled:
    logits = logits.masked_fill(own, -torch.inf)
  if same_view:
    same = (a @ a.T / temperature).masked_fill(own, -torch.inf)
    logits = torch.cat([logits, same], dim=1)
  return (torch.logsumexp(logits, dim=1) - w * positive).mean()


def numpy_ego_exo(
  ego,
  exo,
  similarity,
  *,
  kind,
  temperature,
  sigma,
  threshold,
  mask,
  same_view,
  negatives_from,
  average_over="selected",
  texts=None,
  cosine=0.0,
):
  """Eq. 2, 7 or 8: both directions of one group."""
  selected = valid = np.asarray(mask, bool)
  weights = None
  if kind in SELECTING:
    selected = selected & (similarity > threshold)
  if kind == "weighted" and selected.any():
    e = np.exp(similarity / sigma)
    weights = e / e[valid if average_over == "all" else selected].mean()
  options = dict(
    temperature=temperature,
    decoupled=kind != "info_nce",
    mask=selected,
    candidates=valid if negatives_from == "all" else None,
    weights=weights,
    same_view=same_view,
    cosine=cosine,
    divide_by=valid.sum() if average_over == "all" else 0,
  )
  back = texts and texts[::-1]
  return numpy_contrast(ego, exo, texts=texts, **options) + numpy_contrast(
    exo, ego, texts=back, **options
  )


def numpy_graded(
  a,
  b,
  a_text,
  b_text,
  *,
  temperature,
  target_temperature,
  threshold,
  mask=None,
  all_negatives=False,
  same_view=False,
  cosine=0.0,
):
  """Graded positives: one direction of one group as loops over clips."""
  rows = [i for i in range(len(a)) if mask is None or mask[i]]
  said = lambda x, y: cosine and x @ y >= cosine
  positives = {i: [j for j in rows if a_text[i] @ b_text[j] > threshold] for i in rows}
  anchors = [i for i in rows if positives[i]]
  keys = [j for j in rows if any(j in positives[i] for i in rows)]
  own_view = anchors
  if all_negatives:
    keys = own_view = rows
  if len(anchors) < 2:
    return 0.0
  values = []
  for i in anchors:
    choice = [a[i] @ b[j] for j in keys if j in positives[i] or not said(a_text[i], b_text[j])]
    if same_view:
      choice += [a[i] @ a[j] for j in own_view if j != i and not said(a_text[i], a_text[j])]
    if len(choice) < 2:
      values.append(0.0)
      continue
    q = np.array([np.exp(a_text[i] @ b_text[j] / target_temperature) for j in positives[i]])
    p = np.array([np.exp(a[i] @ b[j] / temperature) for j in positives[i]])
    p /= np.sum(np.exp(np.array(choice) / temperature))
    values.append(-np.sum(q / q.sum() * np.log(p)))
  return np.mean(values)


def numpy_matching(
  form,
  first,
  second,
  *,
  labels=(),
  texts=(),
  positives="pair",
  mask=None,
  temperature=1.0,
  threshold=0.5,
  bias=0.0,
  margin=0.2,
  same_view=False,
  cosine=0.0,
):
  """Forms with many positives as loops over single items, both directions.

  A side is a list of (vectors `[N, D]`, view); `labels[view][i]` has for each task the
  names of the classes of a view's clip i, and `texts[view][i]` is its narration.
  """
  rows = [i for i in range(len(first[0][0])) if mask is None or mask[i]]
  alike = lambda v, i, w, j: texts[v][i] @ texts[w][j]

  def relevance(v, i, w, j):
    if positives == "narrations":
      return min(max(alike(v, i, w, j), 0.0), 1.0)
    sets = zip(labels[v][i], labels[w][j])
    return np.mean([len(x & y) / max(len(x | y), 1) for x, y in sets])

  def is_positive(v, i, w, j, paired):
    if positives == "narrations":
      return alike(v, i, w, j) > threshold
    shared = positives != "pair" and all(x & y for x, y in zip(labels[v][i], labels[w][j]))
    return shared or (positives != "labels" and paired)

  def of_anchor(side, other, g, i):
    """Cosine, whether it is a positive and whether the own pair, of all that is compared."""
    z, v = side[g]
    found = []
    for h, (x, w) in enumerate(other):
      for j in rows:
        hit = is_positive(v, i, w, j, i == j)
        if hit or not cosine or alike(v, i, w, j) < cosine:
          found.append((z[i] @ x[j], hit, (h, j) == (g, i)))
    for h, (x, w) in enumerate(side if same_view else ()):
      for j in rows:
        hit = is_positive(v, i, w, j, i == j)
        if (h, j) != (g, i) and (hit or not cosine or alike(v, i, w, j) < cosine):
          found.append((z[i] @ x[j], hit, False))
    return found

  def one_way(side, other):
    values = []
    for g, i in ((g, i) for g in range(len(side)) for i in rows):
      found = of_anchor(side, other, g, i)
      s = np.array([entry[0] for entry in found])
      hit = np.array([entry[1] for entry in found], bool)
      p = np.exp(s / temperature) / np.sum(np.exp(s / temperature))
      if form == "ego_nce" and hit.any():
        values.append(-np.log(p[hit].sum()))
      elif form == "sup_con":
        values.append(-np.log(p[hit]).mean() if hit.any() else 0.0)
      elif form == "sigmoid":
        y = np.where(hit, 1.0, -1.0)
        values.append(np.sum(np.log1p(np.exp(-y * (s / temperature + bias)))))
      elif form.endswith("margin"):
        (x, w), (z, v) = other[g], side[g]
        wanted = margin * (relevance(v, i, w, i) if form == "adaptive_margin" else 1.0)
        values += [
          max(0.0, wanted - z[i] @ x[i] + score) for score, is_hit, own in found if not is_hit | own
        ]
    return np.mean(values) if values else 0.0

  both = one_way(first, second) + one_way(second, first)
  return both if form == "ego_nce" else both / 2


def class_names(labels, names):
  """For each clip the names of its classes as a set, of ids `[N]` or multi-hot `[N, K]`."""
  if np.ndim(labels) == 1:
    return [{names[k]} if k >= 0 else set() for k in labels]
  return [{names[k] for k in np.flatnonzero(row)} for row in labels]
