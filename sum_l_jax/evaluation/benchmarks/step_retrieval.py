"""Retrieval of steps of EgoYC2 among those of YouCook2: its scores.

An ego video re-enacts one of YouCook2 at another time and in another place, and has
its sentences (`caption_files.py`). So a step's right answers are known although
nothing was filmed together: the exo steps of the same sentence. The protocol is this
library's own, since the data's authors published none for retrieval.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from sum_l_jax.data import narration_table
from sum_l_jax.evaluation.benchmarks import caption_files
from sum_l_jax.evaluation.benchmarks import gallery
from sum_l_jax.evaluation.benchmarks import protocol

PROTOCOL = protocol.Protocol(
  name="egoyc2_steps",
  title="EgoYC2 to YouCook2 step retrieval",
  source=(
    "Ohkawa et al., Exo2EgoDVC, WACV 2025; caption files of tkhkaeio/Exo2EgoDVC. The protocol is"
    " this library's own"
  ),
  definition=(
    "Each ego step of the evaluation file is a query, and all exo steps of the other evaluation"
    " file are keys. Right answers are the exo steps with the same sentence, whatever their"
    " video. all: the whole gallery. recipe: the steps of the same recipe type. video: the steps"
    " of the video that is re-enacted, so that the step must be told from its neighbours."
    " other_videos: all but that video, where few queries have an answer left; the others are"
    " left out, and counted. Recall at k is the share of queries with a right answer among the"
    " first k; median_rank is the rank of the first; map averages the precision at the ranks of"
    " all right answers. Equal scores are a tie, whose expectation over all orders is taken;"
    " chance is the expectation in random order, for the median rank the median of the"
    " queries' expected ranks."
  ),
)
# What each gallery holds, in the order of the metrics.
GALLERIES = ("all", "recipe", "video", "other_videos")


@dataclasses.dataclass(frozen=True)
class Steps:
  """Steps of one view, as arrays of texts `[N]`.

  Attributes:
    sentences: keys of the sentences (`narration_table.normalize_narration`).
    videos: ids of the exo videos: its own of an exo step, the one that is re-enacted
      of an ego step.
    recipes: types of the dishes.
    clip_ids: ids of the clips.
  """

  sentences: np.ndarray
  videos: np.ndarray
  recipes: np.ndarray
  clip_ids: np.ndarray

  def __len__(self) -> int:
    return len(self.sentences)

  @classmethod
  def of(cls, steps: Sequence[caption_files.Step], *, ego: bool) -> Steps:
    """The steps that caption files hold.

    Args:
      steps: the steps.
      ego: whether they are of EgoYC2, whose ids name the exo video.
    """
    name = caption_files.reenacted_video if ego else str
    return cls(
      np.array([narration_table.normalize_narration(step.sentence) for step in steps]),
      np.array([name(step.video_id) for step in steps]),
      np.array([step.recipe for step in steps]),
      np.array([step.clip_id for step in steps]),
    )


def score(scores: np.ndarray, ego: Steps, exo: Steps) -> protocol.Outcome:
  """Scores a ranking of exo steps for ego steps.

  Args:
    scores: float `[Q, M]`, of all exo steps for each ego step; higher is better.
    ego: the Q ego steps.
    exo: the M exo steps.

  Returns:
    The metrics of `PROTOCOL` by `<gallery>_<metric>`; NaN, and a note, where no query
    of a gallery has a right answer.

  Raises:
    ValueError: the matrix has another shape, or a score is not finite.
  """
  scores = np.asarray(scores, np.float64)
  if scores.shape != (len(ego), len(exo)):
    raise ValueError(
      f"The scores must have shape {(len(ego), len(exo))}, a row for each ego step and a column"
      f" for each exo step; got {scores.shape}."
    )
  same = lambda name: getattr(ego, name)[:, None] == getattr(exo, name)[None]
  right, recipe, video = same("sentences"), same("recipes"), same("videos")
  allowed = {"all": None, "recipe": recipe, "video": video, "other_videos": ~video}
  metrics: dict[str, protocol.Score] = {}
  counts = {"queries": len(ego), "keys": len(exo)}
  notes = []
  for name in GALLERIES:
    found = gallery.search(scores, right, allowed[name])
    for metric in gallery.METRICS:
      metrics[f"{name}_{metric}"] = (
        found.median() if metric == "median_rank" else found.score(metric)
      )
    answered = int((found.matches > 0).sum())
    counts[f"{name}_queries_with_answer"] = answered
    if not answered:
      notes.append(f"No query has a right answer in the gallery {name!r}.")
  return protocol.Outcome(metrics, counts, notes)
