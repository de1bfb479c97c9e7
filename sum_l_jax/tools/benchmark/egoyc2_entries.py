"""Step retrieval of EgoYC2, from what the command is given."""

from __future__ import annotations

from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import caption_files
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.benchmarks import step_retrieval
from sum_l_jax.tools.benchmark import benchmark_inputs


def _steps(inputs: benchmark_inputs.Inputs, dataset: str) -> step_retrieval.Steps:
  assert inputs.annotations is not None
  files = caption_files.find_files(inputs.annotations, dataset)
  split = inputs.switches["split"]
  if split not in files:
    raise ValueError(
      f"--annotations must be the folder with the files of both views, and has none of {dataset}"
      f" for the split {split!r}. Give the folder {caption_files.RELEASE} lies in."
    )
  steps = caption_files.read_steps(files[split])
  return step_retrieval.Steps.of(steps, ego=caption_files.VIEWS[dataset] == types.EGO)


def _score(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  ego, exo = _steps(inputs, "egoyc2"), _steps(inputs, "youcook2")
  scores = inputs.scores((len(ego), len(exo)))
  if scores is None:
    queries = inputs.clips(types.EGO, ego.clip_ids.tolist())
    scores = inputs.similarity(queries, inputs.clips(types.EXO, exo.clip_ids.tolist()))
  return step_retrieval.score(scores, ego, exo)


ENTRIES = (
  benchmark_inputs.Benchmark(
    step_retrieval.PROTOCOL,
    annotations="folder with the caption files of Exo2EgoDVC, egoyc2 and yc2",
    views=types.VIEWS,
    score=_score,
    switches={
      "split": benchmark_inputs.Switch(
        ("validation", "train"), "which caption files are scored, _eval_ or _train_"
      )
    },
    matrix="[ego steps, exo steps], in the order of the two files",
  ),
)
