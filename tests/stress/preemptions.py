"""Preempts whole runs at random moments, and compares what they end with.

  python -m tests.stress.preemptions --kills=200 --seed=0 \\
      --output=benchmarks/results/preemptions.json

A run is what a user starts: `python -m sum_l_jax.main` with its workdir,
checkpoints, data sets, narrations and pairs in a bucket (a storage server on
loopback), by one process or by two or four that find each other by
`--coordinator_address`, with one device each. At a random moment all of them, or
one of them, get SIGKILL, or one gets SIGTERM as from a scheduler that wants the
machine back. Then the same command is started again, by as many processes or by
another number of them, until it is done.

A run whose number of processes stays the same must end with the parameters,
statistics and optimizer of the uninterrupted run bit for bit; one whose number
changes with parameters and statistics within 1e-6 of those of one process (times
the largest value of the array, where that is above 1). After each kill, every
checkpoint that was reported as saved must be there and whole. A stated share of
the runs meets faults of the network in a tenth of its requests
(`tests.support.fault_proxy`).

Processes are forked from one that has imported everything and has started
neither JAX nor a client of storage, which saves some ten seconds a start.

Every kill and every comparison is noted in --folder, and --output is written
after each run, so that a soak that is stopped has a result; the same command
goes on.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Callable
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time
import types
import urllib.request

# Before anything imports JAX or a client of storage.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[2] / ".cache" / "jax")
)

import numpy as np

from tests.stress import arena
from tests.support import environments
from tests.support import fault_proxy
from tests.support import free_ports
from tests.support import storage_server

os.environ |= storage_server.SWITCHES
os.environ |= {
  # All programs are kept, and few compute enough to profit from an optimized one.
  "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}

# Numbers of processes, and how often each is drawn: four take eight times the
# processor time of one.
HOSTS = {1: 0.6, 2: 0.24, 4: 0.16}
STAGES = ("exo", "joint")
FAULTS = 0.1
TOLERANCE = 1e-6
# Difference of arrays that differ in a sign of zero, or by less than a subtraction
# shows.
TINY = 1e-300
_FOLDER = pathlib.Path(__file__).parents[2] / ".cache" / "preemptions"
# A run that was killed so often is left to finish.
_KILLS_A_RUN = 6
# How a machine is taken away, and how often.
_WAYS = {"SIGKILL to all": 0.5, "SIGKILL to one": 0.25, "SIGTERM": 0.25}
_CHANGING = 0.35  # Share of the runs whose number of processes changes.
# What a scheduler waits for after a signal. A process that waits for others to
# come, one of which is gone, would do so for minutes.
_GRACE_SECONDS = 60.0
# A run that takes so many times what the uninterrupted one took hangs.
_PATIENCE = 30.0
_SAVED = re.compile(r"Saved: (.+)$", re.MULTILINE)


@dataclasses.dataclass
class Setting:
  """Where a soak's data and workdirs are.

  Attributes:
    folder: local folder of logs and of the journal.
    base: folder, or address in a bucket, of all that the runs read and write.
    server: address of the storage server; empty where all is local.
    proxy: address of the proxy that injects faults.
    seconds: what an uninterrupted run took, by number of processes.
  """

  folder: pathlib.Path
  base: str
  server: str
  proxy: str
  seconds: dict[int, float] = dataclasses.field(default_factory=dict)

  def environment(self, *, faults: bool) -> dict[str, str]:
    if not self.server:
      return {}
    return storage_server.environment(self.proxy if faults else self.server)


class Pod:
  """The processes of one start of a run."""

  def __init__(self, setting: Setting, workdir: str, hosts: int, log: pathlib.Path, *, faults):
    self._children: dict[int, int] = {}  # Number of each, by its process id.
    self.codes: dict[int, int] = {}  # Exit status by number.
    self.logs = [log.with_name(f"{log.name}.{i}.txt") for i in range(hosts)]
    port = free_ports.free_port()
    for index in range(hosts):
      arguments = _arguments(setting, workdir)
      if hosts > 1:
        arguments += [
          "--coordinator_address=127.0.0.1",
          f"--coordinator_port={port}",
          f"--num_processes={hosts}",
          f"--process_id={index}",
        ]
      environment = environments.training(
        devices=1,
        # See tests/experiment/test_multihost_runs.py.
        NPROC="16",
        **setting.environment(faults=faults),
      )
      task = lambda a=arguments, e=environment: _train(a, e, faults=faults)
      self._children[arena.fork(task, self.logs[index])] = index

  def wait(self, seconds: float) -> bool:
    """Waits until all have ended; returns whether they did in time."""
    end = time.monotonic() + seconds
    while self._children and time.monotonic() < end:
      for child in list(self._children):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
          self.codes[self._children.pop(child)] = os.waitstatus_to_exitcode(status)
      time.sleep(0.02)
    return not self._children

  def signal(self, number: int, index: int | None = None) -> None:
    """Sends a signal to one of those that run, or to all."""
    for child, of in self._children.items():
      if index is None or of == index:
        os.kill(child, number)

  def end(self) -> None:
    self.signal(signal.SIGKILL)
    while not self.wait(1.0):
      pass

  def __str__(self) -> str:
    return "\n".join(
      f"process {i} ended with {self.codes.get(i)}:\n{log.read_text(errors='replace')[-5000:]}"
      for i, log in enumerate(self.logs)
    )


def _arguments(setting: Setting, workdir: str) -> list[str]:
  base = setting.base
  return [
    f"--config={setting.folder / 'config.py'}",
    f"--workdir={workdir}",
    f"--config.ego.dataset={base}/ego",
    f"--config.exo.datasets=('{base}/exo',)",
    f"--config.narrations={base}/narrations.npz",
    f"--config.pairs.table={base}/pairs.npz",
    "--config.checkpoint.every=2 steps",
    "--config.eval.every=0 steps",
    "--config.log_every_steps=1",
  ]


def _train(arguments: list[str], environment: dict[str, str], *, faults: bool) -> None:
  """What `python -m sum_l_jax.main` does; in a child."""
  from absl import app

  from sum_l_jax import main

  os.environ.clear()
  os.environ.update(environment)
  _cache_programs()
  if faults:
    from tests.support import short_back_offs

    short_back_offs.install()
  sys.argv = ["sum_l_jax.main", *arguments]
  app.run(main.main, flags_parser=main._parse)


def _cache_programs() -> None:
  """Lets each process of a run keep its compiled programs.

  JAX lets the first one do so, whose programs the others use on GPU and TPU. On
  CPU theirs have other keys, so that they would compile at every start.
  """
  from jax._src import compiler

  first = types.SimpleNamespace(process_id=0, client=None)
  compiler.distributed = types.SimpleNamespace(global_state=first)


def _do(task: Callable[[], object], log: pathlib.Path) -> None:
  """Runs a task that uses storage, in a child; the parent must not.

  Raises:
    arena.LostError: it failed.
  """
  child = arena.fork(task, log)
  _, status = os.waitpid(child, 0)
  if status:
    raise arena.LostError(log.read_text(errors="replace")[-5000:])


def _write_data(setting: Setting) -> None:
  """Writes the data locally, and copies it to where the runs read it."""
  from etils import epath

  from tests.support import runs

  local = setting.folder / "data"
  runs.prepare_training(local)
  (local / "config.py").rename(setting.folder / "config.py")
  for path in sorted(local.rglob("*")):
    if path.is_file():
      to = epath.Path(setting.base) / path.relative_to(local).as_posix()
      to.parent.mkdir(parents=True, exist_ok=True)
      to.write_bytes(path.read_bytes())


def _read_result(workdir: str, to: pathlib.Path) -> None:
  """Copies all arrays of both stages' last checkpoints, and the scores."""
  from etils import epath

  from sum_l_jax.checkpoint import integrity
  from sum_l_jax.checkpoint import weight_files
  from tests.support import checkpoints

  arrays = {}
  for stage in STAGES:
    folder = weight_files.find_checkpoint(epath.Path(workdir) / stage)
    integrity.check(folder)
    for name, value in checkpoints.read_arrays(folder).items():
      arrays[f"{stage} {folder.name} {name}"] = np.asarray(value)
  result = json.loads((epath.Path(workdir) / "result.json").read_text())
  metrics = {name: split["metrics"] for name, split in result["splits"].items()}
  arrays["metrics"] = np.array(json.dumps(metrics, sort_keys=True))
  np.savez(to, **arrays)


def _check_saved(reported: list[str]) -> None:
  """Checks in a child that what was reported as saved is there, or newer."""
  from etils import epath

  from sum_l_jax.checkpoint import integrity

  newest = {}
  for path in map(epath.Path, reported):
    newest[path.parent] = path
  for directory, path in newest.items():
    steps = [s for s in integrity.steps(directory) if s >= int(path.name)]
    if not steps:
      raise arena.LostError(f"{path} was reported as saved and is not there.")
    for step in steps:
      integrity.check(directory / str(step))


def _compare(found: pathlib.Path, whole: pathlib.Path, *, optimizer: bool) -> float:
  """Returns the largest difference; 0.0 where all is equal bit for bit.

  Args:
    found: arrays of a run.
    whole: arrays of the run to compare it with.
    optimizer: whether the optimizer's count as well. After a change of the number
      of devices they differ by sums of gradients in another order.

  Raises:
    arena.LostError: names, shapes, types or scores differ.
  """
  largest = 0.0
  with np.load(found) as one, np.load(whole) as other:
    if sorted(one.files) != sorted(other.files):
      raise arena.LostError(f"{sorted(set(one.files) ^ set(other.files))[:5]}")
    for name in one.files:
      if " opt_state/" in name and not optimizer:
        continue
      a, b = one[name], other[name]
      if a.shape != b.shape or a.dtype != b.dtype:
        raise arena.LostError(f"{name}: {a.dtype} {a.shape}, {b.dtype} {b.shape}")
      if a.tobytes() == b.tobytes():
        continue
      if name == "metrics" or a.dtype.kind != "f":
        raise arena.LostError(f"{name} differs: {a} and {b}")
      scale = max(1.0, float(np.abs(b).max()))
      largest = max(largest, float(np.abs(a.astype(np.float64) - b).max()) / scale, TINY)
  return largest


class Soak:
  """Runs that are preempted; see the module."""

  def __init__(self, setting: Setting, seed: int):
    self._setting = setting
    self._seed = seed
    self.journal = setting.folder / "journal.jsonl"
    self.lines = arena.read_journal(self.journal)
    self._whole: dict[int, pathlib.Path] = {}

  def _note(self, **line) -> None:
    arena.append(self.journal, line)
    self.lines.append(line)

  def do_whole(self) -> None:
    """One uninterrupted run for each number of processes."""
    for hosts in HOSTS:
      workdir = f"{self._setting.base}/whole{hosts}"
      start = time.monotonic()
      pod = Pod(self._setting, workdir, hosts, self._log(f"whole{hosts}"), faults=False)
      if not pod.wait(600.0) or set(pod.codes.values()) != {0}:
        pod.end()
        raise arena.LostError(str(pod))
      # More than later ones take, where nothing was compiled yet.
      self._setting.seconds[hosts] = time.monotonic() - start
      self._whole[hosts] = self._result(workdir, f"whole{hosts}")
      difference = _compare(self._whole[hosts], self._whole[1], optimizer=False)
      print(f"{hosts} processes: {self._setting.seconds[hosts]:.1f} s, {difference=}", flush=True)
      if difference > TOLERANCE:
        raise arena.LostError(f"{hosts} processes differ from one by {difference}.")

  def _log(self, name: str) -> pathlib.Path:
    return self._setting.folder / name

  def _result(self, workdir: str, name: str) -> pathlib.Path:
    to = self._setting.folder / f"{name}.npz"

    def read():
      os.environ.update(self._setting.environment(faults=False))
      _read_result(workdir, to)

    _do(read, self._log(f"{name}.read.txt"))
    return to

  def one_run(self, number: int, most: int) -> None:
    """Starts a run, kills it `most` times at most, lets it finish, compares."""
    rng = np.random.default_rng([self._seed, number])
    faults = bool(self._setting.server) and bool(rng.random() < self.fault_share)
    changes = bool(rng.random() < _CHANGING)
    hosts = int(rng.choice(list(HOSTS), p=list(HOSTS.values())))
    used = [hosts]
    workdir = f"{self._setting.base}/run{number}"
    left, kills, done = 1.0, 0, False
    while not done:
      place = float(rng.uniform(0, left))
      way = str(rng.choice(list(_WAYS), p=list(_WAYS.values())))
      victim = int(rng.integers(hosts))
      if kills >= min(most, _KILLS_A_RUN):
        way = ""
      log = self._log(f"run{number}.{len(used)}")
      pod = Pod(self._setting, workdir, hosts, log, faults=faults)
      done, seconds = self._preempt(pod, way, victim, place, hosts, faults=faults)
      reported = _SAVED.findall(pod.logs[0].read_text(errors="replace"))

      def check(reported=reported):
        os.environ.update(self._setting.environment(faults=False))
        _check_saved(reported)

      if reported:
        _do(check, self._log(f"run{number}.check.txt"))
      self._note(
        run=number,
        hosts=hosts,
        faults=faults,
        way="" if done else way,
        at=round(seconds, 2),
        codes=[pod.codes[i] for i in range(hosts)],
        saves=len(reported),
      )
      if done and not kills:
        # A whole run in which nothing was compiled: later kills are to meet it.
        self._setting.seconds[hosts] = min(seconds, self._setting.seconds[hosts])
      if not done:
        kills += 1
        left = max(0.3, left - place / 2)
        if changes:
          hosts = int(rng.choice(list(HOSTS), p=list(HOSTS.values())))
        used.append(hosts)
    found = self._result(workdir, f"run{number}")
    same = len(set(used)) == 1
    difference = _compare(found, self._whole[used[0] if same else 1], optimizer=same)
    if difference > (0.0 if same else TOLERANCE):
      raise arena.LostError(f"run {number} with {used} processes differs by {difference}")
    self._note(run=number, compared=True, used=used, faults=faults, difference=difference)
    found.unlink()
    for path in self._setting.folder.glob(f"run{number}.*"):
      path.unlink()

  def _preempt(self, pod: Pod, way: str, victim: int, place: float, hosts: int, *, faults: bool):
    """Waits, sends the signal, waits for the end.

    Returns:
      Whether the run was done before that, and after how many seconds it was
      interrupted.
    """
    start = time.monotonic()
    whole = self._setting.seconds[hosts]
    # Sometimes beyond the end: other work may be running.
    delay = 1.2 * place * whole if way else _PATIENCE * whole * (5.0 if faults else 1.0)
    ended = pod.wait(delay)
    seconds = time.monotonic() - start
    if ended:
      if set(pod.codes.values()) != {0}:
        raise arena.LostError(f"It failed by itself:\n{pod}")
      return True, seconds
    if not way:
      pod.end()
      raise arena.LostError(f"It hangs, after {seconds:.0f} s:\n{pod}")
    if way == "SIGKILL to all":
      pod.end()
    else:
      pod.signal(signal.SIGKILL if way == "SIGKILL to one" else signal.SIGTERM, victim)
      pod.wait(_GRACE_SECONDS)
      pod.end()
    # The signal may have come when all was done.
    return set(pod.codes.values()) == {0}, seconds

  @property
  def kills(self) -> int:
    return sum(bool(line.get("way")) for line in self.lines)

  fault_share = 0.2

  def record(self) -> dict:
    """What was done, in numbers."""
    starts = [line for line in self.lines if "way" in line]
    runs = [line for line in self.lines if line.get("compared")]
    kills = [line for line in starts if line["way"]]
    same = [line for line in runs if len(set(line["used"])) == 1]
    changed = [line for line in runs if len(set(line["used"])) > 1]
    count = lambda lines, key: dict(
      sorted(collections.Counter(str(line[key]) for line in lines).items())
    )
    proxy = {}
    if self._setting.proxy:
      with urllib.request.urlopen(self._setting.proxy + fault_proxy.COUNTS) as answer:
        proxy = json.load(answer)
    return {
      "storage": "gs://" if self._setting.server else "local disk",
      "kills": len(kills),
      "kills_by_way": count(kills, "way"),
      "kills_by_processes": count(kills, "hosts"),
      "kills_with_faults": sum(line["faults"] for line in kills),
      "starts": len(starts),
      "runs_compared": len(runs),
      "runs_with_faults": sum(line["faults"] for line in runs),
      "runs_with_equal_number_of_processes": len(same),
      "of_these_equal_bit_for_bit": sum(line["difference"] == 0 for line in same),
      "runs_with_changing_number": len(changed),
      "largest_difference_of_these": max([line["difference"] for line in changed], default=0.0),
      "saves_reported_and_found": sum(line["saves"] for line in starts),
      "share_of_faults": FAULTS if self._setting.server else 0.0,
      # Counted since this start of the soak.
      "faults_injected": proxy,
      "lost": 0,
      "seed": self._seed,
    }


def _import() -> None:
  """Imports before the fork, since importing takes longer than the work."""
  from clu import metric_writers  # noqa: F401
  import orbax.checkpoint  # noqa: F401

  from sum_l_jax.experiment import final  # noqa: F401
  from sum_l_jax.experiment import loop  # noqa: F401
  from tests.support import checkpoints  # noqa: F401
  from tests.support import runs  # noqa: F401


@contextlib.contextmanager
def _setting(folder: pathlib.Path, storage: str, seed: int):
  """The storage server and its proxy, with the data."""
  if storage == "local":
    base = folder / "storage"
    shutil.rmtree(base, ignore_errors=True)
    yield Setting(folder, str(base), "", "")
    return
  server = storage_server.StorageServer()
  server.make_bucket("soak")
  # In a process of its own: this one forks, and must have no threads.
  process, url = fault_proxy.start_process(
    server.url, share=FAULTS, seed=seed, kinds=fault_proxy.TRANSIENT
  )
  try:
    yield Setting(folder, "gs://soak", server.url, url)
  finally:
    process.stdin.close()
    process.wait()
    server.stop()


def main() -> int:
  parser = argparse.ArgumentParser(
    prog="python -m tests.stress.preemptions",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--kills", type=int, default=200)
  add("--seed", type=int, default=0)
  add("--storage", choices=("gs", "local"), default="gs")
  add("--output", type=pathlib.Path, metavar="FILE.json")
  add("--folder", type=pathlib.Path, default=_FOLDER, metavar="DIR")
  args = parser.parse_args()
  _import()
  folder = args.folder.absolute() / f"{args.storage}_{args.seed}"
  folder.mkdir(parents=True, exist_ok=True)
  with _setting(folder, args.storage, args.seed) as setting:

    def write():
      os.environ.update(setting.environment(faults=False))
      _write_data(setting)

    _do(write, folder / "data.txt")
    soak = Soak(setting, args.seed)
    soak.do_whole()
    # A run that a stopped soak was in is lost with its server; the next has
    # another number.
    number = 1 + max([line["run"] for line in soak.lines], default=-1)
    while soak.kills < args.kills:
      soak.one_run(number, args.kills - soak.kills)
      number += 1
      record = soak.record()
      print(json.dumps(record), flush=True)
      if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(record, indent=1) + "\n")
  shutil.rmtree(folder)
  return 0


if __name__ == "__main__":
  sys.exit(main())
