"""The writer: numbers always, event files where TensorFlow is installed."""

from __future__ import annotations

import subprocess
import sys

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from sum_l_jax.train import metric_log

_CODE = """
import sys
from sum_l_jax.train import metrics
late = metrics.Writer(sys.argv[1])
other = metrics.Writer(sys.argv[1] + "/other", active=False)
other.write_scalars(1, {"loss": 1.0})
assert not other.shows_pictures
for writer in (metrics.Writer(sys.argv[1]), other):
  writer.close()
assert "tensorflow" not in sys.modules
late.write_scalars(1, {"loss": 1.5})
assert "tensorflow" in sys.modules and late.shows_pictures
late.close()
"""
# As where TensorFlow is not installed.
_WITHOUT = """
import sys
sys.modules["tensorflow"] = None
from absl import logging
import numpy as np
from sum_l_jax.train import metrics
logging.set_verbosity(logging.INFO)
for stage in ("exo", "joint"):
  writer = metrics.Writer(sys.argv[1] + "/" + stage)
  assert not writer.shows_pictures
  writer.write_scalars(1, {"loss": 1.5})
  writer.write_images(1, {"a": np.zeros((1, 4, 4, 3), np.uint8)})
  writer.write_histograms(1, {"b": np.zeros(3)})
  writer.close()
"""


def _run(code, folder):
  done = subprocess.run(
    [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=300
  )
  assert done.returncode == 0, done.stderr
  return done.stderr


def test_event_files_hold_what_the_log_holds(tmp_path):
  """Where nothing is written, nothing is imported."""
  _run(_CODE, tmp_path)
  assert metric_log.read(tmp_path)["loss"].values.tolist() == [1.5]
  assert len(list(tmp_path.glob("events*"))) == 1
  # The process that is not the first one leaves nothing.
  assert not (tmp_path / "other").exists()
  events = event_accumulator.EventAccumulator(str(tmp_path))
  events.Reload()
  (entry,) = events.Tensors("loss")
  assert (entry.step, tensor_util.make_ndarray(entry.tensor_proto)) == (1, 1.5)


def test_without_tensorflow_one_line_says_what_to_install(tmp_path):
  said = _run(_WITHOUT, tmp_path)
  assert said.count("pip install 'sum_l_jax[tensorboard]'") == 1
  for stage in ("exo", "joint"):
    assert metric_log.read(tmp_path / stage)["loss"].values.tolist() == [1.5]
    assert [p.name for p in (tmp_path / stage).iterdir()] == ["metrics.jsonl"]
