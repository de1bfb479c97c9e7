"""Which clips to show, and what several checkpoints see in them."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath
import numpy as np

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import records
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.system import addresses
from sum_l_jax.system import storage
from sum_l_jax.tools.class_maps import explain
from sum_l_jax.tools.class_maps import map_overlay


def most_changed(change: np.ndarray, number: int) -> np.ndarray:
  """Chooses the clips whose value changes most, in either direction.

  Args:
    change: changes of the clips, `[N]`; NaN is never chosen.
    number: most clips to choose.

  Returns:
    int64, most changed first; among equals the first clip first.
  """
  size = np.where(np.isnan(change), -1.0, np.abs(change))
  order = np.argsort(-size, kind="stable")[:number]
  return order[size[order] >= 0]


def right_probability(
  explainer: explain.Explainer, source: addresses.PathLike, dataset: records.ClipDataset
) -> np.ndarray:
  """Computes the mean probability of each clip's labels, float32 `[N]`.

  It comes from the scores that the checkpoint's evaluation left, where they are
  of these weights and clips; otherwise every clip is scored now, by one test
  view. It is NaN for a clip without a label or that can't be read.

  Args:
    explainer: explainer of the checkpoint.
    source: where the checkpoint was read from.
    dataset: the clips.
  """
  scores = _stored_scores(explainer, source, dataset)
  if scores is None:
    return explainer.right_probability(dataset)
  found = np.full(len(dataset), np.nan, np.float32)
  for row, own in enumerate(scores):
    ids = explainer.labels(dataset, row)
    if ids:
      found[row] = own[ids].mean()
  return found


def _stored_scores(
  explainer: explain.Explainer, source: addresses.PathLike, dataset: records.ClipDataset
) -> np.ndarray | None:
  """`[N, K]` from the workdir's evaluation, or None where it does not fit."""
  workdir = addresses.path(source)
  if explainer.view != types.EGO or not storage.is_dir(workdir):
    return None
  try:
    result = result_files.read_result(workdir, dataset.split)
    ids, scores, _ = result_files.read_scores(workdir, dataset.split)
  except (ValueError, FileNotFoundError):
    return None
  own = weight_files.weights_sha256(explainer.weights, types.EGO)
  fits = (
    result.get("checkpoint_sha256") == own
    and result["splits"][dataset.split].get("fingerprint") == dataset.fingerprint
    and ids.tolist() == [clip.clip_id for clip in dataset.clips]
  )
  return scores.get(explainer.task) if fits else None


def network_names(methods: Sequence[str], sources: Sequence[addresses.PathLike]) -> tuple[str, ...]:
  """Names networks for pictures and tables.

  They are called by their methods; where two have one method, by as much of the
  end of their paths as tells them apart.

  Args:
    methods: method of each network, "" where unknown.
    sources: where each was read from.
  """
  if all(methods) and len(set(methods)) == len(methods):
    return tuple(methods)
  parts = [epath.Path(source).parts for source in sources]
  for count in range(1, max(map(len, parts)) + 1):
    names = tuple(str(epath.Path(*p[-count:])) for p in parts)
    if len(set(names)) == len(names):
      return names
  return tuple(map(str, sources))


def blocks(
  explainers: Sequence[explain.Explainer],
  names: Sequence[str],
  dataset: records.ClipDataset,
  rows: Sequence[int],
  *,
  show: str,
  class_name: str = "",
) -> list[map_overlay.Block]:
  """Explains the chosen clips by each network.

  Args:
    explainers: an explainer per network.
    names: names of the networks.
    dataset: the clips.
    rows: positions of the chosen clips.
    show: see `Explainer.__call__`.
    class_name: see there.

  Returns:
    A block per clip that can be read.

  Raises:
    ValueError: none can be read.
  """
  seen = [e(dataset, rows, show=show, class_name=class_name) for e in explainers]
  found = []
  for column in zip(*seen):
    whole = [item for item in column if item is not None]
    if len(whole) == len(explainers):
      found.append(map_overlay.Block(tuple(names), tuple(whole)))
  if not found:
    raise ValueError(f"None of the chosen clips of {dataset!r} can be read.")
  return found
