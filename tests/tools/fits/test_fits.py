"""The table of compiled steps, and what it refuses."""

from __future__ import annotations

import json
import pathlib

from sum_l_jax.tools.aot import program_report
from sum_l_jax.tools.fits.__main__ import attention_table
from sum_l_jax.tools.fits.__main__ import main
from sum_l_jax.tools.fits.__main__ import read_programs
from sum_l_jax.tools.fits.__main__ import table
from tests.support import compiled_step

ROOT = pathlib.Path(__file__).parents[3]


def test_table(tmp_path, capsys):
  wide = compiled_step.compiled(memory={}, text="", costs={}, problem="Used 17G of 15.75G")
  programs = [program_report.summarize(c) for c in (compiled_step.compiled(), wide)]
  path = tmp_path / "a.json"
  path.write_text(json.dumps({"programs": programs}))
  assert main([str(path), str(path)]) == 0
  head, _, one, two, *again = capsys.readouterr().out.splitlines()
  assert head.split(" | ")[1:5] == ["stage", "recomputed", "chips", "clips a chip"]
  assert one == (
    "| `slow_r50` | joint | - | v5e:2x4 | 8 of 8 x 224 x 224 | 6.00 GB | 4.00 GB | 16.91 GB | yes"
    # A floor above the cycles: the program is made up.
    " | 2 ms | 10 ms (memory) | 500.0% | - |"
  )
  assert two.endswith("| - | - | - | no | - | - | - | - |") and again == [one, two]
  for text in ("{}", '{"programs": [{}]}', "no JSON"):
    path.write_text(text)
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert "isn't a file that `python -m sum_l_jax.tools.aot" in error


def test_attention_and_all_else_stand_apart(tmp_path, capsys):
  program = program_report.summarize(compiled_step.compiled())
  exchange = lambda kind, dtype, size: {"kind": kind, "dtype": dtype, "bytes": size, "group": 8}
  attention = {
    "kernel_seconds": 0.1,
    "seconds": 0.25,
    "rest_seconds": 0.3,
    "rest_floor": 0.2,
    "rest_over_floor": 1.5,
  }
  rows = [exchange("all-gather", "bf16", 2.5e9), exchange("all-reduce", "s32", 1e3)]
  program |= {"attention": attention, "fsdp": 4, "collectives": rows}
  path = tmp_path / "a.json"
  path.write_text(json.dumps({"programs": [program, dict(program, attention=None)]}))
  assert main([str(path)]) == 0
  first, _, second = capsys.readouterr().out.partition("\n\n")
  assert len(first.splitlines()) == 4
  *_, line = second.splitlines()
  assert line == (
    "| `slow_r50` | v5e:2x4 | 2 x 4 | 8 of 8 x 224 x 224 | 6.00 GB | 100 ms | 250 ms | 300 ms"
    " | 200 ms | 1.50 | all-gather bf16 2.50 GB |"
  )


def test_the_document_has_the_table_of_the_results():
  files = sorted((ROOT / "benchmarks" / "results").glob("aot_*.json"))
  programs = read_programs(files)
  text = (ROOT / "docs" / "aot.md").read_text(encoding="utf-8")
  assert table(programs) in text and attention_table(programs) in text
