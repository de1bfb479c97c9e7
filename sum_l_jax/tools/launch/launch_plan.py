"""The description of a launch: what runs, on what, and where its results lie."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line
from sum_l_jax.tools.launch import tpu_types

# XPK and Kubernetes make longer names of it, which may have 63 characters.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GPU = "gpu"
# Folder on the local disk of a pod or of a machine of Cloud TPU.
SCRATCH = "/scratch"


def _field(default: Any, about: str) -> Any:
  return dataclasses.field(default=default, metadata={"about": about})


@dataclasses.dataclass(frozen=True)
class Plan:
  """What the launch files are made of; each field is an option of the command."""

  name: str = _field("", "name of the run and of what is created for it")
  config: str = _field("", "config file in the image or folder, with its arguments")
  workdir: str = _field("", "folder of the run that all machines see, such as gs://bucket/run")
  fields: tuple[str, ...] = _field((), "")
  accelerator: str = _field(
    "", "a TPU type (v5litepod-32), a GPU as Kubernetes Engine labels it (nvidia-h100-80gb), or gpu"
  )
  slices: int = _field(1, "slices of TPUs, or groups of machines with GPUs, that train as one")
  hosts: int = _field(1, "machines of a group with GPUs")
  gpus: int = _field(8, "GPUs of a machine")
  spot: bool = _field(False, "machines that are cheaper and can be taken away")
  image: str = _field("", "container image with its tag")
  environment: tuple[str, ...] = _field((), "NAME=VALUE of a variable; may be repeated")
  project: str = _field("", "project of Google Cloud")
  zone: str = _field("", "zone of Google Cloud")
  cluster: str = _field("", "cluster of Kubernetes Engine, for XPK")
  service_account: str = _field("", "account that may use the bucket: of Kubernetes or of the TPUs")
  queue: str = _field("", "queue of Kueue")
  max_restarts: int = _field(50, "restarts after errors; XPK counts preemptions as well")
  stall_seconds: int = _field(
    1800, "time without a step after which pods are started again; 0 never does so"
  )
  grace_seconds: int = _field(300, "time to save after a request to stop")
  cpus: int = _field(0, "processor cores of a task of Slurm; 0 leaves them out")
  time_limit: str = _field("24:00:00", "time limit of Slurm, after which the job is queued again")
  python: str = _field(".venv/bin/python", "Python of the machines of Slurm")

  @property
  def tpu(self) -> tpu_types.TpuType | None:
    """The type of the slices; None for GPUs."""
    return tpu_types.find(self.accelerator)

  @property
  def devices(self) -> int:
    """Devices that train together."""
    return self.slices * (self.tpu.devices if self.tpu else self.hosts * self.gpus)

  def command(self, python: str = "python", *, connect_seconds: int = 0) -> tuple[str, ...]:
    """The command that each process runs.

    Args:
      python: its Python.
      connect_seconds: how long to wait for the other processes; 0 leaves that
        to the command.
    """
    return (
      python,
      "-m",
      "sum_l_jax.main",
      f"--config={self.config}",
      f"--workdir={self.workdir}",
      *([f"--connect_seconds={connect_seconds}"] if connect_seconds else []),
      *self.fields,
    )

  def status(self, python: str = "python") -> tuple[str, ...]:
    """The command that says whether the run goes on."""
    return (python, "-m", "sum_l_jax", "status", self.workdir)

  def variables(self) -> dict[str, str]:
    """Environment variables of the command, by name."""
    # A machine whose accelerator doesn't come up must not train on its processor.
    found = {"JAX_PLATFORMS": "tpu,cpu" if self.tpu else "cuda,cpu"}
    return found | dict(text.split("=", 1) for text in self.environment)


# Fields that a kind of launch can't do without.
_NEEDED = {
  "jobset": ("image", "accelerator"),
  "queued_resource": ("image", "accelerator", "project", "zone"),
  "slurm": (),
  "xpk": ("image", "accelerator", "project", "zone", "cluster"),
}
KINDS = tuple(_NEEDED)


def read(text: str) -> dict[str, Any]:
  """Reads a description: a JSON object with fields of `Plan`.

  Raises:
    ValueError: it is none, or has a field that there is not, or of another type.
  """
  values = checked_json.decode(text, checked_json.Object)
  checked_json.refuse_unknown(values, Plan)
  checked_json.check(values, Plan)
  return values


def make(values: Mapping[str, Any], kind: str) -> Plan:
  """Makes a plan of its values and checks it.

  Args:
    values: values of fields.
    kind: one of `KINDS`.

  Raises:
    ValueError: a value is missing or can't be right; names the option.
  """
  plan = checked_json.check(dict(values), Plan)
  missing = [
    f"--{name}" for name in ("name", "config", "workdir", *_NEEDED[kind]) if not getattr(plan, name)
  ]
  if missing:
    raise ValueError(f"{kind} needs {' and '.join(missing)} as well.")
  if not _NAME.fullmatch(plan.name):
    raise ValueError(
      f"--name={plan.name!r} must have at most 32 small letters, digits and hyphens, begin with a"
      " letter, and not end with a hyphen."
    )
  for name, least in (
    ("slices", 1),
    ("hosts", 1),
    ("gpus", 1),
    ("max_restarts", 0),
    ("stall_seconds", 0),
    ("grace_seconds", 1),
    ("cpus", 0),
  ):
    if getattr(plan, name) < least:
      raise ValueError(f"--{name} must be at least {least}, got {getattr(plan, name)}.")
  # Lines of options of Slurm can't be quoted.
  if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", plan.time_limit):
    raise ValueError(f"--time_limit must be like 24:00:00 or 2-12:00, got {plan.time_limit!r}.")
  for text in plan.environment:
    if "=" not in text or not _VARIABLE.fullmatch(text.partition("=")[0]):
      raise ValueError(f"--environment must be NAME=VALUE, got {text!r}.")
  for name, value in values.items():
    texts = value if isinstance(value, (list, tuple)) else (value,)
    if any(isinstance(t, str) and not t.isprintable() for t in texts):
      raise ValueError(f"--{name} has characters that can't be printed: {value!r}.")
  _check_machines(plan, kind)
  return plan


def _check_machines(plan: Plan, kind: str) -> None:
  """Refuses accelerators that a kind of launch can't have."""
  tpu = plan.tpu
  if (
    plan.accelerator
    and tpu is None
    and not re.fullmatch(rf"nvidia-[a-z0-9-]+|{_GPU}", plan.accelerator)
  ):
    hint = command_line.close_match(plan.accelerator, tpu_types.names())
    raise ValueError(
      f"--accelerator={plan.accelerator!r} is unknown{hint}. It is a TPU type such as"
      " v5litepod-32, v5p-64 or v6e-16, a GPU as Kubernetes Engine labels its machines"
      f" (nvidia-h100-80gb), or {_GPU!r} for any."
    )
  if kind in ("queued_resource", "xpk") and tpu is None:
    raise ValueError(f"{kind} is for TPUs, got --accelerator={plan.accelerator!r}: take jobset.")
  if kind == "queued_resource" and tpu and not tpu.runtime:
    raise ValueError(f"Queued resources don't offer {tpu.name}: take jobset or xpk.")
  if kind == "slurm" and tpu:
    raise ValueError(f"slurm is for GPUs, got --accelerator={plan.accelerator!r}.")
  if kind == "slurm" and plan.slices > 1:
    raise ValueError("slurm has no --slices; --hosts says how many machines there are.")
  # XPK puts them into YAML as they are.
  if kind == "xpk" and any(re.search(r'["\\]|\$\(', text) for text in plan.environment):
    raise ValueError(f'With xpk, --environment can have no ", \\ and $(, got {plan.environment}.')
  _check_account(plan, kind)
  if kind in ("jobset", "xpk") and tpu and plan.slices > 1 and tpu.hosts == 1:
    raise ValueError(
      f"--slices={plan.slices}: Kubernetes Engine connects slices of several machines only, and"
      f" {tpu.name} has one. Take a larger slice."
    )
  if tpu and plan.hosts > 1:
    raise ValueError(
      f"--hosts is for GPUs; {tpu.name} has {tpu.hosts} machines, and --slices takes more of them."
    )
  if kind != "slurm" and not re.match(r"[a-z][a-z0-9+.-]+://", plan.workdir):
    raise ValueError(
      f"--workdir={plan.workdir!r} would lie in each container and be lost with it. Give an address"
      " in a bucket, gs://bucket/run."
    )


def _check_account(plan: Plan, kind: str) -> None:
  """Refuses an account of the other kind, such as a description for --from may hold."""
  given = plan.service_account
  if kind == "queued_resource" and given and "@" not in given:
    raise ValueError(
      f"--service_account={given!r}: machines of Cloud TPU need the address of an account,"
      " NAME@PROJECT.iam.gserviceaccount.com."
    )
  if kind == "jobset" and "@" in given:
    raise ValueError(
      f"--service_account={given!r}: a JobSet needs the name of an account of Kubernetes, such as"
      " trainer, which stands for that one (docs/tpu_pods.md, Kubernetes Engine)."
    )


def to_json(plan: Plan) -> dict[str, Any]:
  """The fields of a plan that differ from their defaults."""
  return {
    field.name: list(value) if isinstance(value, tuple) else value
    for field in dataclasses.fields(plan)
    if (value := getattr(plan, field.name)) != field.default
  }
