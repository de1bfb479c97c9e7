"""Videos to predict on, and the windows that are cut from them."""

from __future__ import annotations

from fractions import Fraction
import pathlib

import av
import numpy as np

from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import windows
from tests.support import numbered_video


def write_clip(path: pathlib.Path) -> pathlib.Path:
  """Three seconds at 12 frames a second, each frame with its own number."""
  numbered_video.write_video(path, list(range(36)), time_base=Fraction(1, 12))
  return path


def write_cut_off(path: pathlib.Path) -> pathlib.Path:
  """Ten seconds of noise whose second half is missing."""
  rng = np.random.default_rng(0)
  with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
    stream = container.add_stream("mpeg4", rate=12)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for _ in range(120):
      noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")))
    container.mux(stream.encode(None))
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])
  return path


def decoded(path: pathlib.Path) -> list[np.ndarray]:
  """All frames of a video, uint8 RGB."""
  with av.open(str(path)) as container:
    return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def cut(source: video_sources.Source, **options) -> list[windows.Window]:
  """The windows of a source: one second every half second."""
  options = {"fps": 12.0, "window": 1.0, "stride": 0.5, "short_side": 256} | options
  with source:
    return list(windows.WindowCutter(source, **options))


def cut_file(path: pathlib.Path, **options) -> list[windows.Window]:
  """The windows of a video file; see `cut`."""
  return cut(video_sources.VideoSource(path), **options)
