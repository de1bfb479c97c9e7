r"""Runs an encoder over a built data set, and stores what it makes of the clips.

  python -m data_prep extract_features --dataset=data/epic100 --weights=weights/vjepa2_l \
      --kind=tokens --output=features/epic100_vjepa2_l

  # one vector a clip, of ten temporal samples with three crops each, of one split
  ... --kind=pooled --views=10x3 --splits=val --output=features/epic100_val

  # five views drawn as a training draws them
  ... --kind=pooled --train_views=5 --seed=0 --splits=train --output=...

  # a model of your own, such as one of transformers (docs/features.md)
  ... --encoder=my_encoder:encode --kind=tokens --output=...

  # on many machines: each makes a part of the shards, then one writes the card
  ... --part=3/40          ... --merge=40

Training reads the features in the place of frames, see docs/features.md. The same
command goes on after an interruption. --encoder and --register import the module
that you name.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import re
import sys
from typing import Any

from etils import epath

from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import processes
from sum_l_jax.system import work_parts

# JAX, and what needs it, is imported once the options are read.


def _views(text: str) -> tuple[int, int]:
  found = re.fullmatch(r"([1-9]\d{0,3})x([13])", text)
  if not found:
    raise argparse.ArgumentTypeError(
      f"{text!r} must be SAMPLESxCROPS with 1 or 3 crops, such as 1x1 or 10x3."
    )
  return int(found[1]), int(found[2])


def _sides(text: str) -> tuple[int, int]:
  found = re.fullmatch(r"([1-9]\d{0,3}),([1-9]\d{0,3})", text)
  if not found or int(found[1]) > int(found[2]):
    raise argparse.ArgumentTypeError(
      f"{text!r} must be two numbers of pixels, the smaller one first, such as 256,320."
    )
  return int(found[1]), int(found[2])


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.extract_features", __doc__)
  add = parser.add_argument
  add("--dataset", required=True, type=epath.Path, metavar="DIR", help="a built clip data set")
  add("--splits", default="", metavar="NAME[,NAME...]", help="default: all splits")
  add("--output", required=True, type=epath.Path, metavar="DIR", help="folder of the features")
  encoder = parser.add_mutually_exclusive_group(required=True).add_argument
  encoder("--weights", metavar="PATH", help="workdir, checkpoint, converted weights or .npz file")
  encoder(
    "--encoder",
    metavar="MODULE:FUNCTION",
    help="a function of your own, whose module is imported",
  )
  add(
    "--tower",
    choices=("ego", "exo"),
    default="",
    help="whose encoder of --weights is taken (default: that of the data set's view, or the only"
    " one)",
  )
  add(
    "--register",
    default="",
    metavar="MODULE",
    help="a module that registers the encoder of --weights where it is your own; it is imported",
  )
  add(
    "--kind",
    required=True,
    choices=("tokens", "pooled"),
    help="all tokens, which attentive heads read, or one vector of a view",
  )
  add("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="type of stored values")
  add(
    "--precision",
    choices=("float32", "bfloat16"),
    default="float32",
    help="type of the encoder's activations, of --weights",
  )
  views = parser.add_mutually_exclusive_group().add_argument
  views(
    "--views",
    type=_views,
    default=(1, 1),
    metavar="SAMPLESxCROPS",
    help="views as the evaluation takes them (1x1: the centre alone)",
  )
  views("--train_views", type=int, default=0, metavar="N", help="draw N views as training does")
  add("--seed", type=int, default=0, help="seed of drawn views")
  add("--flip", type=float, default=0.5, help="probability of a flip of drawn views (0.5)")
  add(
    "--short_side",
    type=_sides,
    metavar="LOW,HIGH",
    help="short side of a frame before the crop of a drawn view (default: the encoder's)",
  )
  add("--batch_size", type=int, default=32, help="views at a time, over all devices (32)")
  add(
    "--threads",
    type=int,
    default=processes.cores(),
    help="threads that decode (default: one a core)",
  )
  work_parts.add_options(parser)
  return parser


def _encoder(args: argparse.Namespace, view: str, stored: Any) -> Any:
  from data_prep.features import feature_encoders

  if args.encoder:
    if args.tower or args.register:
      raise ValueError("--tower and --register are for --weights, and --encoder was given.")
    return feature_encoders.NamedFunction(args.encoder, stored)
  if args.register:
    feature_encoders.import_module(args.register, what="--register")
  return feature_encoders.OwnEncoder(
    args.weights, view, stored, tower=args.tower, precision=args.precision
  )


def _check_sides(short_side: tuple[int, int], crop: int) -> None:
  """Refuses crops outside the frame, and defaults that are those of another crop.

  Rows of convolutional networks name the sides of their authors, for crops of
  224; weights that were trained with crops of 64 would see a corner.
  """
  if not crop <= short_side[0] <= short_side[1] < 2 * crop:
    raise ValueError(
      f"A crop of {crop} pixels can't be drawn as training draws it from frames with a short side"
      f" of {short_side[0]} to {short_side[1]}: it would leave the frame, or show less than a"
      f" quarter of it. Give --short_side=LOW,HIGH between {crop} and {2 * crop - 1}, such as"
      " the config.frames.short_side of the encoder's training."
    )


def make_extraction(args: argparse.Namespace) -> Any:
  """Opens data set and encoder; returns an `extraction.Extraction`."""
  from data_prep.features import extraction
  from data_prep.features import feature_encoders
  from sum_l_jax.data import feature_card
  from sum_l_jax.data import records
  from sum_l_jax.data import transforms

  if args.train_views < 0:
    raise ValueError(f"--train_views must be 0 or more, got {args.train_views}.")
  if args.seed < 0:
    raise ValueError(f"--seed must be 0 or more, got {args.seed}.")
  unread = {"precision": "with --weights"} if args.encoder else {}
  if not args.train_views:
    unread |= dict.fromkeys(("seed", "flip", "short_side"), "with --train_views")
  command_line.refuse_unread(make_parser(), args, unread)
  there = records.read_card(args.dataset)["splits"]
  splits = command_line.names(args.splits) or list(there)
  if unknown := sorted(set(splits) - set(there)):
    raise ValueError(
      f"--splits: the data set {str(args.dataset)!r} has no split {unknown[0]!r}; it has"
      f" {sorted(there)}."
    )
  datasets = {
    split: records.ClipDataset(addresses.path(args.dataset), split)
    for split in dict.fromkeys(splits)
  }
  stored = feature_encoders.Stored(args.kind, args.dtype)
  encoder = _encoder(args, next(iter(datasets.values())).view, stored)
  frames = encoder.frames
  if args.train_views:
    short_side = args.short_side or encoder.short_side
    _check_sides(short_side, frames.crop_size)
    transform = transforms.ClipTransform(
      frames.count,
      frames.stride,
      frames.crop_size,
      short_side=short_side,
      flip=args.flip,
      sampling=frames.sampling,
    )
    about = {"short_side": list(short_side), "flip": args.flip}
    views = feature_card.FeatureViews(
      feature_card.TRAIN_VIEWS, args.train_views, 1, args.seed, about
    )
  else:
    transform = transforms.ClipTransform.for_testing(
      frames.count, frames.stride, frames.crop_size, frames.sampling
    )
    views = feature_card.FeatureViews(feature_card.TEST_VIEWS, *args.views)
  return extraction.Extraction(args.output, datasets, encoder, stored, views, transform)


def extract(args: argparse.Namespace) -> str:
  """Runs the command."""
  from data_prep.features import extraction

  args.output = addresses.path(args.output, what="--output")
  rate = extraction.Rate(args.batch_size, args.threads)
  work = make_extraction(args)
  if work.is_finished():
    return f"the feature set is there already: {args.output}"
  if args.part:
    work.begin()
    made, of = work.run(args.part, rate), len(work.share(args.part))
    return f"part {args.part}: wrote {made} shards, {of - made} were there: {args.output}"
  with work.alone():
    work.begin()
    if not args.merge:
      work.run(None, rate)
    card = work.finish(args.merge or 1, args.typed)
  lines = [
    f"wrote {args.output}: {sum(card.splits.values())} clips of {', '.join(card.splits)},"
    f" {card.kind} {list(card.shape)} (views, tokens, channels) in {card.dtype}"
  ]
  for split, positions in card.unreadable.items():
    lines.append(f"{len(positions)} clips of {split} can't be read; their features are zeros")
  return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(make_parser(), extract, argv)


if __name__ == "__main__":
  sys.exit(main())
