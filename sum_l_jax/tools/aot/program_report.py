"""The numbers of a compiled step, as JSON values and as text."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from sum_l_jax import build_features
from sum_l_jax import types
from sum_l_jax.config import schema
from sum_l_jax.tools import chips
from sum_l_jax.tools import program_costs
from sum_l_jax.tools.aot import attention_times
from sum_l_jax.tools.aot import compiler
from sum_l_jax.tools.aot import hlo

TOP = 10
# Tower, pathway, stage.
_LAYER_DEPTH = 3
_REST = "the rest of the step"
_ESTIMATES = ("cycles", "arithmetic", "memory")


def _operation(operation: hlo.Operation, clock_hz: float) -> dict[str, Any]:
  instruction = operation.instruction
  origin = hlo.read_origin(instruction.op_name)
  arrays = instruction.arrays
  dense = sum(array.bytes for array in arrays)
  padded = sum(array.padded_bytes for array in arrays)
  return {
    "opcode": instruction.opcode,
    "layer": "/".join(origin.layer),
    "primitive": origin.primitive,
    "phase": origin.phase,
    "result": " ".join(map(str, arrays[:2])) + " ..." * (len(arrays) > 2),
    "padding": padded / dense if dense else 1.0,
    "times": operation.times,
    "cycles": operation.cycles or None,
    "milliseconds": (1e3 * operation.cycles / clock_hz if clock_hz and operation.cycles else None),
    "bytes": operation.bytes,
  }


def _layers(program: hlo.Program) -> dict[str, dict[str, float]]:
  """Weighs each tower's stages by phase, in cycles, or in bytes without them."""
  by_cycles = program.cycles is not None
  out: dict[str, dict[str, float]] = {}
  for operation in program.operations:
    origin = hlo.read_origin(operation.instruction.op_name)
    name = "/".join(origin.layer[:_LAYER_DEPTH]) or _REST
    phases = out.setdefault(name, {})
    weight = operation.cycles if by_cycles else operation.bytes
    phases[origin.phase] = phases.get(origin.phase, 0) + weight
  return dict(sorted(out.items(), key=lambda item: -sum(item[1].values())))


def _collectives(program: hlo.Program, chips_in_all: int) -> list[dict[str, Any]]:
  """Number and size of exchanges by kind, type and chips that take part, the largest first."""
  out: dict[tuple[str, str, int], dict[str, Any]] = {}
  for found in program.collectives:
    kind, dtype, group = found.kind, found.dtype, found.group or chips_in_all
    row = out.setdefault(
      (kind, dtype, group),
      {"kind": kind, "dtype": dtype, "group": group, "count": 0, "elements": 0, "bytes": 0},
    )
    row["count"] += found.times
    row["elements"] += found.elements
    row["bytes"] += found.bytes
  return sorted(out.values(), key=lambda row: -row["bytes"])


def _costs(
  compiled: compiler.Compiled, program: hlo.Program, attention: attention_times.Times | None
) -> dict[str, float]:
  """XLA's costs; where it left something out, the arithmetic of matrix products.

  XLA counts the body of a loop once, and kernels not at all.
  """
  looped = sum(o.bytes for o in program.operations if o.times > 1)
  total = sum(o.bytes for o in program.operations)
  if looped <= 0.01 * total and not (attention and attention.kernels):
    return dict(compiled.costs)
  flops = sum(operations for _, operations in program.products)
  if attention:
    flops = attention.operations + attention.rest_operations
  return {"flops": flops} if flops else {}


def _times(
  chip: chips.Chip,
  flops: float | None,
  program: hlo.Program,
  attention: attention_times.Times | None,
) -> dict[str, Any]:
  """Seconds of a step by three estimates; None where one can't be made.

  The time by cycles contains that of kernels by a model.
  """
  work = (program.cycles, flops, program.main_bytes)
  rates = (chip.clock_hz, chip.peak_flops, chip.bandwidth)
  times = {name: w / r if w and r else None for name, w, r in zip(_ESTIMATES, work, rates)}
  if attention and attention.kernels and times["cycles"] is not None:
    of_kernels = attention.kernel_seconds
    times["cycles"] = None if of_kernels is None else times["cycles"] + of_kernels
  return times


def _attention(attention: attention_times.Times) -> dict[str, Any]:
  """Attention and all else apart, and how far the latter is from its floor."""
  rest, floor = attention.rest_seconds, attention.rest_floor
  over = rest / floor if rest and floor else None
  return {**dataclasses.asdict(attention), "rest_over_floor": over}


def view_of(settings: schema.Settings, view: str) -> dict[str, Any]:
  """The encoder of a view and its clips; with stored features tokens, and no clip."""
  if settings.stored(view):
    card = build_features.card(settings, view)
    return {"backbone": card.encoder.name, "clip": None, "tokens": list(card.shape[1:])}
  clip = settings.clip(view)
  return {"backbone": settings.backbone(view), "clip": [clip.count, clip.crop_size]}


def summarize(compiled: compiler.Compiled) -> dict[str, Any]:
  """Sums up a compiled step: everything that is printed, as JSON values.

  Times are in seconds, sizes in bytes, all for one chip and one step. All times
  except that of compiling are estimates.
  """
  settings, chip = compiled.settings, compiled.chip
  names = (types.EXO,) if compiled.stage == schema.EXO_STAGE else types.VIEWS
  if not settings.uses_exo and compiled.stage == schema.JOINT_STAGE:
    names = (types.EGO,)
  views = {view: view_of(settings, view) for view in names}
  first = views[names[0]]
  out = {
    "fits": not compiled.problem,
    "backbone": first["backbone"],
    "method": settings.method,
    "stage": compiled.stage,
    "precision": settings.precision,
    "remat": str(settings.model.remat),
    "conv": settings.model.conv,
    "clip": first["clip"],
    **({"tokens": first["tokens"]} if "tokens" in first else {}),
    # Only where they differ; `fits` and the doctor take them from here then.
    **({"views": views} if len(set(map(str, views.values()))) > 1 else {}),
    "topology": compiled.topology,
    "chips": compiled.num_chips,
    "fsdp": settings.mesh.fsdp,
    "batch_size": compiled.batch_size,
    "batch_per_chip": compiled.batch_size // compiled.num_chips,
    "compile_seconds": compiled.seconds,
  }
  if compiled.problem:
    return {**out, "problem": compiled.problem}
  program = hlo.Program(compiled.text)
  memory = compiled.memory
  needed = max(memory["total"], memory["peak"])
  attention = attention_times.read_times(program, chip)
  costs = _costs(compiled, program, attention)
  seconds = _times(chip, costs.get("flops"), program, attention)
  steps = compiled.clips / compiled.batch_size
  collectives = _collectives(program, compiled.num_chips)
  return {
    **out,
    "memory": memory,
    "hbm": chip.hbm_bytes or None,
    "headroom": chip.hbm_bytes - needed if chip.hbm_bytes else None,
    "flops": costs.get("flops"),
    "bytes_accessed": costs.get("bytes_accessed"),
    "main_bytes": program.main_bytes,
    "cycles": program.cycles,
    "step_seconds": seconds,
    **({"attention": _attention(attention)} if attention else {}),
    "uncounted_loops": program.uncounted_loops,
    "clips": compiled.clips or None,
    "epoch_seconds": {
      name: value * steps if value and steps else None for name, value in seconds.items()
    },
    "chip": {n: getattr(chip, n) or None for n in ("peak_flops", "bandwidth", "clock_hz", "links")},
    "operations": [_operation(o, chip.clock_hz) for o in program.operations[:TOP]],
    "layers": _layers(program),
    "collectives": collectives,
    "exchange_seconds": program_costs.exchange_seconds(collectives, compiled.num_chips, chip),
  }


def _get(summary: Mapping[str, Any], path: str) -> Any:
  value = summary
  for name in path.split("."):
    value = value.get(name) if value else None
  return value


# Section, path in the summary, label, factor, unit.
_ROWS = (
  ("memory of a chip", "memory.arguments", "arguments (state, batch)", 1e-9, "GB"),
  ("", "memory.outputs", "outputs, not in their place", 1e-9, "GB"),
  ("", "memory.temporaries", "temporaries", 1e-9, "GB"),
  ("", "memory.code", "the program", 1e-9, "GB"),
  ("", "memory.total", "total", 1e-9, "GB"),
  ("", "memory.peak", "peak in use", 1e-9, "GB"),
  ("", "hbm", "a chip has", 1e-9, "GB"),
  ("", "headroom", "left", 1e-9, "GB"),
  ("work of a chip in a step", "flops", "arithmetic", 1e-12, "TFLOP"),
  ("", "main_bytes", "main memory traffic", 1e-9, "GB"),
  ("", "bytes_accessed", "accessed, by XLA's count", 1e-9, "GB"),
  ("time of a step (estimates)", "step_seconds.cycles", "the compiler's cycles", 1e3, "ms"),
  ("", "step_seconds.arithmetic", "floor by arithmetic", 1e3, "ms"),
  ("", "step_seconds.memory", "floor by main memory", 1e3, "ms"),
  ("", "exchange_seconds", "floor by exchanges", 1e3, "ms"),
  ("attention and all else (estimates)", "attention.seconds", "attention", 1e3, "ms"),
  ("", "attention.kernel_seconds", "of it kernels, by a model", 1e3, "ms"),
  ("", "attention.rest_seconds", "all else, by cycles", 1e3, "ms"),
  ("", "attention.rest_floor", "its floor by arithmetic", 1e3, "ms"),
  ("", "attention.rest_over_floor", "all else over its floor", 1.0, ""),
  ("time of an epoch (estimates)", "epoch_seconds.cycles", "the compiler's cycles", 1 / 60, "min"),
  ("", "epoch_seconds.arithmetic", "floor by arithmetic", 1 / 60, "min"),
  ("", "epoch_seconds.memory", "floor by main memory", 1 / 60, "min"),
  ("compiling", "compile_seconds", "took", 1.0, "s"),
)


def _cell(summary: Mapping[str, Any], path: str, factor: float, unit: str) -> str:
  """Shows three digits, or all before the point."""
  value = _get(summary, path)
  if value is None:
    return "not known"
  value *= factor
  if not value:
    return f"0 {unit}".rstrip()
  digits = max(0, 2 - math.floor(math.log10(abs(value))))
  return f"{value:,.{min(digits, 6)}f} {unit}".rstrip()


def _table(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
  """The scalar numbers, a column per program, and the ratio of two."""
  lines = []
  for section, path, label, factor, unit in _ROWS:
    if path.startswith("attention.") and not any(s.get("attention") for s in summaries):
      continue
    if section:
      lines.append(section)
    cells = [_cell(s, path, factor, unit) for s in summaries]
    line = f"  {label:<28}" + "".join(f"{cell:>16}" for cell in cells)
    values = [_get(s, path) for s in summaries]
    if len(values) == 2 and all(values) and path != "hbm":
      line += f"   x {values[1] / values[0]:.2f}"
    lines.append(line)
  return lines


def _describe(summary: Mapping[str, Any]) -> str:
  remat = f", remat {summary['remat']}" if summary["remat"] != "none" else ""
  shared = f", state shared by {summary['fsdp']}" if summary["fsdp"] > 1 else ""
  return (
    f"{summary['backbone']}, {summary['method']}, {summary['stage']} stage,"
    f" {summary['precision']}, conv {summary['conv']}{remat}{shared};"
    f" {summary['batch_per_chip']} clips a chip of {program_costs.size_of(summary)}"
  )


def _operation_lines(summary: Mapping[str, Any]) -> list[str]:
  """The most expensive operations and layers."""
  by_cycles = summary["cycles"] is not None
  weight = "cycles" if by_cycles else "bytes"
  layers = summary["layers"]
  total = sum(sum(phases.values()) for phases in layers.values()) or 1
  lines = [f"most expensive operations (share of {weight})"]
  for row in summary["operations"]:
    took = (
      f"{row['milliseconds']:8.2f} ms"
      if row["milliseconds"] is not None
      else f"{row['bytes'] / 1e6:8.1f} MB"
    )
    phase = "" if row["phase"] == "forward" else f" [{row['phase']}]"
    padding = f", padded x {row['padding']:.1f}" if row["padding"] >= 1.5 else ""
    lines.append(
      f"  {(row[weight] or 0) / total:6.1%} {took}  "
      f"{'/'.join(filter(None, (row['layer'], row['primitive'])))}{phase}"
      f"  {row['opcode']} -> {row['result']}{padding}"
    )
  lines.append(f"layers (share of {weight}: forward, backward, recomputed)")
  for name, phases in list(layers.items())[: 2 * TOP]:
    parts = [phases.get(p, 0) / total for p in ("forward", "backward", "recomputed")]
    lines.append(
      f"  {sum(parts):6.1%}  " + " ".join(f"{part:6.1%}" for part in parts) + f"  {name}"
    )
  return lines


def _collective_lines(summary: Mapping[str, Any]) -> list[str]:
  if not summary["collectives"]:
    return ["exchanges between chips in a step: none"]
  return ["exchanges between chips in a step"] + [
    f"  {row['count']:4} {row['kind']:<20} {row['dtype']:<6} of {row['group']:<4}"
    f"{row['elements'] / 1e6:10.3f} M numbers {row['bytes'] / 1e6:10.2f} MB"
    for row in summary["collectives"]
  ]


def format_report(summaries: Sequence[Mapping[str, Any]]) -> str:
  """Formats one program, or two side by side."""
  first = summaries[0]
  lines = [f"{first['topology']}: {first['chips']} chip(s). Compiled, not run."]
  for letter, summary in zip("AB", summaries):
    mark = f"{letter}: " if len(summaries) > 1 else ""
    lines.append(mark + _describe(summary))
    if not summary["fits"]:
      lines.append(mark + "DOES NOT FIT: " + summary["problem"].strip())
  good = [summary for summary in summaries if summary["fits"]]
  if not good:
    return "\n".join(lines)
  lines.append("")
  if len(good) > 1:
    lines.append(" " * 30 + f"{'A':>16}{'B':>16}   B / A")
  lines += _table(good)
  uncounted = sum(summary.get("uncounted_loops", 0) for summary in good)
  if uncounted:
    lines.append(
      f"The text does not say how often {uncounted} loop(s) run: their bodies count once, and time,"
      " traffic and arithmetic are too small."
    )
  for letter, summary in zip("AB", summaries):
    if not summary["fits"]:
      continue
    lines += ["", *([f"{letter}:"] if len(summaries) > 1 else [])]
    lines += _operation_lines(summary) + _collective_lines(summary)
  return "\n".join(lines)
