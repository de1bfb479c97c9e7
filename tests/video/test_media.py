"""The right frames come out of a video, proven by their content."""

from __future__ import annotations

from fractions import Fraction
import math
import struct

import av
import cv2
import numpy as np
import pytest
import simplejpeg

from sum_l_jax.video import container
from sum_l_jax.video import jpeg
from sum_l_jax.video import media
from tests.support import numbered_video

CFR = list(range(120))
# At 1/600 s: frames of 1/60 to 1/10 s, with a gap of a whole second.
_STEPS = np.random.default_rng(0).choice([10, 20, 25, 40, 60], 59)
VFR = np.cumsum([0, *_STEPS, 600, *[20] * 30]).tolist()


def _expected(times, start, stop, fps, frame_seconds):
  """Brute force: nearest frame to each wanted time.

  The earlier of two frames wins where their distances differ by 2 ms or less.
  """
  times = np.asarray(times, np.float64)
  out = []
  for k in range(max(1, math.ceil((stop - start) * fps - 1e-6))):
    wanted = start + k / fps
    if wanted < times[-1] + frame_seconds - 1e-3:
      distance = np.abs(times - wanted)
      out.append(int(np.argmax(distance <= distance.min() + 2e-3)))
  return out


def _numbers(path, start, stop, **options):
  with media.VideoFile(path) as video:
    return [numbered_video.read(jpeg) for jpeg in video.read_clip(start, stop, **options)]


SPANS = [
  (0.0, 1.0, None),
  (0.0, 4.0, 30.0),
  (1.05, 2.0, 30.0),
  (2.5, 3.5, 10.0),
  (0.4, 1.1, 60.0),
  (3.0, 3.9, 7.3),
  (3.95, 3.96, 30.0),
]


@pytest.mark.parametrize("start, stop, fps", SPANS)
@pytest.mark.parametrize(
  "name, codec, options",
  [
    ("long_gop.mp4", "libx264", {"g": "250", "bf": "3"}),
    ("short_gop.mkv", "libx264", {"g": "12", "bf": "2", "open-gop": "1"}),
    ("part2.mp4", "mpeg4", {"g": "10"}),
  ],
)
def test_constant_rate(tmp_path, name, codec, options, start, stop, fps):
  path = tmp_path / name
  numbered_video.write_video(path, CFR, codec=codec, options=options)
  times = [i / 30 for i in CFR]
  expected = _expected(times, start, stop, fps or 30.0, 1 / 30)
  assert _numbers(path, start, stop, fps=fps) == expected


@pytest.mark.parametrize("start, stop, fps", SPANS)
def test_variable_rate(tmp_path, start, stop, fps):
  path = tmp_path / "phone.mp4"
  numbered_video.write_video(path, VFR, time_base=Fraction(1, 600), options={"g": "30"})
  times = [t / 600 for t in VFR]
  assert times[-1] > stop  # All spans lie within the video.
  with media.VideoFile(path) as video:
    rate = fps or video.fps
    got = [numbered_video.read(jpeg) for jpeg in video.read_clip(start, stop, fps=fps)]
  assert got == _expected(times, start, stop, rate, 0.1)


def test_times_count_from_the_first_frame(tmp_path):
  path = tmp_path / "late.mkv"
  numbered_video.write_video(path, [i + 45 for i in CFR])
  assert _numbers(path, 1.0, 1.2) == [30, 31, 32, 33, 34, 35]


def test_b_frames_in_avi_come_in_order(tmp_path):
  # AVI has no presentation times; FFmpeg's guesses come out swapped.
  path = tmp_path / "old.avi"
  numbered_video.write_video(path, CFR, codec="mpeg4", max_b_frames=2)
  got = _numbers(path, 0.0, None)
  assert got == sorted(got) and len(got) >= 118
  middle = _numbers(path, 1.0, 2.0)
  assert middle == list(range(middle[0], middle[0] + 30))
  assert abs(middle[0] - 30) <= 1


def test_whole_file(tmp_path):
  path = tmp_path / "all.mp4"
  numbered_video.write_video(path, CFR)
  assert _numbers(path, 0.0, None) == CFR
  assert _numbers(path, 0.0, None, fps=10.0) == CFR[::3]


def test_repeated_frames_share_their_bytes(tmp_path):
  path = tmp_path / "slow.mp4"
  numbered_video.write_video(path, CFR)
  with media.VideoFile(path) as video:
    jpegs = video.read_clip(0.0, 0.5, fps=60.0)
  assert len(jpegs) == 30 and len({id(jpeg) for jpeg in jpegs}) == 15


@pytest.mark.parametrize(
  "cell, short_side, size", [(16, 256, (48, 64)), (170, 256, (256, 342)), (40, 64, (64, 86))]
)
def test_size(tmp_path, cell, short_side, size):
  path = tmp_path / "size.mp4"
  numbered_video.write_video(path, CFR[:8], cell=cell)
  with media.VideoFile(path) as video:
    jpegs = video.read_clip(0.1, 0.2, short_side=short_side)
  assert [numbered_video.read(jpeg) for jpeg in jpegs] == [3, 4, 5]
  assert simplejpeg.decode_jpeg(jpegs[0]).shape == (*size, 3)


def _rotate(path, matrix):
  """Overwrites the display matrix in the track header of an mp4."""
  data = bytearray(path.read_bytes())
  at = data.index(b"tkhd") + 4 + 40  # Version 0: 40 bytes precede it.
  assert struct.unpack(">9i", data[at : at + 36])[8] == 0x40000000
  a, b, c, d = (round(value * 65536) for value in matrix)
  data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
  path.write_bytes(data)


@pytest.mark.parametrize(
  "matrix, turns",
  [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
  ids=["clockwise", "upside_down", "counterclockwise"],
)
def test_rotation_is_applied(tmp_path, matrix, turns):
  # A point (x, y) is shown at (a x + c y, b x + d y): ISO 14496-12, 6.2.2.
  path = tmp_path / "portrait.mp4"
  numbered_video.write_video(path, list(range(40)))
  _rotate(path, matrix)
  with media.VideoFile(path) as video:
    image = simplejpeg.decode_jpeg(video.read_clip(1.0, 1.01)[0])
  assert image.shape[:2] == ((48, 64) if turns == 2 else (64, 48))
  assert numbered_video.read(np.rot90(image, -turns)) == 30


def test_other_rotation_is_named(tmp_path):
  path = tmp_path / "askew.mp4"
  numbered_video.write_video(path, CFR[:8])
  _rotate(path, (0.866, 0.5, -0.5, 0.866))
  wanted = "askew.mp4.*multiples of 90"
  with media.VideoFile(path) as video, pytest.raises(ValueError, match=wanted):
    video.read_clip(0.0, 0.1)


def test_truncated_video(tmp_path):
  path = tmp_path / "cut.mp4"
  numbered_video.write_video(
    path, list(range(300)), options={"g": "30"}, container_options={"movflags": "faststart"}
  )
  data = path.read_bytes()
  path.write_bytes(data[: len(data) * 2 // 3])
  with media.VideoFile(path) as video:
    first = [numbered_video.read(j) for j in video.read_clip(1.0, 2.0)]
    assert first == list(range(30, 60))
    with pytest.raises(ValueError, match="cut.mp4.*cut off.*Copy or download") as error:
      video.read_clip(8.0, 9.5)
  text = str(error.value)
  # A clip that runs just past the cut isn't silently shortened, nor a whole
  # file.
  end = float(text.split("decoding ends at ")[1].split(" ")[0])
  for start, stop in ((end - 1, end + 0.3), (0.0, None)):
    with media.VideoFile(path) as video, pytest.raises(ValueError, match="cut.mp4.*cut off"):
      video.read_clip(start, stop)
  assert "should last 10.00 s" in text and "from 8.00 s to 9.50 s" in text


def test_video_without_its_end(tmp_path):
  path = tmp_path / "half.mp4"
  numbered_video.write_video(path, CFR)
  path.write_bytes(path.read_bytes()[:-2000])  # The index is at the end.
  with pytest.raises(ValueError, match="half.mp4.*can't be opened.*cut off"):
    media.VideoFile(path)


def test_no_video(tmp_path):
  path = tmp_path / "notes.mp4"
  path.write_text("not a video")
  with pytest.raises(ValueError, match="notes.mp4.*11 bytes.*another kind"):
    media.VideoFile(path)
  with pytest.raises(FileNotFoundError, match="gone.mp4"):
    media.VideoFile(tmp_path / "gone.mp4")


def test_end_of_video(tmp_path):
  path = tmp_path / "end.mp4"
  numbered_video.write_video(path, CFR)
  # Up to half a second past the end makes the clip shorter.
  assert _numbers(path, 3.8, 4.4) == list(range(114, 120))
  for start, stop in ((3.0, 4.6), (7.0, 8.0)):
    span = f"from {start:.2f} s to {stop:.2f} s"
    with pytest.raises(ValueError, match=f"end.mp4.*ends at 4.00 s.*{span}.*Correct the times"):
      _numbers(path, start, stop)


@pytest.mark.parametrize("limits", [None, 1, 2], ids=["unsaid", "limited", "full"])
@pytest.mark.parametrize("matrix", [None, 1, 5], ids=["unsaid", "bt709", "bt601"])
@pytest.mark.parametrize(
  "form", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12", "gbrp", "gray"]
)
def test_frames_become_jpeg_without_the_way_through_rgb(tmp_path, form, matrix, limits):
  """A few grey levels from the whole frame in RGB, averaged over areas and encoded."""
  numbered_video.write_video(tmp_path / "any.mp4", [0])
  coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
  image = cv2.resize(coarse, (1280, 960), interpolation=cv2.INTER_CUBIC)
  frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=form)
  if matrix is not None:
    frame.colorspace = matrix
  if limits is not None:
    frame.color_range = limits
  file = container.Container(tmp_path / "any.mp4")
  whole = cv2.resize(file.upright(frame), (426, 320), interpolation=cv2.INTER_AREA)
  small = simplejpeg.decode_jpeg(file.upright_jpeg(frame, 320))
  file.close()
  assert small.shape == (320, 426, 3)
  whole = simplejpeg.decode_jpeg(
    simplejpeg.encode_jpeg(whole, quality=jpeg.JPEG_QUALITY, colorsubsampling="420")
  )
  difference = np.abs(small.astype(int) - whole)
  assert difference.mean() < 1.6 and difference.max() <= 12
