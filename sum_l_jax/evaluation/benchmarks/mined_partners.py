"""How often a mined partner is right, where texts and right answers are known.

Mining takes for each ego clip the exo clip of the most similar sentence (Eq. 1 of the
paper). Whether that clip shows the same can't be told from unpaired data. Here it can:

* EgoYC2 re-enacts videos of YouCook2 (`caption_files.py`). Both have the same
  sentences, so a sentence itself would find its twin without fail. Either the video
  that is re-enacted is excluded, as mining of unpaired data never has it, and a
  partner is right if it is of the same dish; or the ego step's sentence is first
  replaced by another that means nearly the same (`two_hop`).
* The exo clips of EgoExoLearn have the same narration in two wordings, and the verbs
  and nouns of each.

Nothing here knows a model: `Similarity` compares texts.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

import numpy as np

from sum_l_jax.evaluation.benchmarks import gallery
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.benchmarks import step_retrieval

# Texts of queries and of keys -> float [Q, M], higher for more alike; the same number
# for equal texts.
Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]

EGOYC2 = protocol.Protocol(
  name="mined_partners_egoyc2",
  title="Partners that mining finds for EgoYC2 in YouCook2",
  source="Ohkawa et al., Exo2EgoDVC, WACV 2025; caption files of tkhkaeio/Exo2EgoDVC",
  definition=(
    "mined_*: the exo step of the most similar sentence, without the video that is re-enacted,"
    " is of the same recipe type; eval: evaluation steps among those of the evaluation file;"
    " eval_in_all: among those of both exo files; train: training steps among training steps."
    " two_hop_*: each ego sentence is replaced by its proxy, the different sentence that is"
    " nearest to it in another exo video of the same recipe type, of both exo files. Keys are"
    " the exo evaluation steps without the proxy's video. top1, top5: a step with the ego"
    " step's sentence is the first, or among the first five; true_step: the first is the step"
    " that was re-enacted; in_recipe, in_video: the keys are of the same recipe type, or of the"
    " video that is re-enacted. The proxy is chosen by overlap of words (two_hop) or by the"
    " similarity that is measured (own_proxy). exact_top1: the first key for the sentence"
    " itself has this sentence. Equal similarities are a tie, whose expectation is taken."
  ),
)
EGOEXOLEARN = protocol.Protocol(
  name="mined_partners_egoexolearn",
  title="Partners that mining finds among the exo narrations of EgoExoLearn",
  source=(
    "Huang et al., EgoExoLearn, CVPR 2024; association_benchmark/annotations/exo_train.csv of"
    " OpenGVLab/EgoExoLearn"
  ),
  definition=(
    "reworded_*: the narration with each hand in a sentence of its own is the query, all"
    " narrations as the annotators wrote them are the keys. top1, top5, top10: the clip itself"
    " is among the first; same_chinese_top1: the first has the same Chinese text. mined_*: the"
    " most similar narration of another video shares a verb and a noun (verb_and_noun), or has"
    " the same verbs and the same nouns (same_labels); clips without a verb or without a noun"
    " are no queries. Equal similarities are a tie, whose expectation is taken."
  ),
)


@dataclasses.dataclass(frozen=True)
class Narrated:
  """Narrated clips of EgoExoLearn, N of them.

  Attributes:
    sentences: narrations as annotated, texts `[N]`.
    reworded: the same in other words, texts `[N]`.
    originals: the Chinese texts that both were translated from, `[N]`.
    videos: ids of the videos, `[N]`.
    verbs: whether a clip has a verb, bool `[N, K]`.
    nouns: whether a clip has a noun, bool `[N, L]`.
  """

  sentences: np.ndarray
  reworded: np.ndarray
  originals: np.ndarray
  videos: np.ndarray
  verbs: np.ndarray
  nouns: np.ndarray

  def __len__(self) -> int:
    return len(self.sentences)


def mined(
  similarity: Similarity, ego: step_retrieval.Steps, exo: step_retrieval.Steps
) -> gallery.Best:
  """Partners of ego steps in other videos; right are those of the same recipe type."""
  return gallery.best(
    similarity(ego.sentences, exo.sentences),
    ego.recipes[:, None] == exo.recipes[None],
    ego.videos[:, None] != exo.videos[None],
  )


def proxies(
  similarity: Similarity, ego: step_retrieval.Steps, pool: step_retrieval.Steps
) -> np.ndarray:
  """The step whose sentence stands for each ego step's own, int64 `[Q]`; -1 for none.

  It is the most similar one in another video of the same recipe type whose sentence
  differs. Of equal similarities the alphabetically first sentence wins, then the
  first step.
  """
  order = np.argsort(pool.sentences, kind="stable")
  allowed = (
    (ego.recipes[:, None] == pool.recipes[None])
    & (ego.videos[:, None] != pool.videos[None])
    & (ego.sentences[:, None] != pool.sentences[None])
  )[:, order]
  scores = np.where(allowed, similarity(ego.sentences, pool.sentences)[:, order], -np.inf)
  return np.where(allowed.any(axis=1), order[scores.argmax(axis=1)], -1)


def two_hop(
  similarity: Similarity,
  proxy: np.ndarray,
  ego: step_retrieval.Steps,
  pool: step_retrieval.Steps,
  exo: step_retrieval.Steps,
) -> dict[str, gallery.Found]:
  """Searches with the sentences of proxies in the place of the ego steps' own.

  Args:
    similarity: the measure.
    proxy: step of `pool` for each ego step, see `proxies`; none may be -1.
    ego: the ego steps.
    pool: where the proxies are from.
    exo: the keys.

  Returns:
    What was found by name: "all", "true_step", "in_recipe", "in_video".
  """
  scores = similarity(pool.sentences[proxy], exo.sentences)
  right = ego.sentences[:, None] == exo.sentences[None]
  own = ego.videos[:, None] == exo.videos[None]
  others = pool.videos[proxy][:, None] != exo.videos[None]
  recipe = ego.recipes[:, None] == exo.recipes[None]
  return {
    "all": gallery.search(scores, right, others),
    "true_step": gallery.search(scores, right & own, others),
    "in_recipe": gallery.search(scores, right, others & recipe),
    "in_video": gallery.search(scores, right, others & own),
  }


def egoyc2(
  similarity: Similarity,
  overlap: Similarity,
  ego: dict[str, step_retrieval.Steps],
  exo: dict[str, step_retrieval.Steps],
) -> protocol.Outcome:
  """The numbers of `EGOYC2`.

  Args:
    similarity: what is measured.
    overlap: what chooses the proxies of `two_hop`, whatever is measured.
    ego: ego steps by split, "train" and "validation".
    exo: exo steps, likewise.
  """
  pool = _joined([exo["train"], exo["validation"]])
  queries, keys = ego["validation"], exo["validation"]
  metrics, counts = {}, {"queries": len(queries), "keys": len(keys), "pool": len(pool)}
  for name, some, among in (
    ("eval", queries, keys),
    ("eval_in_all", queries, pool),
    ("train", ego["train"], exo["train"]),
  ):
    found = mined(similarity, some, among)
    metrics[f"mined_{name}"] = found.precision()
    counts[f"mined_{name}_queries_with_answer"] = int((found.matches > 0).sum())
  for name, chooser in (("two_hop", overlap), ("own_proxy", similarity)):
    proxy = proxies(chooser, queries, pool)
    some = _chosen(queries, proxy >= 0)
    counts[f"{name}_queries"] = len(some)
    if not len(some):
      continue
    found = two_hop(similarity, proxy[proxy >= 0], some, pool, keys)
    metrics[f"{name}_top1"] = found["all"].score("recall_at_1")
    metrics[f"{name}_top5"] = found["all"].score("recall_at_5")
    metrics[f"{name}_true_step"] = found["true_step"].score("recall_at_1")
    metrics[f"{name}_in_recipe"] = found["in_recipe"].score("recall_at_1")
    metrics[f"{name}_in_video"] = found["in_video"].score("recall_at_1")
  right = queries.sentences[:, None] == keys.sentences[None]
  exact = gallery.best(similarity(queries.sentences, keys.sentences), right)
  metrics["exact_top1"] = exact.precision()
  return protocol.Outcome(metrics, counts)


def egoexolearn(similarity: Similarity, clips: Narrated) -> protocol.Outcome:
  """The numbers of `EGOEXOLEARN`."""
  metrics: dict[str, protocol.Score] = {}
  scores = similarity(clips.reworded, clips.sentences)
  itself = gallery.search(scores, np.eye(len(clips), dtype=bool))
  for k in (1, 5, 10):
    metrics[f"reworded_top{k}"] = itself.score(f"recall_at_{k}")
  same = gallery.best(scores, clips.originals[:, None] == clips.originals[None])
  metrics["reworded_same_chinese_top1"] = same.precision()
  labelled = np.flatnonzero(clips.verbs.any(axis=1) & clips.nouns.any(axis=1))
  scores = similarity(clips.sentences[labelled], clips.sentences)
  other = clips.videos[labelled][:, None] != clips.videos[None]
  counts = {
    "clips": len(clips),
    "videos": len(set(clips.videos.tolist())),
    "identical_rewordings": int((clips.sentences == clips.reworded).sum()),
    "mined_queries": len(labelled),
  }
  for name, right in (
    ("verb_and_noun", _share(clips.verbs, labelled) & _share(clips.nouns, labelled)),
    ("same_labels", _equal(np.hstack([clips.verbs, clips.nouns]), labelled)),
  ):
    found = gallery.best(scores, right, other)
    metrics[f"mined_{name}"] = found.precision()
    counts[f"mined_{name}_queries_with_answer"] = int((found.matches > 0).sum())
  return protocol.Outcome(metrics, counts)


def _share(labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
  """Whether a query and a clip have a label in common, bool `[Q, N]`."""
  counts = labels.astype(np.float32)
  return counts[queries] @ counts.T > 0


def _equal(labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
  """Whether a query and a clip have the same labels, bool `[Q, N]`."""
  _, kind = np.unique(labels, axis=0, return_inverse=True)
  kind = kind.reshape(-1)
  return kind[queries][:, None] == kind[None]


def _joined(parts: Sequence[step_retrieval.Steps]) -> step_retrieval.Steps:
  names = [field.name for field in dataclasses.fields(step_retrieval.Steps)]
  return step_retrieval.Steps(
    **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
  )


def _chosen(steps: step_retrieval.Steps, rows: np.ndarray) -> step_retrieval.Steps:
  names = [field.name for field in dataclasses.fields(steps)]
  return step_retrieval.Steps(**{name: getattr(steps, name)[rows] for name in names})
