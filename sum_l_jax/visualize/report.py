"""The report of a run: all sections, as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from sum_l_jax.visualize import report_clips
from sum_l_jax.visualize import report_files
from sum_l_jax.visualize import report_page
from sum_l_jax.visualize import report_results
from sum_l_jax.visualize import report_training


def make_page(
  files: report_files.RunFiles,
  *,
  defaults: Mapping[str, Any],
  scores: report_results.Scores | None = None,
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
    report_results.results_section(files, scores),
    report_training.trained_section(files),
    report_training.curves_section(files),
    report_clips.pairs_section(files),
    report_clips.maps_section(files, number=number, scores=scores, baseline=baseline),
    report_results.classes_section(files, scores, no_scores=no_scores),
    report_results.retrieval_section(files),
    report_training.settings_section(files, defaults),
    report_training.environment_section(files),
  ]
  name = files.workdir.resolve().name
  title = name if name == files.method else f"{name}: {files.method}"
  return report_page.render(title, _intro(files, scores), sections)


def _intro(files: report_files.RunFiles, scores) -> list[str]:
  """The few numbers that a reader looks for first."""
  if files.result is None or not files.split:
    return [f"Method {files.method}; no labelled split has been evaluated."]
  entry = files.result["splits"][files.split]
  shown = [n for n in entry["metrics"] if n.endswith(("_top1", "_map_sklearn"))]
  numbers = []
  for name in shown:
    text = f"{name} {report_results.percent(entry['metrics'][name])} %"
    bounds = entry.get("intervals", {}).get(name)
    if bounds:
      text += f" ({report_results.interval(bounds)})"
    numbers.append(text)
  lines = [
    f"{entry['dataset']}, split {files.split}, {entry['clips']} clips: {'; '.join(numbers)}."
  ]
  if scores and scores.baseline:
    lines.append(
      f"Compared with {scores.baseline_name} on {len(scores.clip_ids)} clips that both scored."
    )
  return lines
