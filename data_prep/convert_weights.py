r"""Converts published weights, or ours to the names of others.

  python -m data_prep.convert_weights --model=slowfast_r50_8x8 \
      --input=SLOWFAST_8x8_R50.pyth --output=weights/slowfast_r50
  python -m data_prep.convert_weights --input=vitl.pt --output=weights/vjepa2_l
  python -m data_prep.convert_weights --export=pyth \
      --input=runs/epic55 --output=epic55.pyth
  python -m data_prep.convert_weights --export=safetensors \
      --input=runs/tuned --output=vjepa2_tuned

The result is a checkpoint that `--config.init.ego`, `--config.init.exo`,
`--mode=eval --checkpoint` and prediction take. See docs/pytorch_weights.md, and
docs/encoders.md for vision transformers, whose files say which network they
hold.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import sys

from data_prep.published_weights import choices
from sum_l_jax import types
from sum_l_jax.data import records
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import storage

# JAX, and what needs it, is imported once the options are read.


def _classes(directory: str) -> dict:
  """The class names of a built data set, by view and task."""
  if not directory:
    return {}
  card = records.read_card(directory)
  return {card["view"]: {name: task["class_names"] for name, task in card["tasks"].items()}}


def _numbers(channels: Sequence[float]) -> str:
  """One number where all channels have the same."""
  return " ".join(f"{x:.4g}" for x in (channels if len(set(channels)) > 1 else channels[:1]))


def _import(args: argparse.Namespace) -> None:
  from data_prep.published_weights import convert
  from data_prep.published_weights import files
  from sum_l_jax.checkpoint import manager
  from sum_l_jax.checkpoint import weight_files

  output = addresses.path(args.output, what="--output")
  if storage.exists(output) and (not storage.is_dir(output) or storage.names(output)):
    raise ValueError(
      f"--output={str(output)!r} exists and is not an empty folder. Give a new folder."
    )
  file = files.read(args.input, prefix=args.prefix)
  weights, report = convert.convert(
    file,
    convert.Options(
      backbone=choices.MODELS[args.model] if args.model else args.backbone,
      view=args.view,
      head=args.head,
      classes=_classes(args.dataset),
      channel_order=args.channel_order,
      fps=args.fps,
      pool_window=args.pool_window,
      skip=args.skip,
    ),
  )
  notes = file.notes
  del file  # Gigabytes that saving has a use for.
  stage = weights.card["stage"]
  folder = output / stage / weight_files.CHECKPOINT_FOLDER
  with manager.Checkpoints(folder) as checkpoints:
    checkpoints.save(0, {"params": weights.params, "stats": weights.stats}, weights.card)
  print("\n".join([*notes, *report.lines()]))
  window = weights.card["network"]["pool_window"]
  for view, pixels in weights.card["pixels"].items():
    frames = weight_files.frames_of(weights.card, view)
    print(
      f"needs        {view}: {pixels['channel_order']}, mean {_numbers(pixels['mean'])},"
      f" std {_numbers(pixels['std'])},"
      f" {frames['count']} frames at stride {frames['stride']} of {frames['fps']:g} a second"
    )
  if weights.card["backbone"] not in choices.TRANSFORMERS:
    print(f"scores       {f'windows of {window} x {window}' if window else 'the whole map'}")
  print(f"wrote {output}")


def _export(args: argparse.Namespace) -> None:
  from data_prep.published_weights import convert
  from data_prep.published_weights import files
  from data_prep.published_weights import transformers_export
  from sum_l_jax.checkpoint import weight_files

  weights = weight_files.read_weights(args.input)
  has = [v for v in types.VIEWS if "encoder" in weights.params.get(v, {})]
  views = has if args.view in ("", "both") else [args.view]
  if args.export == "safetensors":
    exported = transformers_export.export(weights, views)
    files.write_safetensors(args.output, exported.tensors, exported.card, exported.config)
    tensors = exported.tensors
    print("\n".join(exported.notes))
  else:
    tensors, card = convert.export(weights, views)
    files.write_torch(args.output, tensors, card)
  print(f"wrote {args.output}: {len(tensors)} arrays of {', '.join(views)}, from {weights.source}")


def _command(args: argparse.Namespace) -> None:
  if args.export:
    _export(args)
    return
  if args.model and args.backbone:
    raise ValueError("--model and --backbone both name the network; give one of them.")
  _import(args)


def main(argv: list[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = command_line.make_parser("data_prep.convert_weights", __doc__)
  parser.add_argument(
    "--input",
    required=True,
    metavar="PATH",
    help="the file, or a folder or index of .safetensors files; with --export a workdir or"
    " checkpoint",
  )
  parser.add_argument(
    "--output",
    required=True,
    metavar="PATH",
    help="a new folder; with --export the file, or a folder for transformers",
  )
  parser.add_argument(
    "--model",
    choices=tuple(choices.MODELS),
    help="which network of one or two pathways; vision transformers need none",
  )
  parser.add_argument(
    "--backbone",
    choices=choices.TRANSFORMERS,
    default="",
    help="which vision transformer (default: the one whose arrays the file has)",
  )
  parser.add_argument(
    "--view",
    choices=("ego", "exo", "both"),
    default="",
    help="default: ego, or what the file itself says",
  )
  parser.add_argument(
    "--head",
    choices=choices.HEADS,
    default="keep",
    help="keep: class heads as in the file, without names where --dataset"
    " has none for them; reinit: heads that do not fit --dataset stay"
    " behind; error: they are an error",
  )
  parser.add_argument(
    "--dataset", default="", metavar="DIR", help="a built data set whose classes the head predicts"
  )
  parser.add_argument(
    "--channel_order",
    choices=("RGB", "BGR"),
    default="",
    help="order of the pixels that the network saw (default: BGR for EPIC and Charades-Ego"
    " heads, else RGB)",
  )
  parser.add_argument(
    "--fps", type=float, default=0.0, help="frame rate that the network saw (default: by head)"
  )
  parser.add_argument(
    "--pool_window",
    type=int,
    default=-1,
    metavar="N",
    help="side of the windows whose scores the network's authors average at test time, 0 for the"
    " whole map (default: by names and heads)",
  )
  parser.add_argument(
    "--skip",
    action="append",
    default=[],
    metavar="PATTERN",
    help="regular expression of names to leave behind",
  )
  parser.add_argument(
    "--prefix",
    default="",
    metavar="TEXT",
    help="what the names of the network's arrays begin with in the file, such as student.;"
    " arrays without it are left behind",
  )
  parser.add_argument(
    "--export",
    choices=("pyth", "safetensors"),
    default="",
    help="the other way: write PySlowFast's names, or those of Hugging Face's transformers for"
    " vision transformers",
  )
  return command_line.run(parser, _command, argv)


if __name__ == "__main__":
  sys.exit(main())
