"""Numbers of a run at Weights & Biases; the only module that imports wandb.

A workdir is one run there, whose id is in `wandb.json`: what goes on in the workdir
goes on there. Names begin with the stage, and each stage has an axis of its own,
`<stage>/step`. What W&B's own variables say, such as WANDB_MODE=offline, holds. A
failure of W&B costs no training.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import json
from typing import Any
import uuid

from absl import logging
from etils import epath
import numpy as np

from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import extras
from sum_l_jax.system import storage
from sum_l_jax.train import writers

FILE = "wandb.json"
# The run of this process, by the folder that it belongs to.
_open: dict[str, WandbRun] = {}


class WandbRun:
  """One run at W&B; `open_run` makes it."""

  def __init__(self, project: str, workdir: epath.Path, settings: Mapping[str, object]) -> None:
    """Begins the run, or goes on with it; see `open_run`."""
    try:
      import wandb
    except ImportError as error:
      raise ValueError(
        f"config.wandb={project!r} needs a library: {extras.advice(error) or error}"
      ) from error
    self._library = wandb
    try:
      self._run: Any = wandb.init(
        project=project,
        name=workdir.name,
        id=_identity(workdir),
        resume="allow",
        dir=None if addresses.is_remote(workdir) else str(workdir),
        config=writers.plain(settings),
        settings=wandb.Settings(silent=True, console="off"),
      )
    except wandb.Error as error:
      raise ValueError(
        f"config.wandb={project!r}: Weights & Biases can't begin a run ({error}). Log in with"
        " `wandb login`, or set WANDB_MODE=offline and send the run later with `wandb sync`."
      ) from error
    # Offline there is no address.
    place = self._run.url or self._run.dir.removesuffix("/files")
    logging.info("wandb: run %s of project %r, at %s", self._run.id, project, place)

  def attempt(self, what: Callable[[Any, Any], object]) -> None:
    """Calls a function with the library and the run; warns once if that fails."""
    if self._run is None:
      return
    try:
      what(self._library, self._run)
    except Exception as error:  # Whatever it is, the training is worth more.
      logging.warning("wandb: nothing more is written there: %s", error)
      self._run = None

  def close(self, *, failed: bool) -> None:
    """Ends the run."""
    self.attempt(lambda library, run: run.finish(exit_code=int(failed)))
    self._run = None


def open_run(project: str, workdir: epath.Path, settings: Mapping[str, object]) -> WandbRun:
  """The run of a workdir; it stays open until `close_all`.

  Args:
    project: name of the project at W&B.
    workdir: folder of the run.
    settings: all settings by dotted name.

  Raises:
    ValueError: wandb is not installed, or begins no run.
  """
  if str(workdir) not in _open:
    _open[str(workdir)] = WandbRun(project, workdir, settings)
  return _open[str(workdir)]


def summarize(values: Mapping[str, float]) -> None:
  """Sets the numbers that stand for the runs that are open."""
  for run in _open.values():
    run.attempt(lambda library, run: run.summary.update(dict(values)))


def close_all(*, failed: bool) -> None:
  """Ends what `open_run` began.

  Args:
    failed: whether the work ended with an error.
  """
  while _open:
    _, run = _open.popitem()
    run.close(failed=failed)


def _identity(workdir: epath.Path) -> str:
  """The id of the run of a workdir, which is made once."""
  path = workdir / FILE
  if storage.is_file(path):
    found = checked_json.read(path, dict[str, str], mend="Remove it to begin a new run at W&B.")
    if found.get("id"):
      return found["id"]
  identity = uuid.uuid4().hex[:8]
  storage.write_text(path, json.dumps({"id": identity}) + "\n")
  return identity


class WandbWriter:
  """Writes what one stage measures, see `writers.StageWriter`."""

  def __init__(self, run: WandbRun, stage: str) -> None:
    """Gives the stage an axis of its own."""
    self._run, self._stage = run, stage

    def define(_: Any, run: Any) -> None:
      run.define_metric(f"{stage}/step")
      run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    run.attempt(define)

  def _log(self, step: int, make: Callable[[Any], Mapping[str, Any]]) -> None:
    def log(library: Any, run: Any) -> None:
      values = {f"{self._stage}/{name}": value for name, value in make(library).items()}
      run.log({**values, f"{self._stage}/step": step})

    self._run.attempt(log)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers by name."""
    self._log(step, lambda _: {name: float(value) for name, value in scalars.items()})

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures by name."""
    self._log(
      step, lambda library: {n: [library.Image(x) for x in rows] for n, rows in images.items()}
    )

  def write_histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes histograms of arrays by name."""
    self._log(
      step,
      lambda library: {
        name: library.Histogram(np_histogram=np.histogram(values, bins=64))
        for name, values in arrays.items()
      },
    )

  def write_hyper_parameters(self, values: Mapping[str, writers.Value]) -> None:
    """Does nothing: the run has all settings from its beginning."""

  def flush(self) -> None:
    """Does nothing: wandb's own process sends what it has."""

  def close(self) -> None:
    """Does nothing: the run goes on with the next stage."""
