"""toy_kitchen: determinism, splits, combinations, pixels, reversals."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest
import simplejpeg

from data_prep.toy_kitchen import clips
from data_prep.toy_kitchen import drawing
from data_prep.toy_kitchen import ego
from data_prep.toy_kitchen import exo
from data_prep.toy_kitchen import looks
from data_prep.toy_kitchen import motions
from data_prep.toy_kitchen import vocabulary

SPLITS = [(view, split) for view, counts in vocabulary.COUNTS.items() for split in counts]


def _labels(view, split, count, seed=0):
  return [clips.clip_labels(seed, view, split, i) for i in range(count)]


def _combinations(view, split, count, seed=0):
  labels = _labels(view, split, count, seed)
  return [(each["verb"], each["noun"]) for each in labels]


@pytest.mark.parametrize("view, split", SPLITS)
def test_a_clip_is_a_function_of_seed_view_split_and_index(view, split):
  first = clips.make_clip(0, view, split, 5)
  assert clips.make_clip(0, view, split, 5) == first
  for other in (clips.make_clip(1, view, split, 5), clips.make_clip(0, view, split, 6)):
    assert set(first.frames).isdisjoint(other.frames)


def test_clips_do_not_depend_on_count_order_or_processes():
  alone = clips.make_clip(3, "exo", "train", 40)
  serial = list(clips.iter_clips("exo", "train", 3, {"train": 70}))
  parallel = list(clips.iter_clips("exo", "train", 3, {"train": 70}, processes=2))
  assert len(serial) == 70
  assert serial == parallel
  assert serial[40] == alone


def test_splits_and_views_share_no_clip():
  made = [clip for view, split in SPLITS for clip in clips.iter_clips(view, split, 0, {split: 3})]
  for ids in ([c.clip_id for c in made], [c.video_id for c in made]):
    assert len(set(ids)) == len(made)
  frames = [frame for clip in made for frame in clip.frames]
  assert len(set(frames)) == len(frames)


@pytest.mark.parametrize("view, split", SPLITS)
def test_frames_decode_and_labels_fit_the_tasks(view, split):
  clip = clips.make_clip(0, view, split, 0)
  assert (len(clip.frames), clip.fps) == (16, 16.0)
  decoded = np.stack([simplejpeg.decode_jpeg(f) for f in clip.frames])
  assert (decoded.shape, decoded.dtype) == ((16, 64, 64, 3), np.uint8)
  drawn = clips.render_frames(0, view, split, 0).astype(int)
  # Quality 90 without chroma subsampling: close, and not BGR by mistake.
  assert np.abs(decoded - drawn).mean() < 5
  tasks = vocabulary.tasks(view)
  for labels in _labels(view, split, 200):
    assert set(labels) == set(tasks)
    assert all(0 <= labels[n] < t.num_classes for n, t in tasks.items())
  assert clip.labels == {name: (label,) for name, label in _labels(view, split, 1)[0].items()}
  assert clip.narration


def test_both_views_have_the_same_classes_of_which_each_uses_a_part():
  assert vocabulary.tasks("ego") == vocabulary.tasks("exo")
  assert [t.num_classes for t in vocabulary.tasks("ego").values()] == [12, 14]
  used = {
    view: [set(ids) for ids in zip(*vocabulary.combinations(view, "train"))]
    for view in ("ego", "exo")
  }
  for ego_ids, exo_ids, only, shared in zip(used["ego"], used["exo"], (2, 2), (8, 10)):
    assert len(ego_ids - exo_ids) == len(exo_ids - ego_ids) == only
    assert len(ego_ids & exo_ids) == shared


@pytest.mark.parametrize("seed", [0, 1])
def test_unseen_combinations_are_in_exo_training_and_not_in_ego(seed):
  ego_train = set(_combinations("ego", "train", vocabulary.EGO_POOL, seed))
  exo_train = set(_combinations("exo", "train", 2400, seed))
  test = _combinations("ego", "test", 1500, seed)
  unseen = [pair for pair in test if pair not in ego_train]
  assert len(unseen) == 375
  assert set(unseen) <= exo_train
  assert [p in vocabulary.HELD_OUT for p in test] == [p not in ego_train for p in test]
  # Each verb and noun of an unseen combination is known from other ones.
  verbs, nouns = map(set, zip(*ego_train))
  assert all(verb in verbs and noun in nouns for verb, noun in unseen)


def test_the_smallest_ego_training_set_covers_what_counts_as_seen():
  count = len(vocabulary.EGO_SEEN)
  assert set(_combinations("ego", "train", count)) == set(vocabulary.EGO_SEEN)


def test_semantics_of_the_views_overlap_only_partly():
  ego_seen, exo_seen = set(vocabulary.EGO_SEEN), set(vocabulary.EXO_SEEN)
  both = len(ego_seen & exo_seen)
  assert 0.2 < both / len(ego_seen) < 0.5
  assert 0.2 < both / len(exo_seen) < 0.5


def test_there_are_few_ego_many_exo_and_enough_test_clips():
  counts = vocabulary.COUNTS
  assert counts["ego"]["test"] >= 1500
  assert counts["exo"]["train"] > 4 * counts["ego"]["train"]
  verbs = collections.Counter(v for v, _ in _combinations("ego", "test", 1500))
  assert max(verbs.values()) > 1.5 * min(verbs.values())  # A mild tail.


@pytest.mark.parametrize("there, back", [("take", "put"), ("open", "close")])
def test_put_and_close_are_take_and_open_played_backwards(there, back):
  forward = motions.program(there, np.random.default_rng(4), 16)
  backward = motions.program(back, np.random.default_rng(4), 16)
  for field in dataclasses.fields(motions.Motion):
    first, second = getattr(forward, field.name), getattr(backward, field.name)
    if isinstance(first, np.ndarray):
      np.testing.assert_array_equal(first, second[::-1])
    else:
      assert first == second
  moved = forward.item if there == "take" else forward.lid
  assert np.linalg.norm(moved[-1] - moved[0]) > 0.5


@pytest.mark.parametrize("verb", vocabulary.VERBS)
def test_every_verb_moves_and_stays_in_the_work_space(verb):
  for seed in range(20):
    motion = motions.program(verb, np.random.default_rng(seed), 16)
    state = np.concatenate(
      [motion.hand, motion.item, motion.rotation[:, None], motion.squash[:, None]], axis=1
    )
    assert state.shape == (16, 8) and np.isfinite(state).all()
    assert np.ptp(state, axis=0).max() > 0.2
    assert np.abs(motion.hand).max() < 1.6


def test_no_verb_is_left_handed():
  """A horizontal flip is an augmentation: x must be symmetric on average."""
  for verb in vocabulary.VERBS:
    runs = [motions.program(verb, np.random.default_rng(seed), 16) for seed in range(400)]
    change = np.array([r.hand[-1] - r.hand[0] for r in runs])[:, 0]
    # Within five standard errors of zero.
    assert abs(change.mean()) < 5 * change.std() / 20 + 1e-9, verb


def test_the_same_motion_looks_different_in_the_two_views(monkeypatch):
  # Without pixel noise what does not move is constant.
  monkeypatch.setattr(drawing, "expose", lambda frames, rng: frames)
  motion = motions.program("stir", np.random.default_rng(0), 16)
  first, third = (renderer.render(motion, 0, np.random.default_rng(1)) for renderer in (ego, exo))
  assert first.shape == third.shape == (16, 64, 64, 3)
  assert np.abs(first.astype(int) - third).mean() > 15
  # Only the ego camera moves.
  still = [(f == f[:1]).all(axis=(0, 3)).mean() for f in (first, third)]
  assert still[0] < 0.3 and still[1] > 0.6


def test_every_noun_has_a_look_of_its_own():
  found = [looks.noun_look(noun, np.random.default_rng(0)) for noun in range(len(vocabulary.NOUNS))]
  assert len({(look.shape, look.color, look.texture) for look in found}) == 14


@pytest.mark.parametrize(
  "call, words",
  [
    (lambda: clips.iter_clips("third", "train", 0), "ego.*third"),
    (lambda: clips.iter_clips("exo", "test", 0), "train.*validation.*test"),
    (lambda: clips.iter_clips("ego", "test", 0, {"test": -1}), "-1"),
    (lambda: clips.iter_clips("ego", "test", 0, processes=0), "processes"),
    (lambda: motions.program("fly", np.random.default_rng(0), 16), "take.*fly"),
  ],
)
def test_errors_name_what_was_given_and_the_choices(call, words):
  with pytest.raises(ValueError, match=words):
    call()
