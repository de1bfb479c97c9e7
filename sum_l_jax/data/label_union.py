"""Class heads for pools of clips that are labelled differently.

Each task has one head, whose classes are the union of the pools' classes by
name, in the order in which the pools bring them. A pool says nothing of classes
that only others have: its clips may well show them. So a clip is compared with
the classes of its own pool alone, and the loss is that of one head per pool in
which classes of one name share their weights. A clip of a pool without a task
takes no part in that task's loss, and neither does a clip without a label of a
softmax task.

A softmax head can't serve a multi-label pool, and the other way round. Where
pools give one name to both kinds (Charades-Ego and Kinetics have an "action"
each), there are two heads, "action_multi_label" and "action_softmax".
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import records


@dataclasses.dataclass(frozen=True, eq=False)
class PoolTask:
  """One task of one pool within the union.

  Attributes:
    task: the pool's own task.
    columns: int64 `[K of the pool]`, the union's class of each own class.
  """

  task: types.Task
  columns: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class LabelUnion:
  """The label sets of several pools in one.

  Attributes:
    tasks: the union's label sets by name: the heads.
    pools: for each pool, what it has of each head; a head is absent where the
      pool lacks the task.
    incomplete: softmax heads of which some clip has no label.
  """

  tasks: Mapping[str, types.Task]
  pools: Sequence[Mapping[str, PoolTask]]
  incomplete: frozenset[str] = frozenset()

  @functools.cached_property
  def known(self) -> dict[str, np.ndarray]:
    """Which classes each pool labels, bool `[pools, K]` by task.

    A task is absent where every pool labels all its classes of all its clips.
    """
    tables = {}
    for name, task in self.tasks.items():
      table = np.zeros((len(self.pools), task.num_classes), bool)
      for row, pool in enumerate(self.pools):
        if name in pool:
          table[row, pool[name].columns] = True
      if name in self.incomplete or not table.all():
        tables[name] = table
    return tables

  def labels(
    self, pools: Sequence[int], clips: Sequence[records.ClipInfo]
  ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Labels of n clips as the losses take them, and what is known of each.

    Args:
      pools: pool of each clip.
      clips: n clips.

    Returns:
      Labels by task: int32 `[n]` (softmax; -1 where the pool lacks the task, or the
      clip a label) or multi-hot float32 `[n, K]` (multi_label); and bool `[n, K]` by
      task, the classes that were looked for in the clip, of the tasks in which clips
      differ.
    """
    arrays = {}
    for name, task in self.tasks.items():
      softmax = task.kind == types.SOFTMAX
      shape = (len(clips),) if softmax else (len(clips), task.num_classes)
      values = np.full(shape, -1, np.int32) if softmax else np.zeros(shape, np.float32)
      for row, (pool, clip) in enumerate(zip(pools, clips, strict=True)):
        own = self.pools[pool].get(name)
        if own is None:
          continue
        ids = list(clip.labels.get(own.task.name, ()))
        if not softmax:
          values[row, own.columns[ids]] = 1.0
        elif ids or name not in self.incomplete:
          # Where all clips should have a label, none must not pass as -1.
          values[row] = own.columns[ids[0]]
      arrays[name] = values
    rows = np.asarray(pools, np.int64)
    known = {name: table[rows] for name, table in self.known.items()}
    for name in self.incomplete:
      known[name] &= (arrays[name] >= 0)[:, None]
    return arrays, known


def unite(pools: Sequence[records.ClipDataset]) -> LabelUnion:
  """Unites the label sets of pools; those of an unlabelled split don't count.

  The tasks of a single pool are those of the pool.

  Raises:
    ValueError: class names that occur twice within a pool can't be compared, or
      a task is called as two heads of another task would be.
  """
  own = [dict(pool.tasks) if pool.labelled else {} for pool in pools]
  kinds: dict[str, set[str]] = {}
  for tasks in own:
    for name, task in tasks.items():
      kinds.setdefault(name, set()).add(task.kind)
  head = lambda task: head_name(task.name, task.kind if len(kinds[task.name]) > 1 else "")
  for name in kinds:
    clash = {head_name(name, kind) for kind in types.TASK_KINDS} & kinds.keys()
    if len(kinds[name]) > 1 and clash:
      raise ValueError(
        f"The exo data sets have a task {name!r} of both kinds, whose heads would be called"
        f" {[head_name(name, kind) for kind in types.TASK_KINDS]}, and another task"
        f" {sorted(clash)}. Rename a label column, and build that data set again."
      )
  classes: dict[str, dict[str, int]] = {}
  for pool, tasks in zip(pools, own, strict=True):
    for task in tasks.values():
      found = classes.setdefault(head(task), {})
      if len(set(task.class_names)) < len(task.class_names) and len(pools) > 1:
        twice = sorted({n for n in task.class_names if task.class_names.count(n) > 1})
        raise ValueError(
          f"Pools are united by class names, but {pool!r} at {str(pool.directory)!r} has several"
          f" {task.name} classes of one name: {twice[:5]}. Give each class a name of its own, and"
          " build it again, or train with this pool alone."
        )
      for name in task.class_names:
        found.setdefault(name, len(found))
  incomplete = frozenset(
    head(task)
    for pool, tasks in zip(pools, own, strict=True)
    for task in tasks.values()
    if task.kind == types.SOFTMAX and not all(clip.labels.get(task.name) for clip in pool.clips)
  )
  if len(pools) == 1:  # It stays as it is, even where names occur twice.
    (tasks,) = own
    whole = {n: PoolTask(t, np.arange(t.num_classes)) for n, t in tasks.items()}
    return LabelUnion(tasks, [whole], incomplete)
  united = {}
  for tasks in own:
    for task in tasks.values():
      name = head(task)
      united[name] = types.Task(name, task.kind, tuple(classes[name]))
  return LabelUnion(
    united,
    [
      {
        head(task): PoolTask(task, np.array([classes[head(task)][n] for n in task.class_names]))
        for task in tasks.values()
      }
      for tasks in own
    ],
    incomplete,
  )


def head_name(task: str, kind: str = "") -> str:
  """Name of a task's head; with a kind, where pools have both kinds of it."""
  return f"{task}_{kind}" if kind else task


def pool_names(pools: Sequence[records.ClipDataset]) -> list[str]:
  """A short name for each pool: the data set's, with a number where two have it."""
  names = [pool.name for pool in pools]
  return [
    name if names.count(name) == 1 else f"{name}_{names[: place + 1].count(name)}"
    for place, name in enumerate(names)
  ]


def shared_tasks(
  tasks: Mapping[str, Mapping[str, types.Task]], names: Sequence[str] = ()
) -> tuple[types.SharedTask, ...]:
  """Label sets that all views have, with their classes lined up by name.

  Args:
    tasks: heads by view and name. A head "action_softmax" belongs to the label set
      "action" where the view has "action_multi_label" too.
    names: label sets that are wanted; empty takes all that every view has.

  Returns:
    The label sets, in the order of `names` or of the first view.

  Raises:
    ValueError: a label set that is wanted is not in every view, there is none at
      all, two classes of a head have one name, or two views have no class in common.

  >>> ego = types.Task("verb", types.SOFTMAX, ("cut", "stir"))
  >>> exo = types.Task("verb", types.SOFTMAX, ("stir", "wash"))
  >>> shared_tasks({"ego": {"verb": ego}, "exo": {"verb": exo}})[0].heads
  (('ego', 'verb', (0, 1)), ('exo', 'verb', (1, 2)))
  """
  by_name: dict[str, dict[str, list[types.Task]]] = {}
  for view, heads in tasks.items():
    for head in heads.values():
      by_name.setdefault(_label_set(head.name, heads), {}).setdefault(view, []).append(head)
  common = [name for name, views in by_name.items() if views.keys() == tasks.keys()]
  missing = [name for name in names if name not in common]
  if missing or not common:
    has = {
      view: sorted({_label_set(name, heads) for name in heads}) for view, heads in tasks.items()
    }
    raise ValueError(
      f"Clips are compared by their labels, but {missing or 'no label set'} is in all views, which"
      f" have {has}. Name others in loss.positive_tasks, or choose loss.positives 'pair' or"
      " 'narrations'."
    )
  return tuple(_line_up(name, by_name[name]) for name in names or common)


def _label_set(head: str, heads: Mapping[str, types.Task]) -> str:
  """Name of the label set of a head."""
  for kind in types.TASK_KINDS:
    name = head.removesuffix(f"_{kind}")
    if name != head and all(head_name(name, k) in heads for k in types.TASK_KINDS):
      return name
  return head


def _line_up(name: str, heads: Mapping[str, Sequence[types.Task]]) -> types.SharedTask:
  """The classes of a label set of several views, by name."""
  place: dict[str, int] = {}
  for view, own in heads.items():
    found = {label for head in own for label in head.class_names}
    if place and not found & place.keys():
      raise ValueError(
        f"The classes of {name!r} are compared by name, but the view {view!r} has none of those"
        f" before it: {sorted(found)[:5]} and {sorted(place)[:5]}. Rename them, name other tasks in"
        " loss.positive_tasks, or choose loss.positives 'pair' or 'narrations'."
      )
    for head in own:
      if len(set(head.class_names)) < len(head.class_names):
        twice = sorted({n for n in head.class_names if head.class_names.count(n) > 1})
        raise ValueError(
          f"The classes of {name!r} are compared by name, but the view {view!r} has several of"
          f" one name: {twice[:5]}. Give each class a name of its own, and build it again."
        )
      for label in head.class_names:
        place.setdefault(label, len(place))
  return types.SharedTask(
    name,
    len(place),
    tuple(
      (view, head.name, tuple(place[label] for label in head.class_names))
      for view, own in heads.items()
      for head in own
    ),
  )
