"""Low-rank updates (LoRA) become part of the kernels that they belong to.

A layer computes x W + b + (alpha / r) x A B. Whoever reads weights gets
W + (alpha / r) A B in the place of W, and a network without low-rank updates:
prediction, export and starting weights need not know how the weights were
trained. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Tree = dict[str, Any]
_NAMES = ("lora_a", "lora_b")


def is_update(name: str) -> bool:
  """Whether a parameter, by its path, is half of a low-rank update."""
  return name.rpartition("/")[2] in _NAMES


def merge(params: Tree, card: Mapping[str, Any], source: str) -> tuple[Tree, dict[str, Any]]:
  """Adds the low-rank updates to their kernels.

  Args:
    params: nested dicts of numpy arrays.
    card: card of the weights, whose `lora_alpha` is the scale's numerator.
    source: where the weights come from, for the message.

  Returns:
    Parameters without low-rank updates, float32, and a card that says nothing
    of them. Both are the same where there are none.

  Raises:
    ValueError: there are low-rank updates and no `lora_alpha`, or one of them
      has lost its other half.
  """
  alpha = card.get("lora_alpha")

  def merged(tree: Tree, where: str) -> Tree:
    found: Tree = {
      name: merged(node, f"{where}{name}/") if isinstance(node, dict) else node
      for name, node in tree.items()
      if name not in _NAMES
    }
    if len(found) == len(tree):
      return found
    if alpha is None or len(tree) - len(found) != 2 or "kernel" not in found:
      raise ValueError(
        f"{source} has low-rank updates at {where!r} that can't be added to a kernel: it takes a"
        f" kernel, both factors, and 'lora_alpha' in the card, and there are {sorted(tree)} and"
        f" lora_alpha={alpha}. Copy the weights again."
      )
    found["kernel"] = _add(found["kernel"], tree["lora_a"], tree["lora_b"], alpha)
    return found

  return merged(params, ""), {name: value for name, value in card.items() if name != "lora_alpha"}


def _add(kernel: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
  """Computes kernel + alpha / r * a @ b, with the same bits on every machine.

  A matrix product adds in an order that depends on the machine, and digests of
  the weights would differ.
  """
  total = np.asarray(kernel, np.float64)
  rank = a.shape[-1]
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  for index in range(rank):
    total = total + alpha / rank * a[..., :, index, None] * b[..., index, None, :]
  return total.astype(np.float32)
