"""The report of a run: all sections, as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sum_l_jax.system import addresses
from sum_l_jax.system import text_tables
from sum_l_jax.tools import page
from sum_l_jax.tools.report import clip_sections
from sum_l_jax.tools.report import result_sections
from sum_l_jax.tools.report import run_contents
from sum_l_jax.tools.report import training_sections


def make_page(run: run_contents.RunContents, *, defaults: Mapping[str, Any], number: int) -> str:
  """Makes the whole page; a section that lacks its data says so in one line.

  Args:
    run: what the run left.
    defaults: fields of a config without changes.
    number: number of clips with class maps.

  Returns:
    HTML.
  """
  sections = [
    page.Section("results", "Results", result_sections.results(run)),
    page.Section("trained", "What was trained", training_sections.trained(run)),
    page.Section("curves", "Curves", training_sections.curves(run)),
    page.Section("pairs", "Pairs", clip_sections.pairs(run)),
    page.Section("maps", "Where the network looks", clip_sections.maps(run, number)),
    page.Section("classes", "Classes", result_sections.classes(run)),
    page.Section("retrieval", "Retrieval", result_sections.retrieval(run)),
    page.Section("settings", "Settings", training_sections.settings(run, defaults)),
    page.Section("environment", "Environment", training_sections.environment(run)),
  ]
  name = addresses.absolute(run.workdir).name
  title = name if name == run.method else f"{name}: {run.method}"
  return page.render(title, _intro(run), sections)


def _intro(run: run_contents.RunContents) -> list[str]:
  """The few numbers that a reader looks for first."""
  if run.result is None or not run.split:
    return [f"Method {run.method}; no labelled split has been evaluated."]
  entry = run.result["splits"][run.split]
  numbers = []
  for name, value in entry["metrics"].items():
    if name.endswith(("_top1", "_map_sklearn")):
      bounds = entry.get("intervals", {}).get(name)
      interval = f" ({result_sections.interval(bounds)})" if bounds else ""
      numbers.append(f"{name} {text_tables.percent(value)} %{interval}")
  lines = [f"{entry['dataset']}, split {run.split}, {entry['clips']} clips: {'; '.join(numbers)}."]
  if run.scores and run.scores.baseline:
    lines.append(
      f"Compared with {run.scores.baseline_name} on {len(run.scores.own.clip_ids)} clips that both"
      " scored."
    )
  return lines
