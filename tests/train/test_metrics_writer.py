"""The writer: numbers always, event files where TensorFlow is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from sum_l_jax.system import peers
from sum_l_jax.system import storage
from sum_l_jax.train import metric_log
from sum_l_jax.train import metrics
from tests.support import waiting

_CODE = """
import sys
from sum_l_jax.train import metrics
late = metrics.Writer(sys.argv[1], hyper_parameters={"seed": 3, "loss.sigma": 0.1, "x": (1, 2)})
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
  data = plugin_data_pb2.HParamsPluginData.FromString(
    events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
  )
  found = data.session_start_info.hparams
  assert found["seed"].number_value == 3 and found["loss.sigma"].number_value == 0.1
  assert found["x"].string_value == "(1, 2)"


def test_without_tensorflow_one_line_says_what_to_install(tmp_path):
  said = _run(_WITHOUT, tmp_path)
  assert said.count("pip install 'sum_l_jax[tensorboard]'") == 1
  for stage in ("exo", "joint"):
    assert metric_log.read(tmp_path / stage)["loss"].values.tolist() == [1.5]
    names = sorted(p.name for p in (tmp_path / stage).iterdir())
    assert names == ["metrics.csv", "metrics.jsonl"]


def test_in_a_bucket_numbers_appear_at_the_period_and_at_the_end(bucket):
  writer = metrics.Writer(bucket, upload_seconds=0.1)
  writer.write_scalars(1, {"loss": 1.5})
  waiting.wait_for(lambda: metric_log.read(bucket))
  assert metric_log.read(bucket)["loss"].values.tolist() == [1.5]
  waiting.wait_for(lambda: storage.matching(bucket, "events*"))
  writer.close()
  patient = metrics.Writer(bucket, start_step=1, upload_seconds=3600)
  patient.write_scalars(2, {"loss": 2.5})
  assert metric_log.read(bucket)["loss"].steps.tolist() == [1]
  patient.upload_soon()  # As with a checkpoint.
  waiting.wait_for(lambda: metric_log.read(bucket)["loss"].steps.tolist() == [1, 2])
  patient.write_scalars(3, {"loss": 3.5})
  patient.close()
  assert metric_log.read(bucket)["loss"].values.tolist() == [1.5, 2.5, 3.5]
  assert sorted(storage.files_below(bucket)) == sorted(
    ["metrics.csv", "metrics.jsonl", *(path.name for path in storage.matching(bucket, "events*"))]
  )


def test_a_restart_elsewhere_takes_back_the_steps_it_repeats(bucket):
  for start, steps in ((0, (2, 4, 6)), (4, (5, 7))):
    writer = metrics.Writer(bucket, start_step=start, upload_seconds=3600)
    for step in steps:
      writer.write_scalars(step, {"loss": float(step)})
    writer.close()
  assert metric_log.read(bucket)["loss"].steps.tolist() == [2, 4, 5, 7]


def test_event_files_in_a_bucket_are_whole(bucket, tmp_path):
  writer = metrics.Writer(bucket, upload_seconds=3600)
  writer.write_scalars(1, {"loss": 1.5})
  writer.close()
  (path,) = storage.matching(bucket, "events*")
  (tmp_path / path.name).write_bytes(storage.read_bytes(path))
  events = event_accumulator.EventAccumulator(str(tmp_path))
  events.Reload()
  (entry,) = events.Tensors("loss")
  assert (entry.step, tensor_util.make_ndarray(entry.tensor_proto)) == (1, 1.5)


def test_an_upload_that_fails_for_good_ends_the_run(bucket, monkeypatch):
  def refuse(source, target):
    raise OSError("Forbidden: no")

  monkeypatch.setattr(storage, "upload", refuse)
  writer = metrics.Writer(bucket, upload_seconds=3600)
  writer.write_scalars(1, {"loss": 1.5})
  with pytest.raises(OSError, match="Forbidden"):
    writer.close()


def test_a_process_that_ends_because_of_another_uploads_first(bucket, monkeypatch):
  writer = metrics.Writer(bucket, upload_seconds=3600)
  writer.write_scalars(1, {"loss": 1.5})
  monkeypatch.setattr(peers, "LEAVE_SECONDS", 5.0)
  peers.at_leaving.insert(0, lambda text: 1 / 0)
  try:
    peers._call_before_leaving("Process 1 of 2 is lost.")
  finally:
    del peers.at_leaving[0]
  assert metric_log.read(bucket)["loss"].steps.tolist() == [1]
  writer.close()
