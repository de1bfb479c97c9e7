"""What happens to pixels on the device before the first convolution."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CHANNEL_ORDERS = ("RGB", "BGR")


@dataclasses.dataclass(frozen=True)
class PixelSpec:
  """How one view's pixels are normalised.

  Attributes:
    mean: mean of each channel of pixels in [0, 1], in RGB order.
    std: standard deviation of each channel, in RGB order.
    channel_order: order that the encoder sees, "RGB" or "BGR". The video is
      always RGB. The authors' ego encoders were trained on BGR.
  """

  mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
  std: tuple[float, float, float] = (0.225, 0.225, 0.225)
  channel_order: str = "RGB"

  def __post_init__(self) -> None:
    if self.channel_order not in CHANNEL_ORDERS:
      raise ValueError(
        f"channel_order must be one of {CHANNEL_ORDERS}, got {self.channel_order!r}."
      )
    if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
      raise ValueError(
        f"mean and std need three values each, std positive; got mean={self.mean}, std={self.std}."
      )

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> PixelSpec:
    """Reads a checkpoint's card, where JSON has turned tuples into lists."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return cls(**values)


@jax.named_scope("pixels")
def normalize(
  video: jax.Array, spec: PixelSpec, color_offset: jax.Array | None = None
) -> jax.Array:
  """Normalises bytes: (x / 255 + color_offset - mean) / std.

  Args:
    video: uint8 `[B, T, H, W, 3]`, RGB.
    spec: mean, standard deviation, channel order.
    color_offset: float32 `[B, 3]`, RGB, of pixels in [0, 1]; the lighting
      augmentation, one draw for each clip.

  Returns:
    float32 `[B, T, H, W, 3]` in the channel order of `spec`.

  Raises:
    ValueError: the video is not uint8 `[B, T, H, W, 3]`, or the offset is not
      `[B, 3]`.
  """
  if video.ndim != 5 or video.shape[-1] != 3 or video.dtype != jnp.uint8:
    raise ValueError(
      f"video must be uint8 [B, T, H, W, 3], got {video.dtype} {tuple(video.shape)}."
    )
  x = video.astype(jnp.float32) / 255.0
  if color_offset is not None:
    if color_offset.shape != (video.shape[0], 3):
      raise ValueError(
        f"color_offset must be [B, 3] = [{video.shape[0]}, 3], got {tuple(color_offset.shape)}."
      )
    x = x + color_offset.astype(jnp.float32)[:, None, None, None, :]
  mean = np.asarray(spec.mean, np.float32)
  std = np.asarray(spec.std, np.float32)
  x = (x - mean) / std
  return x[..., ::-1] if spec.channel_order == "BGR" else x


def slow_indices(num_frames: int, alpha: int, *, regular: bool = False) -> tuple[int, ...]:
  """Frames of the slow pathway: trunc(linspace(0, T - 1, T / alpha)).

  This is no regular stride: 32 frames at alpha 4 give 0 4 8 13 17 22 26 31.

  Args:
    num_frames: T, frames of the fast pathway.
    alpha: frames of the fast pathway per frame of the slow one.
    regular: whether every alpha-th frame is taken instead: 0 4 8 12 16 20 24 28.

  Raises:
    ValueError: alpha does not divide the number of frames.
  """
  if alpha < 1 or num_frames < alpha or num_frames % alpha:
    raise ValueError(
      f"alpha={alpha} must divide the number of frames, which is"
      f" {num_frames}; sample a multiple of {alpha} frames."
    )
  # In integers, because floating point may fall below a whole number.
  slow = num_frames // alpha
  if regular:
    return tuple(range(0, num_frames, alpha))
  return tuple(i * (num_frames - 1) // max(slow - 1, 1) for i in range(slow))
