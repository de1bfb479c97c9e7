"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from sum_l_jax.system import command_line

# Options of `add_embedder`.
EMBEDDER = ("clips", "crops", "batch_size", "num_threads")


def evaluated_clips(card: Mapping[str, Any]) -> str:
  """The ego clips that a run was scored on last, "DIR:SPLIT".

  Args:
    card: card of a checkpoint.

  Raises:
    ValueError: it is of no run with ego clips.
  """
  fields = _fields_of_run(card)
  folder, splits = fields.get("ego.dataset"), fields.get("eval.splits")
  if not (folder and splits):
    raise ValueError(_NO_DATA)
  return f"{folder}:{splits[-1]}"


def pools(card: Mapping[str, Any]) -> list[str]:
  """The exo clips that a run was trained on, "DIR:SPLIT" each.

  Args:
    card: card of a checkpoint.

  Raises:
    ValueError: it is of no run with exo clips.
  """
  fields = _fields_of_run(card)
  if not fields.get("exo.datasets"):
    raise ValueError(_NO_DATA)
  return [f"{folder}:{fields['exo.train_split']}" for folder in fields["exo.datasets"]]


_NO_DATA = (
  "These weights don't come from a run whose settings name such clips: name the data sets in the"
  " options (--help)."
)


def _fields_of_run(card: Mapping[str, Any]) -> dict[str, Any]:
  from sum_l_jax.config import read  # The other options do without it.

  return read.with_defaults(card["config"]) if card.get("config") else {}


def add_reading(parser: argparse.ArgumentParser, unit: str) -> None:
  """Adds --batch_size and --num_threads.

  Args:
    parser: parser of the command.
    unit: what a batch consists of.
  """
  add = parser.add_argument
  add("--batch_size", type=int, default=16, help=f"{unit} at a time (16)")
  add("--num_threads", type=int, default=2, help="threads that read and decode (2)")


def add_embedder(parser: argparse.ArgumentParser) -> None:
  """Adds the options of an `Embedder`; see `embedder_options`."""
  add = parser.add_argument
  add("--clips", type=int, default=1, help="temporal views of a clip (1)")
  add("--crops", type=int, default=1, help="spatial views, 1 or 3 (1)")
  add_reading(parser, "test views")


def embedder_options(options: argparse.Namespace) -> dict[str, Any]:
  """What `add_embedder` read, as keyword arguments of an `Embedder`."""
  found = {name: getattr(options, name) for name in EMBEDDER}
  return {name: value for name, value in found.items() if value is not None}


def make_config_parser(
  command: str | None,
  doc: str | None,
  epilog: str = "Fields of the config are set by --config.x=y.",
  *,
  workdir: bool = True,
) -> command_line.Parser:
  """Makes the parser of a command that reads a config; adds --config.

  Args:
    command: module that is run.
    doc: docstring of the module.
    epilog: how fields of the config are set.
    workdir: whether --workdir is the run whose settings are the config.
  """
  parser = command_line.make_parser(command, doc, allow_abbrev=False, epilog=epilog)
  config_help = "as for sum_l_jax.main, such as configs/demo.py; or a run, for its settings"
  about = {"required": True, "metavar": "FILE[:ARGUMENTS]", "help": config_help}
  if workdir:
    command_line.add_run(parser, "--config", **about)
  else:
    parser.add_argument("--config", **about)
  return parser


def add_stage(parser: argparse.ArgumentParser) -> None:
  """Adds --stage, which is "" for the last stage of the config."""
  from sum_l_jax.config import schema  # The other options do without it.

  stage_help = "stage of the training (default: the config's last)"
  parser.add_argument("--stage", choices=schema.STAGES, default="", help=stage_help)
