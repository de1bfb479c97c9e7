"""Processes that agree on what they start with, and name who is lost."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from sum_l_jax.system import peers
from tests.support import environments
from tests.support import free_ports

ROOT = pathlib.Path(__file__).parents[2]


class Table:
  """The coordination service's table of texts, in one process."""

  def __init__(self, count: int) -> None:
    self._texts, self._change = {}, threading.Condition()
    self._barrier = threading.Barrier(count)

  def key_value_set(self, key, value, allow_overwrite=False):
    with self._change:
      assert allow_overwrite or key not in self._texts
      self._texts[key] = value
      self._change.notify_all()

  def blocking_key_value_get(self, key, timeout_in_ms):
    with self._change:
      assert self._change.wait_for(lambda: key in self._texts, timeout_in_ms / 1000)
      return self._texts[key]

  def key_value_dir_get(self, key):
    with self._change:
      return [item for item in self._texts.items() if item[0].startswith(key)]

  def wait_at_barrier(self, name, timeout_in_ms):
    self._barrier.wait(timeout_in_ms / 1000)


def together(monkeypatch, work, count=3):
  """The results of `work(peers, index)`, or its errors, in threads for processes."""
  names = iter([f"host\x1b{i}" for i in range(count)])
  monkeypatch.setattr(peers.socket, "gethostname", lambda: next(names))
  table = Table(count)

  def one(index):
    one = peers.Peers(table, index, count, "127.0.0.1:1")
    try:
      return work(one, index)
    except ValueError as error:
      return error
    finally:
      one._over.set()
      one.last_words.close()

  with concurrent.futures.ThreadPoolExecutor(count) as pool:
    return list(pool.map(one, range(count)))


FIELDS = {"config.seed": 1, "jax": "0.10.2", "data: ego": "abc"}


def test_equal_values_pass(monkeypatch):
  assert together(monkeypatch, lambda one, _: one.compare(dict(FIELDS))) == [None] * 3


def test_a_difference_names_host_and_field_in_all_processes(monkeypatch):
  def work(one, index):
    more = {"config.seed": 2, "new": "\x1b[31mred"} if index == 1 else {}
    one.compare(FIELDS | more)

  errors = together(monkeypatch, work)
  assert all(isinstance(error, peers.DisagreementError) for error in errors)
  assert len(set(map(str, errors))) == 1
  text = str(errors[0])
  (line,) = (line for line in text.splitlines() if line.startswith("  Process"))
  assert line.startswith("  Process 1 of 3 (host?") and "config.seed is 2, not 1" in line
  assert "new is " in line and "not absent" in line
  assert "jax" not in line and "ego" not in line
  assert "\x1b" not in text


def test_of_two_the_first_is_the_measure(monkeypatch):
  errors = together(monkeypatch, lambda one, index: one.compare({"x": index}), count=2)
  assert "Process 1 of 2" in str(errors[0]) and "x is 1, not 0" in str(errors[0])


@pytest.mark.parametrize("own_error", [True, False])
def test_the_first_leaves_after_the_others(monkeypatch, own_error):
  """They read who ended in process 0, also where it ends because of another one."""
  monkeypatch.setattr(peers, "BEAT_SECONDS", 1.0)
  monkeypatch.setattr(peers.os, "_exit", lambda status: None)
  may_read = threading.Event()

  def work(one, index):
    if index == 2:
      assert may_read.wait(20)
      time.sleep(0.3)  # A process that does not wait would be gone by now.
      one._leave("process 1 failed")
    elif index == 1:
      one.end("damaged", 2)
      may_read.set()
    elif own_error:
      one.end("damaged as well", 2)
    else:
      one._leave("process 1 failed")
    return one._read("ended").keys() | one._read("left").keys()

  (gone, *_) = together(monkeypatch, work)
  assert gone == {0, 1, 2}


def test_who_ends_in_order_is_not_ended(monkeypatch):
  """The error of another process is found between two beats, and the work is done."""
  monkeypatch.setattr(peers, "BEAT_SECONDS", 0.5)
  ended = []
  monkeypatch.setattr(peers.Peers, "_leave", lambda self, *_: ended.append(self.index))
  table = Table(1)
  one = peers.Peers(table, 0, 1, "127.0.0.1:1")
  one.count = 2
  one._hosts.append("host1")
  table.key_value_set("sum_l_jax/ended/1", "damaged")
  limit = time.monotonic() + 20
  while not one._ended and time.monotonic() < limit:
    time.sleep(0.01)
  one.close()
  one.last_words.close()
  assert one._ended == {1: "damaged"} and not one._thread.is_alive()
  assert not ended


def test_what_the_first_makes_and_its_errors_reach_all(monkeypatch):
  def fails():
    raise OSError("no space")

  def work(one, index):
    made = one.from_first(lambda: f"made by {index}")
    try:
      one.from_first(fails)
    except (ValueError, OSError) as error:
      return made, str(error)

  assert together(monkeypatch, work) == [("made by 0", "no space")] * 3


_RUN = """
import os, signal, sys, time
port, index, what = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
from sum_l_jax import main
from sum_l_jax.system import multihost, peers
peers.BEAT_SECONDS, peers.SILENT_SECONDS = 0.3, 3.0
multihost.connect(multihost.Job(f"127.0.0.1:{port}", 3, index), heartbeat=10)
import jax
from jax.experimental import multihost_utils
main.flags.FLAGS.mark_as_parsed()
try:
  multihost.meet()
  # The addresses that Gloo connects: a process that compiles for long is not waited for.
  assert jax._src.distributed.global_state.client.key_value_dir_get_bytes("cpu:gloo/")
  if what == f"kill {index}":
    os.kill(os.getpid(), signal.SIGKILL)
  if what == f"fail {index}":
    raise ValueError("the data of this machine are damaged")
  if what == "kill 1":
    multihost_utils.sync_global_devices("one does not come")
  time.sleep(100)
except Exception as error:
  main._fail(error)
"""


def launch(what: str) -> list[tuple[int, str]]:
  """Exit status and last line of three processes."""
  port = str(free_ports.free_port())
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", _RUN, port, str(index), what],
      cwd=ROOT,
      env=environments.training(),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(3)
  ]
  try:
    said = [process.communicate(timeout=90)[1] for process in processes]
  finally:
    for process in processes:
      process.kill()
  return [(p.returncode, text.strip().splitlines()[-1]) for p, text in zip(processes, said)]


@pytest.mark.parametrize("what", ["kill 1", "kill 0", "kill 2"])
def test_the_last_line_names_the_process_that_is_lost(what):
  """One waits in a collective, the others notice by themselves; 0 connects all."""
  lost = int(what[-1])
  host = os.uname().nodename
  for index, (code, line) in enumerate(launch(what)):
    if index == lost:
      assert code == -signal.SIGKILL
      assert line == f"error: Process {index} of 3 ({host}) was killed or crashed."
    else:
      assert code != 0
      assert line.startswith("error: ") and f"Process {lost} of 3 ({host})" in line, line


def test_an_error_in_one_process_ends_all(monkeypatch):
  (_, first), (own, failed), (_, third) = done = launch("fail 1")
  assert own == 2 and all(code for code, _ in done)
  assert failed == "error: the data of this machine are damaged"
  for line in (first, third):
    assert "Process 1 of 3" in line and line.endswith("the data of this machine are damaged")
