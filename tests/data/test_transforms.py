"""Resize, crop, flip and lighting against numpy; damaged JPEGs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import simplejpeg

from sum_l_jax.data import transforms
from sum_l_jax.video import decode


def _bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Half-pixel centres, edges repeated, no antialias; float64."""

  def weights(size_out, size_in):
    matrix = np.zeros((size_out, size_in))
    for i in range(size_out):
      x = max((i + 0.5) * size_in / size_out - 0.5, 0.0)
      low = min(math.floor(x), size_in - 1)
      high = min(low + 1, size_in - 1)
      matrix[i, low] += 1.0 - (x - low)
      matrix[i, high] += x - low
    return matrix

  rows = weights(height, image.shape[0])
  columns = weights(width, image.shape[1])
  return np.einsum("hi,wj,ijc->hwc", rows, columns, image.astype(np.float64))


def _frames(height, width, count=2, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def _position_frame(height, width):
  """A frame whose pixels say where they are."""
  frame = np.zeros((height, width, 3), np.uint8)
  frame[..., 0] = np.arange(height)[:, None]
  frame[..., 1] = np.arange(width)
  return frame


@pytest.mark.parametrize(
  "height, width, size, expected",
  [
    (48, 64, 30, (30, 40)),
    (48, 64, 96, (96, 128)),
    (48, 64, 24, (24, 32)),
    (64, 48, 31, (41, 31)),
    (50, 50, 33, (33, 33)),
    (48, 64, 49, (49, 65)),
  ],
)
def test_training_resize_is_bilinear(height, width, size, expected):
  frames = _frames(height, width)
  transform = transforms.ClipTransform(2, 1, 20, (size, size), flip=0.0)
  rng = np.random.default_rng(3)
  video, _ = transform.train(frames, rng)
  whole = [_bilinear(frame, *expected) for frame in frames]
  # Where the crop is, is another test's business: search.
  errors = [
    max(np.abs(video[t] - whole[t][top : top + 20, left : left + 20]).max() for t in range(2))
    for top in range(expected[0] - 20 + 1)
    for left in range(expected[1] - 20 + 1)
  ]
  assert min(errors) <= 1.0
  assert sorted(errors)[1] > 20.0


def test_crop_offsets_never_reach_the_upper_end():
  frame = _position_frame(12, 15)
  transform = transforms.ClipTransform(1, 1, 10, (12, 12), flip=0.0)
  corners = [
    tuple(transform.train([frame], np.random.default_rng(i))[0][0, 0, 0, :2]) for i in range(300)
  ]
  assert set(corners) == {(y, x) for y in range(2) for x in range(5)}


def test_no_margin_gives_offset_zero():
  frame = _position_frame(10, 10)
  transform = transforms.ClipTransform(1, 1, 10, (10, 10), flip=0.0)
  video, offset = transform.train([frame], np.random.default_rng(0))
  np.testing.assert_array_equal(video[0], frame)
  np.testing.assert_array_equal(offset, np.zeros(3, np.float32))


def test_flip_and_one_draw_a_clip():
  frames = [_position_frame(10, 12)] * 3
  transform = transforms.ClipTransform(3, 1, 8, (10, 10), flip=0.5)
  flipped = 0
  for seed in range(200):
    video, _ = transform.train(frames, np.random.default_rng(seed))
    np.testing.assert_array_equal(video[0], video[2])
    steps = np.diff(video[0, 0, :, 1].astype(int))
    assert set(steps) in ({1}, {-1})
    flipped += steps[0] == -1
  assert 70 < flipped < 130


def test_short_side_covers_its_range():
  # Crop = smallest size; a bigger size shows as a smaller visible slope.
  frame = np.zeros((20, 40, 3), np.uint8)
  frame[..., 0] = np.linspace(0, 255, 40).astype(np.uint8)
  transform = transforms.ClipTransform(1, 1, 20, (20, 30), flip=0.0)
  spans = []
  for seed in range(100):
    video, _ = transform.train([frame], np.random.default_rng(seed))
    spans.append(int(video[0, 0, -1, 0]) - int(video[0, 0, 0, 0]))
  assert max(spans) == pytest.approx(19 * 255 / 39, abs=3)
  assert min(spans) == pytest.approx(19 * 255 / 39 * 20 / 30, abs=4)


@pytest.mark.parametrize("shape", [(20, 33), (33, 20)])
def test_test_crops(shape):
  frame = _position_frame(*shape)
  transform = transforms.ClipTransform(1, 1, 20, (24, 24))
  video = transform.test([frame], num_crops=3)
  assert video.shape == (3, 1, 20, 20, 3)
  along = 1 if shape[1] > shape[0] else 0
  assert video[:, 0, 0, 0, along].tolist() == [0, 7, 13]  # ceil(13 / 2) = 7
  assert video[:, 0, 0, 0, 1 - along].tolist() == [0, 0, 0]
  np.testing.assert_array_equal(transform.test([frame])[0], video[1])


def test_test_resize():
  frame = _frames(48, 64, 1)[0]
  transform = transforms.ClipTransform(1, 1, 30, (32, 32))
  video = transform.test([frame], num_crops=3)
  whole = _bilinear(frame, 30, 40)
  for crop, left in enumerate((0, 5, 10)):
    assert np.abs(video[crop, 0] - whole[:, left : left + 30]).max() <= 1.0


def test_lighting():
  transform = transforms.ClipTransform(1, 1, 4, (4, 4), color_lighting=0.1)
  frames = _frames(4, 4, 1)
  offsets = np.stack(
    [transform.train(frames, np.random.default_rng(seed))[1] for seed in range(2000)]
  )
  vectors = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
  )
  spread = vectors @ np.diag(np.array([0.225, 0.224, 0.229]) * 0.1)
  assert offsets.dtype == np.float32
  np.testing.assert_allclose(np.cov(offsets.T), spread @ spread.T, atol=1e-4)
  np.testing.assert_allclose(offsets.mean(0), 0.0, atol=2e-3)


@pytest.mark.parametrize(
  "change, text",
  [
    ({"crop_size": 300}, "crop_size=300"),
    ({"short_side": (320, 256)}, "ascending"),
    ({"flip": 1.5}, "flip=1.5"),
    ({"color_lighting": -1.0}, "color_lighting"),
    ({"stride": 0}, "stride=0"),
  ],
)
def test_bad_settings(change, text):
  settings = {"num_frames": 8, "stride": 8, "crop_size": 224} | change
  with pytest.raises(ValueError, match=text):
    transforms.ClipTransform(**settings)


def test_bad_number_of_crops():
  transform = transforms.ClipTransform(1, 1, 4, (4, 4))
  with pytest.raises(ValueError, match="num_crops must be one of"):
    transform.test(_frames(4, 4, 1), num_crops=2)


def _jpeg():
  smooth = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3)
  return smooth.astype(np.uint8), simplejpeg.encode_jpeg(smooth.astype(np.uint8), quality=95)


def test_decode_is_rgb():
  pixels = np.zeros((16, 16, 3), np.uint8)
  pixels[..., 0] = 255
  decoded = decode.decode_jpeg(simplejpeg.encode_jpeg(pixels, quality=95))
  assert decoded.shape == (16, 16, 3) and decoded.dtype == np.uint8
  assert decoded[8, 8, 0] > 240 and decoded[8, 8, 1:].max() < 15


def test_decode_gray():
  gray = np.full((8, 8, 1), 77, np.uint8)
  decoded = decode.decode_jpeg(simplejpeg.encode_jpeg(gray, colorspace="GRAY", quality=95))
  assert decoded.shape == (8, 8, 3)
  assert np.abs(decoded.astype(int) - 77).max() <= 2


@pytest.mark.parametrize("left", [0, 3, 30, 0.5, 0.9, -2])
def test_cut_short_is_detected(left):
  _, data = _jpeg()
  data = data[: int(len(data) * left) if isinstance(left, float) else left]
  with pytest.raises(ValueError, match=f"Damaged JPEG frame of {len(data)}"):
    decode.decode_jpeg(data)


def test_other_files_are_refused():
  with pytest.raises(ValueError, match="Damaged JPEG"):
    decode.decode_jpeg(b"\x89PNG\r\n\x1a\n" + bytes(100))


def test_absurd_size_is_refused_before_decoding(monkeypatch):
  _, data = _jpeg()
  start = data.index(b"\xff\xc0") + 5  # height and width in the SOF0 segment
  huge = data[:start] + b"\xf0\x00\xf0\x00" + data[start + 4 :]

  def decoder(*_, **__):
    raise AssertionError("the pixels must not be decoded")

  monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", decoder)
  with pytest.raises(ValueError, match="61440 x 61440"):
    decode.decode_jpeg(huge)
