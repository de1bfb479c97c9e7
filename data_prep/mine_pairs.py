"""Mines pseudo-pairs: for each ego narration the most similar exo narrations.

  python -m data_prep.mine_pairs --ego=data/epic55 --exo=data/exo[,data/exo2] \\
      --narrations=data/narrations.npz --output=data/pairs.npz

Paper, Section 3.1 and Eq. 1: the cosine of the sentence vectors decides, and an
exo clip may serve many ego clips. The table keeps the `top_k` best narrations,
so that training can choose among them. Runs once, before training; the same
command after a stop goes on where it was.

--rule=released_labels pairs as the released code for EPIC-KITCHENS-100 does: by
verb and noun labels, compared by class name, not by text.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import math
import pathlib
import shutil
import sys

import numpy as np

from data_prep.mining import nearest
from data_prep.mining import pair_summary
from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.system import command_line

RULES = ("text", "released_labels")

# The released code draws one of the first so many entries of a list.
_DRAWN = 3

# Verb names and noun names of one clip.
_Labels = tuple[frozenset[str], frozenset[str]]


def mine_pairs(
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  *,
  top_k: int = 10,
  block: int = 4096,
  keep_in: str | pathlib.Path | None = None,
) -> pairing.PairTable:
  """Finds the exo narrations nearest to each ego narration, exactly.

  Of equal cosines (rounded to 1e-6) the alphabetically first narration wins.

  Args:
    ego: first-person clips.
    exo: pools of third-person clips, together one set to choose from.
    table: has all their narrations.
    top_k: neighbours to keep; fewer where the pools have fewer narrations.
    block: narrations compared at a time; memory grows with its square, and
      the result doesn't depend on it.
    keep_in: folder of finished blocks, see `nearest.nearest`.

  Returns:
    The pair table; similarities are multiples of 1e-6.

  Raises:
    ValueError: a narration is not in `table`, or nothing to pair.
  """
  if top_k < 1 or block < 1:
    raise ValueError(f"top_k and block must be at least 1, got {top_k} and {block}.")
  if not exo:
    raise ValueError("Mining needs at least one exo data set.")
  rows = [table.rows([clip.narration for clip in data.clips]) for data in (ego, *exo)]
  ego_texts, ego_rows = np.unique(rows[0], return_inverse=True)
  exo_texts, exo_rows = np.unique(np.concatenate(rows[1:]), return_inverse=True)
  neighbours, similarity = nearest.nearest(
    table.vectors,
    table.vectors,
    top_k,
    block,
    query_rows=ego_texts,
    key_rows=exo_texts,
    keep_in=keep_in,
  )
  # Stable, so that a narration's clips stay in the order of pools and clips.
  order = np.argsort(exo_rows, kind="stable")
  counts = np.bincount(exo_rows, minlength=len(exo_texts))
  sizes = [len(data) for data in exo]
  return pairing.PairTable(
    ego_rows=ego_rows,
    neighbours=neighbours,
    similarity=similarity,
    clip_offsets=np.concatenate([[0], np.cumsum(counts)]),
    clip_pool=np.repeat(np.arange(len(exo)), sizes)[order],
    clip_index=np.concatenate([np.arange(size) for size in sizes])[order],
    ego_fingerprint=ego.fingerprint,
    exo_fingerprints=tuple(data.fingerprint for data in exo),
    text_model=table.model,
    text_fingerprint=table.fingerprint,
  )


def mine_into(
  output: pathlib.Path,
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  *,
  top_k: int = 10,
  block: int = 4096,
) -> pairing.PairTable:
  """Mines into a file; the same call after a stop goes on where it was.

  Arguments, result and errors as of `mine_pairs`.
  """
  finished = output.with_suffix(".blocks")
  pairs = mine_pairs(ego, exo, table, top_k=top_k, block=block, keep_in=finished)
  pairs.save(output)
  shutil.rmtree(finished, ignore_errors=True)
  return pairs


def pair_by_labels(
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  *,
  limit: int = 3,
) -> pairing.PairTable:
  """Pairs by verb and noun labels, as the released code does.

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
    table: has all their narrations.
    limit: of each list.

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
  ego_rows = table.rows([clip.narration for clip in ego.clips])
  exo_rows = np.concatenate([table.rows([clip.narration for clip in data.clips]) for data in exo])
  rows = np.stack([ego_rows, group_of_clip], axis=1)
  rows, row_of_clip = np.unique(rows, axis=0, return_inverse=True)
  first = np.array([group[0] for group in groups])
  cosine = np.einsum(
    "nd,nd->n",
    table.vectors[rows[:, 0]].astype(np.float64),
    table.vectors[exo_rows[first[rows[:, 1]]]].astype(np.float64),
  )
  entries = np.concatenate([np.array(group) for group in groups])
  sizes = [len(data) for data in exo]
  return pairing.PairTable(
    ego_rows=row_of_clip.reshape(-1),
    neighbours=rows[:, 1:],
    similarity=np.clip(cosine, -1.0, 1.0).round(6)[:, None],
    clip_offsets=np.cumsum([0, *map(len, groups)]),
    clip_pool=np.repeat(np.arange(len(exo)), sizes)[entries],
    clip_index=np.concatenate([np.arange(n) for n in sizes])[entries],
    ego_fingerprint=ego.fingerprint,
    exo_fingerprints=tuple(data.fingerprint for data in exo),
    text_model=table.model,
    text_fingerprint=table.fingerprint,
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
  """Names of each clip's labels.

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
        f" {sorted(data.tasks)}. Use --rule=text."
      )
    labels += [
      tuple(frozenset(pair_summary.label_names(data, clip, task)) for task in pair_summary.TASKS)
      for clip in data.clips
    ]
  return labels


def _candidates(
  labels: Sequence[_Labels], pool: _LabelPool, limit: int
) -> tuple[list[tuple[int, ...]], list[int]]:
  """Groups of candidates, and which is each ego clip's; see `pair_by_labels`.

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
      collections.Counter(found[kind][:_DRAWN] for found in map(lists.get, labels) if found[kind])
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
  """Entries whose uniform draw is: draw a list by its count, then an entry."""
  common = math.lcm(*map(len, lists))
  total = collections.Counter()
  for places, count in lists.items():
    for place in places:
      total[place] += count * common // len(places)
  shared = math.gcd(*total.values())
  return tuple(place for place, repeat in sorted(total.items()) for _ in range(repeat // shared))


def read_datasets(
  ego: str, exo: str, split: str
) -> tuple[records.ClipDataset, list[records.ClipDataset]]:
  """Reads what --ego and --exo name.

  Args:
    ego: the folder of the first-person data set.
    exo: folders of the third-person data sets, separated by commas.
    split: of all.

  Returns:
    The ego data set and the exo data sets.

  Raises:
    FileNotFoundError, ValueError: see `records.ClipDataset`.
    ValueError: a data set of the other view.
  """
  first = records.ClipDataset(ego, split)
  third = [records.ClipDataset(directory, split) for directory in command_line.names(exo)]
  for option, view, data in (
    ("--ego", types.EGO, first),
    *(("--exo", types.EXO, data) for data in third),
  ):
    if data.view != view:
      raise ValueError(
        f"{option} needs a data set of view {view!r};"
        f" {str(data.directory)!r} has view {data.view!r}. Swap the options,"
        f" or build it again with --view={view}."
      )
  return first, third


def make_parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m data_prep.mine_pairs",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--ego", required=True, metavar="DIR", help="first-person clip data set")
  add("--exo", required=True, metavar="DIR[,DIR...]", help="third-person clip data sets")
  add(
    "--narrations",
    required=True,
    type=pathlib.Path,
    metavar="FILE.npz",
    help="written by data_prep.embed_narrations",
  )
  add("--output", required=True, type=pathlib.Path, metavar="FILE.npz")
  add("--split", default="train", help="of both (default: train)")
  add(
    "--top_k",
    type=int,
    default=10,
    help="neighbours to keep for each narration (default: 10); released"
    " labels give one group of candidates instead",
  )
  add(
    "--threshold",
    type=float,
    default=pair_summary.THRESHOLD,
    help="cosine of the filter in training, to report what passes it (default: %(default)s)",
  )
  add("--rule", choices=RULES, default="text", help="what makes a pair (default: text)")
  add(
    "--released_limit",
    type=int,
    default=3,
    metavar="N",
    help="candidates of each kind of released_labels: 3 (default) as for"
    " EK-100, 30 as for EK-55; the release lists each exo segment three"
    " times, so that its 3 are one",
  )
  return parser


def mine(args: argparse.Namespace) -> None:
  """Runs the command; errors as in `mine_pairs` and `pair_by_labels`."""
  ego, exo = read_datasets(args.ego, args.exo, args.split)
  table = narration_table.NarrationTable.load(args.narrations)
  if args.rule == "text":
    pairs = mine_into(args.output, ego, exo, table, top_k=args.top_k)
    kept = f"{pairs.neighbours.shape[1]} neighbours each"
  else:
    pairs = pair_by_labels(ego, exo, table, limit=args.released_limit)
    pairs.save(args.output)
    kept = f"{len(pairs.clip_offsets) - 1} groups of candidates by labels"
  print(f"wrote {args.output}: {kept}")
  print(pair_summary.summarize(pairs, ego, exo, threshold=args.threshold).as_text())


def main(argv: Sequence[str] | None = None) -> int:
  return command_line.run(make_parser(), mine, argv)


if __name__ == "__main__":
  sys.exit(main())
