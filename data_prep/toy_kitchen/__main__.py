"""Renders the embedded data set toy_kitchen from a seed.

  python -m data_prep.toy_kitchen --output=DIR

Nothing is downloaded. The default (ego and exo, 4,900 clips) takes about half a
minute on one CPU core. The narrations' embeddings lie in the package
(`narrations.npz`), so that nothing has to be embedded afterwards.
"""

from __future__ import annotations

import argparse
import sys

from data_prep.toy_kitchen import builder
from data_prep.toy_kitchen import vocabulary
from sum_l_jax import types
from sum_l_jax.system import command_line


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser("data_prep.toy_kitchen", __doc__)
  parser.add_argument(
    "--output", required=True, metavar="DIR", help="folder that gets one folder a view"
  )
  parser.add_argument("--seed", type=int, default=0, help="seed of the world (default 0)")
  parser.add_argument(
    "--views",
    type=command_line.names,
    default=list(types.VIEWS),
    help=f"views, of {', '.join(vocabulary.VIEWS)} (default ego,exo)",
  )
  parser.add_argument(
    "--ego-train",
    type=int,
    default=vocabulary.COUNTS[types.EGO]["train"],
    help=f"number of ego training clips, at most {vocabulary.EGO_POOL} (default %(default)s)",
  )
  parser.add_argument(
    "--processes", type=int, default=2, help="processes that render side by side (default 2)"
  )
  return parser


def _build(args: argparse.Namespace) -> None:
  directories = builder.build(
    args.output,
    seed=args.seed,
    views=args.views,
    ego_train=args.ego_train,
    processes=args.processes,
  )
  for view, directory in directories.items():
    print(f"{view}: {directory}")


def main(argv: list[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(_parser(), _build, argv)


if __name__ == "__main__":
  sys.exit(main())
