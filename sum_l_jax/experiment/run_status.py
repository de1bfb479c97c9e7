"""`status.json`: what a run is doing, for people and for probes.

Process 0 writes it to the workdir from a thread: at the start, every few seconds,
and at the end. A process that goes on in the workdir reads it first, so that the
times by kind (`goodput`) are those of all processes that have trained there.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
import socket
import threading
import time
from typing import Any

from absl import logging
from etils import epath

from sum_l_jax.experiment import goodput
from sum_l_jax.system import checked_json
from sum_l_jax.system import peers
from sum_l_jax.system import processes
from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.system import storage_errors
from sum_l_jax.system import text_cleaning

# Seconds between two writings.
PERIOD = 10.0
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
_MOST_SAVES = 20
_LONGEST_ERROR = 500
# Names of JAX's events, which come one within the other.
_COMPILATIONS = tuple(
  f"/jax/core/compile/{name}_duration"
  for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)

_Times = dict[str, checked_json.Finite]


@dataclasses.dataclass(frozen=True)
class Save:
  """A checkpoint whose writing was begun.

  Attributes:
    stage: stage of the training.
    step: number of steps taken.
    seconds: times by kind until then.
  """

  stage: str
  step: checked_json.Index
  seconds: _Times


@dataclasses.dataclass(frozen=True)
class Status:
  """What the file holds.

  Attributes:
    state: "running", "finished", "stopped" (as asked; the same command goes on) or
      "failed".
    doing: kind of work, see `goodput.KINDS`.
    began: moment of the first start in this workdir, seconds since 1970.
    time: moment of this writing.
    advanced: moment of the last step or evaluated batch, or of a change of `doing`.
    stage: stage of the training, "" before the first.
    step: number of steps taken, of those that were reported.
    steps: number of steps of the stage.
    clips_per_second: rate since the last report but one; 0 before the first.
    saved_stage: stage of the last complete checkpoint, "" for none.
    saved_step: its step.
    host: machine of process 0.
    hosts: number of processes.
    devices: number and kind of all devices.
    starts: number of processes that have trained in this workdir, one after the
      other.
    error: what ended the last process that failed, "" where none did.
    error_time: moment of that.
    seconds: times by kind since `began`; they sum to `time - began`.
    saves: the newest checkpoints whose writing was begun.
  """

  state: str
  doing: str
  began: checked_json.Finite
  time: checked_json.Finite
  advanced: checked_json.Finite
  stage: str = ""
  step: checked_json.Index = 0
  steps: checked_json.Index = 0
  clips_per_second: checked_json.Finite = 0.0
  saved_stage: str = ""
  saved_step: checked_json.Index = 0
  host: str = ""
  hosts: checked_json.Index = 1
  devices: str = ""
  starts: checked_json.Index = 1
  error: str = ""
  error_time: checked_json.Finite = 0.0
  seconds: _Times = dataclasses.field(default_factory=dict)
  saves: list[Save] = dataclasses.field(default_factory=list)


def read(workdir: epath.Path) -> Status:
  """Reads the file.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is damaged.
  """
  mend = "The next training in this workdir writes it again."
  return checked_json.read(workdir / run_files.STATUS, Status, mend=mend)


class RunStatus:
  """The status of a training that goes on; use it in a `with`.

  One that is not active counts time and writes nothing: on all processes but one.
  """

  def __init__(
    self,
    workdir: epath.Path | None = None,
    *,
    began: float | None = None,
    hosts: int = 1,
    devices: str = "",
    asked: Callable[[], float] = lambda: 0.0,
  ) -> None:
    """Reads what an earlier process left.

    Args:
      workdir: folder of the run; None writes nothing.
      began: moment at which this process began, seconds since 1970.
      hosts: number of processes.
      devices: number and kind of devices, for people.
      asked: when a step or batch was last begun, by the monotonic clock.
    """
    now = time.time()
    began = min(now, began or now)
    self._workdir, self._asked = workdir, asked
    self.clock = goodput.Clock(before=now - began)
    self.devices = goodput.Devices()
    self._before: Status | None = None
    if workdir is not None and storage.is_file(workdir / run_files.STATUS):
      try:
        self._before = read(workdir)
      except ValueError as error:
        logging.warning("%s", error)
    self._carried: goodput.Seconds = {}
    self._lock = threading.Lock()
    self._status = Status(RUNNING, goodput.STARTING, began, now, now)
    if self._before:
      before = self._before
      # Clocks of two machines may differ a little.
      down = max(0.0, began - before.time)
      self._carried = goodput.added(before.seconds, {goodput.DOWN: down})
      kept = ("began", "stage", "step", "steps", "saved_stage", "saved_step", "error", "error_time")
      self._status = dataclasses.replace(
        self._status,
        **{name: getattr(before, name) for name in (*kept, "saves")},
        starts=before.starts + 1,
      )
    self._change(host=socket.gethostname(), hosts=hosts, devices=devices)
    self._resumed = False
    self._saved: Callable[[], int | None] = lambda: None
    self._main = threading.get_ident()
    self._ended, self._warned = threading.Event(), False
    self._thread = threading.Thread(target=self._keep, daemon=True)

  def __enter__(self) -> RunStatus:
    import jax

    jax.monitoring.register_event_duration_secs_listener(self._listen)
    peers.at_leaving.append(self._leave)
    if self._workdir is not None:
      self._thread.start()
    return self

  def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
    import jax

    jax.monitoring.unregister_event_duration_listener(self._listen)
    peers.at_leaving.remove(self._leave)
    if isinstance(error, processes.StoppedError):
      self._change(state=STOPPED)
    elif error is not None:
      self._fail(storage_errors.advice(error) or f"{error}".strip() or type(error).__name__)
    elif self._status.state == RUNNING:
      self._change(state=FINISHED)
    if self._workdir is not None:
      self._ended.set()
      self._thread.join()

  def _fail(self, text: str) -> None:
    text = text_cleaning.without_secrets(" ".join(text.split()))[:_LONGEST_ERROR]
    self._change(state=FAILED, error=text, error_time=time.time())

  def _leave(self, text: str) -> None:
    """Another process has failed, and this one ends without leaving the `with`."""
    self._fail(text)
    self.write()

  def _change(self, **values: Any) -> None:
    with self._lock:
      self._status = dataclasses.replace(self._status, **values)

  def _listen(self, event: str, duration_secs: float, **kwargs: Any) -> None:
    del kwargs
    # Other threads compile too, beside what this one does.
    if event in _COMPILATIONS and threading.get_ident() == self._main:
      self.clock.compiled(duration_secs)

  def stage(
    self, name: str, *, start: int | None, steps: int, saved: Callable[[], int | None]
  ) -> None:
    """A stage is about to train.

    Args:
      name: its name.
      start: step of the checkpoint from which it goes on, or None.
      steps: number of its steps.
      saved: finds the step of its last complete checkpoint; another thread calls it.
    """
    if not self._resumed:
      self._resumed = True
      self._count_lost(name, start)
    self._saved = saved
    self._change(stage=name, step=start or 0, steps=steps, clips_per_second=0.0)

  def _count_lost(self, stage: str, start: int | None) -> None:
    before = self._before
    if before is None:
      return
    same = (before.stage, before.step) == (stage, start or 0)
    if before.state in (STOPPED, FINISHED) and same:
      return
    kept: goodput.Seconds = {}
    for number, save in enumerate(before.saves):
      # Without a checkpoint of its own, a stage goes on from that of the one before.
      if (save.stage, save.step) == (stage, start) or (start is None and save.stage != stage):
        kept = save.seconds
        self._change(saves=before.saves[: number + 1])
    if start is not None and not kept:
      return  # A checkpoint that the file doesn't know: nothing says what it took.
    self._carried = goodput.carried_on(self._carried, kept)

  def reported(self, step: int, clips_per_second: float | None) -> None:
    """Steps were reported; None where nothing is known of their rate."""
    rate = {} if clips_per_second is None else {"clips_per_second": round(clips_per_second, 3)}
    self._change(step=step, **rate)

  def saving(self, step: int) -> None:
    """The writing of a checkpoint is begun."""
    save = Save(self._status.stage, step, self.seconds())
    self._change(saves=[*self._status.saves, save][-_MOST_SAVES:])

  def stopped(self) -> None:
    """The training ends early, as `config.stop_at` asks."""
    self._change(state=STOPPED)

  def seconds(self) -> dict[str, float]:
    """Times by kind since the first start."""
    return goodput.added(self._carried, self.clock.seconds())

  def table(self) -> str:
    """The same as a table."""
    return goodput.table(self.seconds())

  def write(self) -> None:
    """Writes the file now; a fault of the disk costs no run."""
    if self._workdir is None:
      return
    with self._lock:
      now, monotonic = time.time(), time.monotonic()
      self._status = dataclasses.replace(
        self._status,
        doing=self.clock.kind,
        time=round(now, 3),
        advanced=round(now - (monotonic - max(self.clock.since, self._asked())), 3),
        seconds={kind: round(value, 3) for kind, value in self.seconds().items()},
      )
      text = json.dumps(dataclasses.asdict(self._status), indent=1)
    try:
      storage.write_text(self._workdir / run_files.STATUS, text)
      self._warned = False
    except Exception as error:
      if not self._warned:
        logging.warning("%s can't be written: %s", run_files.STATUS, error)
      self._warned = True

  def _look(self) -> None:
    """Notes the last complete checkpoint."""
    try:
      saved = self._saved()
    except Exception as error:
      logging.warning("The checkpoints can't be listed for %s: %s", run_files.STATUS, error)
      return
    if saved is not None:
      self._change(saved_stage=self._status.stage, saved_step=saved)

  def _keep(self) -> None:
    while True:
      last = self._ended.is_set()
      self._look()
      self.write()
      if last:
        return
      self._ended.wait(PERIOD)
