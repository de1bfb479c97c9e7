r"""Mines pseudo-pairs: for each ego narration the most similar exo narrations.

  python -m data_prep.mine_pairs --ego=data/epic55 --exo=data/exo[,data/exo2] \
      --narrations=data/narrations.npz --output=data/pairs.npz

Paper, section 3.1 and Eq. 1: the cosine of the sentence vectors decides, and an
exo clip may serve many ego clips. The table keeps the `top_k` best narrations,
so that training can choose among them. Runs once, before training; the same
command after a stop goes on where it was. On many machines, each mines a part with
--part=3/40, and --merge=40 puts the parts together.

--rule=released_labels pairs as the released code for EPIC-KITCHENS-100 does: by
verb and noun labels, compared by class name, not by text.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
import sys

from etils import epath

from data_prep.mining import label_pairs
from data_prep.mining import pair_options
from data_prep.mining import pair_parts
from data_prep.mining import pair_summary
from data_prep.mining import pseudo_pairs
from sum_l_jax.data import data_rules
from sum_l_jax.data import finding
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.system import command_line
from sum_l_jax.system import work_parts

RULES = ("text", "released_labels")


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.mine_pairs", __doc__)
  pair_options.add(parser)
  add = parser.add_argument
  add("--output", required=True, type=epath.Path, metavar="FILE.npz")
  add(
    "--top_k",
    type=int,
    default=10,
    help="neighbours to keep for each narration (default: 10); released"
    " labels give one group of candidates instead",
  )
  add(
    "--threshold",
    type=float,
    default=pair_summary.THRESHOLD,
    help="cosine of the filter in training, to report what passes it (default: %(default)s)",
  )
  work_parts.add_options(parser)
  add("--rule", choices=RULES, default="text", help="what makes a pair (default: text)")
  add(
    "--released_limit",
    type=int,
    default=3,
    metavar="N",
    help="candidates of each kind of released_labels: 3 (default) as for"
    " EK-100, 30 as for EK-55; the release lists each exo segment three"
    " times, so that its 3 are one",
  )
  return parser


def mine(args: argparse.Namespace) -> None:
  """Runs the command; errors as in `pseudo_pairs.mine` and `label_pairs.pair`."""
  if args.rule != "text" and (args.part or args.merge):
    raise ValueError(f"--rule={args.rule} takes seconds and has no parts. Leave them out.")
  unread = {"top_k": "with --rule=text"}
  if args.rule == "text":
    unread = {"released_limit": "with --rule=released_labels"}
  command_line.refuse_unread(make_parser(), args, unread)
  ego, exo, table = pair_options.read(args)
  if args.part or args.merge:
    mining = pair_parts.Mining(args.output, ego, exo, table, top_k=args.top_k)
  if args.part:
    print(mining.make(args.part))
    return
  if args.rule == "text":
    if args.merge:
      pairs = mining.merge(args.merge, args.typed)
    else:
      pairs = pseudo_pairs.mine_into(args.output, ego, exo, table, top_k=args.top_k)
    kept = f"{pairs.neighbours.shape[1]} neighbours each"
  else:
    pairs = label_pairs.pair(ego, exo, table, limit=args.released_limit)
    pairs.save(args.output)
    kept = f"{len(pairs.clip_offsets) - 1} groups of candidates by labels"
  print(f"wrote {args.output}: {kept}")
  print(pair_summary.summarize(pairs, ego, exo, threshold=args.threshold).as_text())
  for found in _doubts(pairs, ego, exo, args.threshold):
    print(f"warning: {found}", file=sys.stderr)


def _doubts(
  pairs: pairing.PairTable,
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  threshold: float,
) -> Iterator[str]:
  """What makes one doubt that training learns from the pairs; see `data_rules`."""
  texts = {
    "--ego": ego.moments.narrations,
    "--exo": [text for data in exo for text in data.moments.narrations],
  }
  for option, narrations in texts.items():
    for found in data_rules.check_narrations_differ(narrations):
      yield f"{option}: {found.message}"
  cosines = pairs.similarity[pairs.ego_rows, 0]
  for found in data_rules.check_pairs(cosines, threshold):
    if found.severity != finding.OK:
      yield found.message


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(make_parser(), mine, argv)


if __name__ == "__main__":
  sys.exit(main())
