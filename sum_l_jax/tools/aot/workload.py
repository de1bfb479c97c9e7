"""What a step is compiled for, without data: classes, clips, a batch's shapes.

The class counts of the data sets that this project knows are found by a part of
their folder's path; others are given as options.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib

import jax
import jax.numpy as jnp

from sum_l_jax import types

_EPIC55 = {"verb": 125, "noun": 352}
_EPIC100 = {"verb": 97, "noun": 300}
_TOY = {"verb": 12, "noun": 14}
_GENERIC = {"motion": 10, "shape": 8, "color": 8, "texture": 6}


@dataclasses.dataclass(frozen=True)
class DataSet:
  """What matters of one.

  Attributes:
    classes: by task.
    kind: of its tasks.
    clips: of its training split, by view; 0 where it varies.
  """

  classes: Mapping[str, int]
  kind: str = types.SOFTMAX
  clips: Mapping[str, int] = dataclasses.field(default_factory=dict)

  @property
  def tasks(self) -> dict[str, types.Task]:
    return {
      name: types.Task(name, self.kind, tuple(map(str, range(count))))
      for name, count in self.classes.items()
    }


# By the name of a folder; the first that a path has. Clips: the split of the
# temporal-binding network for EPIC-KITCHENS-55, the published one for -100.
KNOWN = {
  "epic55": DataSet(_EPIC55, clips={types.EGO: 26_074}),
  "epic100": DataSet(_EPIC100, clips={types.EGO: 67_217}),
  "charades_ego": DataSet({"action": 157}, types.MULTI_LABEL),
  "lemma": DataSet({"verb": 25, "noun": 64}, types.MULTI_LABEL),
  "generic": DataSet(_GENERIC, clips={types.EXO: 2_200}),
  "toy_kitchen": DataSet(_TOY, clips={types.EGO: 400, types.EXO: 2_400}),
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
    f"{option} must be tasks with their numbers of classes, such as"
    " verb:125,noun:352, or action:157:multi where a clip has several"
    f" classes, all of one kind; got {text!r}."
  )


def find(view: str, folder: str, option: str, text: str) -> DataSet:
  """The data set of a view: as an option says, or by its folder.

  Raises:
    ValueError: neither tells.
  """
  if text:
    return parse_classes(option, text)
  parts = pathlib.PurePath(folder).parts
  for part in reversed(parts):
    for name, known in KNOWN.items():
      if part == name or part.startswith(f"{name}_"):
        return known
  raise ValueError(
    f"The numbers of classes of the {view} data set {folder!r} are not known."
    f" Give them: {option}=verb:125,noun:352. Known by a folder's name:"
    f" {', '.join(KNOWN)}."
  )


def abstract_batch(
  tasks: Mapping[str, Mapping[str, types.Task]],
  *,
  batch_size: int,
  num_frames: int,
  crop_size: int,
  embedding_dim: int | None,
  sharding: jax.sharding.Sharding,
) -> dict[str, dict]:
  """A training batch as shapes, as `data.batches.BatchMaker` makes it.

  Args:
    tasks: label sets by view.
    batch_size: B, over all chips.
    num_frames: T.
    crop_size: H and W.
    embedding_dim: D of the narrations; None has none.
    sharding: of every array.

  Returns:
    Per view ShapeDtypeStructs.
  """

  def array(shape, dtype):
    return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=sharding)

  batch = {}
  for view, named in tasks.items():
    part = {
      "clip": array((), jnp.int32),
      "labels": {
        name: array((), jnp.int32)
        if task.kind == types.SOFTMAX
        else array((task.num_classes,), jnp.float32)
        for name, task in named.items()
      },
      "video": array((num_frames, crop_size, crop_size, 3), jnp.uint8),
      "color_offset": array((3,), jnp.float32),
      "mask": array((), jnp.float32),
    }
    if embedding_dim:
      part["narration"] = array((embedding_dim,), jnp.float32)
    if view == types.EXO:
      part["pool"] = array((), jnp.int32)
    batch[view] = part
  return batch
