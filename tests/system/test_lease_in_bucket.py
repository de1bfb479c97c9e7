"""One run at a time writes into a folder of a bucket, also where answers are lost."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import threading
import time

import pytest

from sum_l_jax.system import buckets
from sum_l_jax.system import lease
from sum_l_jax.system import retries
from sum_l_jax.system import storage
from tests.support import fault_proxy
from tests.support import waiting


@pytest.fixture(autouse=True)
def short(monkeypatch):
  monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
  monkeypatch.setattr(lease, "SILENT_SECONDS", 0.6)
  monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.05)
  monkeypatch.setattr(retries, "FIRST_PAUSE", 0.01)


@pytest.fixture(name="proxy")
def proxy_fixture(bucket, storage_url, monkeypatch):
  """A proxy before the server, through which the leases of this process go."""
  del bucket
  with fault_proxy.FaultProxy(storage_url) as proxy:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    buckets.conditional_client.cache_clear()
    yield proxy
  buckets.conditional_client.cache_clear()


def _write(folder, **changes) -> tuple[int, lease.Holder]:
  """Puts down the lease of a process of another machine, which renews nothing."""
  holder = dataclasses.replace(
    lease.Holder.this_process("train"), **{"host": "far", "machine": "another", **changes}
  )
  number = lease.BucketStore(folder).create(0, holder.to_json())
  assert number
  return number, holder


def test_the_second_is_told_who_and_the_next_gets_it(bucket):
  with lease.held(bucket, what="the first command") as first:
    assert lease.is_seen(bucket, first.nonce)
    with pytest.raises(lease.HeldError, match=f"process {os.getpid()} .*the first command"):
      lease.take(bucket, what="the second")
  assert not lease.is_seen(bucket, "another nonce")
  with lease.waited_for(bucket, what="the next") as second:
    assert second.nonce != first.nonce
  assert list(storage.files_below(bucket)) == [".lease/lease.json"]


def test_a_lease_of_another_machine_is_taken_once_its_heart_is_dead(bucket):
  number, holder = _write(bucket)
  stop = threading.Event()

  def renew():
    now, store = number, lease.BucketStore(bucket)
    for renewals in range(1, 10_000):
      if stop.wait(0.2):
        return
      text = dataclasses.replace(holder, renewals=renewals).to_json()
      now = store.rewrite(now, text)
      assert now

  with concurrent.futures.ThreadPoolExecutor() as pool:
    done = pool.submit(renew)
    try:
      with pytest.raises(lease.HeldError, match="on 'far'"):
        lease.take(bucket, what="too early")
    finally:
      stop.set()
    done.result()
  start = time.monotonic()
  lease.take(bucket, what="the next").close()
  assert time.monotonic() - start >= 0.6  # Not before it was silent for so long.


@pytest.mark.parametrize("faults", [("lost",), ("503", "lost"), ("cut", "lost", "429", "short")])
def test_who_meets_its_own_object_after_a_lost_answer_holds_it(faults, bucket, proxy):
  proxy.planned.extend(["", *faults])  # The first request looks for a lease.
  taken = lease.take(bucket, what="one")
  assert proxy.faults.total() == len(faults)
  _, text = lease.BucketStore(bucket).latest()
  assert taken.nonce in text
  taken.close()
  _, text = lease.BucketStore(bucket).latest()
  assert lease.Holder.from_json(text).released


def test_of_many_that_start_together_one_gets_it(bucket, proxy):
  _write(bucket, released=True)
  proxy.kinds, proxy.share = ("lost", "503", "cut"), 0.3
  together = threading.Barrier(8)

  def start(_):
    together.wait()
    try:
      return lease.take(bucket, what="one of many")
    except lease.HeldError:
      return None

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    leases = [one for one in pool.map(start, range(8)) if one]
  proxy.share = 0.0
  assert proxy.faults["lost"]
  assert len(leases) == 1 and lease.is_seen(bucket, leases[0].nonce)
  leases[0].close()


def _renewals(bucket) -> int:
  return lease.Holder.from_json(lease.BucketStore(bucket).latest()[1]).renewals


def test_a_renewal_is_one_request_and_outlives_lost_answers(bucket, proxy):
  lost = []
  taken = lease.take(bucket, what="one", lost=lost.append)
  before = proxy.requests
  waiting.wait_for(lambda: taken._holder.renewals >= 5)
  assert proxy.requests - before <= taken._holder.renewals + 2
  # The next renewals are done without an answer, and then meet their own objects.
  for kind in ("lost", "503", "cut", "lost"):
    renewals = taken._holder.renewals
    proxy.planned.append(kind)
    waiting.wait_for(lambda renewals=renewals: taken._holder.renewals > renewals + 1)
  assert proxy.faults == {"lost": 2, "503": 1, "cut": 1} and not lost
  taken.close()
  assert _renewals(bucket) == taken._holder.renewals


def test_a_renewal_that_meets_another_object_ends_the_run(bucket):
  lost = []
  first = lease.take(bucket, what="paused", lost=lost.append)
  store = lease.BucketStore(bucket)
  holder = dataclasses.replace(lease.Holder.this_process("another"), host="far")
  waiting.wait_for(lambda: store.create(store.latest()[0], holder.to_json()))
  first._thread.join(timeout=10)
  assert len(lost) == 1 and "took its folder over: process" in str(lost[0])
  first.close()
  assert store.latest()[1] == holder.to_json()  # It stays that one's.


def test_what_is_made_anew_leaves_no_lease(bucket):
  output, parts = bucket / "set", bucket / ".set.parts"
  with lease.held_for(output, parts, what="build"):
    with pytest.raises(lease.HeldError, match="build"):
      with lease.held_for(output, parts, what="another"):
        pass
    storage.write_text(parts / "0.part", "done")
  assert sorted(storage.files_below(parts)) == [".lease/lease.json", "0.part"]
  with lease.held_for(output, parts, what="again"):
    lease.clear(parts)
  assert not storage.files_below(bucket)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_lease_holds_nobody_up_for_ever(text, bucket):
  storage.write_bytes(bucket / lease.FOLDER / "lease.json", text)
  lease.take(bucket, what="the next").close()
