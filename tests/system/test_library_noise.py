"""What libraries say is hidden, and is there where something goes wrong."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from sum_l_jax import main

# What XLA and Abseil write to the file descriptor.
_SAID = r"""
import os, sys
from absl import logging
from sum_l_jax.system import library_noise
library_noise.hide()
lines = [
  "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
  "E0000 00:00:17.1 12 slow_operation_alarm.cc:73] ",
  "********************************",
  "[Compiling module jit_train_step] Very slow compile? If you want to file a bug, run with",
  "********************************",
  "W0000 00:00:17.1 12 bfc_allocator.cc:310] Allocator (GPU_0_bfc) ran out of memory",
  "E0000 00:00:17.1 12 pjrt_stream_executor_client.cc:1] Execution failed: a real error",
]
os.write(2, "\n".join(lines).encode() + b"\n")
logging.warning("a line of our own")
print("printed", file=sys.stderr)
END
"""
_ENDS = {
  "well": "library_noise.close(failed=False)",
  "error": "library_noise.close(failed=True)",
  "exception": "raise RuntimeError('not caught')",
  "crash": "os.abort()",
  "kill": "os.kill(os.getpid(), 9)",
  # As of a process that ends because of another one.
  "leaving": "os.write(2, b'\\nerror: Process 1 is lost.\\n'); os._exit(1)",
}


@pytest.mark.parametrize("end", _ENDS)
def test_what_is_hidden_is_shown_after_an_error(end):
  done = subprocess.run(
    [sys.executable, "-c", _SAID.replace("END", _ENDS[end])],
    capture_output=True,
    text=True,
    timeout=60,
    env={**os.environ, "PYTHONFAULTHANDLER": ""},
    check=False,
  )
  said = done.stderr
  # What may matter comes at once.
  for line in ("a real error", "a line of our own", "printed"):
    assert said.count(line) == 1, said
  hidden = ("Very slow compile?", "bfc_allocator", "InitializeLog", "What libraries said before")
  assert [said.count(line) for line in hidden] == [0 if end == "well" else 1] * 4, said
  if end == "leaving":
    assert said.splitlines()[-1] == "error: Process 1 is lost."


@pytest.mark.parametrize(
  "path, level, shown, traceback",
  [
    # A thread of Orbax, whose error comes out of the save as well.
    ("site-packages/orbax/checkpoint/_src/futures/future.py", logging.ERROR, True, False),
    ("site-packages/orbax/checkpoint/_src/futures/future.py", logging.INFO, False, False),
    ("work/sum_l_jax/experiment/loop.py", logging.ERROR, True, True),
  ],
)
def test_an_error_that_a_library_logs_is_its_message_alone(path, level, shown, traceback):
  try:
    raise RuntimeError("503")
  except RuntimeError:
    found = sys.exc_info()
  record = logging.LogRecord("absl", level, path, 378, "raised an exception: %s", ("503",), found)
  assert main._is_worth_reading(record) == shown
  if shown:
    text = logging.Formatter().format(record)
    assert text.startswith("raised an exception: 503")
    assert ("Traceback" in text) == traceback
