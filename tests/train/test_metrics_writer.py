"""The event files' writer: TensorFlow comes with the first thing written."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import sys
from sum_l_jax.train import metrics
late = metrics.make_writer(sys.argv[1])
other = metrics.make_writer(sys.argv[1], active=False)
other.write_scalars(1, {"loss": 1.0})
for writer in (late, other):
  writer.flush()
  writer.close()
assert "tensorflow" not in sys.modules
late.write_scalars(1, {"loss": 1.0})
assert "tensorflow" in sys.modules
late.close()
"""


def test_nothing_written_imports_nothing(tmp_path):
  done = subprocess.run(
    [sys.executable, "-c", _CODE, str(tmp_path)], capture_output=True, text=True, timeout=300
  )
  assert done.returncode == 0, done.stderr
  # The process that is not the first one leaves no file.
  assert len(list(tmp_path.glob("events*"))) == 1
