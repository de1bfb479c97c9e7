r"""Writes the text tower of a LaViLa or AVION file as a folder of transformers.

  python -m data_prep.convert_text_tower --input=lavila_tsf_b.pth \
      --tokenizer=weights/clip-vit-base-patch32 --output=weights/lavila_text
  python -m data_prep.embed_narrations --model=weights/lavila_text ...

The tokenizer is CLIP's own, of any folder of transformers that has it; its files
are copied. See docs/data.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import sys

from data_prep.published_weights import clip_text
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import storage


def convert(args: argparse.Namespace) -> str:
  """Runs the command.

  Raises:
    ValueError, FileNotFoundError: the file has no such tower, the tokenizer is of
      another vocabulary, or the output is there.
  """
  from data_prep.published_weights import files

  output = addresses.path(args.output, what="--output")
  if storage.exists(output):
    raise ValueError(f"--output={str(output)!r} exists. Give a new folder.")
  file = files.read(args.input)
  fields, arrays, family = clip_text.convert(file.tensors)

  import safetensors.numpy
  import transformers

  with storage.local_folder(addresses.path(args.tokenizer, what="--tokenizer")) as folder:
    try:
      tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # Its kind depends on the version of transformers.
      raise ValueError(
        f"--tokenizer={args.tokenizer!r} has no tokenizer that transformers reads. Give a folder"
        " of CLIP, such as that of openai/clip-vit-base-patch32."
      ) from error
  ends = tokenizer.bos_token_id, tokenizer.eos_token_id
  if ends != (fields["bos_token_id"], fields["eos_token_id"]):
    raise ValueError(
      f"The tokenizer begins and ends texts with {ends}, where the tower of"
      f" {fields['vocab_size']} word pieces needs"
      f" {(fields['bos_token_id'], fields['eos_token_id'])}: give CLIP's own."
    )
  config = transformers.CLIPTextConfig(**fields, architectures=["CLIPTextModelWithProjection"])
  with storage.new_folder(output, last="config.json") as made:
    tokenizer.save_pretrained(str(made))
    safetensors.numpy.save_file(arrays, made / "model.safetensors", {"format": "pt"})
    config.save_pretrained(str(made))
  return (
    f"wrote {output}: the text tower of {family}, {fields['num_hidden_layers']} layers of"
    f" {fields['hidden_size']}, vectors of {fields['projection_dim']}"
  )


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.convert_text_tower", __doc__)
  add = parser.add_argument
  add("--input", required=True, metavar="FILE", help="weights of LaViLa or AVION")
  add("--tokenizer", required=True, metavar="DIR", help="folder with CLIP's tokenizer")
  add("--output", required=True, metavar="DIR", help="new folder")
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(make_parser(), convert, argv)


if __name__ == "__main__":
  sys.exit(main())
