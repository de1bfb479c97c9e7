"""The report of a run: all sections, as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sum_l_jax.evaluation.labels import metric_words
from sum_l_jax.experiment import goodput
from sum_l_jax.experiment import run_status
from sum_l_jax.system import addresses
from sum_l_jax.system import text_tables
from sum_l_jax.tools import page
from sum_l_jax.tools.report import clip_sections
from sum_l_jax.tools.report import findings_section
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
    *findings_section.findings(run),
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
  """The few facts and numbers that a reader looks for first."""
  lines = []
  if run.result is None or not run.split:
    lines.append(f"Method {run.method}; no labelled split has been evaluated.")
  else:
    lines.append(_scores(run.result["splits"][run.split], run.split))
  if run.baseline and run.scores and run.scores.baseline:
    lines.append(
      f"Compared with {run.baseline_name} ({run.baseline.workdir}) on"
      f" {len(run.scores.own.clip_ids):,} clips that both scored."
    )
  elif run.baseline:
    lines.append(f"Compared with {run.baseline_name} ({run.baseline.workdir}).")
  return [*lines, *filter(None, [run.stale]), *_circumstances(run)]


def _scores(entry: Mapping[str, Any], split: str) -> str:
  numbers = []
  for name, value in entry["metrics"].items():
    if name.endswith(("_top1", "_map_sklearn")):
      bounds = entry.get("intervals", {}).get(name)
      interval = f" ({result_sections.interval(bounds)})" if bounds else ""
      numbers.append(f"{metric_words.words(name)} {text_tables.percent(value)} %{interval}")
  return f"{entry['dataset']}, split {split}, {entry['clips']:,} clips: {'; '.join(numbers)}."


def _circumstances(run: run_contents.RunContents) -> list[str]:
  """How long the run took, on what, by which code."""
  said = []
  if run.status:
    worked = sum(s for kind, s in run.status.seconds.items() if kind != goodput.DOWN)
    # A run writes its report shortly before it says that it has finished.
    evaluated = run.result is not None and not run.stale
    writing = run.status.state == run_status.RUNNING and evaluated
    done = writing or run.status.state == run_status.FINISHED
    said.append(f"{'took' if done else f'{run.status.state} after'} {_lasted(worked)}")
    if run.status.state == run_status.FAILED and run.status.error:
      said.append(f"its error: {run.status.error}")
  if run.starts:
    start = run.starts[-1]
    hosts = f" on {start.hosts} machines" if start.hosts > 1 else ""
    said.append(f"devices: {start.devices}{hosts}, {start.processor} with {start.cores} cores")
    jax = start.versions.get("jax")
    said.append(f"jax {jax}" if jax else "")
    if start.commit:
      said.append(
        f"commit {start.commit[:12]}{' with uncommitted changes' if start.changed else ''}"
      )
  elif run.status and run.status.devices:
    said.append(f"devices: {run.status.devices}")
  said = [text for text in said if text]
  return [f"Training {'; '.join(said)}."] if said else []


def _lasted(seconds: float) -> str:
  """A duration in words, "2 h 5 min" or "3 min 20 s"."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
