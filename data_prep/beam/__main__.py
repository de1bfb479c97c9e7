r"""Does a command's work in parts, as a pipeline of Apache Beam, and puts them together.

  # tried on one machine, with four worker processes
  python -m data_prep.beam --parts=8 --runner=DirectRunner \
      --options="--direct_running_mode=multi_processing --direct_num_workers=4" \
      build_dataset --dataset=manifest --view=exo --processes=1 \
      --annotations=videos/manifest.csv --output=data/exo

  # on Dataflow; what it reads and writes lies in a bucket
  python -m data_prep.beam --parts=400 --runner=DataflowRunner \
      --options="--project=P --region=R --temp_location=gs://B/tmp --sdk_container_image=I" \
      embed_narrations --datasets=gs://B/exo --output=gs://B/narrations.npz

Each element of the pipeline is one part (--part=3/40 of the command, which says what
a part is), so take more parts than workers: a slow part then holds up only itself.
Workers need this package and see the same paths. Parts that are there already are
kept, so that the same command goes on after a failure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import shlex
import sys

from sum_l_jax.system import command_line

COMMANDS = {
  "build_dataset": "data_prep.build_dataset",
  "embed_narrations": "data_prep.embed_narrations",
  "mine_pairs": "data_prep.mine_pairs",
  "embed": "sum_l_jax.tools.embed",
}


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.beam", __doc__, allow_abbrev=False)
  add = parser.add_argument
  add("--parts", type=int, required=True, metavar="N", help="number of parts")
  add(
    "--runner",
    required=True,
    metavar="RUNNER",
    help="DirectRunner, DataflowRunner, FlinkRunner, SparkRunner ...",
  )
  add("--options", default="", metavar="'--KEY=VALUE ...'", help="options of the pipeline")
  add("command", choices=COMMANDS, help="what is done")
  add("arguments", nargs=argparse.REMAINDER, metavar="...", help="the command's own options")
  return parser


def run(args: argparse.Namespace) -> int:
  """Runs the command; its status is that of putting the parts together.

  Raises:
    ValueError: Beam isn't installed, or an option doesn't fit.
  """
  if args.parts < 1:
    raise ValueError(f"--parts must be 1 or more, got {args.parts}.")
  own = [word for word in args.arguments if word.startswith(("--part", "--merge"))]
  if own:
    raise ValueError(f"{own[0]} is given by the pipeline to each part. Leave it out.")
  try:
    from data_prep.beam import pipeline
  except ImportError as error:
    raise ValueError(
      f"Apache Beam is needed ({error}). It wants an environment of its own, since it holds"
      " protobuf back: make beam, then .venv-beam/bin/python -m data_prep.beam ..., or"
      " pip install -e '.[beam]'."
    ) from error
  work = pipeline.Work(COMMANDS[args.command], tuple(args.arguments), args.parts)
  options = [f"--runner={args.runner}", *shlex.split(args.options)]
  try:
    pipeline.run(work, options)
  except Exception as error:  # The runners' own kinds. What is there is told next.
    reason = str(error).strip().splitlines()
    print(
      f"warning: the pipeline ended with {type(error).__name__}: {' '.join(reason[:1])}",
      file=sys.stderr,
    )
  return work.merge()


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(make_parser(), run, argv)


if __name__ == "__main__":
  sys.exit(main())
