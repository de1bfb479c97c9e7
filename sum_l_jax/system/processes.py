"""A process as its operating system sees it: cores, memory, how it ends."""

from __future__ import annotations

from collections.abc import Callable
import os
import pathlib
import platform
import sys
import time

_TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
_POLICY = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Exit status of a run that saved and stopped because it was asked to:
# "temporary failure, try again" of sysexits.h.
STOPPED = 75


class StoppedError(Exception):
  """Training was asked to stop, and did after saving."""


class StalledError(ValueError):
  """Reading gave up: processes died, or a disk didn't answer.

  Threads may hang for ever, so that the process has to end without waiting for
  them.
  """


def cores() -> int:
  """Number of processor cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def memory_bytes() -> int:
  """Memory of this machine."""
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def processor() -> str:
  """What the processor calls itself; its kind where the system says no more."""
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
  except OSError:
    text = ""
  for line in text.splitlines():
    name, _, value = line.partition(":")
    if name.strip() == "model name" and value.strip():
      return value.strip()
  return platform.processor() or platform.machine()


def age() -> float:
  """Seconds since this process began; 0 where the system doesn't say."""
  try:
    # The fields after the name, which may hold anything: the state, ..., the start.
    text = pathlib.Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
    ticks = int(text.rpartition(")")[2].split()[19])
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
  except (OSError, AttributeError, IndexError, ValueError):
    return 0.0


def use_huge_pages(*, execute: Callable[[str, list[str]], None] = os.execv) -> bool:
  """Replaces this process by one with huge pages for large allocations.

  On CPU, XLA takes the memory of its intermediate values from the system at
  every step and gives it back. With pages of 4 kB the kernel spends a quarter
  of the demo's time on that; with pages of 2 MB nearly none. The C library
  reads the setting once, when a process starts, so it can't be changed from
  within: the process executes itself again with the variable set. A main
  program calls this first, before it imports anything that takes time.

  Nothing happens where the setting has no effect (no glibc, or a kernel without
  transparent huge pages) and where `GLIBC_TUNABLES` is set already.

  Args:
    execute: function that replaces the process; for tests.

  Returns:
    Whether this function gave the process huge pages. A process that is
    replaced doesn't return from it.
  """
  if _TUNABLES in os.environ:
    return os.environ[_TUNABLES] == HUGE_PAGES
  if platform.libc_ver()[0] != "glibc" or not _POLICY.is_file():
    return False
  if "[madvise]" not in _POLICY.read_text(encoding="ascii"):
    return False  # "never", or "always", which needs no request.
  os.environ[_TUNABLES] = HUGE_PAGES
  execute(sys.executable, [sys.executable, *sys.orig_argv[1:]])
  return True
