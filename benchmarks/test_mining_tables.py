"""The page of mining shows what the committed measurement holds."""

from __future__ import annotations

import json
import re

from benchmarks import mining_tables

_CELL = re.compile(r"(\d+\.\d) \[(\d+\.\d), (\d+\.\d)\]")


def test_the_page_is_what_the_command_makes(capsys):
  status = mining_tables.main(["--check"])
  assert not status, f"{capsys.readouterr().out}Run: python -m benchmarks.mining_tables"


def test_a_number_that_was_changed_by_hand_is_found(tmp_path, monkeypatch, capsys):
  page = tmp_path / "mining.md"
  text = mining_tables.PAGE.read_text(encoding="utf-8")
  changed = _CELL.sub("99.9 [99.8, 100.0]", text, count=1)
  assert changed != text
  page.write_text(changed, encoding="utf-8")
  monkeypatch.setattr(mining_tables, "PAGE", page)
  monkeypatch.setattr(mining_tables, "ROOT", tmp_path)
  assert mining_tables.main(["--check"]) == 1
  assert "Differs: mining.md" in capsys.readouterr().out
  assert mining_tables.main([]) == 0
  assert page.read_text(encoding="utf-8") == text


def test_each_cell_rounds_a_committed_number():
  """Parsed once more, so that a format that loses a digit is found."""
  result = json.loads(mining_tables.RESULT.read_text(encoding="utf-8"))
  checked = 0
  for part in mining_tables.PAGE.read_text(encoding="utf-8").split("<!-- table: ")[1:]:
    name, _, rest = part.partition(" -->\n")
    if name == "closest":
      continue
    data, columns = mining_tables.TABLES[name]
    body, _, _ = rest.partition("<!-- end")
    for line in [line for line in body.splitlines() if line][3:]:
      model, *cells = (cell.strip() for cell in line.strip("|").split("|"))
      metrics = result[data]["models"][model]["metrics"]
      for cell, metric in zip(cells, columns.values(), strict=True):
        value, low, high = map(float, _CELL.fullmatch(cell).groups())
        number = metrics[metric]
        assert abs(value - 100 * number["value"]) <= 0.051
        assert abs(low - 100 * number["interval"][0]) <= 0.051
        assert abs(high - 100 * number["interval"][1]) <= 0.051
        checked += 1
  assert checked >= 3 * 19
