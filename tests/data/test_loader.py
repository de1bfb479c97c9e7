"""The training stream: order, determinism, pairs, corrupt clips."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import shutil

import jax
import numpy as np
import pytest

from data_prep.clips import clip_dataset
from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.config import read
from sum_l_jax.data import examples
from sum_l_jax.data import input_options
from sum_l_jax.data import loader
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.system import devices
from sum_l_jax.video import decode
from tests.support import runs
from tests.support import streams
from tests.support import tiny_data


def make_pairs(ego, exo, table, top_k=3):
  """Mines by brute force; a second statement of what mining must give."""
  texts = [narration_table.normalize_narration(c.narration) for c in ego.clips]
  ego_texts = sorted(set(texts))
  carriers = collections.defaultdict(list)
  for pool, dataset in enumerate(exo):
    for index, clip in enumerate(dataset.clips):
      key = narration_table.normalize_narration(clip.narration)
      carriers[key].append((pool, index))
  exo_texts = sorted(carriers)
  cosine = table.lookup(ego_texts) @ table.lookup(exo_texts).T
  neighbours = np.argsort(-cosine, axis=1)[:, :top_k]
  entries = [entry for text in exo_texts for entry in carriers[text]]
  return pairing.PairTable(
    ego_rows=[ego_texts.index(text) for text in texts],
    neighbours=neighbours,
    similarity=np.take_along_axis(cosine, neighbours, axis=1),
    clip_offsets=np.cumsum([0] + [len(carriers[t]) for t in exo_texts]),
    clip_pool=[pool for pool, _ in entries],
    clip_index=[index for _, index in entries],
    ego_fingerprint=ego.annotation_fingerprint,
    exo_fingerprints=tuple(dataset.annotation_fingerprint for dataset in exo),
    text_model=table.model,
    text_fingerprint=table.fingerprint,
  )


@pytest.fixture(name="parts", scope="module")
def parts_fixture(tiny_ego, tiny_exo, tiny_narrations):
  """Arguments of a pair stream."""
  ego = records.ClipDataset(tiny_ego, "train")
  exo = [records.ClipDataset(tiny_exo, "train")]
  return {
    "ego": ego,
    "exo": exo,
    "pairs": make_pairs(ego, exo, tiny_narrations),
    "narrations": tiny_narrations,
  }


def ego_only(parts):
  return {"ego": parts["ego"], "narrations": parts["narrations"]}


def test_pair_batch_format(parts):
  (batch,) = streams.take(1, **parts)
  assert set(batch) == {"ego", "exo"}
  shapes = jax.tree.map(lambda x: (x.shape, x.dtype.name), batch)
  expected = {
    "video": ((4, 4, 32, 32, 3), "uint8"),
    "color_offset": ((4, 3), "float32"),
    "narration": ((4, 16), "float32"),
    "labels": {"verb": ((4,), "int32"), "noun": ((4,), "int32")},
    "mask": ((4,), "float32"),
    "clip": ((4,), "int32"),
  }
  assert shapes["ego"] == expected
  assert shapes["exo"] == expected | {"pool": ((4,), "int32")}
  assert batch["ego"]["mask"].tolist() == [1.0] * 4
  assert not np.any(batch["ego"]["color_offset"])
  assert np.all(np.any(batch["exo"]["color_offset"], axis=1))


def test_labels_and_narrations_belong_to_the_clips(parts):
  for batch in streams.take(3, **parts):
    for view, dataset in (("ego", parts["ego"]), ("exo", parts["exo"][0])):
      clips = [dataset.clips[i] for i in batch[view]["clip"]]
      np.testing.assert_array_equal(
        batch[view]["narration"], parts["narrations"].lookup([clip.narration for clip in clips])
      )
      assert batch[view]["labels"]["noun"].tolist() == [clip.labels["noun"][0] for clip in clips]


def test_partners_are_among_the_most_similar(parts):
  table, exo = parts["narrations"], parts["exo"][0]
  pool = table.lookup([clip.narration for clip in exo.clips])
  for batch in streams.take(5, **parts, top_k=1):
    cosine = batch["ego"]["narration"] @ pool.T
    drawn = cosine[np.arange(4), batch["exo"]["clip"]]
    np.testing.assert_allclose(drawn, cosine.max(axis=1), rtol=1e-6)


def test_rows_are_drawn_by_their_positions(parts):
  """Clips and partners of each row, once more from seed and position.

  An order that is shifted or turned within a batch would be as random, and no
  other test would see that a run no longer takes the clips it took.
  """
  ego, pairs = parts["ego"], parts["pairs"]
  stream = {"ego": 0, "pair": 2, "order": 3}
  rng = lambda name, *position: np.random.default_rng([3, stream[name], *position])
  expected, drawn = [], []
  for step, batch in enumerate(streams.take(10, **parts, top_k=3)):
    for row in range(4):
      position = 4 * step + row
      order = rng("order", stream["ego"], position // 17).permutation(17)
      clip = order[position % 17]
      # `draw` takes two numbers: the narration, then one of its clips.
      first, second = rng("pair", position).random(2)
      narration = pairs.neighbours[pairs.ego_rows[clip], int(3 * first)]
      start, stop = pairs.clip_offsets[narration : narration + 2]
      partner = pairs.clip_index[start + int(second * (stop - start))]
      expected.append((clip, partner))
      drawn.append((batch["ego"]["clip"][row], batch["exo"]["clip"][row]))
  assert drawn == expected
  assert len({ego.clips[clip].narration for clip, _ in drawn}) > 4


def test_the_pixels_of_a_row_are_those_of_its_clip(parts):
  """Cut out of the clip's own frames, in their order and at one place."""
  transform = transforms.ClipTransform(3, 1, 40, (48, 48), flip=0.0)
  for batch in streams.take(3, **ego_only(parts), ego_transform=transform):
    for clip, video in zip(batch["ego"]["clip"], batch["ego"]["video"]):
      info = parts["ego"].clips[clip]
      frames = np.stack(
        [
          decode.decode_jpeg(jpeg)
          for jpeg in parts["ego"].read_frames(int(clip), range(info.num_frames))
        ]
      )
      windows = np.lib.stride_tricks.sliding_window_view(frames, video.shape[:3], (0, 1, 2))
      assert np.any(np.all(np.moveaxis(windows, 3, -1) == video, axis=(-4, -3, -2, -1)))


def test_epochs_are_permutations_and_differ(parts):
  # 17 clips, batches of 4: batches cross the borders of epochs.
  batches = streams.take(17, **ego_only(parts))
  clips = np.concatenate([batch["ego"]["clip"] for batch in batches])
  epochs = clips.reshape(4, 17)
  for epoch in epochs:
    assert sorted(epoch) == list(range(17))
  assert len({tuple(epoch) for epoch in epochs}) == 4


def test_ego_is_the_same_with_and_without_exo(parts):
  for alone, joint in zip(streams.take(6, **ego_only(parts)), streams.take(6, **parts)):
    streams.assert_equal(alone["ego"], joint["ego"])


def test_views_and_seeds_have_streams_of_their_own(parts):
  ego = dict(ego_only(parts))
  as_exo = {"exo": [parts["ego"]], "narrations": parts["narrations"]}
  orders = [
    np.concatenate([batch[view]["clip"] for batch in streams.take(4, **settings)])
    for view, settings in (("ego", ego), ("exo", as_exo), ("ego", ego | {"seed": 4}))
  ]
  assert len({tuple(order) for order in orders}) == 3


def test_the_same_clip_is_augmented_anew(parts):
  batches = streams.take(17, **ego_only(parts))
  videos = collections.defaultdict(list)
  for batch in batches:
    for clip, video in zip(batch["ego"]["clip"], batch["ego"]["video"]):
      videos[int(clip)].append(video.tobytes())
  assert all(len(set(seen)) == 4 for seen in videos.values())


@pytest.mark.parametrize(
  "settings",
  [
    {"num_threads": 1},
    {"num_threads": 4, "prefetch": 5},
    {"num_workers": 1, "cache_bytes": 10**6},
    {"cache_bytes": 10**5},  # fills up: a frame has 9,216 bytes
    {"cache_bytes": 10**8, "num_threads": 3},
  ],
  ids=str,
)
def test_threads_workers_and_cache_change_nothing(parts, settings):
  streams.assert_equal(streams.take(12, **parts), streams.take(12, **parts, **settings))


@pytest.mark.parametrize("cache_bytes, kept", [(10**5, 10), (10**8, None)])
def test_cache_is_bounded_and_saves_reading(parts, monkeypatch, cache_bytes, kept):
  frames_read = []
  original = records.ClipDataset.read_frames
  # An object of its own: threads of an earlier stream may still be reading.
  ego = records.ClipDataset(parts["ego"].directory, "train")

  def read_frames(self, index, frames):
    if self is ego:
      frames_read.extend((index, frame) for frame in frames)
    return original(self, index, frames)

  monkeypatch.setattr(records.ClipDataset, "read_frames", read_frames)
  settings = ego_only(parts) | {"ego": ego, "cache_bytes": cache_bytes}
  streams.take(60, **settings | {"num_threads": 1, "prefetch": 1})
  repeats = len(frames_read) - len(set(frames_read))
  if kept is None:
    assert repeats == 0
  else:
    assert repeats > 100
    counts = collections.Counter(frames_read)
    assert sum(count == 1 for count in counts.values()) >= kept


def test_closed_stream_says_so(parts):
  stream = streams.open_stream(**parts)
  next(stream)
  stream.close()
  stream.close()
  with pytest.raises(ValueError, match="closed"):
    next(stream)


def test_clip_without_labels_is_all_zeros(tmp_path):
  (clip,) = tiny_data.noise_clips("x", 1, seed=0)
  clip_dataset.write_clip_dataset(
    tmp_path / "d",
    name="d",
    view="ego",
    tasks=tiny_data.MULTI_LABEL_TASKS,
    splits={"test": lambda: [dataclasses.replace(clip, labels={})]},
  )
  dataset = records.ClipDataset(tmp_path / "d", "test")
  verb = examples.label_arrays(dataset, [0, 0])["verb"]
  np.testing.assert_array_equal(verb, np.zeros((2, 3), np.float32))


def test_resume(parts):
  whole = streams.take(9, **parts)
  streams.assert_equal(whole[5:], streams.take(4, **parts, start_step=5))


def test_hosts_share_the_same_global_batch(parts):
  one = streams.take(3, **parts)
  halves = [streams.take(3, **parts, host=input_options.Host(host, 2)) for host in range(2)]
  for whole, first, second in zip(one, *halves):
    joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)
    streams.assert_equal(whole, joined)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_share_epochs_that_batches_do_not_divide(hosts, tiny_exo):
  pools = [records.ClipDataset(tiny_exo, "train")]  # 11 clips
  clips = [
    [
      batch["exo"]["clip"]
      for batch in streams.take(11, exo=pools, host=input_options.Host(host, hosts))
    ]
    for host in range(hosts)
  ]
  # In the order of the global batches: a block of rows for each host.
  order = np.concatenate([np.concatenate(rows) for rows in zip(*clips)])
  for epoch in order.reshape(4, 11):
    assert sorted(epoch) == list(range(11))


def test_exo_only_covers_all_pools(tiny_exo, tiny_ego):
  pools = [records.ClipDataset(tiny_exo, "train"), records.ClipDataset(tiny_ego, "val")]
  batches = streams.take(4, exo=pools)
  assert set(batches[0]) == {"exo"} and "narration" not in batches[0]["exo"]
  drawn = [
    (int(pool), int(clip))
    for batch in batches
    for pool, clip in zip(batch["exo"]["pool"], batch["exo"]["clip"])
  ]
  expected = [(0, i) for i in range(11)] + [(1, i) for i in range(5)]
  assert sorted(drawn) == expected
  for batch in batches:
    for row, pool in enumerate(batch["exo"]["pool"]):
      clip = pools[pool].clips[batch["exo"]["clip"][row]]
      assert batch["exo"]["labels"]["verb"][row] == clip.labels["verb"][0]


def test_narrations_are_those_of_the_pool(tiny_exo, tiny_ego, tiny_narrations):
  pools = [records.ClipDataset(tiny_exo, "train"), records.ClipDataset(tiny_ego, "val")]
  seen = set()
  for batch in streams.take(4, exo=pools, narrations=tiny_narrations):
    part = batch["exo"]
    clips = [pools[pool].clips[clip] for pool, clip in zip(part["pool"], part["clip"])]
    expected = tiny_narrations.lookup([clip.narration for clip in clips])
    np.testing.assert_array_equal(part["narration"], expected)
    seen |= set(part["pool"].tolist())
  assert seen == {0, 1}


def test_multi_label(tiny_exo_multi_label):
  exo = records.ClipDataset(tiny_exo_multi_label, "train")
  (batch,) = streams.take(1, exo=[exo])
  nouns = batch["exo"]["labels"]["noun"]
  assert nouns.dtype == np.float32 and nouns.shape == (4, 4)
  for row, clip in zip(nouns, batch["exo"]["clip"]):
    assert tuple(np.flatnonzero(row)) == exo.clips[clip].labels["noun"]
  assert set(np.unique(nouns)) == {0.0, 1.0}


def test_label_arrays(tiny_exo_multi_label, tiny_exo):
  exo = records.ClipDataset(tiny_exo, "train")
  verbs = examples.label_arrays(exo, [2, 0, 2])["verb"]
  assert verbs.dtype == np.int32
  assert verbs.tolist() == [exo.clips[i].labels["verb"][0] for i in (2, 0, 2)]
  multi = records.ClipDataset(tiny_exo_multi_label, "train")
  assert examples.label_arrays(multi, range(9))["verb"].sum() == 9


# Corrupt clips.


def damaged(monkeypatch, clip_ids, how="cut"):
  """Makes clips of a data set unreadable."""
  original = records.ClipDataset.read_frames

  def read_frames(self, index, frames):
    data = original(self, index, frames)
    if self.clips[index].clip_id not in clip_ids:
      return data
    if how == "missing":
      raise ValueError("record 7 belongs to another clip")
    return [frame[: len(frame) // 2] for frame in data]

  monkeypatch.setattr(records.ClipDataset, "read_frames", read_frames)


@pytest.fixture(name="damage")
def damage_fixture(monkeypatch):
  """`damage(ids, how)`, see `damaged`."""
  return functools.partial(damaged, monkeypatch)


@pytest.mark.parametrize("how", ["cut", "missing"])
def test_corrupt_clip_is_replaced_and_counted(parts, damage, caplog, how):
  intact = streams.take(9, **ego_only(parts))
  damage({"ego_train_003"}, how)
  with streams.open_stream(**ego_only(parts), max_corrupt_share=0.2) as stream:
    batches = list(itertools.islice(stream, 9))
    replaced = dict(stream.replaced)
  changed = 0
  for before, after in zip(intact, batches):
    for row in range(4):
      if before["ego"]["clip"][row] == 3:
        changed += 1
        assert after["ego"]["clip"][row] != 3
      else:
        assert before["ego"]["clip"][row] == after["ego"]["clip"][row]
        np.testing.assert_array_equal(before["ego"]["video"][row], after["ego"]["video"][row])
  # 36 examples are two epochs and a bit; a spare may be the corrupt clip too.
  assert replaced.keys() == {"ego_train_003"}
  assert replaced["ego_train_003"] >= changed >= 2
  lines = [line for line in caplog.messages if "ego_train_003" in line]
  assert len(lines) == 1 and "Corrupt clip replaced" in lines[0]
  damage({"ego_train_003"}, how)
  again = streams.take(9, **ego_only(parts), max_corrupt_share=0.2, num_threads=4)
  streams.assert_equal(batches, again)


def test_replaced_labels_follow_the_new_clip(parts, damage):
  bad = {f"ego_train_{i:03d}" for i in range(0, 17, 2)}
  damage(bad)
  for batch in streams.take(5, **parts, max_corrupt_share=0.99):
    clips = [parts["ego"].clips[i] for i in batch["ego"]["clip"]]
    assert not {clip.clip_id for clip in clips} & bad
    assert batch["ego"]["labels"]["verb"].tolist() == [clip.labels["verb"][0] for clip in clips]


def test_a_replacement_brings_its_own_partner(parts, damage):
  """The partner of the corrupt clip would be a wrong pair without a word."""
  exo = parts["exo"][0]
  pool = parts["narrations"].lookup([clip.narration for clip in exo.clips])
  bad = {f"ego_train_{i:03d}" for i in range(0, 17, 2)}
  plain = streams.take(12, **parts, top_k=1)
  damage(bad)
  changed = 0
  batches = streams.take(12, **parts, top_k=1, max_corrupt_share=0.99)
  for before, batch in zip(plain, batches):
    cosine = batch["ego"]["narration"] @ pool.T
    drawn = cosine[np.arange(4), batch["exo"]["clip"]]
    np.testing.assert_allclose(drawn, cosine.max(axis=1), rtol=1e-6)
    # Rows whose clip could be read keep their partner too.
    same = before["ego"]["clip"] == batch["ego"]["clip"]
    np.testing.assert_array_equal(before["exo"]["clip"][same], batch["exo"]["clip"][same])
    changed += np.sum(~same)
  assert changed > 10


@pytest.mark.parametrize("view", types.VIEWS)
def test_replacements_differ_from_place_to_place(parts, view):
  """A clip that stands for all corrupt ones would be learnt by heart."""
  dataset = parts["ego"] if view == "ego" else parts["exo"][0]
  bad = {clip.clip_id for clip in dataset.clips[::2]}
  arguments = ego_only(parts) if view == "ego" else {"exo": parts["exo"]}
  orders = {}
  for seed in (3, 4):
    options = {**arguments, "seed": seed, "max_corrupt_share": 0.99}
    plain = streams.take(17, **options)
    with pytest.MonkeyPatch.context() as patch:
      damaged(patch, bad)
      after = streams.take(17, **options)
    pairs = [
      (int(old), int(new))
      for one, two in zip(plain, after)
      for old, new in zip(one[view]["clip"], two[view]["clip"])
      if dataset.clips[old].clip_id in bad
    ]
    # Four epochs and more: the same clip is not always replaced by the same.
    for clip in {old for old, _ in pairs}:
      assert len({new for old, new in pairs if old == clip}) > 1
    spread = {new for _, new in pairs}
    assert len(spread) >= 0.6 * (len(dataset) - len(bad))
    orders[seed] = [new for _, new in pairs]
  assert orders[3][:20] != orders[4][:20]


def test_a_replacement_is_any_clip_of_the_same_pool(tiny_ego, tiny_exo):
  small, large = records.ClipDataset(tiny_ego, "val"), records.ClipDataset(tiny_exo, "train")
  bad = {clip.clip_id for clip in large.clips[::2]}
  for pools, place in (([small, large], 1), ([large, small], 0)):
    plain = streams.take(24, exo=pools)
    with pytest.MonkeyPatch.context() as patch:
      damaged(patch, bad)
      after = streams.take(24, exo=pools, max_corrupt_share=0.99)
    drawn = set()
    for one, two in zip(plain, after):
      np.testing.assert_array_equal(one["exo"]["pool"], two["exo"]["pool"])
      rows = (two["exo"]["pool"] == place) & (one["exo"]["clip"] != two["exo"]["clip"])
      drawn |= set(two["exo"]["clip"][rows].tolist())
    assert drawn == {i for i, clip in enumerate(large.clips) if clip.clip_id not in bad}


def test_too_many_corrupt_clips_stop_the_run(parts, damage, monkeypatch):
  monkeypatch.setattr(loader, "_MIN_JUDGED", 40)
  damage({"ego_train_003", "ego_train_009"})
  with pytest.raises(ValueError) as caught:
    streams.take(60, **ego_only(parts), max_corrupt_share=0.05)
  text = str(caught.value)
  for part in (
    "max_corrupt_share",
    "ego_train_003",
    "ego_train_009",
    "build the data set",
    str(parts["ego"].directory),
  ):
    assert part in text


def test_a_few_corrupt_clips_are_not_judged_early(parts, damage):
  damage({"ego_train_003"})
  assert len(streams.take(9, **ego_only(parts), max_corrupt_share=0.0)) == 9


def test_nothing_readable_stops_at_once(parts, damage):
  damage({clip.clip_id for clip in parts["ego"].clips})
  with pytest.raises(ValueError, match="clips in a row of"):
    streams.take(1, **ego_only(parts))


def test_damaged_shard_is_counted_in_worker_processes(tiny_ego, tmp_path):
  folder = shutil.copytree(tiny_ego, tmp_path / "ego")
  (shard,) = folder.glob("*train.array_record*")
  data = bytearray(shard.read_bytes())
  # Within some records; the head and the index at the end stay intact.
  where = len(data) // 3
  data[where : where + 200] = bytes(200)
  shard.write_bytes(data)
  ego = records.ClipDataset(folder, "train")
  counts = []
  for num_workers in (0, 1):
    with streams.open_stream(
      ego=ego,
      ego_transform=transforms.ClipTransform(20, 1, 32, (36, 44)),
      max_corrupt_share=0.5,
      num_workers=num_workers,
    ) as stream:
      for _ in range(9):
        next(stream)
      counts.append(dict(stream.replaced))
  assert counts[0] == counts[1]
  assert 1 <= len(counts[0]) <= 2
  assert all(number >= 2 for number in counts[0].values())  # 36 examples


# Skip lists.


def test_listed_clips_never_appear_and_the_rest_is_unchanged(parts, monkeypatch):
  bad = {"ego_train_003", "ego_train_011", "ego_train_016"}
  plain = streams.take(12, **ego_only(parts))
  monkeypatch.setattr(loader, "_MIN_JUDGED", 1)
  with streams.open_stream(**ego_only(parts), ego_skip=bad, max_corrupt_share=0.0) as stream:
    listed = list(itertools.islice(stream, 12))
    assert stream.replaced == {}  # They don't count as corrupt.
  changed = 0
  for before, after in zip(plain, listed):
    for row in range(4):
      clips = parts["ego"].clips
      assert clips[after["ego"]["clip"][row]].clip_id not in bad
      if clips[before["ego"]["clip"][row]].clip_id in bad:
        changed += 1
        continue
      for part in ("clip", "video", "narration", "color_offset"):
        np.testing.assert_array_equal(before["ego"][part][row], after["ego"][part][row])
  assert changed >= 6  # 48 examples: more than two epochs of three clips.
  # A later start, threads and worker processes give the same batches.
  for options in ({"num_threads": 4}, {"num_workers": 1}):
    again = streams.take(5, **ego_only(parts), ego_skip=bad, start_step=7, **options)
    streams.assert_equal(listed[7:], again)


def test_listed_clips_are_replaced_like_corrupt_ones(parts, damage):
  bad = {"ego_train_003", "ego_train_011"}
  listed = streams.take(12, **ego_only(parts), ego_skip=bad)
  damage(bad)
  corrupt = streams.take(12, **ego_only(parts), max_corrupt_share=1.0)
  streams.assert_equal(listed, corrupt)


def test_listed_exo_clips_are_not_drawn_as_partners(parts):
  drawn = [clip for batch in streams.take(12, **parts) for clip in batch["exo"]["clip"].tolist()]
  often = max(set(drawn), key=drawn.count)
  bad = {parts["exo"][0].clips[often].clip_id}
  batches = streams.take(12, **parts, exo_skip=bad)
  assert all(often not in batch["exo"]["clip"] for batch in batches)
  for plain, listed in zip(streams.take(12, **parts), batches):
    streams.assert_equal(plain["ego"], listed["ego"])
  streams.assert_equal(batches[8:], streams.take(4, **parts, exo_skip=bad, start_step=8))


def test_a_long_skip_list_does_not_run_out_of_replacements(parts):
  left = "ego_train_005"
  bad = {clip.clip_id for clip in parts["ego"].clips} - {left}
  batches = streams.take(5, **ego_only(parts), ego_skip=bad)
  assert {int(c) for b in batches for c in b["ego"]["clip"]} == {5}
  with pytest.raises(ValueError, match="All 17 clips of .* skip list"):
    streams.take(1, **ego_only(parts), ego_skip=bad | {left})


def test_a_skip_list_says_how_much_of_it_is_known(parts, caplog):
  caplog.set_level("INFO")
  streams.take(1, **ego_only(parts), ego_skip={"ego_train_003", "x1", "x2", "x3", "x4"})
  about = [r for r in caplog.records if "Skip list" in r.getMessage()]
  assert [r.levelname for r in about] == ["INFO", "WARNING"]
  assert "1 of 5 ids belong to the data" in about[0].getMessage()
  assert "4 ids are of no clip" in about[1].getMessage()
  assert "(x1, x2, x3 ...)" in about[1].getMessage()


def test_skip_lists_are_read_from_files(tiny_ego, tiny_exo, tiny_tables, tmp_path):
  config = runs.small(read.default_config(), ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  opened = lambda stage: build.Trainer.open(build.resolve(config), stage, devices.make_mesh(1))
  without = opened("joint")
  assert not without.data.skip
  config.ego.skip_list = str(tmp_path / "ego.txt")
  with pytest.raises(ValueError, match="config.ego.skip_list=.*doctor"):
    opened("joint")
  (tmp_path / "ego.txt").write_text("ego_train_003\n\nego_train_004 \r\n")
  config.exo.skip_list = str(tmp_path / "exo.txt")
  (tmp_path / "exo.txt").write_bytes(b"\xff\xfe\x00")
  with pytest.raises(ValueError, match="config.exo.skip_list=.*can't be read"):
    opened("joint")
  (tmp_path / "exo.txt").write_text("exo_train_000\n")
  trainer = opened("joint")
  assert trainer.data.skip == {"ego": {"ego_train_003", "ego_train_004"}, "exo": {"exo_train_000"}}
  with trainer.stream(start_step=0) as stream:
    for batch in itertools.islice(stream, 6):
      assert not {3, 4} & set(batch["ego"]["clip"].tolist())
      assert 0 not in batch["exo"]["clip"]
  assert opened("exo").data.skip == {"exo": {"exo_train_000"}}
  # A checkpoint notes what was left out, and nothing without a list.
  marks = trainer.card["data"]
  (tmp_path / "ego.txt").write_text("ego_train_003\n")
  other = opened("joint").card["data"]
  assert marks["ego_skip_list"] != other["ego_skip_list"]
  assert marks["exo_skip_list"] == other["exo_skip_list"]
  plain = without.card["data"]
  assert set(marks) - set(plain) == {"ego_skip_list", "exo_skip_list"}


# Arguments.


@pytest.mark.parametrize(
  "change, text",
  [
    ({"ego": None, "exo": ()}, "needs an ego data set"),
    ({"pairs": None}, "mine_pairs"),
    ({"exo": ()}, "exactly when there are both"),
    ({"narrations": None}, "embed_narrations"),
    ({"batch_size": 5, "host": input_options.Host(0, 2)}, "multiple of their number"),
    ({"batch_size": 0}, "a positive multiple"),
    ({"prefetch": 0}, "prefetch must be at least 1"),
    ({"seed": -1}, "seed must be at least 0"),
    ({"top_k": 4}, "3 neighbours"),
    ({"max_corrupt_share": 1.5}, "max_corrupt_share must be in"),
    ({"cache_bytes": -1}, "cache_bytes must be at least 0"),
  ],
  ids=str,
)
def test_bad_arguments(parts, change, text):
  with pytest.raises(ValueError, match=text):
    streams.open_stream(**parts | change)


def test_a_view_that_is_none():
  clips = examples.ViewClips([], streams.EGO_TRANSFORM)
  with pytest.raises(ValueError, match="views must be among .*'third'"):
    loader.TrainStream({"third": clips}, batch_size=2, seed=0)


def test_a_host_that_is_none():
  with pytest.raises(ValueError, match="index=2 and count=2"):
    input_options.Host(2, 2)


def test_pair_table_of_another_data_set(parts, tiny_ego):
  other = records.ClipDataset(tiny_ego, "val")
  with pytest.raises(ValueError, match="does not match.*ego data set"):
    streams.open_stream(**parts | {"ego": other})
