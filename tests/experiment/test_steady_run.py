"""After its first steps a run neither compiles nor opens anything new."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import time

import jax
import pytest

from sum_l_jax import main
from sum_l_jax.config import read
from sum_l_jax.experiment import loop
from tests.support import runs

_STEPS = 40
_EVERY = 5
# Before that each kind of work was done twice: steps, saves, evaluations.
_WARM = 15


def _open_files() -> set[str]:
  """What is open, by number and name; a name that is used again has another number."""
  found = set()
  for number in os.listdir("/proc/self/fd"):
    with contextlib.suppress(FileNotFoundError):  # The listing itself was one.
      found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
  return found


def _threads() -> set[str]:
  return set(os.listdir("/proc/self/task"))


def _settle(folder) -> None:
  """Waits until the save that is under way is done, and has tidied up.

  Its thread closes an event loop, of three files, after the folder has its
  name: the files that are open must stay the same for half a second.
  """
  until = time.monotonic() + 60
  while list(folder.glob("*tmp*")) and time.monotonic() < until:
    time.sleep(0.05)
  same, before = 0, set()
  while same < 10 and time.monotonic() < until:
    gc.collect()
    now = _open_files()
    same, before = (same + 1 if now == before else 0), now
    time.sleep(0.05)


@pytest.fixture(name="samples", scope="module")
def samples_fixture(tiny_ego, tiny_exo, tiny_tables, tmp_path_factory):
  """What there is before some steps, of a run with saves and evaluations."""
  workdir = tmp_path_factory.mktemp("steady")
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.joint_stage.total = f"{_STEPS} steps"
  config.checkpoint.every = config.eval.every = f"{_EVERY} steps"
  config.log_every_steps = 2
  compiled, samples = [], {}
  # What other tests of this process have left is theirs, and may go at any moment.
  others = _open_files(), _threads()
  names = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/backend_compile_duration")

  def listen(event, seconds, **more):
    del seconds, more
    if event in names:
      compiled.append(event)

  prefetch = loop.devices.prefetch_to_device

  def spy(*args):
    for number, batch in enumerate(prefetch(*args)):
      if "ego" in batch and number % _EVERY == _EVERY - 1:
        _settle(workdir / "joint" / "checkpoints")
        samples[number] = {
          "compiled": len(compiled),
          "files": len(_open_files() - others[0]),
          "threads": len(_threads() - others[1]),
          "processes": len(multiprocessing.active_children()),
        }
      yield batch

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(loop.devices, "prefetch_to_device", spy)
      main.run(config, workdir)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  return samples


def test_nothing_is_compiled_after_the_first_steps(samples):
  counts = {n: sample["compiled"] for n, sample in samples.items()}
  assert min(counts.values()) > 0  # The names are those of this version.
  late = {count for number, count in counts.items() if number >= _WARM - 1}
  assert len(late) == 1, counts


def test_nothing_stays_open(samples):
  late = [s for number, s in samples.items() if number >= _WARM - 1]
  assert {s["files"] for s in late} == {late[0]["files"]}, samples
  assert {s["processes"] for s in late} == {0}, samples
  # Pools start threads until they have all of theirs. One left behind by each
  # save or evaluation would make as many as there were.
  rounds = len(late) - 1
  assert late[-1]["threads"] - late[0]["threads"] < rounds, samples
