"""A stage of a config file, in a loop of your own around the library's step.

  python examples/own_training.py configs/demo.py exo 100

The data of the config must be there: `python -m sum_l_jax.main` with the demo's
config makes those of the demo.
"""

from __future__ import annotations

import itertools
import sys

import sum_l_jax
from sum_l_jax import build
from sum_l_jax.system import devices
from sum_l_jax.train import metrics


def train(config: str, stage: str, steps: int) -> list[dict[str, float]]:
  """Trains from the start; returns the losses and accuracies of every step."""
  settings = build.read_settings(config)
  trainer = sum_l_jax.Trainer.open(settings, stage, devices.make_mesh())
  state = trainer.initial_state()
  taken = []
  with trainer.stream(start_step=0) as stream:
    for batch in itertools.islice(devices.prefetch_to_device(stream, trainer.mesh), steps):
      state, sums = trainer.step(state, batch)
      taken.append(sums)
  return [metrics.compute([sums]) for sums in taken]


if __name__ == "__main__":
  for number, values in enumerate(train(sys.argv[1], sys.argv[2], int(sys.argv[3]))):
    print(number, " ".join(f"{name} {value:.3f}" for name, value in values.items()))
