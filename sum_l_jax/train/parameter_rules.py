"""Which parameters are trained, how fast, and which of them decay.

One rule says how fast: a factor of the learning rate for each array, a number,
or `[L, 1, ...]` where one array holds the parameters of L blocks. Layer-wise
decay, frozen layers and training of low-rank updates alone are all such factors.
An array whose factor is 0 everywhere is frozen. The step then differentiates
the loss with respect to the others only, so that a frozen array costs neither
a backward pass nor optimizer state, and does not decay.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import fnmatch
import re
from typing import Any

import numpy as np

from sum_l_jax import types
from sum_l_jax.models.layer_order import LayerOrder

Tree = dict[str, Any]
Factor = float | np.ndarray
# Ends of the paths of arrays that are no matrices of a linear map, whatever their
# shape is: tables of positions, class tokens, queries of a pooling or a probe.
_TABLES = re.compile(r"(^|/)(space|time|class_token|probe|projection_query|queries/[^/]+)$")
# Below it arrays have a first axis that counts blocks.
_STACK = re.compile(r"(^|/)\w*blocks/block/")


@dataclasses.dataclass(frozen=True)
class EncoderRates:
  """How fast the encoder of a view is trained.

  Layer i of L is trained at `factor * decay^(L + 1 - i)` of the learning rate,
  as in BEiT and VideoMAE: patches and positions are layer 0, the k-th block from
  0 is layer k + 1, and what follows the blocks is layer L + 1, like the heads.

  Attributes:
    order: which layer each parameter belongs to; None where nobody knows, and
      `decay` and `frozen` do not act.
    factor: factor of the whole encoder.
    decay: factor from one layer to the one before.
    frozen: number of layers at the start that are not trained, nor is what
      precedes them.
    all_frozen: whether nothing of the encoder is trained.
    lora_only: whether nothing but its low-rank updates is trained.
  """

  order: LayerOrder | None = None
  factor: float = 1.0
  decay: float = 1.0
  frozen: int = 0
  all_frozen: bool = False
  lora_only: bool = False

  def of(self, path: str, shape: Sequence[int]) -> Factor:
    """The factor of a parameter, by its path in the encoder's tree."""
    if self.all_frozen or (self.lora_only and not is_lora(path)):
      return 0.0
    if self.order is None:
      return self.factor
    layer = self.order.layer(path, shape)
    found = self.factor * self.decay ** (self.order.count + 1.0 - layer)
    found = np.where(np.asarray(layer) > self.frozen if self.frozen else True, found, 0.0)
    if found.min() == found.max():
      return float(found.flat[0])
    return found.astype(np.float32)


def is_lora(path: str) -> bool:
  """Whether a path is that of a low-rank update."""
  return path.rpartition("/")[2] in ("lora_a", "lora_b")


def has_lora(params: Tree) -> bool:
  """Whether a tree of parameters has low-rank updates."""
  found: list[bool] = []
  _map(lambda path, _: found.append(is_lora(path)), params)
  return any(found)


def factors(params: Tree, rates: Mapping[str, EncoderRates]) -> Tree | None:
  """Makes the factors of the learning rate.

  Args:
    params: parameters by view, arrays or their shapes. Encoders are at
      `<view>/encoder`; all else is trained at the rate itself.
    rates: how fast the encoder of a view is trained; 1 where absent.

  Returns:
    A factor for each parameter; None where all are 1.
  """

  def factor(path: str, leaf: Any) -> Factor:
    view, _, rest = path.partition("/")
    part, _, inner = rest.partition("/")
    return rates[view].of(inner, leaf.shape) if part == "encoder" and view in rates else 1.0

  found = _map(factor, params)
  return None if all(np.all(f == 1.0) for f in _leaves(found)) else found


def split(tree: Tree, factors: Tree | None) -> tuple[Tree, Tree]:
  """Divides a tree of parameters into what is trained and what is frozen.

  Args:
    tree: parameters, or anything of their structure.
    factors: factors of the learning rate; None where everything is trained.

  Returns:
    Two trees that have some of the leaves each; see `join`.
  """
  if factors is None:
    return tree, {}
  trained: Tree = {}
  frozen: Tree = {}
  for name, node in tree.items():
    if isinstance(node, dict) and node:
      for part, side in zip(split(node, factors[name]), (trained, frozen), strict=True):
        if part:
          side[name] = part
    else:
      is_frozen = isinstance(node, dict) or not np.any(factors[name])
      (frozen if is_frozen else trained)[name] = node
  return trained, frozen


def join(one: Tree, other: Tree) -> Tree:
  """The inverse of `split`: the leaves of both trees; `one` wins where both have one."""
  joined = dict(other)
  for name, node in one.items():
    there = joined.get(name)
    joined[name] = join(node, there) if isinstance(node, dict) and there else node
  return joined


def decay_mask(
  params: Tree,
  rule: str = "all_but_norm",
  *,
  also: Sequence[str] = (),
  never: Sequence[str] = (),
) -> Tree:
  """Marks with True where weight decay applies.

    all_but_norm  everything but the scales and biases of normalisations, as in
                  PySlowFast: the biases of linear layers decay
    matrices      kernels alone: no biases, normalisations, positions, class
                  tokens or queries of a pooling, as in timm and VideoMAE

  Args:
    params: parameters, arrays or their shapes.
    rule: one of `types.DECAY_RULES`.
    also: patterns of paths that decay too, such as "*/space" for positions.
    never: patterns of paths that don't, whatever else says.

  Raises:
    ValueError: the rule is unknown, or a pattern fits no parameter.
  """
  choose = {"all_but_norm": _all_but_norm, "matrices": _matrices}
  if rule not in choose:
    raise ValueError(f"decay_rule must be one of {types.DECAY_RULES}, got {rule!r}.")
  paths: list[str] = []
  _map(lambda path, _: paths.append(path), params)
  for pattern in (*also, *never):
    if not fnmatch.filter(paths, pattern):
      raise ValueError(
        f"The pattern {pattern!r} of weight decay fits no parameter. Parameters are named by their"
        f" path, such as {paths[0]!r}; '*' stands for anything."
      )
  fits = lambda path, patterns: any(fnmatch.fnmatchcase(path, p) for p in patterns)
  chosen = choose[rule](params)
  flags = iter(_leaves(chosen))

  def mark(path: str, _: Any) -> bool:
    return (next(flags) or fits(path, also)) and not fits(path, never)

  return _map(mark, params)


def _all_but_norm(params: Tree) -> Tree:
  if "scale" in params and not any(isinstance(node, dict) for node in params.values()):
    return dict.fromkeys(params, False)
  return {
    name: _all_but_norm(node) if isinstance(node, dict) else True for name, node in params.items()
  }


def _matrices(params: Tree) -> Tree:
  def is_matrix(path: str, leaf: Any) -> bool:
    rank = len(leaf.shape) - bool(_STACK.search(path))
    return rank > 1 and not _TABLES.search(path)

  return _map(is_matrix, params)


def _map(function: Callable[[str, Any], Any], tree: Tree, prefix: str = "") -> Tree:
  """A tree of what a function makes of the path and value of each leaf."""
  return {
    name: _map(function, node, f"{prefix}{name}/")
    if isinstance(node, dict)
    else function(prefix + name, node)
    for name, node in tree.items()
  }


def _leaves(tree: Tree) -> list[Any]:
  found = []
  _map(lambda _, leaf: found.append(leaf), tree)
  return found
