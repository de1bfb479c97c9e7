"""Writes toy_kitchen as clip data sets, one folder a view."""

from __future__ import annotations

from collections.abc import Sequence
import functools

from etils import epath

from data_prep.clips import clip_dataset
from data_prep.toy_kitchen import clips
from data_prep.toy_kitchen import vocabulary
from sum_l_jax import types
from sum_l_jax.system import addresses

NAME = "toy_kitchen"
# Version of what is drawn. A folder of another version is not silently kept.
CONTENT_VERSION = 1


def build(
  root: addresses.PathLike,
  *,
  seed: int = 0,
  views: Sequence[str] = types.VIEWS,
  ego_train: int = vocabulary.COUNTS[types.EGO]["train"],
  processes: int = 2,
) -> dict[str, epath.Path]:
  """Renders and writes the views, or keeps the equal ones already there.

  Args:
    root: folder that gets one folder a view: `ego`, `exo`, `generic`.
    seed: seed of the world; other seeds give other clips of the same classes.
    views: views to write, of "ego", "exo" and "generic".
    ego_train: number of ego training clips, at most `vocabulary.EGO_POOL`. A
      smaller set is the beginning of a larger one.
    processes: number of processes that render side by side; the result doesn't
      depend on it. More than one needs the caller's `if __name__ == "__main__"`.

  Returns:
    The folder of each view.

  Raises:
    ValueError: a view is unknown or there is none, the seed is negative,
      `ego_train` is out of range, or a folder holds another data set.
  """
  if not views:
    raise ValueError(f"toy_kitchen: views must name at least one of {vocabulary.VIEWS}.")
  for view in views:
    vocabulary.check_view(view)
  if seed < 0:
    raise ValueError(f"toy_kitchen: seed must be 0 or more, got {seed}.")
  smallest = len(vocabulary.EGO_SEEN)
  if not smallest <= ego_train <= vocabulary.EGO_POOL:
    raise ValueError(
      f"toy_kitchen: ego_train must lie in {smallest} (one clip for each"
      f" combination that counts as seen) to {vocabulary.EGO_POOL}, got"
      f" {ego_train}."
    )
  directories = {view: addresses.path(root) / view for view in views}
  for view, directory in directories.items():
    counts = dict(vocabulary.COUNTS[view])
    if view == types.EGO:
      counts["train"] = ego_train
    clip_dataset.write_clip_dataset(
      directory,
      name=NAME,
      view=view,
      tasks=vocabulary.tasks(view),
      splits={
        split: functools.partial(clips.iter_clips, view, split, seed, counts, processes=processes)
        for split in counts
      },
      metadata={"seed": seed, "counts": counts, "content_version": CONTENT_VERSION},
    )
  return directories
