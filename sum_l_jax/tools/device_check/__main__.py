r"""Checks and measures one GPU or TPU, with clips that are made in memory.

  python -m sum_l_jax device_check --output=device_check.json
  python -m sum_l_jax device_check --miniature --output=try.json

Compares loss and gradients with the processor's, times the training step of
each backbone in bfloat16 and float32 (also against PyTorch where it is
installed), compares memory with the compiler's plan, and tries each way of
computing a convolution. The most useful parts come first, and --minutes is the
time for all; the JSON names what was left out and why. It needs the package and
a JAX that sees the chip, and nothing that reads data. --miniature tries the
command on any machine. The exit status is 1 where a part failed or the chip's
numbers differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import shlex
import sys
import time

from etils import epath

from sum_l_jax.system import command_line
from sum_l_jax.tools.device_check import check_parts
from sum_l_jax.tools.device_check import check_report
from sum_l_jax.tools.device_check import part_process

# jax is imported by the processes of the parts alone: they have the chip one
# after the other.


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  add = parser.add_argument
  add("--minutes", type=float, default=8.0, help="time for all parts together (default: 8)")
  backbones_help = "backbones, the first of which matters most (default: {})"
  backbones = ",".join(check_parts.BACKBONES)
  add("--backbones", default="", metavar="NAME[,...]", help=backbones_help.format(backbones))
  batch_help = "clips of each view in a step (default: by the chip's memory)"
  add("--batch", type=int, default=0, metavar="N", help=batch_help)
  add("--miniature", action="store_true", help="tiny sizes, to try the command anywhere")
  add("--output", type=epath.Path, metavar="FILE", help="write the JSON here, part by part")
  part_help = "run this part alone, in this process, and print its JSON"
  add("--part", default="", metavar="NAME", help=part_help)
  return parser


def _sizes(options: argparse.Namespace) -> check_parts.Sizes:
  if not options.minutes > 0 or options.batch < 0:
    raise ValueError(
      "--minutes must be more than 0 and --batch 0 or more, got"
      f" {options.minutes} and {options.batch}."
    )
  return check_parts.Sizes(miniature=options.miniature, batch=options.batch)


def _backbones(options: argparse.Namespace) -> list[str]:
  names = command_line.names(options.backbones)
  if names:  # This imports jax, and starts no device.
    from sum_l_jax.models import backbones

    for name in names:
      if backbones.find(name).spec is None:
        raise ValueError(
          f"--backbones: the checks compare convolutional networks of this library with PyTorch's,"
          f" and {name!r} is none."
        )
  if len(set(names)) < len(names):
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"--backbones={options.backbones} names {twice} twice.")
  return names


def _run(options: argparse.Namespace, given: Sequence[str]) -> int:
  sizes = _sizes(options)
  parts = check_parts.plan(_backbones(options), sizes)
  if options.part:
    if options.part not in parts:
      raise ValueError(f"--part must be one of {', '.join(parts)}; got {options.part!r}.")
    from sum_l_jax.tools.device_check import part_work

    for found in part_work.run(parts[options.part], sizes):
      print(json.dumps(found), flush=True)
    return 0
  if options.output:
    command_line.check_output(options.output, suffixes=(".json",))
  start = time.monotonic()
  record = check_report.Record(
    command=shlex.join(["python", "-m", "sum_l_jax", "device_check", *given]),
    budget_seconds=60 * options.minutes,
  )
  passed_on = [f"--backbones={options.backbones}", f"--batch={options.batch}"]
  passed_on += ["--miniature"] * options.miniature
  for part in parts.values():
    left = record.budget_seconds - (time.monotonic() - start)
    outcome = part_process.run(part, passed_on, found=record.found, left=left)
    record.add(part, outcome, seconds=time.monotonic() - start)
    print(check_report.line(part, outcome), flush=True)
    if options.output:
      record.write(options.output)
    if part.name == check_parts.DEVICE:
      check_report.refuse_a_processor(outcome, miniature=options.miniature)
  print("\n" + check_report.tables(record.to_json()))
  return record.status


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  given = list(sys.argv[1:] if arguments is None else arguments)
  return command_line.run(_parser(), lambda options: _run(options, given), given)


if __name__ == "__main__":
  sys.exit(main())
