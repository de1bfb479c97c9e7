"""The page of experiments and the README show what the committed results hold."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from scipy import stats

from benchmarks import study_tables

_NUMBER = r"[+-]?\d+\.\d"
_DIFFERENCE = re.compile(rf"({_NUMBER})(?:\*\*)? \[({_NUMBER}), ({_NUMBER})\]")
_MEAN = re.compile(rf"({_NUMBER}) ± ({_NUMBER})")


def _lines(study):
  with (study_tables.RESULTS / f"study_{study}.csv").open(encoding="utf-8", newline="") as file:
    return list(csv.DictReader(file))


def _tables(text):
  """Lines of the page's tables, cells by name."""
  for part in text.split("<!-- table: ")[1:]:
    name, _, rest = part.partition(" -->\n")
    body, _, _ = rest.partition("<!-- end")
    lines = [line for line in body.splitlines() if line][2:]
    yield name, [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_is_what_the_command_makes(capsys):
  status = study_tables.main(["--check"])
  assert not status, f"{capsys.readouterr().out}Run: python -m benchmarks.study_tables"


def test_a_number_that_was_changed_by_hand_is_found(tmp_path, monkeypatch, capsys):
  page = tmp_path / "experiments.md"
  text = study_tables.PAGE.read_text(encoding="utf-8")
  page.write_text(text.replace("**+0.8** [+0.1, +1.6]", "**+0.9** [+0.1, +1.6]", 1))
  monkeypatch.setattr(study_tables, "PAGE", page)
  monkeypatch.setattr(study_tables, "ROOT", tmp_path)
  readme = tmp_path / "README.md"
  readme.write_bytes(study_tables.README.read_bytes())
  monkeypatch.setattr(study_tables, "README", readme)
  assert study_tables.main(["--check"]) == 1
  assert "Differs: experiments.md" in capsys.readouterr().out
  assert study_tables.main([]) == 0
  assert page.read_text(encoding="utf-8") == text
  page.write_text(text.replace("<!-- table: table5 -->", ""))
  with pytest.raises(ValueError, match="a place for each of .*table5"):
    study_tables.main([])


def test_each_cell_rounds_a_committed_number():
  """Parsed once more, so that a format that loses a sign or a digit is found."""
  checked = 0
  tables = study_tables.TABLES | study_tables.README_TABLES
  pages = [page.read_text(encoding="utf-8") for page in (study_tables.PAGE, study_tables.README)]
  for name, lines in [table for text in pages for table in _tables(text)]:
    if name.endswith("_by_seed"):
      continue
    table = tables[name]
    for (label, (study, key)), (first, *cells) in zip(table.places().items(), lines, strict=True):
      assert first == label
      held = {(x["row"], x["against"], x["metric"]): x for x in _lines(study)}
      for metric, cell in zip(table.columns, cells, strict=True):
        wanted = held[*key, metric]
        numbers = [float(x) for x in re.findall(_NUMBER, cell)] or [0.0, 0.0, 0.0]
        names = ("mean", "low", "high") if key[1] else ("mean", "sd")
        for shown, what in zip(numbers, names):
          assert shown == pytest.approx(100 * float(wanted[what]), abs=0.0501), (label, metric)
          checked += 1
        if key[1]:
          low, high = float(wanted["low"]), float(wanted["high"])
          assert ("**" in cell) == (not low <= 0 <= high), (label, metric)
  assert checked > 200


def test_each_difference_in_the_text_is_a_committed_one():
  pages = (study_tables.PAGE, study_tables.README)
  text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
  prose = re.sub(r"(?s)<!-- table: .*?<!-- end of table -->", "", text)
  held = {
    tuple(f"{100 * float(line[k]):+.1f}" for k in ("mean", "low", "high"))
    for path in study_tables.RESULTS.glob("study_*.csv")
    if not path.name.endswith(study_tables.BY_SEED)
    for line in _lines(path.stem.removeprefix("study_"))
    if line["kind"] == "difference" and line["low"]
  }
  found = _DIFFERENCE.findall(re.sub(r"\s+", " ", prose))
  assert len(found) >= 5
  unsigned = {(mean.lstrip("+-"), low, high) for mean, low, high in held}
  for mean, low, high in found:
    assert (mean, low, high) in held or (mean, low, high) in unsigned, (mean, low, high)


@pytest.mark.parametrize("study", study_tables.studies_by_seed())
def test_summaries_are_those_of_the_runs(study):
  """Student's t over seeds, by scipy."""
  results = study_tables.read_by_seed(study)
  plan = json.loads((study_tables.RESULTS / f"study_{study}_plan.json").read_text())
  assert set(results) == set(plan["rows"])
  # What is missing is named, so that a lost run is found.
  missing = {row: set(plan["seeds"]) - runs.keys() for row, runs in results.items()}
  assert {row: sorted(seeds) for row, seeds in missing.items() if seeds} == plan.get("not_run", {})
  for line in _lines(study):
    runs, metric = results[line["row"]], line["metric"]
    other = results[line["against"]] if line["kind"] == "difference" else {}
    # Rows of one study may stand in different worlds: a difference is of those of both.
    seeds = sorted(runs.keys() & other.keys() if other else runs)
    values = np.array([runs[seed][metric] for seed in seeds])
    if other:
      values = values - np.array([other[seed][metric] for seed in seeds])
    assert int(line["seeds"]) == len(values)
    assert float(line["mean"]) == pytest.approx(values.mean(), abs=1e-6)
    if len(values) > 1:
      assert float(line["sd"]) == pytest.approx(values.std(ddof=1), abs=1e-6)
      interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
      if values.std():
        limits = float(line["low"]), float(line["high"])
        assert limits == pytest.approx(tuple(interval), abs=1e-6)
