"""The report of a run: all sections, as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from sum_l_jax.tools.report import clip_examples
from sum_l_jax.tools.report import render
from sum_l_jax.tools.report import result_charts
from sum_l_jax.tools.report import run_contents
from sum_l_jax.tools.report import training_charts


def make_page(
  files: run_contents.RunFiles,
  *,
  defaults: Mapping[str, Any],
  scores: result_charts.Scores | None = None,
  no_scores: str = "",
  baseline: pathlib.Path | None = None,
  number: int = 4,
) -> str:
  """The whole page.

  A section that lacks its data says so in one line.

  Args:
    files: of the run.
    defaults: the fields of a config without changes.
    scores: of `files.split`, with the baseline's where there is one.
    no_scores: why there are none.
    baseline: its workdir.
    number: of clips with activation maps.

  Returns:
    HTML.
  """
  sections = [
    result_charts.results_section(files, scores),
    training_charts.trained_section(files),
    training_charts.curves_section(files),
    clip_examples.pairs_section(files),
    clip_examples.maps_section(files, number=number, scores=scores, baseline=baseline),
    result_charts.classes_section(files, scores, no_scores=no_scores),
    result_charts.retrieval_section(files),
    training_charts.settings_section(files, defaults),
    training_charts.environment_section(files),
  ]
  name = files.workdir.resolve().name
  title = name if name == files.method else f"{name}: {files.method}"
  return render.render(title, _intro(files, scores), sections)


def _intro(files: run_contents.RunFiles, scores) -> list[str]:
  """The few numbers that a reader looks for first."""
  if files.result is None or not files.split:
    return [f"Method {files.method}; no labelled split has been evaluated."]
  entry = files.result["splits"][files.split]
  shown = [n for n in entry["metrics"] if n.endswith(("_top1", "_map_sklearn"))]
  numbers = []
  for name in shown:
    text = f"{name} {result_charts.percent(entry['metrics'][name])} %"
    bounds = entry.get("intervals", {}).get(name)
    if bounds:
      text += f" ({result_charts.interval(bounds)})"
    numbers.append(text)
  lines = [
    f"{entry['dataset']}, split {files.split}, {entry['clips']} clips: {'; '.join(numbers)}."
  ]
  if scores and scores.baseline:
    lines.append(
      f"Compared with {scores.baseline_name} on {len(scores.clip_ids)} clips that both scored."
    )
  return lines
