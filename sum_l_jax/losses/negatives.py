"""What an anchor is contrasted with, and what it must not be.

In a batch, clips that show the same thing happen to be each other's negatives
and are pushed apart. With narrations at hand such false negatives can be told
by the cosine of their sentence vectors.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Logits are similarities divided by a temperature of 0.06, so the bfloat16
# products that TPUs use by default would be wrong in the second digit.
PRECISION = jax.lax.Precision.HIGHEST

# Of float32 cosines: equal narrations must count as equal at cosine=1.
_ROUNDING = 1e-5


def cosines(a: jax.Array, b: jax.Array) -> jax.Array:
  """`[n, m]` inner products of unit vectors `[n, D]` and `[m, D]`."""
  return jnp.einsum("nd,md->nm", a, b, precision=PRECISION)


def duplicates(anchor_text: jax.Array, key_text: jax.Array, *, cosine: float) -> jax.Array:
  """Which keys say the same as an anchor, by their narrations.

  Args:
    anchor_text: `[n, D]` unit narration vectors.
    key_text: `[m, D]` unit narration vectors of the clips it is compared with.
    cosine: in (0, 1]; from it on (within rounding, 1e-5) two narrations say
      the same. 1 means equal narrations.

  Returns:
    `[n, m]` bool.

  References:
    Chuang et al., Debiased Contrastive Learning, NeurIPS 2020,
    https://arxiv.org/abs/2007.00224: what same-class negatives cost, corrected
    in expectation, for want of labels.
    Huynh et al., Boosting Contrastive Self-Supervised Learning with False
    Negative Cancellation, WACV 2022, https://arxiv.org/abs/2011.11765:
    similar samples are left out of the negatives ("elimination").
    Zolfaghari et al., CrossCLR, ICCV 2021, https://arxiv.org/abs/2109.14910:
    the same for video and text, by the similarity of the input embeddings.

  >>> d = jnp.array([[1.0, 0.0], [0.8, 0.6], [1.0, 0.0]])
  >>> duplicates(d[:2], d, cosine=1.0).tolist()
  [[True, False, True], [False, True, False]]
  >>> duplicates(d[:2], d, cosine=0.7).tolist()
  [[True, True, True], [True, True, True]]
  """
  return cosines(anchor_text, key_text) >= cosine - _ROUNDING


def check_mask_duplicates(value: float) -> None:
  """Raises ValueError unless it is 0 (off) or a cosine in (0, 1]."""
  if not 0 <= value <= 1:
    raise ValueError(
      "mask_duplicates must be 0 (off) or a cosine in (0, 1] from which a"
      " narration counts as the anchor's own, such as 0.99, got"
      f" {value}."
    )


def check_narrations(
  anchor_text: jax.Array | None, positive_text: jax.Array | None, batch: int
) -> None:
  """Raises ValueError unless both are there, one vector a row."""
  given = (anchor_text, positive_text)
  if any(text is None for text in given):
    missing = [name for name, text in zip(("anchor_text", "positive_text"), given) if text is None]
    raise ValueError(
      "Comparing narrations needs the vectors of both sides, but"
      f" {' and '.join(missing)} is missing. Give them, or set"
      " mask_duplicates to 0."
    )
  if anchor_text.ndim != 2 or anchor_text.shape != positive_text.shape or len(anchor_text) != batch:
    raise ValueError(
      f"anchor_text and positive_text must have one shape [B, E] with B ="
      f" {batch}, got {list(anchor_text.shape)} and"
      f" {list(positive_text.shape)}."
    )


def log_sum_exp(logits: jax.Array, allowed: jax.Array, rows: jax.Array) -> jax.Array:
  """Logarithm of the sum over the allowed columns of exp(logits).

  Args:
    logits: `[n, m]`.
    allowed: `[n, m]` bool, with at least one column in each of `rows`.
    rows: `[n]` bool; the others give 0, without gradient.

  Returns:
    `[n]`.
  """
  logits = jnp.where(allowed, logits, -jnp.inf)
  # The gradient of the logsumexp of a row of -inf is NaN. The `where` below
  # would stop it, but jax_debug_nans would not let it get that far; hence
  # finite logits in the rows that do not count.
  logits = jnp.where(rows[:, None], logits, 0.0)
  return jnp.where(rows, jax.nn.logsumexp(logits, axis=1), 0.0)
