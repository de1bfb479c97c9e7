"""The vocabulary that all packages share: what crosses their borders.

Shape letters, the same in every docstring and einsum of this library:

  B  batch (examples of one step, over all devices)
  V  test views of one clip (temporal clips x spatial crops)
  T  frames of one clip        H, W, C  height, width, channels
  D  embedding (width of the text vectors)
  K  classes of one task       N  clips of a data set

Glossary:

  view         `ego` (first person, FPV, subscript f in the paper) or
               `exo` (third person, TPV, subscript t in the paper)
  clip         a labelled stretch of video, the unit of every data set
  test view    one crop of one temporal sample of a clip at test time
  pathway      `slow` or `fast`, the two frame rates of SlowFast
  narration    the short text that describes a clip
  pair         an ego clip and the exo clip whose narration is most similar
  task         one label set: `verb`, `noun`, `action` ...
  term         one summand of the total loss (Eq. 12)
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

# Pytrees of arrays; the concrete leaves are numpy on the host, jax on devices.
Array = Any
Batch = Mapping[str, Mapping[str, Any]]
Outputs = Mapping[str, Mapping[str, Any]]
Metrics = Mapping[str, float]

EGO = "ego"
EXO = "exo"
VIEWS = (EGO, EXO)

SOFTMAX = "softmax"
MULTI_LABEL = "multi_label"
TASK_KINDS = (SOFTMAX, MULTI_LABEL)

# The terms of Eq. 12, as keys of weights, losses and logs.
TERMS = ("ego_cls", "exo_cls", "ego_exo", "ego_text", "exo_text")


@dataclasses.dataclass(frozen=True)
class Task:
  """One label set.

  Attributes:
    name: for example "verb".
    kind: "softmax" (exactly one class a clip; labels are int32 `[B]`) or
      "multi_label" (any number of classes; labels are multi-hot float32
      `[B, K]`).
    class_names: the K names, position = class id.
  """

  name: str
  kind: str
  class_names: tuple[str, ...]

  def __post_init__(self):
    if self.kind not in TASK_KINDS:
      raise ValueError(f"Task {self.name!r}: kind must be one of {TASK_KINDS}, got {self.kind!r}.")
    if not self.class_names:
      raise ValueError(f"Task {self.name!r} has no classes.")

  @property
  def num_classes(self) -> int:
    return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip as a data set builder yields it.

  Attributes:
    clip_id: unique within the data set.
    frames: JPEG bytes, in time order, one item a frame.
    fps: frames a second.
    narration: the text, as annotated.
    labels: class ids by task name; exactly one id for a softmax task.
    video_id: the untrimmed video the clip was cut from.
    start_seconds: where in that video the clip starts.
  """

  clip_id: str
  frames: Sequence[bytes]
  fps: float
  narration: str
  labels: Mapping[str, Sequence[int]]
  video_id: str = ""
  start_seconds: float = 0.0
