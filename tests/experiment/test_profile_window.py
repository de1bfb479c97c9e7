"""Steps recorded by JAX's profiler, read from what it wrote."""

from __future__ import annotations

from etils import epath
import gcsfs.retry
import jax
import jax.numpy as jnp
import pytest

from sum_l_jax import main
from sum_l_jax.config import read
from sum_l_jax.experiment import profile_window
from sum_l_jax.system import storage
from tests.support import recordings
from tests.support import runs


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  config.stages = ("joint",)
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.eval.splits, config.eval.during_split = (), ""
  return config


def test_the_steps_of_the_window_are_recorded_and_no_others(config, tmp_path, caplog):
  folder = tmp_path / "joint" / profile_window.FOLDER
  with pytest.raises(ValueError, match="the last step of stage 'joint' is 5, .* got 3:6"):
    main.run(config, tmp_path, profile="3:6")
  config.stop_at = "joint:2"
  with pytest.raises(ValueError, match="the last step of stage 'joint' is 1"):
    main.run(config, tmp_path, profile="1:2")
  assert not folder.exists()
  main.run(config, tmp_path, profile="0:1")
  assert recordings.steps(folder / "steps_0_1") == [0, 1]
  # A run that goes on within the window records the rest of it.
  config.stop_at = ""
  main.run(config, tmp_path, profile="joint:1:4")
  assert recordings.steps(folder / "steps_1_4") == [2, 3, 4]
  with caplog.at_level("WARNING"):
    main.run(config, tmp_path, profile="1:3")
  assert "this run starts at step 6, after 1:3; nothing is recorded" in caplog.text
  assert not (folder / "steps_1_3").exists()


def _record(window, folder, *, start=0, steps=range(6), until=6):
  recorder = profile_window.Recorder(window, "joint", epath.Path(folder), start=start)
  for step in steps:
    recorder.before(step)
    with jax.profiler.StepTraceAnnotation(profile_window.STEP, step_num=step):
      result = jnp.ones(8) * step
    if step == until:
      break
    recorder.after(step, result)
  recorder.close()
  recorder.close()


def test_what_is_recorded_before_an_end_is_kept(tmp_path):
  _record(profile_window.Window("joint", 1, 5), tmp_path, until=3)
  assert recordings.steps(tmp_path / profile_window.FOLDER / "steps_1_5") == [1, 2, 3]


@pytest.mark.slow
def test_a_workdir_in_a_bucket(bucket, tmp_path):
  _record(profile_window.Window("joint", 1, 2), bucket)
  folder = bucket / profile_window.FOLDER / "steps_1_2"
  for path in folder.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  assert recordings.steps(tmp_path) == [1, 2]


def test_another_stage_records_nothing(tmp_path):
  _record(profile_window.Window("exo", 1, 2), tmp_path)
  assert not list(tmp_path.iterdir())


def test_every_process_has_a_file_of_its_own_or_the_first_alone(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  _record(profile_window.Window("joint", 1, 2), tmp_path)
  assert not list(tmp_path.iterdir())
  _record(profile_window.Window("joint", 1, 2, "all"), tmp_path)
  folder = tmp_path / profile_window.FOLDER / "steps_1_2"
  assert recordings.steps(folder, process=1) == [1, 2]


def test_a_recording_that_cannot_be_written_costs_no_training(tmp_path, caplog):
  (tmp_path / "plugins").write_text("in the way")
  with caplog.at_level("WARNING"):
    _record(profile_window.Window("joint", 1, 2), tmp_path)
  assert "the recording can't be written" in caplog.text


def test_a_bucket_that_stays_away_costs_no_recorded_training(tmp_path, caplog, monkeypatch):
  def refuse(path, data):
    raise gcsfs.retry.HttpError({"code": 503, "message": "away"})

  monkeypatch.setattr(storage, "write_bytes", refuse)
  with caplog.at_level("WARNING"):
    _record(profile_window.Window("joint", 1, 2), tmp_path)
  assert "the recording can't be written" in caplog.text and "away" in caplog.text


@pytest.mark.parametrize(
  "text, message",
  [
    ("5", "must be FIRST:LAST or STAGE:FIRST:LAST, .* such as 10:14 or joint:10:14; got '5'"),
    ("-1:5", "must be FIRST:LAST"),
    ("4:3", "the first step, 4, comes after the last one, 3"),
    ("eval:1:2", r"the stages of this run are \('exo', 'joint'\); got 'eval:1:2'"),
  ],
)
def test_windows_that_are_none(text, message):
  with pytest.raises(ValueError, match=message):
    profile_window.parse(text, ("exo", "joint"))


def test_windows():
  stages = ("exo", "joint")
  assert profile_window.parse("", stages) is None
  assert profile_window.parse("3:3", stages) == profile_window.Window("joint", 3, 3)
  assert profile_window.parse("exo:0:2", stages, "all") == profile_window.Window("exo", 0, 2, "all")


def test_an_evaluation_has_no_steps(config, tmp_path):
  with pytest.raises(ValueError, match="can't be had with --mode=eval"):
    main.run(config, tmp_path, mode="eval", profile="1:2")
