"""Kills training and data preparation at random moments, and compares.

  python -m tests.stress.soak --kills=200 --inputs=10000 --containers=350 --seed=0 \\
      --output=benchmarks/results/soak.json

Each piece of work (`tests.stress.victims`) is done once without interruption.
Then it is begun again and again, gets SIGKILL at a random moment (a time, or
just before the n-th access to one of its files: in the middle of a save, of a
hand-over, of a rename) and is started again with the same call until it is
done. The result must equal the first one, and whatever a training reported as
saved must be there, whole, after the kill.

Processes are forked from one that has imported everything and has not started
JAX, which saves some ten seconds a start.

With --inputs, as many damaged or made-up inputs go through the readers of
files (`tests.stress.hostile_inputs`), each of which must answer with a result or
an error that says what is wrong.

With --containers, as many made videos are cut in all ways, and each frame is
compared with the times at which it was written (`tests.stress.containers`).

The same command goes on where it was stopped: every kill and every kind of
input is noted in --folder, which is removed at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import shutil
import sys

# Before anything imports JAX. All starts of a training run the same programs.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[2] / ".cache" / "jax")
)

from tests.stress import arena
from tests.stress import victims

# Shares of all kills; training has more to lose.
_SHARES = {"training": 0.5, "build": 0.2, "mining": 0.2, "embedding": 0.1}
_FOLDER = pathlib.Path(__file__).parents[2] / ".cache" / "soak"


def kill(kills: int, seed: int, names: Sequence[str], folder: pathlib.Path) -> dict[str, dict]:
  """Kills each victim its share of times.

  Args:
    kills: number of kills of all together, at least.
    seed: seed of the moments.
    names: names of the victims.
    folder: folder of their files and of what was done.

  Returns:
    What was done, by victim.

  Raises:
    arena.LostError: see `Arena.one_run`; the files are kept for a look.
  """
  whole = sum(_SHARES[name] for name in names)
  records = {}
  for number, name in enumerate(names):
    wanted = max(1, round(kills * _SHARES[name] / whole))
    fight = arena.Arena(victims.VICTIMS[name], folder / name, 1000 * seed + number)
    while fight.kills < wanted or fight.under_way:
      fight.one_run(wanted - fight.kills)
    records[name] = fight.record()
    print(name, json.dumps(records[name]), flush=True)
  return records


def _read_inputs(inputs: int, seed: int, folder: pathlib.Path) -> dict:
  """Reads damaged inputs of the kinds that are not in the journal yet."""
  from tests.stress import hostile_inputs

  journal = folder / "inputs.jsonl"
  counts = {k: v for line in arena.read_journal(journal) for k, v in line.items()}
  for name in hostile_inputs.TARGETS:
    if name not in counts:
      number = -(-inputs // len(hostile_inputs.TARGETS))
      counts[name] = hostile_inputs.run(name, number, seed)
      arena.append(journal, {name: counts[name]})
  return counts


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m tests.stress.soak",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--kills", type=int, default=200)
  add("--inputs", type=int, default=10000)
  add("--containers", type=int, default=350)
  add("--seed", type=int, default=0)
  add("--victims", default=",".join(_SHARES), metavar="NAME[,NAME...]")
  add("--output", type=pathlib.Path, metavar="FILE.json")
  add("--folder", type=pathlib.Path, default=_FOLDER, metavar="DIR")
  return parser.parse_args()


def main(args: argparse.Namespace) -> int:
  names = [name for name in args.victims.split(",") if name]
  folder = args.folder.absolute() / f"{args.seed}_{args.kills}_{args.inputs}"
  folder.mkdir(parents=True, exist_ok=True)
  kills = kill(args.kills, args.seed, names, folder) if args.kills else {}
  result = {"kills": kills}
  if args.inputs:
    result["inputs"] = _read_inputs(args.inputs, args.seed, folder)
  if args.containers:
    from tests.stress import containers

    result["containers"] = containers.run(args.containers, args.seed)
  result |= {"seed": args.seed, "lost": 0}
  if args.output:
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
  print(json.dumps(result))
  shutil.rmtree(folder)
  return 0


def _import() -> None:
  """Imports before the fork, since importing takes longer than the work."""
  from absl import flags
  from absl import logging
  from clu import metric_writers  # noqa: F401
  import orbax.checkpoint  # noqa: F401
  import tensorflow_datasets  # noqa: F401

  from sum_l_jax.experiment import final  # noqa: F401
  from sum_l_jax.experiment import loop  # noqa: F401

  flags.FLAGS.mark_as_parsed()
  logging.set_verbosity(logging.INFO)


if __name__ == "__main__":
  parsed = _parse()
  if "training" in parsed.victims:
    _import()
  sys.exit(main(parsed))
