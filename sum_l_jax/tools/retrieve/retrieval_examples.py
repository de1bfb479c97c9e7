"""Picks queries, finds their keys, and collects what a page shows of them."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import difflib
import json

import numpy as np

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import examples
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import cosine
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.evaluation.retrieval import relevance
from sum_l_jax.evaluation.retrieval import retrieval_run
from sum_l_jax.tools.retrieve import retrieval_page
from sum_l_jax.video import decode


@dataclasses.dataclass(frozen=True)
class Keys:
  """The clips that can be found.

  Attributes:
    dataset: theirs.
    rows: int64 [M], positions in it of those that can be read.
    vectors: float32 [M, D], unit norm.
  """

  dataset: records.ClipDataset
  rows: np.ndarray
  vectors: np.ndarray

  def find(
    self, vectors: np.ndarray, k: int, without: Sequence[str]
  ) -> list[list[tuple[int, float]]]:
    """The k nearest of each query, as positions in the data set and cosines.

    Args:
      vectors: float32 `[Q, D]`.
      k: how many.
      without: per query the id of the one clip not to show: itself.
    """
    # One more, in place of the query itself.
    places, cosines = cosine.find_nearest(vectors, self.vectors, k + 1)
    found = []
    for where, similar, own in zip(self.rows[places], cosines, without):
      pairs = [
        (int(row), float(c))
        for row, c in zip(where, similar)
        if self.dataset.clips[row].clip_id != own
      ]
      found.append(pairs[:k])
    return found


def embed_keys(embedder: embedding.Embedder, dataset: records.ClipDataset) -> Keys:
  """Embeds all clips of a data set.

  Raises:
    ValueError: the checkpoint can't embed its view, or no clip is readable.
  """
  found = embedder(dataset)
  rows = np.flatnonzero(found.readable)
  return Keys(dataset, rows, found.vectors[rows])


def choose(dataset: records.ClipDataset, *, number: int, ids: Sequence[str] = ()) -> np.ndarray:
  """Positions of the clips to query with, int64.

  Args:
    dataset: theirs.
    number: how many, evenly spaced, where there are no ids.
    ids: clip ids, in this order.

  Raises:
    ValueError: an unknown id, or a number below 1.
  """
  if not ids:
    if number < 1:
      raise ValueError(f"--number must be 1 or more, got {number}.")
    return embedding.spaced(len(dataset), number)
  place = {clip.clip_id: row for row, clip in enumerate(dataset.clips)}
  missing = [name for name in ids if name not in place]
  if missing:
    close = difflib.get_close_matches(missing[0], place, n=3)
    raise ValueError(
      f"{dataset!r} has no clip {missing[0]!r}"
      + (f"; did you mean {' or '.join(close)}?" if close else ".")
      + " Its ids are in clips_<split>.jsonl."
    )
  return np.array([place[name] for name in ids], np.int64)


def clip_queries(
  embedder: embedding.Embedder,
  dataset: records.ClipDataset,
  rows: np.ndarray,
  keys: Keys,
  *,
  top: int,
) -> list[retrieval_page.Query]:
  """Clips as queries; those that can't be read are left out.

  Args:
    embedder: of the checkpoint.
    dataset: of the queries.
    rows: which of its clips.
    keys: what is searched.
    top: keys a query.
  """
  part = embedding.subset(dataset, rows)
  found = embedder(part)
  same = (
    dataset.directory.resolve() == keys.dataset.directory.resolve()
    and dataset.split == keys.dataset.split
  )
  good = np.flatnonzero(found.readable)
  own = [part.clips[i].clip_id if same else "" for i in good]
  hits = keys.find(found.vectors[good], top, own)
  return [
    _query(
      _query_card(part, int(i)),
      [_hit(keys, row, value, _facts(part, int(i), keys.dataset, row)) for row, value in pairs],
    )
    for i, pairs in zip(good, hits)
  ]


def text_queries(
  texts: Sequence[str], table: narration_table.NarrationTable, where: str, keys: Keys, *, top: int
) -> list[retrieval_page.Query]:
  """Texts as queries.

  Args:
    texts: in any form.
    table: of the sentence model that the checkpoint was trained with.
    where: its file, for messages.
    keys: what is searched.
    top: keys a query.

  Raises:
    ValueError: a text that the table doesn't have.
  """
  normal = narration_table.normalize_narration
  known = frozenset(table.narrations)
  for text in texts:
    if normal(text) not in known:
      close = difflib.get_close_matches(normal(text), known, n=3, cutoff=0.3)
      raise ValueError(
        f"The text {text!r} is not among the {len(table)} narrations of"
        f" {where!r}"
        + (f"; close to it are {close}" if close else "")
        + ". Others must be embedded with the table's sentence model,"
        f" {table.model!r}, by data_prep.embed_narrations (docs/retrieval.md"
        " has the lines); give the new file with --narrations=FILE.npz"
      )
  hits = keys.find(table.lookup(texts), top, [""] * len(texts))
  clips = keys.dataset.clips
  return [
    _query(
      retrieval_page.Card("", "text", text, b""),
      [
        _hit(keys, row, value, (_narration_fact(text, clips[row].narration),))
        for row, value in pairs
      ],
    )
    for text, pairs in zip(texts, hits)
  ]


def load_narrations(
  weights: weight_files.Weights, path: str = ""
) -> tuple[narration_table.NarrationTable, str]:
  """The sentence vectors of a run, and the file they are in.

  Args:
    weights: with projections.
    path: a file in place of the one that the run's config names.

  Raises:
    FileNotFoundError, ValueError: no such file, or one of another model.
  """
  path = path or json.loads(weights.card["config"]).get("narrations", "")
  if not path:
    raise ValueError(
      f"{weights.source} doesn't say where its sentence vectors are. Give"
      " them with --narrations=FILE.npz"
    )
  table = narration_table.NarrationTable.load(path)
  retrieval_run.check_text_model(weights, table, path)
  return table, path


def _query(card, hits) -> retrieval_page.Query:
  return retrieval_page.Query(card, tuple(hits))


def _hit(keys: Keys, row: int, value: float, facts) -> retrieval_page.Hit:
  return retrieval_page.Hit(_clip_card(keys.dataset, row), value, tuple(facts))


def _clip_card(dataset: records.ClipDataset, row: int) -> retrieval_page.Card:
  clip = dataset.clips[row]
  try:
    (image,) = dataset.read_frames(row, [clip.num_frames // 2])
    decode.decode_jpeg(image)
  except examples.READ_ERRORS:
    image = None
  return retrieval_page.Card(clip.clip_id, f"{dataset.view} clip", clip.narration, image)


def _query_card(dataset: records.ClipDataset, row: int) -> retrieval_page.Card:
  sets = relevance.label_sets([dataset.clips[row]], dataset.tasks)
  return dataclasses.replace(
    _clip_card(dataset, row),
    classes=tuple(
      f"{task}: {', '.join(sorted(names))}" for task, (names,) in sets.items() if names
    ),
  )


def _facts(
  queries: records.ClipDataset, query: int, keys: records.ClipDataset, key: int
) -> list[retrieval_page.Fact]:
  """What two clips share: their classes by name, or else their narration."""
  a, b = queries.clips[query], keys.clips[key]
  ours = relevance.label_sets([a], queries.tasks)
  theirs = relevance.label_sets([b], keys.tasks)
  facts = []
  for task in relevance.common_tasks(ours, theirs):
    own, other = ours[task][0], theirs[task][0]
    if own and other:
      shown = own & other or other
      facts.append(retrieval_page.Fact(bool(own & other), task, ", ".join(sorted(shown))))
  return facts or [_narration_fact(a.narration, b.narration)]


def _narration_fact(query: str, key: str) -> retrieval_page.Fact:
  normal = narration_table.normalize_narration
  return retrieval_page.Fact(normal(query) == normal(key), "narration")
