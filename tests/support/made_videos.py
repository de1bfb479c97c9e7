"""Videos of many kinds, drawn at random, that know when each frame is shown.

Containers, codecs, B-frames, varying rates, starts below zero, far away and
across the end of a clock, sound that begins earlier, edit lists, rotations and
mirrors. Each frame carries its number.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
import pathlib
import struct

import av
import numpy as np

from sum_l_jax.video import decode
from tests.support import numbered_video

# Suffix, muxer and codecs.
CONTAINERS = {
  "mp4": ("mp4", ("libx264", "mpeg4")),
  "mov": ("mov", ("libx264", "mjpeg")),
  "mkv": ("matroska", ("libx264", "mpeg4")),
  "webm": ("webm", ("libvpx",)),
  "MTS": ("mpegts", ("libx264", "mpeg2video")),
  "mpg": ("vob", ("mpeg2video", "mpeg1video")),
  "avi": ("avi", ("mpeg4", "mjpeg", "libx264")),
}
_WITH_EDIT_LISTS = ("mp4", "mov")
# The same matrices as (a, b, c, d): a point (x, y) is shown at (a x + c y, b x + d y).
UPRIGHT = (1, 0, 0, 1)
ORIENTATIONS = (
  UPRIGHT,
  *((0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)),
  *((-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)),
)
# The clock of MPEG has 33 bits at 90 kHz.
_MPEG_WRAP = 2**33 / 90_000


@dataclasses.dataclass(frozen=True)
class Made:
  """A video.

  Attributes:
    path: the file.
    times: when each frame is shown, in seconds since the container's start.
    orientation: one of `ORIENTATIONS`.
    slack: seconds by which the file's own times are off.
    what: what it is, for messages.
  """

  path: pathlib.Path
  times: tuple[float, ...]
  orientation: tuple[int, int, int, int]
  slack: float
  what: str

  def read(self, data: bytes) -> int:
    """The number of a frame as it is shown."""
    return numbered_video.read(as_stored(decode.decode_jpeg(data), self.orientation))


def as_stored(shown: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
  """Undoes a display matrix, point by point."""
  a, b, c, d = matrix
  height, width = shown.shape[:2] if a else shown.shape[1::-1]
  y, x = np.mgrid[:height, :width]
  right, down = a * x + c * y, b * x + d * y
  return shown[down - down.min(), right - right.min()]


def make(folder: pathlib.Path, suffix: str, seed: int) -> Made:
  """Draws a video and writes it.

  Args:
    folder: folder of the file.
    suffix: one of `CONTAINERS`.
    seed: seed of all that is drawn.
  """
  rng = np.random.default_rng([seed, *suffix.encode()])
  muxer, codecs = CONTAINERS[suffix]
  codec = codecs[int(rng.integers(len(codecs)))]
  rates = (24, 25, 30) if suffix in ("mpg", "MTS") else (12, 15, 25, 30)
  rate = rates[int(rng.integers(len(rates)))]
  gop = int(rng.choice([1, 5, 12, 40, 300]))
  b_frames = int(rng.integers(4)) if codec != "mjpeg" else 0
  if codec == "mpeg4" or codec == "mpeg2video":
    b_frames = min(b_frames, 2)
  if codec in ("libvpx", "mpeg1video"):
    b_frames = 0
  # AVI and MPEG-PS have no other than even times.
  varies = suffix not in ("avi", "mpg") and codec != "mpeg2video" and rng.random() < 0.4
  # Ticks of 1/600 s hold all these rates.
  tick = 600 // rate
  steps = np.full(int(rng.integers(60, 150)), tick)
  if varies:
    steps = rng.choice([tick, tick, 2 * tick, tick // 2 or 1, 7 * tick], len(steps))
  ticks = np.concatenate([[0], np.cumsum(steps[:-1])])
  start = _start(suffix, rng)
  if start < 0:
    # FFmpeg drops times below zero: only even ones can be known.
    steps[:] = tick
    varies = False
    ticks = np.arange(len(steps)) * tick
  sound = float(rng.choice([0.2, 0.7])) if suffix in ("mkv", "mov") and rng.random() < 0.3 else 0.0
  if start < 0:
    sound = 0.0
  if suffix == "mov":
    start = max(start, sound)  # The writer cuts off sound below zero.
  orientation = UPRIGHT
  if suffix in _WITH_EDIT_LISTS:
    orientation = ORIENTATIONS[int(rng.integers(len(ORIENTATIONS)))]
  fragments = suffix == "mp4" and rng.random() < 0.3
  options = {"g": str(gop), "bf": str(b_frames)}
  if codec == "libx264":
    options |= {"preset": "ultrafast", "open-gop": str(int(rng.integers(2)))}
  what = (
    f"{suffix} seed={seed} {codec} rate={rate} {options} varies={varies} start={start}"
    f" sound={sound} orientation={orientation} fragments={fragments}"
  )
  path = folder / f"{seed}.{suffix}"
  muxing = {"avoid_negative_ts": "disabled"} if start < 0 else {}
  if fragments:
    muxing["movflags"] = "frag_keyframe+empty_moov"
  with av.open(str(path), "w", format=muxer, options=muxing) as file:
    stream = file.add_stream(codec, rate=rate)
    stream.width, stream.height = numbered_video.COLUMNS * 16, numbered_video.ROWS * 16
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    base = Fraction(1, rate) if suffix in ("avi", "mpg") or "mpeg2" in codec else Fraction(1, 600)
    stream.codec_context.time_base = base
    stream.codec_context.max_b_frames = b_frames
    stream.options = options
    voice = file.add_stream("pcm_s16le", rate=8000, layout="mono") if sound else None
    if voice is not None:
      _speak(file, voice, start - sound, ticks[-1] / 600 + sound)
    for number, moment in enumerate(ticks):
      frame = av.VideoFrame.from_ndarray(numbered_video.draw(number), "rgb24")
      frame.time_base = base
      frame.pts = round((start + int(moment) / 600) / base)
      file.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
    file.mux(stream.encode(None))
  if orientation != UPRIGHT:
    _turn(path, orientation)
  # A clock of milliseconds; FFmpeg guesses times below zero by rounded lengths.
  slack = 2.5e-3 if start >= 0 else 12e-3
  if suffix == "mpg":
    # Times are those of packs, which hold several frames as small as these; FFmpeg
    # counts on from them, in the order of decoding.
    slack += (1 + b_frames) / rate
  return Made(path, tuple(ticks / 600 + sound), orientation, slack, what)


def _start(suffix: str, rng: np.random.Generator) -> float:
  """When the first frame is shown, on the file's own clock."""
  choices = {
    "mkv": (0.0, 0.0, 1.5, 90_000.0, -0.5),
    "webm": (0.0, 2.0, 5_000.0),
    "MTS": (0.0, 3.0, 40_000.0, _MPEG_WRAP - 4.0),
    "mp4": (0.0, 0.0, 1.0),
    "mov": (0.0, 0.0, 1.0),
  }.get(suffix, (0.0,))
  return float(rng.choice(choices))


def _speak(file, voice, start: float, seconds: float) -> None:
  """Adds silence, in one piece."""
  samples = np.zeros((1, round(seconds * 8000)), np.int16)
  frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
  frame.sample_rate, frame.time_base = 8000, Fraction(1, 8000)
  frame.pts = round(start * 8000)
  file.mux(voice.encode(frame))
  file.mux(voice.encode(None))


def _turn(path: pathlib.Path, matrix: tuple[int, int, int, int]) -> None:
  """Overwrites the display matrix in the track header of an MP4."""
  data = bytearray(path.read_bytes())
  at = data.index(b"tkhd") + 4 + 40  # Version 0: 40 bytes precede it.
  assert struct.unpack(">9i", data[at : at + 36])[8] == 0x40000000
  a, b, c, d = (value * 65536 for value in matrix)
  data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
  path.write_bytes(data)
