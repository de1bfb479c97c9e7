"""What JAX's profiler wrote, read by other means."""

from __future__ import annotations

import gzip
import json

import jax

from sum_l_jax.experiment import profile_window


def steps(folder, process=0):
  """Numbers of the steps in a recording, as each of its files has them."""
  data = jax.profiler.ProfileData.from_file(str(folder / f"process_{process}.xplane.pb"))
  events = [e for plane in data.planes for line in plane.lines for e in line.events]
  found = [dict(e.stats)["step_num"] for e in events if e.name == profile_window.STEP]
  with gzip.open(folder / f"process_{process}.trace.json.gz") as file:
    trace = json.load(file)["traceEvents"]
  drawn = [int(e["args"]["step_num"]) for e in trace if e.get("name") == profile_window.STEP]
  assert drawn == found
  # There is more to see than the steps themselves.
  assert len(events) > len(found)
  return found
