"""The process's own memory setting, in real processes."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from sum_l_jax.system import processes

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = """
import os, sys
from sum_l_jax.system import processes
print("start", os.getpid(), sys.argv[1:])
sys.stdout.flush()
print(processes.use_huge_pages(), os.environ.get("GLIBC_TUNABLES"))
"""


def _policy(monkeypatch, tmp_path, text):
  policy = tmp_path / "enabled"
  policy.write_text(text)
  monkeypatch.setattr(processes, "_POLICY", policy)
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  monkeypatch.setattr(processes.platform, "libc_ver", lambda: ("glibc", "2.36"))
  calls = []
  result = processes.use_huge_pages(execute=lambda *args: calls.append(args))
  return result, calls


def test_asks_where_the_kernel_waits_to_be_asked(monkeypatch, tmp_path):
  result, calls = _policy(monkeypatch, tmp_path, "always [madvise] never\n")
  assert result and os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
  assert calls == [(sys.executable, [sys.executable, *sys.orig_argv[1:]])]


@pytest.mark.parametrize("text", ["[always] madvise never", "always madvise [never]"])
def test_leaves_other_kernels_alone(monkeypatch, tmp_path, text):
  assert _policy(monkeypatch, tmp_path, text) == (False, [])
  assert "GLIBC_TUNABLES" not in os.environ


@pytest.mark.parametrize("given", [None, "glibc.malloc.check=0"])
def test_a_process_starts_anew_once(given):
  environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
  if given:
    environment["GLIBC_TUNABLES"] = given
  out = subprocess.run(
    [sys.executable, "-c", SCRIPT, "a b", "--c=1"],
    env=environment,
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout.splitlines()
  policy = processes._POLICY
  asked = policy.is_file() and "[madvise]" in policy.read_text()
  restarts = asked and not given
  assert len(out) == (3 if restarts else 2)
  # One process, the same arguments.
  assert len(set(out[:-1])) == 1 and out[0].endswith("['a b', '--c=1']")
  assert out[-1] == (f"True {processes.HUGE_PAGES}" if restarts else f"False {given}")
