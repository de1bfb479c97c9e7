r"""Puts clip data sets together into one: same view, same classes.

  python -m data_prep.merge_datasets --inputs=data/part1,data/part2 \
      --output=data/epic55

Clips keep their ids, splits and order, the first set's first. Shards are linked
where the disk allows it, copied by the bucket itself from one of its folders to
another, and copied elsewhere; nothing is decoded or encoded. To
add media to one set that is built from one source, run its command of
`data_prep.build_dataset` again instead. To train on sets with different classes,
name several as exo pools.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import sys
from typing import Any

from etils import epath

from data_prep.clips import clip_dataset
from sum_l_jax.data import moments
from sum_l_jax.data import records
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import storage


def merge_datasets(
  inputs: Sequence[epath.Path],
  output: epath.Path,
  *,
  name: str = "",
  about: clip_dataset.About | None = None,
) -> dict[str, Any]:
  """Writes one data set with the clips of several.

  Args:
    inputs: folders of the data sets, two or more.
    output: the folder to create; it must not exist.
    name: name of the result; "" takes that of the inputs, which must agree.
    about: what TFDS shows of the source; None takes that of the first input.

  Returns:
    The card of the result.

  Raises:
    ValueError: the data sets don't fit together, an id occurs in two of them,
      the output exists, or another process writes it.
  """
  if len(inputs) < 2:
    raise ValueError("--inputs must name two data sets or more, separated by commas.")
  _check_new(output)
  cards = [records.read_card(folder) for folder in inputs]
  for field in ("view", "tasks", *([] if name else ["name"])):
    _check_equal(field, inputs, cards)
  # Without it, whole videos would be narrated as clips of one action are.
  about_moments = [{moments.METADATA: c["metadata"].get(moments.METADATA)} for c in cards]
  _check_equal(moments.METADATA, inputs, about_moments)
  splits = dict.fromkeys(split for card in cards for split in card["splits"])
  unlabelled = {split for card in cards for split in card.get("unlabelled", ())}
  for split in unlabelled:
    if any(split in c["splits"] and split not in c.get("unlabelled", ()) for c in cards):
      raise ValueError(f"Split {split!r} has labels in some of the data sets, and none in others.")
  card = {
    **{k: cards[0][k] for k in ("format", "view", "tasks")},
    "name": name or cards[0]["name"],
    "metadata": _common([card["metadata"] for card in cards]),
    "splits": dict.fromkeys(splits, 0),
  }
  card["metadata"]["merged"] = [card["metadata"] for card in cards]
  if unlabelled:
    card["unlabelled"] = sorted(unlabelled)
  about = about or clip_dataset.read_about(inputs[0])
  with clip_dataset.alone(output, what=f"merge_datasets, {card['name']}"):
    _check_new(output)  # Another merge may have ended since.
    clip_dataset.put_together(output, card, inputs, {}, about)
  return records.read_card(output)


def _check_new(output: epath.Path) -> None:
  if storage.exists(output) and not clip_dataset.is_unfinished(output):
    raise ValueError(f"--output {str(output)!r} exists. Give a new folder.")


def _check_equal(
  field: str, inputs: Sequence[epath.Path], cards: Sequence[Mapping[str, Any]]
) -> None:
  """Raises ValueError where a field of the cards differs."""
  for folder, card in zip(inputs[1:], cards[1:], strict=True):
    if card[field] == cards[0][field]:
      continue
    advice = {
      "tasks": "Build them with the same class lists (--class_lists), or give them as"
      " several exo pools.",
      "name": "Give the result a name with --name.",
      "view": "Ego and exo clips are two data sets.",
      moments.METADATA: "Build them with the same --examples, --window and --narration.",
    }
    what = ", ".join(card[field]) if field == "tasks" else repr(card[field])
    raise ValueError(
      f"The {field} of {str(folder)!r} ({what}) differ from those of {str(inputs[0])!r}."
      f" {advice[field]}"
    )


def _common(metadata: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The entries that all agree on; evaluation reads some of them."""
  first, *rest = metadata
  return {k: v for k, v in first.items() if all(k in m and m[k] == v for m in rest)}


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.merge_datasets", __doc__)
  add = parser.add_argument
  add("--inputs", required=True, metavar="DIR,DIR[,DIR...]", help="folders of the data sets")
  add("--output", required=True, type=epath.Path, metavar="DIR", help="the folder to create")
  add("--name", default="", help="name of the result (default: that of the inputs)")
  return parser


def run(args: argparse.Namespace) -> str:
  """Runs the command; errors as in `merge_datasets`."""
  inputs = [addresses.path(folder, what="--inputs") for folder in command_line.names(args.inputs)]
  card = merge_datasets(inputs, args.output, name=args.name)
  parts = ", ".join(f"{n} {split}" for split, n in card["splits"].items())
  return (
    f"wrote {args.output}: {parts} clips. Embed the narrations and mine the pairs of"
    " the new set; `python -m data_prep doctor` shows whether a video lies in two splits."
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(make_parser(), run, argv)


if __name__ == "__main__":
  sys.exit(main())
