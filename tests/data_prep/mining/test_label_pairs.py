"""Pairs by labels, as the released code makes them."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep import mine_pairs
from data_prep.mining import label_pairs
from data_prep.mining import pair_summary
from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from tests.support import narrated

_RELEASED_TASKS = {
  "verb": types.Task("verb", types.MULTI_LABEL, ("cut", "turn on", "hit")),
  "noun": types.Task("noun", types.MULTI_LABEL, ("Onion", "tap", "pan")),
}


def _labelled(*labels, fingerprint="f", tasks=None):
  """A data set of clips with (verbs, nouns); no two narrations are alike."""
  return narrated.make_dataset(
    [f"{fingerprint} {i}" for i in range(len(labels))],
    fingerprint,
    [{"verb": verbs, "noun": nouns} for verbs, nouns in labels],
    tasks or _RELEASED_TASKS,
  )


def _pair_by_labels(ego, exo, **options):
  texts = [clip.narration for data in (ego, *exo) for clip in data.clips]
  vectors = np.random.default_rng(0).standard_normal((len(texts), 8))
  table = narration_table.NarrationTable(texts, vectors, "random")
  pairs = label_pairs.pair(ego, exo, table, **options)
  pairs.check(ego, exo, table)
  return pairs, table


def _drawn(pairs, ego_index, number=200):
  """How often each clip is drawn."""
  rng = np.random.default_rng(0)
  draws = [pairs.draw(ego_index, rng)[:2] for _ in range(number)]
  return {clip: draws.count(clip) / number for clip in sorted(set(draws))}


def test_released_labels_take_the_first_list_that_fits():
  # Classes in another order and spelling: names decide, not numbers.
  ego = _labelled(
    ((0,), (0,)), ((1,), (1,)), ((1,), (2,)), ((0,), (2,)), fingerprint="ego", tasks=narrated.TASKS
  )
  pools = [
    _labelled(
      ((0, 2), (0,)),  # sub of cut onion
      ((0,), (0,)),  # same as cut onion
      ((2,), (1,)),  # sub_noun of turn on tap
      fingerprint="a",
    ),
    _labelled(
      ((0,), (0,)),  # same as cut onion
      ((1,), (0, 2)),  # sub of turn on pan, sub_verb of turn on tap
      fingerprint="b",
    ),
  ]
  pairs, table = _pair_by_labels(ego, pools)
  assert _drawn(pairs, 0).keys() == {(0, 1), (1, 0)}
  assert _drawn(pairs, 1).keys() == {(1, 1)}
  assert _drawn(pairs, 2).keys() == {(1, 1)}
  assert _drawn(pairs, 3).keys() == {(0, 0), (0, 1), (1, 0)}
  assert pairs.neighbours.shape[1] == 1
  mine, partner = table.lookup(["ego 0", "a 1"])
  assert pairs.draw(0, np.random.default_rng(0))[2] == pytest.approx(
    float(mine @ partner), abs=2e-6
  )
  one, _ = _pair_by_labels(ego, pools, limit=1)
  assert _drawn(one, 0).keys() == {(0, 1)}
  assert _drawn(one, 3).keys() == {(0, 0)}


def test_released_labels_without_a_match_borrow_a_sub_entry():
  ego = _labelled(
    ((2,), (2,)),  # shares nothing
    ((0,), (0,)),  # same; and one sub
    ((1,), (1,)),  # three subs
    ((1,), (1,)),
    fingerprint="ego",
  )
  exo = _labelled(
    ((0,), (0,)),
    ((0, 1), (0,)),
    ((1, 0), (1,)),
    ((1,), (1, 0)),
    ((1, 0), (1, 0)),
    ((1, 0), (1,)),
    fingerprint="exo",
  )
  # Labels (0, 1), (0, 1) contain "cut onion" too, as its second sub.
  pairs, _ = _pair_by_labels(ego, [exo], limit=30)
  assert _drawn(pairs, 1).keys() == {(0, 0)}
  assert _drawn(pairs, 2).keys() == {(0, 2), (0, 3), (0, 4), (0, 5)}
  # One of the other ego clips, then one of the first three of its list.
  wanted = {(0, 1): 1 / 6, (0, 2): 2 / 9, (0, 3): 2 / 9, (0, 4): 7 / 18}
  assert _drawn(pairs, 0, 4000) == pytest.approx(wanted, abs=0.03)
  summary = pair_summary.summarize(pairs, ego, [exo])
  assert summary.agreement == {"verb and noun": 3, "verb": 0, "noun": 0, "neither": 1}


def test_released_labels_without_any_sub_entry_borrow_a_same_one():
  ego = _labelled(((2,), (2,)), ((0,), (0,)), ((1,), (2,)), fingerprint="ego")
  exo = _labelled(((0,), (0,)), ((0,), (1,)), ((1,), (1,)), ((0,), (0,)), fingerprint="exo")
  pairs, _ = _pair_by_labels(ego, [exo])
  assert _drawn(pairs, 0).keys() == _drawn(pairs, 1).keys() == {(0, 0), (0, 3)}
  assert _drawn(pairs, 2).keys() == {(0, 2)}


def test_released_labels_that_cannot_pair():
  lonely = _labelled(((2,), (2,)), fingerprint="ego")
  exo = _labelled(((0,), (0,)), fingerprint="exo")
  with pytest.raises(ValueError, match="1 of 1 ego clips share no verb"):
    _pair_by_labels(lonely, [exo])
  with pytest.raises(ValueError, match="limit of at least 1 .* got 0 and 1"):
    _pair_by_labels(lonely, [exo], limit=0)
  exo.tasks = {"verb": exo.tasks["verb"]}
  with pytest.raises(ValueError, match=r"lacks \['noun'\].*--rule=text"):
    _pair_by_labels(lonely, [exo])


@pytest.mark.parametrize(
  "options, words",
  [
    (["--released_limit=2"], "--released_limit is read only with --rule=released_labels"),
    (["--rule=released_labels", "--top_k=2"], "--top_k is read only with --rule=text"),
  ],
)
def test_options_of_another_rule_are_refused(options, words, tmp_path, capsys):
  data = [f"--ego={tmp_path}", f"--exo={tmp_path}", f"--narrations={tmp_path / 'n.npz'}"]
  assert mine_pairs.main([*data, *options, f"--output={tmp_path / 'pairs.npz'}"]) == 2
  assert words in " ".join(capsys.readouterr().err.split())


def test_command_with_released_labels(tmp_path, tiny_ego, tiny_exo, tiny_narrations, capsys):
  tiny_narrations.save(tmp_path / "n.npz")
  assert (
    mine_pairs.main(
      [
        f"--ego={tiny_ego}",
        f"--exo={tiny_exo}",
        "--threshold=0.25",
        f"--narrations={tmp_path / 'n.npz'}",
        "--rule=released_labels",
        f"--output={tmp_path / 'pairs.npz'}",
        "--released_limit=2",
      ]
    )
    == 0
  )
  out = capsys.readouterr().out
  assert "groups of candidates by labels" in out
  assert "above the threshold 0.25: " in out
  pairs = pairing.PairTable.load(tmp_path / "pairs.npz")
  ego = records.ClipDataset(tiny_ego, "train")
  exo = records.ClipDataset(tiny_exo, "train")
  pairs.check(ego, [exo], tiny_narrations)
  for i, clip in enumerate(ego.clips):
    same = [j for j, c in enumerate(exo.clips) if c.labels == clip.labels]
    if same:
      assert {j for _, j in _drawn(pairs, i)} == set(same[:2])
