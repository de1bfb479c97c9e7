"""Examines the installation; the output belongs in a bug report.

  python -m sum_l_jax.tools.doctor [--workdir=runs/x]
  python -m sum_l_jax.tools.doctor --data=gs://bucket/epic55/ego --step=step.json

Prints versions, devices, decoders, memory and disk, and what is wrong with
them. With --data it measures how many clips a second this host reads and decodes,
and with --step whether that is enough. The exit status is 1 where something is
wrong. (`python -m data_prep.doctor` examines what is in data sets.)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import importlib.metadata
import os
import platform
import resource
import sys

from etils import epath
from packaging import requirements

from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import multihost
from sum_l_jax.system import platform_errors
from sum_l_jax.system import processes
from sum_l_jax.system import storage

_PACKAGE = "sum_l_jax"
# Beginnings of the names of variables that change what the libraries do.
_VARIABLES = (
  "JAX_",
  "XLA_",
  "TF_",
  "LIBTPU",
  "CUDA_",
  "NVIDIA_",
  "TPU_",
  "SLURM_N",
  "SLURM_P",
  "PMI_",
  "PMIX_RANK",
  "JOB_COMPLETION_INDEX",
  "MEGASCALE_",
  "OMPI_COMM_",
  "GLIBC_TUNABLES",
  "LD_PRELOAD",
)
_VIDEO_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
_DISK_GIB = 5.0
_OPEN_FILES = 1024

# What was found, and what is wrong with it, "" where nothing is.
Finding = tuple[str, str]


def check_libraries() -> Iterator[Finding]:
  """Compares the declared libraries with the versions that are allowed."""
  yield f"python {platform.python_version()} ({sys.executable})", ""
  try:
    declared = importlib.metadata.requires(_PACKAGE) or ()
    own = importlib.metadata.version(_PACKAGE)
  except importlib.metadata.PackageNotFoundError:
    yield _PACKAGE, "is not installed; in the project's folder: pip install -e ."
    return
  yield f"{_PACKAGE} {own}", ""
  for text in declared:
    requirement = requirements.Requirement(text)
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
      continue
    try:
      version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
      yield requirement.name, f"is missing; pip install '{text}'"
      continue
    fits = requirement.specifier.contains(version, prereleases=True)
    problem = "" if fits else f"is outside of the tested range {requirement.specifier}"
    yield f"{requirement.name} {version}", problem


def check_devices() -> Iterator[Finding]:
  """Names what JAX computes on, and accelerators that it doesn't see."""
  import jax

  devices = jax.devices()
  kinds = ", ".join(sorted({device.device_kind for device in devices}))
  backend = devices[0].platform
  yield f"{len(devices)} device(s) of {backend}: {kinds}; {jax.process_count()} process(es)", ""
  stats = devices[0].memory_stats() or {}
  if "bytes_limit" in stats:
    yield f"device memory {stats['bytes_limit'] / 2**30:.1f} GiB", ""
  if backend != "cpu":
    return
  if multihost.count_gpus(os.environ) and os.environ.get("JAX_PLATFORMS", "cuda") != "cpu":
    yield "NVIDIA GPU", f"is there, and JAX doesn't use it: {platform_errors.why_not('cuda')}"
  if multihost.has_tpu() and os.environ.get("JAX_PLATFORMS", "") != "cpu":
    yield "TPU", f"is there, and JAX doesn't use it: {platform_errors.why_not('tpu')}"


def check_others() -> Iterator[Finding]:
  """Says which processes a training would connect with."""
  try:
    job = multihost.find_job(
      "auto",
      os.environ,
      on_tpu=multihost.has_tpu(),
      num_gpus=multihost.count_gpus(os.environ),
    )
  except ValueError as error:
    yield "processes of a training", str(error)
    return
  if job is None:
    found = "this one alone"
  elif job.count is None:
    found = "those that JAX finds"
  else:
    found = f"this is number {job.index} of {job.count}"
  yield f"processes of a training: {found}", ""


def check_decoders() -> Iterator[Finding]:
  """Checks JPEG by a round trip, and videos by what FFmpeg was built with."""
  import av
  import numpy as np
  import simplejpeg

  pixels = np.full((16, 16, 3), 128, np.uint8)
  decoded = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(pixels))
  good = abs(decoded.astype(int) - 128).max() <= 2
  yield "JPEG decoder", "" if good else "returns other pixels than went in"
  missing = ", ".join(name for name in _VIDEO_DECODERS if name not in av.codecs_available)
  advice = "missing; pip install --force-reinstall av, whose wheels bring them"
  yield f"video decoders of PyAV {av.__version__}", f"{missing} {advice}" if missing else ""


def check_machine(workdir: epath.Path) -> Iterator[Finding]:
  """Examines processor, memory, open files and disk."""
  yield f"{platform.platform()}, {processes.cores()} core(s)", ""
  yield f"memory {processes.memory_bytes() / 2**30:.1f} GiB", ""
  soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  few = 0 <= soft < _OPEN_FILES
  problem = f"may be too few for many shards; ulimit -n {4 * _OPEN_FILES}" if few else ""
  yield f"open files allowed: {soft}", problem
  policy = epath.Path("/sys/kernel/mm/transparent_hugepage/enabled")
  if policy.is_file():
    yield f"transparent huge pages: {storage.read_text(policy).strip()}", ""
  place = addresses.absolute(workdir)
  if not addresses.is_remote(place):
    place = next(p for p in (place, *place.parents) if p.exists())
  free = storage.free_bytes(place)
  if free is not None:
    problem = "" if free >= _DISK_GIB * 2**30 else "is little: checkpoints are kept there"
    yield f"{free / 2**30:.1f} GiB free at {place}", problem
  problem = ""
  try:
    storage.check_writable(place)
  except OSError as error:
    problem = f"can't be written to ({error.strerror}); give another --workdir"
  yield f"folder {place}", problem


def environment() -> Iterator[Finding]:
  """Lists variables that change what the libraries do."""
  for name, value in sorted(os.environ.items()):
    if name.startswith(_VARIABLES):
      yield f"{name}={value}", ""


def check_input(options: argparse.Namespace) -> Iterator[Finding]:
  """Measures how fast data sets are read, and compares that with a step."""
  from sum_l_jax.tools.doctor import reading_rate

  need = reading_rate.read_need(options.step) if options.step else None
  for text in options.data:
    yield from reading_rate.check(text, need, hosts=options.hosts, seconds=options.seconds)


def examine(
  workdir: epath.Path, options: argparse.Namespace | None = None
) -> Iterator[tuple[str, list[Finding]]]:
  """Yields all findings by subject; a check that fails is a finding itself.

  Args:
    workdir: folder where runs will be.
    options: options of the command, for what is only measured when asked for.
  """
  subjects: dict[str, Callable[[], Iterator[Finding]]] = {
    "libraries": check_libraries,
    "devices": check_devices,
    "processes": check_others,
    "decoders": check_decoders,
    "machine": lambda: check_machine(workdir),
    "environment": environment,
  }
  if options and options.data:
    subjects["input"] = lambda: check_input(options)
  for subject, check in subjects.items():
    findings: list[Finding] = []
    try:
      findings.extend(check())
    # Whatever a broken installation raises, the rest is still wanted.
    except Exception as error:
      text = platform_errors.advice(error) or f"{type(error).__name__}: {error}"
      findings.append((subject, text))
    yield subject, findings


def _run(options: argparse.Namespace) -> int:
  problems = 0
  for subject, findings in examine(options.workdir, options):
    print(subject)
    for what, problem in findings:
      print(f"  {what}" + (f"  <- PROBLEM: {problem}" if problem else ""))
      problems += bool(problem)
  print(f"{problems} problem(s)" if problems else "no problem found")
  return 1 if problems else 0


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = command_line.make_parser(__package__, __doc__)
  workdir_help = "folder where runs will be (default: here)"
  parser.add_argument("--workdir", type=epath.Path, default=".", help=workdir_help)
  add = parser.add_argument
  add("--data", nargs="+", default=(), metavar="DIR[:SPLIT]", help="data sets to read from")
  step_help = "what `aot --output` or `profile_input --step --json` wrote"
  add("--step", type=epath.Path, metavar="FILE.json", help=step_help)
  add("--hosts", type=int, default=1, help="processes that share a step's clips (default: 1)")
  add("--seconds", type=float, default=5.0, help="length of each measurement (default: 5)")
  return command_line.run(parser, _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
