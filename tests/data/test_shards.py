"""Shards in a bucket: read record by record, and from copies on a local disk."""

from __future__ import annotations

import collections
import errno
import fcntl
import functools
import itertools
import logging
import os
import threading
import time

import pytest

from data_prep.clips import clip_shards
from sum_l_jax import build
from sum_l_jax.config import read
from sum_l_jax.data import eval_loader
from sum_l_jax.data import input_options
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.data import shard_cache
from sum_l_jax.data import shard_filler
from sum_l_jax.data import shards
from sum_l_jax.system import devices
from sum_l_jax.system import retries
from sum_l_jax.system import storage
from tests.support import fault_proxy
from tests.support import runs
from tests.support import streams
from tests.support import tiny_data
from tests.support import waiting

FULL, THERE, BUSY = shard_cache.Outcome.FULL, shard_cache.Outcome.THERE, shard_cache.Outcome.BUSY


@pytest.fixture(name="many", scope="module")
def many_fixture(tmp_path_factory):
  """Folder of a data set whose 17 clips lie in six shards or more."""
  folder = tmp_path_factory.mktemp("many") / "ego"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(clip_shards, "SHARD_BYTES", 25_000)
    tiny_data.write_tiny(folder, "ego", {"train": 17, "val": 5})
  assert len(records.ClipDataset(folder, "train").shards.files) > 5
  return folder


@pytest.fixture(name="remote")
def remote_fixture(many, bucket):
  """The same in a bucket."""
  storage.upload_folder(many, bucket / "ego", last=records.CARD_FILE)
  return bucket / "ego"


def cache_in(folder, limit=0):
  return shard_cache.ShardCache(str(folder / "copies"), limit)


def take(folder, count=9, split="train", **more):
  return streams.take(count, ego=records.ClipDataset(folder, split), **more)


def copies(cache):
  return sorted(name for name in os.listdir(cache.folder) if name.endswith(".shard"))


@pytest.fixture(name="opened")
def opened_fixture(monkeypatch):
  """Paths of the files that readers open, in order."""
  seen, original = [], shards._open
  monkeypatch.setattr(shards, "_open", lambda path: seen.append(str(path)) or original(path))
  return seen


def test_batches_are_the_same_from_wherever_they_come(many, remote, tmp_path, opened):
  expected = take(many)
  opened.clear()
  streams.assert_equal(take(remote), expected)
  assert all(path.startswith("gs://") for path in opened)
  cache = cache_in(tmp_path)
  with streams.open_stream(ego=records.ClipDataset(remote, "train"), copies=cache) as stream:
    streams.assert_equal(list(itertools.islice(stream, 9)), expected)
    number = len(records.ClipDataset(many, "train").shards.files)
    waiting.wait_for(lambda: len(copies(cache)) == number)
  opened.clear()
  streams.assert_equal(take(remote, copies=cache), expected)
  assert opened and not any(path.startswith("gs://") for path in opened)


def test_worker_processes_read_copies_and_the_bucket(many, remote, tmp_path):
  cache = cache_in(tmp_path)
  found = take(remote, 4, num_workers=1, copies=cache)
  streams.assert_equal(found, take(many, 4))


def test_records_are_asked_for_many_at_a_time(remote, monkeypatch):
  """Each waits for another one; one after the other none would come."""
  together = threading.Barrier(2)
  original = shards.Shards._read

  def read(self, number, position):
    together.wait(10)
    return original(self, number, position)

  monkeypatch.setattr(shards.Shards, "_read", read)
  (batch,) = take(remote, 1, num_threads=1, prefetch=1)
  assert len(set(batch["ego"]["clip"].tolist())) == 4
  assert len(list(_test_views(records.ClipDataset(remote, "val")))) == 3


def test_faults_change_no_batch(many, storage_url, remote, monkeypatch):
  data = records.ClipDataset(remote, "train")
  with fault_proxy.FaultProxy(storage_url) as proxy:
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", proxy.url)
    # One of ten requests, at the opening of a shard and at records.
    for kind in ("503", "cut", "short", "429"):
      proxy.planned.extend(["", "", kind, *[""] * 7])
    streams.assert_equal(streams.take(9, ego=data), take(many))
    assert not proxy.planned
    assert set(proxy.faults) == {"503", "cut", "short", "429"}


@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_a_bucket_that_does_not_answer_ends_a_run(kind, storage_url, remote, monkeypatch):
  """ArrayRecord's client would go on asking for a quarter of an hour."""
  data = records.ClipDataset(remote, "val")
  monkeypatch.setenv(retries.PATIENCE_VARIABLE, "0.5")
  with fault_proxy.FaultProxy(storage_url, share=1.0, kinds=("503",)) as proxy:
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", proxy.url)
    with pytest.raises(shards.UnreachableError, match="bucket didn't answer for 0.5 s"):
      if kind == "training":
        streams.take(1, ego=data)
      else:
        next(iter(_test_views(data)))


def _test_views(data, host=input_options.ALONE, **options):
  return eval_loader.EvalStream(
    data,
    streams.EGO_TRANSFORM,
    views=eval_loader.TestViews(2, 1),
    batch_size=4,
    options=input_options.Input(**options),
    host=host,
  )


def test_no_access_is_no_corrupt_clip(remote, monkeypatch):
  def refuse(path):
    raise RuntimeError("Permanent error, with a last message of Forbidden; reading x")

  monkeypatch.setattr(shards, "_open", refuse)
  with pytest.raises(shards.UnreachableError, match="Forbidden"):
    take(remote, 1)


def test_a_shard_that_is_gone_is_named(remote):
  data = records.ClipDataset(remote, "train")
  storage.remove(data.shards.path(0))
  with pytest.raises(shards.LostShardError, match="00000 is gone"):
    data.read_frames(0, [0])


def test_evaluation_copies_what_is_read_often(many, remote, tmp_path, opened):
  """Two samples a clip: each record is read twice in a pass."""
  cache = cache_in(tmp_path)
  stream = _test_views(records.ClipDataset(remote, "val"), copies=cache)
  expected = list(_test_views(records.ClipDataset(many, "val")))
  streams.assert_equal(list(stream), expected)
  for _ in stream:
    waiting.wait_for(lambda: len(copies(cache)) == 2)
  opened.clear()
  streams.assert_equal(
    list(_test_views(records.ClipDataset(remote, "val"), copies=cache)), expected
  )
  assert opened and not any(path.startswith("gs://") for path in opened)


def test_hosts_copy_what_they_read_and_no_more(remote, tmp_path, monkeypatch):
  """By contiguous samples, each of two hosts evaluates clips of other shards."""
  original, asked = storage.download, set()

  def download(source, target):
    asked.add(str(source))
    original(source, target)

  monkeypatch.setattr(storage, "download", download)
  data = records.ClipDataset(remote, "train")
  # 34 samples: clip 8 is the last one of the first host.
  shard_of = lambda clip: str(data.shards.path(data.shards.file_of(clip.first_record)))
  needed = [set(map(shard_of, clips)) for clips in (data.clips[:9], data.clips[8:])]
  assert needed[0] != needed[1]
  for host, own in enumerate(needed):
    asked.clear()
    cache = cache_in(tmp_path / str(host))
    stream = _test_views(data, input_options.Host(host, 2), copies=cache)
    # The shard that both have a part of is worth it in a later pass.
    for _ in range(5):
      list(stream)
    for _ in stream:
      waiting.wait_for(functools.partial(asked.issuperset, own))
    assert asked == own


def test_a_shard_of_which_little_is_read_is_not_copied(remote, tmp_path):
  """A fifth of an epoch: a copy of a shard would be more than what is read of it."""
  data, cache = records.ClipDataset(remote, "train"), cache_in(tmp_path)
  counted = collections.Counter()
  with streams.open_stream(ego=data, batch_size=1, stop_step=4, copies=cache) as stream:
    for split, record in itertools.chain.from_iterable(map(stream.maker.uses, range(4))):
      counted[split.file_of(record)] += 1
    worth = {n for n, reads in counted.items() if reads >= data.shards.files[n].records}
    assert list(itertools.islice(stream, 4))
    time.sleep(0.3)
  found = set(copies(cache)) if worth else set()
  assert found == {_name(cache, data.shards, number) for number in worth}
  assert len(worth) < len(counted)


def _name(cache, split, number):
  return cache.place(split.path(number), split.files[number].crc32c).name


def test_a_stage_opens_its_data_and_tables_in_a_bucket(tiny_ego, tiny_exo, tiny_tables, bucket):
  storage.write_text(bucket / "skip.txt", records.ClipDataset(tiny_ego, "train").clips[2].clip_id)
  opened = []
  for place in ("disk", "bucket"):
    if place == "bucket":
      for name, folder in (("ego", tiny_ego), ("exo", tiny_exo)):
        storage.upload_folder(folder, bucket / name, last=records.CARD_FILE)
      for file in tiny_tables.iterdir():
        storage.upload(file, bucket / file.name)
    config = read.default_config()
    where = (tiny_ego, tiny_exo, tiny_tables) if place == "disk" else _in(bucket)
    runs.small(config, ego=where[0], exo=where[1], tables=where[2])
    config.ego.skip_list = str(bucket / "skip.txt")
    settings = build.resolve(config)
    trainer = build.Trainer.open(settings, "joint", devices.make_mesh())
    with trainer.stream(start_step=0) as stream:
      opened.append((trainer.opened.fingerprints, next(stream)))
  assert opened[0][0] == opened[1][0]
  streams.assert_equal(opened[0][1], opened[1][1])


def _in(bucket):
  return bucket / "ego", bucket / "exo", bucket


def test_uses_are_what_is_read(many, tiny_exo, tiny_tables, monkeypatch):
  ego, exo = records.ClipDataset(many, "train"), [records.ClipDataset(tiny_exo, "train")]
  # Those of tiny_ego, which has the same clips.
  pairs = pairing.PairTable.load(tiny_tables / "pairs.npz")
  table = narration_table.NarrationTable.load(tiny_tables / "narrations.npz")
  skip = [ego.clips[3].clip_id, exo[0].clips[2].clip_id]
  arguments = {"ego": ego, "exo": exo, "pairs": pairs, "narrations": table, "top_k": 1}
  stream = streams.open_stream(**arguments, ego_skip=skip[:1], exo_skip=skip[1:])
  stream.close()
  read, original = [], shards.Shards.read

  def note(self, record):
    # Threads of the stream may still be at what they were asked for before.
    if threading.get_ident() == own:
      read.append((self, record))
    return original(self, record)

  own = threading.get_ident()
  monkeypatch.setattr(shards.Shards, "read", note)
  for step in range(8):
    read.clear()
    stream.maker(step)
    assert sorted(read, key=str) == sorted(stream.maker.uses(step), key=str)


def test_what_has_no_room_is_read_from_the_bucket(many, remote, tmp_path, caplog):
  """And nothing that this run needs makes room."""
  data = records.ClipDataset(remote, "train")
  sizes = [shard.size for shard in data.shards.files]
  cache = cache_in(tmp_path, limit=2 * max(sizes))
  original, fetched = shard_cache.ShardCache.fetch, []
  with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
    patch.setattr(
      shard_cache.ShardCache,
      "fetch",
      lambda self, shard, *a, **k: fetched.append(original(self, shard, *a, **k)) or fetched[-1],
    )
    with streams.open_stream(ego=data, copies=cache) as stream:
      waiting.wait_for(lambda: FULL in fetched)
      streams.assert_equal(list(itertools.islice(stream, 13)), take(many, 13))
  assert 1 <= fetched.count(THERE) < len(sizes)
  assert sum(os.path.getsize(os.path.join(cache.folder, n)) for n in copies(cache)) <= 2 * max(
    sizes
  )
  assert caplog.text.count("there is no room for it") == 1
  # Copies are made in the order of their first use, three at a time.
  first = [
    _name(cache, *use)
    for use in dict.fromkeys(
      (split, split.file_of(r)) for step in range(5) for split, r in stream.maker.uses(step)
    )
  ]
  assert set(copies(cache)) <= set(first[:3])


def test_a_full_disk_is_one_warning(many, remote, tmp_path, monkeypatch, caplog):
  def download(source, target):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(storage, "download", download)
  with caplog.at_level(logging.WARNING):
    streams.assert_equal(take(remote, copies=cache_in(tmp_path)), take(many))
  assert caplog.text.count("there is no room for it") == 1
  assert os.listdir(tmp_path / "copies") == [".lock"]


@pytest.mark.parametrize("damage", ["a byte", "cut"])
def test_a_damaged_copy_is_made_again(damage, many, remote, tmp_path, monkeypatch):
  monkeypatch.setattr(shard_filler, "_PERIOD", 0.1)
  cache, data = cache_in(tmp_path), records.ClipDataset(remote, "train")
  for number, shard in enumerate(data.shards.files):
    assert cache.fetch(data.shards.path(number), shard.size, shard.crc32c) is THERE
  place = cache.place(data.shards.path(0), data.shards.files[0].crc32c)
  whole = place.read_bytes()
  # In the middle of a JPEG; its reader checks sums.
  position = whole.index(data.read_frames(0, [0])[0]) + 100
  place.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
  if damage == "cut":
    place.write_bytes(whole[:position])
  with streams.open_stream(ego=data, copies=cache) as stream:
    streams.assert_equal(list(itertools.islice(stream, 9)), take(many))
    waiting.wait_for(lambda: place.exists() and place.read_bytes() == whole)


def test_copies_of_another_user_are_read(many, remote, tmp_path, monkeypatch, opened):
  cache, data = cache_in(tmp_path), records.ClipDataset(remote, "train")
  for number, shard in enumerate(data.shards.files):
    assert cache.fetch(data.shards.path(number), shard.size, shard.crc32c) is THERE

  def refuse(path):
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

  monkeypatch.setattr(os, "utime", refuse)
  data.shards.cache = cache
  frames = data.read_frames(0, [0])
  assert len(opened) == 1 and opened[0].endswith(".shard")
  assert frames == records.ClipDataset(many, "train").read_frames(0, [0])


def test_copies_outlive_a_lack_of_open_files(many, remote, tmp_path, monkeypatch, opened):
  """Each copy that is read is an open file; a process may have 1024 of them, or fewer."""
  cache, data = cache_in(tmp_path), records.ClipDataset(remote, "train")
  for number, shard in enumerate(data.shards.files):
    assert cache.fetch(data.shards.path(number), shard.size, shard.crc32c) is THERE
  before, original = copies(cache), shards._open
  local = records.ClipDataset(many, "train")
  wanted = [local.read_frames(index, [0]) for index in range(len(local))]

  class NoReader:
    """As ArrayRecord's own, which says nothing before it is to read."""

    def read(self, positions):
      raise RuntimeError(f"open() failed: Too many open files; reading {positions}")

  def open_some(path):
    full = len(data.shards._readers) >= 2 and not str(path).startswith("gs://")
    return NoReader() if full else original(path)

  monkeypatch.setattr(shards, "_open", open_some)
  data.shards.cache = cache
  assert [data.read_frames(index, [0]) for index in range(len(data))] == wanted
  assert copies(cache) == before
  assert len([path for path in opened if path.endswith(".shard")]) > 2


def test_another_file_in_the_bucket_is_not_copied(remote, tmp_path):
  data = records.ClipDataset(remote, "train")
  path, shard = data.shards.path(0), data.shards.files[0]
  storage.write_bytes(path, bytes(shard.size))
  cache = cache_in(tmp_path)
  outcome = cache.fetch(path, shard.size, shard.crc32c)
  assert outcome is shard_cache.Outcome.DAMAGED
  assert os.listdir(cache.folder) == [".lock"]


@pytest.fixture(name="objects")
def objects_fixture(bucket):
  """Three objects of 100 bytes: path, size and checksum."""
  made = []
  for name in "abc":
    storage.write_bytes(bucket / name, name.encode() * 100)
    made.append((bucket / name, 100, storage.crc32c(bucket / name)))
  return made


def test_what_nobody_uses_makes_room(objects, tmp_path):
  a, b, c = objects
  cache = cache_in(tmp_path, limit=250)
  assert cache.fetch(*a) is cache.fetch(*b) is THERE
  # Just used, by whichever run: it stays, and c is read from the bucket.
  assert cache.fetch(*c) is FULL
  place = lambda o: cache.place(o[0], o[2])
  old = time.time() - 2 * shard_cache.IDLE
  os.utime(place(a), (old, old))
  os.utime(place(b), (old - 1, old - 1))
  # What this run needs stays, however long it wasn't used.
  assert cache.fetch(*c, keep={place(a).name, place(b).name}) is FULL
  assert cache.fetch(*c) is THERE
  assert place(a).exists() and not place(b).exists()
  # Nothing is removed where it would not be enough.
  assert cache.fetch(a[0].parent / "d", 240, "x") is FULL
  assert place(a).exists()


def test_one_process_copies_a_shard(objects, tmp_path):
  path, size, checksum = objects[0]
  cache = cache_in(tmp_path, limit=150)
  part = cache.place(path, checksum).with_suffix(".part")
  part.parent.mkdir()
  with part.open("wb") as other:
    fcntl.flock(other, fcntl.LOCK_EX)
    other.truncate(size)
    assert cache.fetch(path, size, checksum) is BUSY
    # What is on its way counts.
    assert cache.fetch(*objects[1]) is FULL
  # The process was killed.
  part.with_suffix(".new").write_bytes(b"half")
  assert cache.fetch(path, size, checksum) is THERE
  assert sorted(os.listdir(cache.folder)) == sorted([".lock", part.with_suffix(".shard").name])


def test_a_cache_is_on_a_disk():
  with pytest.raises(ValueError, match="config.input.shard_cache='gs://bucket/x' is in a bucket"):
    shard_cache.make("gs://bucket/x", what="config.input.shard_cache")
  assert shard_cache.make("", what="x") is None
  assert shard_cache.make("a", 1.5, what="x").limit_bytes == 3 * 2**29
