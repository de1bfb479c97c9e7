"""What an encoder is: its options, its members, and how one is built."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NamedTuple
from typing import Protocol

import jax
import numpy as np

from sum_l_jax.models import draws


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
  """How an encoder computes, where a run decides it.

  An encoder may ignore what it has no use for.

  Attributes:
    conv: backend whose ways of computing convolutions, normalisation and
      pooling are used: "cpu", "gpu", "tpu", "native" (none of them), or "auto",
      the backend of this process. See `models/layers/convolution.py`.
    dtype: type of the activations. Parameters, statistics, the pooled feature
      and what follows it are always float32.
    bn_group_size: number of examples that share batch statistics; 0 is the
      whole batch.
    remat: what the backward pass computes again, to save memory: "none",
      "blocks" (each block of every stage after the first), or stages by name,
      such as "s1,s2", whose activations are the largest. All stages cost a
      third more arithmetic and save most of the memory.
    pool_window: side of the windows that evaluation averages instead of the
      whole map; 0 is the whole map. With windows the feature is `[B, P, C]` and
      the logits are `[B, P, K]`, P positions, whose scores are averaged.
    attention: way of computing attention, of `models/layers/attention.py`; "auto"
      is the best one of `backend`.
    drop_path: share of the residual branches that training drops in the last
      block, or in each one (see `VitSpec.constant_drop_path`).
    lora_rank: rank of the low-rank updates of attention and MLP; 0 is none.
    lora_alpha: their scale is lora_alpha / lora_rank.
    frozen: number of layers at the start, blocks or stages, that are not trained,
      nor is what precedes them: they get no gradient, drop nothing, and keep
      their running statistics.
    pack_clips: most clips that thin stages compute side by side in
      training on a TPU: a divisor of the batch, or 0, which chooses as many as
      divide the clips of a chip, up to 8.
  """

  conv: str = "auto"
  dtype: Any = np.float32
  bn_group_size: int = 0
  remat: str = "none"
  pool_window: int = 0
  pack_clips: int = 0
  attention: str = "auto"
  drop_path: float = 0.0
  lora_rank: int = 0
  lora_alpha: float = 16.0
  frozen: int = 0

  @property
  def backend(self) -> str:
    """The backend that is computed on: that of `conv`, or else of this process."""
    return self.conv if self.conv in ("cpu", "gpu", "tpu") else jax.default_backend()

  def remat_stages(self, stage_names: Sequence[str]) -> tuple[str, ...]:
    """Those of an encoder's stages that `remat` names.

    Raises:
      ValueError: `remat` names a stage that the encoder does not have.
    """
    if self.remat == "blocks":
      return tuple(stage_names[1:])
    if self.remat == "none":
      return ()
    names = tuple(name.strip() for name in self.remat.split(","))
    if set(names) - set(stage_names):
      stages = f" or some of {tuple(stage_names)}, separated by commas" if stage_names else ""
      raise ValueError(f"remat must be 'none', 'blocks'{stages}; got {self.remat!r}.")
    return names


class Encoding(NamedTuple):
  """What an encoder gives for a batch of clips.

  Attributes:
    feature: the pooled feature `[B, C]`, float32; `[B, P, C]` with windows.
    stages: activations of the stages by name and pathway, `[B, T', H', W', C']`
      each; {} if there are none to show.
    tokens: what a head that attends reads, `[B, N, C]`, time first; None where
      there are none.
  """

  feature: jax.Array
  stages: Mapping[str, Mapping[str, jax.Array]] = {}
  tokens: jax.Array | None = None


class Encoder(Protocol):
  """What a registered encoder is: an `nnx.Module` with these members.

  Its variables are `nnx.Param`, float32, and `nnx.BatchStat` (running
  statistics); training knows no others.

  Attributes:
    feature_dim: C, the width of the pooled feature.
  """

  feature_dim: int

  def __call__(
    self,
    video: jax.Array,
    *,
    train: bool,
    prepare: Callable[[jax.Array], jax.Array],
    key: draws.Key | None = None,
  ) -> Encoding:
    """Encodes clips.

    Args:
      video: uint8 `[B, T, H, W, 3]`.
      train: whether batch statistics are used, which moves the running ones.
      prepare: normalises frames, `[B, T', H, W, 3]` to float32. An encoder
        that leaves frames out calls it after choosing: bytes are cheaper.
      key: random key of what it drops, which it draws by `models.draws`; None
        where nothing is.

    Returns:
      The feature, and what else there is of it.
    """
    ...


EncoderFactory = Callable[[EncoderOptions, np.random.Generator], Encoder]
