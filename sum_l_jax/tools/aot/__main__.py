r"""Compiles a config's train step for TPUs that need not be there, and says
what it takes: memory, arithmetic, traffic, time, exchanges between chips.

  python -m sum_l_jax.tools.aot --config=configs/epic55.py:backbone=slowfast_r50 \
      --topology=v5e:4x8 --batch_per_chip=8 --config.precision=bfloat16
  python -m sum_l_jax.tools.aot --config=configs/epic55.py --topology=v5e:2x4 \
      --batch_per_chip=8 --compare.precision=bfloat16

It is the step that training runs, from the same functions; data sets and
starting weights are not read. Nothing is run: every time is an estimate
(docs/aot.md). Needs libtpu, `pip install -e '.[tpu]'`. Exit status 1 where a
program does not fit the chip's memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import shlex
import sys
from typing import Any

from sum_l_jax.config.schema import Settings
from sum_l_jax.system import command_line

# jax and what stands on it are imported once the options are read.

# No TPU is looked for, by JAX or by libtpu, and two commands may run at once.
# Libtpu asks the machine which TPU it is, and logs that there is none.
_ENVIRONMENT = {
  "JAX_PLATFORMS": "cpu",
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-8",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_MIN_LOG_LEVEL": "3",
  "TPU_STDERR_LOG_LEVEL": "3",
}
_FIELDS, _COMPARED = "--config.", "--compare."


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(
    "sum_l_jax.tools.aot",
    __doc__,
    allow_abbrev=False,
    epilog="Fields of the config are set by --config.x=y; those of a second"
    " one beside it, which has the first one's otherwise, by --compare.x=y.",
  )
  add = parser.add_argument
  add("--config", required=True, metavar="FILE[:ARGUMENTS]", help="as for sum_l_jax.main")
  add(
    "--topology",
    default="v5e:2x4",
    help="chip and sides of the slice, such as v5e:4x8, v4:2x2x2, v6e:1x1;"
    " cpu:1 compiles for this machine (default: v5e:2x4)",
  )
  add(
    "--batch_per_chip",
    type=int,
    default=0,
    metavar="N",
    help="clips of each view (default: the config's batch, shared out)",
  )
  add("--stage", default="", choices=("", "exo", "joint"), help="default: the config's last")
  add(
    "--compare",
    default="",
    metavar="FILE[:ARGUMENTS]",
    help="another config file for the second column",
  )
  for view in ("ego", "exo"):
    add(
      f"--{view}_classes",
      default="",
      metavar="TASK:K[,...]",
      help="of a data set that isn't known: verb:125,noun:352, or"
      " action:157:multi where a clip has several classes",
    )
  add("--embedding_dim", type=int, default=384, help="of the narrations (default: 384)")
  add("--clips", type=int, default=0, help="of an epoch (default: what is known of the data set)")
  add("--json", action="store_true", help="print JSON")
  add("--output", type=pathlib.Path, metavar="FILE", help="write the JSON there as well")
  add("--hlo", type=pathlib.Path, metavar="FILE", help="write the compiled program's text there")
  return parser


def set_environment() -> None:
  """Before libtpu is loaded; what is set already stays."""
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)


def _split(fields: Sequence[str]) -> tuple[list[str], list[str]]:
  """Fields of the first config, and those of the second alone."""
  first = [f for f in fields if f.startswith(_FIELDS)]
  second = [_FIELDS + f.removeprefix(_COMPARED) for f in fields if f.startswith(_COMPARED)]
  return first, second


def _read(args: argparse.Namespace, path: str, overrides: Sequence[str]) -> tuple[Settings, str]:
  """Settings with the batch that was asked for, and its stage."""
  from sum_l_jax import build
  from sum_l_jax.tools.aot import topologies

  settings = build.read_settings(path, overrides)
  stage = args.stage or settings.stages[-1]
  if args.batch_per_chip:
    mesh, _ = topologies.make_mesh(args.topology)
    size = args.batch_per_chip * mesh.size
    # Before the user's own, and checked with them.
    settings = build.read_settings(path, [f"--config.{stage}_stage.batch_size={size}", *overrides])
  return settings, stage


def _check(args: argparse.Namespace) -> None:
  for name, least in (("batch_per_chip", 0), ("embedding_dim", 1), ("clips", 0)):
    if getattr(args, name) < least:
      raise ValueError(f"--{name} must be {least} or more, got {getattr(args, name)}.")
  for path in filter(None, (args.output, args.hlo)):
    if not path.absolute().parent.is_dir():
      raise ValueError(f"There is no folder {str(path.parent)!r} to write {path.name!r} to.")


def run(args: argparse.Namespace, fields: Sequence[str]) -> list[dict[str, Any]]:
  """Compiles one config, or two, and sums each up."""
  first, second = _split(fields)
  _check(args)
  from sum_l_jax.tools.aot import compiler
  from sum_l_jax.tools.aot import program_report

  wanted = [(args.config, first)]
  if args.compare or second:
    wanted.append((args.compare or args.config, [*first, *second]))
  # All are read before the first is compiled, which takes minutes.
  configs = [_read(args, path, overrides) for path, overrides in wanted]
  summaries = []
  for number, (path, overrides) in enumerate(wanted):
    compiled = compiler.compile_step(
      *configs[number],
      args.topology,
      classes={"ego": args.ego_classes, "exo": args.exo_classes},
      embedding_dim=args.embedding_dim,
      clips=args.clips,
    )
    summaries.append(
      {"config": path, "overrides": list(overrides), **program_report.summarize(compiled)}
    )
    if args.hlo and not number:
      args.hlo.write_text(compiled.text, encoding="utf-8")
  return summaries


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  arguments = list(sys.argv[1:] if argv is None else argv)
  fits = True

  def command(args: argparse.Namespace, fields: Sequence[str]) -> str:
    nonlocal fits
    set_environment()
    from sum_l_jax.tools.aot import program_report

    summaries = run(args, fields)
    fits = all(summary["fits"] for summary in summaries)
    text = json.dumps(
      {
        "command": shlex.join(["python", "-m", "sum_l_jax.tools.aot", *arguments]),
        "programs": summaries,
      },
      indent=1,
    )
    if args.output:
      args.output.write_text(text + "\n", encoding="utf-8")
    return text if args.json else program_report.format_report(summaries)

  status = command_line.run_with_fields(_parser(), command, arguments, (_FIELDS, _COMPARED))
  return status or int(not fits)


if __name__ == "__main__":
  sys.exit(main())
