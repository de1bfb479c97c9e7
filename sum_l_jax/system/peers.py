"""The other processes of a run: what all must agree on, and who is lost.

The processes exchange texts through the table that JAX's coordination service
keeps in process 0. Each process writes there which machine it is on, and every
few seconds that it is still there. So a process that waits for a lost one can say
which it is. A process that ends with an error ends the others too, which would
otherwise wait for minutes and end with a stack trace.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import hashlib
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from typing import Any
from typing import NoReturn

from absl import logging

_ROOT = "sum_l_jax"
BEAT_SECONDS = 3.0
# A process that was silent for this long is named where others wait for it.
SILENT_SECONDS = 20.0
# How long a process waits for the others at a point that all must reach.
WAIT_SECONDS = 3600.0
# Seconds that each function of `at_leaving` may take.
LEAVE_SECONDS = 10.0
_MOST_SHOWN = 8
# Exit status where another process failed or is lost.
STATUS = 1
# What the libraries for collectives say when a connection breaks.
_BROKEN = re.compile(
  r"UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|Gloo|NCCL|[Cc]onnection|coordination service"
)
# Program of a helper process that outlives this one. JAX ends a process that lost
# another one from a thread of C++, with a stack trace as its last output, and no
# Python code runs after that.
_LAST_WORDS = r"""
import os, socket, sys, time
word = ""
for line in sys.stdin:
  word = line.rstrip("\n")
  if word == "bye":
    sys.exit()
own, _, coordinator = sys.argv[1:]
if not word:
  host, _, port = coordinator.rpartition(":")
  try:
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    word = own
  except (OSError, ValueError):
    word = sys.argv[2]
time.sleep(0.5)
os.write(2, ("\nerror: " + word + "\n").encode())
"""


# Functions that are called with the last line when this process ends because of
# another one, wherever it is in its work. They write what can still be written.
at_leaving: list[Callable[[str], object]] = []


def _call_before_leaving(text: str) -> None:
  """Calls the functions of `at_leaving`, each for `LEAVE_SECONDS` at most."""

  def call(function: Callable[[str], object]) -> None:
    with contextlib.suppress(Exception):  # The last line says what matters.
      function(text)

  for function in tuple(at_leaving):
    thread = threading.Thread(target=call, args=(function,), daemon=True)
    thread.start()
    thread.join(LEAVE_SECONDS)


class DisagreementError(ValueError):
  """The processes of a run were not started alike."""


def clean(text: str, limit: int = 600) -> str:
  """One printable line of a text that another machine sent."""
  line = " ".join(text.split())
  line = "".join(c if c.isprintable() else "?" for c in line)
  return line if len(line) <= limit else line[:limit] + " ..."


class LastWords:
  """Prints a last line if this process dies without printing one itself."""

  def __init__(self, own: str, unreachable: str, coordinator: str) -> None:
    """Starts the helper that says it.

    Args:
      own: said while nothing else was given by `say`.
      unreachable: said instead if nobody answers at the coordinator's address.
      coordinator: that address, "host:port".
    """
    self._helper = subprocess.Popen(
      [sys.executable, "-I", "-S", "-c", _LAST_WORDS, own, unreachable, coordinator],
      stdin=subprocess.PIPE,
      text=True,
      # Ctrl-C is for the run.
      start_new_session=True,
    )
    atexit.register(self.close)

  def say(self, word: str) -> None:
    """Sets the words; "" takes them back."""
    pipe = self._helper.stdin
    if pipe is not None and not pipe.closed:
      with contextlib.suppress(OSError, ValueError):
        pipe.write(word.replace("\n", " ") + "\n")
        pipe.flush()

  def close(self) -> None:
    """Ends the helper: this process prints its own last line."""
    self.say("bye")
    if self._helper.stdin is not None:
      with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
        self._helper.stdin.close()
        self._helper.wait(5)


class Peers:
  """This process among those of its run; `joined` makes it."""

  def __init__(self, client: Any, index: int, count: int, coordinator: str) -> None:
    """Tells the others which machine this process is on, and learns theirs.

    Args:
      client: client of JAX's coordination service.
      index: number of this process.
      count: number of all.
      coordinator: address of process 0.
    """
    self._client, self.index, self.count = client, index, count
    self._calls = itertools.count()
    self._lock = threading.Lock()
    self._heard: dict[int, tuple[str, float]] = {}
    self._ended: dict[int, str] = {}
    self._ending = False
    self._over = threading.Event()
    hosts = self.gather(socket.gethostname())
    self._hosts = [clean(host, 100) for host in hosts]
    own = f"{self.name(index)} was killed or crashed."
    first = f"{self.name(0)}, through which the processes are connected, is lost. {_GOES_ON}"
    self.last_words = LastWords(own, first if index else own, coordinator)
    self._thread = threading.Thread(target=self._watch, daemon=True)
    self._thread.start()
    # A thread that is within C++ when Python ends takes the process down.
    atexit.register(self.close)

  def close(self) -> None:
    """Stops looking after the others; called at the end of the process."""
    self._over.set()
    self._thread.join(4 * BEAT_SECONDS)

  def name(self, index: int) -> str:
    """A process as messages name it."""
    return f"Process {index} of {self.count} ({self._hosts[index]})"

  def gather(self, text: str) -> list[str]:
    """Exchanges texts; every process calls this equally often.

    Returns:
      The text of each process, by its number.
    """
    key = f"{_ROOT}/{next(self._calls)}"
    self._client.key_value_set(f"{key}/{self.index}", text)
    self._client.wait_at_barrier(key, int(WAIT_SECONDS * 1000))
    return [self._get(f"{key}/{index}") for index in range(self.count)]

  def _get(self, key: str) -> str:
    return self._client.blocking_key_value_get(key, int(WAIT_SECONDS * 1000))

  def from_first(self, make: Callable[[], str]) -> str:
    """Returns what process 0 makes in all processes, or raises its error in all.

    Raises:
      ValueError: `make` raised a ValueError or OSError in process 0.
    """
    key = f"{_ROOT}/{next(self._calls)}"
    if self.index:
      answer = json.loads(self._get(key))
      if "error" in answer:
        raise ValueError(clean(answer["error"], 3000))
      return answer["text"]
    try:
      text = make()
    except (ValueError, OSError) as error:
      self._client.key_value_set(key, json.dumps({"error": str(error)}))
      raise
    self._client.key_value_set(key, json.dumps({"text": text}))
    return text

  def compare(self, fields: Mapping[str, Any]) -> None:
    """Makes sure that all processes bring the same values.

    Args:
      fields: values of JSON by name.

    Raises:
      DisagreementError: they don't; names processes and fields, in all
        processes.
    """
    own = {name: json.dumps(value, sort_keys=True) for name, value in fields.items()}
    text = json.dumps(own, sort_keys=True)
    digests = self.gather(hashlib.sha256(text.encode()).hexdigest())
    if len(set(digests)) == 1:
      return
    texts = self.gather(text)
    # Most are right; of two, the first.
    most = max(digests, key=lambda digest: (digests.count(digest), -digests.index(digest)))
    right = digests.index(most)
    wanted = json.loads(texts[right])
    others = [i for i, digest in enumerate(digests) if digest != most]
    lines = [_differences(self.name(i), wanted, json.loads(texts[i])) for i in others]
    more = len(lines) - _MOST_SHOWN
    raise DisagreementError(
      "The processes of this run were not started alike; trained together they would learn"
      f" something that nobody asked for. Compared with {self.name(right)}:\n"
      + "\n".join(lines[:_MOST_SHOWN])
      + (f"\nand {more} more processes" if more > 0 else "")
      + "\nStart the same command with the same code, libraries and data on all machines."
    )

  def _watch(self) -> None:
    """Says that this process is there, and looks who else is."""
    for beat in itertools.count():
      if self._over.is_set():
        return
      try:
        self._client.key_value_set(f"{_ROOT}/alive/{self.index}", str(beat), True)
        alive = self._read("alive")
        ended = self._read("ended")
      except Exception:  # If the service is gone, JAX ends this process.
        self._over.wait(BEAT_SECONDS)
        continue
      now = time.monotonic()
      with self._lock:
        for index in range(self.count):
          text = alive.get(index, "")
          if index not in self._heard or self._heard[index][0] != text:
            self._heard[index] = text, now
        self._ended = ended
        ending = self._ending
      if ended.keys() - {self.index} and not ending:
        # JAX ends this process at once when process 0 is gone.
        self.last_words.say(self.verdict() or "")
        # This process may be about to find out for itself, or to end in order.
        if self._over.wait(2 * BEAT_SECONDS):
          return
        with self._lock:
          ending = self._ending
        if not ending:
          text = self.verdict() or ""
          _call_before_leaving(text)
          self._leave(text)
      word = self.verdict()
      self.last_words.say(word or "")
      if self._over.wait(BEAT_SECONDS):
        return

  def _read(self, kind: str) -> dict[int, str]:
    prefix = f"{_ROOT}/{kind}/"
    found = {}
    for key, value in self._client.key_value_dir_get(prefix):
      number = key.rpartition("/")[2]
      if number.isdecimal() and int(number) < self.count:
        found[int(number)] = value
    return found

  def verdict(self) -> str | None:
    """Who ended with an error or is lost, as a sentence; None where all are well."""
    now = time.monotonic()
    with self._lock:
      for index, text in sorted(self._ended.items()):
        if index != self.index:
          return f"{self.name(index)} ended with an error: {clean(text)}"
      silent = [
        (index, now - since)
        for index, (_, since) in sorted(self._heard.items())
        if index != self.index and now - since >= SILENT_SECONDS
      ]
    if not silent:
      return None
    names = ", ".join(self.name(index) for index, _ in silent[:_MOST_SHOWN])
    longest = max(seconds for _, seconds in silent)
    return f"{names} can't be heard of any more, for {longest:.0f} s now. {_GOES_ON}"

  def explain(self, error: BaseException) -> str:
    """The sentence to end with after an error; may wait to learn who is lost."""
    text = str(error).strip() or type(error).__name__
    if not _BROKEN.search(f"{type(error).__name__} {text}"):
      return text
    logging.warning("Another process may be lost: %s", clean(text))
    end = time.monotonic() + SILENT_SECONDS + 3 * BEAT_SECONDS
    while time.monotonic() < end:
      word = self.verdict()
      if word:
        return word
      time.sleep(0.1)
    return text

  def end(self, text: str, status: int) -> NoReturn:
    """Ends this process after an error, and with it the others."""
    with self._lock:
      self._ending = True
    # The service may be gone, and with it who could read.
    with contextlib.suppress(Exception):
      self._client.key_value_set(f"{_ROOT}/ended/{self.index}", text, True)
    self._leave(text, status)

  def _leave(self, text: str, status: int = STATUS) -> NoReturn:
    # Leaving in order would wait for the others, who wait in a computation.
    with contextlib.suppress(Exception):
      self._client.key_value_set(f"{_ROOT}/left/{self.index}", "", True)
      # The others read in process 0 who ended, and JAX ends them once it is gone.
      end = time.monotonic() + 4 * BEAT_SECONDS
      while self.index == 0 and time.monotonic() < end:
        if len(self._read("ended").keys() | self._read("left").keys()) == self.count:
          break
        time.sleep(0.1)
    self.last_words.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, f"\nerror: {text}\n".encode())
    os._exit(status)


_GOES_ON = (
  "Look there for what happened. The same command on all machines goes on from the last checkpoint."
)


def _differences(name: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
  names = sorted(
    name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
  )
  shown = "; ".join(
    f"{clean(n, 100)} is {clean(found.get(n, 'absent'), 150)}, not"
    f" {clean(wanted.get(n, 'absent'), 150)}"
    for n in names[:_MOST_SHOWN]
  )
  more = len(names) - _MOST_SHOWN
  return f"  {name}: {shown}" + (f"; and {more} more fields" if more > 0 else "")


_joined: Peers | None = None


def joined() -> Peers | None:
  """The other processes, or None where this one is alone.

  The first call exchanges the names of the machines; all processes make it.
  """
  global _joined
  from jax._src import distributed  # There is no public way to its table.

  state = distributed.global_state
  if _joined is None and state.client is not None and state.num_processes > 1:
    address = state.coordinator_address or ""
    _joined = Peers(state.client, state.process_id, state.num_processes, address)
  return _joined


def known() -> Peers | None:
  """Like `joined`, but exchanges nothing: None where that failed."""
  return _joined


def from_first(make: Callable[[], str]) -> str:
  """Returns what process 0 makes in all processes; see `Peers.from_first`."""
  others = joined()
  return others.from_first(make) if others else make()


def compare(fields: Mapping[str, Any]) -> None:
  """Makes sure that all processes bring the same; see `Peers.compare`."""
  others = joined()
  if others:
    others.compare(fields)
