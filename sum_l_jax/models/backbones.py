"""The networks as data: stage tables of every backbone, by name.

Sources: SlowFast Networks (Feichtenhofer et al., ICCV 2019), Table 1, and its
published configurations. "R3D-50" in the SUM-L paper is the slow pathway
alone, 8 frames at stride 8. "8x8" counts the slow pathway: 8 frames, stride 8.
"""

from __future__ import annotations

import dataclasses

SLOW = "slow"
FAST = "fast"


@dataclasses.dataclass(frozen=True)
class StemSpec:
  """The first convolution.

  Attributes:
    features: channels out.
    kernel: [Tk, Hk, Wk].
    stride: of H and W.
    max_pool: whether a [1, 3, 3] max-pool of stride 2 follows.
    differences: whether it sees the differences to the neighbouring frames
      beside each frame (9 channels in place of 3).
  """

  features: int
  kernel: tuple[int, int, int]
  stride: int = 2
  max_pool: bool = True
  differences: bool = False


@dataclasses.dataclass(frozen=True)
class StageSpec:
  """A row of bottleneck blocks.

  Attributes:
    blocks: how many.
    inner: channels of a and b.
    out: channels of c.
    temporal_kernel: Tk of a.
    stride: of H and W, carried by b of the first block.
  """

  blocks: int
  inner: int
  out: int
  temporal_kernel: int = 1
  stride: int = 2


@dataclasses.dataclass(frozen=True)
class PathwaySpec:
  """A stem (s1) and the stages after it (s2, s3 ...)."""

  stem: StemSpec
  stages: tuple[StageSpec, ...]

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels after s1, s2 ..."""
    return (self.stem.features, *(stage.out for stage in self.stages))


@dataclasses.dataclass(frozen=True)
class BackboneSpec:
  """A video encoder.

  Attributes:
    num_frames: T of the clips it was designed for.
    slow: the only pathway, or the slow one of two.
    fast: the fast pathway, or None.
    alpha: frames of the fast pathway per frame of the slow one.
    fusion_kernel: temporal kernel of the fast-to-slow convolutions.
  """

  num_frames: int
  slow: PathwaySpec
  fast: PathwaySpec | None = None
  alpha: int = 1
  fusion_kernel: int = 0

  @property
  def pathways(self) -> dict[str, PathwaySpec]:
    return {SLOW: self.slow} | ({FAST: self.fast} if self.fast else {})

  @property
  def stage_names(self) -> tuple[str, ...]:
    """ "s1", "s2" ... in order."""
    return tuple(f"s{i + 1}" for i in range(len(self.slow.widths)))

  @property
  def stage_widths(self) -> dict[str, dict[str, int]]:
    """Channels by stage and pathway, before any fusion."""
    return {
      stage: {name: path.widths[i] for name, path in self.pathways.items()}
      for i, stage in enumerate(self.stage_names)
    }

  @property
  def feature_dim(self) -> int:
    """Channels of the pooled feature, slow first."""
    return sum(path.widths[-1] for path in self.pathways.values())


def _slow_pathway(blocks: tuple[int, int, int, int]) -> PathwaySpec:
  return PathwaySpec(
    stem=StemSpec(features=64, kernel=(1, 7, 7)),
    stages=(
      StageSpec(blocks[0], inner=64, out=256, stride=1),
      StageSpec(blocks[1], inner=128, out=512),
      StageSpec(blocks[2], inner=256, out=1024, temporal_kernel=3),
      StageSpec(blocks[3], inner=512, out=2048, temporal_kernel=3),
    ),
  )


def _fast_pathway(blocks: tuple[int, int, int, int]) -> PathwaySpec:
  return PathwaySpec(
    stem=StemSpec(features=8, kernel=(5, 7, 7)),
    stages=(
      StageSpec(blocks[0], inner=8, out=32, temporal_kernel=3, stride=1),
      StageSpec(blocks[1], inner=16, out=64, temporal_kernel=3),
      StageSpec(blocks[2], inner=32, out=128, temporal_kernel=3),
      StageSpec(blocks[3], inner=64, out=256, temporal_kernel=3),
    ),
  )


_R50 = (3, 4, 6, 3)
_R101 = (3, 4, 23, 3)

BACKBONES: dict[str, BackboneSpec] = {
  # For two CPU cores and minutes, 56 to 64 pixels; not from the paper.
  "tiny": BackboneSpec(
    num_frames=8,
    slow=PathwaySpec(
      stem=StemSpec(features=16, kernel=(1, 4, 4), stride=4, max_pool=False, differences=True),
      stages=(
        StageSpec(1, inner=16, out=32, temporal_kernel=3),
        StageSpec(1, inner=24, out=64, temporal_kernel=3),
        StageSpec(1, inner=48, out=128, temporal_kernel=3),
      ),
    ),
  ),
  "slow_r50": BackboneSpec(num_frames=8, slow=_slow_pathway(_R50)),
  "slowfast_r50": BackboneSpec(
    num_frames=32, slow=_slow_pathway(_R50), fast=_fast_pathway(_R50), alpha=4, fusion_kernel=7
  ),
  "slowfast_r50_4x16": BackboneSpec(
    num_frames=32, slow=_slow_pathway(_R50), fast=_fast_pathway(_R50), alpha=8, fusion_kernel=5
  ),
  "slowfast_r101": BackboneSpec(
    num_frames=32, slow=_slow_pathway(_R101), fast=_fast_pathway(_R101), alpha=4, fusion_kernel=5
  ),
}
