r"""Scores a checkpoint, or saved vectors, by the definition of an official benchmark.

  python -m sum_l_jax.tools.benchmark --list
  python -m sum_l_jax.tools.benchmark epic100_mir --annotations=epic-kitchens-100-annotations \
      --texts=sentences.txt
  python -m data_prep.embed_narrations --texts=sentences.txt --model=... --output=sentences.npz
  python -m sum_l_jax.tools.benchmark epic100_mir --annotations=epic-kitchens-100-annotations \
      --narrations=sentences.npz --checkpoint=runs/epic100 --ego=data/epic100/ego:validation \
      --output=result.json

The result has each number with its 95 % interval over the queries and with chance
beside it, the counts, and notes on what the official files and the options did.
Without a network, --embeddings=FILE.npz has the clips' vectors (clip_id [N] and
vector [N, D], as `embed` writes them, of any length), or --scores=FILE.npy the
whole matrix, where a benchmark ranks one; both are taken in float64 as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import json
import sys
import textwrap
from typing import Any

from etils import epath

from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.system import text_tables
from sum_l_jax.tools import shared_options
from sum_l_jax.tools.benchmark import benchmark_inputs
from sum_l_jax.tools.benchmark import benchmark_table


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  add = parser.add_argument
  add("benchmark", nargs="?", default="", metavar="NAME", help="benchmark, one of --list")
  add("--list", action="store_true", help="list the benchmarks and what they need, and stop")
  add("--annotations", type=epath.Path, metavar="PATH", help="official file or folder")
  for view in ("ego", "exo"):
    view_help = f"data sets with the benchmark's {view} clips"
    add(f"--{view}", default="", metavar="DIR:SPLIT,...", help=view_help)
  add("--texts", type=epath.Path, metavar="FILE.txt", help="write the sentences here, and stop")
  add("--narrations", default="", metavar="FILE.npz", help="vectors of the sentences")
  template_help = "sentence with {} for a class's name; may be given several times"
  add("--template", action="append", default=[], metavar="TEXT", help=template_help)
  command_line.add_run(parser, required=False)
  embeddings_help = "vectors of the clips, in the place of a checkpoint; or a folder (--list)"
  add("--embeddings", default="", metavar="FILE.npz,...", help=embeddings_help)
  scores_help = "matrix of scores, in the place of clips and sentences"
  add("--scores", default="", metavar="FILE.npy", help=scores_help)
  set_help = "choice of the benchmark (--list); may be given several times"
  add("--set", action="append", default=[], metavar="NAME=VALUE", help=set_help)
  missing_help = "clips without a vector stop the command, or count as zero vectors (stop)"
  add(
    "--on_missing",
    choices=benchmark_inputs.ON_MISSING,
    help=missing_help,
  )
  output_help = "metrics, and what they are of (result.json)"
  add("--output", type=epath.Path, default="result.json", metavar="FILE.json", help=output_help)
  shared_options.add_embedder(parser)
  # What was not given is known, so that no option is silently left aside.
  parser.set_defaults(**dict.fromkeys(shared_options.EMBEDDER))
  return parser


def _listing() -> str:
  """The benchmarks, their needs, and their choices with the official one first."""
  parts = []
  for name, benchmark in benchmark_table.BENCHMARKS.items():
    needs = [f"--annotations: {benchmark.annotations}"] if benchmark.annotations else []
    instead = "for the class heads of --checkpoint" if benchmark.heads else "or --embeddings"
    needs += [f"--{view}: its {view} clips, {instead}" for view in benchmark.views]
    needs += [f"--embeddings: {benchmark.frames}"] if benchmark.frames else []
    needs += ["--narrations: vectors of the sentences of --texts"] if benchmark.texts else []
    needs += [f"--scores: {benchmark.matrix}, in place of the above"] if benchmark.matrix else []
    for key, switch in benchmark.switches.items():
      needs.append(f"--set={key}={'|'.join(switch.choices)}: {switch.about}")
    lines = [f"{name}: {benchmark.protocol.title}", f"  {benchmark.protocol.source}"]
    lines += [textwrap.fill(n, 98, initial_indent="  ", subsequent_indent="    ") for n in needs]
    parts.append("\n".join(lines))
  return "\n\n".join(parts)


def _run(options: argparse.Namespace) -> str:
  if options.list:
    return _listing()
  known = benchmark_table.BENCHMARKS
  if options.benchmark not in known:
    hint = command_line.close_match(options.benchmark, known)
    raise ValueError(
      f"NAME must be one of {sorted(known)}, got {options.benchmark!r}{hint}. --list describes"
      " them."
    )
  benchmark = known[options.benchmark]
  benchmark_table.check_options(benchmark, options)
  inputs = benchmark_inputs.Inputs(
    annotations=options.annotations,
    switches=benchmark_table.read_switches(benchmark, options.set),
    datasets={"ego": options.ego, "exo": options.exo},
    checkpoint=options.checkpoint,
    narrations=options.narrations,
    embeddings=options.embeddings,
    scores=options.scores,
    templates=options.template or benchmark.templates,
    embedder=shared_options.embedder_options(options),
    on_missing=options.on_missing or benchmark_inputs.STOP,
  )
  if options.texts is not None:
    return _write_texts(benchmark, inputs, options.texts)
  command_line.check_output(options.output, suffixes=(".json",))
  result = benchmark_table.run(benchmark, inputs)
  storage.write_text(options.output, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
  return "\n".join([*_table(result), f"wrote {options.output}"])


def _write_texts(
  benchmark: benchmark_inputs.Benchmark, inputs: benchmark_inputs.Inputs, path: epath.Path
) -> str:
  if benchmark.texts is None:
    raise ValueError(f"{benchmark.protocol.name} has no sentences to embed.")
  sentences = list(dict.fromkeys(benchmark.texts(inputs)))
  broken = [text for text in sentences if len(text.splitlines()) > 1]
  if broken:  # The file has a sentence on each line.
    raise ValueError(f"A sentence has several lines: {broken[0]!r}.")
  storage.write_text(path, "\n".join(sentences) + "\n")
  return f"wrote {path}: {len(sentences)} sentences"


def _table(result: Mapping[str, Any]) -> list[str]:
  """What is printed: a line for each metric, then counts and notes."""
  number = lambda value: "-" if value is None else f"{value:.4f}"
  rows = [["metric", "value", "95 % interval", "chance"]]
  for name, found in result["metrics"].items():
    bounds = found["interval"]
    shown = "-" if bounds is None else " to ".join(map(number, bounds))
    rows.append([name, number(found["value"]), shown, number(found["chance"])])
  counts = ", ".join(f"{name} {count}" for name, count in result["counts"].items())
  return [*text_tables.aligned(rows), counts, *(f"note: {note}" for note in result["notes"])]


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
