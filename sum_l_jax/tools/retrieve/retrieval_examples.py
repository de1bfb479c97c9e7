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
from sum_l_jax.prediction import new_texts
from sum_l_jax.system import addresses
from sum_l_jax.tools import clip_pictures
from sum_l_jax.tools import moving_pictures
from sum_l_jax.tools import page

# Whether query and key are the same in something, and what it is, such as
# "verb: take".
Fact = tuple[bool, str]


class Pictures:
  """Pictures of clips; a clip that several queries find is read once.

  Attributes:
    num_bytes: size of the files that were given out, each time counted.
  """

  def __init__(self, *, frames: int = moving_pictures.FRAMES, height: int = 128) -> None:
    """Remembers nothing yet.

    Args:
      frames: frames of a clip that play; with 1 the middle one stands still.
      height: greatest height of a picture, pixels.

    Raises:
      ValueError: fewer than 1 frame.
    """
    if frames < 1:
      raise ValueError(f"The number of frames must be 1 or more, got {frames}.")
    self._frames, self._height = frames, height
    self._made: dict[tuple[int, int], page.Picture | str] = {}
    self.num_bytes = 0

  def __call__(self, dataset: records.ClipDataset, row: int) -> page.Picture | str:
    """The picture of a clip; see `clip_pictures.moving`."""
    key = id(dataset), row
    if key not in self._made:
      self._made[key] = clip_pictures.moving(dataset, row, height=self._height, frames=self._frames)
    made = self._made[key]
    if isinstance(made, page.Picture):
      self.num_bytes += len(made.data) + len(made.still)
    return made


@dataclasses.dataclass(frozen=True)
class Keys:
  """The clips that can be found.

  Attributes:
    dataset: data set of the clips.
    rows: int64 `[M]`, positions in it of the clips that can be read.
    vectors: float32 `[M, D]`, unit norm.
    pictures: makes the pictures of clips.
  """

  dataset: records.ClipDataset
  rows: np.ndarray
  vectors: np.ndarray
  pictures: Pictures = dataclasses.field(default_factory=Pictures)

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
    title: what the query is, such as "ego clip cut onion".
    cards: the query, then its keys, best first.
    compared: whether anything but the cosine says how well they fit.
  """

  title: str
  cards: Sequence[page.Card]
  compared: bool = True

  @property
  def first_is_same(self) -> bool:
    """Whether the best key is the same in everything compared."""
    return len(self.cards) > 1 and self.cards[1].marked

  @property
  def gallery(self) -> page.Gallery:
    """The query as a block of a page."""
    return page.Gallery([("The query, and what it found, best first", self.cards)])


def embed_keys(
  embedder: embedding.Embedder, dataset: records.ClipDataset, pictures: Pictures | None = None
) -> Keys:
  """Embeds all clips of a data set.

  Args:
    embedder: embedder of the checkpoint.
    dataset: the clips.
    pictures: makes the pictures of clips; None shows them as `Pictures` does.

  Raises:
    ValueError: the checkpoint can't embed its view, or no clip is readable.
  """
  found = embedder(dataset)
  rows = np.flatnonzero(found.readable)
  return Keys(dataset, rows, found.vectors[rows], pictures or Pictures())


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
    query = _clip_card(keys.pictures, clips, i, "the query", classes)
    queries.append(
      Query(f"{clips.view} clip, {clips.clips[i].narration}", [query, *_hits(keys, pairs, facts)])
    )
  return queries


def text_vectors(
  weights: weight_files.Weights, texts: Sequence[str], path: str = "", model: str = ""
) -> np.ndarray:
  """Finds the sentence vectors of any texts, float32 `[Q, D]`.

  Those that the run's table lacks are embedded now, with the table's model.

  Args:
    weights: weights with projections.
    texts: texts in any form.
    path: file to take in place of the one that the run's config names.
    model: sentence model of the texts that the table lacks; "" is the table's, and
      a folder is needed where that was one.

  Raises:
    FileNotFoundError, ValueError: no such file, one of another model, or a text
      that it doesn't have and that can't be embedded here.
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
  missing = [text for text in texts if narration_table.normalize_narration(text) not in known]
  if not missing:
    return table.lookup(texts)
  model = model or table.model
  try:
    added = new_texts.embed(missing, model)
  except new_texts.NoModelError as error:
    raise ValueError(_not_embedded(missing[0], table, path, model, error)) from error
  if _last_part(added.model) != _last_part(table.model) or added.dim != table.dim:
    raise ValueError(
      f"--text_model={model!r} gives vectors of {added.dim} numbers by {added.model!r}, but those"
      f" of {path!r} have {table.dim} by {table.model!r}: they can't be compared. Leave the option"
      " out, or give the folder of that model."
    )
  return np.stack(
    [
      (table if narration_table.normalize_narration(text) in known else added).lookup([text])[0]
      for text in texts
    ]
  )


def _last_part(model: str) -> str:
  """A model's name without its owner or folder."""
  return model.rstrip("/").rpartition("/")[2]


def _not_embedded(
  text: str, table: narration_table.NarrationTable, path: str, model: str, error: Exception
) -> str:
  """Says why a text has no vector, and what to do."""
  normal = narration_table.normalize_narration(text)
  close = difflib.get_close_matches(normal, table.narrations, n=3, cutoff=0.3)
  return (
    f"The text {text!r} is not among the {len(table)} narrations of {path!r}"
    + (f"; close to it are {close}" if close else "")
    + f". It can't be embedded here with their sentence model {model!r}:\n  {error}\nA search with"
    " any sentence needs the extra data-prep (pip install 'sum_l_jax[data-prep]') and that model:"
    " --text_model=FOLDER says where it is. Or embed the sentence elsewhere by"
    " data_prep.embed_narrations (docs/retrieval.md has the lines), and give the new file with"
    " --narrations=FILE.npz"
  )


def text_queries(texts: Sequence[str], vectors: np.ndarray, keys: Keys, *, top: int) -> list[Query]:
  """Queries with texts.

  Args:
    texts: the texts.
    vectors: their vectors from `text_vectors`.
    keys: clips that are searched.
    top: number of keys per query.
  """
  queries = []
  clips, normal = keys.dataset.clips, narration_table.normalize_narration
  narrations = {normal(clip.narration) for clip in clips}
  for text, pairs in zip(texts, keys.find(vectors, top, [""] * len(texts))):
    # Of a sentence in words of its own, no clip has the same narration.
    known = normal(text) in narrations
    facts = [[_same_narration(text, clips[row].narration)] if known else [] for row, _ in pairs]
    query = page.Card([("what", "the query"), ("text", text)])
    queries.append(Query(f"text, {text}", [query, *_hits(keys, pairs, facts)], known))
  return queries


def _hits(
  keys: Keys, pairs: Sequence[tuple[int, float]], facts: Sequence[Sequence[Fact]]
) -> list[page.Card]:
  """Cards of the keys that a query found, best first."""
  cards = []
  for rank, ((row, similar), own) in enumerate(zip(pairs, facts), start=1):
    shared = [f"{'✓ same' if same else '✗ other'} {what}" for same, what in own]
    card = _clip_card(keys.pictures, keys.dataset, row, f"{rank}. cosine {similar:.3f}", shared)
    cards.append(dataclasses.replace(card, marked=bool(own) and all(same for same, _ in own)))
  return cards


def _clip_card(
  pictures: Pictures, dataset: records.ClipDataset, row: int, what: str, remarks: Sequence[str]
) -> page.Card:
  clip = dataset.clips[row]
  lines = [("what", what), ("text", clip.narration), ("id", clip.clip_id)]
  lines += [("what", remark) for remark in remarks]
  return page.Card(lines, pictures(dataset, row))


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
