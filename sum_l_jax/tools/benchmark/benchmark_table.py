"""The benchmarks of the command, one entry each."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.system import command_line
from sum_l_jax.tools import shared_options
from sum_l_jax.tools.benchmark import ae2_entries
from sum_l_jax.tools.benchmark import anticipation_entries
from sum_l_jax.tools.benchmark import benchmark_inputs
from sum_l_jax.tools.benchmark import choice_entries
from sum_l_jax.tools.benchmark import class_name_entries
from sum_l_jax.tools.benchmark import egoexo4d_entries
from sum_l_jax.tools.benchmark import egoyc2_entries
from sum_l_jax.tools.benchmark import epic100_entries

# Each module of entries has ENTRIES, a `Benchmark` for each.
_MODULES = (
  *(epic100_entries, class_name_entries, egoyc2_entries, egoexo4d_entries, choice_entries),
  *(anticipation_entries, ae2_entries),
)
BENCHMARKS: Mapping[str, benchmark_inputs.Benchmark] = {
  entry.protocol.name: entry for module in _MODULES for entry in module.ENTRIES
}


# What a file makes superfluous.
_NOT_BESIDE = {
  "scores": ("ego", "exo", "narrations", "template", "on_missing", *shared_options.EMBEDDER),
  "embeddings": ("ego", "exo", *shared_options.EMBEDDER),
  "checkpoint": (),
}


def read_switches(benchmark: benchmark_inputs.Benchmark, given: Sequence[str]) -> dict[str, str]:
  """The choices of a benchmark: those of --set, and the official ones.

  Args:
    benchmark: the benchmark.
    given: "NAME=VALUE" each.

  Raises:
    ValueError: an unknown name or value, or a name that is given twice.
  """
  chosen = {name: switch.choices[0] for name, switch in benchmark.switches.items()}
  seen = set()
  for text in given:
    name, _, value = text.partition("=")
    if name not in benchmark.switches:
      hint = command_line.close_match(name, benchmark.switches)
      raise ValueError(
        f"--set={text}: {benchmark.protocol.name} has the choices"
        f" {sorted(benchmark.switches)}, not {name!r}{hint}."
      )
    choices = benchmark.switches[name].choices
    if value not in choices:
      raise ValueError(f"--set={text}: {name} must be one of {list(choices)}, got {value!r}.")
    if name in seen:
      raise ValueError(f"--set={text}: {name} is given twice.")
    seen.add(name)
    chosen[name] = value
  return chosen


def check_options(benchmark: benchmark_inputs.Benchmark, options: argparse.Namespace) -> None:
  """Refuses options that are missing, or that the benchmark would not read.

  Raises:
    ValueError: says which.
  """
  name = benchmark.protocol.name
  if benchmark.annotations and options.annotations is None:
    raise ValueError(f"{name} needs --annotations: {benchmark.annotations}.")
  unused = [f"--{view}" for view in ("ego", "exo") if view not in benchmark.views]
  unused += ["--annotations"] if not benchmark.annotations else []
  unused += ["--scores"] if not benchmark.matrix else []
  unused += ["--narrations"] if benchmark.texts is None else []
  unused += ["--template"] if not benchmark.templates else []
  unused += ["--checkpoint"] if not benchmark.views else []
  # A head's scores are of all clips, or the command stops.
  unused += ["--on_missing"] if benchmark.heads else []
  of_clips = benchmark.views and not benchmark.heads
  unused += ["--embeddings"] if not (of_clips or benchmark.frames) else []
  given = [option for option in unused if getattr(options, option.removeprefix("--"))]
  if given:
    raise ValueError(f"{name} does not read {given[0]}. Leave it out; --list says what it needs.")
  if benchmark.frames and not options.embeddings:
    raise ValueError(f"{name} needs --embeddings: {benchmark.frames}.")
  sources = ("scores", "embeddings", "checkpoint")
  several = [f"--{source}" for source in sources if getattr(options, source)]
  if len(several) > 1:
    raise ValueError(f"Give one of {' and '.join(several)}: each says where the scores are from.")
  if several:
    ignored = [n for n in _NOT_BESIDE[several[0][2:]] if getattr(options, n) not in (None, "", [])]
    if ignored:
      raise ValueError(
        f"--{ignored[0]} is not read beside {several[0]}, which stands in its place. Leave one of"
        " them out."
      )


def run(benchmark: benchmark_inputs.Benchmark, inputs: benchmark_inputs.Inputs) -> dict[str, Any]:
  """Scores a benchmark; returns what `result.json` holds.

  Raises:
    ValueError: something that it needs isn't given, or is not as it must be.
  """
  outcome = benchmark.score(inputs)
  if inputs.templates and inputs.takes_sentences:
    inputs.about["templates"] = inputs.templates
  official = {name: switch.choices[0] for name, switch in benchmark.switches.items()}
  changed = [
    f"{name} is {value!r} where the official choice is {official[name]!r}: "
    f"{benchmark.switches[name].about}."
    for name, value in inputs.switches.items()
    if value != official[name]
  ]
  result = protocol.entry(benchmark.protocol, outcome)
  return {
    "benchmark": benchmark.protocol.name,
    **result,
    "notes": [*result["notes"], *changed, *inputs.notes],
    "switches": inputs.switches,
    "of": {
      **({} if inputs.annotations is None else {"annotations": str(inputs.annotations)}),
      **inputs.about,
    },
  }
