"""Pairs by verb and noun labels, as the released code makes them."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from data_prep.mining import pair_summary
from data_prep.mining import pseudo_pairs
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records

# The released code draws one of this many entries at the head of a list.
_DRAWN = 3

# Verb names and noun names of one clip.
_Labels = tuple[frozenset[str], frozenset[str]]


def pair(
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  *,
  limit: int = 3,
) -> pairing.PairTable:
  """Pairs each ego clip with exo clips of like labels, compared by class name.

  For each ego clip, the exo clips are put in four lists, in file order, each
  in the first that fits and at most `limit` in a list:

    same: exactly the ego clip's verbs and nouns;
    sub: these and more;
    sub_verb: the verbs, not the nouns;
    sub_noun: the nouns, not the verbs.

  The first list that isn't empty holds the candidates; training draws among
  them uniformly. Where all are empty, the partner is that of a random other
  ego clip that has a "sub" list: one of its first three. Exo sets with one
  label a clip have no "sub" lists, which the release doesn't provide for; then
  it is the "same" lists.

  In the table, the candidates take the place of the clips of one narration:
  a row has one neighbour, and its clips are the candidates. Hence training
  needs `pairs.top_k = 1`. A row's similarity is the cosine of the narrations
  of the ego clip and of the first candidate.

  Args:
    ego: first-person clips.
    exo: pools of third-person clips, in file order one after the other.
    table: narration table of both sides.
    limit: the longest that a list may be.

  Returns:
    The pair table, with one neighbour a row.

  Raises:
    ValueError: a narration is not in `table`, a data set lacks the labels, or
      a clip has no partner by this rule.
  """
  if limit < 1 or not exo:
    raise ValueError(
      "Pairing by labels needs a limit of at least 1 and at least one exo"
      f" data set, got {limit} and {len(exo)}."
    )
  pool = _LabelPool.of(exo)
  groups, group_of_clip = _candidates(_labels_of([ego]), pool, limit)
  ego_rows, exo_rows = pseudo_pairs.rows([ego], table), pseudo_pairs.rows(exo, table)
  rows = np.stack([ego_rows, group_of_clip], axis=1)
  rows, row_of_clip = np.unique(rows, axis=0, return_inverse=True)
  first = np.array([group[0] for group in groups])
  cosine = np.einsum(
    "nd,nd->n",
    table.vectors[rows[:, 0]].astype(np.float64),
    table.vectors[exo_rows[first[rows[:, 1]]]].astype(np.float64),
  )
  return pseudo_pairs.make_table(
    ego,
    exo,
    table,
    ego_rows=row_of_clip.reshape(-1),
    neighbours=rows[:, 1:],
    similarity=np.clip(cosine, -1.0, 1.0).round(6)[:, None],
    clips=np.concatenate([np.array(group) for group in groups]),
    ends=np.cumsum([*map(len, groups)]),
  )


@dataclasses.dataclass(frozen=True)
class _LabelPool:
  """The exo clips' labels, and for each name the clips that have it."""

  labels: list[_Labels]
  places: tuple[dict[str, set[int]], ...]

  @classmethod
  def of(cls, exo: Sequence[records.ClipDataset]) -> _LabelPool:
    labels = _labels_of(exo)
    places = tuple(collections.defaultdict(set) for _ in pair_summary.TASKS)
    for place, clip in enumerate(labels):
      for by_name, names in zip(places, clip, strict=True):
        for name in names:
          by_name[name].add(place)
    return cls(labels, tuple(dict(by_name) for by_name in places))

  def lists(self, labels: _Labels, limit: int) -> list[tuple[int, ...]]:
    """The lists "same", "sub", "sub_verb", "sub_noun" of one ego clip."""
    verb, noun = (
      # Without labels on the ego side nothing is contained.
      set.intersection(*(by_name.get(name, set()) for name in names)) if names else set()
      for by_name, names in zip(self.places, labels, strict=True)
    )
    both = verb & noun
    same = {place for place in both if self.labels[place] == labels}
    found = (same, both - same, verb - both, noun - both)
    return [tuple(sorted(places)[:limit]) for places in found]


def _labels_of(sets: Iterable[records.ClipDataset]) -> list[_Labels]:
  """The names of each clip's labels.

  Raises:
    ValueError: a data set has no verb or no noun task.
  """
  labels = []
  for data in sets:
    missing = [task for task in pair_summary.TASKS if task not in data.tasks]
    if missing:
      raise ValueError(
        f"--rule=released_labels needs the tasks {pair_summary.TASKS}; the"
        f" data set {str(data.directory)!r} lacks {missing}, it has"
        f" {sorted(data.tasks)}. Leave it out, or use --rule=text."
      )
    labels += [
      tuple(frozenset(pair_summary.label_names(data, clip, task)) for task in pair_summary.TASKS)
      for clip in data.clips
    ]
  return labels


def _candidates(
  labels: Sequence[_Labels], pool: _LabelPool, limit: int
) -> tuple[list[tuple[int, ...]], list[int]]:
  """The groups of candidates, and which group is each ego clip's; see `pair`.

  Raises:
    ValueError: a clip has no candidates.
  """
  lists = {clip: pool.lists(clip, limit) for clip in dict.fromkeys(labels)}
  chosen = {clip: next((places for places in found if places), ()) for clip, found in lists.items()}
  groups = list(dict.fromkeys(places for places in chosen.values() if places))
  group_ids = {places: group for group, places in enumerate(groups)}
  unmatched = sum(not chosen[clip] for clip in labels)
  if unmatched:
    same, sub = (
      collections.Counter(lists[clip][kind][:_DRAWN] for clip in labels if lists[clip][kind])
      for kind in (0, 1)
    )
    if not same and not sub:
      raise ValueError(
        f"{unmatched} of {len(labels)} ego clips share no verb and no noun"
        " with an exo clip, and the released rule has nothing to replace"
        " their partners by: no ego clip has an exo clip with its verb and"
        " noun. Use --rule=text, or check that the class names of the data"
        " sets mean the same."
      )
    group_ids[()] = len(groups)
    groups.append(_weighted(sub or same))
  return groups, [group_ids[chosen[clip]] for clip in labels]


def _weighted(lists: collections.Counter[tuple[int, ...]]) -> tuple[int, ...]:
  """Entries that, drawn uniformly, are as a list drawn by its count, then an entry."""
  common = math.lcm(*map(len, lists))
  total = collections.Counter()
  for places, count in lists.items():
    for place in places:
      total[place] += count * common // len(places)
  shared = math.gcd(*total.values())
  return tuple(place for place, repeat in sorted(total.items()) for _ in range(repeat // shared))
