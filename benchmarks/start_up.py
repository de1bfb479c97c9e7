"""How long a command takes until it does something.

  python -m benchmarks.start_up --output=benchmarks/results/start_up.json

It times the first training step of `configs/demo.py` as a process of its own, with
an empty compilation cache and then with what that left there, for the same seed and
for others, and `--help` of the commands. With `--bucket` it times the first step as a
pod that was replaced begins: with workdir and cache
(`config.storage.compilation_cache`) on a disk and in a bucket, which a server on
loopback keeps. The data are rendered first where they are absent, untimed. The first
step is seen by its line in the log.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from etils import epath

from benchmarks import measure
from sum_l_jax.system import command_line
from tests.support import storage_server

_CONFIG = "configs/demo.py"
_COMMANDS = (
  "sum_l_jax.main",
  "sum_l_jax.tools.predict",
  "sum_l_jax.tools.embed",
  "sum_l_jax.tools.retrieve",
  "sum_l_jax.tools.compare",
  "sum_l_jax.tools.report",
  "sum_l_jax.tools.export",
  "sum_l_jax.tools.submit",
  "sum_l_jax.tools.doctor",
  "sum_l_jax.tools.profile_input",
  "sum_l_jax.tools.study",
  "sum_l_jax.tools.status",
  "sum_l_jax.tools.visualize",
  "data_prep.build_dataset",
  "data_prep.embed_narrations",
  "data_prep.mine_pairs",
  "data_prep.doctor",
  "data_prep.init_manifest",
  "data_prep.convert_weights",
  "data_prep.similarity_report",
)


def _timed(
  arguments: Sequence[str], until: str = "", variables: Mapping[str, str] | None = None
) -> dict[str, float]:
  """Runs a Python process to its end, or until its log has a text.

  Args:
    arguments: arguments of Python.
    until: the text.
    variables: further variables of the environment.

  Returns:
    Seconds by the clock, and of processor time where it ran to its end.
  """
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  start = time.perf_counter()
  process = subprocess.Popen(
    [sys.executable, *arguments],
    # A cache that is named in the environment may be warm from the start.
    env={k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    | dict(variables or {}),
    text=True,
    stdout=subprocess.DEVNULL if until else subprocess.PIPE,
    stderr=subprocess.PIPE if until else subprocess.STDOUT,
  )
  lines, seconds = [], 0.0
  for line in process.stderr if until else process.stdout:
    lines.append(line)
    if until and until in line and not seconds:
      seconds = time.perf_counter() - start
  status = process.wait()
  seconds = seconds or time.perf_counter() - start
  # absl ends --help with 1.
  failed = status and "--help" not in arguments
  if failed or (until and not any(until in line for line in lines)):
    raise ValueError(
      f"python {' '.join(arguments)} ended with status {status}:\n" + "".join(lines[-20:])
    )
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  return {
    "wall": seconds,
    "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
  }


def first_step(
  workdir: str, cache: str, variables: Mapping[str, str] | None = None, *, seed: int = 0
) -> dict[str, float]:
  """One step of the demo's first stage, in a workdir of its own.

  Args:
    workdir: folder or address.
    cache: folder or address of the compiled programs.
    variables: further variables of the environment.
    seed: seed of the run; the data are the same.
  """
  # Without an evaluation and a report, which come after the first step.
  return _timed(
    [
      "-m",
      "sum_l_jax.main",
      f"--config={_CONFIG}",
      f"--workdir={workdir}",
      f"--config.seed={seed}",
      "--config.stop_at=exo:1",
      "--config.log_every_steps=1",
      "--config.eval.during_split=",
      "--config.report=false",
      f"--config.storage.compilation_cache={cache}",
    ],
    until="exo 1/",
    variables=variables,
  )


def _prepare() -> None:
  """Renders the demo's data where they are absent."""
  from data_prep.toy_kitchen import recipes
  from sum_l_jax import build

  config = build.read_settings(_CONFIG, ())
  recipes.prepare(
    config.prepare.recipe, epath.Path(config.prepare.directory), seed=config.prepare.seed
  )


def measure_start(rounds: int) -> dict[str, Any]:
  """First steps with a cold cache, and with a warm one for the same and for other seeds."""
  with tempfile.TemporaryDirectory() as name:
    workdir, cache = pathlib.Path(name) / "run", pathlib.Path(name) / "xla_cache"
    cold = first_step(str(workdir), str(cache))
    entries = sum(1 for p in cache.rglob("*") if p.is_file())
    if not entries:
      raise ValueError(f"Nothing was written to the cache in {cache.name}.")
    warm, other = [], []
    for number in range(rounds):
      for times, seed in ((warm, 0), (other, 1 + number)):
        shutil.rmtree(workdir)  # It begins at step 0.
        times.append(first_step(str(workdir), str(cache), seed=seed))
  return {"cold": cold, "warm": warm, "warm_of_other_seeds": other, "cache_entries": entries}


def measure_bucket(rounds: int) -> dict[str, list[dict[str, float]]]:
  """First steps on a disk and in a bucket, each with a cold and a warm cache, in turn.

  A server on loopback keeps the bucket. Every start has a new workdir, as on a machine
  that was replaced.
  """
  server = storage_server.StorageServer()
  found: dict[str, list[dict[str, float]]] = {}
  try:
    server.make_bucket("start-up")
    with tempfile.TemporaryDirectory() as folder:
      for number in range(rounds):
        for place, root in (("disk", folder), ("bucket", "gs://start-up")):
          for kind in ("cold", "warm"):
            times = first_step(
              f"{root}/{number}_{kind}", f"{root}/cache_{number}", server.environment()
            )
            found.setdefault(f"{place}, {kind}", []).append(times)
  finally:
    server.stop()
  return found


def _bucket(args: argparse.Namespace, argv: Sequence[str] | None) -> str:
  found = measure_bucket(1 if args.quick else 3)
  if args.output:
    measure.write(args.output, measure.command("start_up", argv), {"first_step": found})
  spreads = {name: measure.spread([t["wall"] for t in times]) for name, times in found.items()}
  return "\n".join(
    f"{name}: {s['median']:.1f} s ({s['low']:.1f} to {s['high']:.1f})"
    for name, s in spreads.items()
  )


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("start_up", __doc__)
  bucket_help = "the first step alone, on a disk and in a bucket on loopback"
  parser.add_argument("--bucket", action="store_true", help=bucket_help)

  def run(args: argparse.Namespace) -> str:
    _prepare()
    if args.bucket:
      return _bucket(args, argv)
    start = measure_start(1 if args.quick else 3)
    help_times = {
      command: [_timed(["-m", command, "--help"]) for _ in range(1 if args.quick else 3)]
      for command in (_COMMANDS[:3] if args.quick else _COMMANDS)
    }
    if args.output:
      measure.write(
        args.output, measure.command("start_up", argv), {"first_step": start, "help": help_times}
      )
    wall, processor = (
      measure.spread([t[clock] for t in start["warm"]]) for clock in ("wall", "processor")
    )
    other = measure.spread([t["wall"] for t in start["warm_of_other_seeds"]])
    least = {c: min(t["wall"] for t in ts) for c, ts in help_times.items()}
    slowest = max(least, key=least.__getitem__)
    return (
      f"first step: {start['cold']['wall']:.1f} s cold, {wall['median']:.1f}"
      f" s warm ({wall['low']:.1f} to {wall['high']:.1f};"
      f" {processor['median']:.1f} s of processor time to the end of the"
      f" run)\nother seeds, with that cache: {other['median']:.1f} s ({other['low']:.1f} to"
      f" {other['high']:.1f})\nslowest --help: {least[slowest]:.2f} s ({slowest})"
    )

  return command_line.run(parser, run, argv)


if __name__ == "__main__":
  sys.exit(main())
