"""What a step is compiled for, without data: classes, clips, a batch's shapes.

`random_batch` fills the shapes, for a step that is run without data. The class
counts of the data sets that this project knows are found by a part of
their folder's path; others are given as options.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from sum_l_jax import types
from sum_l_jax.data import label_union


@dataclasses.dataclass(frozen=True)
class DataSet:
  """What matters of a data set.

  Attributes:
    classes: number of classes by task.
    kind: kind of its tasks.
    clips: clips of its training split, by view; 0 where it varies.
    other_kinds: kinds of the tasks that have another one than `kind`.
    united: whether it stands for several pools with different classes, whose
      batches say which classes are known.
  """

  classes: Mapping[str, int]
  kind: str = types.SOFTMAX
  clips: Mapping[str, int] = dataclasses.field(default_factory=dict)
  other_kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
  united: bool = False

  @property
  def tasks(self) -> dict[str, types.Task]:
    """Its label sets, whose classes are numbered."""
    return {
      name: types.Task(name, self.other_kinds.get(name, self.kind), tuple(map(str, range(count))))
      for name, count in self.classes.items()
    }


# By the name of a folder; the first that a path has. Clips: the split of the
# temporal-binding network for EPIC-KITCHENS-55, the published one for -100.
KNOWN = {
  "epic55": DataSet({"verb": 125, "noun": 352}, clips={types.EGO: 26_074}),
  "epic100": DataSet({"verb": 97, "noun": 300}, clips={types.EGO: 67_217}),
  "charades_ego": DataSet({"action": 157}, types.MULTI_LABEL),
  "lemma": DataSet({"verb": 25, "noun": 64}, types.MULTI_LABEL),
  "generic": DataSet(
    {"motion": 10, "shape": 8, "color": 8, "texture": 6}, clips={types.EXO: 2_200}
  ),
  "toy_kitchen": DataSet({"verb": 12, "noun": 14}, clips={types.EGO: 400, types.EXO: 2_400}),
}


def parse_classes(option: str, text: str) -> DataSet:
  """Reads "verb:125,noun:352" or, several classes a clip, "action:157:multi".

  Raises:
    ValueError: it reads otherwise, or mixes the kinds.
  """
  classes, kinds = {}, set()
  for item in filter(None, text.split(",")):
    name, _, rest = item.partition(":")
    count, _, kind = rest.partition(":")
    if not name or not count.isdecimal() or not int(count) or kind not in ("", "multi"):
      break
    classes[name] = int(count)
    kinds.add(types.MULTI_LABEL if kind else types.SOFTMAX)
  else:
    if len(kinds) == 1:
      return DataSet(classes, kinds.pop())
  raise ValueError(
    f"{option} must be tasks with their numbers of classes, such as verb:125,noun:352, or"
    f" action:157:multi where a clip has several classes, all of one kind; got {text!r}."
  )


def find(view: str, folder: str, option: str, text: str) -> DataSet:
  """Finds the data set of a view, by an option or else by its folder.

  Raises:
    ValueError: neither tells.
  """
  if text:
    return parse_classes(option, text)
  for part in reversed(epath.Path(folder).parts):
    for name, known in KNOWN.items():
      if part == name or part.startswith(f"{name}_"):
        return known
  raise ValueError(
    f"The numbers of classes of the {view} data set {folder!r} are not known. Give them:"
    f" {option}=verb:125,noun:352. Known by a folder's name: {', '.join(KNOWN)}."
  )


def unite(pools: Sequence[DataSet]) -> DataSet:
  """One data set for several pools, as `data.label_union` unites them.

  Which classes have the same name isn't known: they count as different ones,
  unless the pools are alike.
  """
  first = pools[0]
  alike = all((pool.classes, pool.kind) == (first.classes, first.kind) for pool in pools)
  clips = sum(pool.clips.get(types.EXO, 0) for pool in pools)
  whole = {types.EXO: clips} if all(pool.clips.get(types.EXO) for pool in pools) else {}
  if alike:
    return dataclasses.replace(first, clips=whole if len(pools) > 1 else first.clips)
  kinds: dict[str, set[str]] = {}
  for pool in pools:
    for name in pool.classes:
      kinds.setdefault(name, set()).add(pool.kind)
  classes: dict[str, int] = {}
  kind_of = {}
  for pool in pools:
    for name, count in pool.classes.items():
      head = label_union.head_name(name, pool.kind if len(kinds[name]) > 1 else "")
      classes[head] = classes.get(head, 0) + count
      kind_of[head] = pool.kind
  return DataSet(classes, clips=whole, other_kinds=kind_of, united=True)


def abstract_batch(
  tasks: Mapping[str, Mapping[str, types.Task]],
  *,
  batch_size: int,
  clips: Mapping[str, tuple[int, int]],
  embedding_dim: int | None,
  sharding: jax.sharding.Sharding,
  united: Collection[str] = (),
  tokens: Mapping[str, tuple[int, int, str]] | None = None,
) -> dict[str, dict[str, Any]]:
  """Makes a training batch of shapes, as `data.batches.BatchMaker` makes it.

  Args:
    tasks: label sets by view.
    batch_size: clips of each view over all chips, B.
    clips: frames of a clip, T, and height and width of a frame, by view.
    embedding_dim: width D of the narrations' vectors; None for none.
    sharding: sharding of every array.
    united: views that have several pools with different classes.
    tokens: tokens of a clip, their channels and their type, by view that has stored
      features in the place of frames.

  Returns:
    ShapeDtypeStructs by view.
  """
  tokens = tokens or {}

  def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=sharding)

  batch = {}
  for view, named in tasks.items():
    part = {
      "clip": array(jnp.int32),
      "labels": {
        name: array(jnp.int32)
        if task.kind == types.SOFTMAX
        else array(jnp.float32, task.num_classes)
        for name, task in named.items()
      },
      "mask": array(jnp.float32),
    }
    if view in tokens:
      count, channels, dtype = tokens[view]
      part["tokens"] = array(jnp.dtype(dtype), count, channels)
    else:
      frames, side = clips[view]
      part["video"] = array(jnp.uint8, frames, side, side, 3)
      part["color_offset"] = array(jnp.float32, 3)
    if view in united:
      part["known"] = {name: array(jnp.bool_, task.num_classes) for name, task in named.items()}
    if embedding_dim:
      part["narration"] = array(jnp.float32, embedding_dim)
    if view == types.EXO:
      part["pool"] = array(jnp.int32)
    batch[view] = part
  return batch


def random_batch(
  shapes: Mapping[str, Mapping[str, Any]],
  tasks: Mapping[str, Mapping[str, types.Task]],
  *,
  seed: int = 0,
) -> dict[str, dict[str, Any]]:
  """Makes up a batch of the shapes that `abstract_batch` gives.

  Narrations of a pair are alike (a cosine of about 0.8), so that the losses
  select all pairs.

  Args:
    shapes: shapes by view.
    tasks: label sets by view.
    seed: seed of all numbers.

  Returns:
    numpy arrays by view.
  """
  rng = np.random.default_rng(seed)
  batch: dict[str, dict[str, Any]] = {}
  common: np.ndarray | None = None
  for view, part in shapes.items():
    made: dict[str, Any] = {
      "clip": np.arange(len(part["clip"]), dtype=np.int32),
      "labels": {
        name: rng.integers(0, task.num_classes, part["labels"][name].shape, np.int32)
        if task.kind == types.SOFTMAX
        else (rng.random(part["labels"][name].shape) < 0.1).astype(np.float32)
        for name, task in tasks[view].items()
      },
      "mask": np.ones(part["mask"].shape, np.float32),
    }
    if "tokens" in part:
      shape, dtype = part["tokens"].shape, part["tokens"].dtype
      made["tokens"] = rng.standard_normal(shape, np.float32).astype(dtype)
    else:
      made["video"] = rng.integers(0, 256, part["video"].shape, np.uint8)
      made["color_offset"] = np.zeros(part["color_offset"].shape, np.float32)
    if "narration" in part:
      own = rng.standard_normal(part["narration"].shape)
      common = rng.standard_normal(own.shape) if common is None else common
      text = common + 0.5 * own
      made["narration"] = (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)
    if "known" in part:
      made["known"] = {name: np.ones(x.shape, bool) for name, x in part["known"].items()}
    if "pool" in part:
      made["pool"] = np.zeros(part["pool"].shape, np.int32)
    batch[view] = made
  return batch
