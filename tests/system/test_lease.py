"""One run at a time writes into a folder."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from sum_l_jax import main
from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import manager
from sum_l_jax.system import lease
from sum_l_jax.system import peers
from sum_l_jax.system import storage
from sum_l_jax.train import metric_log

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def short(monkeypatch):
  monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
  monkeypatch.setattr(lease, "SILENT_SECONDS", 0.6)
  monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.05)


def write(folder, number=1, **changes) -> lease.Holder:
  """Puts down the lease of a process of another machine, which renews nothing."""
  holder = lease.Holder.this_process("train")
  holder = dataclasses.replace(holder, **{"host": "far", "machine": "another", **changes})
  assert lease.FolderStore(folder).create(number - 1, holder.to_json()) == number
  return holder


def test_the_second_is_told_who_and_since_when(tmp_path):
  with lease.held(tmp_path, what="the first command") as first:
    with pytest.raises(lease.HeldError) as error:
      lease.take(tmp_path, what="the second")
    number, text = lease.FolderStore(tmp_path).latest()
  assert number == 1 and first.nonce in text
  since = lease.Holder.from_json(text).since
  for words in (str(tmp_path), f"process {os.getpid()}", since, "the first command"):
    assert words in str(error.value)


def test_it_passes_on_and_numbers_never_start_over(tmp_path):
  for number in (1, 2, 3):
    with lease.held(tmp_path, what="a run"):
      assert lease.FolderStore(tmp_path).latest()[0] == number
  assert [path.name for path in (tmp_path / lease.FOLDER).iterdir()] == ["3"]


_HOLD = """
import sys, time
from sum_l_jax.system import addresses
from sum_l_jax.system import lease
lease.take(addresses.path(sys.argv[1]), what="one that is killed")
print("held", flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("place", ["tmp_path", "bucket"])
def test_after_a_kill_it_passes_on_at_once(place, request, monkeypatch):
  folder = request.getfixturevalue(place)
  monkeypatch.setattr(lease, "SILENT_SECONDS", 1000.0)
  process = subprocess.Popen(
    [sys.executable, "-c", _HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == "held\n"
  with pytest.raises(lease.HeldError, match=f"process {process.pid} .*one that is killed"):
    lease.take(folder, what="too early")
  process.send_signal(signal.SIGKILL)
  # A zombie until its parent asks for it: it runs no more.
  while pathlib.Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "Z":
    time.sleep(0.01)
  lease.take(folder, what="the next").close()
  process.wait()


def test_another_process_with_the_same_number_is_not_the_holder(tmp_path, monkeypatch):
  monkeypatch.setattr(lease, "SILENT_SECONDS", 1000.0)
  own = lease.Holder.this_process("")
  write(tmp_path, machine=own.machine, pid=own.pid, started=own.started - 1)
  lease.take(tmp_path, what="the next").close()


def test_a_lease_of_another_machine_is_watched(tmp_path):
  """Its clock doesn't matter: what counts is whether the file changes."""
  holder = write(tmp_path, since="2999-01-01 00:00:00 UTC")
  stop = threading.Event()

  def renew():
    for renewals in range(1, 10_000):
      if stop.wait(0.2):
        return
      text = dataclasses.replace(holder, renewals=renewals).to_json()
      lease.FolderStore(tmp_path).rewrite(1, text)

  with concurrent.futures.ThreadPoolExecutor() as pool:
    pool.submit(renew)
    try:
      with pytest.raises(lease.HeldError, match="on 'far', since 2999"):
        lease.take(tmp_path, what="too early")
    finally:
      stop.set()
  start = time.monotonic()
  lease.take(tmp_path, what="the next").close()
  assert time.monotonic() - start >= 0.6  # Not before it was silent for so long.


def test_who_was_silent_for_too_long_is_told_and_writes_nothing(tmp_path):
  lost = []
  first = lease.take(tmp_path, what="paused", lost=lost.append)
  holder = write(tmp_path, number=2)
  first._thread.join(timeout=10)
  assert len(lost) == 1 and "took its folder over: process" in str(lost[0])
  first.close()
  assert lease.FolderStore(tmp_path).latest() == (2, holder.to_json())


def test_while_the_others_are_told_nothing_is_written_any_more(tmp_path, monkeypatch):
  """Process 0 of several lives on for seconds, with all its threads."""
  monkeypatch.setattr(storage, "_refused", None)
  theirs = tmp_path / "status.json"
  theirs.write_text("theirs")
  (tmp_path / "1").mkdir()
  log = metric_log.MetricLog(tmp_path, start_step=0)
  checkpoints = manager.Checkpoints(tmp_path / "checkpoints")
  writes = [
    lambda: storage.write_text(theirs, "mine"),
    lambda: storage.write_text("gs://bucket/status.json", "mine"),
    lambda: storage.upload(theirs, "gs://bucket/a"),
    lambda: storage.create(tmp_path / "new", b"mine"),
    lambda: storage.remove(theirs),
    lambda: storage.remove_tree(tmp_path),
    lambda: integrity.remove(tmp_path, 1),
    lambda: log.write(1, {"loss": 1.0}),
    lambda: checkpoints.save(1, {"w": np.zeros(3)}, {}),
  ]
  done = []

  class Others:
    def end(self, text, status):
      for write_now in writes:
        with pytest.raises(lease.LostError, match="taken over"):
          write_now()
      done.append((text, status))

  monkeypatch.setattr(peers, "known", Others)
  monkeypatch.setattr(lease, "end_process", lambda error: None)
  before = sorted(tmp_path.rglob("*"))
  main._lost(lease.LostError("taken over"))
  checkpoints.close()
  assert done == [("taken over", 2)]
  assert theirs.read_text() == "theirs" and sorted(tmp_path.rglob("*")) == before


def test_of_many_that_start_together_one_gets_it(tmp_path):
  write(tmp_path, number=7, released=True)
  together = threading.Barrier(8)

  def start(_):
    together.wait()
    try:
      return lease.take(tmp_path, what="one of many")
    except lease.HeldError:
      return None

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    leases = [one for one in pool.map(start, range(8)) if one]
  assert len(leases) == 1
  leases[0].close()


def test_a_stale_listing_takes_nothing_from_whoever_is_further(tmp_path):
  write(tmp_path, number=5)
  store = lease.FolderStore(tmp_path)
  fresh, seen = store.latest, []

  def stale():
    seen.append(1)
    old = lease.Holder.this_process("long ago")
    return (3, dataclasses.replace(old, released=True).to_json()) if len(seen) == 1 else fresh()

  store.latest = stale
  taken = lease.take(tmp_path, what="late", store=store)
  assert taken._number == 6  # Not 4; and 5 was watched first.
  taken.close()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "1"}', "[" * 5000, "\udcff"])
def test_a_damaged_lease_holds_nobody_up_for_ever(text, tmp_path):
  folder = tmp_path / lease.FOLDER
  folder.mkdir()
  (folder / "1").write_bytes(text.encode(errors="surrogateescape"))
  lease.take(tmp_path, what="the next").close()


def test_what_a_lease_says_does_not_reach_the_terminal_raw(tmp_path):
  text = str(write(tmp_path, host="\x1b[2Jfar", since="\x1b]0;x\x07", what="\x1b[31mrun\n"))
  assert text.isprintable() and text.isascii()


def test_one_that_waits_goes_on_when_the_first_is_done(tmp_path):
  first = lease.take(tmp_path, what="first")
  threading.Timer(0.3, first.close).start()
  with lease.waited_for(tmp_path, what="second") as second:
    assert second._number == 2
