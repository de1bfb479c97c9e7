"""The record of a check as JSON, and its tables for the page."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import datetime
import json
from typing import Any

from etils import epath

from sum_l_jax.system import storage
from sum_l_jax.system import text_tables
from sum_l_jax.tools.device_check import check_parts
from sum_l_jax.tools.device_check import part_process

Found = Mapping[str, Any]


@dataclasses.dataclass
class Record:
  """What a check has found so far.

  Attributes:
    command: the command line.
    budget_seconds: time for all parts.
    seconds: time taken.
    found: results by the name of the part.
    skipped: why parts were left out or ended early, by name.
    failed: what went wrong, by name.
  """

  command: str
  budget_seconds: float
  seconds: float = 0.0
  found: dict[str, Found] = dataclasses.field(default_factory=dict)
  skipped: dict[str, str] = dataclasses.field(default_factory=dict)
  failed: dict[str, str] = dataclasses.field(default_factory=dict)
  date: str = dataclasses.field(
    default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat("T", "seconds")
  )

  def add(self, part: check_parts.Part, outcome: part_process.Outcome, *, seconds: float) -> None:
    """Adds the outcome of a part, `seconds` after the start."""
    self.seconds = round(seconds, 1)
    if outcome.found:
      self.found[part.name] = outcome.found
    if outcome.skipped:
      self.skipped[part.name] = outcome.skipped
    if outcome.failed:
      self.failed[part.name] = outcome.failed

  @property
  def status(self) -> int:
    """1 where a part failed, or where the chip's numbers differ; else 0."""
    differ = any(found.get("agrees") is False for found in self.found.values())
    return int(differ or bool(self.failed))

  def to_json(self) -> dict[str, Any]:
    """Everything, with what follows from several parts together."""
    values = dataclasses.asdict(self)
    parts = values.pop("found")
    return {
      **values,
      "parts": parts,
      "ratio_to_torch": dict(_ratios(parts)),
      "convolutions": _convolutions(parts),
    }

  def write(self, path: epath.Path) -> None:
    """Writes the JSON; a reader never finds half of it."""
    storage.write_text(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")


def _of_kind(parts: Mapping[str, Found], kind: str) -> Iterator[tuple[list[str], Found]]:
  for name, found in parts.items():
    first, *rest = name.split("/")
    if first == kind:
      yield rest, found


def _ratios(parts: Mapping[str, Found]) -> Iterator[tuple[str, float]]:
  """This library's time over PyTorch's, by backbone and precision."""
  for rest, found in _of_kind(parts, "peer"):
    name = "/".join(rest)
    peer = parts.get(f"torch/{name}", {})
    if "seconds" in found and found.get("batch") == peer.get("batch"):
      yield name, found["seconds"] / peer["seconds"]


def _convolutions(parts: Mapping[str, Found]) -> dict[str, Any]:
  """Which table of formulations is fastest in a whole step, and which way alone."""
  auto = parts.get(check_parts.DEVICE, {}).get("conv_auto")
  used = check_parts.table_of(auto)
  steps = {}
  for (backbone, precision, table), found in _of_kind(parts, "table"):
    steps[table] = found["seconds"]
    if step := parts.get(f"step/{backbone}/{precision}"):
      steps[used] = step["seconds"]
  alone = {}
  for (_, kind), found in _of_kind(parts, "formulations"):
    times = {n: w["seconds"] for n, w in found.get("ways", {}).items() if "seconds" in w}
    if times:
      best = min(times, key=times.__getitem__)
      chosen = found["auto"]
      over = times[chosen] / times[best] if chosen in times else None
      alone[kind] = {"auto": chosen, "fastest": best, "auto_over_fastest": over}
  out: dict[str, Any] = {"auto": auto, "alone": alone}
  if steps:
    best = min(steps, key=steps.__getitem__)
    out |= {"step_seconds": steps, "fastest": best}
    out["auto_over_fastest"] = steps[used] / steps[best] if used in steps else None
  return out


def refuse_a_processor(outcome: part_process.Outcome, *, miniature: bool) -> None:
  """Ends the check where there is nothing to check.

  Raises:
    ValueError: JAX computes on the processor, or doesn't start.
  """
  if outcome.failed:
    raise ValueError(f"JAX finds no device: {outcome.failed}")
  if outcome.found.get("platform") == "cpu" and not miniature:
    raise ValueError(
      "JAX sees no GPU or TPU here, only the processor. Install a JAX that does (pip install"
      " 'jax[cuda12]', 'jax[cuda13]' or 'jax[tpu]'), look at JAX_PLATFORMS, or give --miniature to"
      " try the command."
    )


def line(part: check_parts.Part, outcome: part_process.Outcome) -> str:
  """What is printed when a part has ended."""
  for word, reason in (("FAILED: ", outcome.failed), ("left out: ", outcome.skipped)):
    if reason:
      return f"{part.name}: {word}{reason}"
  found = outcome.found
  if "clips_per_second" in found:
    time, rate = 1e3 * found["seconds"], found["clips_per_second"]
    return f"{part.name}: {time:.1f} ms a step, {rate:.1f} clips/s"
  if "agrees" in found:
    return f"{part.name}: {'agrees' if found['agrees'] else 'DIFFERS'}"
  return f"{part.name}: {found.get('device_kind', 'done')}"


def _number(value: float | None, digits: int = 1, factor: float = 1.0) -> str:
  return "-" if value is None else f"{factor * value:,.{digits}f}"


def tables(record: Mapping[str, Any]) -> str:
  """The tables of docs/performance.md, in Markdown.

  Args:
    record: what `Record.to_json` gives.
  """
  parts = record["parts"]
  rows = [
    (
      "network",
      "precision",
      "clips of a view",
      "ms a step",
      "clips/s",
      "share of peak",
      "memory in use",
      "of the plan",
      "time over PyTorch's",
    )
  ]
  for (backbone, precision), found in _of_kind(parts, "step"):
    memory = found["memory"]
    rows.append(
      (
        f"`{backbone}`",
        precision,
        f"{found['batch']} of {found['frames']} x {found['side']} x {found['side']}",
        _number(found["seconds"], factor=1e3),
        _number(found["clips_per_second"]),
        text_tables.percent(found["share_of_peak"]),
        _number(memory["peak_in_use"], 2, 1e-9),
        _number(memory["in_use_over_planned"], 2),
        _number(record["ratio_to_torch"].get(f"{backbone}/{precision}"), 2),
      )
    )
  conv = record["convolutions"]
  kinds = [("kind", "auto", "fastest", "time of auto over it")]
  if "step_seconds" in conv:
    over = _number(conv["auto_over_fastest"], 2)
    kinds.append(("a whole step", str(conv["auto"]), conv["fastest"], over))
  for kind, row in conv["alone"].items():
    kinds.append((kind, row["auto"], row["fastest"], _number(row["auto_over_fastest"], 2)))
  differences = [("loss and gradient", "precision", "loss", "gradient")]
  for (backbone,), found in _of_kind(parts, "parity"):
    differences += [
      (f"`{backbone}`", name, f"{value['loss']:.1e}", f"{value['gradient']:.1e}")
      for name, value in found.items()
      if isinstance(value, dict) and value.keys() == {"loss", "gradient"} and name != "bounds"
    ]
  return "\n\n".join(text_tables.markdown(table) for table in (rows, kinds, differences))
