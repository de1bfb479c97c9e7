"""Longer totals for a run that has begun, and what its stored config says of them.

A stage is extended by a `total` of more epochs or steps. From the step at which the
stage is, it follows the schedule of the new total, as if it had had that total from the
start: what is a share of the stage, such as a cosine, does not end where it would have
ended, and the rate may rise again.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
from typing import Any

from sum_l_jax.config import durations
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.system import checked_json


@dataclasses.dataclass(frozen=True)
class Extension:
  """A stage that got a longer total.

  Attributes:
    stage: the stage.
    before: its total until then, "30 epochs".
    total: its total from then on.
    step: number of steps that it had taken.
  """

  stage: str
  before: str
  total: str
  step: checked_json.Index


def grown(old: str, new: str) -> dict[str, tuple[str, str]]:
  """Stages whose total grows from one `to_json` text to another, with both totals.

  Empty where anything else differs that matters for training, but for boundaries of the
  learning rate in such a stage, which may lie later.
  """
  before, after = read.with_defaults(old), read.with_defaults(new)
  changed = read.changed_fields(old, new)
  totals = {}
  for stage in schema.STAGES:
    name = f"{stage}_stage.total"
    if name in changed and durations.is_longer(after[name], before[name]):
      totals[stage] = (before[name], after[name])
  allowed = {f"{stage}_stage.total" for stage in totals}
  for stage in totals:
    name = f"{stage}_stage.boundaries"
    pairs = list(zip(before[name], after[name], strict=False))
    same_or_later = all(a == b or durations.is_longer(b, a) for a, b in pairs)
    if len(before[name]) == len(after[name]) and same_or_later:
      allowed.add(name)
  return totals if set(changed) <= allowed else {}


def read_extensions(text: str) -> list[Extension]:
  """The extensions that a run's config.json tells of, the first one first.

  Raises:
    ValueError: the text is damaged.
  """
  try:
    found = checked_json.decode(text, checked_json.Object).get(read.EXTENDED, [])
    return checked_json.check(found, list[Extension])
  except checked_json.JsonError as error:
    raise ValueError(
      f"A run's saved config is damaged: {error}. Restore config.json in its workdir."
    ) from error


def with_extensions(text: str, extensions: Sequence[Extension]) -> str:
  """The text of config.json: settings, and the extensions where there are any."""
  if not extensions:
    return text
  fields: dict[str, Any] = json.loads(text)
  fields[read.EXTENDED] = [dataclasses.asdict(one) for one in extensions]
  return json.dumps(fields, indent=1, sort_keys=True)
