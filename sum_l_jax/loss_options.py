"""The options of the losses: choices, default values and allowed ranges.

`config` and `losses` both read them here, so that each stands once. The names
of the options are the fields of `config.loss` and of `losses.Objective`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import math
from typing import Any
from typing import NamedTuple

# Forms of a loss that take any number of positives (`losses.many_positives`).
MANY_POSITIVES = ("ego_nce", "sup_con", "sigmoid", "max_margin", "adaptive_margin")
# What the cross-view term is; `losses.objective` says what each kind computes.
CROSS_VIEW = (
  *("weighted", "filtered", "decoupled", "info_nce", "triplet", "graded"),
  *MANY_POSITIVES,
)
# What the terms of video and text are: Eq. 6, or a form above.
VIDEO_TEXT = ("decoupled", *MANY_POSITIVES)
# What makes two clips positives of such a form: that they are a pair, that they share a
# class in each task, either of both, or that their narrations are similar.
POSITIVES = ("pair", "labels", "pair_or_labels", "narrations")
# What such a form compares in the cross-view term: ego clips with exo clips, or the
# clips of both views with the narrations of both.
COMPARED = ("clips", "narrations")
# Kinds that cannot be computed without narrations.
NARRATION_KINDS = ("weighted", "filtered", "graded")
# Which clips are an anchor's negatives: those of the other view, or also the
# other clips of its own view.
NEGATIVES = ("cross", "cross_and_same")
# Whether the pairs that the threshold leaves out still serve as negatives.
NEGATIVES_FROM = ("selected", "all")
# Which pairs the mean and the expectation of Eq. 9 and 10 are over. The paper
# writes N for both, and stars on the selected ones.
AVERAGE_OVER = ("selected", "all")
# Kinds whose threshold leaves pairs out, so that the two differ.
SELECTING_KINDS = ("weighted", "filtered")

# The paper gives none of these numbers; they are the released configuration's.
TEMPERATURE = 0.06
SIGMA = 0.1
THRESHOLD = 0.5
TRIPLET_MARGIN = 0.1
# The weights of Eq. 12, by term (`types.TERMS`).
WEIGHTS: Mapping[str, float] = {
  "ego_cls": 1.0,
  "exo_cls": 0.1,
  "ego_exo": 0.02,
  "ego_text": 0.1,
  "exo_text": 0.1,
}
# Beyond the paper: the temperature of the targets of "graded".
TARGET_TEMPERATURE = 0.06
# Those of SigLIP (its first bias) and of EgoVLP's fine-tuning for retrieval.
SIGMOID_BIAS = -10.0
RANKING_MARGIN = 0.2


class Rule(NamedTuple):
  """The values that an option may have.

  Attributes:
    holds: whether a value is allowed.
    text: the rest of the sentence "<option> must ...".
  """

  holds: Callable[[Any], bool]
  text: str


def _one_of(choices: tuple[str, ...]) -> Rule:
  return Rule(lambda value: value in choices, f"be one of {choices}")


_POSITIVE = Rule(lambda value: value > 0 and math.isfinite(value), "be finite and greater than 0")

RULES: Mapping[str, Rule] = {
  "cross_view": _one_of(CROSS_VIEW),
  "video_text": _one_of(VIDEO_TEXT),
  "positives": _one_of(POSITIVES),
  "compared": _one_of(COMPARED),
  "negatives": _one_of(NEGATIVES),
  "negatives_from": _one_of(NEGATIVES_FROM),
  "average_over": _one_of(AVERAGE_OVER),
  "negatives_group": Rule(
    lambda value: value == 0 or value >= 2,
    "be 0 (the global batch) or at least 2 (an example alone has no negatives)",
  ),
  "temperature": _POSITIVE,
  "sigma": _POSITIVE,
  "target_temperature": _POSITIVE,
  "triplet_margin": _POSITIVE,
  "ranking_margin": _POSITIVE,
  "sigmoid_bias": Rule(math.isfinite, "be finite"),
  "label_smoothing": Rule(lambda value: 0 <= value < 1, "lie in [0, 1)"),
  "threshold": Rule(
    lambda value: -1 <= value <= 1, "lie in [-1, 1], because it is compared with a cosine"
  ),
  "mask_duplicates": Rule(
    lambda value: 0 <= value <= 1,
    "be 0 (off) or a cosine in (0, 1], such as 0.99, from which two narrations"
    " count as saying the same",
  ),
}
WEIGHT_RULE = Rule(lambda value: value >= 0 and math.isfinite(value), "be finite and at least 0")


def check(name: str, value: Any, *, prefix: str = "") -> None:
  """Checks one option against its rule.

  Args:
    name: name of the option, a key of `RULES`, or "weights.<term>".
    value: value to check.
    prefix: text before the name in the message, such as "config.loss.".

  Raises:
    ValueError: the value is not allowed; the message says which are.

  >>> check("temperature", 0, prefix="config.loss.")
  Traceback (most recent call last):
  ValueError: config.loss.temperature must be finite and greater than 0, got 0.
  """
  rule = WEIGHT_RULE if name.startswith("weights.") else RULES[name]
  if not rule.holds(value):
    raise ValueError(f"{prefix}{name} must {rule.text}, got {value!r}.")
