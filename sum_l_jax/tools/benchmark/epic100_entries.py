"""The benchmarks of EPIC-KITCHENS-100, from what the command is given."""

from __future__ import annotations

from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import epic100_mir
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.tools.benchmark import benchmark_inputs


def _gallery(inputs: benchmark_inputs.Inputs) -> epic100_mir.Gallery:
  return epic100_mir.read_gallery(inputs.annotations, texts=inputs.switches["texts"])


def _score_mir(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  gallery = _gallery(inputs)
  scores = inputs.scores(gallery.relevance.shape)
  if scores is None:
    texts = inputs.texts(gallery.texts)
    scores = inputs.similarity(inputs.clips(types.EGO, gallery.clip_ids), texts)
  return epic100_mir.score(scores, gallery)


ENTRIES = (
  benchmark_inputs.Benchmark(
    epic100_mir.PROTOCOL,
    annotations="folder of epic-kitchens-100-annotations, with retrieval_annotations in it",
    views=(types.EGO,),
    score=_score_mir,
    texts=lambda inputs: _gallery(inputs).texts,
    switches={
      "texts": benchmark_inputs.Switch(
        epic100_mir.TEXTS,
        "whether a sentence's text is that of its id's clip, or what the sentence file says,"
        " where the last seven texts are shifted against their ids",
      )
    },
    matrix="[clips, sentences], in the order of the two files",
  ),
)
