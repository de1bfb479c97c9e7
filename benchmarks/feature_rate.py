"""Stored features, read beside the plain reading of the same bytes.

  python -m benchmarks.feature_rate --output=benchmarks/results/feature_rate.json

Two synthetic sets: pooled vectors of EPIC-100's size (67,217 x 1 x 1024, bfloat16)
and the first clips of one with 200 tokens a clip, which has 410 KB a clip. An epoch
goes through all clips in a random order, in batches of 256 and 16. It is read by
`FeatureStore` in one thread, by the training stream in two, and by a loop that reads
the files from beginning to end into one buffer, which is all that a disk can give.
"cold": the kernel is told to forget the files before; "warm": they are in its cache.
"later_epoch": another one of the same store or stream.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import itertools
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

from etils import epath
import ml_dtypes
import numpy as np
import simplejpeg

from benchmarks import measure
from data_prep.clips import clip_dataset
from data_prep.clips import feature_records
from sum_l_jax import types
from sum_l_jax.data import examples
from sum_l_jax.data import feature_card
from sum_l_jax.data import feature_store
from sum_l_jax.data import loader
from sum_l_jax.data import records
from sum_l_jax.data import shards
from sum_l_jax.data import transforms

# Clips, tokens, clips of a batch.
SETS = {"pooled": (67_217, 1, 256), "tokens": (2_560, 200, 16)}
QUICK = {"pooled": (2_000, 1, 256), "tokens": (64, 200, 16)}
CHANNELS = 1024
_SPLIT = "train"


def write_set(folder: pathlib.Path, kind: str, clips: int, tokens: int) -> None:
  """Writes a set of noise, at most 256 MB of it in memory."""
  rng = np.random.default_rng(0)
  step = max(1, (1 << 28) // (tokens * CHANNELS * 4))

  noise = rng.standard_normal((min(step, clips), 1, tokens, CHANNELS), np.float32)
  noise = noise.astype(ml_dtypes.bfloat16)
  card = feature_card.FeatureCard(
    kind="pooled" if kind == "pooled" else "tokens",
    dtype="bfloat16",
    shape=(1, tokens, CHANNELS),
    encoder=feature_card.FeatureEncoder("noise", weights=""),
    frames=feature_card.FeatureFrames(16, 4, 224),
    views=feature_card.FeatureViews(),
    dataset=feature_card.FeatureSource("noise", "ego", {_SPLIT: "0"}),
    splits={_SPLIT: clips},
    shards={},
  )
  described = []
  folder.mkdir(parents=True)
  for planned in feature_records.plan(card.splits, card.clip_bytes):
    path = folder / planned.name
    with feature_records.ShardWriter(path, card.dtype, card.shape) as writer:
      left = len(planned.clips)
      while left:
        writer.write(noise[:left])
        left -= min(left, len(noise))
    described.append(shards.Shard.of(epath.Path(path), len(planned.clips)))
  card = dataclasses.replace(card, shards={_SPLIT: tuple(described)})
  (folder / feature_card.FILE).write_text(card.to_json(), encoding="utf-8")


def write_clips(folder: pathlib.Path, count: int) -> records.ClipDataset:
  """Writes and opens a data set of clips of one small frame, for their labels."""
  jpeg = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
  clip = lambda number: types.Clip(
    clip_id=f"{number}",
    frames=[jpeg],
    fps=30.0,
    narration="noise",
    labels={"verb": (number % 2,)},
    video_id="noise",
  )
  clip_dataset.write_clip_dataset(
    folder,
    name="noise",
    view=types.EGO,
    tasks={"verb": types.Task("verb", types.SOFTMAX, ("take", "put"))},
    splits={_SPLIT: lambda: map(clip, range(count))},
    metadata={},
  )
  return records.ClipDataset(folder, _SPLIT)


def forget(folder: pathlib.Path) -> None:
  """Has the kernel forget the files of a folder."""
  for path in folder.iterdir():
    handle = os.open(path, os.O_RDONLY)
    try:
      os.fsync(handle)
      os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
      os.close(handle)


def plain(folder: pathlib.Path) -> int:
  """Reads all files from beginning to end, as `cat` does; returns their bytes."""
  total, buffer = 0, memoryview(bytearray(1 << 20))
  for path in sorted(folder.iterdir()):
    with path.open("rb", buffering=0) as file:
      while count := file.readinto(buffer):
        total += count
  return total


class Epochs:
  """Epochs of a set in random orders."""

  def __init__(self, folder: pathlib.Path, batch: int, keep_bytes: int) -> None:
    self._store = feature_store.FeatureStore(folder, _SPLIT, keep_bytes=keep_bytes)
    self._batch, self._rng = batch, np.random.default_rng(1)

  def __call__(self) -> int:
    """Reads an epoch; returns the bytes of its values."""
    order = self._rng.permutation(len(self._store))
    total = 0
    for first in range(0, len(order), self._batch):
      total += self._store.read(order[first : first + self._batch]).nbytes
    return total


class Loader:
  """Epochs of the training stream, which reads in two threads."""

  def __init__(
    self, folder: pathlib.Path, data: records.ClipDataset, batch: int, keep_bytes: int
  ) -> None:
    store = feature_store.FeatureStore(folder, _SPLIT, keep_bytes=keep_bytes)
    transform = transforms.ClipTransform.for_testing(16, 4, 224)
    self._batches = len(data) // batch
    self._stream = loader.TrainStream(
      {types.EGO: examples.ViewClips([data], transform, features=[store])},
      batch_size=batch,
      seed=0,
    )

  def __call__(self) -> int:
    """Reads an epoch; returns the bytes of its values."""
    batches: Any = itertools.islice(self._stream, self._batches)
    return sum(batch[types.EGO]["tokens"].nbytes for batch in batches)

  def once(self) -> int:
    """Reads one epoch, and ends."""
    with self._stream:
      return self()


def _rate(function: Callable[[], int], clips: int, before: Callable[[], None]) -> dict[str, float]:
  before()
  start, processor = time.perf_counter(), time.process_time()
  size = function()
  seconds = time.perf_counter() - start
  return {
    "seconds": round(seconds, 4),
    "processor_seconds": round(time.process_time() - processor, 4),
    "MB_a_second": round(size / seconds / 1e6, 1),
    "clips_a_second": round(clips / seconds, 1),
  }


def measure_set(folder: pathlib.Path, kind: str, sizes: tuple[int, int, int], rounds: int) -> Any:
  """Times all ways of reading a set, in turn."""
  clips, tokens, batch = sizes
  write_set(folder, kind, clips, tokens)
  data = write_clips(folder.with_name(f"{kind}_clips"), clips)
  drop, nothing = lambda: forget(folder), lambda: None
  # A fresh store each time: the first epoch of one that keeps what it read.
  first = lambda keep: lambda: Epochs(folder, batch, keep)()
  keep = feature_store.KEEP_BYTES if kind == "pooled" else 0
  kept = Epochs(folder, batch, keep)
  kept()
  stream = lambda: Loader(folder, data, batch, keep)
  running = stream()
  running()
  ways = {
    "plain_cold": (lambda: plain(folder), drop),
    "store_cold": (first(keep), drop),
    "plain_warm": (lambda: plain(folder), nothing),
    "store_warm": (first(keep), nothing),
    "store_later_epoch": (kept, nothing),
    "loader_cold": (lambda: stream().once(), drop),
    "loader_warm": (lambda: stream().once(), nothing),
    "loader_later_epoch": (running, nothing),
  }
  if kind == "pooled":
    ways["records_cold"] = (first(0), drop)
    ways["records_warm"] = (first(0), nothing)
  found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
  for _ in range(rounds):
    for name, (function, before) in ways.items():
      found[name].append(_rate(function, clips, before))
  best = {
    name: min(times, key=lambda one: one["seconds"])
    | {"all_seconds": [t["seconds"] for t in times]}
    for name, times in found.items()
  }
  running.once()
  seconds = lambda name: np.median([t["seconds"] for t in found[name]])
  return {
    "clips": clips,
    "tokens": tokens,
    "channels": CHANNELS,
    "batch": batch,
    "bytes": sum(path.stat().st_size for path in folder.iterdir()),
    "epochs": best,
    **{
      f"{name}_over_plain_{how}": round(
        float(seconds(f"{name}_{how}") / seconds(f"plain_{how}")), 3
      )
      for name in ("store", "loader")
      for how in ("cold", "warm")
    },
  }


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the benchmark; returns its exit status."""
  parser = measure.make_parser("feature_rate", __doc__)
  parser.add_argument("--folder", default=None, help="where the sets are written (default: /tmp)")
  args = parser.parse_args(argv)
  results = {}
  with tempfile.TemporaryDirectory(dir=args.folder) as folder:
    for kind, sizes in (QUICK if args.quick else SETS).items():
      place = pathlib.Path(folder) / kind
      results[kind] = measure_set(place, kind, sizes, rounds=1 if args.quick else 3)
      for name, epoch in results[kind]["epochs"].items():
        print(
          f"{kind:6} {name:18} {epoch['MB_a_second']:7.0f} MB/s"
          f" {epoch['clips_a_second']:9.0f} clips/s {epoch['processor_seconds']:.2f} s of processor"
        )
  if args.output:
    measure.write(args.output, measure.command("feature_rate", argv), results)
  return 0


if __name__ == "__main__":
  sys.exit(main())
