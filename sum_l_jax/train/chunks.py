"""The contrast of a whole batch where the memory holds the activations of a part.

The encoders run over chunks of the batch in one `lax.scan`, and the loss is that
of all embeddings. Nothing but inputs is kept of a chunk: the backward pass runs
the encoder again. Differentiated as a whole this is gradient caching (Gao et al.,
"Scaling deep contrastive learning batch size under memory limited setup",
RepL4NLP 2021), for a third more arithmetic.

The gradient is that of the batch at once, with the same dropout, as long as no
example sees another one before the loss. Where BatchNorm uses the statistics of
the batch, it does, and such a network is refused.
"""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp

from sum_l_jax import types
from sum_l_jax.models import draws
from sum_l_jax.train import batch_parts
from sum_l_jax.train.batch_parts import Parts
from sum_l_jax.train.state import Applied
from sum_l_jax.train.state import Tree

_REFUSED = (
  "A batch can't be encoded in chunks where BatchNorm uses its statistics, as in {name} ({count} in"
  " all): each chunk would have others. Use an encoder without BatchNorm or a frozen one, set"
  " chunks to 1, or take accumulate with model.bn_group_size, which says whose statistics a clip"
  " has."
)


class Chunked:
  """A network that encodes a batch in chunks.

  Args:
    network: the network.
    count: number of chunks.
    mesh: devices that the batch is split over.
  """

  def __init__(self, network: Applied, count: int, mesh: jax.sharding.Mesh):
    self._network = network
    self._parts = Parts(count, mesh)

  @property
  def shapes(self) -> tuple[Tree, Tree]:
    """See `Network.shapes`."""
    return self._network.shapes

  def apply(
    self,
    params: Tree,
    stats: Tree,
    inputs: types.Batch,
    *,
    train: bool,
    key: draws.Key | None = None,
  ) -> tuple[types.Outputs, Tree]:
    """See `Network.apply`; the activations of stages and the tokens are left out.

    Raises:
      ValueError: the batch can't be cut, or BatchNorm uses its statistics.
    """
    assert not isinstance(key, draws.PartKey)  # Chunks have no chunks.

    def encode(params: Tree, inputs: types.Batch, part: jax.Array) -> types.Outputs:
      part_key = None if key is None else self._parts.key(key, part)
      outputs, moved = self._network.apply(params, stats, inputs, train=train, key=part_key)
      batch_parts.check_kept(stats, moved, _REFUSED)
      return {view: _without_activations(out) for view, out in outputs.items()}

    # Within a scan nothing can be merged with the first run, so that XLA needs
    # no barriers.
    again = jax.checkpoint(
      encode, policy=jax.checkpoint_policies.save_only_these_names("frozen"), prevent_cse=False
    )
    _, outputs = jax.lax.scan(
      lambda _, chunk: (None, again(params, *chunk)),
      None,
      (self._parts.split(inputs), jnp.arange(self._parts.count)),
    )
    return self._parts.join(outputs), stats


def _without_activations(outputs: types.ViewOutputs) -> types.ViewOutputs:
  """The outputs without what would fill the memory where all chunks are put together."""
  kept = {**outputs, "stages": {}}
  kept.pop("tokens", None)
  return cast(types.ViewOutputs, kept)
