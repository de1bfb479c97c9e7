"""Lists the commands that prepare data and weights, and runs one of them.

python -m data_prep
python -m data_prep mine_pairs --ego=data/epic55 --exo=data/exo ...
"""

from __future__ import annotations

import sys

from sum_l_jax.system import commands

ABOUT = "Prepares data and weights, before training:"


def main(argv: list[str] | None = None) -> int:
  """Runs the command that the first argument names, or lists all."""
  return commands.main("python -m data_prep", ABOUT, commands.find("data_prep"), argv)


if __name__ == "__main__":
  sys.exit(main())
