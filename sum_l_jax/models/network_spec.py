"""The stage tables of the networks of this library, as data.

Sources of the stage tables: SlowFast Networks (Feichtenhofer et al., ICCV
2019), Table 1, and its published configurations. "R3D-50" in the SUM-L paper is
the slow pathway alone, 8 frames at stride 8. "8x8" counts the slow pathway: 8
frames, stride 8.
"""

from __future__ import annotations

import dataclasses

from sum_l_jax.models.layer_order import LayerOrder

SLOW = "slow"
FAST = "fast"


@dataclasses.dataclass(frozen=True)
class StemSpec:
  """The first convolution.

  Attributes:
    features: number of channels that it gives.
    kernel: size [Tk, Hk, Wk].
    stride: stride in H and W.
    max_pool: whether a [1, 3, 3] max-pool of stride 2 follows.
    differences: whether it sees the differences to the neighbouring frames
      beside each frame (9 channels instead of 3).
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
    blocks: number of blocks.
    inner: channels of a and b.
    out: channels of c.
    temporal_kernel: Tk of a.
    stride: stride in H and W, which b of the first block has.
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
class NetworkSpec:
  """A network of one or two pathways.

  Attributes:
    slow: the only pathway, or the slow one of two.
    fast: the fast pathway, or None.
    alpha: frames of the fast pathway per frame of the slow one.
    fusion_kernel: temporal kernel of the fast-to-slow convolutions.
    fusion_norm: whether BatchNorm and ReLU follow these convolutions, as in
      PySlowFast. mmaction2 has neither.
    regular_frames: whether the slow pathway sees every alpha-th frame from the
      first (mmaction2), instead of frames spread from the first to the last.
  """

  slow: PathwaySpec
  fast: PathwaySpec | None = None
  alpha: int = 1
  fusion_kernel: int = 0
  fusion_norm: bool = True
  regular_frames: bool = False

  @property
  def pathways(self) -> dict[str, PathwaySpec]:
    """The pathways by name, slow first."""
    return {SLOW: self.slow} | ({FAST: self.fast} if self.fast else {})

  @property
  def stage_names(self) -> tuple[str, ...]:
    """The stages in order: "s1", "s2" ..."""
    return tuple(f"s{i + 1}" for i in range(len(self.slow.widths)))

  @property
  def order(self) -> LayerOrder:
    """The stages as layers; a lateral connection belongs to the stage that it follows."""
    numbers = {name: number for number, name in enumerate(self.stage_names, 1)}
    places = {
      f"{pathway}/{'stem' if name == 's1' else name}": number
      for pathway in self.pathways
      for name, number in numbers.items()
    }
    fusions = {f"fusion/{i}": i + 1 for i in range(len(numbers) - 1)} if self.fast else {}
    return LayerOrder(len(numbers), {**places, **fusions})

  @property
  def feature_dim(self) -> int:
    """Channels of the pooled feature, slow first."""
    return sum(path.widths[-1] for path in self.pathways.values())


_Blocks = tuple[int, int, int, int]


def _pathway(
  blocks: _Blocks, *, width: int, stem: tuple[int, int, int], temporal: _Blocks
) -> PathwaySpec:
  """A pathway of the paper's Table 1: each stage has twice the channels of the one before.

  Args:
    blocks: number of blocks of s2, s3, s4, s5.
    width: channels of the stem.
    stem: kernel of the stem.
    temporal: temporal kernels of s2, s3, s4, s5.
  """
  stages = tuple(
    StageSpec(
      count, inner=width << i, out=4 * width << i, temporal_kernel=size, stride=min(1 + i, 2)
    )
    for i, (count, size) in enumerate(zip(blocks, temporal))
  )
  return PathwaySpec(StemSpec(width, stem), stages)


def _slow_pathway(blocks: _Blocks) -> PathwaySpec:
  return _pathway(blocks, width=64, stem=(1, 7, 7), temporal=(1, 1, 3, 3))


# For two CPU cores and minutes, 56 to 64 pixels; not from the paper.
_TINY = PathwaySpec(
  stem=StemSpec(features=16, kernel=(1, 4, 4), stride=4, max_pool=False, differences=True),
  stages=(
    StageSpec(1, inner=16, out=32, temporal_kernel=3),
    StageSpec(1, inner=24, out=64, temporal_kernel=3),
    StageSpec(1, inner=48, out=128, temporal_kernel=3),
  ),
)
_R50 = (3, 4, 6, 3)
_R101 = (3, 4, 23, 3)


def _slowfast(blocks: _Blocks, *, alpha: int, fusion_kernel: int) -> NetworkSpec:
  fast = _pathway(blocks, width=8, stem=(5, 7, 7), temporal=(3, 3, 3, 3))
  return NetworkSpec(_slow_pathway(blocks), fast, alpha, fusion_kernel)


TINY = NetworkSpec(_TINY)
SLOW_R50 = NetworkSpec(_slow_pathway(_R50))
SLOWFAST_R50 = _slowfast(_R50, alpha=4, fusion_kernel=7)
SLOWFAST_R50_4X16 = _slowfast(_R50, alpha=8, fusion_kernel=5)
SLOWFAST_R101 = _slowfast(_R101, alpha=4, fusion_kernel=5)


def _of_mmaction2(spec: NetworkSpec) -> NetworkSpec:
  """The same network as mmaction2 builds it."""
  return dataclasses.replace(spec, fusion_norm=False, regular_frames=True)


MMACTION2_SLOWFAST_R50 = _of_mmaction2(SLOWFAST_R50)
MMACTION2_SLOWFAST_R50_4X16 = _of_mmaction2(SLOWFAST_R50_4X16)
# Its configuration takes over the kernel of R50.
MMACTION2_SLOWFAST_R101 = _of_mmaction2(_slowfast(_R101, alpha=4, fusion_kernel=7))
