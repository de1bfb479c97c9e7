"""Makes the data that a run can make by itself: `config.prepare.recipe`."""

from __future__ import annotations

import contextlib

from absl import logging
from etils import epath

from sum_l_jax.system import lease
from sum_l_jax.system import storage


def prepare(recipe: str, directory: epath.Path, *, seed: int) -> None:
  """Makes the data of a recipe where it is absent.

  Args:
    recipe: "toy_kitchen" makes `ego/`, `exo/`, `narrations.npz`, `pairs.npz`,
      `pseudo_labels.npz` and `pretrained_*.npz`; "toy_kitchen_generic" makes `generic/`.
    directory: folder of the data.
    seed: seed of the rendering.

  Raises:
    ValueError: the recipe is unknown, or the folder holds other data.
  """
  recipes = {"toy_kitchen": _prepare_toy_kitchen, "toy_kitchen_generic": _prepare_generic}
  if recipe not in recipes:
    raise ValueError(f"Unknown recipe {recipe!r}; there are {sorted(recipes)}.")
  storage.make_folder(directory)
  # Two runs that start together would render into each other's files.
  writable = storage.is_writable(directory)  # Data that are complete need not be.
  with (
    lease.waited_for(directory, what=f"rendering {recipe}")
    if writable
    else contextlib.nullcontext()
  ):
    recipes[recipe](directory, seed)


def _prepare_generic(directory: epath.Path, seed: int) -> None:
  from data_prep.toy_kitchen import builder

  builder.build(directory, seed=seed, views=("generic",))


def _prepare_toy_kitchen(directory: epath.Path, seed: int) -> None:
  from data_prep import pseudo_labels
  from data_prep import toy_kitchen
  from data_prep.mining import pseudo_pairs
  from data_prep.toy_kitchen import builder
  from sum_l_jax.data import narration_table
  from sum_l_jax.data import pairing
  from sum_l_jax.data import records

  builder.build(directory, seed=seed)
  package = epath.Path(toy_kitchen.__file__).parent
  for shipped in ("narrations.npz", "pretrained_tiny.npz", "pretrained_vit_tiny.npz"):
    path = directory / shipped
    content = storage.read_bytes(package / shipped)
    # Another run may be reading it.
    if not storage.is_file(path) or storage.read_bytes(path) != content:
      storage.write_bytes(path, content)
  table = narration_table.NarrationTable.load(directory / "narrations.npz")
  ego = records.ClipDataset(directory / "ego", "train")
  exo = [records.ClipDataset(directory / "exo", "train")]
  labels_file = directory / "pseudo_labels.npz"
  # Data of earlier versions have none, and may be for reading alone.
  if not storage.is_file(labels_file) and storage.is_writable(directory):
    labels, lines = pseudo_labels.label(ego, exo, table)
    labels.save(labels_file)
    logging.info("labels of exo clips by ego narrations: %s", "; ".join(lines))
  pairs_file = directory / "pairs.npz"
  if storage.is_file(pairs_file):
    pairing.PairTable.load(pairs_file).check(ego, exo, table)
    return
  pairs = pseudo_pairs.mine(ego, exo, table)
  pairs.save(pairs_file)
  best = pairs.similarity[pairs.ego_rows, 0]
  logging.info(
    "mined pairs for %d ego clips among %d exo clips: best cosine median %.2f, %.0f %% above 0.5",
    len(ego),
    len(exo[0]),
    sorted(best)[len(best) // 2],
    100 * (best > 0.5).mean(),
  )
