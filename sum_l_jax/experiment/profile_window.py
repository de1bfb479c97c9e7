"""Records what the devices and the host do in a few steps of a training.

JAX's own profiler does it. It writes to the local disk; what it wrote then goes
to the stage's folder, where TensorBoard and XProf look for it:
`<workdir>/<stage>/plugins/profile/steps_<FIRST>_<LAST>/process_<N>.xplane.pb`.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import re
import tempfile
from typing import Any

from absl import logging
from etils import epath
import jax

from sum_l_jax.system import storage

HOSTS = ("first", "all")
FOLDER = "plugins/profile"
# Name of the annotation that spans a step: its wait for the batch as well.
STEP = "train"
# What XProf reads, and what Perfetto reads.
_SUFFIXES = (".xplane.pb", ".trace.json.gz")
_FORM = re.compile(r"(?:(\w+):)?(\d+):(\d+)")


@dataclasses.dataclass(frozen=True)
class Window:
  """Which steps are recorded.

  Attributes:
    stage: stage of the training.
    first: first step, counted from 0: the number of steps taken before it.
    last: last step, which is recorded too.
    hosts: "first" for process 0 alone, or "all".
  """

  stage: str
  first: int
  last: int
  hosts: str = "first"

  @property
  def name(self) -> str:
    """Name of its folder, "steps_10_14"."""
    return f"steps_{self.first}_{self.last}"

  def check_end(self, end: int) -> None:
    """Refuses a window that reaches beyond the training.

    Args:
      end: number of steps of the stage, or the step at which it stops.

    Raises:
      ValueError: the last step is never taken.
    """
    if self.last >= end:
      raise ValueError(
        f"--profile: the last step of stage {self.stage!r} is {end - 1}, as steps are counted from"
        f" 0; got {self.first}:{self.last}."
      )


def parse(text: str, stages: Sequence[str], hosts: str = "first") -> Window | None:
  """Reads --profile; None where it is empty.

  Args:
    text: "FIRST:LAST", of the last stage, or "STAGE:FIRST:LAST".
    stages: stages of the run.
    hosts: "first" or "all".

  Raises:
    ValueError: the text reads otherwise, names no stage of the run, or its
      first step comes after its last.
  """
  if not text:
    return None
  match = _FORM.fullmatch(text)
  if not match:
    raise ValueError(
      "--profile must be FIRST:LAST or STAGE:FIRST:LAST, steps counted from 0, such as 10:14 or"
      f" {stages[-1]}:10:14; got {text!r}."
    )
  stage, first, last = match.group(1) or stages[-1], int(match.group(2)), int(match.group(3))
  if stage not in stages:
    raise ValueError(f"--profile: the stages of this run are {tuple(stages)}; got {text!r}.")
  if first > last:
    raise ValueError(f"--profile: the first step, {first}, comes after the last one, {last}.")
  if hosts not in HOSTS:
    raise ValueError(f"The hosts that record must be one of {HOSTS}, got {hosts!r}.")
  return Window(stage, first, last, hosts)


class Recorder:
  """Records the window's steps of one stage, on this process.

  A run that resumes within the window records what is left of it. One that is
  stopped within it keeps what was recorded so far.

  Args:
    window: the steps, or None for none.
    stage: the stage that is trained.
    folder: folder of the stage in the workdir.
    start: first step of this run.
  """

  def __init__(self, window: Window | None, stage: str, folder: epath.Path, *, start: int) -> None:
    self._window: Window | None = None
    self._folder = folder
    self._scratch: tempfile.TemporaryDirectory[str] | None = None
    if window is None or window.stage != stage:
      return
    if start > window.last:
      logging.warning(
        "--profile: this run starts at step %d, after %d:%d; nothing is recorded.",
        start,
        window.first,
        window.last,
      )
      return
    if start > window.first:
      logging.info("--profile: this run starts at step %d and records from there.", start)
    self._first = max(window.first, start)
    if window.hosts == "all" or jax.process_index() == 0:
      self._window = window

  def before(self, step: int) -> None:
    """Starts to record where the window begins."""
    if self._window is None or step != self._first:
      return
    self._scratch = tempfile.TemporaryDirectory(prefix="sum_l_jax_profile_")
    options = jax.profiler.ProfileOptions()
    # Calls of Python functions would slow down what is looked at.
    options.python_tracer_level = 0
    jax.profiler.start_trace(self._scratch.name, profiler_options=options)

  def after(self, step: int, results: Any) -> None:
    """Ends the recording where the window ends, when the devices are done.

    Args:
      step: the step that was started.
      results: arrays that it returns.
    """
    if self._window is not None and self._scratch is not None and step == self._window.last:
      jax.block_until_ready(results)
      self.close()

  def close(self) -> None:
    """Ends a recording that is under way, and writes it to the workdir."""
    if self._window is None or self._scratch is None:
      return
    scratch, self._scratch = self._scratch, None
    target = self._folder / FOLDER / self._window.name
    with scratch as local:
      jax.profiler.stop_trace()
      try:
        storage.make_folder(target)
        written = [self._move(path, target) for path in storage.files_below(local).values()]
      except Exception as error:  # It costs no training, whatever a bucket answers.
        logging.warning("--profile: the recording can't be written to %s: %s", target, error)
        return
    if any(written):
      logging.info(
        "--profile: steps %d to %d are written to %s. Look at them with `xprof --logdir=%s` (pip"
        " install xprof) or, for %s, at https://ui.perfetto.dev; docs/performance.md says what to"
        " look for.",
        self._first,
        self._window.last,
        target,
        self._folder,
        "*" + _SUFFIXES[1],
      )
    else:
      logging.warning("--profile: the profiler recorded nothing.")

  def _move(self, path: epath.Path, target: epath.Path) -> bool:
    """Writes a file of the profiler to the workdir; whether it is one of `_SUFFIXES`.

    The profiler names files after the host, which may have several processes.
    """
    for suffix in _SUFFIXES:
      if path.name.endswith(suffix):
        name = f"process_{jax.process_index()}{suffix}"
        storage.write_bytes(target / name, storage.read_bytes(path))
        return True
    return False
