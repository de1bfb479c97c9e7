"""The layers of an encoder in order, and which parameters belong to each."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class LayerOrder:
  """Which layer each parameter of an encoder belongs to, by its path.

  Layers are the blocks of a transformer or the stages of a convolutional
  network, from 1 to `count`. What stands before the first is layer 0, what
  follows the last is layer `count + 1`. Freezing the first layers, and learning
  rates that fall from layer to layer, go by these numbers.

  Attributes:
    count: L, the number of layers.
    places: layer of what lies at or below a path in the encoder's tree, such as
      "slow/s2". A path that isn't named is of layer L + 1.
    stacks: layer of the first block at a path whose parameters have a first
      axis that counts blocks.
  """

  count: int
  places: Mapping[str, int] = dataclasses.field(default_factory=dict)
  stacks: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def layer(self, path: str, shape: Sequence[int]) -> int | np.ndarray:
    """Finds the layer of a parameter.

    Args:
      path: its place in the encoder's tree, "blocks/block/norm1/scale".
      shape: its shape.

    Returns:
      The number of its layer, or int `[L', 1, ...]` for L' blocks in one array.
    """
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
      prefix = "/".join(parts[:length])
      if prefix in self.places:
        return self.places[prefix]
      if prefix in self.stacks:
        numbers = self.stacks[prefix] + np.arange(shape[0])
        return numbers.reshape(-1, *[1] * (len(shape) - 1))
    return self.count + 1
