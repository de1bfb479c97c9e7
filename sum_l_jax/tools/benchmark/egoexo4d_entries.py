"""The benchmarks of Ego-Exo4D and of LaGTran, from what the command is given."""

from __future__ import annotations

from etils import epath
import numpy as np

from sum_l_jax import types
from sum_l_jax.data import segment_ids
from sum_l_jax.evaluation.benchmarks import ego2exo_files
from sum_l_jax.evaluation.benchmarks import ego2exo_transfer
from sum_l_jax.evaluation.benchmarks import keystep_files
from sum_l_jax.evaluation.benchmarks import keystep_recognition
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.benchmarks import same_segment
from sum_l_jax.tools.benchmark import benchmark_inputs

_VALIDATION = "validation"


def _official(inputs: benchmark_inputs.Inputs) -> epath.Path:
  if inputs.annotations is None:
    raise ValueError("--annotations must name the official files.")
  return inputs.annotations


def _score_keysteps(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  folder = _official(inputs)
  task = keystep_files.read_classes(keystep_files.find_file(folder, keystep_files.CLASSES_FILE))
  file = keystep_files.find_file(folder, keystep_files.FILES[_VALIDATION])
  segments = keystep_files.read_segments(file, task.num_classes)
  unlabelled = [segment.where for segment in segments if segment.label is None]
  if unlabelled:
    raise ValueError(f"{unlabelled[0]}: label_id is missing. Take the official file.")
  ids = [segment.clip_id(segment.ego) for segment in segments]
  scores = inputs.class_scores(ids, keystep_files.TASK, task.num_classes)
  return keystep_recognition.score(scores, np.array([segment.label for segment in segments]))


def _score_transfer(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  task, parts = ego2exo_files.read(_official(inputs))
  segments = parts[inputs.switches["target"], _VALIDATION]
  if not segments:
    raise ValueError(
      f"{str(inputs.annotations)!r} has no segment to validate on. Take the file as LaGTran's"
      " authors published it."
    )
  ids = [segment.clip_id for segment in segments]
  scores = inputs.class_scores(ids, ego2exo_files.TASK, task.num_classes)
  labels = np.array([segment.label for segment in segments])
  return ego2exo_transfer.score(scores, labels, absent=inputs.switches["absent"])


def _score_retrieval(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  found = {view: inputs.all_clips(view) for view in types.VIEWS}
  (ego_ids, ego), (exo_ids, exo) = found[types.EGO], found[types.EXO]
  if set(ego_ids) & set(exo_ids):
    raise ValueError(
      "The files of --embeddings must say which view a clip is of, in an array view [N] of 'ego'"
      " and 'exo', as `python -m sum_l_jax embed` writes it."
    )
  segments = [[segment_ids.segment_of(name) for name in ids] for ids in (ego_ids, exo_ids)]
  return same_segment.score(ego, exo, *segments)


_SCORES = "in that order; or scores_<split>.npz, as evaluation writes it, by the ids of the clips"

ENTRIES = (
  benchmark_inputs.Benchmark(
    keystep_recognition.PROTOCOL,
    annotations="folder of Ego-Exo4D's download, or its folder keystep_benchmark",
    views=(),
    score=_score_keysteps,
    matrix=f"[segments of keystep_segment_val.json, classes of label_mapping.csv] {_SCORES}",
  ),
  benchmark_inputs.Benchmark(
    same_segment.PROTOCOL,
    annotations="",
    views=types.VIEWS,
    score=_score_retrieval,
  ),
  benchmark_inputs.Benchmark(
    ego2exo_transfer.PROTOCOL,
    annotations="the file ego2exo.json",
    views=(),
    score=_score_transfer,
    switches={
      "target": benchmark_inputs.Switch(
        types.VIEWS, "the view whose validation segments are scored"
      ),
      "absent": benchmark_inputs.Switch(
        ego2exo_transfer.ABSENT,
        "whether a class without a segment counts 0 in the mean over classes, or is left out",
      ),
    },
    matrix=f"[segments of ego_val or exo_val, classes] {_SCORES}",
  ),
)
