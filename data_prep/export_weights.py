"""Writes a checkpoint's weights as one small `.npz` file, without pickle.

The optimizer stays behind. `config.init.ego`, `config.init.exo` and
`--checkpoint` take the file. Towers that were trained on stored features get the
encoder that made them by --ego_encoder and --exo_encoder, and then read videos.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

import numpy as np

from sum_l_jax.system import command_line

# JAX, and what needs it, is imported once the options are read.


def export(args: argparse.Namespace) -> None:
  """Reads the weights, drops what is not asked for, and writes the rest."""
  from sum_l_jax.checkpoint import stored_encoders
  from sum_l_jax.checkpoint import weight_files

  weights = weight_files.read_weights(args.checkpoint)
  for view, path in (("ego", args.ego_encoder), ("exo", args.exo_encoder)):
    if path:
      weights = stored_encoders.with_encoder(weights, weight_files.read_weights(path), view)
  if args.encoder_only:
    keep_encoder = lambda tree: {
      view: {"encoder": tower["encoder"]} for view, tower in tree.items() if "encoder" in tower
    }
    weights = dataclasses.replace(
      weights, params=keep_encoder(weights.params), stats=keep_encoder(weights.stats)
    )
  weight_files.write_weights(args.output, weights)
  flat = weight_files.flatten(weights.params)
  print(
    f"wrote {args.output}: {len(flat)} arrays,"
    f" {sum(np.size(v) for v in flat.values()):,} parameters, of"
    f" {sorted(weights.params)}, from {weights.source}"
  )


def main(argv: list[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = command_line.make_parser("data_prep.export_weights", __doc__)
  command_line.add_run(parser)
  parser.add_argument("--output", required=True, metavar="FILE.npz")
  parser.add_argument("--encoder_only", action="store_true", help="leave heads and projections out")
  for view in ("ego", "exo"):
    parser.add_argument(
      f"--{view}_encoder",
      metavar="WEIGHTS",
      help=f"encoder of the stored features that the {view} tower was trained on",
    )
  return command_line.run(parser, export, argv)


if __name__ == "__main__":
  sys.exit(main())
