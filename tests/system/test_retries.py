"""Disks over the network: errors that pass are tried again, some addresses refused."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import records
from sum_l_jax.data import shards
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.system import npz_files
from sum_l_jax.system import retries
from sum_l_jax.system import storage
from sum_l_jax.tools.compare import __main__

ROOT = pathlib.Path(__file__).parents[2]


class FlakyDisk:
  """A disk on which opening a file fails a number of times, then works."""

  def __init__(self, monkeypatch):
    self.left = {}
    self.opened = []
    self._open = io.open
    monkeypatch.setattr(builtins, "open", self)
    monkeypatch.setattr(io, "open", self)
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv(retries.PATIENCE_VARIABLE, "60")

  def fail(self, name: str, times: int, code: int = errno.EIO) -> None:
    self.left[name] = [times, code]

  def __call__(self, path, *args, **options):
    name = ""
    if isinstance(path, str | os.PathLike):
      name = pathlib.Path(path).name
    for wanted, entry in self.left.items():
      if name.startswith(wanted):
        self.opened.append(name)
        if entry[0]:
          entry[0] -= 1
          raise OSError(entry[1], os.strerror(entry[1]), str(path))
    return self._open(path, *args, **options)


@pytest.fixture(name="disk")
def disk_fixture(monkeypatch):
  return FlakyDisk(monkeypatch)


def _card(folder, tiny_ego):
  del folder
  return records.read_card(tiny_ego)["view"] == "ego"


def _clips(folder, tiny_ego):
  del folder
  return len(records.ClipDataset(tiny_ego, "train")) == 17


def _write_npz(folder, tiny_ego):
  del tiny_ego
  npz_files.write_npz(folder / "a.npz", x=np.arange(3))
  return [p.name for p in folder.iterdir()] == ["a.npz"]


def _read_npz(folder, tiny_ego):
  del tiny_ego
  if not (folder / "b.npz").exists():
    np.savez(folder / "b.npz", x=np.arange(3))
  found = npz_files.read_npz(folder / "b.npz", ["x"], what="a", command="b")
  return found["x"].tolist() == [0, 1, 2]


def _weights(folder, tiny_ego):
  del tiny_ego
  tree = {"ego": {"encoder": {"w": np.ones(2, np.float32)}}}
  if not (folder / "w.npz").exists():
    weight_files.write_weights(
      folder / "w.npz", weight_files.Weights(tree, tree, {"stage": "x"}, "y")
    )
  return weight_files.read_weights(folder / "w.npz").card == {"stage": "x"}


def _result(folder, tiny_ego):
  del tiny_ego
  result_files.write_result(folder, {"method": "x"})
  return json.loads((folder / "result.json").read_text()) == {"method": "x"}


def _checksums(folder, tiny_ego):
  del tiny_ego
  if not (folder / "state").exists():
    (folder / "state").mkdir()
    (folder / "state" / "array").write_bytes(b"123")
  integrity.write(folder)
  integrity.check(folder)
  return True


@pytest.mark.parametrize(
  "name, work",
  [
    ("card.json", _card),
    ("clips_train", _clips),
    (".a.", _write_npz),
    ("b.npz", _read_npz),
    ("w.npz", _weights),
    (".result.", _result),
    ("array", _checksums),
    ("checksums.json", _checksums),
  ],
)
def test_what_fails_twice_works(name, work, disk, tmp_path, tiny_ego, caplog):
  if name in ("b.npz", "w.npz", "array"):
    work(tmp_path, tiny_ego)  # Only reading is looked at.
  disk.fail(name, 2)
  with caplog.at_level("WARNING", logger="absl"):
    assert work(tmp_path, tiny_ego)
  assert len(disk.opened) >= 3 and disk.left[name][0] == 0
  lines = [r.getMessage() for r in caplog.records if "; try" in r.getMessage()]
  assert [line.partition("; ")[2][:12] for line in lines] == ["try 1 failed", "try 2 failed"]
  assert all("Input/output error" in line and name in line for line in lines)


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_what_does_not_pass_is_raised_at_once(code, disk, tmp_path):
  path = tmp_path / "text.txt"
  path.write_text("a")
  disk.fail("text.txt", 99, code)
  with pytest.raises(OSError) as error:
    storage.read_text(path)
  assert error.value.errno == code and len(disk.opened) == 1


@pytest.mark.parametrize("seconds, tries", [(0, [1]), (0.05, range(3, 8))])
def test_patience_bounds_the_tries(seconds, tries, disk, tmp_path):
  """Pauses of 1, 2, 4, ... ms, each with up to 1 ms more: the sixth may end beyond 50 ms."""
  path = tmp_path / "text.txt"
  path.write_text("a")
  disk.fail("text.txt", 99, errno.ESTALE)
  retries.set_patience(seconds)
  with pytest.raises(OSError) as error:
    storage.read_text(path)
  assert error.value.errno == errno.ESTALE and len(disk.opened) in tries


def test_pauses_double(monkeypatch):
  """Time passes only in the pauses: 0.5 + 1 + 2 + ... s, within the 120 s."""
  pauses = []
  monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
  monkeypatch.setattr("time.monotonic", lambda: sum(pauses))

  @retries.retried
  def fail():
    raise TimeoutError("no answer")

  with pytest.raises(TimeoutError):
    fail()
  assert len(pauses) in (7, 8)
  for number, pause in enumerate(pauses):
    assert min(0.5 * 2**number, 30) <= pause <= min(0.5 * 2**number + 0.5, 30)


@pytest.fixture(name="clock")
def clock_fixture(monkeypatch):
  """Time passes only in the pauses, and where a test says so."""
  clock = []
  monkeypatch.setattr("tenacity.nap.time.sleep", clock.append)
  monkeypatch.setattr("time.monotonic", lambda: sum(clock))
  return clock


@pytest.mark.parametrize("text, seconds", [("", 120), ("600", 600), ("-1", 0)])
def test_the_variable_says_how_long(text, seconds, monkeypatch):
  monkeypatch.setenv(retries.PATIENCE_VARIABLE, text)
  assert retries.patience() == seconds


def test_a_variable_that_is_no_number_is_not_taken_for_the_default(monkeypatch):
  monkeypatch.setenv(retries.PATIENCE_VARIABLE, "10m")
  with pytest.raises(ValueError, match="SUM_L_STORAGE_SECONDS must be a number of seconds.*'10m'"):
    retries.patience()


def test_patience_begins_with_the_first_error(clock):
  """Transfers of large files go well for longer than that, and then break."""
  calls = []

  @retries.retried
  def transfer():
    calls.append(1)
    clock.append(1000.0)
    if len(calls) == 1:
      raise TimeoutError("cut")
    return "whole"

  assert transfer() == "whole" and len(calls) == 2


def test_retried_functions_within_each_other_have_one_patience(clock):
  @retries.retried
  def inner():
    raise TimeoutError("no answer")

  with pytest.raises(TimeoutError):
    retries.retried(lambda: inner())()
  assert sum(clock) <= 120.0


def test_records_are_read_again(tiny_ego, monkeypatch):
  """The library in C++ raises a RuntimeError; its reader is opened again."""
  monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)
  data = records.ClipDataset(tiny_ego, "train")
  whole = data.read_frames(3, [0, 1])
  opened = []

  class Reader:
    def read(self, positions):
      raise RuntimeError("pread() failed: Input/output error; reading x")

  def broken(path):
    opened.append(path)
    return Reader() if len(opened) < 3 else original(path)

  original = shards._open
  monkeypatch.setattr(shards, "_open", broken)
  assert records.ClipDataset(tiny_ego, "train").read_frames(3, [0, 1]) == whole
  assert len(opened) == 3


_ADDRESSES = ("s3://bucket/a.npz", "hdfs://host/x", "az://a/b", "file:///x", "gs:/bucket/run")


@pytest.mark.parametrize("address", _ADDRESSES)
def test_addresses_are_refused(address, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  config = read.default_config()
  with pytest.raises(ValueError, match=f"--workdir='{address}'"):
    main.run(config, address)
  with pytest.raises(ValueError, match=f"--checkpoint='{address}'"):
    main.run(config, "run", mode="eval", checkpoint=address)
  for field in ("ego.dataset", "exo.datasets", "init.ego"):
    config = read.default_config()
    config.update_from_flattened_dict({field: (address,) if field == "exo.datasets" else address})
    with pytest.raises(ValueError, match=f"config.{field}='{address}'"):
      build.resolve(config)
  assert __main__.main(["a", address]) == 2
  assert "address" in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_commands_refuse_addresses(tmp_path):
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "data_prep.mine_pairs",
      "--ego=s3://b/ego",
      "--exo=x",
      "--narrations=y",
      "--output=z",
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=120,
    env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
  )
  assert done.returncode == 2
  assert done.stderr.startswith("error: --ego='s3://b/ego' is an address")
  assert not list(tmp_path.iterdir())
