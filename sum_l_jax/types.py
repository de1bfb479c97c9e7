"""The vocabulary of the library: what crosses the borders between its rooms.

Shape letters, the same in every docstring and einsum:

    B        batch: examples of one step, over all devices
    V        test views of one clip: temporal samples x spatial crops
    T        frames of one clip
    H, W, C  height, width, channels
    N        tokens of one clip, where an encoder ran before; in evaluation, the
             clips of a data set
    D        embedding: width of the text vectors
    K        classes of one task

Glossary:

    view       `ego` (first person, FPV, subscript f in the paper) or
               `exo` (third person, TPV, subscript t in the paper)
    clip       a labelled stretch of video, the unit of every data set
    moment     what training narrates and pairs: a clip, or the windows of an
               untrimmed clip that show the same actions
    pool       one of the exo data sets that training draws partners from
    test view  one crop of one temporal sample of a clip at test time
    pathway    `slow` or `fast`, the two frame rates of SlowFast
    narration  the short text that describes a clip
    pair       an ego clip and the exo clip whose narration is most similar
    task       one label set: `verb`, `noun`, `action` ...
    term       one summand of the total loss (Eq. 12)
"""

from __future__ import annotations

if __name__ == "types":
  # Python looks for its own module of this name here, where a file of this folder runs as
  # a script, as in `python sum_l_jax/main.py`. Nothing can be imported then, so Python
  # starts once more, with the file as a module of the package.
  import os
  import sys

  _here = os.path.dirname(os.path.abspath(__file__))
  _script = os.path.abspath(sys.argv[0])
  if sys.argv[0] in ("-m", "-c", "") or _here not in (_script, os.path.dirname(_script)):
    raise ImportError(
      f"{_here!r} must not be in Python's path, where {__file__!r} is taken for Python's own"
      " module: start Python in the folder above it, which PYTHONPATH may name."
    )
  _module = os.path.relpath(_script, os.path.dirname(_here)).removesuffix(".py")
  _options = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv)]
  _path = [os.path.dirname(_here), *filter(None, [os.environ.get("PYTHONPATH")])]
  os.environ["PYTHONPATH"] = os.pathsep.join(_path)
  # -P leaves the working folder, which may be this one, out of Python's path.
  _module = _module.replace(os.sep, ".")
  os.execv(sys.executable, [sys.executable, *_options, "-P", "-m", _module, *sys.argv[1:]])

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import typing
from typing import Any
from typing import NamedTuple
from typing import NotRequired
from typing import TypeAlias
from typing import TypedDict

if typing.TYPE_CHECKING:  # Commands print their help without either.
  import jax
  import numpy as np

# Mean and standard deviation of the pixels in [0, 1] that encoders see, RGB:
# PySlowFast's and the SUM-L authors' ("video"); ImageNet's, of mmaction2, V-JEPA,
# VideoMAE and DINOv2; none ("unit", VideoPrism); those that bring pixels to
# [-1, 1] ("half", SigLIP); and LaViLa's and AVION's, whose first mean is not
# CLIP's 122.77 ("lavila").
NORMALIZATIONS = {
  "video": ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
  "imagenet": (
    (123.675 / 255, 116.28 / 255, 103.53 / 255),
    (58.395 / 255, 57.12 / 255, 57.375 / 255),
  ),
  "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
  "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
  "lavila": (
    (108.327 / 255, 116.746 / 255, 104.094 / 255),
    (68.501 / 255, 66.632 / 255, 70.323 / 255),
  ),
}

# numpy on the host, JAX on devices and under `jit`.
Array: TypeAlias = "np.ndarray | jax.Array"


class ViewInputs(TypedDict):
  """What the model reads of one view: a video, or what an encoder made of it.

  Attributes:
    video: uint8 `[B, T, H, W, 3]`, RGB. Pixels stay bytes until the device.
    color_offset: float32 `[B, 3]`, added to RGB on the scale 0..1.
    tokens: bfloat16, float16 or float32 `[B, N, C]`, in the place of both.
  """

  video: NotRequired[Array]
  color_offset: NotRequired[Array]
  tokens: NotRequired[Array]


_INPUTS = ("video", "color_offset", "tokens")


def inputs_of(part: Mapping[str, Any]) -> dict[str, Any]:
  """What the model reads of one view of a batch."""
  return {name: part[name] for name in _INPUTS if name in part}


class Mixed(TypedDict):
  """The clips that were mixed into those of a batch (`train.mixing`).

  Attributes:
    share: float32 `[B]`, the clip's own share of its row.
    labels: labels of the other clip, as in `ViewBatch`.
    known: classes that were looked for in the other clip.
    mask: 1 for a row whose other clip counts.
  """

  share: Array
  labels: Mapping[str, Array]
  known: NotRequired[Mapping[str, Array]]
  mask: Array


class ViewBatch(ViewInputs):
  """One view of a batch, padded to B rows.

  Attributes:
    labels: by task, int32 `[B]` (softmax; -1 where unknown) or multi-hot
      float32 `[B, K]` (multi_label).
    known: by task, bool `[B, K]`: the classes that were looked for when the
      clip was labelled. A task is absent where these are all classes of all
      clips.
    mask: float32 `[B]`, 1 for a row that counts and 0 for padding.
    clip: int32 `[B]`, positions in the data set.
    pool: int32 `[B]`, which exo data set; of the exo view in training.
    view: int32 `[B]`, which test view; at test time.
    narration: float32 `[B, D]` of unit norm, where there is a narration table.
    mixed: labels of the clips that were mixed into these, in training.
  """

  labels: Mapping[str, Array]
  known: NotRequired[Mapping[str, Array]]
  mask: Array
  clip: Array
  pool: NotRequired[Array]
  view: NotRequired[Array]
  narration: NotRequired[Array]
  mixed: NotRequired[Mixed]


class ViewOutputs(TypedDict):
  """What the model gives for one view.

  Attributes:
    logits: by task, float32 `[B, K]`; with a pooling window float32
      `[B, positions, K]`.
    features: float32 `[B, C]`, the encoder's pooled feature, which the heads and
      the projection read where there is no probe.
    stages: by stage and pathway, `[B, T', H', W', C']`.
    tokens: `[B, N, C]`, the encoder's tokens, time first, where it has any.
    embedding: float32 `[B, D]` of unit norm, where there is a projection.
  """

  logits: Mapping[str, jax.Array]
  features: jax.Array
  stages: Mapping[str, Mapping[str, jax.Array]]
  tokens: NotRequired[jax.Array]
  embedding: NotRequired[jax.Array]


# By view.
Batch = Mapping[str, ViewBatch]
Outputs = Mapping[str, ViewOutputs]
# By name, in [0, 1], going up when things get better.
Metrics = Mapping[str, float]

EGO = "ego"
EXO = "exo"
VIEWS = (EGO, EXO)

SOFTMAX = "softmax"
MULTI_LABEL = "multi_label"
TASK_KINDS = (SOFTMAX, MULTI_LABEL)

# The terms of Eq. 12, as keys of weights, losses and logs.
TERMS = ("ego_cls", "exo_cls", "ego_exo", "ego_text", "exo_text")

# Which frames of a clip an encoder sees, `data.sampling`: frames at a distance, or
# one of each of equal parts.
BY_STRIDE = "stride"
IN_PARTS = "parts"
FRAME_SAMPLING = (BY_STRIDE, IN_PARTS)

# How an epoch of stage one is divided among the pools, `data.pool_sampling`.
POOL_SAMPLING = ("clips", "square_root", "equal")

# What class heads and projection read of an encoder, `models.probes`: its pooled
# feature, or what a probe makes of its tokens.
LINEAR_HEAD = "linear"
HEADS = (LINEAR_HEAD, "attentive", "pooler")

# What the towers of a view get: videos, or what an encoder made of them before
# (`data.feature_store`).
FRAMES = "frames"
TOKENS = "tokens"
INPUTS = (FRAMES, TOKENS)

# Policies of RandAugment in timm's notation, `data.rand_augment`.
RAND_AUGMENT = r"rand(-(m(10|\d)|n[1-9]|mstd\d+(\.\d+)?|inc[01]))*"

OPTIMIZERS = ("sgd", "adamw")
# What decays, `train.parameter_rules`.
DECAY_RULES = ("all_but_norm", "matrices")
SCHEDULES = ("cosine", "cosine_after_warmup", "relative_steps")


@dataclasses.dataclass(frozen=True)
class Task:
  """One label set.

  Attributes:
    name: name of the label set, for example "verb".
    kind: "softmax" (exactly one class for each clip; labels are int32 `[B]`) or
      "multi_label" (any number of classes; labels are multi-hot float32
      `[B, K]`).
    class_names: K names; their positions are the class ids.
  """

  name: str
  kind: str
  class_names: tuple[str, ...]

  def __post_init__(self) -> None:
    if self.kind not in TASK_KINDS:
      raise ValueError(f"Task {self.name!r}: kind must be one of {TASK_KINDS}, got {self.kind!r}.")
    if not self.class_names:
      raise ValueError(f"Task {self.name!r} has no classes.")

  @property
  def num_classes(self) -> int:
    """K."""
    return len(self.class_names)


class SharedTask(NamedTuple):
  """One label set of all views, whose classes are compared by name.

  Attributes:
    name: name of the label set.
    num_classes: number of class names of all views together.
    heads: view, name of a head, and for each class of that head its position among
      all class names. A view may have two heads of one label set, where its pools
      have both kinds of it (`data.label_union`).
  """

  name: str
  num_classes: int
  heads: tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip as a data set builder yields it.

  Attributes:
    clip_id: unique within the data set.
    frames: JPEG bytes of each frame, in time order.
    fps: frames per second.
    narration: text as annotated.
    labels: class ids by task; exactly one id for a softmax task.
    video_id: untrimmed video that the clip was cut from.
    start_seconds: time at which the clip starts in that video.
    actions: where the clip is a whole video of which samples are labelled by
      what they touch: class, first frame and last frame of each action by task.
  """

  clip_id: str
  frames: Sequence[bytes]
  fps: float
  narration: str
  labels: Mapping[str, Sequence[int]]
  video_id: str = ""
  start_seconds: float = 0.0
  actions: Mapping[str, Sequence[tuple[int, int, int]]] = dataclasses.field(default_factory=dict)
