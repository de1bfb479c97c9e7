"""Stored features: what is written comes back, and damage is told."""

from __future__ import annotations

import json
import pickle

import ml_dtypes
import numpy as np
import pytest

from data_prep.clips import feature_records
from sum_l_jax.data import feature_card
from sum_l_jax.data import feature_store
from sum_l_jax.data import records
from sum_l_jax.data import shard_cache
from sum_l_jax.data import shards
from sum_l_jax.system import checked_json
from sum_l_jax.system import storage
from tests.support import feature_sets

SHAPE = (2, 3, 8)


@pytest.fixture(name="values", scope="module")
def values_fixture():
  """Features of the 17 train clips of tiny_ego, float32."""
  return np.random.default_rng(0).standard_normal((17, *SHAPE)).astype(np.float32)


@pytest.fixture(name="folder")
def folder_fixture(tiny_ego, values, tmp_path, monkeypatch):
  """A feature set of several shards."""
  monkeypatch.setattr(feature_records, "SHARD_CLIPS", 5)
  feature_sets.write(tmp_path / "set", tiny_ego, {"train": values}, dtype="float32")
  return tmp_path / "set"


@pytest.mark.parametrize("keep", [0, feature_store.KEEP_BYTES])
def test_what_is_written_comes_back(folder, values, keep):
  store = feature_store.FeatureStore(folder, "train", keep_bytes=keep)
  assert (len(store), store.shape, store.dtype) == (17, SHAPE, np.float32)
  assert len(store.shards.files) == 4
  wanted = [16, 0, 5, 5, 9]
  np.testing.assert_array_equal(store.read(wanted), values[wanted])
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read([3]), values[[3]])
  assert store.read([]).shape == (0, *SHAPE)
  np.testing.assert_array_equal(store.read_one(16), values[16])
  for outside in (-1, 17):
    with pytest.raises(IndexError, match=f"clip {outside} was asked for"):
      store.read_one(outside)
    with pytest.raises(IndexError, match=f"clip {outside} was asked for"):
      store.read([0, outside])


def test_bfloat16_is_rounded_to_the_nearest(tiny_ego, values, tmp_path):
  feature_sets.write(tmp_path / "set", tiny_ego, {"train": values}, dtype="bfloat16")
  found = feature_store.FeatureStore(tmp_path / "set", "train").read(range(17))
  assert found.dtype == ml_dtypes.bfloat16
  # Eight bits of the fraction, of which the last is rounded.
  assert np.abs(found.astype(np.float32) / values - 1).max() <= 2.0**-8
  raw = found.view(np.uint16)
  # Rounding in integers, ties to even.
  bits = values.view(np.uint32).astype(np.int64)
  np.testing.assert_array_equal(raw, (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)


def test_a_record_is_nothing_but_the_values(folder, values):
  store = feature_store.FeatureStore(folder, "train", keep_bytes=0)
  assert store.shards.read(7) == values[7].astype("<f4").tobytes()


def test_a_set_belongs_to_its_clips(folder, tiny_ego, tiny_exo):
  store = feature_store.FeatureStore(folder, "train")
  store.check(records.ClipDataset(tiny_ego, "train"))
  with pytest.raises(ValueError, match="of 17 clips, and it has 11.*extract_features"):
    store.check(records.ClipDataset(tiny_exo, "train"))
  changed = records.ClipDataset(tiny_ego, "train")
  changed.__dict__["fingerprint"] = "0" * 16
  with pytest.raises(ValueError, match="with the fingerprint .*, and it has 0000"):
    store.check(changed)


def test_no_set_and_no_split(folder, tmp_path):
  with pytest.raises(FileNotFoundError, match="features.json is missing.*goes on with it"):
    feature_store.FeatureStore(tmp_path, "train")
  with pytest.raises(ValueError, match=r"no split 'val'; it has \['train'\].*--splits=val"):
    feature_store.FeatureStore(folder, "val")


@pytest.mark.parametrize(
  "field, value, reason",
  [
    ("format", 99, "has format 99, this version reads 1"),
    ("kind", "frames", "is damaged: .*kind"),
    ("dtype", "float16", "is damaged: .*dtype"),
    ("shape", [3, 3, 8], "its shape has 3 views, and 2 are described"),
    ("kind", "pooled", "pooled features have one token, and its shape says 3"),
    ("splits", {"train": 18}, "has 18 clips, and its shards hold 17 records"),
    ("splits", {}, "it has no split"),
  ],
)
def test_a_damaged_card_is_refused(folder, field, value, reason):
  path = folder / feature_card.FILE
  path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
  with pytest.raises(ValueError, match=reason):
    feature_store.FeatureStore(folder, "train")


@pytest.mark.parametrize("keep", [0, feature_store.KEEP_BYTES])
def test_lost_and_truncated_shards_are_told(folder, keep):
  store = feature_store.FeatureStore(folder, "train", keep_bytes=keep)
  path = folder / store.shards.files[1].name
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(shards.LostShardError, match="has .* bytes now"):
    store.read([6])
  path.unlink()
  with pytest.raises(shards.LostShardError, match="is gone"):
    feature_store.FeatureStore(folder, "train", keep_bytes=keep).read([6])


def test_records_of_another_length_are_told(folder):
  path = folder / feature_card.FILE
  said = json.loads(path.read_text())
  path.write_text(json.dumps(said | {"shape": [2, 3, 9]}))
  with pytest.raises(ValueError, match="a record has 192 bytes instead of 216"):
    feature_store.FeatureStore(folder, "train").read([0])


def test_features_in_a_bucket_are_read_by_copies(folder, values, bucket, tmp_path):
  storage.upload_folder(folder, bucket / "set", last=feature_card.FILE)
  store = feature_store.FeatureStore(bucket / "set", "train", keep_bytes=0)
  np.testing.assert_array_equal(store.read([16, 2]), values[[16, 2]])
  cache = shard_cache.ShardCache(str(tmp_path / "copies"))
  shard = store.shards.files[1]
  cache.fetch(store.shards.path(1), shard.size, shard.crc32c)
  cached = feature_store.FeatureStore(bucket / "set", "train", keep_bytes=0)
  cached.shards.cache = cache
  storage.remove(bucket / "set" / shard.name)
  np.testing.assert_array_equal(cached.read([9, 0]), values[[9, 0]])


def test_what_cannot_be_stored_is_refused(tiny_ego, values, tmp_path):
  with pytest.raises(ValueError, match=r"must be \[2, 3, 8\].*got \[3, 8\]"):
    feature_sets.write(tmp_path / "set", tiny_ego, {"train": values[:, 0]}, shape=SHAPE)
  bad = values.copy()
  bad[3, 0, 0, 0] = np.nan
  with pytest.raises(ValueError, match="not finite in bfloat16"):
    feature_sets.write(tmp_path / "set", tiny_ego, {"train": bad})
  with pytest.raises(checked_json.JsonError, match="no fingerprint of the clips of split 'test'"):
    feature_sets.write(tmp_path / "set", tiny_ego, {"train": values, "test": values})
  assert not (tmp_path / "set").exists()
