"""What the blocks of a transformer keep for the backward pass.

A block keeps what products and the kernel of the attention gave, by name, and its
own input. All else is computed again from that: LayerNorms, the activation, layer
scale, dropped paths and sums cost little, and their results are large. In bytes of
a token and channel (D of them), for an MLP of 4 D:

  kept                                             float32    bfloat16
  the block's input                                      4           2
  queries, keys, values, and the attention's result     16           8
  the projection after it                                4           2
  the MLP's input to its activation                     16           8
"""

from __future__ import annotations

from typing import Any

import jax
from jax import ad_checkpoint

from sum_l_jax.models.layers import block_attention

NAME = "kept"


def keep(x: jax.Array) -> jax.Array:
  """The same values, named as ones that the backward pass keeps where it needs them."""
  return ad_checkpoint.checkpoint_name(x, NAME)


def policy(primitive: Any, *_: Any, **params: Any) -> bool:
  """What is kept, for `jax.checkpoint`: what has a name, and what cuDNN's kernel gave.

  The kernel's own sums of exponentials can't be named from outside.
  """
  if primitive.name.startswith("dot_product_attention_fwd"):
    return True
  return _NAMED(primitive, **params)


_NAMED = jax.checkpoint_policies.save_only_these_names(NAME, block_attention.KEPT)
