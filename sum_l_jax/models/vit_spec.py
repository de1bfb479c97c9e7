"""The vision transformers of this library, as data: one row a network.

`models/vit.py` builds every row with the same blocks; what distinguishes a
family is in the fields of its row. A row of your own, for a config file that
sets `config.model.backbone = "mine"`:

    from sum_l_jax.models import backbones
    from sum_l_jax.models import vit_spec

    spec = vit_spec.VitSpec(
      width=256, depth=6, mlp=1024, heads=4, patch=(2, 16, 16), image=128, frames=8,
      positions="rotary", pooling="mean",
    )
    backbones.register_vit("mine", spec, stride=4, normalization="imagenet")

Sources: VideoPrism (Zhao et al., ICML 2024), V-JEPA 2 (Assran et al., 2025),
VideoMAE (Tong et al., NeurIPS 2022), LaViLa (Zhao et al., CVPR 2023), AVION
(Zhao and Kraehenbuehl, 2023), SigLIP 2 (Tschannen et al., 2025), DINOv2 (Oquab
et al., 2023), and the published code of each.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from sum_l_jax.models.layer_order import LayerOrder

Positions = Literal["learned", "sincos", "rotary", "rotary_tiled"]
AttentionPattern = Literal["joint", "space_then_time", "divided", "frame"]
Pooling = Literal["mean", "class", "map", "pooler"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu"]
Interpolation = Literal["linear_antialias", "linear", "cubic"]
TimePositions = Literal["interpolate", "truncate"]


@dataclasses.dataclass(frozen=True)
class VitSpec:
  """A vision transformer for clips, or for frames one by one.

  All are pre-norm: x + Attention(LN(x)), then x + MLP(LN(x)).

  Attributes:
    width: D, channels of a token.
    depth: blocks of the main stack.
    mlp: channels within the MLP.
    heads: heads of each attention; they divide the width.
    patch: frames, rows and columns of a patch.
    image: side in pixels that the table of positions is made for.
    frames: T that the table of positions is made for.
    positions: how a token knows its place. "learned" are tables, one of space
      [h w, D] and, for several frames, one of time [T, D]; "sincos" a fixed
      table over the index of the token; "rotary" turns queries and keys by
      angles of time, row and column; "rotary_tiled" does so with V-JEPA 2's
      order of angles, which its weights need.
    attention: which tokens see each other. "joint": all of a clip;
      "space_then_time": those of a frame in the main stack, then those of a
      place in a second one; "divided": in each block those of a place, then
      those of a frame; "frame": those of a frame, and no frame knows of others.
    time_depth: blocks of the second stack ("space_then_time").
    joint_depth: blocks over all tokens after both stacks, without positions or
      final norm (VideoPrism's video-text networks).
    class_token: whether a learned token stands before the patches.
    patch_bias: whether the projection of patches has a bias.
    stem_norm: whether a LayerNorm precedes the blocks.
    query_value_bias_only: whether keys have no bias (VideoMAE).
    logit_cap: c, where attention logits become c tanh(logit / c); 0 is off.
    layer_scale: whether each branch is multiplied by learned factors [D].
    activation: the MLP's; "gelu" is the exact one, by erf.
    norm_eps: epsilon of the LayerNorms.
    norm_offset: what is added to the scales of LayerNorms: 1 where the weights
      hold what the scale differs from 1 by (VideoPrism).
    stem_eps: epsilon of the LayerNorm before the blocks.
    final_norm: what the last LayerNorm acts on: "tokens", "pooled" (VideoMAE's
      mean of the tokens), or "" for none.
    pooling: how tokens become the feature of a clip: their mean, the class
      token, SigLIP's attention with one probe ("map"), or VideoPrism's
      attention with one query ("pooler").
    interpolation: how tables of positions are resized to other inputs.
    time_positions: what becomes of the table of time where a clip has fewer
      frames. "interpolate" resizes it; "truncate" takes its first rows, as
      LaViLa and AVION do. For more frames both resize it.
    rotary_grid: patches of a side on which row and column positions are
      stretched to, as V-JEPA 2.1 does; 0 leaves them as they are.
    constant_drop_path: whether every block drops paths at the same rate (AVION),
      instead of a rate that grows from zero with depth.
  """

  width: int
  depth: int
  mlp: int
  heads: int
  patch: tuple[int, int, int]
  image: int
  frames: int
  positions: Positions = "learned"
  attention: AttentionPattern = "joint"
  time_depth: int = 0
  joint_depth: int = 0
  class_token: bool = False
  patch_bias: bool = True
  stem_norm: bool = False
  query_value_bias_only: bool = False
  logit_cap: float = 0.0
  layer_scale: bool = False
  activation: Activation = "gelu"
  norm_eps: float = 1e-6
  norm_offset: float = 0.0
  stem_eps: float = 1e-5
  final_norm: Literal["", "tokens", "pooled"] = "tokens"
  pooling: Pooling = "mean"
  interpolation: Interpolation = "linear"
  time_positions: TimePositions = "interpolate"
  rotary_grid: int = 0
  constant_drop_path: bool = False

  def __post_init__(self) -> None:
    if self.width % self.heads:
      raise ValueError(f"heads={self.heads} must divide width={self.width}.")
    if self.image % self.patch[1] or self.image % self.patch[2] or self.frames % self.patch[0]:
      raise ValueError(
        f"patch={self.patch} must divide frames={self.frames} and image={self.image}."
      )
    if self.pooling == "class" and not self.class_token:
      raise ValueError('pooling="class" needs class_token=True.')
    if self.positions.startswith("rotary") and (self.attention != "joint" or self.class_token):
      raise ValueError(
        f"positions={self.positions!r} turns the patches of a whole clip: it needs"
        ' attention="joint" and class_token=False.'
      )
    if self.positions.startswith("rotary") and self.width // self.heads not in range(6, 4096, 2):
      raise ValueError(
        f"positions={self.positions!r} needs an even number of channels a head, six or more, got"
        f" width / heads = {self.width // self.heads}."
      )
    if self.class_token and self.attention == "space_then_time":
      raise ValueError(
        'attention="space_then_time" has no use for class_token=True, which does not reach the'
        " second stack."
      )
    if self.joint_depth and self.attention != "space_then_time":
      raise ValueError(
        f'joint_depth={self.joint_depth} goes with attention="space_then_time" alone, got'
        f" {self.attention!r}: add blocks to depth."
      )
    if bool(self.time_depth) != (self.attention == "space_then_time"):
      raise ValueError(
        f'time_depth={self.time_depth} goes with attention="space_then_time" alone, got'
        f" {self.attention!r}."
      )
    if self.attention == "divided" and not self.class_token:
      raise ValueError('attention="divided" needs class_token=True, whose query sees all tokens.')

  @property
  def grid(self) -> tuple[int, int, int]:
    """Patches in time, rows and columns that the tables of positions have."""
    time, rows, columns = self.patch
    return self.frames // time, self.image // rows, self.image // columns

  @property
  def order(self) -> LayerOrder:
    """The blocks as layers; the stacks continue each other's count.

    What stands between two stacks belongs to the last block of the first one.
    """
    second = self.depth + self.time_depth
    count = second + self.joint_depth
    places: dict[str, int] = {"patches": 0, "space": 0, "class_token": 0, "stem_norm": 0}
    if self.attention in ("joint", "divided"):
      places["time"] = 0  # It is added to the patches.
    elif self.time_depth:
      places["time"] = self.depth
    if count > self.depth:
      places["norm"] = self.depth
    if count > second:
      places["time_norm"] = second
    stacks = {"blocks": 1, "time_blocks": self.depth + 1, "joint_blocks": second + 1}
    return LayerOrder(count, places, stacks)


@dataclasses.dataclass(frozen=True)
class _Size:
  width: int
  depth: int
  mlp: int
  heads: int


_S = _Size(384, 12, 1536, 6)
_B = _Size(768, 12, 3072, 12)
_L = _Size(1024, 24, 4096, 16)
_H = _Size(1280, 32, 5120, 16)
_G = _Size(1408, 40, 6144, 22)  # V-JEPA's g, with heads of 64.
_GIGANTIC = _Size(1664, 48, 8192, 26)
_SO400M = _Size(1152, 27, 4304, 16)


def _spec(size: _Size, **fields: object) -> VitSpec:
  return VitSpec(size.width, size.depth, size.mlp, size.heads, **fields)  # type: ignore[arg-type]


def _videoprism(size: _Size, *, frames: int, joint_depth: int = 0) -> VitSpec:
  return _spec(
    size,
    patch=(1, 18, 18),
    image=288,
    frames=frames,
    attention="space_then_time",
    time_depth=4,
    joint_depth=joint_depth,
    logit_cap=50.0,
    norm_offset=1.0,
    interpolation="linear_antialias",
    pooling="pooler" if joint_depth else "mean",
  )


def _vjepa2(size: _Size, *, image: int = 256) -> VitSpec:
  return _spec(size, patch=(2, 16, 16), image=image, frames=64, positions="rotary_tiled")


def _vjepa21(size: _Size) -> VitSpec:
  return _spec(size, patch=(2, 16, 16), image=384, frames=64, positions="rotary", rotary_grid=16)


def _videomae(size: _Size) -> VitSpec:
  return _spec(
    size,
    patch=(2, 16, 16),
    image=224,
    frames=16,
    positions="sincos",
    query_value_bias_only=True,
    final_norm="pooled",
  )


def _clip(size: _Size, *, patch: int, **fields: object) -> VitSpec:
  """CLIP's transformer over the frames of a clip, as LaViLa and AVION have it."""
  return _spec(
    size,
    patch=(1, patch, patch),
    image=224,
    frames=16,
    class_token=True,
    patch_bias=False,
    stem_norm=True,
    pooling="class",
    time_positions="truncate",
    **fields,
  )


def _lavila(size: _Size, *, patch: int) -> VitSpec:
  return _clip(size, patch=patch, attention="divided", activation="quick_gelu")


def _avion(size: _Size, *, patch: int) -> VitSpec:
  # Its weights were trained with the exact GELU, whatever its options say.
  return _clip(size, patch=patch, stem_eps=1e-6, constant_drop_path=True)


def _siglip2(size: _Size, *, image: int = 256, patch: int = 16) -> VitSpec:
  return _spec(
    size,
    patch=(1, patch, patch),
    image=image,
    frames=8,
    attention="frame",
    activation="gelu_tanh",
    pooling="map",
    interpolation="cubic",
  )


def _dinov2(size: _Size) -> VitSpec:
  return _spec(
    size,
    patch=(1, 14, 14),
    image=518,
    frames=8,
    attention="frame",
    class_token=True,
    layer_scale=True,
    pooling="class",
    interpolation="cubic",
  )


# For two CPU cores and minutes; not from a paper. A token is a place in all frames, so
# that its first layer can see how a thing moves: with tokens of two frames, 1,500 steps
# of the demo's pretraining taught it colours and no motion.
VIT_TINY = VitSpec(
  width=96, depth=4, mlp=192, heads=4, patch=(8, 8, 8), image=56, frames=8, positions="rotary"
)

SPECS: dict[str, VitSpec] = {
  "vit_tiny": VIT_TINY,
  "videoprism_b": _videoprism(_B, frames=16),
  "videoprism_l": _videoprism(_L, frames=8),
  "videoprism_lvt_b": _videoprism(_B, frames=16, joint_depth=2),
  "videoprism_lvt_l": _videoprism(_L, frames=8, joint_depth=2),
  "vjepa2_l": _vjepa2(_L),
  "vjepa2_h": _vjepa2(_H),
  "vjepa2_g": _vjepa2(_G),
  "vjepa2_g_384": _vjepa2(_G, image=384),
  "vjepa21_b": _vjepa21(_B),
  "vjepa21_l": _vjepa21(_L),
  "vjepa21_g": _vjepa21(_G),
  "vjepa21_gigantic": _vjepa21(_GIGANTIC),
  "videomae_b": _videomae(_B),
  "videomae_l": _videomae(_L),
  "videomae_h": _videomae(_H),
  "avion_b": _avion(_B, patch=16),
  "avion_l": _avion(_L, patch=14),
  "lavila_b": _lavila(_B, patch=16),
  "lavila_l": _lavila(_L, patch=14),
  "siglip2_b": _siglip2(_B),
  "siglip2_l": _siglip2(_L),
  "siglip2_so400m": _siglip2(_SO400M),
  "dinov2_s": _dinov2(_S),
  "dinov2_b": _dinov2(_B),
  "dinov2_l": _dinov2(_L),
}
