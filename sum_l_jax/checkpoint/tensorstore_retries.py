"""How long TensorStore, which moves the arrays, tries again where a bucket fails."""

from __future__ import annotations

from typing import Any

from orbax.checkpoint._src.serialization import tensorstore_utils

from sum_l_jax.system import retries

# TensorStore's first and longest pause, in seconds; each one is about twice as long
# as the one before.
_FIRST, _LONGEST = 1.0, 32.0
# Orbax copies them for each of its contexts, and has no setting for the tries.
_CONTEXTS = ("_BASE_TS_CONTEXT", "_DEFAULT_OCDBT_TS_CONTEXT")


def tries(patience: float, first: float = _FIRST, longest: float = _LONGEST) -> int:
  """How often to try again, so that the pauses together last about `patience`."""
  count, pause = 0, first
  while patience > 0:
    patience -= pause
    pause = min(2 * pause, longest)
    count += 1
  return count


def limit() -> None:
  """Bounds the tries of what Orbax reads and writes from now on.

  Without it a request that always fails is tried 32 times, for a quarter of an
  hour. The bound is `retries.patience`, which the pauses of a single request keep.

  Raises:
    RuntimeError: this version of Orbax has no such place any more.
  """
  patience = retries.patience()
  first = min(_FIRST, retries.FIRST_PAUSE * 2)
  for name in _CONTEXTS:
    context: Any = getattr(tensorstore_utils, name, None)
    if not isinstance(context, dict):
      raise RuntimeError(
        f"Orbax's {name} isn't what it was in the versions that setup.py allows; install one of"
        " those."
      )
    context["gcs_request_retries"] = {
      "max_retries": tries(patience, first),
      "initial_delay": f"{first:g}s",
      "max_delay": f"{_LONGEST:g}s",
    }
