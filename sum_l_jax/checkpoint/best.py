"""Which checkpoint of a stage is the best so far, and since when none was better.

`best.json` lies beside the checkpoints. It names one of them, which is kept however
many newer ones there are. It is written once that checkpoint is complete, and what
it says is also in the card of each checkpoint that follows: so a run that goes on
from any of them judges as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
import dataclasses
import json
import math
from typing import Any

from etils import epath

from sum_l_jax.system import checked_json
from sum_l_jax.system import storage

FILE = "best.json"
# Name under which a card has it.
CARD = "best"
_MEND = "Remove the file; a training with config.checkpoint.best writes it again."


@dataclasses.dataclass(frozen=True)
class Best:
  """The best of the evaluations so far.

  Attributes:
    metric: name of the metric, which is better the higher it is.
    step: steps taken by the best state; None before the first evaluation.
    value: its metric.
    evaluated: step of the last evaluation.
    waited: number of evaluations since the best one.
  """

  metric: checked_json.Name
  step: checked_json.Index | None = None
  value: checked_json.Finite | None = None
  evaluated: checked_json.Index = 0
  waited: checked_json.Index = 0

  def after(self, step: int, value: float) -> Best:
    """What is known after one more evaluation; of equal values the first is the best.

    Args:
      step: number of steps taken.
      value: metric of that state; one that is not finite is no improvement.
    """
    if math.isfinite(value) and (self.value is None or value > self.value):
      return Best(self.metric, step, value, evaluated=step)
    return dataclasses.replace(self, evaluated=step, waited=self.waited + 1)

  def is_among(self, steps: Collection[int]) -> bool:
    """Whether its checkpoint is one of these, or it names none.

    A value whose weights are gone would end a stage early, or keep every later
    checkpoint from being the best, and leave nothing to be evaluated.
    """
    return self.step is None or self.step in steps

  def to_json(self) -> str:
    """The text of the file."""
    return json.dumps(dataclasses.asdict(self))


def from_json(text: str) -> Best:
  """The inverse of `Best.to_json`."""
  return checked_json.decode(text, Best)


def of_card(card: Mapping[str, Any], where: str) -> Best | None:
  """What the card of a checkpoint says, if it says something.

  Raises:
    ValueError: the card is damaged.
  """
  if CARD not in card:
    return None
  try:
    return checked_json.check(card[CARD], Best)
  except checked_json.JsonError as error:
    raise ValueError(f"The card of the checkpoint {where} is damaged: {CARD}: {error}") from error


def read(folder: epath.Path) -> Best | None:
  """Reads the file in a folder of checkpoints, if there is one.

  Raises:
    ValueError: it is damaged.
  """
  if not storage.is_file(folder / FILE):
    return None
  return checked_json.read(folder / FILE, Best, mend=_MEND)


def write(folder: epath.Path, best: Best) -> None:
  """Writes the file, whole or not at all."""
  storage.write_text(folder / FILE, best.to_json() + "\n")
