"""A run that is asked to stop saves, stops, and goes on to the same end."""

from __future__ import annotations

import os
import signal

import pytest

from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.experiment import loop
from sum_l_jax.system import interrupt
from sum_l_jax.system import processes
from tests.support import runs


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  config.stages = ("exo", "joint")
  return runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)


def _kill_before_batch(monkeypatch, stage, batch, number):
  """Sends this process a signal when a stage takes its n-th batch."""
  stream, started = build.Trainer.stream, []
  prefetch = loop.devices.prefetch_to_device

  def spy_stream(trainer, **options):
    started.append(trainer.stage)
    return stream(trainer, **options)

  def spy_prefetch(*args):
    for count, item in enumerate(prefetch(*args)):
      if (started[-1], count) == (stage, batch):
        os.kill(os.getpid(), number)
      yield item

  monkeypatch.setattr(build.Trainer, "stream", spy_stream)
  monkeypatch.setattr(loop.devices, "prefetch_to_device", spy_prefetch)


@pytest.mark.parametrize(
  "stage, batch, number",
  [("exo", 0, signal.SIGTERM), ("joint", 3, signal.SIGINT), ("joint", 5, signal.SIGTERM)],
)
def test_saves_and_goes_on(stage, batch, number, config, finished, tmp_path, monkeypatch):
  before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  with monkeypatch.context() as patch:
    _kill_before_batch(patch, stage, batch, number)
    with pytest.raises(processes.StoppedError, match=f"step {batch + 1} of 6"):
      main.run(config, tmp_path)
  assert not (tmp_path / "result.json").exists()
  saved = weight_files.find_checkpoint(tmp_path / stage).name
  assert saved == str(batch + 1)
  assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
  assert main.run(config, tmp_path) == finished[1]
  for name in ("exo", "joint"):
    runs.assert_same_weights(tmp_path / name, finished[0] / name)


def test_a_second_interrupt_stops_at_once():
  with interrupt.StopRequest() as request:
    assert not request.arrived()
    os.kill(os.getpid(), signal.SIGTERM)
    assert request.arrived()
    # A preempted machine may ask twice; only an impatient user is obeyed.
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)


def test_an_evaluation_stops_at_its_next_batch():
  with interrupt.StopRequest():
    batches = interrupt.stoppable(range(9))
    assert [next(batches), next(batches)] == [0, 1]
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(processes.StoppedError, match="while evaluating"):
      next(batches)
  # Nobody has asked for signals to be noted: they do what they always do.
  assert list(interrupt.stoppable(range(3))) == [0, 1, 2]


def test_an_evaluation_of_several_processes_asks_before_each_batch(monkeypatch):
  asked = []
  monkeypatch.setattr(interrupt.jax, "process_count", lambda: 2)
  monkeypatch.setattr(
    interrupt.multihost_utils,
    "reached_preemption_sync_point",
    lambda number: asked.append(number) or len(asked) == 3,
  )
  batches = interrupt.stoppable(range(9))
  assert [next(batches), next(batches)] == [0, 1]
  with pytest.raises(processes.StoppedError, match="The same command goes on"):
    next(batches)
  assert asked == list(range(asked[0], asked[0] + 3))
