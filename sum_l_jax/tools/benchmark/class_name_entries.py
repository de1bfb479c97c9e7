"""Benchmarks that classify clips by the names of classes."""

from __future__ import annotations

import numpy as np

from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import charades_ego_map
from sum_l_jax.evaluation.benchmarks import egtea_accuracy
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.tools.benchmark import benchmark_inputs

# LaViLa and EgoVLP put the name alone.
_TEMPLATES = ("{}",)


def _videos(inputs: benchmark_inputs.Inputs) -> charades_ego_map.Videos:
  return charades_ego_map.read_videos(inputs.folder, names=inputs.switches["names"])


def _score_charades(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  videos = _videos(inputs)
  scores = inputs.scores(videos.targets.shape)
  if scores is None:
    classes = inputs.class_vectors(inputs.sentences(videos.names))
    scores = inputs.similarity(inputs.clips(types.EGO, videos.clip_ids), classes)
  return charades_ego_map.score(scores, videos)


def _names(inputs: benchmark_inputs.Inputs) -> list[str]:
  return [name.lower() for name in egtea_accuracy.read_actions(inputs.folder).values()]


def _score_egtea(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  actions = egtea_accuracy.read_actions(inputs.folder)
  path = inputs.folder / f"test_split{inputs.switches['split']}.txt"
  clips = egtea_accuracy.read_split(path, list(actions))
  scores = inputs.scores((len(clips), len(actions)))
  if scores is None:
    classes = inputs.class_vectors(inputs.sentences(_names(inputs)))
    each = inputs.switches["views"] == "max"
    vectors = inputs.clips(types.EGO, [clip.clip_id for clip in clips], each_view=each)
    scores = inputs.similarity(vectors, classes)
    if each:
      scores = largest(scores, vectors)
  return egtea_accuracy.score(scores, clips, absent=inputs.switches["absent"])


def largest(scores: np.ndarray, vectors: np.ndarray) -> np.ndarray:
  """The largest score over the test views of a clip, `[N, K]`.

  Args:
    scores: `[N, V, K]`.
    vectors: `[N, V, D]`; a view that couldn't be read is zeros and doesn't count,
      unless the clip has no other.
  """
  read = np.any(vectors, axis=2, keepdims=True)
  counted = read | ~np.any(read, axis=1, keepdims=True)
  return np.where(counted, scores, -np.inf).max(axis=1)


def _name_texts(inputs: benchmark_inputs.Inputs, names: list[str]) -> list[str]:
  return [text for own in inputs.sentences(names) for text in own]


ENTRIES = (
  benchmark_inputs.Benchmark(
    charades_ego_map.PROTOCOL,
    annotations="folder with CharadesEgo_v1_test_only1st.csv and Charades_v1_classes.txt",
    views=(types.EGO,),
    score=_score_charades,
    texts=lambda inputs: _name_texts(inputs, list(_videos(inputs).names)),
    switches={
      "names": benchmark_inputs.Switch(
        charades_ego_map.NAMES,
        "whether class names are cut at their first comma, as the official reader does, or whole",
      )
    },
    templates=_TEMPLATES,
    matrix="[videos, 157 classes], in the order of the two files",
  ),
  benchmark_inputs.Benchmark(
    egtea_accuracy.PROTOCOL,
    annotations="folder with action_idx.txt and test_split1.txt",
    views=(types.EGO,),
    score=_score_egtea,
    texts=lambda inputs: _name_texts(inputs, _names(inputs)),
    switches={
      "split": benchmark_inputs.Switch(egtea_accuracy.SPLITS, "which test_split is scored"),
      "absent": benchmark_inputs.Switch(
        egtea_accuracy.ABSENT,
        "whether a class that is answered and has no clip counts 0 in the mean, or is left out",
      ),
      "views": benchmark_inputs.Switch(
        ("max", "mean"),
        "whether a score is the largest over a clip's test views, or that of their mean vector",
      ),
    },
    templates=_TEMPLATES,
    matrix="[clips, classes], in the order of the two files",
  ),
)
