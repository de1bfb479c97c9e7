"""Steps whose loss, gradient or update is not finite, and their clips."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from sum_l_jax.data import records

# From this many in a row on, the weights are bad and not a batch.
_MOST_IN_A_ROW = 20

Datasets = Mapping[str, Sequence[records.ClipDataset]]
# Numbers of the clips of a batch, and of their pools, by view.
Numbers = Mapping[str, Mapping[str, Any]]


class NonFiniteLossError(ValueError):
  """The loss, its gradient or the update became NaN or infinite."""


@dataclasses.dataclass
class Watch:
  """Answers a step that is not finite by an error or a line in the log.

  Attributes:
    stage: name of the stage, for messages.
    datasets: data sets by view, in which a batch's numbers find their clips.
    skip: whether such a step applied no update, so that training goes on.
    skipped: how many such steps there were.
  """

  stage: str
  datasets: Datasets
  skip: bool
  skipped: int = 0
  _in_a_row: int = 0

  def look(
    self, step: int, finite: bool, loss: float, batch: Numbers, saved: Callable[[], int | None]
  ) -> None:
    """Looks at one step that was taken.

    Args:
      step: number of the step, from 0.
      finite: whether its loss, gradient and update were finite.
      loss: value of its loss.
      batch: numbers of its clips.
      saved: gives the step of the last good checkpoint, or None.

    Raises:
      NonFiniteLossError: the step was not finite and steps are not skipped, or
        too many in a row were not.
    """
    if finite:
      self._in_a_row = 0
      return
    self.skipped += 1
    self._in_a_row += 1
    good = saved()
    what = (
      f"Step {step} of stage {self.stage!r} is not finite: the loss is"
      f" {loss:g}{'' if np.isnan(loss) or np.isinf(loss) else _OTHERWISE}."
      f" Its clips: {self._clips(batch)}. The last good checkpoint is"
      f" {'none yet' if good is None else f'step {good}'}."
    )
    if not self.skip:
      raise NonFiniteLossError(
        f"{what} Lower config.{self.stage}_stage.learning_rate, set"
        " clip_norm, or add a warm-up; config.on_non_finite='skip' leaves out"
        " single steps."
      )
    if self._in_a_row >= _MOST_IN_A_ROW:
      raise NonFiniteLossError(
        f"{what} {self._in_a_row} steps in a row were skipped: this is not a"
        " bad batch. Go back to an earlier checkpoint, or start again with a"
        f" lower config.{self.stage}_stage.learning_rate."
      )
    logging.warning("%s Skipped: nothing was learnt from it.", what)

  def _clips(self, batch: Numbers) -> str:
    """Ids of the clips of a batch, by view."""
    texts = []
    for view, pools in self.datasets.items():
      if view not in batch:
        continue
      clips = _fetch(batch[view]["clip"])
      of = _fetch(batch[view]["pool"]) if "pool" in batch[view] else 0 * clips
      ids = [pools[p].clips[c].clip_id for p, c in zip(of, clips)]
      texts.append(f"{view} {', '.join(ids)}")
    return "; ".join(texts)


_OTHERWISE = ", but the gradient or the update is not"


def _fetch(array: Any) -> np.ndarray:
  """The whole of an array that is split over devices of several hosts."""
  if jax.process_count() > 1:
    with jax.transfer_guard("allow"):
      return np.asarray(multihost_utils.process_allgather(array, tiled=True))
  return jax.device_get(array)
