"""From decoded frames to the pixels of one example.

There is one draw for each clip: all frames share size, crop and flip. Pixels
stay uint8 RGB; scaling, the colour offset, normalisation and a BGR order happen
on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools

import cv2
import numpy as np

from sum_l_jax import types
from sum_l_jax.data import area_crop
from sum_l_jax.data import erasing
from sum_l_jax.data import rand_augment
from sum_l_jax.data import sampling

# Principal components of RGB in ImageNet (Krizhevsky et al. 2012), as the
# reference writes them: eigenvalues, and eigenvectors in columns.
_EIGENVALUES = np.array([0.225, 0.224, 0.229])
_EIGENVECTORS = np.array(
  [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
NUM_CROPS = (1, 3)


@dataclasses.dataclass(frozen=True)
class ClipTransform:
  """Sampling and augmentation of one view.

  Attributes:
    num_frames: number of sampled frames, T.
    stride: stored frames between two sampled ones.
    crop_size: side of the square crop, pixels.
    short_side: smallest and largest length that the short side is resized to
      in training. At test time the short side becomes `crop_size`.
    crop_area: smallest and largest share of a frame's area that is cut out in
      training, in place of a square of the resized frame; zeros turn it off, see
      `area_crop`.
    crop_aspect: smallest and largest ratio of width to height of such a crop.
    flip: probability of a horizontal flip in training; 0 where left and right
      make a difference to the labels.
    color_lighting: standard deviation of the PCA lighting of training (Ego-Exo
      and LEMMA use 0.1 for the exo view); 0 turns it off.
    rand_augment: policy that changes the frames as they are stored, in training,
      see `rand_augment.parse`; empty is none.
    erase: probability of a rectangle of noise in training, see `erasing`.
    sampling: "stride" for frames at that distance, or "parts" for one frame of
      each of `num_frames` equal parts of the segment, see `sampling`.
  """

  num_frames: int
  stride: int
  crop_size: int
  short_side: tuple[int, int] = (256, 320)
  flip: float = 0.5
  color_lighting: float = 0.0
  rand_augment: str = ""
  erase: float = 0.0
  crop_area: tuple[float, float] = area_crop.OFF
  crop_aspect: tuple[float, float] = area_crop.ASPECT
  sampling: str = types.BY_STRIDE

  def __post_init__(self) -> None:
    object.__setattr__(self, "short_side", tuple(self.short_side))
    sampling.clip_span(self.num_frames, self.stride)
    low, high = self.short_side
    if any(self.crop_area):
      area_crop.check(self.crop_area, self.crop_aspect)
    elif not 1 <= self.crop_size <= low <= high:
      raise ValueError(
        "crop_size must be at least 1 and at most the smallest short_side,"
        f" and short_side ascending; got crop_size={self.crop_size} and"
        f" short_side={self.short_side}."
      )
    if not (0.0 <= self.flip <= 1.0 and 0.0 <= self.erase <= 1.0) or self.color_lighting < 0.0:
      raise ValueError(
        "flip and erase must be in [0, 1] and color_lighting at least 0; got flip="
        f"{self.flip}, erase={self.erase} and color_lighting={self.color_lighting}."
      )
    if self.sampling not in types.FRAME_SAMPLING:
      raise ValueError(f"sampling must be one of {types.FRAME_SAMPLING}, got {self.sampling!r}.")
    if self.rand_augment:
      rand_augment.parse(self.rand_augment)

  @classmethod
  def for_testing(
    cls, num_frames: int, stride: int, crop_size: int, sampling: str = types.BY_STRIDE
  ) -> ClipTransform:
    """Makes a transform that is used at test time only."""
    side = (crop_size, crop_size)
    return cls(num_frames, stride, crop_size, short_side=side, flip=0.0, sampling=sampling)

  def span(self, segment: int) -> int:
    """Frames from the first to the last of a sample, both included.

    Args:
      segment: frames of the segment that is divided, where samples are of parts.
    """
    if self.sampling == types.IN_PARTS:
      return segment
    return sampling.clip_span(self.num_frames, self.stride)

  def train_start(
    self,
    length: int,
    span: int,
    rng: np.random.Generator,
    allowed: Callable[[np.ndarray], np.ndarray] | None = None,
  ) -> int:
    """Where a sample starts; see `sampling.draw_start`."""
    return sampling.draw_start(length, span, rng, allowed)

  def train_indices(
    self, start: int, length: int, span: int, rng: np.random.Generator
  ) -> np.ndarray:
    """Frames to decode, int64 `[T]`; only parts draw from the generator, see `sampling`."""
    if self.sampling == types.IN_PARTS:
      return sampling.draw_part_positions(start, span, self.num_frames, rng)
    return sampling.positions(start, length, self.num_frames, self.stride)

  def test_indices(self, length: int, clip: int, num_clips: int) -> np.ndarray:
    """Frames to decode at test time, int64 `[T]`; see `sampling`."""
    if self.sampling == types.IN_PARTS:
      return sampling.test_part_positions(length, self.num_frames, clip, num_clips)
    return sampling.test_frame_indices(length, self.num_frames, self.stride, clip, num_clips)

  def train(
    self, frames: Sequence[np.ndarray], rng: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray]:
    """Resizes to a random short side, crops at random, flips at random.

    With `crop_area`, a random window of the frame is cut out and resized in place
    of the first two. RandAugment comes before, erasing after, as in the recipes
    that have them. Crop offsets in the resized frame are uniform over
    `[0, side - crop_size)`: the upper end never occurs, as in the reference.

    Args:
      frames: uint8 `[H, W, 3]` each, all of one size.
      rng: generator, consumed by size, rows, columns (or by the window), flip,
        lighting, RandAugment and erasing, in this order.

    Returns:
      Video uint8 `[len(frames), crop_size, crop_size, 3]`, and the lighting
      offset float32 `[3]`, to be added to RGB on the scale 0..1.
    """
    if any(self.crop_area):
      window = area_crop.draw(frames[0].shape, self.crop_area, self.crop_aspect, rng)
      cut = functools.partial(_cut_and_resize, window=window)
    else:
      size = round(rng.uniform(*self.short_side))
      height, width = _resized_shape(frames[0].shape, size)
      top = _random_offset(height - self.crop_size, rng)
      left = _random_offset(width - self.crop_size, rng)
      cut = functools.partial(_resize_and_crop, shape=(height, width), corners=[(top, left)])
    flip = rng.random() < self.flip
    alpha = self.color_lighting * rng.standard_normal(3)
    _turn_off_threads()
    if self.rand_augment:
      for change in rand_augment.parse(self.rand_augment).draw(rng):
        frames = [change(frame) for frame in frames]
    video = cut(frames, crop=self.crop_size, flip=flip)[0]
    if self.erase and rng.random() < self.erase:
      erasing.erase(video, rng)
    offset = _EIGENVECTORS @ (alpha * _EIGENVALUES)
    return video, offset.astype(np.float32)

  def test(self, frames: Sequence[np.ndarray], num_crops: int = 1) -> np.ndarray:
    """Resizes the short side to `crop_size` and cuts 1 or 3 crops.

    Args:
      frames: uint8 `[H, W, 3]` each, all of one size.
      num_crops: number of crops: 1 is the centre, 3 are start, centre and end
        of the long side.

    Returns:
      uint8 `[num_crops, len(frames), crop_size, crop_size, 3]`.
    """
    if num_crops not in NUM_CROPS:
      raise ValueError(f"num_crops must be one of {NUM_CROPS}, got {num_crops}.")
    height, width = _resized_shape(frames[0].shape, self.crop_size)
    down, right = height - self.crop_size, width - self.crop_size
    centre = (-(-down // 2), -(-right // 2))
    corners = [centre]
    if num_crops == 3:
      start, end = ((0, centre[1]), (down, centre[1]))
      if width >= height:
        start, end = ((centre[0], 0), (centre[0], right))
      corners = [start, centre, end]
    return _resize_and_crop(frames, (height, width), corners, self.crop_size)


def _resized_shape(shape: Sequence[int], size: int) -> tuple[int, int]:
  """Height and width when the short side becomes `size`."""
  height, width = shape[:2]
  if height < width:
    return size, int(np.floor(width / height * size))
  return int(np.floor(height / width * size)), size


def _random_offset(margin: int, rng: np.random.Generator) -> int:
  # One draw whatever the margin, so that later draws don't depend on it.
  return int(rng.random() * margin)


@functools.cache
def _turn_off_threads() -> None:
  """Leaves threads to the loader: OpenCV's own would fight over the same cores.

  Called where a process resizes its first frame, for the loader's worker
  processes begin with OpenCV's threads turned on.
  """
  cv2.setNumThreads(0)


def _cut_and_resize(
  frames: Sequence[np.ndarray], window: area_crop.Window, crop: int, flip: bool
) -> np.ndarray:
  """Resizes the same window of all frames; uint8 `[1, len(frames), crop, crop, 3]`."""
  height, width = window.height, window.width
  parts = [
    frame[window.top : window.top + height, window.left : window.left + width] for frame in frames
  ]
  return _resize_and_crop(parts, (crop, crop), [(0, 0)], crop, flip)


def _resize_and_crop(
  frames: Sequence[np.ndarray],
  shape: tuple[int, int],
  corners: Sequence[tuple[int, int]],
  crop: int,
  flip: bool = False,
) -> np.ndarray:
  """Cuts the windows; uint8 `[len(corners), len(frames), crop, crop, 3]`."""
  _turn_off_threads()
  video = np.empty((len(corners), len(frames), crop, crop, 3), np.uint8)
  height, width = shape
  for t, frame in enumerate(frames):
    if frame.shape[:2] != shape:
      # Half-pixel centres, no antialiasing: what the reference resizes with.
      frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    for view, (top, left) in enumerate(corners):
      window = frame[top : top + crop, left : left + crop]
      # numpy copies a reversed axis byte by byte, ten times slower.
      video[view, t] = cv2.flip(window, 1) if flip else window
  return video
