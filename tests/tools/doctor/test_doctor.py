"""The report on an installation names what is wrong with it."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import pathlib
import shutil
import tempfile

from etils import epath
import numpy as np
import pytest

from sum_l_jax.system import storage
from sum_l_jax.tools.doctor import reading_rate
from sum_l_jax.tools.doctor.__main__ import check_decoders
from sum_l_jax.tools.doctor.__main__ import check_devices
from sum_l_jax.tools.doctor.__main__ import check_libraries
from sum_l_jax.tools.doctor.__main__ import check_machine
from sum_l_jax.tools.doctor.__main__ import check_others
from sum_l_jax.tools.doctor.__main__ import main
from sum_l_jax.tools.doctor.__main__ import multihost


def _problems(findings):
  return {what: problem for what, problem in findings if problem}


@pytest.mark.parametrize(
  "declared, what, problem",
  [
    ("numpy>=1", None, None),
    ("numpy>=1,<1.1", f"numpy {np.__version__}", "outside of the tested range"),
    ("no-such-thing>=2", "no-such-thing", "pip install 'no-such-thing>=2'"),
    ("no-such-thing; extra == 'tpu'", None, None),
  ],
)
def test_libraries(declared, what, problem, monkeypatch):
  version = importlib.metadata.version
  monkeypatch.setattr(importlib.metadata, "requires", lambda name: [declared])
  monkeypatch.setattr(
    importlib.metadata, "version", lambda name: "0.1" if name == "sum_l_jax" else version(name)
  )
  found = _problems(check_libraries())
  assert list(found) == ([what] if what else [])
  assert problem is None or problem in found[what]


def test_an_idle_accelerator_is_a_problem(monkeypatch):
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  monkeypatch.setattr(multihost, "count_gpus", lambda environment: 2)
  monkeypatch.setattr(multihost, "has_tpu", lambda: True)
  found = _problems(check_devices())
  assert "sum_l_jax[cuda12]" in found["NVIDIA GPU"] and "sum_l_jax[tpu]" in found["TPU"]
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  assert not _problems(check_devices())


def test_other_processes_that_are_not_known_are_a_problem(monkeypatch):
  assert not _problems(check_others())
  monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
  (problem,) = _problems(check_others()).values()
  assert "--process_id=$JOB_COMPLETION_INDEX" in problem


def test_machine(monkeypatch, tmp_path):
  def refuse(dir):
    raise OSError(errno.EROFS, "Read-only file system", str(dir))

  monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**30}))
  found = _problems(check_machine(tmp_path / "new" / "run"))
  text = " ".join(found.values())
  assert "Read-only file system" in text and "checkpoints are kept" in text
  assert f"folder {tmp_path}" in found


def test_a_broken_library_does_not_end_the_report(monkeypatch, capsys):
  def broken():
    yield "av 18", ""
    raise ImportError("libavcodec.so is missing")

  monkeypatch.setattr("sum_l_jax.tools.doctor.__main__.check_decoders", broken)
  assert main([f"--workdir={pathlib.Path().absolute()}"]) == 1
  out = capsys.readouterr().out
  assert "  av 18\n" in out
  assert "PROBLEM: ImportError: libavcodec.so is missing" in out
  assert "transparent huge pages" in out or "memory" in out


def test_what_works_is_no_problem():
  assert not _problems(check_decoders())


def test_what_a_step_needs_is_compared_with_what_is_read(tiny_ego, bucket, tmp_path):
  """64 pairs in a fifth of a second are 640 clips a second, and half for each host."""
  storage.upload_folder(tiny_ego, bucket / "ego", last="card.json")
  step = tmp_path / "step.json"
  program = {
    "backbone": "tiny",
    "method": "sum_l",
    "stage": "joint",
    "topology": "v5e:2x4",
    "batch_size": 64,
    "clip": [4, 32],
    "step_seconds": {"cycles": None, "arithmetic": 0.1, "memory": 0.2},
  }
  need = lambda: reading_rate.read_need(epath.Path(step))
  found = {}
  for slower in (1e-3, 1e6):
    program["step_seconds"] = {"cycles": None, "arithmetic": 1e-9, "memory": 0.2 * slower}
    step.write_text(json.dumps({"programs": [program]}))
    found[slower] = _problems(
      reading_rate.check(str(bucket / "ego"), need(), hosts=2, seconds=0.05)
    )
  assert not found[1e6]
  assert set(found[1e-3]) > {"reading"} and len(found[1e-3]) == 2
  assert "config.input.shard_cache" in found[1e-3]["reading"]
  program["step_seconds"]["memory"] = 0.2
  for changes, rate in (
    ({}, 640.0),
    ({"stage": "exo"}, 320.0),
    ({"method": "fpv_only"}, 320.0),
    ({"step_seconds": {"cycles": 0.4, "arithmetic": 0.1, "memory": 0.2}}, 320.0),
  ):
    step.write_text(json.dumps({"programs": [program | changes]}))
    assert need().clips_per_second == pytest.approx(rate)
  step.write_text("{}")
  with pytest.raises(ValueError, match="says nothing of a step"):
    need()


def test_the_rate_is_in_the_report(tiny_ego, capsys):
  main([f"--data={tiny_ego}", "--seconds=0.01"])
  text = capsys.readouterr().out
  assert "\ninput\n" in text and "4 thread(s) read " in text and "a core decodes " in text
