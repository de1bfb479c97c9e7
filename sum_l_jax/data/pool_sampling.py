"""How stage one divides an epoch among several pools of clips.

| rule          | share of an epoch                    | each clip is shown          |
|---------------|--------------------------------------|-----------------------------|
| `clips`       | its clips                            | once                        |
| `square_root` | the square root of its clips         | the more often, the fewer   |
| `equal`       | the same for every pool              | most often in a small pool  |

An epoch has as many examples as the pools have clips, by every rule. Within a
pool no clip is shown again before all others were, over the borders of epochs
too. The order is a function of seed and epoch alone, so that a run resumes.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import functools

import numpy as np

from sum_l_jax import types
from sum_l_jax.data import examples

BY_CLIPS, SQUARE_ROOT, EQUAL = types.POOL_SAMPLING

_WEIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  BY_CLIPS: lambda sizes: sizes,
  SQUARE_ROOT: np.sqrt,
  EQUAL: np.ones_like,
}


def shares(sizes: Sequence[int], rule: str) -> list[int]:
  """Examples of each pool in an epoch; their sum is that of the sizes.

  Args:
    sizes: clips of each pool.
    rule: one of `types.POOL_SAMPLING`.

  >>> [shares([90, 10], rule) for rule in ("clips", "square_root", "equal")]
  [[90, 10], [75, 25], [50, 50]]
  """
  weights = _WEIGHTS[rule](np.asarray(sizes, np.float64))
  exact = weights / weights.sum() * sum(sizes)
  whole = np.floor(exact).astype(int)
  # The largest remainders take what rounding left over, the first pool first.
  left = np.argsort(whole - exact, kind="stable")[: sum(sizes) - whole.sum()]
  whole[left] += 1
  return whole.tolist()


@functools.lru_cache(maxsize=8)  # Batches of one epoch ask for it again and again.
def epoch_order(
  sizes: tuple[int, ...], rule: str, *, seed: int, view: str, epoch: int
) -> np.ndarray:
  """The clips of one epoch in their order, int64 `[clips]`.

  Args:
    sizes: clips of each pool; clips are numbered with the pools lined up.
    rule: one of `types.POOL_SAMPLING`.
    seed: seed of the run.
    view: view of the pools.
    epoch: number of the epoch.
  """
  total, stream = sum(sizes), examples.STREAMS[view]
  if rule == BY_CLIPS or len(sizes) == 1:
    return examples.make_rng(seed, "order", stream, epoch).permutation(total)
  parts = shares(sizes, rule)
  slots = examples.make_rng(seed, "order", stream, epoch).permutation(
    np.repeat(np.arange(len(sizes)), parts)
  )
  order = np.empty(total, np.int64)
  start = 0
  for pool, (size, part) in enumerate(zip(sizes, parts, strict=True)):
    # The pool's own endless order goes on where the epoch before left it.
    wanted = epoch * part + np.arange(part)
    rounds = wanted // size
    chosen = [
      _round(seed, stream, pool, int(number), size)[wanted[rounds == number] % size]
      for number in np.unique(rounds)
    ]
    order[slots == pool] = start + np.concatenate([np.empty(0, np.int64), *chosen])
    start += size
  return order


def _round(seed: int, stream: int, pool: int, number: int, size: int) -> np.ndarray:
  """The order in which a pool's clips are shown once."""
  return examples.make_rng(seed, "pool_order", stream, pool, number).permutation(size)
