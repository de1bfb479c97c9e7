"""Prepares data and weights, offline."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"]:
  # As in `sum_l_jax`: `python -m data_prep.NAME` is explained where there is no NAME.
  from sum_l_jax.system import commands

  commands.check_module(__name__)
