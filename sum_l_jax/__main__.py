"""Lists the commands of sum_l_jax, and runs one of them.

python -m sum_l_jax
python -m sum_l_jax predict --checkpoint=runs/demo video.mp4

`sum-l` is the same, where the package is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import sys

from sum_l_jax.system import commands

ABOUT = """\
Trains two-view video encoders and puts them to use. Data and weights are
prepared with `python -m data_prep`."""


def find() -> dict[str, commands.Command]:
  """The commands by the name that is typed, training first."""
  train = commands.find("sum_l_jax")["main"]
  return {"train": dataclasses.replace(train, name="train"), **commands.find("sum_l_jax.tools")}


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command that the first argument names, or lists all."""
  return commands.main("sum-l", ABOUT, find(), arguments)


if __name__ == "__main__":
  sys.exit(main())
