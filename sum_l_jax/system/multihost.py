"""Connecting the processes of a run: how many there are, and who is late.

Every process of a run is started with the same command. Which of them it is
comes from the flags, from the environment variables `JAX_COORDINATOR_ADDRESS`,
`JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, or from what started it (Slurm, Open
MPI, a TPU pod). Kubernetes is never asked: that would need rights that few pods
have.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import glob
import hashlib
import hmac
import json
import re
import secrets
import socket
import threading
import time

from absl import logging

from sum_l_jax.system import peers

MODES = ("auto", "on", "off")
PORT = 8476
# Each time that this passes, a process that waits for the others says so.
PATIENCE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class _Launcher:
  """What starts processes, and the variables that it sets.

  Attributes:
    name: its name.
    count: variable with the number of all processes; "" if it sets none.
    index: variable with the number of this process.
    here: variable with the number of processes of this machine; Slurm gives
      those of all machines, "4(x2)".
    rank_here: variable with the number of this process among those.
    address: variable with the machine of process 0.
    found_by: variables from which JAX finds that machine; empty if it can't.
  """

  name: str
  count: str
  index: str
  here: str = ""
  rank_here: str = ""
  address: str = ""
  found_by: tuple[str, ...] = ()


_ADDRESS = "JAX_COORDINATOR_ADDRESS"
# What is said outright comes first. `mpirun` within a Slurm job passes Slurm's
# variables on, which are then those of the job's script: hence the order.
_LAUNCHERS = (
  _Launcher("the environment", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", address=_ADDRESS),
  _Launcher(
    "Open MPI",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    found_by=("OMPI_MCA_orte_hnp_uri",),  # Set up to version 4.
  ),
  _Launcher(
    "Slurm",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_LOCALID",
    found_by=("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_LOCALID"),  # Set by `srun`.
  ),
  _Launcher("MPI", "PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"),
)
# What shows that there may be others, and is not taken for an answer.
_SIGNS = (
  _Launcher("an indexed Job of Kubernetes", "", "JOB_COMPLETION_INDEX"),
  _Launcher("a JAXJob of Kubeflow", "NUM_PROCESSES", "PROCESS_ID", address="COORDINATOR_ADDRESS"),
  _Launcher("torchrun or a PyTorchJob", "WORLD_SIZE", "RANK", address="MASTER_ADDR"),
  _Launcher("Kubeflow Trainer", "PET_NNODES", "PET_NODE_RANK", address="PET_MASTER_ADDR"),
  _Launcher(
    "a LeaderWorkerSet", "LWS_GROUP_SIZE", "LWS_WORKER_INDEX", address="LWS_LEADER_ADDRESS"
  ),
  _Launcher("a Job of Volcano", "", "VC_TASK_INDEX"),
  _Launcher("XPK or a similar launcher", "NNODES", "NODE_RANK"),
  _Launcher(
    "AWS Batch",
    "AWS_BATCH_JOB_NUM_NODES",
    "AWS_BATCH_JOB_NODE_INDEX",
    address="AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS",
  ),
  _Launcher("MVAPICH", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
  _Launcher("jsrun", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"),
  _Launcher("Flux", "FLUX_JOB_SIZE", "FLUX_TASK_RANK"),
  _Launcher("PALS", "", "PALS_RANKID"),
  _Launcher("PMIx", "", "PMIX_RANK"),
  _Launcher("several slices of TPUs", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"),
)
# Lists of machines, separated by commas, and their index.
_LISTS = {"TPU_WORKER_HOSTNAMES": "TPU_WORKER_ID", "TPU_PROCESS_ADDRESSES": "TPU_WORKER_ID"}
# JSON that lists machines: of SageMaker, Vertex AI and Kubeflow's TFJob.
_JSON = ("SM_HOSTS", "CLUSTER_SPEC", "TF_CONFIG")


@dataclasses.dataclass(frozen=True)
class Job:
  """Arguments of `jax.distributed.initialize`; JAX finds out what is None.

  Attributes:
    coordinator: "host:port" of process 0.
    count: number of processes.
    index: number of this process.
    local_devices: GPUs of this process; None leaves them to JAX.
    detect: whether JAX looks into the environment for what is None. Where
      nothing is left to find, it would still ask the metadata server of a cloud
      or Kubernetes for the local devices, and fail where it has no rights.
  """

  coordinator: str | None = None
  count: int | None = None
  index: int | None = None
  local_devices: tuple[int, ...] | None = None
  detect: bool = True


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
      name more than one process, and on TPUs. It refuses where others are to be
      seen and who they are is not.
    environment: environment variables of the process.
    coordinator_address: host of process 0, or "host:port".
    coordinator_port: port of an address without one.
    num_processes: number of processes, 0 if unknown.
    process_id: number of this process, -1 if unknown.
    on_tpu: whether this machine has TPUs.
    num_gpus: number of GPUs of this machine.

  Raises:
    ValueError: flags contradict each other or aren't enough, or there are signs
      of others; says what to pass.
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
  launcher = _find_launcher(environment)
  if launcher and not any(flags[1:]):
    num_processes = _number(environment, launcher.count)
    process_id = _number(environment, launcher.index)
  known = num_processes > 0 and process_id >= 0
  given = coordinator_address or environment.get(_ADDRESS, "")
  if any(flags) and not (known and (given or launcher)):
    raise ValueError(
      "--coordinator_address, --num_processes and --process_id go together,"
      " where Slurm or MPI don't give the last two; got"
      f" {coordinator_address!r}, {num_processes} and {process_id}. Process 0"
      " must run at the address, and the ids count from 0."
    )
  if known and not 0 <= process_id < num_processes:
    raise ValueError(f"--process_id must lie in 0 to {num_processes - 1}, got {process_id}.")
  if known and num_processes == 1 and mode == "auto":
    return None
  port = _number(environment, "JAX_COORDINATOR_PORT") if coordinator_port == PORT else -1
  address = _with_port(given, port if port > 0 else coordinator_port)
  if not known:
    # JAX finds the processes of a TPU pod itself.
    if on_tpu or mode == "on":
      return Job(address)
    _refuse_to_be_alone(environment)
    return None
  if address is None:
    _check_address_is_found(launcher, environment)
  local = _local_devices(launcher, environment, num_gpus) if launcher else None
  detect = address is None or bool(launcher and _is_found(launcher, environment))
  return Job(address, num_processes, process_id, local, detect)


def _with_port(address: str, port: int) -> str | None:
  """The address as JAX wants it, or None without one."""
  if not address or re.search(r":\d+$", address):
    return address or None
  return f"{address}:{port}"


def _local_devices(
  launcher: _Launcher, environment: Mapping[str, str], num_gpus: int
) -> tuple[int, ...] | None:
  """GPUs of this process where JAX would take others, or all of them."""
  here = environment.get(launcher.here, "")
  # A process that is alone on its machine takes all; one that is shown a single
  # GPU sees it as number 0, where JAX looks for the one of its own number.
  if re.fullmatch(r"1(\(x\d+\))?", here) or (here and num_gpus == 1):
    return tuple(range(num_gpus)) or None
  # JAX gives a process of a launcher that it knows one GPU.
  if not here or not num_gpus or _is_found(launcher, environment):
    return None
  rank = _number(environment, launcher.rank_here)
  return (rank,) if rank >= 0 else None


def _is_found(launcher: _Launcher, environment: Mapping[str, str]) -> bool:
  """Whether JAX finds the job of this launcher in the environment."""
  return bool(launcher.found_by) and all(name in environment for name in launcher.found_by)


def _number(environment: Mapping[str, str], name: str) -> int:
  """The whole number that a variable holds; -1 without one."""
  text = environment.get(name, "").strip()
  return int(text) if text.isdecimal() else -1


def _find_launcher(environment: Mapping[str, str]) -> _Launcher | None:
  """What started this process, if it says how many there are and which this is."""
  found = [
    launcher
    for launcher in _LAUNCHERS
    if _number(environment, launcher.count) > 0 and _number(environment, launcher.index) >= 0
  ]
  if [launcher.name for launcher in found] == ["Slurm", "MPI"]:
    same = all(
      _number(environment, found[0].__dict__[part]) == _number(environment, found[1].__dict__[part])
      for part in ("count", "index")
    )
    return found[0] if same else found[1]
  return found[0] if found else None


_ALONE = (
  "Alone, every one of them would train the whole run in the same workdir. Where this process is"
  " the only one, give --multihost=off."
)


def _check_address_is_found(launcher: _Launcher | None, environment: Mapping[str, str]) -> None:
  """Raises ValueError unless JAX finds the machine of process 0."""
  if launcher is None:
    return
  if _is_found(launcher, environment):
    return
  absent = [name for name in launcher.found_by if name not in environment]
  said = f"{launcher.count}={environment[launcher.count]}"
  if launcher.name == "Slurm":
    raise ValueError(
      f"{said} says that there are other processes, but this one was not started by srun"
      f" ({', '.join(absent)} not set), so that they can't find each other. Put srun before the"
      f" command, or give --coordinator_address=HOST_OF_PROCESS_0. {_ALONE}"
    )
  if launcher.address:
    raise ValueError(
      f"{said} says that there are other processes, but {launcher.address} is not set. Give it the"
      f" host of process 0, the same for all, or give --coordinator_address. {_ALONE}"
    )
  raise ValueError(
    f"{said} ({launcher.name}) says that there are other processes, but not on which machine the"
    " first one runs (Open MPI says so up to version 4). Give"
    f" --coordinator_address=HOST_OF_PROCESS_0, the same for all. {_ALONE}"
  )


def _refuse_to_be_alone(environment: Mapping[str, str]) -> None:
  """Raises ValueError where others are to be seen, and who they are is not."""
  for sign in _SIGNS:
    if sign.index not in environment or (sign.address and sign.address not in environment):
      continue
    count = _number(environment, sign.count) if sign.count else 0
    if sign.count and count < 2:
      continue
    address = f"${sign.address}" if sign.address else "HOST_OF_PROCESS_0"
    raise ValueError(
      f"{sign.index}={environment[sign.index]!r} is a sign of other processes ({sign.name}), but"
      f" --multihost=auto doesn't know them. Give --coordinator_address={address}"
      f" --num_processes={f'${sign.count}' if sign.count else 'NUMBER'}"
      f" --process_id=${sign.index}. {_ALONE}"
    )
  for name, index in _LISTS.items():
    hosts = [host for host in environment.get(name, "").split(",") if host.strip()]
    if len(hosts) > 1:
      raise ValueError(
        f"{name} names {len(hosts)} machines, but no TPU can be seen on this one. Find out why"
        f" (`ls /dev/accel* /dev/vfio`), or give --coordinator_address={hosts[0]}"
        f" --num_processes={len(hosts)} --process_id=${index}. {_ALONE}"
      )
  for name in _JSON:
    count = _count_in_json(environment.get(name, ""))
    if count > 1:
      raise ValueError(
        f"{name} names {count} machines, but --multihost=auto doesn't know which of them this is."
        f" Give --coordinator_address=HOST_OF_PROCESS_0 --num_processes={count}"
        f" --process_id=NUMBER. {_ALONE}"
      )
  for name in (_ADDRESS, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
    if environment.get(name) and environment.get("JAX_NUM_PROCESSES") != "1":
      raise ValueError(
        f"{name} is a sign of other processes. {_ADDRESS}, JAX_NUM_PROCESSES and JAX_PROCESS_ID go"
        " together, as do --coordinator_address, --num_processes and --process_id; the last two"
        f" are numbers. {_ALONE}"
      )


def _count_in_json(text: str) -> int:
  """Number of machines in a list, or in the `cluster` of TensorFlow's form."""
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    return 0
  if isinstance(value, dict):
    cluster = value.get("cluster")
    value = [cluster] if not isinstance(cluster, dict) else list(cluster.values())
    value = [host for hosts in value if isinstance(hosts, list) for host in hosts]
  return len(value) if isinstance(value, list) else 0


def has_tpu() -> bool:
  """Whether this machine has TPU chips."""
  return bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))


def count_gpus(environment: Mapping[str, str]) -> int:
  """Number of NVIDIA GPUs that this process may use."""
  visible = environment.get("CUDA_VISIBLE_DEVICES")
  if visible is not None:
    return len([name for name in visible.split(",") if name.strip()])
  return len(glob.glob("/dev/nvidia[0-9]*"))


def connect(job: Job, *, timeout: int = 300, heartbeat: int = 100, shared: str = "") -> None:
  """Connects this process with the others; waits for all.

  Args:
    job: the job, see `find_job`.
    timeout: seconds to wait.
    heartbeat: seconds without a sign of life after which JAX takes a process
      for lost and ends the others.
    shared: text that all processes of this run know and others don't, such as
      its command; who doesn't know it is not taken for one of them.

  Raises:
    ValueError: JAX found no other processes.
    RuntimeError: some processes didn't come; names them.
  """
  import jax

  try:
    with _watch(job, shared):
      jax.distributed.initialize(
        job.coordinator,
        job.count,
        job.index,
        job.local_devices,
        None if job.detect else "deactivate",
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=heartbeat,
      )
  except ValueError as error:
    raise ValueError(
      f"JAX doesn't find the other processes of this run ({error}). Give --coordinator_address,"
      " --num_processes and --process_id, or --multihost=off to run alone."
    ) from error
  peers.joined()
  logging.info("process %d of %d is connected", jax.process_index(), jax.process_count())


def meet() -> None:
  """Makes the connections of the processes' computations; all processes call it.

  On CPU, Gloo makes them at the first computation that all take part in, and
  gives up where one comes half a minute after another. That would be the first
  step of a training, for which some compile longer than others.
  """
  import jax
  from jax.experimental import multihost_utils

  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("sum_l_jax: all processes are there")


@contextlib.contextmanager
def _watch(job: Job, shared: str) -> Iterator[None]:
  """Logs who is missing while `connect` waits.

  JAX's own service answers nobody before all are there. So beside it, the
  processes call at the next higher port of process 0, which therefore knows who
  has come. Where that port is blocked, the lines say less, and nothing else is
  lost.
  """
  ended = threading.Event()
  roll = None
  if job.coordinator and job.count:
    roll = _Roll(job, job.count, job.coordinator, shared, ended)
  name = "?" if job.index is None else f"{job.index} of {job.count}"
  where = f" at {job.coordinator}" if job.coordinator else ""
  # JAX ends a process that waited too long by a stack trace.
  words = f"Process {name} has waited in vain for the other processes{where}."
  last_words = peers.LastWords(words, words, job.coordinator or "")

  def report() -> None:
    start = said = time.monotonic()
    while not ended.wait(min(1.0, PATIENCE_SECONDS)):
      missing = roll.missing() if roll else ""
      last_words.say(f"{words}{missing} {_ALIKE}")
      now = time.monotonic()
      if now - said >= PATIENCE_SECONDS:
        said = now
        logging.warning(
          "Process %s has waited %.0f s for the other processes%s.%s %s",
          name,
          now - start,
          where,
          missing,
          _ALIKE,
        )

  threading.Thread(target=report, daemon=True).start()
  try:
    yield
  finally:
    ended.set()
    last_words.close()


_ALIKE = (
  "The same command must run on all machines, with nothing but the ids different;"
  " --multihost=off runs on this one."
)


class _Roll:
  """The list of who has come; process 0 keeps it, and the others call there.

  It listens at the address at which the others know process 0, and at no other.
  A call counts if its sender knows what the run shares: it has to hash that
  together with a random text that it is given.
  """

  def __init__(
    self, job: Job, count: int, coordinator: str, shared: str, ended: threading.Event
  ) -> None:
    self._job = job
    self._count = count
    self._came = {0: {socket.gethostname()}}
    self._ended = ended
    host, _, port = coordinator.rpartition(":")
    self._host, self._port = host.strip("[]"), int(port) + 1
    self._key = hashlib.sha256(f"{coordinator} {count} {shared}".encode()).digest()
    work = self._keep if job.index == 0 else self._call
    threading.Thread(target=work, daemon=True).start()

  def missing(self) -> str:
    """A sentence about who hasn't come; empty if that isn't known."""
    if self._job.index:
      return ""
    came = {index: sorted(hosts) for index, hosts in sorted(self._came.items())}
    absent = sorted(set(range(self._count)) - came.keys())
    there = ", ".join(f"{i} ({' and '.join(hosts)})" for i, hosts in came.items())
    text = f" Missing: {', '.join(map(str, absent)) or 'none'}; there: {there}."
    twice = [str(index) for index, hosts in came.items() if len(hosts) > 1]
    if twice:
      text += f" Process {', '.join(twice)} is there on two machines: the ids must differ."
    return text

  def _seal(self, nonce: bytes, text: bytes) -> bytes:
    return hmac.new(self._key, nonce + text, "sha256").hexdigest().encode()

  def _keep(self) -> None:
    try:
      family = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0][0]
      with socket.create_server((self._host, self._port), family=family) as server:
        server.settimeout(0.5)
        while not self._ended.is_set():
          with contextlib.suppress(TimeoutError, OSError, ValueError):
            caller, _ = server.accept()
            with caller:
              self._hear(caller)
    except OSError as error:
      logging.info("no roll call at %s port %d: %s", self._host, self._port, error)

  def _hear(self, caller: socket.socket) -> None:
    caller.settimeout(2.0)
    nonce = secrets.token_hex(16).encode()
    caller.sendall(nonce)
    text, _, seal = caller.recv(400).rpartition(b" ")
    if not hmac.compare_digest(seal, self._seal(nonce, text)):
      return
    index, _, host = text.decode().partition(" ")
    if index.isdecimal() and int(index) < self._count:
      self._came.setdefault(int(index), set()).add(peers.clean(host, 100))

  def _call(self) -> None:
    text = f"{self._job.index} {socket.gethostname()}".encode()
    while not self._ended.is_set():
      with (
        contextlib.suppress(OSError),
        socket.create_connection((self._host, self._port), timeout=2.0) as server,
      ):
        nonce = server.recv(32)
        server.sendall(text + b" " + self._seal(nonce, text))
        return
      self._ended.wait(0.5)
