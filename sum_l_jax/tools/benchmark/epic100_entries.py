"""The benchmarks of EPIC-KITCHENS-100, from what the command is given."""

from __future__ import annotations

from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import epic100_mir
from sum_l_jax.evaluation.benchmarks import epic100_recognition
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.tools.benchmark import benchmark_inputs


def _gallery(inputs: benchmark_inputs.Inputs) -> epic100_mir.Gallery:
  return epic100_mir.read_gallery(inputs.folder, texts=inputs.switches["texts"])


def _score_mir(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  gallery = _gallery(inputs)
  scores = inputs.scores(gallery.relevance.shape)
  if scores is None:
    texts = inputs.texts(gallery.texts)
    scores = inputs.similarity(inputs.clips(types.EGO, gallery.clip_ids), texts)
  return epic100_mir.score(scores, gallery)


def _sentences(inputs: benchmark_inputs.Inputs) -> list[list[str]]:
  """The sentences of each action: its distinct narrations in each template."""
  actions = epic100_recognition.read_actions(inputs.folder)
  return [
    [text for narration in inputs.sentences(own) for text in narration]
    for own in actions.narrations
  ]


def _score_recognition(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  actions = epic100_recognition.read_actions(inputs.folder)
  scores = inputs.scores((len(actions.clip_ids), len(actions.names)))
  if scores is None:
    classes = inputs.class_vectors(_sentences(inputs))
    scores = inputs.similarity(inputs.clips(types.EGO, actions.clip_ids), classes)
  return epic100_recognition.score(scores, actions, parts=inputs.switches["parts"])


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
  benchmark_inputs.Benchmark(
    epic100_recognition.PROTOCOL,
    annotations="folder with EPIC_100_train.csv and EPIC_100_validation.csv",
    views=(types.EGO,),
    score=_score_recognition,
    texts=lambda inputs: [text for own in _sentences(inputs) for text in own],
    switches={
      "parts": benchmark_inputs.Switch(
        epic100_recognition.PARTS,
        "whether verbs and nouns are measured too, by sums of the actions' softmax",
      )
    },
    templates=("{}",),
    matrix="[validation clips in the file's order, actions sorted as texts]",
  ),
)
