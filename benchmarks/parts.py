"""What work in parts costs: processor time of one machine, of eight parts, and of merging.

  python -m benchmarks.parts --output=benchmarks/results/parts.json

Each command runs once whole and once in parts, every part as a process of its own,
one after the other, so that the figures are those of machines that share nothing.
Processor time is counted, which other programs change little; libraries may use one
thread. What starting costs is measured apart: a part that is there already reads all
inputs, and ends.

- cut: videos of 10 s, 340 x 256 at 30 frames a second, a clip each, as Kinetics has;
- embed: sentences of three words, with all-MiniLM-L6-v2;
- mine: random unit vectors of 384 numbers, as many ego as exo narrations, 10
  neighbours.

The results of both ways are compared: card and index of the data set, its
fingerprint, and the bytes of the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import itertools
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile

import av
import numpy as np

from benchmarks import cutting_rate
from benchmarks import measure
from data_prep.clips import clip_dataset
from sum_l_jax import types
from sum_l_jax.data import narration_table
from sum_l_jax.data import records

PARTS = 8
_DISTINCT = 8
_SECONDS = 10
_SIZE = (256, 340)
_MODEL = "all-MiniLM-L6-v2"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run(command: Sequence[str]) -> float:
  """Runs a command on one core; returns the seconds of processor time that it took."""
  usage = lambda: resource.getrusage(resource.RUSAGE_CHILDREN)
  before = usage()
  core = min(os.sched_getaffinity(0))
  subprocess.run(
    [sys.executable, "-m", *command],
    check=True,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    env=os.environ | _ONE_THREAD,
    preexec_fn=lambda: os.sched_setaffinity(0, [core]),
  )
  after = usage()
  return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(command: Sequence[str], folder: pathlib.Path, suffix: str, items: int) -> dict:
  """Runs a command whole and in parts.

  Args:
    command: module and options, without the output.
    folder: folder of the outputs.
    suffix: suffix of the outputs.
    items: number of clips or narrations.
  """
  whole, merged = (folder / f"{name}{suffix}" for name in ("whole", "merged"))
  in_parts = [*command, f"--output={merged}"]
  one = run([*command, f"--output={whole}"])
  each = [run([*in_parts, f"--part={number}/{PARTS}"]) for number in range(PARTS)]
  start = run([*in_parts, f"--part=0/{PARTS}"])
  merge = run([*in_parts, f"--merge={PARTS}"])
  _check_equal(whole, merged)
  work = one - start
  found = {
    "items": items,
    "processor_seconds": {"whole": one, "parts": each, "merge": merge, "start": start},
    "per_1000_items": {
      "whole": 1000 * one / items,
      "parts_and_merge": 1000 * (sum(each) + merge) / items,
    },
    "part_over_an_eighth": measure.spread([PARTS * (s - start) / work for s in each]),
    "part_over_an_eighth_with_start": measure.spread([PARTS * s / one for s in each]),
  }
  print(f"{' '.join(command[:1])}: {found}", flush=True)
  return found


def _check_equal(whole: pathlib.Path, merged: pathlib.Path) -> None:
  if whole.is_file():
    assert whole.read_bytes() == merged.read_bytes()
    return
  for split in records.read_card(whole)["splits"]:
    one, other = (records.ClipDataset(folder, split) for folder in (whole, merged))
    assert one.fingerprint == other.fingerprint and one.clips == other.clips
  cards = [records.read_card(folder) | {"shards": None} for folder in (whole, merged)]
  assert cards[0] == cards[1]


def cut(folder: pathlib.Path, clips: int) -> dict:
  """Measures `build_dataset`."""
  lines = ["clip_id,path,start_seconds,stop_seconds,narration,verb,noun"]
  for number in range(clips):
    path = folder / f"v{number}.mp4"
    if number < _DISTINCT:
      with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.height, stream.width = _SIZE
        stream.pix_fmt = "yuv420p"
        frames = cutting_rate.texture(_SECONDS, _SIZE, seed=number)
        for pixels in itertools.islice(frames, _SECONDS * 30):
          frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
          file.mux(stream.encode(frame))
        file.mux(stream.encode())
    else:
      shutil.copyfile(folder / f"v{number % _DISTINCT}.mp4", path)
    lines.append(f"c{number},{path.name},0,{_SECONDS},cut onion,cut,onion")
  (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
  command = [
    *("data_prep.build_dataset", "--dataset=manifest", "--view=exo", "--name=exo"),
    *("--split=train", "--processes=1", f"--annotations={folder / 'manifest.csv'}"),
  ]
  return compare(command, folder, "", clips)


def embed(folder: pathlib.Path, texts: int) -> dict:
  """Measures `embed_narrations`."""
  words = [f"{a}{b}" for a in ("cut", "wash", "peel", "take") for b in ("", " up", " off", " out")]
  lines = [f"{words[n % len(words)]} thing{n // len(words)}" for n in range(texts)]
  (folder / "texts.txt").write_text("\n".join(lines) + "\n")
  command = ["data_prep.embed_narrations", f"--texts={folder / 'texts.txt'}", f"--model={_MODEL}"]
  return compare(command, folder, ".npz", texts)


def mine(folder: pathlib.Path, texts: int) -> dict:
  """Measures `mine_pairs`."""
  sides = {"ego": range(texts), "exo": range(texts, 2 * texts)}
  vectors = np.random.default_rng(0).standard_normal((2 * texts, 384), np.float32)
  names = [f"n{n:07d}" for n in range(2 * texts)]
  narration_table.NarrationTable(names, vectors, "random").save(folder / "n.npz")
  for view, numbers in sides.items():
    clips = [
      types.Clip(
        clip_id=names[n],
        frames=[b"x"],
        fps=1.0,
        narration=names[n],
        labels={},
        video_id="v",
        start_seconds=0.0,
      )
      for n in numbers
    ]
    clip_dataset.write_clip_dataset(
      folder / view,
      name=view,
      view=view,
      tasks={},
      splits={"train": lambda clips=clips: clips},
    )
  command = ["data_prep.mine_pairs", f"--narrations={folder / 'n.npz'}"]
  command += [f"--{view}={folder / view}" for view in sides]
  return compare(command, folder, ".npz", texts)


# Work, and the number of its items: of a whole measurement, and of a quick one.
_WORK = {"cut": (cut, 96, 16), "embed": (embed, 16384, 2049), "mine": (mine, 40000, 2000)}


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("parts", __doc__)
  parser.add_argument("--only", choices=_WORK, help="one kind of work alone")
  args: argparse.Namespace = parser.parse_args(argv)
  results = {}
  for name, (function, whole, quick) in _WORK.items():
    if args.only in (None, name):
      with tempfile.TemporaryDirectory() as folder:
        results[name] = function(pathlib.Path(folder), quick if args.quick else whole)
  if args.output:
    measure.write(args.output, measure.command("parts", argv), results)
  return 0


if __name__ == "__main__":
  sys.exit(main())
