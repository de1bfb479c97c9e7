"""Orbax checkpoints of one stage: the state, and a card that says what it is.

Layout: `<directory>/<step>/state` (arrays), `/meta` (JSON) and `/sha256.json`.
Saving is asynchronous. A checkpoint is in place whole or not at all (Orbax
renames it), and an older one is removed only after a newer one is complete and
was checked.
"""

from __future__ import annotations

import json
import re
from typing import Any
from typing import NoReturn

from absl import logging
from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from sum_l_jax.checkpoint import integrity
from sum_l_jax.system import checked_json
from sum_l_jax.system import storage

_SYSTEM_ERROR = re.compile(r"os_error_code|OS error \d")


class SaveError(ValueError):
  """A checkpoint could not be written."""


def _is_of_disk(error: BaseException | None) -> bool:
  """Whether an error comes from the system and not from a mistake in code.

  TensorStore, which writes the arrays, raises ValueErrors for everything; those
  of the system name its error.
  """
  while error is not None:
    if isinstance(error, OSError | integrity.DamagedCheckpointError):
      return True
    if isinstance(error, ValueError) and _SYSTEM_ERROR.search(str(error)):
      return True
    error = error.__cause__
  return False


class Checkpoints:
  """The checkpoints of one stage; close it, or use it in a `with`."""

  def __init__(self, directory: str | epath.Path, *, keep: int = 2) -> None:
    """Sets damaged checkpoints aside with a warning, see `integrity`.

    Args:
      directory: folder of the checkpoints, made if it is missing.
      keep: number of recent checkpoints to keep; there is one more while the
        newest is written.

    Raises:
      integrity.DamagedCheckpointError: there are checkpoints, and none is whole.
      SaveError: the directory can't be made.
    """
    self._directory = storage.absolute(directory)
    self._keep = keep
    self._pending: int | None = None
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise SaveError(
        f"The checkpoint folder {str(self._directory)!r} can't be made"
        f" ({error}). Give a --workdir that may be written to."
      ) from error
    _drop_damaged(self._directory)
    self._manager = ocp.CheckpointManager(
      self._directory,
      # Handlers are named, so that a new process can read what another saved.
      item_handlers={"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()},
      options=ocp.CheckpointManagerOptions(
        # `wait` removes older ones, after it checked the new one.
        max_to_keep=None,
        # Removes what a kill in the middle of a save left behind.
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
      ),
    )
    self._saved = self._manager.latest_step()

  def __enter__(self) -> Checkpoints:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  @property
  def latest_step(self) -> int | None:
    """Step of the newest checkpoint; waits for one that is being written.

    Raises:
      SaveError: that checkpoint could not be written.
    """
    self.wait()
    return self._saved

  def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Starts saving; does nothing if this step is already saved.

    Args:
      step: number of steps taken.
      state: pytree of arrays; it may be donated once this returns.
      meta: card of JSON values: config, data fingerprints, tasks, pixels.

    Raises:
      SaveError: this checkpoint, or the one before, can't be written. Other
        errors, such as that of a leaf that is no array, are raised as they are.
    """
    self.wait()
    if step in self._manager.all_steps():
      return
    # Fails here; within the save, its error would race with those it causes.
    json.dumps(meta)
    self._pending = step
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)),
        force=True,
      )
    except Exception as error:
      self._fail(error)

  def _seal(self) -> None:
    """Adds the checksums, just before Orbax gives the folder its name."""
    for folder in storage.matching(self._directory, f"{self._pending}.orbax-*"):
      integrity.write(folder)

  def _fail(self, error: Exception) -> NoReturn:
    """Raises a SaveError if the disk is at fault, else the error itself."""
    step, self._pending = self._pending, None
    if not _is_of_disk(error):
      raise error
    raise SaveError(
      f"The checkpoint of step {step} can't be written to"
      f" {str(self._directory)!r} ({str(error).strip()[:500]}). Complete is"
      f" step {self._saved}. Make sure that there is space and that the"
      " folder may be written to; the same command then goes on from there."
    ) from error

  def restore(self, step: int, like: Any) -> Any:
    """Restores a state onto the devices that `like` names.

    Args:
      step: step of a saved checkpoint.
      like: pytree of arrays or ShapeDtypeStructs with shardings.

    Raises:
      ValueError: the checkpoint holds other arrays (another architecture or
        optimizer); names what differs.
    """
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    saved = self._manager.item_metadata(step)["state"].tree
    check_same_arrays(saved, target, where=str(self._directory / str(step)))
    restored = self._manager.restore(
      step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
    )
    return restored["state"]

  def meta(self, step: int) -> dict[str, Any]:
    """Reads the card of a saved checkpoint."""
    args = ocp.args.Composite(meta=ocp.args.JsonRestore())
    try:
      meta = self._manager.restore(step, args=args)["meta"]
      return checked_json.decode(json.dumps(meta), checked_json.Object)
    except (ValueError, RecursionError) as error:
      raise ValueError(
        f"The card of the checkpoint {self._directory / str(step)} is damaged: {error}"
      ) from error

  def wait(self) -> None:
    """Waits until the checkpoint is on disk; then removes old ones.

    Raises:
      SaveError: the checkpoint could not be written.
    """
    if self._pending is None:
      return
    step = self._pending
    try:
      self._manager.wait_until_finished()
      integrity.check(self._directory / str(step), contents=False)
    except Exception as error:
      self._fail(error)
    self._pending, self._saved = None, step
    logging.info("Saved: %s", self._directory / str(step))
    for old in sorted(self._manager.all_steps())[: -self._keep]:
      self._manager.delete(old)

  def close(self) -> None:
    """Waits for the checkpoint that is being written, and ends."""
    self.wait()
    self._manager.close()


def _drop_damaged(directory: epath.Path) -> None:
  """Sets damaged checkpoints aside on one host; its error is raised on all."""
  problem = None
  if jax.process_index() == 0:
    try:
      integrity.set_damaged_aside(directory)
    except integrity.DamagedCheckpointError as error:
      problem = error
  if jax.process_count() > 1:
    bad = np.int32(problem is not None)
    if multihost_utils.broadcast_one_to_all(bad) and problem is None:
      problem = integrity.DamagedCheckpointError(
        f"No checkpoint in {str(directory)!r} is whole; process 0 says more."
      )
  if problem is not None:
    raise problem


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
  """Shape and type of each array, by names that are alike for dicts and dataclasses."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  return {name(path): (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves}


def check_same_arrays(saved: Any, wanted: Any, *, where: str) -> None:
  """Compares names, shapes and types; a wrong type would be cast silently.

  Args:
    saved: pytree of arrays or shapes that a checkpoint holds.
    wanted: pytree of arrays or shapes that are needed.
    where: name of the checkpoint, for the message.

  Raises:
    ValueError: they differ; lists up to five differences of each kind.
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
      f"{k} is {have[k][0]} {have[k][1]}, wanted {want[k][0]} {want[k][1]}" for k in changed[:5]
    )
    problems.append(f"{len(changed)} with another shape or type: {examples}")
  if problems:
    raise ValueError(
      f"The checkpoint {where} belongs to another architecture or optimizer"
      f" than the config asks for: {'; '.join(problems)}. Use the config it"
      " was trained with, or another --workdir."
    )
