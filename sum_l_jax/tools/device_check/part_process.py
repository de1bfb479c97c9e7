"""Runs a part in a process of its own, for a limited time.

So each part finds the chip's memory empty, and one that crashes, or that the
compiler takes too long for, costs itself only.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from sum_l_jax.tools.device_check import check_parts

_LONGEST_REASON = 400


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of a part.

  Attributes:
    found: what it measured; also of a part that didn't come to its end.
    skipped: why it was left out or ended early.
    failed: what went wrong.
  """

  found: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  skipped: str = ""
  failed: str = ""


def _why_not(part: check_parts.Part, found: Mapping[str, Any], left: float) -> str:
  """Why a part isn't begun; "" where it is."""
  if part.kind == "attention":
    return "The ways of computing attention are not timed yet."
  if part.kind in ("torch", "peer") and importlib.util.find_spec("torch") is None:
    return "PyTorch is not installed."
  step = dataclasses.replace(part, kind="step", choice="").name
  auto = found.get(check_parts.DEVICE, {}).get("conv_auto")
  if part.kind == "table" and part.choice == check_parts.table_of(auto) and step in found:
    return f"It is what {step} has measured."
  peer = dataclasses.replace(part, kind="torch").name
  if part.kind == "torch" and found.get(check_parts.DEVICE, {}).get("platform") == "tpu":
    return "PyTorch is compared on GPUs only."
  if part.kind == "peer" and "batch" not in found.get(peer, {}):
    return f"There is nothing to compare with: {peer} has no result."
  if left < part.needs:
    return f"It needs some {part.needs:.0f} s, and {max(left, 0):.0f} s of --minutes were left."
  return ""


def _last_words(text: str) -> str:
  """The line of an output that says what went wrong."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  telling = [line for line in lines if "Error" in line or line.startswith("error:")] or lines
  return telling[-1][:_LONGEST_REASON] if telling else "It said nothing."


def _read(text: str) -> dict[str, Any]:
  """Puts together the objects that a part has printed, one a line."""
  found: dict[str, Any] = {}
  for line in text.splitlines():
    # The last line of a process that was killed may be half a line.
    with contextlib.suppress(ValueError):
      value = json.loads(line)
      if isinstance(value, dict):
        found |= value
  return found


def run(
  part: check_parts.Part, options: Sequence[str], *, found: Mapping[str, Any], left: float
) -> Outcome:
  """Runs a part, and ends it when the time is up.

  Args:
    part: what to run.
    options: options that the process gets beside --part.
    found: results of the parts before, by name.
    left: seconds that are left for all parts.
  """
  if reason := _why_not(part, found, left):
    return Outcome(skipped=reason)
  command = [sys.executable, "-m", __package__, f"--part={part.name}", *options]
  if part.kind == "peer":
    command.append(f"--batch={found[dataclasses.replace(part, kind='torch').name]['batch']}")
  # The package is found as it was found here, installed or not.
  root = str(pathlib.Path(__file__).resolve().parents[3])
  paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
  start = time.monotonic()
  with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
    process = subprocess.Popen(
      command,
      stdout=output,
      stderr=errors,
      env=os.environ | {"PYTHONPATH": paths},
      start_new_session=True,
    )
    try:
      status = process.wait(left if part.needs else max(left, 60))
    except subprocess.TimeoutExpired:
      status = None
    finally:
      with contextlib.suppress(ProcessLookupError):  # And what it has started.
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
    output.seek(0)
    errors.seek(0)
    results, words = _read(output.read()), errors.read()
  seconds = time.monotonic() - start
  skipped = results.pop("skipped", "")
  if status is None:
    skipped = f"Its time was up after {seconds:.0f} s; --minutes gives more."
  if status:
    reason = f"signal {-status}" if status < 0 else f"exit status {status}"
    return Outcome(results, failed=f"{_last_words(words)} ({reason})")
  return Outcome({**results, "took_seconds": round(seconds, 2)} if results else {}, skipped=skipped)
