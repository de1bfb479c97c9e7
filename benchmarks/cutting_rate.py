"""How fast `data_prep.build_dataset` cuts clips, a process.

  python -m benchmarks.cutting_rate

Makes its own source in a temporary folder: drifting random texture, as an H.264
video of 1920 x 1080 at 60 frames a second (what EPIC-KITCHENS is filmed in) and
as JPEG frames of 456 x 256 (what it is also published as). Real video differs
in how much there is to decode; the order of magnitude is what this is for.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import io
import pathlib
import resource
import sys
import tempfile
import time

import av
import cv2
import numpy as np
import simplejpeg

from data_prep import build_dataset
from sum_l_jax.data import records

_FPS = 60
_CLIP_SECONDS = 2
_VIDEO = (1080, 1920)
_FRAMES = (256, 456)


def texture(seconds: int, size: tuple[int, int], seed: int = 0):
  """Frames of smooth texture that drifts, with some grain.

  Args:
    seconds: seconds of video.
    size: height and width.
    seed: seed of the texture.

  Yields:
    uint8 `[height, width, 3]`.
  """
  rng = np.random.default_rng(seed)
  height, width = size
  large = np.zeros((2 * height, 2 * width, 3), np.float32)
  for cells in (8, 32, 128):
    noise = rng.uniform(-40, 40, (cells, cells, 3)).astype(np.float32)
    large += cv2.resize(noise, large.shape[1::-1], interpolation=cv2.INTER_CUBIC)
  large = np.clip(large + 128 + rng.normal(0, 3, large.shape), 0, 255)
  large = large.astype(np.uint8)
  for i in range(seconds * _FPS):
    phase = 2 * np.pi * i / (4 * _FPS)
    y = round(height / 2 * (1 + np.sin(phase)))
    x = round(width / 2 * (1 + np.cos(phase)))
    yield large[y : y + height, x : x + width]


def write_source(folder: pathlib.Path, seconds: int) -> None:
  """Writes `video/` and `frames/`, each with its `manifest.csv`."""
  lines = ["clip_id,path,start_seconds,stop_seconds,narration,verb,noun"]
  for name in ("video", "frames"):
    (folder / name).mkdir()
    path = "long.mp4" if name == "video" else "long"
    rows = [
      f"c{start},{path},{start},{start + _CLIP_SECONDS},cut onion,cut,onion"
      for start in range(0, seconds, _CLIP_SECONDS)
    ]
    if name == "frames":
      head = lines[0] + ",fps"
      text = [head, *(f"{row},{_FPS}" for row in rows)]
    else:
      text = lines + rows
    (folder / name / "manifest.csv").write_text("\n".join(text) + "\n")
  with av.open(str(folder / "video/long.mp4"), "w") as container:
    stream = container.add_stream("libx264", rate=_FPS)
    stream.height, stream.width = _VIDEO
    stream.pix_fmt = "yuv420p"
    for pixels in texture(seconds, _VIDEO):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  (folder / "frames/long").mkdir()
  for i, pixels in enumerate(texture(seconds, _FRAMES), start=1):
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90)
    (folder / f"frames/long/frame_{i:010d}.jpg").write_bytes(data)


def _processor_seconds() -> float:
  """Time of this process and its children, which other work changes little."""
  return sum(
    usage.ru_utime + usage.ru_stime
    for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
  )


def measure(folder: pathlib.Path, name: str, processes: int) -> str:
  """Builds from one source; returns a line with the numbers."""
  output = folder / f"built_{name}"
  start = time.perf_counter(), _processor_seconds()
  with contextlib.redirect_stdout(io.StringIO()) as said:
    status = build_dataset.main(
      [
        "--dataset=manifest",
        "--view=exo",
        f"--processes={processes}",
        f"--annotations={folder / name / 'manifest.csv'}",
        f"--media={folder / name}",
        f"--output={output}",
      ]
    )
  seconds = time.perf_counter() - start[0]
  processor = _processor_seconds() - start[1]
  if status:
    raise SystemExit(said.getvalue())
  clips = records.ClipDataset(output, "train").clips
  frames = sum(clip.num_frames for clip in clips)
  size = sum(p.stat().st_size for p in output.rglob("*") if p.is_file())
  return (
    f"{name}: {frames} frames in {seconds:.1f} s with {processes} process(es)"
    f", {processor:.1f} s of processor time ="
    f" {frames / processor:.0f} frames per core and second,"
    f" {size / frames / 1000:.1f} kB a frame"
  )


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.cutting_rate",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--seconds", type=int, default=40, help="default: 40")
  parser.add_argument("--processes", type=int, default=1, help="default: 1")
  args = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    write_source(pathlib.Path(folder), args.seconds)
    for name in ("video", "frames"):
      print(measure(pathlib.Path(folder), name, args.processes), flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
