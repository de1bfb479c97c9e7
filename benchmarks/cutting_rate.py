"""How fast `data_prep.build_dataset` cuts clips, a process.

  python -m benchmarks.cutting_rate
  python -m benchmarks.cutting_rate --ffmpeg        # needs imageio-ffmpeg

Makes its own sources in a temporary folder: drifting random texture, as H.264
videos of 1920 x 1080 (what EPIC-KITCHENS is filmed in) and of 456 x 256, with a
key frame every 250 frames, and as JPEG frames of 456 x 256 in a tar file (what
it is also published as), all at 60 frames a second. Real video differs in how
much there is to decode; the order of magnitude is what this is for.

With --ffmpeg, the ffmpeg program makes the same cuts, one process a clip: it
seeks, decodes, scales by areas and writes JPEG, or copies JPEG frames that are
small already. Both are measured in processor time, by which the work of other
programs changes little.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import io
import pathlib
import resource
import subprocess
import sys
import tarfile
import tempfile
import time

import av
import cv2
import numpy as np
import simplejpeg

from data_prep import build_dataset
from sum_l_jax.data import records
from sum_l_jax.video import jpeg

_FPS = 60
_CLIP_SECONDS = 2
_SIZES = {"video_1080": (1080, 1920), "video_256": (256, 456), "frames_256": (256, 456)}
_KEY_FRAMES = 250


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


def _spans(seconds: int) -> list[int]:
  """Starts of the clips."""
  return list(range(0, seconds, _CLIP_SECONDS))


def write_source(folder: pathlib.Path, seconds: int) -> None:
  """Writes a folder with a `manifest.csv` for each kind of source."""
  for name, size in _SIZES.items():
    (folder / name).mkdir()
    if name.startswith("video"):
      _write_video(folder / name / "long.mp4", seconds, size)
      path, fps = "long.mp4", ""
    else:
      _write_frames(folder / name, seconds, size)
      path, fps = "long.tar", str(_FPS)
    rows = [
      f"c{start},{path},{start},{start + _CLIP_SECONDS},cut onion,cut,onion,{fps}"
      for start in _spans(seconds)
    ]
    head = "clip_id,path,start_seconds,stop_seconds,narration,verb,noun,fps"
    (folder / name / "manifest.csv").write_text("\n".join([head, *rows]) + "\n")


def _write_video(path: pathlib.Path, seconds: int, size: tuple[int, int]) -> None:
  with av.open(str(path), "w") as file:
    stream = file.add_stream("libx264", rate=_FPS)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.options = {"g": str(_KEY_FRAMES)}
    for pixels in texture(seconds, size):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
      file.mux(stream.encode(frame))
    file.mux(stream.encode())


def _write_frames(folder: pathlib.Path, seconds: int, size: tuple[int, int]) -> None:
  """Writes a tar file, and the same frames unpacked, for ffmpeg."""
  (folder / "unpacked").mkdir()
  with tarfile.open(folder / "long.tar", "w") as packed:
    for i, pixels in enumerate(texture(seconds, size), start=1):
      path = folder / "unpacked" / f"frame_{i:010d}.jpg"
      path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90))
      packed.add(path, path.name)


def run_ffmpeg(folder: pathlib.Path, name: str, seconds: int) -> float:
  """Cuts the same clips with the ffmpeg program; frames a core and second."""
  import imageio_ffmpeg

  program = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y"]
  output = folder / f"ffmpeg_{name}"
  output.mkdir()
  height, width = jpeg.kept_size(*_SIZES[name], jpeg.SHORT_SIDE)
  before = _processor_seconds()
  for start in _spans(seconds):
    span = ["-ss", str(start), "-t", str(_CLIP_SECONDS)]
    if name.startswith("video"):
      source = [*span, "-i", str(folder / name / "long.mp4")]
      scale = ["-vf", f"scale={width}:{height}:flags=area"] * ((height, width) != _SIZES[name])
      work = [*scale, "-c:v", "mjpeg", "-q:v", "3"]
    else:
      frames = str(folder / name / "unpacked" / "frame_%010d.jpg")
      source = ["-f", "image2", "-framerate", str(_FPS), "-start_number", str(1 + start * _FPS)]
      source += ["-i", frames]
      work = ["-frames:v", str(_CLIP_SECONDS * _FPS), "-c", "copy"]
    target = output / f"{start}.mjpeg"
    subprocess.run([*program, *source, *work, "-f", "mjpeg", str(target)], check=True)
  return seconds * _FPS / (_processor_seconds() - before)


def _processor_seconds() -> float:
  """Time of this process and its children, which other work changes little."""
  return sum(
    usage.ru_utime + usage.ru_stime
    for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
  )


def measure(folder: pathlib.Path, name: str, processes: int) -> tuple[str, float]:
  """Builds from one source; returns a line, and the frames a core and second."""
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
  text = (
    f"{name}: {frames} frames in {seconds:.1f} s with {processes} process(es)"
    f", {processor:.1f} s of processor time ="
    f" {frames / processor:.0f} frames per core and second,"
    f" {size / frames / 1000:.1f} kB a frame"
  )
  return text, frames / processor


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.cutting_rate",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--seconds", type=int, default=40, help="default: 40")
  parser.add_argument("--processes", type=int, default=1, help="default: 1")
  parser.add_argument("--ffmpeg", action="store_true", help="compare with the ffmpeg program")
  args = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    write_source(pathlib.Path(folder), args.seconds)
    for name in _SIZES:
      text, rate = measure(pathlib.Path(folder), name, args.processes)
      if args.ffmpeg:
        other = run_ffmpeg(pathlib.Path(folder), name, args.seconds)
        text += f"; ffmpeg {other:.0f}, so {rate / other:.2f} times its rate"
      print(text, flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
