"""`sum_l_jax.main` that sends itself a SIGTERM; for tests of several processes.

The environment variable SIGTERM_AT, "exo:2", names the batch before which it
does; "final:1" is one of the final evaluation. From there on every batch takes
seconds, since the processes need some to agree on where to stop.
"""

from __future__ import annotations

import os
import signal
import time

from absl import app

from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.experiment import final
from sum_l_jax.experiment import loop
from sum_l_jax.system import devices

_SECONDS = 2.0


def slow_down() -> None:
  """Replaces the loop's batches by late ones."""
  wanted = os.environ.get("SIGTERM_AT", "")
  me = os.environ.get("SIGTERM_TO") == "me"
  stream, prefetch = build.Trainer.stream, devices.prefetch_to_device
  started, late = [], []

  def spy_stream(trainer, *, start_step):
    started.append((trainer.stage, start_step))
    return stream(trainer, start_step=start_step)

  def spy_prefetch(*args):
    for step, item in enumerate(prefetch(*args), started[-1][1]):
      if late:
        time.sleep(_SECONDS)
      if f"{started[-1][0]}:{step}" == wanted:
        late.append(step)
        if me:
          os.kill(os.getpid(), signal.SIGTERM)
      yield item

  def spy_final(*args, **options):
    started.append(("final", 0))
    # Evaluations while training take their batches here too.
    evaluators.devices = slow
    return evaluate(*args, **options)

  slow = type("devices", (), {"prefetch_to_device": spy_prefetch})
  evaluate, final.evaluate_checkpoint = final.evaluate_checkpoint, spy_final
  build.Trainer.stream = spy_stream
  loop.devices = slow


if __name__ == "__main__":
  slow_down()
  app.run(main.main, flags_parser=main._parse)
