"""The place of an encoder that ran before training: it hands on what was stored.

Nothing of it is trained and nothing is computed, so that a view whose features were
extracted once costs a probe, heads and a projection.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp

from sum_l_jax.models import draws
from sum_l_jax.models.encoder import Encoding


@dataclasses.dataclass(frozen=True)
class StoredSpec:
  """What was stored of each view of a clip.

  Attributes:
    width: C, channels of a token, and of the pooled feature.
    tokens: N, tokens of a clip; 1 where the pooled feature alone was stored.
    pooled: whether the mean of the tokens is the encoder's pooled feature, which a
      linear head reads. One token is its own mean.
  """

  width: int
  tokens: int
  pooled: bool = True

  def __post_init__(self) -> None:
    for name in ("width", "tokens"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")

  def check_head(self, attends: bool, view: str) -> None:
    """Raises ValueError where a linear head has no pooled feature to read."""
    if not (attends or self.pooled):
      raise ValueError(
        f"The linear head of view {view!r} reads the encoder's pooled feature, which is not the"
        f" mean of the {self.tokens} stored tokens. Extract pooled features, or choose another"
        " model.head, which reads tokens."
      )


class StoredTokens(nnx.Module):
  """An `encoder.Encoder` without parameters.

  Attributes:
    feature_dim: C.
  """

  def __init__(self, spec: StoredSpec):
    self.spec = spec
    self.feature_dim = spec.width

  def __call__(
    self,
    video: jax.Array,
    *,
    train: bool,
    prepare: Callable[[jax.Array], jax.Array],
    key: draws.Key | None = None,
  ) -> Encoding:
    """Hands on what takes the place of videos.

    Args:
      video: tokens `[B, N, C]`.
      train: not used; encoders are called alike.
      prepare: not used, since there are no pixels.
      key: not used, since nothing is dropped.

    Returns:
      Their mean, float32 `[B, C]`, and the tokens as they are.

    Raises:
      ValueError: tokens of another number or width.
    """
    del train, prepare, key
    tokens = video
    if tokens.shape[1:] != (self.spec.tokens, self.spec.width):
      raise ValueError(
        f"tokens must be [B, {self.spec.tokens}, {self.spec.width}], got {list(tokens.shape)}."
      )
    return Encoding(tokens.mean(1, dtype=jnp.float32), {}, tokens)
