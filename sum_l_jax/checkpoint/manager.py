"""Orbax checkpoints of one stage: state, position and what they belong to.

Layout: `<directory>/<step>/state` (arrays) and `/meta` (JSON). Saving is
asynchronous; a checkpoint is in place whole or not at all (Orbax renames it),
and an older one is removed only after a newer one is complete.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp


class Checkpoints:
  """The checkpoints of one stage.

  Args:
    directory: created where absent.
    keep: how many of the latest to keep.
  """

  def __init__(self, directory: str | pathlib.Path, *, keep: int = 2):
    self._directory = pathlib.Path(directory).absolute()
    self._manager = ocp.CheckpointManager(
        self._directory,
        # Named, so that a fresh process can read what another one saved.
        item_handlers={
            "state": ocp.StandardCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            # What a kill in the middle of a save left behind.
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        ),
    )

  def __enter__(self) -> Checkpoints:
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  @property
  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  def save(self, step: int, state: Any, meta: dict) -> None:
    """Starts saving; does nothing where this step is already saved.

    Args:
      step: steps taken.
      state: a pytree of arrays; may be donated once this returns.
      meta: JSON values: config text, data fingerprints, tasks, pixels.
    """
    if step in self._manager.all_steps():
      return
    self._manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
        ),
        force=True,
    )

  def restore(self, step: int, like: Any) -> Any:
    """Restores a state onto the devices that `like` names.

    Args:
      step: of a saved checkpoint.
      like: a pytree of arrays or ShapeDtypeStructs with shardings.

    Raises:
      ValueError: the checkpoint holds other arrays (another architecture or
        optimizer); names what differs.
    """
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    saved = self._manager.item_metadata(step).state.tree
    check_same_arrays(saved, target, where=str(self._directory / str(step)))
    restored = self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(target)),
    )
    return restored.state

  def meta(self, step: int) -> dict:
    return self._manager.restore(
        step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
    ).meta

  def wait(self) -> None:
    """Until everything started is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.wait_until_finished()
    self._manager.close()


def _shapes(tree: Any) -> dict[str, tuple]:
  leaves = jax.tree_util.tree_flatten_with_path(
      tree, is_leaf=lambda x: hasattr(x, "shape")
  )[0]
  names = {}
  for path, leaf in leaves:
    name = "/".join(_key_name(key) for key in path)
    names[name] = (tuple(leaf.shape), str(leaf.dtype))
  return names


def _key_name(key: Any) -> str:
  """One step of a tree path as text, the same for dicts and dataclasses."""
  for attribute in ("key", "name", "idx"):
    if hasattr(key, attribute):
      return str(getattr(key, attribute))
  return str(key)


def check_same_arrays(saved: Any, wanted: Any, *, where: str) -> None:
  """Compares names, shapes and types; a wrong type would cast silently.

  Raises:
    ValueError: lists up to five differences of each kind.
  """
  have, want = _shapes(saved), _shapes(wanted)
  problems = []
  missing = sorted(want.keys() - have.keys())
  extra = sorted(have.keys() - want.keys())
  changed = sorted(k for k in want.keys() & have.keys() if want[k] != have[k])
  for text, names in (
      ("missing in the checkpoint", missing),
      ("left over in the checkpoint", extra),
  ):
    if names:
      problems.append(f"{len(names)} {text}: {', '.join(names[:5])}")
  if changed:
    examples = ", ".join(
        f"{k} is {have[k][0]} {have[k][1]}, wanted {want[k][0]} {want[k][1]}"
        for k in changed[:5]
    )
    problems.append(f"{len(changed)} with another shape or type: {examples}")
  if problems:
    raise ValueError(
        f"The checkpoint {where} belongs to another architecture or optimizer"
        f" than the config asks for: {'; '.join(problems)}. Use the config it"
        " was trained with, or another --workdir."
    )
