"""Says how a training goes on, for people and for probes.

  python -m sum_l_jax status gs://bucket/run
  python -m sum_l_jax status gs://bucket/run --max_age=900 --json

Reads WORKDIR/status.json, which the training writes every ten seconds, and imports
neither JAX nor the data. The exit status:

  0   it goes on, or has finished
  2   there is no training that can be read
  3   it is silent: nothing was written for --max_age seconds
  4   it is alive, but took no step, or evaluated no batch, for --max_age seconds
  5   it has ended with an error
  75  it has stopped as asked; the same command goes on

Compiling and reading a checkpoint count as no step: --max_age must be longer. Ages are
taken by the clock of this machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import json
import sys
import time

from sum_l_jax.experiment import goodput
from sum_l_jax.experiment import run_status
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import processes
from sum_l_jax.system import progress
from sum_l_jax.system import run_files
from sum_l_jax.system import storage

ALIVE, SILENT, STUCK, FAILED = 0, 3, 4, 5
_WORDS = {
  ALIVE: "goes on",
  SILENT: "is silent",
  STUCK: "takes no steps",
  FAILED: "has ended with an error",
  processes.STOPPED: "has stopped as asked; the same command goes on",
}


def judge(status: run_status.Status, *, now: float, max_age: float) -> int:
  """The exit status.

  Args:
    status: what the training wrote.
    now: the present moment, seconds since 1970.
    max_age: seconds after which it counts as silent or stuck.
  """
  ended = {
    run_status.FINISHED: ALIVE,
    run_status.STOPPED: processes.STOPPED,
    run_status.FAILED: FAILED,
  }
  if status.state in ended:
    return ended[status.state]
  if now - status.time > max_age:
    return SILENT
  return STUCK if now - status.advanced > max_age else ALIVE


def describe(status: run_status.Status, verdict: int, *, now: float) -> str:
  """The lines for people."""
  ago = lambda moment: f"{progress.duration(max(0.0, now - moment))} ago"
  words = "has finished" if status.state == run_status.FINISHED else _WORDS[verdict]
  where = (
    f"{status.stage} {status.step}/{status.steps}" if status.stage else "before the first step"
  )
  lines = [
    f"The training {words}: {where}, {status.clips_per_second:.1f} clips/s",
    f"written {ago(status.time)}, advanced {ago(status.advanced)}, doing: {status.doing}",
    f"on {status.hosts} process(es), the first on {status.host}; devices: {status.devices}",
    f"last checkpoint: {status.saved_stage} {status.saved_step}"
    if status.saved_stage
    else "no checkpoint yet",
  ]
  if status.error:
    lines.append(f"last error, {ago(status.error_time)}: {status.error}")
  starts = "start" if status.starts == 1 else "starts"
  return "\n".join([*lines, f"\n{status.starts} {starts}\n{goodput.table(status.seconds)}"])


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  add = parser.add_argument
  command_line.add_workdir(parser, "workdir of a training")
  age_help = "seconds without a sign or a step after which something is wrong (600)"
  add("--max_age", type=float, default=600.0, metavar="SECONDS", help=age_help)
  add("--json", action="store_true", help="print the file, with the verdict")
  return parser


def _run(options: argparse.Namespace) -> int:
  if not options.max_age > 0:
    raise ValueError(f"--max_age must be more than 0, got {options.max_age}.")
  workdir = addresses.path(options.workdir, what="WORKDIR")
  if not storage.is_file(workdir / run_files.STATUS):
    raise ValueError(
      f"There is no {run_files.STATUS} in {str(workdir)!r}: no training has begun there. Give the"
      " --workdir of one."
    )
  status, now = run_status.read(workdir), time.time()
  verdict = judge(status, now=now, max_age=options.max_age)
  if options.json:
    content = {"exit_status": verdict, **dataclasses.asdict(status)}
    sys.stdout.write(json.dumps(content, indent=1) + "\n")
  else:
    sys.stdout.write(describe(status, verdict, now=now) + "\n")
  return verdict


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
