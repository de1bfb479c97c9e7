"""The door's accesses to a bucket, while each request may meet each fault."""

from __future__ import annotations

import itertools
import time

from etils import epath
import pytest

from sum_l_jax.data import records
from sum_l_jax.system import retries
from sum_l_jax.system import storage
from tests.support import fault_proxy
from tests.support import short_back_offs
from tests.support import storage_server

pytestmark = pytest.mark.slow
LARGE = b"0123456789abcdef" * 2**19  # 8 MiB: gcsfs uploads it in parts.


@pytest.fixture(name="proxy")
def proxy_fixture(storage_url, monkeypatch):
  import gcsfs.retry

  for module, name in ((gcsfs.retry, "asyncio"), (retries, "FIRST_PAUSE")):
    monkeypatch.setattr(module, name, getattr(module, name))
  short_back_offs.install()
  with fault_proxy.FaultProxy(storage_url, seconds=0.01) as proxy:
    for name, value in storage_server.environment(proxy.url).items():
      monkeypatch.setenv(name, value)
    yield proxy


def _read(path):
  assert storage.read_bytes(path / "small") == b"small"


def _read_piece(path):
  with storage.open_binary(path / "large") as file:
    file.seek(2**20 + 3)
    assert file.read(5) == LARGE[2**20 + 3 :][:5]


def _write(path):
  storage.write_bytes(path / "new", b"first")
  storage.write_bytes(path / "new", b"second")
  assert storage.read_bytes(path / "new") == b"second"


def _write_large(path):
  storage.write_bytes(path / "new", LARGE)
  assert storage.crc32c(path / "new") == storage.crc32c(path / "large")


def _upload(path):
  with storage.replacing(path / "new") as scratch:
    scratch.write_bytes(LARGE)
  assert storage.size(path / "new") == len(LARGE)


def _create(path):
  assert storage.create(path / "new", b"mine")
  assert not storage.create(path / "new", b"another")
  assert storage.read_bytes(path / "new") == b"mine"


def _list(path):
  assert storage.names(path) == ["large", "small"]
  assert list(storage.files_below(path)) == ["large", "small"]
  assert storage.matching(path, "sm*") == [path / "small"]


def _look(path):
  assert storage.is_file(path / "small") and not storage.is_file(path / "none")
  assert storage.size(path / "small") == 5


def _remove(path):
  storage.remove(path / "small")
  assert not storage.is_file(path / "small")
  storage.remove_tree(path)
  assert storage.files_below(path) == {}


def _copy(path):
  with storage.local_copy(path / "large") as copy:
    assert copy.read_bytes() == LARGE


def _look_with_epath(path):
  """What modules call on the path itself."""
  assert (path / "small").exists() and not (path / "none").exists()
  assert path.is_dir() and not (path / "small").is_dir()
  assert sorted(p.name for p in path.iterdir()) == ["large", "small"]
  (path / "a" / "b").mkdir(parents=True, exist_ok=True)
  assert (path / "large").read_bytes() == LARGE


TASKS = (
  _read, _read_piece, _write, _write_large, _upload, _create, _list, _look, _remove, _copy,
  _look_with_epath,
)  # fmt: skip


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_every_fault_at_every_request(task, bucket, proxy, storage_url, monkeypatch):
  """Each request meets each kind of fault once; the task ends as without any."""
  numbers = itertools.count()

  def run(kind, at):
    path = bucket / str(next(numbers))
    with monkeypatch.context() as direct:
      direct.setenv("STORAGE_EMULATOR_HOST", storage_url)
      storage.write_bytes(path / "small", b"small")
      storage.write_bytes(path / "large", LARGE)
    proxy.requests = 0
    proxy.planned.clear()
    proxy.planned.extend([""] * at + [kind])
    task(epath.Path(path))
    return proxy.requests

  requests = run("", 0)
  assert requests > 0
  for kind in fault_proxy.KINDS:
    before = proxy.faults[kind]
    for at in range(requests):
      run(kind, at)
    # The second of two requests side by side is sometimes not needed.
    assert before + max(requests // 2, 1) <= proxy.faults[kind] <= before + requests


def _record_of_a_shard(path):
  data = records.ClipDataset(path, "train")
  assert [data.clips[0].clip_id, data.clips[10].clip_id] == ["exo_train_000", "exo_train_010"]
  assert data.read_frames(10, [0]) != data.read_frames(0, [0])


def test_a_token_that_runs_out_while_shards_are_read(
  bucket, proxy, storage_url, tiny_exo, monkeypatch
):
  """The client in C++ calls that a permanent error; it is opened again."""
  with monkeypatch.context() as direct:
    direct.setenv("STORAGE_EMULATOR_HOST", storage_url)
    for path in sorted(tiny_exo.iterdir()):
      storage.upload(path, bucket / path.name)
  _record_of_a_shard(bucket)
  requests = proxy.requests
  for at in range(requests):
    proxy.planned.clear()
    proxy.planned.extend([""] * at + ["401"])
    _record_of_a_shard(bucket)
  assert proxy.faults["401"] > requests // 2


def test_a_fault_that_stays_ends_after_the_bound(bucket, proxy, monkeypatch):
  monkeypatch.setenv(retries.PATIENCE_VARIABLE, "1")
  proxy.share, proxy.kinds = 1.0, ("503",)
  start = time.monotonic()
  with pytest.raises(Exception, match="503"):
    storage.read_bytes(bucket / "a")
  assert time.monotonic() - start < 30
