"""Reading that is disturbed: processes die, reads hang, shards disappear."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import grain
import pytest

from sum_l_jax import main
from sum_l_jax.checkpoint import integrity
from sum_l_jax.config import read
from sum_l_jax.data import reading
from sum_l_jax.data import records
from sum_l_jax.data import shards
from sum_l_jax.experiment import loop
from sum_l_jax.system import processes
from tests.support import runs
from tests.support import streams


def _settings(tiny_ego, **more):
  return {"ego": records.ClipDataset(tiny_ego, "train"), "prefetch": 1} | more


def test_processes_that_die_or_hang_are_started_anew(tiny_ego, monkeypatch, caplog):
  whole = streams.take(10, **_settings(tiny_ego))
  before = set(multiprocessing.active_children())

  def signal_worker(number):
    (worker,) = set(multiprocessing.active_children()) - before
    os.kill(worker.pid, number)
    return worker.pid

  with caplog.at_level("WARNING", logger="absl"):
    with streams.open_stream(**_settings(tiny_ego, num_workers=1, timeout=3.0)) as stream:
      found = list(itertools.islice(stream, 2))
      killed = signal_worker(signal.SIGKILL)
      found += itertools.islice(stream, 4)
      signal_worker(signal.SIGSTOP)
      found += itertools.islice(stream, 4)
  for one, other in zip(found, whole, strict=True):
    streams.assert_equal(one, other)
  died, hung = [r.getMessage() for r in caplog.records if "started again" in r.getMessage()]
  assert f"reading process {killed} ended with SIGKILL" in died
  assert "no batch came for 3 s" in hung
  assert set(multiprocessing.active_children()) == before


def test_processes_that_die_again_and_again_end_the_run():
  starts = []

  class Dead:
    """Behaves as Grain's iterator whose process died."""

    def __init__(self, first):
      starts.append(first)

    def __next__(self):
      raise RuntimeError("Worker process was terminated unexpectedly with exit code -9.")

    def close(self):
      pass

  stream = reading.Reading(Dead, first=7, num_workers=1, timeout=9.0)
  with pytest.raises(processes.StalledError) as error:
    next(stream)
  assert starts == [7, 7, 7, 7]
  text = str(error.value)
  for words in (
    "Reading batch 7",
    "exit code -9",
    "3 times before",
    "config.input.num_workers",
    "The same command goes on",
  ):
    assert words in text
  stream.close()


def test_an_error_of_the_data_passes():
  def fail(number):
    raise RuntimeError(f"number {number}")

  stream = reading.Reading(
    lambda first: iter(
      grain.MapDataset.range(9).map(fail)[first:].to_iter_dataset(grain.ReadOptions(1, 1))
    ),
    first=2,
    num_workers=0,
    timeout=9.0,
  )
  with pytest.raises(RuntimeError, match="number 2"):
    next(stream)
  stream.close()


def test_a_read_that_hangs_in_a_thread_ends_the_run():
  answer = threading.Event()

  def read(number):
    if number >= 2:
      answer.wait()
    return number

  stream = reading.Reading(
    lambda first: iter(
      grain.MapDataset.range(9).map(read)[first:].to_iter_dataset(grain.ReadOptions(1, 1))
    ),
    first=0,
    num_workers=0,
    timeout=1.0,
  )
  try:
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(processes.StalledError) as error:
      next(stream)
    text = str(error.value)
    for words in (
      "Reading batch 2: no batch came for 1 s.",
      "disk",
      "config.input.timeout_seconds",
      "The same command goes on",
    ):
      assert words in text
    stream.close()
  finally:
    answer.set()


_HANGS = """
import threading
from absl import flags
from sum_l_jax import main
from sum_l_jax.system import processes
flags.FLAGS.mark_as_parsed()
# A read that never returns, as Grain's: the interpreter would wait for it.
threading.Thread(target=threading.Event().wait).start()
def stall():
  raise processes.StalledError("Reading batch 3: no batch came")
main._connect = stall
main.main(["main"])
"""


def test_a_process_whose_reads_hang_ends():
  done = subprocess.run(
    [sys.executable, "-c", _HANGS],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 2
  assert done.stderr.endswith("error: Reading batch 3: no batch came\n")


_FIRST_READS = """
import sys
import threading
from sum_l_jax.data import records
datasets = [records.ClipDataset(sys.argv[1], "train") for _ in range(8)]
sys.setswitchinterval(1e-5)
start = threading.Barrier(len(datasets))
read = []
def work(dataset):
  start.wait()
  read.append(len(dataset.read_frames(0, [0, 1])))
threads = [threading.Thread(target=work, args=(dataset,), daemon=True)
           for dataset in datasets]
for thread in threads:
  thread.start()
for thread in threads:
  thread.join()
print(read)
"""


def test_threads_that_read_first_do_not_wait_for_each_other(tiny_ego):
  """They import TFDS at the same time, which locks each other out at times."""
  done = subprocess.run(
    [sys.executable, "-c", _FIRST_READS, str(tiny_ego)],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.stdout == f"{[2] * 8}\n", done.stderr


@pytest.mark.parametrize(
  "damage, words",
  [
    (lambda path: path.unlink(), "is gone"),
    (lambda path: os.truncate(path, 0), "has 0 bytes now"),
    (lambda path: os.truncate(path, path.stat().st_size // 2), "bytes now"),
  ],
  ids=["deleted", "emptied", "cut short"],
)
def test_a_shard_that_is_lost_is_named(damage, words, tiny_ego, tmp_path):
  folder = shutil.copytree(tiny_ego, tmp_path / "ego")
  (shard,) = folder.glob("*train.array_record*")
  size = shard.stat().st_size
  with streams.open_stream(**_settings(folder)) as stream:
    damage(shard)
    with pytest.raises(shards.LostShardError) as error:
      list(itertools.islice(stream, 9))
  text = str(error.value)
  assert str(shard) in text and words in text and f"{size} bytes" in text
  assert "Put it back" in text and "the same command then goes on" in text


def test_a_run_that_lost_a_shard_goes_on(
  tiny_ego, tiny_exo, tiny_tables, finished, tmp_path, monkeypatch
):
  ego = shutil.copytree(tiny_ego, tmp_path / "ego")
  config = read.default_config()
  config.stages = ("exo", "joint")
  runs.small(config, ego=ego, exo=tiny_exo, tables=tiny_tables)
  config.input.prefetch = config.input.num_threads = 1
  (shard,) = ego.glob("*train.array_record*")
  whole = shard.read_bytes()
  prefetch = loop.devices.prefetch_to_device

  def lose_it(*args):
    for number, batch in enumerate(prefetch(*args)):
      if number == 1 and "ego" in batch:
        os.truncate(shard, 0)
      yield batch

  with monkeypatch.context() as patch:
    patch.setattr(loop.devices, "prefetch_to_device", lose_it)
    with pytest.raises(ValueError, match=f"{shard.name} has 0 bytes now"):
      main.run(config, tmp_path / "run")
  # What was learnt until then is saved, though no checkpoint was due.
  (saved,) = integrity.steps(tmp_path / "run" / "joint" / "checkpoints")
  assert 2 <= saved <= 5
  shard.write_bytes(whole)
  assert main.run(config, tmp_path / "run") == finished[1]
  for name in ("exo", "joint"):
    runs.assert_same_weights(tmp_path / "run" / name, finished[0] / name)
