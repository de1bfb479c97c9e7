r"""Says what the input of a training costs, who waits for whom, what to change.

  python -m sum_l_jax.tools.profile_input --config=configs/epic55.py \
      --config.ego.dataset=data/epic55/ego --seconds=20
  python -m sum_l_jax.tools.profile_input --config=configs/demo.py --step --json

Times the parts of the pipeline in one thread, then the whole stream with the
config's threads and workers, and with --step a real training step that eats
from it. Nothing is saved.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import sys

from sum_l_jax.system import command_line
from sum_l_jax.tools import shared_options
from sum_l_jax.tools.profile_input import advice

# jax and what stands on it are imported once the options are read.


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> str:
  if not options.seconds > 0:
    raise ValueError(f"--seconds must be more than 0, got {options.seconds}.")
  from absl import flags

  from sum_l_jax import build
  from sum_l_jax.tools.profile_input import input_profile

  # Grain's worker processes refuse to start before absl's flags are parsed.
  flags.FLAGS.mark_as_parsed()
  settings = build.read_settings(options.config, overrides)
  stage = options.stage or settings.stages[-1]
  found = input_profile.measure(settings, stage, seconds=options.seconds, with_step=options.step)
  if not options.json:
    return advice.describe(found)
  found |= {"verdict": advice.verdict(found), "advice": advice.advise(found)}
  return json.dumps(found, indent=2)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = shared_options.make_config_parser(__package__, __doc__)
  shared_options.add_stage(parser)
  add = parser.add_argument
  add("--seconds", type=float, default=10.0, help="length of each measurement (default: 10)")
  add("--step", action="store_true", help="measure a training step as well")
  add("--json", action="store_true", help="print JSON")
  return command_line.run_with_fields(parser, _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
