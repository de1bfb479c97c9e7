"""What a compiler says that a program takes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from sum_l_jax.tools import chips

if TYPE_CHECKING:
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


# Bytes that a chip must send at least for a result of one byte, on n chips.
_SENT: dict[str, Callable[[int], float]] = {
  "all-reduce": lambda n: 2 * (n - 1) / n,
  "all-gather": lambda n: (n - 1) / n,
  "all-to-all": lambda n: (n - 1) / n,
  "reduce-scatter": lambda n: n - 1,
  "collective-permute": lambda n: 1,
}


def exchange_seconds(
  collectives: Sequence[Mapping[str, Any]], count: int, chip: chips.Chip
) -> float | None:
  """Seconds that a step's exchanges take where all links work at once.

  Nothing is known of latencies, nor of how many exchanges hide behind work.

  Args:
    collectives: kinds of exchanges with "kind", "bytes", the size of the results on
      one chip, and "group", the number of chips that take part.
    count: number of chips that take part where a kind doesn't say it.
    chip: what one can do.

  Returns:
    Seconds, or None where the links or a kind of exchange aren't known.
  """
  if not chip.links or any(row["kind"] not in _SENT for row in collectives):
    return None
  sent = (_SENT[row["kind"]](row.get("group", count)) * row["bytes"] for row in collectives)
  return sum(sent) / chip.links


def size_of(view: Mapping[str, Any]) -> str:
  """What a step has of a clip, in words: frames, or stored tokens and their channels.

  Args:
    view: summary of a program, or of one of its views.
  """
  if view["clip"] is None:
    tokens, channels = view["tokens"]
    return f"{tokens} x {channels} tokens"
  frames, side = view["clip"]
  return f"{frames} x {side} x {side}"
