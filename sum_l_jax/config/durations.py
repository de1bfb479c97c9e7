"""Durations with a unit, "30 epochs", and the steps that they are."""

from __future__ import annotations

import dataclasses
import re

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)[\s_]*(steps?|epochs?|percent|%)\s*")


def check(duration: str, field: str) -> re.Match[str]:
  """Checks that a text is a duration.

  Raises:
    ValueError: it is not; names the config's field.
  """
  match = _DURATION.fullmatch(str(duration))
  if not match:
    raise ValueError(
      f"config.{field} must be a duration such as '30 epochs', '300 steps'"
      f" or '10 percent', got {duration!r}."
    )
  return match


def is_longer(duration: str, than: str) -> bool:
  """Whether a duration is more of the same unit than another; False for other units."""
  found = [_DURATION.fullmatch(str(text)) for text in (duration, than)]
  if not (found[0] and found[1]):
    return False
  (more, unit), (less, other) = (match.groups() for match in found if match)
  return unit[0] == other[0] and float(more) > float(less)


@dataclasses.dataclass(frozen=True)
class Clock:
  """Turns the durations of one stage into steps; the only place that does.

  Attributes:
    num_clips: clips of one epoch.
    batch_size: clips of one step, over all devices.
    total: steps of the stage, for percentages; None while it is not known.
  """

  num_clips: int
  batch_size: int
  total: int | None = None

  def steps(self, duration: str, field: str) -> int:
    """Steps of a duration.

    Args:
      duration: text with a unit: epochs, steps or percent.
      field: name of the config's field, for messages.

    Raises:
      ValueError: the text is unreadable, or a percentage without a whole.
    """
    match = check(duration, field)
    amount, unit = float(match.group(1)), match.group(2)
    if unit.startswith("step"):
      return round(amount)
    if unit.startswith("epoch"):
      return round(amount * self.num_clips / self.batch_size)
    if self.total is None:
      raise ValueError(
        f"config.{field} cannot be a percentage, got {duration!r}: it defines"
        " the whole. Give epochs or steps."
      )
    return round(amount / 100 * self.total)
