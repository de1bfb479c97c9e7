"""Finds the keys of queries, and collects what a page shows of them."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import difflib

import numpy as np

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.retrieval import cosine
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.evaluation.retrieval import relevance
from sum_l_jax.evaluation.retrieval import retrieval_run
from sum_l_jax.system import addresses
from sum_l_jax.tools import clip_pictures
from sum_l_jax.tools import page

# Whether query and key are the same in something, and what it is, such as
# "verb: take".
Fact = tuple[bool, str]


@dataclasses.dataclass(frozen=True)
class Keys:
  """The clips that can be found.

  Attributes:
    dataset: data set of the clips.
    rows: int64 `[M]`, positions in it of the clips that can be read.
    vectors: float32 `[M, D]`, unit norm.
  """

  dataset: records.ClipDataset
  rows: np.ndarray
  vectors: np.ndarray

  def find(
    self, vectors: np.ndarray, k: int, without: Sequence[str]
  ) -> list[list[tuple[int, float]]]:
    """Finds the k nearest of each query: positions in the data set and cosines.

    Args:
      vectors: vectors of the queries, float32 `[Q, D]`.
      k: number of keys per query.
      without: per query the id of the one clip not to show, the query itself.
    """
    # One more, in place of the query itself.
    places, cosines = cosine.find_nearest(vectors, self.vectors, k + 1)
    found = []
    for where, similar, own in zip(self.rows[places], cosines, without):
      clips = self.dataset.clips
      pairs = [(int(r), float(c)) for r, c in zip(where, similar) if clips[r].clip_id != own]
      found.append(pairs[:k])
    return found


@dataclasses.dataclass(frozen=True)
class Query:
  """A query and the keys it found.

  Attributes:
    kind: what the query is, "text" or such as "ego clip".
    cards: the query, then its keys, best first.
  """

  kind: str
  cards: Sequence[page.Card]

  @property
  def first_is_same(self) -> bool:
    """Whether the best key is the same in everything compared."""
    return len(self.cards) > 1 and self.cards[1].marked

  @property
  def gallery(self) -> page.Gallery:
    """The query as a block of a page."""
    return page.Gallery([("The query, and what it found, best first", self.cards)])


def embed_keys(embedder: embedding.Embedder, dataset: records.ClipDataset) -> Keys:
  """Embeds all clips of a data set.

  Raises:
    ValueError: the checkpoint can't embed its view, or no clip is readable.
  """
  found = embedder(dataset)
  rows = np.flatnonzero(found.readable)
  return Keys(dataset, rows, found.vectors[rows])


def clip_queries(
  embedder: embedding.Embedder, clips: records.ClipDataset, keys: Keys, *, top: int
) -> list[Query]:
  """Queries with clips; those that can't be read are left out.

  Args:
    embedder: embedder of the checkpoint.
    clips: clips to query with.
    keys: clips that are searched.
    top: number of keys per query.
  """
  found = embedder(clips)
  same = (
    addresses.resolved(clips.directory) == addresses.resolved(keys.dataset.directory)
    and clips.split == keys.dataset.split
  )
  good = np.flatnonzero(found.readable).tolist()
  hits = keys.find(found.vectors[good], top, [clips.clips[i].clip_id if same else "" for i in good])
  queries = []
  for i, pairs in zip(good, hits):
    labels = relevance.label_sets([clips.clips[i]], clips.tasks)
    classes = [f"{task}: {', '.join(sorted(names))}" for task, (names,) in labels.items() if names]
    facts = [_facts(clips, i, keys.dataset, row) for row, _ in pairs]
    query = _clip_card(clips, i, "the query", classes)
    queries.append(Query(f"{clips.view} clip", [query, *_hits(keys, pairs, facts)]))
  return queries


def text_vectors(weights: weight_files.Weights, texts: Sequence[str], path: str = "") -> np.ndarray:
  """Looks texts up in the sentence vectors of a run, float32 `[Q, D]`.

  Args:
    weights: weights with projections.
    texts: texts in any form.
    path: file to take in place of the one that the run's config names.

  Raises:
    FileNotFoundError, ValueError: no such file, one of another model, or a text
      that it doesn't have.
  """
  path = path or towers.read_config(weights.card).get("narrations", "")
  if not path:
    raise ValueError(
      f"{weights.source} doesn't say where its sentence vectors are. Give them with"
      " --narrations=FILE.npz"
    )
  table = narration_table.NarrationTable.load(path)
  retrieval_run.check_text_model(weights, table, path)
  known = frozenset(table.narrations)
  for text in texts:
    normal = narration_table.normalize_narration(text)
    if normal not in known:
      close = difflib.get_close_matches(normal, known, n=3, cutoff=0.3)
      raise ValueError(
        f"The text {text!r} is not among the {len(table)} narrations of {path!r}"
        + (f"; close to it are {close}" if close else "")
        + ". Others must be embedded with the table's sentence model,"
        f" {table.model!r}, by data_prep.embed_narrations (docs/retrieval.md has the lines); give"
        " the new file with --narrations=FILE.npz"
      )
  return table.lookup(texts)


def text_queries(texts: Sequence[str], vectors: np.ndarray, keys: Keys, *, top: int) -> list[Query]:
  """Queries with texts.

  Args:
    texts: the texts.
    vectors: their vectors from `text_vectors`.
    keys: clips that are searched.
    top: number of keys per query.
  """
  queries = []
  for text, pairs in zip(texts, keys.find(vectors, top, [""] * len(texts))):
    clips = keys.dataset.clips
    facts = [[_same_narration(text, clips[row].narration)] for row, _ in pairs]
    query = page.Card([("what", "the query"), ("text", text)])
    queries.append(Query("text", [query, *_hits(keys, pairs, facts)]))
  return queries


def _hits(
  keys: Keys, pairs: Sequence[tuple[int, float]], facts: Sequence[Sequence[Fact]]
) -> list[page.Card]:
  """Cards of the keys that a query found, best first."""
  cards = []
  for rank, ((row, similar), own) in enumerate(zip(pairs, facts), start=1):
    shared = [f"{'✓ same' if same else '✗ other'} {what}" for same, what in own]
    card = _clip_card(keys.dataset, row, f"{rank}. cosine {similar:.3f}", shared)
    cards.append(dataclasses.replace(card, marked=bool(own) and all(same for same, _ in own)))
  return cards


def _clip_card(
  dataset: records.ClipDataset, row: int, what: str, remarks: Sequence[str]
) -> page.Card:
  clip = dataset.clips[row]
  lines = [("what", what), ("text", clip.narration), ("id", clip.clip_id)]
  lines += [("what", remark) for remark in remarks]
  return page.Card(lines, clip_pictures.middle_frame(dataset, row))


def _facts(
  queries: records.ClipDataset, query: int, keys: records.ClipDataset, key: int
) -> list[Fact]:
  """What two clips share: their classes by name, or else their narration."""
  a, b = queries.clips[query], keys.clips[key]
  ours = relevance.label_sets([a], queries.tasks)
  theirs = relevance.label_sets([b], keys.tasks)
  facts = []
  for task in relevance.common_tasks(ours, theirs):
    own, other = ours[task][0], theirs[task][0]
    if own and other:
      shown = own & other or other
      facts.append((bool(own & other), f"{task}: {', '.join(sorted(shown))}"))
  return facts or [_same_narration(a.narration, b.narration)]


def _same_narration(query: str, key: str) -> Fact:
  normal = narration_table.normalize_narration
  return normal(query) == normal(key), "narration"
