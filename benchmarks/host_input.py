"""The input of one host: from a disk, from local copies, and from a bucket.

  python -m benchmarks.host_input --output=benchmarks/results/host_input.json
  python -m benchmarks.host_input --table

The first command measures what a clip costs a core from each place, in turn in one
thread, for the clips of the published networks, and then a stream with threads. The
bucket is a server on this machine: it answers without the way to a real one, and
its own time is not in the processor time of a clip. What a real bucket gives is for
`python -m sum_l_jax doctor --data=gs://...` to say.

`--table` prints how many cores a chip needs, from the committed results of this
benchmark and of `aot`.
"""

from __future__ import annotations

import os

from tests.support import storage_server

# Clients of Cloud Storage read these when they are imported.
os.environ |= storage_server.SWITCHES

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import json
import pathlib
import sys
import tempfile
import time
from typing import Any

from absl import flags
from etils import epath

from benchmarks import input_rate
from benchmarks import measure
from sum_l_jax.data import examples
from sum_l_jax.data import input_options
from sum_l_jax.data import loader
from sum_l_jax.data import records
from sum_l_jax.data import shard_cache
from sum_l_jax.data import transforms
from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.tools.doctor import reading_rate

RESULTS = pathlib.Path(__file__).parent / "results"
# Frames, stride and crop of a clip: SLOW R50, SlowFast R50, SlowFast R101.
CLIPS = ((8, 8, 224), (32, 2, 224), (32, 2, 256))
# In the order of docs/performance.md.
_PROGRAMS = ("slow_r50", "slowfast_r50", "slowfast_r101")
_CHIP = "v5e"

# A data set, and the folder of its local copies, if any.
Place = tuple[records.ClipDataset, shard_cache.ShardCache | None]


def _stream(
  data: records.ClipDataset, clip: tuple[int, int, int], **options: Any
) -> loader.TrainStream:
  frames, stride, crop = clip
  transform = transforms.ClipTransform(
    num_frames=frames, stride=stride, crop_size=crop, short_side=input_rate.SHORT_SIDE
  )
  return loader.TrainStream(
    {"ego": examples.ViewClips([data], transform)},
    batch_size=input_rate.BATCH,
    seed=0,
    options=input_options.Input(**options),
  )


def _make(maker: Callable[[int], Any], count: int) -> None:
  for number in range(count):
    maker(number)


def compare_places(places: Mapping[str, Place], rounds: int, batches: int) -> list[dict[str, Any]]:
  """Clips a second and core from each place, in turn in this thread."""
  results = []
  for clip in CLIPS:
    makers = {}
    for name, (data, copies) in places.items():
      stream = _stream(data, clip, copies=copies)
      stream.close()
      makers[name] = stream.maker
    functions = {name: functools.partial(_make, maker, batches) for name, maker in makers.items()}
    found: dict[str, Any] = dict(zip(("frames", "stride", "crop"), clip))
    for clock, times in measure.interleave_clocks(functions, rounds).items():
      found[clock] = {
        name: measure.spread([batches * input_rate.BATCH / t for t in times[name]])
        for name in places
      }
    results.append(found)
  return results


def whole_streams(places: Mapping[str, Place], batches: int) -> list[dict[str, Any]]:
  """Clips a second of a stream with threads, and those of a core by processor time."""
  results = []
  for name, (data, copies) in places.items():
    for threads in (1, 2, 8):
      options = {"num_threads": threads, "prefetch": threads, "copies": copies}
      with _stream(data, CLIPS[1], **options) as stream:
        for _ in range(threads + 2):  # What was made ahead.
          next(stream)
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(batches):
          next(stream)
        clips = batches * input_rate.BATCH
        results.append(
          {
            "place": name,
            "num_threads": threads,
            "clips_per_second": clips / (time.perf_counter() - wall),
            "clips_per_second_and_core": clips / (time.process_time() - processor),
          }
        )
  return results


def _places(folder: pathlib.Path, bucket: str) -> dict[str, Place]:
  storage.upload_folder(folder / "set", bucket, last=records.CARD_FILE)
  copies = shard_cache.ShardCache(str(folder / "copies"), 2**40)
  open_set = lambda path: records.ClipDataset(epath.Path(path), "train")
  split = open_set(bucket).shards
  for number, shard in enumerate(split.files):
    outcome = copies.fetch(split.path(number), shard.size, shard.crc32c)
    if outcome is not shard_cache.Outcome.THERE:
      raise RuntimeError(f"No copy of {split.path(number)}: {outcome.value}.")
  return {
    "disk": (open_set(folder / "set"), None),
    "copies": (open_set(bucket), copies),
    "bucket": (open_set(bucket), None),
  }


def table(rates: Mapping[str, Any], programs: Sequence[Mapping[str, Any]]) -> str:
  """The table of cores a chip, in Markdown.

  Args:
    rates: results of this benchmark.
    programs: what `aot` says of steps.
  """
  by_clip = {
    (found["frames"], found["crop"]): found["processor"]["disk"]["median"]
    for found in rates["places"]
  }
  lines = [
    "| network, chip | step | clips/s a chip | clips/s a core | cores a chip |",
    "|---|---|---|---|---|",
  ]
  for program in programs:
    seconds = reading_rate.step_seconds(program)
    wanted = reading_rate.clips_of_a_step(program) / seconds / program["chips"]
    frames, crop = program["clip"]
    core = by_clip[frames, crop]
    chip = program["topology"].partition(":")[0]
    lines.append(
      f"| `{program['backbone']}`, {program['batch_per_chip']} pairs of {frames} x {crop} x {crop},"
      f" {chip} | {seconds * 1e3:.0f} ms | {wanted:.0f} | {core:.1f} | {wanted / core:.1f} |"
    )
  return "\n".join(lines)


def committed_table() -> str:
  """The table from the committed results."""
  rates = json.loads((RESULTS / "host_input.json").read_text("utf-8"))["results"]
  files = [RESULTS / f"aot_{name}_{_CHIP}.json" for name in _PROGRAMS]
  return table(rates, [json.loads(f.read_text("utf-8"))["programs"][0] for f in files])


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("host_input", __doc__)
  parser.add_argument("--table", action="store_true", help="print the table of cores a chip")

  def run(args: argparse.Namespace) -> str:
    if args.table:
      return committed_table()
    # Grain's worker processes refuse to start before absl's flags are parsed.
    flags.FLAGS.mark_as_parsed()
    rounds, batches = (2, 1) if args.quick else (5, 3)
    server = storage_server.StorageServer()
    os.environ |= server.environment()
    try:
      server.make_bucket("rates")
      with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        input_rate.write_clips(folder, 4 if args.quick else 12)
        places = _places(folder, "gs://rates/set")
        result = {
          "batch_size": input_rate.BATCH,
          "places": compare_places(places, rounds, batches),
          "streams": whole_streams(places, 2 if args.quick else 24),
        }
    finally:
      server.stop()
    if args.output:
      measure.write(args.output, measure.command("host_input", argv), result)
    lines = []
    for found in result["places"]:
      rates = ", ".join(
        f"{place} {found['processor'][place]['median']:.1f} ({found['wall'][place]['median']:.1f})"
        for place in places
      )
      size = f"{found['frames']} x {found['crop']} x {found['crop']}"
      lines.append(f"{size}: clips/s a core by processor time (by the clock): {rates}")
    lines += [
      f"stream of 32 frames, {found['place']}, {found['num_threads']} thread(s):"
      f" {found['clips_per_second_and_core']:.1f} ({found['clips_per_second']:.1f})"
      for found in result["streams"]
    ]
    return "\n".join(lines)

  return command_line.run(parser, run, argv)


if __name__ == "__main__":
  sys.exit(main())
