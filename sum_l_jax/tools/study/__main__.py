r"""Runs a table of the paper over seeds, and writes it.

  python -m sum_l_jax.tools.study --study=table1 --config=configs/demo.py \
      --seeds=10 --parallel=2 --workdir=runs/table1
  python -m sum_l_jax.tools.study --study=table6 --seeds=3 --workdir=runs/table6 \
      --config=configs/charades_ego.py --config.init.exo=runs/lemma

The same command again goes on where it stopped. Stage one is trained once a
seed. Data that the config renders are rendered anew for each seed. WORKDIR gets
table.md, table.csv and table.json, and a folder a run; `study.json` says,
before the first run starts, what is compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import datetime
import json
import pathlib
import shlex
import sys

from sum_l_jax.system import atomic
from sum_l_jax.system import command_line
from sum_l_jax.tools.study import plan
from sum_l_jax.tools.study import reuse
from sum_l_jax.tools.study import runner
from sum_l_jax.tools.study import study_rows
from sum_l_jax.tools.study import study_table


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(
    "sum_l_jax.tools.study",
    __doc__,
    allow_abbrev=False,
    epilog="Fields of the config are set for all runs by --config.x=y.",
  )
  add = parser.add_argument
  add("--study", required=True, help=f"{', '.join(study_rows.STUDIES)}, or a .json file")
  add(
    "--config",
    required=True,
    metavar="FILE[:ARGUMENTS]",
    help="as for sum_l_jax.main, such as configs/demo.py",
  )
  add("--workdir", required=True, type=pathlib.Path)
  add("--seeds", type=int, default=3, help="how many, from --first_seed on (default: 3)")
  add("--first_seed", type=int, default=0, help="default: 0")
  add("--rows", help="only these rows of the study, separated by commas")
  add(
    "--parallel",
    type=int,
    default=1,
    help="runs side by side, each on its share of the cores (default: 1)",
  )
  add("--split", default="", help="of the tables (default: the last of config.eval.splits)")
  add(
    "--primary_metric", default="", help="of the primary comparison (default: action_top1 or mAP)"
  )
  add(
    "--reuse",
    default="",
    metavar="WORKDIR[,...]",
    help="other studies: a run with the same settings is taken from there",
  )
  add("--dry_run", action="store_true", help="print the commands, run nothing")
  return parser


def _chosen(study: study_rows.Study, names: str | None) -> study_rows.Study:
  """The study with some of its rows."""
  if not names:
    return study
  wanted = [name.strip() for name in names.split(",")]
  unknown = set(wanted) - {row.name for row in study.rows}
  if unknown:
    raise ValueError(
      f"--rows: {sorted(unknown)} are not among the rows"
      f" {[row.name for row in study.rows]} of {study.name}."
    )
  rows = tuple(row for row in study.rows if row.name in wanted)
  kept = {row.name for row in rows}
  primary = study.primary
  if not kept.issuperset(primary):
    primary = (rows[-1].name, rows[0].name)
  return dataclasses.replace(
    study,
    rows=rows,
    primary=primary,
    contrasts=tuple(c for c in study.contrasts if kept.issuperset(c)),
  )


def _register(path: pathlib.Path, content: dict) -> None:
  """Writes down what is compared, once; only seeds may be added later.

  Raises:
    ValueError: the folder holds a study with other settings.
  """
  if path.is_file():
    old = json.loads(path.read_text(encoding="utf-8"))
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
  path.parent.mkdir(parents=True, exist_ok=True)
  atomic.write_text(path, json.dumps(content, indent=1))


def _primary_metric(config, given: str) -> str:
  if given:
    return given
  # Charades-Ego alone is scored by the best test view, and by mAP.
  return "action_map_sklearn" if config.eval.ensemble == "max" else "action_top1"


def _run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
  if args.seeds < 1 or args.parallel < 1 or args.first_seed < 0:
    raise ValueError(
      "--seeds and --parallel must be 1 or more and --first_seed 0 or more,"
      f" got {args.seeds}, {args.parallel}, {args.first_seed}."
    )
  study = _chosen(study_rows.read(args.study), args.rows)
  seeds = list(range(args.first_seed, args.first_seed + args.seeds))
  others = [pathlib.Path(name) for name in args.reuse.split(",") if name]
  planner = plan.Planner(
    study,
    args.config,
    tuple(overrides),
    args.workdir,
    find=lambda config, seed: reuse.find(config, seed, others),
  )
  cells = planner.cells(seeds)
  if args.dry_run:
    for cell in cells:
      print(
        f"# {cell.name} is {cell.reused}" if cell.reused else shlex.join(("python", *cell.command))
      )
    return 0
  from sum_l_jax import build

  config = build.read_settings(args.config, overrides)
  split = args.split or config.eval.splits[-1]
  about = {
    "split": split,
    "primary_metric": _primary_metric(config, args.primary_metric),
    "primary": list(study.primary),
    "rows": [row.name for row in study.rows],
    "config": args.config,
    "overrides": list(overrides),
  }
  _register(args.workdir / runner.STUDY_FILE, {**about, "seeds": seeds})
  failed = runner.run(
    cells, args.workdir, parallel=args.parallel, say=lambda text: print(text, flush=True)
  )
  del about["rows"], about["primary"]
  result = study_table.build(
    study,
    study_table.read_results(study, cells, args.workdir, split),
    about={
      **about,
      # Rendered clips have no line in the paper.
      "compare_with_paper": not config.prepare.recipe,
      "command": shlex.join(["python", "-m", "sum_l_jax.tools.study", *sys.argv[1:]]),
    },
  )
  study_table.write(result, args.workdir)
  print("\n" + study_table.as_markdown(result))
  print(f"Written: {args.workdir / 'table.md'}, .csv and .json")
  if failed:
    sys.stderr.write(
      f"error: {len(failed)} run(s) failed:"
      f" {', '.join(cell.name for cell in failed)}. Their log.txt says why;"
      " the same command tries again.\n"
    )
  return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  try:
    return command_line.run_with_fields(_parser(), _run, argv)
  except KeyboardInterrupt:
    sys.stderr.write("Stopped; the same command goes on.\n")
    return 130


if __name__ == "__main__":
  sys.exit(main())
