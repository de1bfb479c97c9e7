"""Pauses between tries, made short: for tests whose storage fails often.

`install` shortens those of this project and of the clients that it uses. How
often they try stays as it is. Run as a module, it shortens them for another one:

  python -m tests.support.short_back_offs sum_l_jax.main --config=... --workdir=...
"""

from __future__ import annotations

import asyncio
import runpy
import sys
import types

from sum_l_jax.system import retries

_FACTOR = 0.01


def install() -> None:
  """Shortens the pauses of this process, from now on."""
  import gcsfs.retry

  retries.FIRST_PAUSE = 0.01
  # That module uses nothing else of asyncio.
  gcsfs.retry.asyncio = types.SimpleNamespace(
    sleep=lambda seconds: asyncio.sleep(_FACTOR * seconds)
  )


def main() -> None:
  install()
  module = sys.argv[1]
  sys.argv = sys.argv[1:]
  runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
  main()
