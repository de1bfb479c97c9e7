"""Examples of stored features: which view is drawn, and what can't be read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sum_l_jax.data import eval_loader
from sum_l_jax.data import examples
from sum_l_jax.data import feature_card
from sum_l_jax.data import feature_store
from sum_l_jax.data import input_options
from sum_l_jax.data import loader
from sum_l_jax.data import records
from sum_l_jax.data import stored_clips
from sum_l_jax.data import transforms
from tests.support import feature_sets

_TRANSFORM = transforms.ClipTransform.for_testing(8, 2, 32)
VIEWS = 3


@pytest.fixture(name="values", scope="module")
def values_fixture():
  return np.random.default_rng(0).standard_normal((17, VIEWS, 2, 4)).astype(np.float32)


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tiny_ego, values, tmp_path_factory):
  folder = tmp_path_factory.mktemp("stored") / "set"
  feature_sets.write(
    folder, tiny_ego, {"train": values}, dtype="float32", unreadable={"train": (4, 9)}
  )
  return folder


def clips(tiny_ego, folder):
  data = records.ClipDataset(tiny_ego, "train")
  store = feature_store.FeatureStore(folder, "train")
  return examples.ViewClips([data], _TRANSFORM, features=[store])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_view_is_drawn_by_seed_and_position(tiny_ego, folder, values, workers):
  options = input_options.Input(num_workers=workers)
  views = {"ego": clips(tiny_ego, folder)}
  seen = set()
  with loader.TrainStream(views, batch_size=5, seed=3, start_step=2, options=options) as stream:
    for step in range(2, 6):
      part = next(stream)["ego"]
      assert set(part) == {"tokens", "mask", "clip", "labels"}
      for row, clip in enumerate(part["clip"]):
        rng = np.random.default_rng([3, examples.STREAMS["ego"], 5 * step + row])
        view = int(rng.integers(VIEWS))
        np.testing.assert_array_equal(part["tokens"][row], values[clip, view])
        seen.add(view)
        assert clip not in (4, 9)
    assert set(stream.replaced) <= {"ego_train_004", "ego_train_009"} and stream.replaced
  assert seen == set(range(VIEWS))


def stream(tiny_ego, folder, samples, crops):
  given = clips(tiny_ego, folder)
  return eval_loader.EvalStream(
    given.pools[0],
    _TRANSFORM,
    features=given.features[0],
    views=eval_loader.TestViews(samples, crops),
    batch_size=4,
    options=input_options.Input(1),
  )


def test_all_views_are_evaluated_once(tiny_ego, folder, values):
  found = stream(tiny_ego, folder, VIEWS, 1)
  rows = {}
  for batch in found:
    for row in np.flatnonzero(batch["mask"]):
      rows[int(batch["clip"][row]), int(batch["view"][row])] = batch["tokens"][row]
  wanted = {(c, v): values[c, v] for c in range(17) for v in range(VIEWS) if c not in (4, 9)}
  assert rows.keys() == wanted.keys()
  for place, value in wanted.items():
    np.testing.assert_array_equal(rows[place], value)
  assert sorted(found.skipped) == ["ego_train_004", "ego_train_009"]
  assert found.num_views == VIEWS


def test_other_views_are_refused(tiny_ego, folder):
  with pytest.raises(ValueError, match=r"3 x 1 views .* but 1 x 3 are asked for.*eval.clips"):
    stream(tiny_ego, folder, 1, 3)


def test_pools_of_several_forms_are_refused(tiny_ego, folder, values, tmp_path):
  other = tmp_path / "other"
  feature_sets.write(other, tiny_ego, {"train": values[:, :, :1]}, dtype="float32")
  one, two = clips(tiny_ego, folder), clips(tiny_ego, other)
  both = examples.ViewClips(
    [*one.pools, *two.pools], _TRANSFORM, features=[*one.features, *two.features]
  )
  with pytest.raises(ValueError, match="must have one form"):
    stored_clips.make_reader(both)


def test_views_that_were_drawn_have_no_place_in_untrimmed_clips(tiny_ego, values, tmp_path):
  drawn = feature_card.FeatureViews("train", VIEWS, 1, 0)
  feature_sets.write(tmp_path / "set", tiny_ego, {"train": values}, views=drawn)
  given = clips(tiny_ego, tmp_path / "set")
  assert stored_clips.make_reader(given).num_clips == 17
  (data,) = given.pools
  actions = {"verb": ((0, 1, 3),)}
  data.clips = tuple(
    dataclasses.replace(clip, actions=actions if number == 3 else {})
    for number, clip in enumerate(data.clips)
  )
  with pytest.raises(ValueError, match="nobody knows any more what they show"):
    stored_clips.make_reader(given)


def _single_view(tiny_ego, folder, values, *, unreadable=(), skip=()):
  """A reader of one view of each clip, from two pools of the same clips."""
  pools, stores = [], []
  for number in range(2):
    place = folder / f"set_{number}"
    feature_sets.write(
      place,
      tiny_ego,
      {"train": values[:, :1] + number},
      dtype="float32",
      unreadable={"train": unreadable} if number else {},
    )
    pools.append(records.ClipDataset(tiny_ego, "train"))
    stores.append(feature_store.FeatureStore(place, "train"))
  return examples.ViewClips(pools, _TRANSFORM, features=stores, skip=skip)


@pytest.mark.parametrize(
  "unreadable, skip, together",
  [((), (), True), ((3,), (), False), ((), ("ego_train_003",), False)],
)
def test_a_batch_read_at_once_is_that_of_single_examples(
  tiny_ego, values, tmp_path, unreadable, skip, together, monkeypatch
):
  given = _single_view(tiny_ego, tmp_path, values, unreadable=unreadable, skip=skip)
  reader = stored_clips.make_reader(given)
  picked = [(1, 3, None), (0, 5, 5), (1, 0, None)]
  assert (reader.read_together(picked) is not None) == together

  def epoch():
    with loader.TrainStream({"ego": given}, batch_size=4, seed=1) as batches:
      return [next(batches)["ego"] for _ in range(9)]  # 34 clips: into the second epoch.

  at_once = epoch()
  monkeypatch.setattr(stored_clips.StoredReader, "read_together", lambda *_: None)
  for one, other in zip(at_once, epoch(), strict=True):
    assert one.keys() == other.keys()
    for name in ("tokens", "mask", "clip"):
      np.testing.assert_array_equal(one[name], other[name])
    for task, labels in one["labels"].items():
      np.testing.assert_array_equal(labels, other["labels"][task])


def test_drawn_views_are_not_read_at_once(tiny_ego, folder):
  assert stored_clips.make_reader(clips(tiny_ego, folder)).read_together([(0, 0, None)]) is None
