"""Looks the installation over; the output belongs into a bug report.

  python -m sum_l_jax.tools.doctor [--workdir=runs/x]

Versions, devices, decoders, memory and disk, and what is wrong with them. Exit
status 1 where something is. (`python -m data_prep.doctor` looks at data sets.)
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import glob
import importlib.metadata
import os
import pathlib
import platform
import resource
import shutil
import sys
import tempfile

from packaging import requirements

from sum_l_jax.system import command_line
from sum_l_jax.system import multihost

_PACKAGE = "sum_l_jax"
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
  "OMPI_COMM_",
  "GLIBC_TUNABLES",
  "LD_PRELOAD",
)
_VIDEO_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
_DISK_GIB = 5.0
_OPEN_FILES = 1024

# A finding: what, and what is wrong with it, "" where nothing is.
Finding = tuple[str, str]


def check_libraries() -> Iterator[Finding]:
  """Each library this package declares, against the versions it allows."""
  yield f"python {platform.python_version()} ({sys.executable})", ""
  try:
    declared = importlib.metadata.requires(_PACKAGE) or ()
    own = importlib.metadata.version(_PACKAGE)
  except importlib.metadata.PackageNotFoundError:
    yield _PACKAGE, ("is not installed; in the project's folder: pip install -e .")
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
    yield (
      f"{requirement.name} {version}",
      "" if fits else (f"is outside of the tested range {requirement.specifier}"),
    )


def check_devices() -> Iterator[Finding]:
  """What JAX computes on, and accelerators that it doesn't see."""
  import jax

  devices = jax.devices()
  kinds = sorted({device.device_kind for device in devices})
  platform_name = devices[0].platform
  yield (
    (
      f"{len(devices)} device(s) of {platform_name}: {', '.join(kinds)};"
      f" {jax.process_count()} process(es)"
    ),
    "",
  )
  for device in devices[:1]:
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
      yield f"device memory {stats['bytes_limit'] / 2**30:.1f} GiB", ""
  if platform_name == "cpu":
    if multihost.count_gpus(os.environ) and os.environ.get("JAX_PLATFORMS", "cuda") != "cpu":
      yield (
        "NVIDIA GPU",
        (
          "is there, and JAX doesn't use it; pip install -e '.[gpu]', and look"
          " at what nvidia-smi says"
        ),
      )
    if multihost.has_tpu() and os.environ.get("JAX_PLATFORMS", "") != "cpu":
      yield "TPU", "is there, and JAX doesn't use it; pip install -e '.[tpu]'"


def check_decoders() -> Iterator[Finding]:
  """JPEG by a round trip, videos by what FFmpeg was built with."""
  import av
  import numpy as np
  import simplejpeg

  pixels = np.full((16, 16, 3), 128, np.uint8)
  decoded = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(pixels))
  good = abs(decoded.astype(int) - 128).max() <= 2
  yield "JPEG decoder", "" if good else "gives other pixels than went in"
  missing = [name for name in _VIDEO_DECODERS if name not in av.codecs_available]
  yield (
    f"video decoders of PyAV {av.__version__}",
    (
      f"{', '.join(missing)} missing; pip install --force-reinstall av, whose wheels bring them"
      if missing
      else ""
    ),
  )


def check_machine(workdir: pathlib.Path) -> Iterator[Finding]:
  """Processor, memory, open files, disk."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  yield f"{platform.platform()}, {cores} core(s)", ""
  pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
  yield f"memory {pages:.1f} GiB", ""
  soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  few = 0 <= soft < _OPEN_FILES
  yield (
    f"open files allowed: {soft}",
    (f"may be too few for many shards; ulimit -n {4 * _OPEN_FILES}" if few else ""),
  )
  policy = glob.glob("/sys/kernel/mm/transparent_hugepage/enabled")
  if policy:
    text = pathlib.Path(policy[0]).read_text(encoding="ascii").strip()
    yield f"transparent huge pages: {text}", ""
  workdir = workdir.absolute()
  place = next(p for p in (workdir, *workdir.parents) if p.exists())
  free = shutil.disk_usage(place).free / 2**30
  yield (
    f"{free:.1f} GiB free at {place}",
    ("" if free >= _DISK_GIB else "is little: checkpoints are kept there"),
  )
  try:
    with tempfile.TemporaryFile(dir=place):
      problem = ""
  except OSError as error:
    problem = f"can't be written to ({error.strerror}); give another --workdir"
  yield f"folder {place}", problem


def environment() -> Iterator[Finding]:
  """Variables that change what the libraries do."""
  for name, value in sorted(os.environ.items()):
    if name.startswith(_VARIABLES):
      yield f"{name}={value}", ""


def look(workdir: pathlib.Path) -> list[tuple[str, list[Finding]]]:
  """All findings by subject; a check that fails is a finding itself."""
  subjects: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
    ("libraries", check_libraries),
    ("devices", check_devices),
    ("decoders", check_decoders),
    ("machine", lambda: check_machine(workdir)),
    ("environment", environment),
  ]
  out = []
  for subject, check in subjects:
    findings: list[Finding] = []
    try:
      findings.extend(check())
    # Whatever a broken installation raises, the rest is still wanted.
    except Exception as error:
      findings.append((subject, f"{type(error).__name__}: {error}"))
    out.append((subject, findings))
  return out


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = command_line.make_parser(__package__, __doc__)
  parser.add_argument(
    "--workdir",
    type=pathlib.Path,
    default=pathlib.Path(),
    help="where runs are to go (default: here)",
  )
  args = parser.parse_args(argv)
  problems = 0
  for subject, findings in look(args.workdir):
    print(subject)
    for what, problem in findings:
      print(f"  {what}" + (f"  <- PROBLEM: {problem}" if problem else ""))
      problems += bool(problem)
  print(f"{problems} problem(s)" if problems else "no problem found")
  return 1 if problems else 0


if __name__ == "__main__":
  sys.exit(main())
