"""Narrated clips that lie in no file: all that pairing looks at."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from types import SimpleNamespace

from sum_l_jax import types
from sum_l_jax.data.moments import Moments

TASKS = {
  "verb": types.Task("verb", types.SOFTMAX, ("cut", "turn-on")),
  "noun": types.Task("noun", types.MULTI_LABEL, ("onion", "tap", "pan")),
}


@dataclasses.dataclass
class Dataset:
  """What pairing needs of a `records.ClipDataset`."""

  clips: tuple[SimpleNamespace, ...]
  fingerprint: str
  tasks: dict[str, types.Task] = dataclasses.field(default_factory=lambda: TASKS)
  name: str = "fake"
  split: str = "train"
  directory: str = "fake"
  labelled: bool = True

  @property
  def moments(self):
    return Moments(self.clips, self.tasks, {})

  @property
  def annotation_fingerprint(self):
    return self.fingerprint

  def __len__(self):
    return len(self.clips)


def make_dataset(
  narrations: Sequence[str],
  fingerprint: str = "f",
  labels: Sequence[Mapping[str, tuple[int, ...]]] = (),
  tasks: Mapping[str, types.Task] | None = None,
) -> Dataset:
  """A data set of clips with these narrations and labels."""
  labels = labels or [{"verb": (0,), "noun": (0,)}] * len(narrations)
  clips = tuple(
    SimpleNamespace(clip_id=str(i), narration=n, labels=label)
    for i, (n, label) in enumerate(zip(narrations, labels, strict=True))
  )
  return Dataset(clips, fingerprint, dict(tasks or TASKS))
