"""Connecting the processes of a run: how many there are, and who is late.

Every process of a run is started with the same command. Which of them it is
comes from the flags or from what started it (Slurm, Open MPI, a TPU pod).
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import glob
import re
import socket
import threading

from absl import logging

MODES = ("auto", "on", "off")
PORT = 8476
# Each time that this passes, a process that waits for the others says so.
PATIENCE_SECONDS = 60.0

# What launchers say: number of all processes, number of this one, how many are
# on this machine.
_LAUNCHERS = {
  "Slurm": ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE"),
  "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
}


@dataclasses.dataclass(frozen=True)
class Job:
  """Arguments of `jax.distributed.initialize`; JAX finds out what is None.

  Attributes:
    coordinator: "host:port" of process 0.
    count: number of processes.
    index: number of this process.
    local_devices: GPUs of this process; None leaves them to JAX.
  """

  coordinator: str | None = None
  count: int | None = None
  index: int | None = None
  local_devices: tuple[int, ...] | None = None


def find_job(
  mode: str,
  environment: Mapping[str, str],
  *,
  coordinator_address: str = "",
  coordinator_port: int = PORT,
  num_processes: int = 0,
  process_id: int = -1,
  on_tpu: bool = False,
  num_gpus: int = 0,
) -> Job | None:
  """Finds the job that this process belongs to; None if it is alone.

  Args:
    mode: "on" connects, "off" doesn't, and "auto" does if flags or environment
      name more than one process, and on TPUs.
    environment: environment variables of the process.
    coordinator_address: host of process 0, or "host:port".
    coordinator_port: port of an address without one.
    num_processes: number of processes, 0 if unknown.
    process_id: number of this process, -1 if unknown.
    on_tpu: whether this machine has TPUs.
    num_gpus: number of GPUs of this machine.

  Raises:
    ValueError: flags contradict each other or aren't enough.
  """
  if mode not in MODES:
    raise ValueError(f"--multihost must be one of {MODES}, got {mode!r}.")
  flags = (bool(coordinator_address), num_processes > 0, process_id >= 0)
  if mode == "off":
    if any(flags):
      raise ValueError(
        "--multihost=off contradicts --coordinator_address, --num_processes"
        " and --process_id. Leave it or them out."
      )
    return None
  launcher = next(
    (names for names in _LAUNCHERS.values() if all(name in environment for name in names[:2])), None
  )
  if launcher and not any(flags[1:]):
    num_processes = int(environment[launcher[0]])
    process_id = int(environment[launcher[1]])
  known = num_processes > 0 and process_id >= 0
  if any(flags) and not (known and (coordinator_address or launcher)):
    raise ValueError(
      "--coordinator_address, --num_processes and --process_id go together,"
      " where Slurm or Open MPI don't give the last two; got"
      f" {coordinator_address!r}, {num_processes} and {process_id}. Process 0"
      " must run at the address, and the ids count from 0."
    )
  if known and not 0 <= process_id < num_processes:
    raise ValueError(f"--process_id must lie in 0 to {num_processes - 1}, got {process_id}.")
  if known and num_processes == 1 and mode == "auto":
    return None
  if not known:
    # JAX finds the processes of a TPU pod itself.
    return Job() if on_tpu or mode == "on" else None
  address = coordinator_address or None
  if address and not re.search(r":\d+$", address):
    address = f"{address}:{coordinator_port}"
  local = None
  here = environment.get(launcher[2], "") if launcher else ""
  # JAX gives a process of these launchers one GPU; one that is alone on its
  # machine takes all.
  if re.match(r"1\b", here) and num_gpus > 1:
    local = tuple(range(num_gpus))
  return Job(address, num_processes, process_id, local)


def has_tpu() -> bool:
  """Whether this machine has TPU chips."""
  return bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))


def count_gpus(environment: Mapping[str, str]) -> int:
  """Number of NVIDIA GPUs that this process may use."""
  visible = environment.get("CUDA_VISIBLE_DEVICES")
  if visible is not None:
    return len([name for name in visible.split(",") if name.strip()])
  return len(glob.glob("/dev/nvidia[0-9]*"))


def connect(job: Job, *, timeout: int = 300) -> None:
  """Connects this process with the others; waits for all.

  Args:
    job: the job, see `find_job`.
    timeout: seconds to wait.

  Raises:
    ValueError: JAX found no other processes.
    RuntimeError: some processes didn't come; names them.
  """
  import jax

  with _watch(job):
    jax.distributed.initialize(
      job.coordinator, job.count, job.index, job.local_devices, initialization_timeout=timeout
    )
  logging.info("process %d of %d is connected", jax.process_index(), jax.process_count())


@contextlib.contextmanager
def _watch(job: Job) -> Iterator[None]:
  """Logs who is missing while `connect` waits.

  Beside JAX's own connection, the processes call at the next higher port of
  process 0, which therefore knows who has come. Where that port is blocked, the
  lines say less, and nothing else is lost.
  """
  ended = threading.Event()
  roll = None
  if job.coordinator and job.count:
    host, _, port = job.coordinator.rpartition(":")
    roll = _Roll(job, job.count, (host, int(port) + 1), ended)
  watcher = threading.Thread(target=_report, args=(job, roll, ended), daemon=True)
  watcher.start()
  try:
    yield
  finally:
    ended.set()


def _report(job: Job, roll: _Roll | None, ended: threading.Event) -> None:
  waited = 0.0
  while not ended.wait(PATIENCE_SECONDS):
    waited += PATIENCE_SECONDS
    missing = roll.missing() if roll else ""
    logging.warning(
      "Process %s has waited %.0f s for the other processes%s.%s The same"
      " command must run on all machines, with nothing but the ids different;"
      " --multihost=off runs on this one.",
      "?" if job.index is None else f"{job.index} of {job.count}",
      waited,
      f" at {job.coordinator}" if job.coordinator else "",
      missing,
    )


class _Roll:
  """The list of who has come; process 0 keeps it, and the others call there."""

  def __init__(
    self, job: Job, count: int, address: tuple[str, int], ended: threading.Event
  ) -> None:
    self._job = job
    self._count = count
    self._came = {0: socket.gethostname()}
    self._ended = ended
    self._address = address
    work = self._keep if job.index == 0 else self._call
    threading.Thread(target=work, daemon=True).start()

  def missing(self) -> str:
    """A sentence about who hasn't come; empty if that isn't known."""
    if self._job.index:
      return ""
    absent = sorted(set(range(self._count)) - self._came.keys())
    there = ", ".join(f"{i} ({host})" for i, host in sorted(self._came.items()))
    return f" Missing: {', '.join(map(str, absent))}; there: {there}."

  def _keep(self) -> None:
    try:
      with socket.create_server(("", self._address[1])) as server:
        server.settimeout(0.5)
        while not self._ended.is_set():
          with contextlib.suppress(TimeoutError, OSError, ValueError):
            caller, _ = server.accept()
            with caller:
              caller.settimeout(2.0)
              index, _, host = caller.recv(300).decode().partition(" ")
              if 0 < int(index) < self._count:
                self._came[int(index)] = host
    except OSError as error:
      logging.info("no roll call at port %d: %s", self._address[1], error)

  def _call(self) -> None:
    text = f"{self._job.index} {socket.gethostname()}"
    while not self._ended.is_set():
      with (
        contextlib.suppress(OSError),
        socket.create_connection(self._address, timeout=2.0) as server,
      ):
        server.sendall(text.encode())
        return
      self._ended.wait(0.5)
