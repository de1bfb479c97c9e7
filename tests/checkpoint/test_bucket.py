"""Checkpoints in a bucket: whole or not at all, checked without being read."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint._src.path import atomicity_defaults
from orbax.checkpoint._src.path import temporary_paths
import pytest

from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import tensorstore_retries
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.system import retries
from sum_l_jax.system import storage
from tests.support import fault_proxy
from tests.support import free_ports

ROOT = pathlib.Path(__file__).parents[2]


def _state(step: int):
  rng = np.random.default_rng(step)
  return {
    "params": {"ego": {"w": jnp.asarray(rng.standard_normal(3000), jnp.float32)}},
    "stats": {"ego": {"mean": jnp.full(3, float(step))}},
    "step": jnp.int32(step),
  }


def _save(folder, *steps: int) -> None:
  with manager.Checkpoints(folder, keep=2) as checkpoints:
    for step in steps:
      checkpoints.save(step, _state(step), {"step": step})


def _check_state(folder, step: int) -> None:
  """Restores a state and compares it bit for bit."""
  with manager.Checkpoints(folder) as checkpoints:
    assert checkpoints.latest_step == step
    assert checkpoints.meta(step) == {"step": step}
    restored, wanted = checkpoints.restore(step, _state(0)), _state(step)
  assert jax.tree.structure(restored) == jax.tree.structure(wanted)
  for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(wanted)):
    assert one.dtype == other.dtype and one.tobytes() == other.tobytes()


@pytest.fixture(name="folder")
def folder_fixture(bucket) -> epath.Path:
  """Checkpoints of steps 2 and 4."""
  _save(bucket / "c", 0, 2, 4)
  return bucket / "c"


def test_a_state_comes_back_bit_for_bit_and_old_ones_go(folder):
  assert storage.names(folder) == ["2", "4"] and integrity.steps(folder) == [2, 4]
  _check_state(folder, 4)


@pytest.mark.parametrize("name", ["a [1]", "a*b", "a?b", "a#1", "a]", "ü %20 & 'b' a"])
@pytest.mark.parametrize("where", ["a bucket", "a disk"])
def test_what_a_folder_is_called(where, name, bucket, tmp_path):
  """Orbax takes some characters for patterns, and would lose the arrays without a word."""
  folder = (bucket if where == "a bucket" else epath.Path(tmp_path)) / name / "c"
  if name.startswith("ü") or (where == "a disk" and "[" not in name):
    _save(folder, 1)
    _check_state(folder, 1)
    return
  with pytest.raises(ValueError, match="can't hold checkpoints.*Give a --workdir without"):
    _save(folder, 1)
  assert not folder.exists()


def test_nothing_is_read_back(bucket, monkeypatch):
  """The arrays are written, and none of their objects is asked for."""
  read = []
  for name in ("read_bytes", "open_binary", "read_text"):
    old = getattr(storage, name)
    monkeypatch.setattr(storage, name, lambda path, old=old: (read.append(path), old(path))[1])
  _save(bucket / "c", 1)
  manager.Checkpoints(bucket / "c").close()
  assert {path.name for path in read} <= {integrity.MANIFEST}


def _largest(folder: epath.Path) -> epath.Path:
  below = storage.sizes_and_checksums(folder / "state")
  return folder / "state" / max(below, key=lambda name: (below[name][0], name))


def _flip(path: epath.Path) -> None:
  data = bytearray(storage.read_bytes(path))
  data[len(data) // 2] ^= 1
  storage.write_bytes(path, bytes(data))


_DAMAGE = {
  "another checksum": (_flip, "not the contents that were written"),
  "another size": (
    lambda path: storage.write_bytes(path, storage.read_bytes(path)[:-1]),
    "bytes, .* were written",
  ),
  "deleted": (storage.remove, "is missing"),
}


@pytest.mark.parametrize("damage, words", _DAMAGE.values(), ids=_DAMAGE)
def test_damage_is_named_and_the_one_before_is_used(damage, words, folder, caplog):
  path = _largest(folder / "4")
  damage(path)
  with pytest.raises(ValueError, match=f"{path.name} .*{words}"):
    weight_files.read_weights(folder)
  with caplog.at_level("WARNING", logger="absl"):
    _check_state(folder, 2)
  assert "Damaged checkpoint dropped" in caplog.text and path.name in caplog.text
  # It stays, for whoever wants to look, and nobody takes it for a checkpoint.
  assert path.name in storage.read_text(folder / "4" / integrity.NOTE)
  assert integrity.steps(folder) == [2]
  assert weight_files.find_checkpoint(folder).name == "2"
  # Training reaches this step again.
  _save(folder, 4)
  _check_state(folder, 4)
  assert not storage.is_file(folder / "4" / integrity.NOTE)


@pytest.mark.parametrize(
  "error", [OSError("Forbidden: b/x\nno access"), ValueError("Bad Request: b/x\ninvalid")]
)
def test_a_bucket_that_refuses_damages_no_checkpoint(error, folder, monkeypatch):
  def refuse(path):
    raise error

  before = storage.names_below(folder)
  with monkeypatch.context() as patch:
    patch.setattr(storage, "read_bytes", refuse)
    with pytest.raises(type(error), match=str(error).partition(":")[0]):
      manager.Checkpoints(folder)
  assert storage.names_below(folder) == before
  _check_state(folder, 4)


def test_none_is_whole(folder):
  for step in (2, 4):
    _flip(_largest(folder / str(step)))
  with pytest.raises(ValueError, match="No checkpoint in .* is whole"):
    manager.Checkpoints(folder)
  assert integrity.steps(folder) == [2, 4]


# A save that is killed: before the arrays, before the list of checksums, before
# and after Orbax's last file.
_KILLED = """
import os, signal, sys
from orbax.checkpoint import path
from sum_l_jax.checkpoint import integrity, manager
from tests.checkpoint import test_bucket

def die(*args, **options):
  os.kill(os.getpid(), signal.SIGKILL)

where, folder = sys.argv[1:]
finalize = path.atomicity.CommitFileTemporaryPath.finalize
write = integrity.write

async def after(self):
  await finalize(self)
  if self.get_final().name == "6":
    die()

async def before(self):
  if self.get_final().name == "6":
    assert (self.get_final() / integrity.MANIFEST).exists()
    die()
  await finalize(self)

if where == "arrays":
  import orbax.checkpoint as ocp
  ocp.StandardCheckpointHandler.async_save = die
elif where == "seal":
  integrity.write = die
else:
  path.atomicity.CommitFileTemporaryPath.finalize = {"commit": before, "end": after}[where]
test_bucket._save(folder, 6)
"""


@pytest.mark.parametrize("where", ["arrays", "seal", "commit", "end"])
def test_a_kill_at_each_moment_of_a_save(where, folder):
  done = subprocess.run(
    [sys.executable, "-c", _KILLED, where, str(folder)],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    check=False,
    capture_output=True,
    text=True,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
  whole = where == "end"
  assert where == "arrays" or "6" in storage.names(folder)
  assert integrity.steps(folder) == ([2, 4, 6] if whole else [2, 4])
  assert weight_files.find_checkpoint(folder).name == ("6" if whole else "4")
  _check_state(folder, 6 if whole else 4)
  assert ("6" in storage.names(folder)) == whole  # What was left is removed.
  _save(folder, 6)
  _check_state(folder, 6)


def test_a_killed_removal_leaves_no_checkpoint(folder):
  storage.remove(folder / "2" / integrity.COMMITTED)
  assert integrity.steps(folder) == [4]
  manager.Checkpoints(folder).close()
  assert storage.names(folder) == ["4"]


def test_a_removal_that_fails_is_said_and_done_later(folder, monkeypatch, caplog):
  remove = integrity.remove

  def refuse(directory, step):
    raise PermissionError(f"{directory / str(step)}: storage.objects.delete is not allowed")

  with caplog.at_level("WARNING", logger="absl"):
    with manager.Checkpoints(folder, keep=2) as checkpoints:
      monkeypatch.setattr(integrity, "remove", refuse)
      checkpoints.save(6, _state(6), {})
      assert checkpoints.latest_step == 6
      checkpoints._remover.submit(int).result()  # After what it has to do.
      assert "2 can't be removed now" in caplog.text and "not allowed" in caplog.text
      monkeypatch.setattr(integrity, "remove", remove)
      checkpoints.save(8, _state(8), {})
  assert integrity.steps(folder) == [6, 8]


def test_old_ones_that_stayed_go_at_a_later_save(folder):
  _save(folder, 6)
  assert integrity.steps(folder) == [4, 6]
  with manager.Checkpoints(folder, keep=1) as checkpoints:
    checkpoints.save(8, _state(8), {})
  assert integrity.steps(folder) == [8]


def test_weights_are_read_from_a_bucket(folder, bucket, tmp_path):
  weights = weight_files.read_weights(folder)
  assert weights.step == 4 and weights.source == str(folder / "4")
  wanted = _state(4)
  assert weights.params["ego"]["w"].tobytes() == wanted["params"]["ego"]["w"].tobytes()
  assert weight_files.read_card(folder) == {"step": 4}
  assert weight_files.file_digest(folder)
  weight_files.write_weights(bucket / "w.npz", weights)
  again = weight_files.read_weights(bucket / "w.npz")
  np.testing.assert_array_equal(again.params["ego"]["w"], wanted["params"]["ego"]["w"])
  assert weight_files.file_digest(bucket / "w.npz") not in ("", weight_files.file_digest(folder))


def test_views_that_are_not_needed_are_not_read(bucket):
  trees = {view: {"w": jnp.full(3, value)} for view, value in (("ego", 1.0), ("exo", 2.0))}
  with manager.Checkpoints(bucket / "c") as checkpoints:
    checkpoints.save(1, {"params": trees, "stats": trees, "momentum": trees}, {})
  weights = weight_files.read_weights(bucket / "c", views=("ego",))
  for tree in (weights.params, weights.stats):
    assert {view: value["w"].tolist() for view, value in tree.items()} == {"ego": [1.0] * 3}
  assert sorted(weight_files.read_weights(bucket / "c").params) == ["ego", "exo"]
  # Whoever needs a view that isn't there is told what there is.
  with manager.Checkpoints(bucket / "d") as checkpoints:
    checkpoints.save(1, {"params": {"exo": trees["exo"]}, "stats": {}}, {})
  assert sorted(weight_files.read_weights(bucket / "d", views=("ego",)).params) == ["exo"]


def test_a_copy_from_a_bucket_to_a_disk_is_checked_and_back(folder, bucket, tmp_path):
  for name, path in storage.files_below(folder).items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(storage.read_bytes(path))
  _check_state(tmp_path, 4)
  _flip(epath.Path(tmp_path) / _largest(folder / "4").relative_to(folder))
  with pytest.raises(integrity.DamagedCheckpointError, match="not the contents"):
    integrity.check(tmp_path / "4")
  disk = tmp_path / "other"
  _save(disk, 3)
  for name, path in storage.files_below(disk).items():
    storage.write_bytes(bucket / "back" / name, path.read_bytes())
  _check_state(bucket / "back", 3)


@pytest.fixture(name="mount")
def mount_fixture(monkeypatch):
  """Orbax as it may treat a mounted bucket: complete is what has its last file."""
  commit = ocp.path.atomicity.CommitFileTemporaryPath
  for name in ("get_default_temporary_path_class", "get_item_default_temporary_path_class"):
    monkeypatch.setattr(atomicity_defaults, name, lambda *args, **options: commit)


def test_checkpoints_on_a_mounted_bucket_are_not_cleaned_away(tmp_path, mount):
  folder = tmp_path / "c"
  _save(folder, 2, 4)
  # As Orbax 0.11 leaves it, which writes no such file on a disk.
  (folder / "2" / integrity.COMMITTED).unlink(missing_ok=True)
  (folder / "5.orbax-checkpoint-tmp").mkdir()
  _save(folder, 6)
  assert storage.names(folder) == ["4", "6"]
  (folder / "4" / integrity.COMMITTED).unlink(missing_ok=True)
  with manager.Checkpoints(folder) as checkpoints:
    restored = checkpoints.restore(4, _state(0))
  assert restored["params"]["ego"]["w"].tobytes() == _state(4)["params"]["ego"]["w"].tobytes()
  # Without our choice, Orbax's own cleaning takes that one for an unfinished one.
  cleaning = temporary_paths.is_path_temporary(epath.Path(folder / "4"))
  assert ocp.path.step.asyncio_utils.run_sync(cleaning)


def test_the_pauses_of_tensorstore_have_a_bound(monkeypatch):
  from orbax.checkpoint._src.serialization import tensorstore_utils

  monkeypatch.setenv("SUM_L_STORAGE_SECONDS", "7")
  tensorstore_retries.limit()
  for ocdbt in (True, False):
    context = tensorstore_utils.get_ts_context(use_ocdbt=ocdbt)
    assert context.spec.to_json()["gcs_request_retries"] == {"max_retries": 3}  # 1 + 2 + 4 s.
  monkeypatch.setattr(tensorstore_utils, "_BASE_TS_CONTEXT", None)
  with pytest.raises(RuntimeError, match="_BASE_TS_CONTEXT isn't what it was"):
    tensorstore_retries.limit()


def test_a_login_that_runs_out_while_saving(bucket, storage_url, monkeypatch):
  """TensorStore's token; the clients of other files have one of their own."""
  state = {"w": np.arange(1000.0)}
  with fault_proxy.FaultProxy(storage_url, kinds=("401",)) as proxy:
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", proxy.url)
    monkeypatch.setenv(retries.PATIENCE_VARIABLE, "1")
    with manager.Checkpoints(bucket / "c") as checkpoints:
      checkpoints.save(1, state, {})
      checkpoints.wait()
      assert proxy.requests and not proxy.faults
      proxy.share = 1.0
      with pytest.raises(manager.SaveError, match="step 2 can't .*Complete is step 1[.]"):
        checkpoints.save(2, state, {})
        checkpoints.wait()
      assert proxy.faults["401"]
  assert integrity.steps(bucket / "c") == [1]
  with manager.Checkpoints(bucket / "c") as checkpoints:
    assert checkpoints.latest_step == 1


# Two processes with two devices each save arrays that are spread over all of them.
_TOGETHER = """
import sys, time
import jax
folder, address, index, steps = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, int(index))
from jax.experimental import multihost_utils
import numpy as np
from sum_l_jax.checkpoint import manager
from sum_l_jax.system import peers
from tests.support import short_back_offs

short_back_offs.install()
others = peers.joined()
mesh = jax.sharding.Mesh(jax.devices(), "data")
spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

def state(step):
  whole = np.random.default_rng(step).standard_normal((8, 1000)).astype(np.float32)
  return {"w": jax.make_array_from_callback(whole.shape, spread, lambda i: whole[i])}

try:
  with manager.Checkpoints(folder, keep=2) as checkpoints:
    for step in map(int, steps.split(",")):
      checkpoints.save(step, state(step), {"step": step})
      for _ in range(30):  # The steps of a training.
        multihost_utils.sync_global_devices("step")
        time.sleep(0.05)
        checkpoints.poll()
    latest = checkpoints.latest_step
    restored, wanted = checkpoints.restore(latest, state(0)), state(latest)
    for one, other in zip(restored["w"].addressable_shards, wanted["w"].addressable_shards):
      assert np.asarray(one.data).tobytes() == np.asarray(other.data).tobytes()
  print("good", latest, flush=True)
except Exception as error:
  others.end(others.explain(error), 2)
"""


def _together(folder, *, steps: str, environments=({}, {})) -> list[tuple[int, str]]:
  address = f"127.0.0.1:{free_ports.free_port()}"
  started = [
    subprocess.Popen(
      [sys.executable, "-c", _TOGETHER, str(folder), address, str(index), steps],
      cwd=ROOT,
      env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for index, environment in enumerate(environments)
  ]
  try:
    said = [one.communicate(timeout=200)[0] for one in started]
  finally:
    for one in started:
      one.kill()
  return [(one.returncode, text) for one, text in zip(started, said)]


def test_two_processes_save_to_a_bucket(bucket):
  for index, (code, said) in enumerate(_together(bucket / "c", steps="1,2,3")):
    assert code == 0 and "good 3" in said, (index, said)
  assert storage.names(bucket / "c") == ["2", "3"]
  below = storage.files_below(bucket / "c" / "3" / "state")
  assert {name.split("/")[0] for name in below} >= {"ocdbt.process_0", "ocdbt.process_1"}
  integrity.check(bucket / "c" / "3")


def test_a_bucket_that_fails_for_one_process_ends_both_with_a_message(bucket, storage_url):
  """Its arrays can't be written; the other one would wait for 20 minutes."""
  with fault_proxy.FaultProxy(storage_url, share=1.0, kinds=("503",)) as proxy:
    environment = {"TENSORSTORE_GCS_HTTP_URL": proxy.url, "SUM_L_STORAGE_SECONDS": "1"}
    start = time.monotonic()
    (first, words), (second, own) = _together(
      bucket / "c", steps="1,2", environments=({}, environment)
    )
    assert proxy.requests > 3
  assert (first, second) == (1, 2)
  assert "The checkpoint of step 1 can't be written" in own.splitlines()[-1]
  assert "Process 1 of 2" in words.splitlines()[-1]
  assert "The checkpoint of step 1 can't be written" in words.splitlines()[-1]
  assert time.monotonic() - start < 100
  assert integrity.steps(bucket / "c") == []
