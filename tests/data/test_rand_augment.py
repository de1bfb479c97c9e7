"""RandAugment against Pillow, and what its policies draw."""

from __future__ import annotations

import numpy as np
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps
import pytest

from sum_l_jax.data import rand_augment
from sum_l_jax.data import transforms

POLICY = "rand-m7-n4-mstd0.5-inc1"


def _frames():
  """Noise; a dark, soft picture; one of few colours; one colour."""
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (37, 50, 3))
  y, x = np.mgrid[:37, :50]
  soft = np.stack([40 + 60 * np.sin(x / 9), 90 + y, 30 + 20 * np.cos(y / 7) + x], axis=-1)
  few = rng.integers(0, 3, (37, 50, 3)) * 70 + 20
  return [f.astype(np.uint8) for f in (noise, soft, few, np.full((37, 50, 3), 93))]


def _affine(image, *matrix):
  return image.transform(
    image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(128,) * 3
  )


def _pillow(name, argument, image):
  """The operation as timm's documentation describes it, by Pillow's functions."""
  if name in ("auto_contrast", "equalize", "invert"):
    return getattr(ImageOps, name.replace("_", ""))(image)
  if name in ("posterize", "solarize"):
    return getattr(ImageOps, name)(image, argument)
  if name == "solarize_add":
    return image.point([min(255, i + argument) if i < 128 else i for i in range(256)] * 3)
  if name in ("brightness", "color", "contrast", "sharpness"):
    return getattr(ImageEnhance, name.title())(image).enhance(argument)
  if name == "rotate":
    return image.rotate(argument, Image.Resampling.BILINEAR, fillcolor=(128,) * 3)
  width, height = image.size
  return _affine(
    image,
    *{
      "shear_x": (1, argument, 0, 0, 1, 0),
      "shear_y": (1, 0, 0, argument, 1, 0),
      "translate_x": (1, 0, argument * width, 0, 1, 0),
      "translate_y": (1, 0, 0, 0, 1, argument * height),
    }[name],
  )


BYTES = [
  *((name, None) for name in ("auto_contrast", "equalize", "invert")),
  *(("posterize", bits) for bits in (1, 2, 4)),
  *(("solarize", threshold) for threshold in (0, 77, 256)),
  *(("solarize_add", addend) for addend in (0, 77, 110)),
  *(
    (name, factor)
    for name in ("brightness", "color", "contrast", "sharpness")
    for factor in (0.1, 0.37, 1.0, 1.63, 1.9)
  ),
]


@pytest.mark.parametrize("name, argument", BYTES)
def test_bytes_are_those_of_pillow(name, argument):
  for frame in _frames():
    before = frame.copy()
    given = () if argument is None else (argument,)
    found = getattr(rand_augment, name)(frame, *given)
    expected = np.asarray(_pillow(name, argument, Image.fromarray(frame)))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(frame, before)  # It may be kept in a cache.
    # Of products that are whole numbers in theory, one rounds below.
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= 1 and (apart > 0).mean() < 2e-3


MOVES = [
  ("rotate", 21.0),
  ("rotate", -30.0),
  ("shear_x", 0.21),
  ("shear_x", -0.3),
  ("shear_y", 0.21),
  ("translate_x", 0.3),
  ("translate_x", -0.45),
  ("translate_y", 0.137),
]


@pytest.mark.parametrize("name, argument", MOVES)
def test_moves_are_those_of_pillow(name, argument):
  """OpenCV weighs neighbours in steps of 1/32, and blends the border with grey."""
  frame = _frames()[1]
  found = getattr(rand_augment, name)(frame, argument)
  expected = np.asarray(_pillow(name, argument, Image.fromarray(frame)))
  apart = np.abs(found.astype(int) - expected).max(-1)
  assert (apart > 2).mean() < 0.05  # The border.
  assert np.median(apart) <= 1
  # A move by one pixel more, or the other way, would show.
  wrong = np.abs(np.roll(found, 1, axis=1).astype(int) - expected).max(-1)
  assert (wrong > 2).mean() > 0.2
  gone = (expected == 128).all(-1)
  assert gone.mean() > 0.02 and (found[gone] == 128).mean() > 0.8


def _names(increasing):
  return {op.__name__: argument for op, argument in rand_augment.OPERATIONS[increasing]}


def test_magnitudes_are_those_of_the_notation():
  """timm's formulas by hand: at magnitude 7, at 0 and at 10."""
  assert len(_names(True)) == len(_names(False)) == 15
  signed = {
    "rotate": (21, 0, 30),
    "shear_x": (0.21, 0, 0.3),
    "shear_y": (0.21, 0, 0.3),
    "translate_x": (0.315, 0, 0.45),
    "translate_y": (0.315, 0, 0.45),
  }
  for increasing in (False, True):
    names = _names(increasing)
    for name, values in signed.items():
      for magnitude, value in zip((7, 0, 10), values):
        assert names[name](magnitude, 1) == pytest.approx(value)
        assert names[name](magnitude, -1) == pytest.approx(-value)
    assert [names["solarize_add"](m, 1) for m in (7, 0, 10)] == [77, 0, 110]
    assert all(names[name] is None for name in ("auto_contrast", "equalize", "invert"))
  plain, growing = _names(False), _names(True)
  assert [plain["posterize"](m, 1) for m in (7, 0, 10)] == [2, 1, 4]
  assert [growing["posterize"](m, 1) for m in (7, 0, 10)] == [2, 4, 1]
  assert [plain["solarize"](m, 1) for m in (7, 0, 10)] == [179, 0, 256]
  assert [growing["solarize"](m, 1) for m in (7, 0, 10)] == [77, 256, 0]
  for name in ("color", "contrast", "brightness", "sharpness"):
    assert [plain[name](m, -1) for m in (7, 0, 10)] == pytest.approx([1.36, 0.1, 1.9])
    assert [growing[name](m, 1) for m in (7, 0, 10)] == pytest.approx([1.63, 1, 1.9])
    assert [growing[name](m, -1) for m in (7, 0, 10)] == pytest.approx([0.37, 1, 0.1])


def test_the_notation():
  assert rand_augment.parse(POLICY) == rand_augment.Policy(7.0, 4, 0.5, True)
  assert rand_augment.parse("rand") == rand_augment.Policy(10.0, 2, 0.0, False)
  assert rand_augment.parse("rand-n3-m9") == rand_augment.Policy(9.0, 3, 0.0, False)
  for text in ("", "rand-m11", "augmix-m5", "rand-m7-w0", "rand-m7 -n4", "rand-n0"):
    with pytest.raises(ValueError, match="must be like 'rand-m7-n4-mstd0.5-inc1'"):
      rand_augment.parse(text)


def test_what_a_policy_draws():
  """Operations equally often, half of the time, with magnitudes that spread."""
  seen, lengths = [], []
  argument = lambda op: op.__defaults__
  for seed in range(3000):
    drawn = rand_augment.parse(POLICY).draw(np.random.default_rng(seed))
    lengths.append(len(drawn))
    seen += [argument(op) for op in drawn]
  assert np.mean(lengths) == pytest.approx(2.0, abs=0.06) and max(lengths) == 4
  counts = {name: sum(op.__name__ == name for op, _ in seen) for name in _names(True)}
  assert min(counts.values()) > 0.8 * len(seen) / 15
  angles = np.array([given[0] for op, given in seen if op is rand_augment.rotate])
  assert np.abs(angles).mean() == pytest.approx(21, abs=0.3)
  assert np.abs(angles).std() == pytest.approx(1.5, abs=0.2)
  assert (angles > 0).mean() == pytest.approx(0.5, abs=0.08)
  strongest = rand_augment.Policy(10.0, 200, 3.0, True).draw(np.random.default_rng(0))
  angles = [given[0] for op, given in map(argument, strongest) if op is rand_augment.rotate]
  assert max(np.abs(angles)) == 30.0


def test_a_clip_is_changed_alike_and_by_its_generator_alone():
  frames = [_frames()[0]] * 3
  make = lambda policy: transforms.ClipTransform(3, 1, 16, (20, 30), rand_augment=policy)
  clip = lambda policy, seed: make(policy).train(frames, np.random.default_rng(seed))
  differing = 0
  for seed in range(8):
    video, offset = clip(POLICY, seed)
    again, _ = clip(POLICY, seed)
    np.testing.assert_array_equal(video, again)
    np.testing.assert_array_equal(video[0], video[2])
    plain, plain_offset = clip("", seed)
    np.testing.assert_array_equal(offset, plain_offset)
    differing += not np.array_equal(video, plain)
  assert differing >= 6
