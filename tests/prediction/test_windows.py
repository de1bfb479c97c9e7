"""Windows: each with the frames that a clip of a data set would have."""

from __future__ import annotations

from fractions import Fraction
import logging
import struct

import numpy as np
import pytest

from sum_l_jax.prediction import video_sources
from sum_l_jax.video import media
from tests.support import numbered_video
from tests.support import predicted_videos

_STEPS = np.random.default_rng(0).choice([10, 20, 25, 40, 60], 59)
VFR = np.cumsum([0, *_STEPS, 600, *[20] * 30]).tolist()


@pytest.mark.parametrize(
  "name, times, options",
  [
    ("plain.mp4", range(90), {}),
    ("b_frames.mp4", range(90), {"max_b_frames": 3}),
    ("late.mkv", [i + 45 for i in range(90)], {}),
    ("phone.mp4", VFR, {"time_base": Fraction(1, 600)}),
    ("part2.mp4", range(90), {"codec": "mpeg4"}),
    ("old.avi", range(90), {"codec": "mpeg4"}),
  ],
)
@pytest.mark.parametrize("fps, window, stride", [(12.0, 1.0, 0.5), (60.0, 0.7, 0.3)])
def test_windows_are_those_of_a_seek_for_each(tmp_path, name, times, options, fps, window, stride):
  path = tmp_path / name
  numbered_video.write_video(path, list(times), **options)
  cuts = predicted_videos.cut_file(path, fps=fps, window=window, stride=stride)
  with media.VideoFile(path) as file:
    for cut in cuts:
      assert cut.jpegs == file.read_clip(cut.start, cut.stop, fps=fps)
    duration = file.duration or 3.0  # Matroska doesn't say.
  assert len(cuts) == 1 + int((duration - window) / stride + 1e-6)
  for number, cut in enumerate(cuts):
    assert cut.start == pytest.approx(number * stride)
    assert cut.stop == pytest.approx(cut.start + window)


def test_windows_see_their_own_frames(video):
  cuts = predicted_videos.cut_file(video)
  assert [(c.start, c.stop) for c in cuts] == [
    (0.0, 1.0),
    (0.5, 1.5),
    (1.0, 2.0),
    (1.5, 2.5),
    (2.0, 3.0),
  ]
  assert [[numbered_video.read(j) for j in c.jpegs] for c in cuts] == [
    list(range(s, s + 12)) for s in (0, 6, 12, 18, 24)
  ]


def test_a_long_still_is_repeated_and_a_damaged_clock_refused(tmp_path):
  path = tmp_path / "still.mp4"
  numbered_video.write_video(path, [*range(30), 300, 301])
  with video_sources.VideoSource(path) as source:
    assert source.duration < 2.0  # This writer says too little.
  cuts = predicted_videos.cut_file(path)
  numbers = [[numbered_video.read(j) for j in c.jpegs] for c in cuts]
  assert [c.start for c in cuts] == [n / 2 for n in range(19)]
  assert numbers[1] == [15, 17, 20, 22, 25, 27, *[29] * 6]
  assert numbers[5] == [29] * 12 and numbers[18] == [30] * 12
  numbered_video.write_video(path, [*range(30), 30 * 4000])
  with pytest.raises(ValueError, match="time stamps are damaged"):
    predicted_videos.cut_file(path)


@pytest.mark.parametrize(
  "matrix, turns", [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1)], ids=["clockwise", "counterclockwise"]
)
def test_rotation_is_applied(video, tmp_path, matrix, turns):
  path = tmp_path / "turned.mp4"
  data = bytearray(video.read_bytes())
  at = data.index(b"tkhd") + 4 + 40  # Version 0: 40 bytes precede the matrix.
  a, b, c, d = (value * 65536 for value in matrix)
  data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
  path.write_bytes(data)
  with video_sources.VideoSource(path) as source:
    turned = [image() for _, image in source.images()]
  for image, upright in zip(turned, predicted_videos.decoded(video), strict=True):
    np.testing.assert_array_equal(image, np.rot90(upright, turns))
  with media.VideoFile(path) as file:
    for cut in predicted_videos.cut_file(path):
      assert cut.jpegs == file.read_clip(cut.start, cut.stop, fps=12.0)


def test_damaged_frames_are_left_out_and_told(tmp_path, caplog):
  path = tmp_path / "damaged.mp4"
  numbered_video.write_video(path, list(range(150)), options={"g": "30"})
  data = bytearray(path.read_bytes())
  start = data.index(b"mdat") + 4
  end = data.index(b"moov")
  third = (end - start) // 3
  data[start + third : start + third + third // 2] = bytes(third // 2)
  path.write_bytes(data)
  logger = logging.getLogger("absl")
  propagate, logger.propagate = logger.propagate, True
  try:
    cuts = predicted_videos.cut_file(path, stride=1.0)
  finally:
    logger.propagate = propagate
  assert "damaged frames are left out" in caplog.text
  assert [len(cut.jpegs) for cut in cuts] == [12] * 5
  # The last second is whole again.
  numbers = [numbered_video.read(jpeg) for jpeg in cuts[-1].jpegs]
  assert numbers == [120, 122, 125, 127, 130, 132, 135, 137, 140, 142, 145, 147]
