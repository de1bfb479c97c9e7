"""What commands that compare narrations are told: the data sets and the table."""

from __future__ import annotations

import argparse

from etils import epath

from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.system import command_line


def add(parser: argparse.ArgumentParser) -> None:
  """Adds the options `--ego`, `--exo`, `--narrations` and `--split`."""
  add = parser.add_argument
  add("--ego", required=True, metavar="DIR", help="first-person clip data set")
  add("--exo", required=True, metavar="DIR[,DIR...]", help="third-person clip data sets")
  add(
    "--narrations",
    required=True,
    type=epath.Path,
    metavar="FILE.npz",
    help="table written by data_prep.embed_narrations",
  )
  add("--split", default="train", help="split of all data sets (default: train)")


def read(
  args: argparse.Namespace,
) -> tuple[records.ClipDataset, list[records.ClipDataset], narration_table.NarrationTable]:
  """Reads what the options name.

  Returns:
    The ego data set, the exo data sets and the narration table.

  Raises:
    FileNotFoundError, ValueError: see `records.ClipDataset` and
      `NarrationTable.load`.
    ValueError: a data set is of the other view.
  """
  ego = records.ClipDataset(args.ego, args.split)
  exo = [records.ClipDataset(folder, args.split) for folder in command_line.names(args.exo)]
  for option, view, data in (
    ("--ego", types.EGO, ego),
    *(("--exo", types.EXO, data) for data in exo),
  ):
    if data.view != view:
      raise ValueError(
        f"{option} needs a data set of view {view!r};"
        f" {str(data.directory)!r} has view {data.view!r}. Swap the options,"
        f" or build it again with --view={view}."
      )
  return ego, exo, narration_table.NarrationTable.load(args.narrations)
