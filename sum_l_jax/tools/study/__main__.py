r"""Runs a table of the paper over seeds, and writes it.

  python -m sum_l_jax.tools.study --study=table1 --config=configs/demo.py \
      --seeds=10 --parallel=2 --workdir=runs/table1
  python -m sum_l_jax.tools.study --study=table6 --seeds=3 --workdir=runs/table6 \
      --config=configs/charades_ego.py --config.init.exo=runs/lemma

The same command again goes on where it stopped. Stage one is trained once per
seed. Data that the config renders are rendered for each seed. WORKDIR gets
table.md, table.csv, table_by_seed.csv and table.json, and a folder per run;
`study.json` says, before the first run starts, what is compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
import datetime
import json
import shlex
import sys
from typing import Any

from etils import epath

from sum_l_jax.config.schema import Settings
from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line
from sum_l_jax.system import lease
from sum_l_jax.system import storage
from sum_l_jax.tools import shared_options
from sum_l_jax.tools.study import plan
from sum_l_jax.tools.study import reuse
from sum_l_jax.tools.study import runner
from sum_l_jax.tools.study import study_rows
from sum_l_jax.tools.study import study_table


def _parser() -> argparse.ArgumentParser:
  epilog = "Fields of the config are set for all runs by --config.x=y."
  parser = shared_options.make_config_parser(__package__, __doc__, epilog, workdir=False)
  add = parser.add_argument
  add("--study", required=True, help=f"{', '.join(study_rows.STUDIES)}, or a .json file")
  add("--workdir", required=True, type=epath.Path, help="folder of the study")
  add("--seeds", type=int, default=3, help="number of seeds, from --first_seed on (default: 3)")
  add("--first_seed", type=int, default=0, help="first seed (default: 0)")
  add("--rows", default="", help="only these rows of the study, separated by commas")
  parallel_help = "runs side by side, each on its share of the cores (default: 1)"
  add("--parallel", type=int, default=1, help=parallel_help)
  add("--split", default="", help="split of the tables (default: the last of config.eval.splits)")
  metric_help = "metric of the primary comparison (default: action_top1 or mAP)"
  add("--primary_metric", default="", help=metric_help)
  reuse_help = "other studies: a run with the same settings and data is taken from there"
  add("--reuse", default="", metavar="WORKDIR[,...]", help=reuse_help)
  add("--dry_run", action="store_true", help="print the commands, run nothing")
  return parser


@dataclasses.dataclass(frozen=True)
class _Registered:
  """What `study.json` holds, as far as it is read again."""

  seeds: list[checked_json.Index]
  begun: str
  seeds_at_first: list[checked_json.Index] = dataclasses.field(default_factory=list)


def _register(path: epath.Path, content: dict[str, Any]) -> None:
  """Writes down what is compared, once; only seeds may be added later.

  Raises:
    ValueError: the folder holds a study with other settings.
  """
  if storage.is_file(path):
    mend = "Give another --workdir, or remove the file if you know what was compared."
    old = checked_json.read(path, checked_json.Object, mend=mend)
    try:
      checked_json.check(old, _Registered)
    except checked_json.JsonError as error:
      raise ValueError(f"{str(path)!r} is damaged: {error}. {mend}") from error
    changed = [k for k in content if k != "seeds" and old.get(k) != content[k]]
    if changed:
      raise ValueError(
        f"{path} was begun with other settings: "
        + "; ".join(f"{k} was {old.get(k)}, now {content[k]}" for k in changed)
        + ". Give another --workdir."
      )
    if content["seeds"] == old["seeds"]:
      return
    # More seeds after a look at the table are another experiment: it shows.
    content = {
      **old,
      "seeds": sorted({*old["seeds"], *content["seeds"]}),
      "seeds_at_first": old.get("seeds_at_first", old["seeds"]),
    }
  else:
    now = datetime.datetime.now(datetime.UTC)
    content = {**content, "begun": now.isoformat(timespec="seconds")}
  storage.make_folder(path.parent)
  storage.write_text(path, json.dumps(content, indent=1))


def _primary_metric(settings: Settings) -> str:
  # Only Charades-Ego is scored by the best test view, and by mAP.
  return "action_map_sklearn" if settings.eval.ensemble == "max" else "action_top1"


def _split(asked: str, settings: Settings) -> str:
  """The split of the tables, known to be evaluated before the first run begins.

  Raises:
    ValueError: no run evaluates it.
  """
  splits = settings.eval.splits
  if not splits:
    raise ValueError(
      "config.eval.splits is empty, so that there is nothing to compare. Name a split by"
      " --config.eval.splits."
    )
  if asked and asked not in splits:
    raise ValueError(
      f"--split={asked}{command_line.close_match(asked, splits)} is not evaluated. Choose one of"
      f" {', '.join(splits)}, or add it by --config.eval.splits."
    )
  return asked or splits[-1]


def _known_metrics(settings: Settings, split: str) -> set[str]:
  """Metrics that runs will have, if their data are there already, but for retrieval."""
  from sum_l_jax.data import records  # For which --help does not wait.
  from sum_l_jax.evaluation.labels import evaluators

  try:
    return set(evaluators.metric_names(records.ClipDataset(settings.ego.dataset, split)))
  except FileNotFoundError:  # They are rendered by the first run, or it says so.
    return set()


def _check_metric(metric: str, known: Collection[str], *, mend: str = "") -> None:
  """Refuses a primary metric that runs don't have.

  Args:
    metric: its name.
    known: metrics that they have; empty where that is not known yet.
    mend: sentence that says how to go on.

  Raises:
    ValueError: it is not among them; lists them.
  """
  if known and metric not in known:
    raise ValueError(
      f"The primary metric {metric!r}{command_line.close_match(metric, known)} is none of these"
      f" runs. Give one of them by --primary_metric: {', '.join(sorted(known))}.{mend}"
    )


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
  if options.seeds < 1 or options.parallel < 1 or options.first_seed < 0:
    raise ValueError(
      "--seeds and --parallel must be 1 or more and --first_seed 0 or more,"
      f" got {options.seeds}, {options.parallel}, {options.first_seed}."
    )
  study = study_rows.read(options.study).with_rows(command_line.names(options.rows))
  seeds = list(range(options.first_seed, options.first_seed + options.seeds))
  others = [epath.Path(name) for name in command_line.names(options.reuse)]
  planner = plan.Planner(
    study,
    options.config,
    tuple(overrides),
    options.workdir,
    find=lambda settings, seed: reuse.find(settings, seed, others),
  )
  cells = planner.cells(seeds)
  if options.dry_run:
    for cell in cells:
      command = shlex.join(("python", *cell.command))
      print(f"# {cell.name} is {cell.reused}" if cell.reused else command)
    return 0
  storage.make_folder(options.workdir)
  command = shlex.join(["python", "-m", "sum_l_jax.tools.study", *sys.argv[1:]])
  with lease.held(options.workdir, what=command):
    return _run_cells(options, overrides, study, cells, seeds, command)


def _run_cells(
  options: argparse.Namespace,
  overrides: Sequence[str],
  study: study_rows.Study,
  cells: Sequence[plan.Cell],
  seeds: list[int],
  command: str,
) -> int:
  settings = plan.read_settings(options.config, overrides)
  split = _split(options.split, settings)
  metric = options.primary_metric or _primary_metric(settings)
  if not metric.startswith("retrieval/"):  # An evaluation alone tells their names.
    _check_metric(metric, _known_metrics(settings, split))
  about = {
    "study": options.study,
    "split": split,
    "primary_metric": metric,
    "primary": list(study.primary) if study.primary else None,
    "rows": [row.name for row in study.rows],
    "config": options.config,
    "overrides": list(overrides),
  }
  _register(options.workdir / runner.STUDY_FILE, {**about, "seeds": seeds})
  failed = runner.run(
    cells, options.workdir, parallel=options.parallel, say=lambda text: print(text, flush=True)
  )
  del about["study"], about["rows"], about["primary"]
  results = study_table.read_results(study, cells, options.workdir, split)
  measured = {name for runs in results.values() for values in runs.values() for name in values}
  again = " With another --workdir, and --reuse for this one, nothing is trained again."
  _check_metric(metric, measured, mend=again)
  result = study_table.build(
    study,
    results,
    about={
      **about,
      # Rendered clips have no line in the paper.
      "compare_with_paper": not settings.prepare.recipe,
      "command": command,
    },
  )
  study_table.write(result, options.workdir)
  print("\n" + study_table.as_markdown(result))
  print(f"Written: {options.workdir / 'table.md'}, .csv, _by_seed.csv and .json")
  if failed:
    names = ", ".join(cell.name for cell in failed)
    sys.stderr.write(
      f"error: {len(failed)} run(s) failed: {names}. Their log.txt says why; the same command tries"
      " again.\n"
    )
  return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  try:
    return command_line.run_with_fields(_parser(), _run, arguments)
  except KeyboardInterrupt:
    sys.stderr.write("Stopped; the same command goes on.\n")
    return 130


if __name__ == "__main__":
  sys.exit(main())
