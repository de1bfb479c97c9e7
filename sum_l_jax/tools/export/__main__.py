r"""Exports the ego encoder with its class heads as a file that runs elsewhere.

  python -m sum_l_jax.tools.export --checkpoint=runs/epic55 --output=epic55_model
  python -m sum_l_jax.tools.export --checkpoint=runs/epic55 --output=epic55_tf \
      --format=saved_model --batch=1
  python -m sum_l_jax.tools.export --checkpoint=runs/epic55 --output=epic55_onnx --format=onnx

The program maps uint8 frames to probabilities, normalisation and channel order
included; JAX's is for cpu, cuda and tpu. The folder's README.md says how to run it
without this package. What was written is loaded and compared with the
checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import sys
from typing import TYPE_CHECKING

from etils import epath

from sum_l_jax import types
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.tools.export import export_format

# jax and what stands on it are imported once the options are read.
if TYPE_CHECKING:
  from sum_l_jax.checkpoint import weight_files

# Another compilation of the same program rounds differently, by some 1e-7.
TOLERANCE = 1e-5
README = "README.md"


def export_model(
  checkpoint: addresses.PathLike,
  output: addresses.PathLike,
  *,
  file_format: str = "jax",
  batch: int | str = export_format.DYNAMIC,
) -> str:
  """Exports a checkpoint.

  Args:
    checkpoint: workdir, checkpoint folder or `.npz` file; trained here or
      converted.
    output: a new or empty folder.
    file_format: one of `export_format.FORMATS`.
    batch: clips that the program takes at a time; "dynamic" is any number.

  Returns:
    What was written, for people.

  Raises:
    FileExistsError: another process has made the folder in the meantime.
    FileNotFoundError, ValueError: no such checkpoint, one without an ego
      encoder or class head, or an argument out of range.
  """
  from sum_l_jax.checkpoint import weight_files
  from sum_l_jax.tools.export import export_readme
  from sum_l_jax.tools.export import exported_model

  output = addresses.path(output, what="--output")
  if file_format not in export_format.FORMATS:
    raise ValueError(f"format must be one of {export_format.FORMATS}, got {file_format!r}.")
  if storage.exists(output) and (not storage.is_dir(output) or storage.names(output)):
    raise ValueError(
      f"--output={str(output)!r} exists and is not an empty folder. Give a new folder."
    )
  weights = weight_files.read_weights(checkpoint, views=(types.EGO,))
  run, arrays = exported_model.make_function(weights, file_format=file_format)
  card = exported_model.make_card(weights, file_format=file_format, batch=batch)
  with storage.new_folder(output, last=export_format.CARD) as folder:
    storage.write_text(folder / README, export_readme.make_readme(card))
    exported_model.write_model(folder, run, arrays, card)
    error = _largest_error(weights, folder)
    if not error <= TOLERANCE:
      raise ValueError(
        f"{str(output)!r} was not written: its probabilities are {error:.1e} off the checkpoint's,"
        f" more than {TOLERANCE:g}. Export with other versions of the libraries."
      )
  size = sum(map(storage.size, storage.files_below(output).values()))
  count = sum(array.size for array in arrays.values())
  classes = ", ".join(f"{task} {len(names)}" for task, names in card["class_names"].items())
  return (
    f"wrote {output}: {file_format}, for {', '.join(card['platforms'])},"
    f" {count:,} numbers, {size / 1e6:.1f} MB\n"
    f"in   video uint8 {card['input']['shape']}\n"
    f"out  probabilities: {classes} classes\n"
    f"checked here on noise: within {error:.1e} of the checkpoint"
  )


def _largest_error(weights: weight_files.Weights, folder: epath.Path) -> float:
  """How far the exported probabilities of one clip of noise are off."""
  import numpy as np

  from sum_l_jax.prediction import score_network
  from sum_l_jax.tools.export import exported_model

  model = exported_model.load_exported(folder, batch_size=1)
  shape = model.recipe.video_shape
  noise = np.random.default_rng(0).integers(0, 256, (1, *shape), np.uint8)
  expected = score_network.checkpoint_score(weights)(noise)
  got = model.score_batch(noise)
  return max(float(np.abs(np.asarray(expected[task]) - got[task]).max()) for task in expected)


def _batch(text: str) -> int | str:
  if text == export_format.DYNAMIC:
    return text
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(
      f"must be {export_format.DYNAMIC!r} or a number of clips, got {text!r}"
    )
  return int(text)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  command_line.add_run(parser)
  add = parser.add_argument
  add("--output", required=True, metavar="DIR", help="a new folder")
  format_help = "jax: jax.export; saved_model: TensorFlow's; onnx: of ONNX (jax)"
  add("--format", choices=export_format.FORMATS, default="jax", help=format_help)
  batch_help = "clips at a time; dynamic: any number (dynamic)"
  add("--batch", type=_batch, default=export_format.DYNAMIC, metavar="N", help=batch_help)
  return parser


def _run(options: argparse.Namespace) -> str:
  return export_model(
    options.checkpoint, options.output, file_format=options.format, batch=options.batch
  )


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
