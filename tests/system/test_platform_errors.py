"""A device that JAX is told to use and doesn't find: the variable, and the way out."""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
from jax._src import xla_bridge
import pytest

from sum_l_jax.system import command_line
from sum_l_jax.system import platform_errors

ROOT = pathlib.Path(__file__).parents[2]


MAIN = ["sum_l_jax.main", "--config=configs/demo.py", "--workdir={}"]


@pytest.mark.parametrize(
  "command, platform",
  [
    *((MAIN, platform) for platform in ("cuda", "tpu", "nothing", "cuda,cpu")),
    *((["sum_l_jax.tools.doctor"], platform) for platform in ("cuda", "tpu", "nothing")),
  ],
)
def test_commands_name_the_variable(command, platform, tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", *(part.format(tmp_path / "run") for part in command)],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": ""},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  said = done.stdout + done.stderr
  assert done.returncode == (1 if "doctor" in command[0] else 2), said
  assert f"JAX_PLATFORMS='{platform}'" in said and "set JAX_PLATFORMS=cpu" in said
  assert "Traceback" not in said and "AssertionError" not in said


def _raise(error):
  def work(_):
    raise error

  return work


def test_every_command_does(monkeypatch, capsys):
  """All but main go through one function."""

  def none():
    raise AssertionError

  monkeypatch.setattr(jax, "devices", none)
  monkeypatch.setenv("JAX_PLATFORMS", "cuda")
  for error in (AssertionError(), RuntimeError("Unable to initialize backend 'cuda': no driver")):
    assert command_line.run(argparse.ArgumentParser(), _raise(error), []) == 2
    assert "With JAX_PLATFORMS='cuda'" in capsys.readouterr().err


def test_the_processor_is_taken_where_it_is_asked_for(monkeypatch):
  for platforms in ("", "cpu", "cpu,cuda"):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    platform_errors.check("cpu")
  monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
  platform_errors.check("gpu")


# What JAX notes of a platform that it can't use (jax issues 22070, 29068).
_FAILURES = {
  "no plugin": ("", "'sum_l_jax[cuda12]', or with a driver of 580"),
  "no driver": (
    "Unable to initialize backend 'cuda': INTERNAL: no supported devices found for platform CUDA",
    "is installed and fails (Unable to initialize backend 'cuda': INTERNAL: no supported",
  ),
}


@pytest.mark.parametrize("case", _FAILURES)
def test_a_gpu_that_is_not_used_is_explained(case, monkeypatch):
  reason, words = _FAILURES[case]
  monkeypatch.setattr(xla_bridge, "_backend_errors", {"cuda": reason} if reason else {})
  spec = lambda name: object() if reason and name == "jax_cuda12_plugin" else None
  monkeypatch.setattr(importlib.util, "find_spec", spec)
  said = platform_errors.unused(gpus=True, tpu=False)
  assert "this machine has a GPU" in said and words in said and "\n" not in said


def test_a_tpu_that_another_process_holds_is_explained(monkeypatch):
  reason = (
    "ABORTED: The TPU is already in use by process with pid 176028. Not attempting to load"
    " libtpu.so in this process."
  )
  monkeypatch.setattr(xla_bridge, "_backend_errors", {"tpu": reason})
  assert "process 176028 uses the TPU" in platform_errors.unused(gpus=False, tpu=True)
  # With JAX_PLATFORMS=tpu it is an error.
  error = RuntimeError(f"Unable to initialize backend 'tpu': {reason} (set JAX_PLATFORMS='')")
  assert "kill 176028" in platform_errors.advice(error)


@pytest.mark.parametrize("error", [AssertionError(), AssertionError("x"), RuntimeError("y")])
def test_other_errors_stay_what_they_are(error):
  assert not platform_errors.advice(error)
  with pytest.raises(type(error)):
    command_line.run(argparse.ArgumentParser(), _raise(error), [])
