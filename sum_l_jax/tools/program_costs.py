"""What a compiler says that a program takes."""

from __future__ import annotations

import jax


def read_memory(program: jax.stages.Compiled) -> dict[str, int]:
  """Reads how many bytes a program takes on one chip.

  Returns:
    "arguments"; "outputs" without those that take an argument's place;
    "temporaries"; "code"; "total" of these, which a chip must have; "peak", the
    most that is in use at a time, 0 where the compiler doesn't say. Temporaries
    are one block with gaps: the total may be above the peak.
  """
  found = program.memory_analysis()
  assert found is not None
  parts = {
    "arguments": found.argument_size_in_bytes,
    "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
    "temporaries": found.temp_size_in_bytes,
    "code": found.generated_code_size_in_bytes,
  }
  peak = getattr(found, "peak_memory_in_bytes", 0) or 0
  return {**parts, "total": sum(parts.values()), "peak": peak}


def read_costs(program: jax.stages.Compiled) -> dict[str, float]:
  """Reads "flops" and "bytes_accessed" of one chip and step, where known."""
  found = program.cost_analysis() or {}
  names = {"flops": "flops", "bytes_accessed": "bytes accessed"}
  return {name: float(found[key]) for name, key in names.items() if key in found}
