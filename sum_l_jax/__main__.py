"""Lists the commands of sum_l_jax, and runs one of them.

python -m sum_l_jax
python -m sum_l_jax predict --checkpoint=runs/demo video.mp4
python -m sum_l_jax --import=my_encoder.py predict --checkpoint=runs/own video.mp4

A file of --import is run first; it registers an encoder or a term of the loss.
`sum-l` and `sum_l_jax` are the same, where the package is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import sys

from sum_l_jax.system import commands
from sum_l_jax.system import python_files

_IMPORT = "--import="
ABOUT = """\
Trains two-view video encoders and puts them to use. Data and weights are
prepared with `python -m data_prep`."""

# Names of the console scripts.
PROGRAMS = ("sum-l", "sum_l_jax")
_RUN = "python -m sum_l_jax train --workdir=RUN"
# What people call what a training command does.
_WORDS = {
  **dict.fromkeys(("main", "run", "fit"), "python -m sum_l_jax train --config=FILE --workdir=RUN"),
  **dict.fromkeys(("resume", "continue", "extend"), _RUN),
  **dict.fromkeys(("eval", "evaluate", "test", "validate"), f"{_RUN} --mode=eval"),
}


def find() -> dict[str, commands.Command]:
  """The commands by the name that is typed, training first."""
  train = commands.find("sum_l_jax")["main"]
  return {"train": dataclasses.replace(train, name="train"), **commands.find("sum_l_jax.tools")}


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command that the first argument names, or lists all."""
  program = os.path.basename(sys.argv[0])
  prog = program if program in PROGRAMS else "python -m sum_l_jax"
  given = list(sys.argv[1:] if arguments is None else arguments)
  while given and given[0].startswith(_IMPORT):
    try:
      python_files.load(given.pop(0).removeprefix(_IMPORT), "--import")
    except ValueError as error:
      sys.stderr.write(f"error: {error}\n")
      return 2
  return commands.main(prog, ABOUT, find(), given, _WORDS)


if __name__ == "__main__":
  sys.exit(main())
