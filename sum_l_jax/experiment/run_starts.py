"""`starts.json`: each start of a training, with what, on what.

Process 0 adds an entry whenever a training begins or goes on in the workdir. Code,
libraries and machines may change between two starts, and a number is only as good as
what says where it comes from.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import socket
import time

from absl import logging
from etils import epath
import jax

from sum_l_jax.experiment import host_statement
from sum_l_jax.system import checked_json
from sum_l_jax.system import processes
from sum_l_jax.system import run_files
from sum_l_jax.system import source_version
from sum_l_jax.system import storage

_PACKAGE = "sum_l_jax"


@dataclasses.dataclass(frozen=True)
class Start:
  """A start of a training.

  Attributes:
    time: moment, seconds since 1970.
    command: the command, "" where none was given.
    commit: commit of the source, "" where nothing says it.
    changed: whether the source differs from that commit.
    code: digest of the package's own files.
    host: machine of process 0.
    hosts: number of processes.
    system: operating system of that machine.
    processor: its processor.
    cores: cores that the process may use.
    memory_gib: memory of the machine, GiB.
    devices: number and kind of all devices.
    driver: what drives the devices.
    versions: versions of Python and of libraries.
  """

  time: checked_json.Finite
  command: str = ""
  commit: str = ""
  changed: bool = False
  code: str = ""
  host: str = ""
  hosts: checked_json.Index = 1
  system: str = ""
  processor: str = ""
  cores: checked_json.Index = 0
  memory_gib: checked_json.Finite = 0.0
  devices: str = ""
  driver: str = ""
  versions: dict[str, str] = dataclasses.field(default_factory=dict)


def read(workdir: epath.Path) -> list[Start]:
  """Reads the starts, the first one first; [] where none was recorded.

  Raises:
    ValueError: the file is damaged.
  """
  path = workdir / run_files.STARTS
  if not storage.is_file(path):
    return []
  mend = "Remove it; the next start writes a new one."
  return checked_json.read(path, list[Start], mend=mend)


def now(*, command: str, mesh: jax.sharding.Mesh) -> Start:
  """A start at this moment, by this process.

  Args:
    command: the command.
    mesh: all devices.
  """
  device = mesh.devices.flat[0]
  source = source_version.find(_PACKAGE, epath.Path(__file__).parents[2])
  libraries = (_PACKAGE, *host_statement.LIBRARIES)
  return Start(
    time=round(time.time(), 3),
    command=command,
    commit=source.commit,
    changed=source.changed,
    code=host_statement.code_digest(),
    host=socket.gethostname(),
    hosts=jax.process_count(),
    system=platform.platform(),
    processor=processes.processor(),
    cores=processes.cores(),
    memory_gib=round(processes.memory_bytes() / 2**30, 1),
    devices=f"{mesh.size} ({device.device_kind})",
    driver=device.client.platform_version,
    versions={
      "python": platform.python_version(),
      **{name: host_statement.version(name) for name in libraries},
    },
  )


def record(workdir: epath.Path, *, command: str, mesh: jax.sharding.Mesh) -> None:
  """Adds a start to the file; a damaged file is replaced, with a warning."""
  try:
    before = read(workdir)
  except ValueError as error:
    logging.warning("%s", error)
    before = []
  starts = [*before, now(command=command, mesh=mesh)]
  text = json.dumps([dataclasses.asdict(start) for start in starts], indent=1)
  storage.write_text(workdir / run_files.STARTS, text + "\n")
