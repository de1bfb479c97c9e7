"""Orbax checkpoints of one stage: the state, and a card that says what it is.

Layout: `<directory>/<step>/state` (arrays), `/meta` (JSON) and `/checksums.json`.
Saving is asynchronous: all but the copy of the state to the host's memory is done
by other threads, and so is the removal of older checkpoints. A checkpoint is in
place whole or not at all, see `integrity`, and an older one is removed only after
a newer one is complete and was checked. The one that `best.json` names is not
removed.

Orbax's `CheckpointManager` isn't used, but the checkpointer that it uses itself:
which folders are checkpoints and what may be removed is decided by `integrity`
alone, and an error of one process is known there at once, where the manager would
first wait for all others.
"""

from __future__ import annotations

import concurrent.futures
import json
import re
from typing import Any
from typing import NoReturn

from absl import logging
import jax
import orbax.checkpoint as ocp

from sum_l_jax.checkpoint import best
from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import tensorstore_retries
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import peers
from sum_l_jax.system import storage

# What TensorStore says of a disk or a bucket.
_SYSTEM_ERROR = re.compile(r"os_error_code|OS error \d|HTTP response|CURL|gs://")
# Orbax looks for what each process has written by a pattern that begins with the
# folder: these characters of its name lead elsewhere.
_IN_PATTERNS, _IN_PATTERNS_OF_BUCKETS = re.compile(r"\["), re.compile(r"[][*?#]")
# Packages whose errors are those of a bucket.
_CLIENTS = ("aiohttp", "gcsfs", "google", "requests", "urllib3")


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
    if type(error).__module__.partition(".")[0] in _CLIENTS:
      return True
    if isinstance(error, ValueError) and _SYSTEM_ERROR.search(str(error)):
      return True
    error = error.__cause__
  return False


def _check_name(folder: str) -> None:
  meant = _IN_PATTERNS_OF_BUCKETS if addresses.is_remote(folder) else _IN_PATTERNS
  if found := meant.search(folder):
    raise ValueError(
      f"The folder {folder!r} can't hold checkpoints: Orbax, which writes them, takes {found[0]!r}"
      " in a name for a part of a pattern, and what is saved there can't be read again. Give a"
      " --workdir without any of '[', ']', '*', '?' and '#'."
    )


class Checkpoints:
  """The checkpoints of one stage; close it, or use it in a `with`."""

  def __init__(self, directory: addresses.PathLike, *, keep: int = 2) -> None:
    """Removes unfinished checkpoints, and sets damaged ones aside with a warning.

    Args:
      directory: folder of the checkpoints, made if it is missing.
      keep: number of recent checkpoints to keep, beside the best one; there is one
        more while the newest is written, and until an old one is removed.

    Raises:
      ValueError: there are checkpoints, and none is whole; or the directory has a
        name under which none could be read again.
      SaveError: the directory can't be made.
    """
    self._directory = addresses.absolute(directory)
    _check_name(str(self._directory))
    self._keep = keep
    self._pending: int | None = None
    self._finishing: concurrent.futures.Future[None] | None = None
    # Steps that couldn't be removed yet.
    self._old: list[int] = []
    try:
      storage.make_folder(self._directory)
    except OSError as error:
      raise SaveError(
        f"The checkpoint folder {str(self._directory)!r} can't be made"
        f" ({error}). Give a --workdir that may be written to."
      ) from error
    # One process looks, for all.
    seen = json.loads(peers.from_first(self._look))
    self._steps: list[int] = seen["steps"]
    self._best = best.from_json(seen["best"]) if seen["best"] else None
    tensorstore_retries.limit()
    # Orbax's own choice for a mounted bucket is to change, and it takes checkpoints
    # that were saved in the other way for unfinished ones.
    atomicity = ocp.path.atomicity
    kind = (
      atomicity.CommitFileTemporaryPath
      if addresses.is_remote(self._directory)
      else atomicity.AtomicRenameTemporaryPath
    )
    options = ocp.AsyncOptions(
      post_finalization_callback=self._seal,
      # In the background, a folder that can't be made would leave threads of Orbax
      # behind, which wait for it for five minutes, also at the end of the process.
      create_directories_asynchronously=False,
    )
    self._checkpointer = ocp.AsyncCheckpointer(
      # Handlers are named, so that a new process can read what another saved.
      ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(temporary_path_class=kind, async_options=options),
        state=ocp.StandardCheckpointHandler(),
        meta=ocp.JsonCheckpointHandler(),
      ),
      async_options=options,
      temporary_path_class=kind,
    )
    self._finisher = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
    self._remover = concurrent.futures.ThreadPoolExecutor(1, "old_checkpoints")

  def _look(self) -> str:
    integrity.remove_unfinished(self._directory)
    found = best.read(self._directory)
    integrity.set_damaged_aside(self._directory, best=found.step if found else None)
    steps = integrity.steps(self._directory)
    kept = found.to_json() if found and found.is_among(steps) else ""
    return json.dumps({"steps": steps, "best": kept})

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
    return max(self._steps, default=None)

  @property
  def best(self) -> best.Best | None:
    """Which checkpoint is the best, as was said last; None where nobody has judged."""
    return self._best

  def best_at(self, step: int) -> best.Best | None:
    """Which checkpoint was the best for a run that goes on from that of a step.

    Returns:
      None where nobody had judged, or with a warning where it is not there any more.

    Raises:
      ValueError: the card of that step is damaged.
    """
    # What came after it is not known to such a run.
    if self._best is not None and self._best.evaluated == step:
      return self._best
    known = best.of_card(self.meta(step), f"of step {step}")
    if known is None or known.is_among(self._steps):
      return known
    if jax.process_index() == 0:
      logging.warning(
        "The best checkpoint, that of step %d with %s=%g, is not there any more. The best of those"
        " from here on is kept.",
        known.step,
        known.metric,
        known.value,
      )
    return None

  def mark_best(self, found: best.Best) -> None:
    """Notes which checkpoint is the best; the one before it is then like any other.

    Args:
      found: what is known now. The checkpoint of its step must have been saved.

    Raises:
      SaveError: that checkpoint, or this note, can't be written.
    """
    changed = self._best is None or self._best.step != found.step
    if changed:
      self.wait()
    if jax.process_index() == 0:
      try:
        best.write(self._directory, found)
      except Exception as error:
        if not _is_of_disk(error):
          raise
        raise SaveError(
          f"{str(self._directory / best.FILE)!r} can't be written ({error}). Make sure that there"
          " is space and that the folder may be written to; the same command then goes on."
        ) from error
    self._best = found
    if changed:
      self._retire()

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
    if step in self._steps:
      return
    storage.check_may_write()
    # Fails here; within the save, its error would race with those it causes.
    json.dumps(meta)
    self._pending = step
    folder = self._directory / str(step)
    try:
      if jax.process_index() == 0 and storage.exists(folder):
        storage.remove_tree(folder)  # Damaged, and noted as such.
      self._checkpointer.save(
        folder,
        args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)),
      )
    except Exception as error:
      self._fail(error)
    self._finishing = self._finisher.submit(self._finish, step)

  def _seal(self) -> None:
    """Adds the checksums, just before Orbax completes the checkpoint."""
    if addresses.is_remote(self._directory):
      integrity.write(self._directory / str(self._pending))
      return
    pattern = f"{self._pending}{integrity.UNFINISHED}*"
    for folder in storage.matching(self._directory, pattern):
      integrity.write(folder)

  def _finish(self, step: int) -> None:
    """Waits for the end of a save, in a thread of its own."""
    self._checkpointer.wait_until_finished()
    if jax.process_index() == 0:
      integrity.check(self._directory / str(step), contents=False)
    logging.info("Saved: %s", self._directory / str(step))
    self._steps.append(step)
    self._retire()

  def _retire(self) -> None:
    """Has the checkpoints removed that are neither recent nor the best."""
    self._steps.sort()
    kept = {*self._steps[-self._keep :], *([self._best.step] if self._best else [])}
    self._old += [step for step in self._steps if step not in kept]
    self._steps = [step for step in self._steps if step in kept]
    if jax.process_index() == 0:
      self._remover.submit(self._remove)

  def _remove(self) -> None:
    """Removes old checkpoints, in a thread of its own."""
    for step in tuple(self._old):
      try:
        integrity.remove(self._directory, step)
      except Exception as error:
        logging.warning(
          "The old checkpoint %s can't be removed now (%s). It takes space until a later save"
          " or start does it.",
          self._directory / str(step),
          error,
        )
      else:
        self._old.remove(step)

  def _fail(self, error: Exception) -> NoReturn:
    """Raises a SaveError if the disk is at fault, else the error itself."""
    step, self._pending = self._pending, None
    if not _is_of_disk(error):
      raise error
    raise SaveError(
      f"The checkpoint of step {step} can't be written to"
      f" {str(self._directory)!r} ({str(error).strip()[:500] or type(error).__name__})."
      f" Complete is step {max(self._steps, default=None)}. Make sure that there is space and"
      " that the folder may be written to; the same command then goes on from there."
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
    folder = self._directory / str(step)
    # The checkpointer itself asks Orbax once more whether the checkpoint is complete,
    # and after a save in a bucket it refuses in all processes but the first.
    handler: Any = ocp.StandardCheckpointHandler()
    saved = handler.metadata(folder / "state").tree
    check_same_arrays(saved, target, where=str(folder))
    return handler.restore(folder / "state", args=ocp.args.StandardRestore(target))

  def meta(self, step: int) -> dict[str, Any]:
    """Reads the card of a saved checkpoint."""
    folder = self._directory / str(step)
    handler: Any = ocp.JsonCheckpointHandler()
    try:
      meta = handler.restore(folder / "meta")
      return checked_json.decode(json.dumps(meta), checked_json.Object)
    except (ValueError, RecursionError) as error:
      raise ValueError(f"The card of the checkpoint {folder} is damaged: {error}") from error

  def poll(self) -> None:
    """Raises the error of a save that has failed; waits for none.

    Raises:
      SaveError: the checkpoint could not be written.
    """
    if self._finishing is not None and self._finishing.done():
      self.wait()

  def wait(self) -> None:
    """Waits until the checkpoint that is being written is complete.

    Raises:
      SaveError: the checkpoint could not be written.
    """
    finishing, self._finishing = self._finishing, None
    if finishing is None:
      return
    try:
      finishing.result()
    except Exception as error:
      self._fail(error)
    self._pending = None

  def close(self) -> None:
    """Waits for what is being written or removed, and ends."""
    try:
      self.wait()
    finally:
      self._finisher.shutdown()
      self._remover.shutdown()
      self._checkpointer.close()


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
