"""What the benchmarks share: timing side by side, and what a result records.

Two things are compared in one process and in turn (A, B, A, B, ...): whatever
else the machine does then slows both alike, and the ratio of each round stays
meaningful where the times themselves don't.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys
import time
from typing import Any

import numpy as np

from sum_l_jax.system import processes
from sum_l_jax.system import storage

# Those that change a timing; a result says what they were.
_PACKAGES = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "array-record",
  "numpy",
  "opencv-python-headless",
  "simplejpeg",
  "torch",
  "pytorchvideo",
  "faiss-cpu",
)
_VARIABLES = ("OPENBLAS_", "OMP_", "MKL_", "JAX_", "XLA_")

NOTE = (
  "The machine may have been shared with other work. Compared times are taken"
  " in turn in one process: read the ratios, not the seconds."
)


def interleave(
  functions: Mapping[str, Callable[[], Any]],
  rounds: int,
  *,
  warm_up: int = 1,
  settle: int = 0,
  clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
  """Calls the functions in turn and times each call.

  Every other round goes through them backwards, so that none always follows
  the same one.

  Args:
    functions: functions by name; each must block until its work is done.
    rounds: timed calls of each.
    warm_up: calls of each before that, untimed (compilation, caches).
    settle: untimed calls before each timed one, of the same function: what it
      pays for the others' turn (caches, memory that a virtual machine gave back
      to its host) is not in the time.
    clock: seconds; `time.process_time` counts processor time of this process
      over all its threads.

  Returns:
    Seconds by name, `rounds` of each; entry i of all is of round i.

  Raises:
    ValueError: no function, or no round.
  """
  if not functions or rounds < 1 or min(warm_up, settle) < 0:
    raise ValueError(
      "interleave needs at least one function and one round, and warm_up and"
      f" settle of 0 or more; got {len(functions)} functions, {rounds=},"
      f" {warm_up=}, {settle=}."
    )
  for _ in range(warm_up):
    for function in functions.values():
      function()
  times: dict[str, list[float]] = {name: [] for name in functions}
  order = list(functions)
  for i in range(rounds):
    for name in order if i % 2 == 0 else reversed(order):
      for _ in range(settle):
        functions[name]()
      start = clock()
      functions[name]()
      times[name].append(clock() - start)
  return times


def interleave_clocks(
  functions: Mapping[str, Callable[[], Any]], rounds: int, *, warm_up: int = 1, settle: int = 0
) -> dict[str, dict[str, list[float]]]:
  """`interleave` by the clock and by processor time, in the same calls.

  Returns:
    {"wall", "processor"}, each seconds by name.
  """
  clocks = {"wall": time.perf_counter, "processor": time.process_time}
  times = interleave(
    functions,
    rounds,
    warm_up=warm_up,
    settle=settle,
    clock=lambda: np.array([clock() for clock in clocks.values()]),
  )
  return {
    clock: {name: [float(value[place]) for value in values] for name, values in times.items()}
    for place, clock in enumerate(clocks)
  }


def ratio(
  times: Mapping[str, Sequence[float]], numerator: str, denominator: str
) -> dict[str, float]:
  """Time of one over time of another, round by round.

  Args:
    times: what `interleave` returned.
    numerator: a name; a ratio above 1 says that it is the slower one.
    denominator: a name.

  Returns:
    "median", "low" (the smallest) and "high" (the largest).
  """
  each = np.divide(times[numerator], times[denominator])
  return {"median": float(np.median(each)), "low": float(each.min()), "high": float(each.max())}


def spread(values: Sequence[float]) -> dict[str, float]:
  """ "median", "low" and "high" of some values."""
  return {
    "median": float(np.median(values)),
    "low": float(np.min(values)),
    "high": float(np.max(values)),
  }


def environment() -> dict[str, Any]:
  """Hardware, versions, date, and how busy the machine is."""
  found = {
    d.metadata["Name"].lower().replace("_", "-"): d.version
    for d in importlib.metadata.distributions()
    if d.metadata["Name"]
  }
  load = os.getloadavg() if hasattr(os, "getloadavg") else (None,)
  pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
    "processor": _processor(),
    "cores_of_machine": os.cpu_count(),
    "cores_of_process": processes.cores(),
    "memory_gib": round(pages / 2**30, 1),
    "system": f"{platform.system()} {platform.machine()}",
    "python": platform.python_version(),
    "versions": {n: found[n] for n in _PACKAGES if n in found},
    "variables": {
      name: value
      for name, value in sorted(os.environ.items())
      if name.startswith(_VARIABLES) and not pathlib.Path(value).is_absolute()
    },
    "load_at_end": load[0],
    "note": NOTE,
  }


def write(path: str | pathlib.Path, command: str, results: Mapping[str, Any]) -> None:
  """Writes a result: command, environment and numbers, as JSON.

  Args:
    path: the file; its folder is made.
    command: command that makes these results again.
    results: what was measured; anything JSON has.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  record = {"command": command, "environment": environment(), "results": results}
  storage.write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
  """A parser with what every benchmark takes: `--quick` and `--output`."""
  parser = argparse.ArgumentParser(
    prog=f"python -m benchmarks.{name}",
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--quick", action="store_true", help="fewer and smaller measurements")
  parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="write a JSON here")
  return parser


def command(name: str, argv: Sequence[str] | None = None) -> str:
  """The command line of a benchmark, for its record."""
  given = sys.argv[1:] if argv is None else argv
  return shlex.join(["python", "-m", f"benchmarks.{name}", *given])


def _processor() -> str:
  """The processor's name where the system tells it."""
  path = pathlib.Path("/proc/cpuinfo")
  if path.is_file():
    for line in path.read_text(encoding="utf-8").splitlines():
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()
