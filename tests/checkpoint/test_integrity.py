"""Damaged checkpoints are found, named and passed over; saving can fail."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax import main
from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from tests.support import checkpoints


def _state(step: int):
  return {
    "params": {"ego": {"w": jnp.arange(3000.0) + step}},
    "stats": {"mean": jnp.full(3, float(step))},
  }


@pytest.fixture(name="folder")
def folder_fixture(tmp_path) -> pathlib.Path:
  """Checkpoints of steps 2 and 4."""
  with manager.Checkpoints(tmp_path / "c", keep=2) as checkpoints:
    for step in (0, 2, 4):
      checkpoints.save(step, _state(step), {"step": step})
  assert integrity.steps(tmp_path / "c") == [2, 4]
  return tmp_path / "c"


def _largest(folder: pathlib.Path) -> pathlib.Path:
  files = [p for p in (folder / "state").rglob("*") if p.is_file()]
  return max(files, key=lambda p: (p.stat().st_size, p.name))


def _flip(path: pathlib.Path) -> None:
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def _truncate(path: pathlib.Path) -> None:
  path.write_bytes(path.read_bytes()[:-1])


_DAMAGE = {
  "flipped bit": (_flip, "but not the contents that were written"),
  "truncated": (_truncate, "bytes, .* were written"),
  "deleted": (lambda path: path.unlink(), "is missing"),
}


@pytest.mark.parametrize("damage, words", _DAMAGE.values(), ids=_DAMAGE)
def test_damage_is_named_and_the_one_before_is_used(damage, words, folder, caplog):
  path = _largest(folder / "4")
  damage(path)
  with pytest.raises(ValueError, match=f"{path.name} .*{words}") as error:
    weight_files.read_weights(folder)
  assert "run its training command" in str(error.value)
  with caplog.at_level("WARNING", logger="absl"):
    with manager.Checkpoints(folder, keep=2) as checkpoints:
      assert checkpoints.latest_step == 2
      restored = checkpoints.restore(2, _state(0))
      np.testing.assert_array_equal(restored["params"]["ego"]["w"], np.arange(3000.0) + 2)
      # Training reaches this step again; it must be saved again.
      checkpoints.save(4, _state(4), {"step": 4})
  text = caplog.text
  assert "4.damaged" in text and path.name in text
  assert (folder / "4.damaged").is_dir()
  integrity.check(folder / "4")
  assert weight_files.read_weights(folder).step == 4


@pytest.mark.parametrize("item", ["state", "meta", integrity.MANIFEST])
def test_every_item_is_covered(item, folder):
  path = folder / "4" / item
  if item == integrity.MANIFEST:
    path.write_text("{")
  else:
    shutil.rmtree(path)
  with pytest.raises(ValueError, match="isn't what was written"):
    weight_files.read_weights(folder)
  with manager.Checkpoints(folder) as checkpoints:
    assert checkpoints.latest_step == 2


def test_every_file_counts(folder):
  """Each single file of a checkpoint is covered, however small."""
  files = [p for item in ("state", "meta") for p in (folder / "4" / item).rglob("*") if p.is_file()]
  assert len(files) > 5
  for path in files:
    data = path.read_bytes()
    if data:
      _flip(path)
      with pytest.raises(integrity.DamagedCheckpointError, match=path.name):
        integrity.check(folder / "4")
      path.write_bytes(data)
  integrity.check(folder / "4")


def test_none_is_whole(folder):
  for step in (2, 4):
    _flip(_largest(folder / str(step)))
  with pytest.raises(ValueError, match="No checkpoint in .* is whole") as error:
    manager.Checkpoints(folder)
  assert "To begin this stage again, remove that folder" in str(error.value)
  # Nothing was moved: a copy from elsewhere mends it.
  assert integrity.steps(folder) == [2, 4]


def test_a_checkpoint_from_before_there_were_checksums(folder, caplog):
  (folder / "4" / integrity.MANIFEST).unlink()
  with caplog.at_level("WARNING", logger="absl"):
    assert weight_files.read_weights(folder).step == 4
  assert "used unchecked" in caplog.text


def test_a_state_is_read_whole(folder):
  state = checkpoints.read_arrays(folder / "4")
  assert sorted(state) == ["params/ego/w", "stats/mean"]
  np.testing.assert_array_equal(state["params/ego/w"], np.arange(3000.0) + 4)


def test_older_ones_stay_until_the_new_one_is_whole(tmp_path, monkeypatch):
  """At every look before the new one is complete, the old ones are there."""
  seen = []
  folder = tmp_path / "c"
  write = integrity.write

  def spy(path):
    seen.append(integrity.steps(folder))
    write(path)

  monkeypatch.setattr(integrity, "write", spy)
  with manager.Checkpoints(folder, keep=1) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(step, _state(step), {})
  assert seen == [[], [1], [2]]
  assert integrity.steps(folder) == [3]


def _check_failed_save(folder, save):
  with pytest.raises(ValueError, match="step 6 can't be written") as error:
    save()
  text = str(error.value)
  assert "Complete is step 4" in text
  assert "Make sure that there is space" in text
  # Nothing is lost, and the same call then goes on.
  for step in (2, 4):
    integrity.check(folder / str(step))
  return text


def test_no_space_while_saving(folder):
  """Real writes that fail, in whichever library they happen."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  # Python ignores the signal that comes with it, so writes fail with EFBIG.
  assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN

  def save():
    with manager.Checkpoints(folder, keep=2) as checkpoints:
      resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
      try:
        checkpoints.save(6, _state(6), {})
        checkpoints.wait()
      finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

  _check_failed_save(folder, save)
  with manager.Checkpoints(folder, keep=2) as checkpoints:
    assert checkpoints.latest_step == 4
    checkpoints.save(6, _state(6), {})
  assert integrity.steps(folder) == [4, 6]


def test_a_full_disk_while_saving(folder, monkeypatch):
  def full(path):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

  def save():
    with manager.Checkpoints(folder, keep=2) as checkpoints:
      with monkeypatch.context() as patch:
        patch.setattr(integrity, "write", full)
        checkpoints.save(6, _state(6), {})
        checkpoints.wait()

  assert "No space left on device" in _check_failed_save(folder, save)


@pytest.mark.parametrize(
  "state, meta, words",
  [
    ({"w": object()}, {}, "Unsupported type"),
    ({"w": jnp.zeros(3)}, {"a": object()}, "not JSON serializable"),
  ],
  ids=["a leaf that is no array", "no JSON"],
)
def test_what_is_no_fault_of_the_disk_is_not_blamed_on_it(state, meta, words, folder):
  with pytest.raises((ValueError, TypeError), match=words) as error:
    with manager.Checkpoints(folder, keep=2) as checkpoints:
      checkpoints.save(6, state, meta)
      checkpoints.wait()
  assert not isinstance(error.value, manager.SaveError)
  assert "space" not in str(error.value)
  with manager.Checkpoints(folder, keep=2) as checkpoints:
    assert checkpoints.latest_step == 4
    checkpoints.save(6, _state(6), {})
  assert integrity.steps(folder) == [4, 6]


def test_errors_of_the_system_are_told_apart():
  full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  wrapped = RuntimeError("saving failed")
  wrapped.__cause__ = full
  of_disk = [
    full,
    wrapped,
    PermissionError("no"),
    ValueError("RESOURCE_EXHAUSTED: Failed to write 9 bytes [os_error_code='28']"),
  ]
  others = [
    TypeError("no array"),
    KeyError("params"),
    RuntimeError("deleted"),
    ValueError("Unsupported type: <class 'str'>"),
    ValueError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"),
  ]
  assert [manager._is_of_disk(error) for error in of_disk + others] == (
    [True] * len(of_disk) + [False] * len(others)
  )


def _tmpfs(path: pathlib.Path, *options: str):
  path.mkdir()
  done = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)],
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    path.rmdir()
    pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


def test_a_disk_that_is_full(tmp_path):
  """A file system of its own, too small for the third checkpoint."""
  disk = tmp_path / "disk"
  _tmpfs(disk, "size=2m")
  try:
    folder = disk / "c"
    with pytest.raises(ValueError, match="can't be written") as error:
      with manager.Checkpoints(folder, keep=9) as checkpoints:
        rng = np.random.default_rng(0)
        for step in range(9):
          noise = rng.standard_normal(100_000)  # 0.4 MB that don't compress.
          checkpoints.save(step, {"params": {"w": jnp.asarray(noise)}}, {})
    assert "No space left" in str(error.value) or "EXHAUSTED" in str(error.value)
    kept = integrity.steps(folder)
    assert 1 <= len(kept) < 6
    for step in kept:
      integrity.check(folder / str(step))
  finally:
    subprocess.run(["umount", str(disk)], check=True)


def test_workdirs_that_can_not_be_written_to(tmp_path):
  config = read.default_config()
  (tmp_path / "file").write_text("in the way")
  for workdir in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing/here"):
    with pytest.raises(ValueError, match="--workdir=.* can't be written to"):
      main.run(config, workdir)
  with pytest.raises(manager.SaveError, match="Give a --workdir"):
    manager.Checkpoints(tmp_path / "file" / "c")


def test_a_read_only_workdir(tmp_path):
  disk = tmp_path / "disk"
  _tmpfs(disk, "size=1m", "ro")
  try:
    with pytest.raises(ValueError, match="Read-only file system.*Make space"):
      main.run(read.default_config(), disk)
  finally:
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("listed", [{}, None, [], {"state/../../x": [1, "AAAAAA=="]}])
def test_lists_that_leave_out_files(tmp_path, listed):
  (tmp_path / "state").mkdir()
  (tmp_path / "state" / "a").write_bytes(b"abc")
  integrity.write(tmp_path)
  integrity.check(tmp_path)
  path = tmp_path / integrity.MANIFEST
  path.write_text(json.dumps({"files": listed}))
  with pytest.raises(integrity.DamagedCheckpointError):
    integrity.check(tmp_path)
  # One file of two: what is not listed could be anything.
  (tmp_path / "state" / "b").write_bytes(b"x")
  path.write_text(json.dumps({"files": {"state/a": [3, "Nks/tw=="]}}))
  with pytest.raises(integrity.DamagedCheckpointError, match="state/b is not in checksums.json"):
    integrity.check(tmp_path)
