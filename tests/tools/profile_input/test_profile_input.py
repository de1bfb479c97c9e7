"""The profile of the input: its numbers add up, its bound holds, its advice."""

from __future__ import annotations

import copy
import json
import re
import threading
import time

import jax
import numpy as np
import pytest

from sum_l_jax.config import read
from sum_l_jax.data import batches
from sum_l_jax.data import examples
from sum_l_jax.data import input_options
from sum_l_jax.data import loader
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.system import devices
from sum_l_jax.tools.profile_input import advice
from sum_l_jax.tools.profile_input import parts
from sum_l_jax.tools.profile_input.__main__ import main
from tests.support import runs


@pytest.fixture(name="config_file")
def config_file_fixture(tiny_ego, tiny_exo, tiny_tables, tmp_path):
  return runs.write_config(tmp_path / "tiny.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)


def stream_of(folder, options=input_options.DEFAULTS):
  transform = transforms.ClipTransform(num_frames=8, stride=1, crop_size=32, short_side=(32, 40))
  views = {"ego": examples.ViewClips([records.ClipDataset(folder, "train")], transform)}
  return loader.TrainStream(views, batch_size=4, seed=0, options=options)


def test_each_part_gets_its_own_time(tiny_ego, monkeypatch):
  """Sleeps of known length inside a part are found there and nowhere else."""
  naps = {"read": 0.02, "decode": 0.03, "crop": 0.04}
  decode = examples.decode.decode_jpeg
  counts = {"frames": 0, "clips": 0}

  def slow_decode(data):
    counts["frames"] += 1
    time.sleep(naps["decode"] / 8)
    return decode(data)

  train = transforms.ClipTransform.train

  def slow_train(self, frames, rng):
    counts["clips"] += 1
    time.sleep(naps["crop"])
    return train(self, frames, rng)

  read = records.ClipDataset.read_frames

  def slow_read(self, index, frames):
    time.sleep(naps["read"])
    return read(self, index, frames)

  with stream_of(tiny_ego) as stream:
    monkeypatch.setattr(examples.decode, "decode_jpeg", slow_decode)
    monkeypatch.setattr(transforms.ClipTransform, "train", slow_train)
    monkeypatch.setattr(records.ClipDataset, "read_frames", slow_read)
    costs, batch = parts.part_costs(
      stream.maker, devices.make_mesh(1), seconds=0.01, first_step=1000
    )
  # Two batches of four: one to warm up. Short clips have fewer frames than 8.
  assert counts["clips"] == 8
  decoded = counts["frames"] / 8 * naps["decode"] / 8
  assert costs["read record"].wall >= naps["read"]
  assert costs["decode frames"].wall >= 0.5 * decoded
  assert costs["crop and resize"].wall >= naps["crop"]
  # Asleep: no processor time, and of nobody else's account.
  for name in ("read record", "crop and resize"):
    assert costs[name].processor < costs[name].wall
  assert costs["make batch"].wall < naps["read"]
  assert batch["ego"]["video"].shape == (4, 8, 32, 32, 3)
  assert set(batch) == {"ego"}


def test_timing_changes_no_batch(tiny_ego):
  with stream_of(tiny_ego) as stream:
    expected = next(stream)
    stop = next(stream)
    _, batch = parts.part_costs(stream.maker, devices.make_mesh(1), seconds=1e-9, first_step=0)
  jax.tree.map(np.testing.assert_array_equal, batch, stop)
  assert not np.array_equal(batch["ego"]["video"], expected["ego"]["video"])


@pytest.mark.parametrize("num_threads, prefetch", [(1, 1), (2, 3), (8, 2)])
def test_the_bound_of_batches_ahead_holds(tiny_ego, monkeypatch, num_threads, prefetch):
  """Counts what is made while nobody takes anything."""
  made, lock = [], threading.Lock()
  make = batches.BatchMaker.__call__

  def counting(self, step):
    with lock:
      made.append(step)
    return make(self, step)

  monkeypatch.setattr(batches.BatchMaker, "__call__", counting)
  options = input_options.Input(num_threads=num_threads, prefetch=prefetch)
  with stream_of(tiny_ego, options) as stream:
    next(stream)
    bound = 1 + options.batches_ahead
    deadline = time.monotonic() + 20
    while len(made) < bound and time.monotonic() < deadline:
      time.sleep(0.01)
    time.sleep(0.2)
    assert sorted(made) == list(range(bound))


def test_memory_is_counted_by_hand():
  options = input_options.Input(num_threads=3, prefetch=4, cache_bytes=1000)
  memory = parts.memory_bound(100, options, clip_bytes=7, views=2)
  assert memory.batches_on_host == 5  # 4 ready, and the one handed over.
  assert memory.on_device == 300
  assert memory.host == 5 * 100 + 3 * 7 + 2 * 1000
  # Two processes: each 4 ready, 1 that waits, 2 in the queue to this one.
  options = input_options.Input(num_threads=1, num_workers=2, prefetch=4, cache_bytes=1000)
  memory = parts.memory_bound(100, options, clip_bytes=7, views=1)
  assert memory.batches_on_host == 2 * (4 + 1 + 2) + 1
  assert memory.host == 15 * 100 + 2 * 7 + 2 * 1000


def test_command(config_file, capsys):
  status = main(
    [
      f"--config={config_file}",
      "--seconds=0.05",
      "--json",
      "--config.joint_stage.batch_size=6",
      "--config.input.prefetch=3",
    ]
  )
  found = json.loads(capsys.readouterr().out)
  assert status == 0
  assert found["clips_of_a_batch"] == 12 and found["views"] == ["ego", "exo"]
  assert found["frames"]["stored"] == {"ego": [48, 64], "exo": [48, 64]}
  assert [part["name"] for part in found["parts"]] == [
    "read record",
    "decode frames",
    "crop and resize",
    "make batch",
    "host to device",
  ]
  # 6 clips x 8 frames x 32 x 32 x 3 bytes of pixels, a view.
  pixels = 2 * 6 * 8 * 32 * 32 * 3
  assert pixels < found["memory"]["batch"] < 1.1 * pixels
  assert found["memory"]["batches_on_host"] == 4
  assert found["training"] is None and "--step" in found["verdict"]
  stream = found["stream"]
  assert stream["clips_per_second"] == pytest.approx(12 / stream["seconds_per_batch"])


@pytest.mark.slow
def test_command_with_a_step_says_who_waits(config_file, capsys):
  assert main([f"--config={config_file}", "--seconds=0.05", "--step", "--stage=exo"]) == 0
  text = capsys.readouterr().out
  assert text.startswith("stage exo, exo: 4 clips a batch of 8 frames")
  assert "with the train step: " in text and "memory at most: " in text
  assert ("The step waits for the input" in text) != ("The input waits for the step" in text)


_FOUND = {
  "cores": 4,
  "memory_of_machine": 16 * 2**30,
  "clips_of_a_batch": 64,
  "bucket": False,
  "settings": {"num_threads": 4, "num_workers": 0, "prefetch": 4, "cache_mib": 0},
  "frames": {"short_side": [256, 320], "stored": {"ego": (256, 456)}, "decoded_bytes": 2**40},
  "parts": [
    {"name": "read record", "ms": 1.0, "processor_ms": 0.9},
    {"name": "decode frames", "ms": 9.0, "processor_ms": 9.0},
    {"name": "crop and resize", "ms": 3.0, "processor_ms": 3.0},
  ],
  "clips_per_second_and_core": 70.0,
  "stream": {"seconds_per_batch": 0.25},
  "training": {"waiting_share": 0.5, "step_seconds": 0.125, "seconds_per_batch": 0.25},
  "memory": {"host": 2**30, "cache": 0},
}


def _with(**changes):
  found = copy.deepcopy(_FOUND)
  for path, value in changes.items():
    *where, last = path.split("__")
    node = found
    for name in where:
      node = node[name]
    node[last] = value
  return found


@pytest.mark.parametrize(
  "changes, text",
  [
    ({}, "512 clips/s: 8 core.s. at 70 clips/s each, and this machine has 4. Fewer"),
    (
      {"settings__num_threads": 2},
      "2 of 4 cores read: set input.num_threads=4 and input.prefetch=3",
    ),
    ({"settings__prefetch": 1}, "only 2 work.*Set input.prefetch=3"),
    (
      {"frames__stored": {"ego": (1080, 1920)}},
      "stored at 1080 x 1920 .*--short_side=320.* 11.4 times fewer",
    ),
    ({"frames__decoded_bytes": 2**30}, "1.0 GiB: input.cache_mib=1024"),
    ({"memory__host": 9 * 2**30}, "may hold 9.0 GiB of this machine's 16.0"),
    (
      {
        "parts": [
          {"name": "read record", "ms": 90.0, "processor_ms": 1.0},
          {"name": "decode frames", "ms": 9.0, "processor_ms": 9.0},
        ]
      },
      "waits for the disk",
    ),
    (
      {
        "bucket": True,
        "parts": [
          {"name": "read record", "ms": 90.0, "processor_ms": 1.0},
          {"name": "decode frames", "ms": 9.0, "processor_ms": 9.0},
        ],
      },
      "waits for the bucket: set input.shard_cache",
    ),
  ],
)
def test_advice(changes, text):
  found = _with(**changes)
  given = "\n".join(advice.advise(found))
  assert re.search(text, given), given
  assert "50% of the time" in advice.verdict(found)


def test_no_advice_where_nothing_is_to_gain():
  found = _with(training__waiting_share=0.01)
  assert advice.advise(found) == []
  assert "The input waits for the step" in advice.verdict(found)
  # All wait alike: for the processor, not for the disk.
  slow = _with(
    parts=[
      {"name": "read record", "ms": 90.0, "processor_ms": 1.0},
      {"name": "decode frames", "ms": 89.0, "processor_ms": 1.0},
    ]
  )
  assert not any("disk" in a for a in advice.advise(slow))
  busy = _with()
  assert not any(
    "cores read" in a or "stored at" in a or "cache_mib" in a for a in advice.advise(busy)
  )


@pytest.mark.parametrize(
  "arguments, text",
  [
    (["--seconds=0"], "--seconds must be more than 0, got 0.0"),
    (["--config.ego.dataset=nowhere"], "No clip data set in 'nowhere'"),
    (["--config.nothing=1"], "nothing"),
  ],
)
def test_mistakes_are_named(config_file, capsys, arguments, text):
  assert main([f"--config={config_file}", *arguments]) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and text in error


def test_data_that_a_run_would_render(tmp_path, monkeypatch, capsys):
  file = read.find_file("configs/demo.py")
  monkeypatch.chdir(tmp_path)
  assert main([f"--config={file}"]) == 2
  assert "renders its data in its first run" in capsys.readouterr().err


def test_unknown_arguments(config_file, capsys):
  with pytest.raises(SystemExit):
    main([f"--config={config_file}", "--second=1"])
  assert "unrecognized arguments: --second=1" in capsys.readouterr().err
