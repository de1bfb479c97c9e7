r"""Compiles a config's train step for TPUs that need not be there.

  python -m sum_l_jax.tools.aot --config=configs/epic55.py:backbone=slowfast_r50 \
      --topology=v5e:4x8 --batch_per_chip=8 --config.precision=bfloat16
  python -m sum_l_jax.tools.aot --config=configs/epic55.py --topology=v5e:2x4 \
      --batch_per_chip=8 --compare.precision=bfloat16

Says what the step takes: memory, arithmetic, traffic, time, exchanges between
chips. It is the step that training runs, from the same functions; data sets and
starting weights are not read. Nothing is run: every time is an estimate
(docs/aot.md). Needs libtpu, `pip install -e '.[tpu]'`. The exit status is 1
where a program does not fit the chip's memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import os
import shlex
import sys
from typing import Any

from etils import epath

from sum_l_jax.config.schema import Settings
from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.tools import shared_options

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
_EPILOG = (
  "Fields of the config are set by --config.x=y; those of a second one beside it, which shares the"
  " first one's otherwise, by --compare.x=y."
)


def _parser() -> argparse.ArgumentParser:
  parser = shared_options.make_config_parser(__package__, __doc__, _EPILOG)
  add = parser.add_argument
  topology_help = (
    "chip and sides of the slice, such as v5e:4x8, v4:2x2x2, v6e:1x1;"
    " cpu:1 compiles for this machine (default: v5e:2x4)"
  )
  add("--topology", default="v5e:2x4", help=topology_help)
  batch_help = "clips of each view per chip (default: the config's batch, shared out)"
  add("--batch_per_chip", type=int, default=0, metavar="N", help=batch_help)
  shared_options.add_stage(parser)
  compare_help = "another config file for the second column"
  add("--compare", default="", metavar="FILE[:ARGUMENTS]", help=compare_help)
  classes_help = (
    "classes of a data set that isn't known: verb:125,noun:352, or action:157:multi where a clip"
    " has several classes"
  )
  for view in ("ego", "exo"):
    add(f"--{view}_classes", default="", metavar="TASK:K[,...]", help=classes_help)
  dim_help = "width of the narrations' vectors (default: 384)"
  add("--embedding_dim", type=int, default=384, help=dim_help)
  clips_help = "clips of an epoch (default: what is known of the data set)"
  add("--clips", type=int, default=0, help=clips_help)
  add("--json", action="store_true", help="print JSON")
  add("--output", type=epath.Path, metavar="FILE", help="write the JSON there as well")
  add("--hlo", type=epath.Path, metavar="FILE", help="write the compiled program's text there")
  return parser


def set_environment() -> None:
  """Sets what libtpu reads when it is loaded; what is set already stays."""
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)


def _read(options: argparse.Namespace, path: str, overrides: Sequence[str]) -> tuple[Settings, str]:
  """Reads settings with the batch that was asked for, and their stage."""
  from sum_l_jax import build
  from sum_l_jax.config import read
  from sum_l_jax.tools.aot import topologies

  # The file's own batch may not go with the user's fields.
  stage = options.stage or read.flatten(read.read_file(path, overrides))["stages"][-1]
  batch = []
  if options.batch_per_chip:
    mesh, _ = topologies.make_mesh(options.topology)
    batch = [f"--config.{stage}_stage.batch_size={options.batch_per_chip * mesh.size}"]
  # Before the user's own, and checked with them.
  return build.read_settings(path, [*batch, *overrides]), stage


def _check(options: argparse.Namespace) -> None:
  for name, least in (("batch_per_chip", 0), ("embedding_dim", 1), ("clips", 0)):
    if getattr(options, name) < least:
      raise ValueError(f"--{name} must be {least} or more, got {getattr(options, name)}.")
  for name in ("output", "hlo"):
    path = getattr(options, name)
    if path:
      command_line.check_output(path, option=f"--{name}")


def _compile(options: argparse.Namespace, fields: Sequence[str]) -> list[dict[str, Any]]:
  """Compiles one config, or two, and sums each up."""
  _check(options)
  from sum_l_jax.tools.aot import compiler
  from sum_l_jax.tools.aot import program_report

  first = [field for field in fields if field.startswith(_FIELDS)]
  second = [_FIELDS + f.removeprefix(_COMPARED) for f in fields if f.startswith(_COMPARED)]
  wanted = [(options.config, first)]
  if options.compare or second:
    wanted.append((options.compare or options.config, [*first, *second]))
  # All are read before the first is compiled, which takes minutes.
  read = [_read(options, path, overrides) for path, overrides in wanted]
  summaries = []
  for (path, overrides), (settings, stage) in zip(wanted, read):
    compiled = compiler.compile_step(
      settings,
      stage,
      options.topology,
      classes={"ego": options.ego_classes, "exo": options.exo_classes},
      embedding_dim=options.embedding_dim,
      clips=options.clips,
    )
    summary = program_report.summarize(compiled)
    if options.hlo and not summaries:
      storage.write_text(options.hlo, compiled.text)
    summaries.append({"config": path, "overrides": list(overrides), **summary})
  return summaries


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  given = list(sys.argv[1:] if arguments is None else arguments)

  def command(options: argparse.Namespace, fields: Sequence[str]) -> int:
    set_environment()
    summaries = _compile(options, fields)
    from sum_l_jax.tools.aot import program_report

    line = shlex.join(["python", "-m", "sum_l_jax.tools.aot", *given])
    text = json.dumps({"command": line, "programs": summaries}, indent=1)
    if options.output:
      storage.write_text(options.output, text + "\n")
    print(text if options.json else program_report.format_report(summaries))
    return int(not all(summary["fits"] for summary in summaries))

  return command_line.run_with_fields(_parser(), command, given, (_FIELDS, _COMPARED))


if __name__ == "__main__":
  sys.exit(main())
