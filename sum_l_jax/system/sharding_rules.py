"""Which axis of an array is divided among the devices that share one copy of it.

A rule is a text: a regular expression that is looked for in the array's path, an
arrow, and the axis. The first rule that fits holds, for parameters and for all that
lies below the same names elsewhere, such as the moments of an optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
import re

LARGEST, LARGEST_INNER, WHOLE = "largest", "largest_inner", "whole"
# The first axis of the arrays of a stack of blocks counts the blocks, of which one
# at a time is put together.
RULES = (f"/block/ -> {LARGEST_INNER}", f". -> {LARGEST}")
# Elements of an array, or of its part in one block, below which dividing it saves
# less memory than its exchange costs time.
WHOLE_BELOW = 2**16


@dataclasses.dataclass(frozen=True)
class Rule:
  """One line of the table.

  Attributes:
    pattern: what is looked for in an array's path.
    axis: "largest" is the largest axis that can be divided evenly; "largest_inner"
      likewise, but never the first; "whole" divides none; a number is this axis.
  """

  pattern: re.Pattern[str]
  axis: str | int


def read_rule(text: str) -> Rule:
  """Reads "heads/.*/kernel -> 0".

  Raises:
    ValueError: it reads otherwise.
  """
  pattern, arrow, axis = text.rpartition("->")
  axis = axis.strip()
  number = bool(re.fullmatch(r"-?\d+", axis))
  if not arrow or not pattern.strip() or not (number or axis in (LARGEST, LARGEST_INNER, WHOLE)):
    raise ValueError(
      "A rule must be a regular expression, an arrow and an axis, such as 'heads/ -> 0', where the"
      f" axis is a number, {LARGEST!r}, {LARGEST_INNER!r} (not the first) or {WHOLE!r}; got"
      f" {text!r}."
    )
  try:
    return Rule(re.compile(pattern.strip()), int(axis) if number else axis)
  except re.error as error:
    raise ValueError(f"The rule {text!r} has no regular expression: {error}.") from error


def find_axis(
  rules: Sequence[Rule], path: str, shape: Sequence[int], *, count: int, whole_below: int
) -> int | None:
  """The axis of an array that is divided among `count` devices, or None.

  Args:
    rules: the table.
    path: the array's place in the tree, "params/ego/encoder/norm/scale".
    shape: its shape.
    count: number of devices that share one copy.
    whole_below: elements of an array, or of its part in one block, below which it
      stays whole, unless its rule names the axis by number.

  Raises:
    ValueError: a rule names an axis that the array lacks, or that can't be divided
      evenly.
  """
  rule = next((rule for rule in rules if rule.pattern.search(path)), None)
  if rule is None or rule.axis == WHOLE:
    return None
  if isinstance(rule.axis, int):
    if not -len(shape) <= rule.axis < len(shape) or shape[rule.axis] % count:
      raise ValueError(
        f"config.mesh.rules: {rule.pattern.pattern!r} divides axis {rule.axis} of {path}, whose"
        f" shape is {tuple(shape)}, among {count} devices. Choose an axis that they can share"
        " evenly."
      )
    return rule.axis % len(shape)
  first = int(rule.axis == LARGEST_INNER)
  if math.prod(shape[first:]) < whole_below:
    return None
  fitting = [axis for axis in range(first, len(shape)) if shape[axis] % count == 0]
  return max(fitting, key=lambda axis: (shape[axis], -axis), default=None)
