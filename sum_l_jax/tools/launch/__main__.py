r"""Writes the files that start a training on a pod or a cluster.

  python -m sum_l_jax.tools.launch jobset --name=epic55 \
      --accelerator=v5litepod-32 --spot --image=$IMAGE \
      --workdir=gs://$BUCKET/epic55 --config=configs/epic55.py \
      --config.ego.dataset=gs://$BUCKET/data/epic55/ego
  python -m sum_l_jax.tools.launch slurm --from=launch/epic55.json --hosts=4

jobset: a JobSet of Kubernetes, for TPUs or GPUs. queued_resource: scripts for
Cloud TPU machines. xpk: the command of XPK. slurm: a script for sbatch. The
description of the launch is written beside them, for --from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import json
import sys
from typing import Any

from sum_l_jax.config import read
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.tools.launch import kubernetes_files
from sum_l_jax.tools.launch import launch_plan
from sum_l_jax.tools.launch import shell_files


def _make_parser() -> argparse.ArgumentParser:
  """One option for each field of a plan; those that are not given are absent."""
  parser = command_line.make_parser(
    __package__,
    __doc__,
    allow_abbrev=False,
    epilog="Fields of the config are set by --config.x=y, as for training.",
  )
  add = parser.add_argument
  add("kind", choices=launch_plan.KINDS, help="what is to start the run")
  add("--from", dest="description", metavar="FILE", help="description that options change")
  add("--output", default="launch", help="folder for the files (default: launch)")
  for field in dataclasses.fields(launch_plan.Plan):
    about = field.metadata["about"]
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": about}
    if isinstance(field.default, bool):
      options["action"] = argparse.BooleanOptionalAction
    elif isinstance(field.default, tuple):
      options |= {"action": "append", "metavar": "NAME=VALUE"}
    else:
      options |= {"type": type(field.default), "metavar": field.name.upper()}
      if field.default:
        options["help"] = f"{about} (default: {field.default})"
    if about:
      add(f"--{field.name}", **options)
  return parser


def files(plan: launch_plan.Plan, kind: str) -> dict[str, str]:
  """The texts of the files, by name."""
  if kind == "jobset":
    return {f"{plan.name}.yaml": kubernetes_files.jobset(plan)}
  if kind == "slurm":
    return {f"{plan.name}.sbatch": shell_files.slurm(plan)}
  if kind == "xpk":
    return {f"{plan.name}-xpk.sh": shell_files.xpk(plan)}
  control, start = shell_files.queued_resource(plan)
  return {f"{plan.name}.sh": control, f"{plan.name}-start.sh": start}


_NEXT = {
  "jobset": "kubectl apply -f {0}",
  "queued_resource": "bash {0} create",
  "slurm": "sbatch {0}",
  "xpk": "sh {0}",
}


def _run(options: argparse.Namespace, fields: Sequence[str]) -> str:
  values = {}
  if options.description:
    path = addresses.path(options.description, what="--from")
    if not storage.is_file(path):
      raise ValueError(
        f"--from: there is no {str(path)!r}; launch writes NAME.json beside its files."
      )
    try:
      values = launch_plan.read(storage.read_text(path))
    except ValueError as error:
      raise ValueError(f"{str(path)!r} is no description of a launch: {error}.") from error
  known = [field.name for field in dataclasses.fields(launch_plan.Plan)]
  values |= {name: value for name, value in vars(options).items() if name in known}
  values["fields"] = _merged(values.get("fields", ()), fields)
  plan = launch_plan.make(values, options.kind)
  note = _check_config(plan)
  folder = addresses.path(options.output, what="--output")
  storage.make_folder(folder)
  made = files(plan, options.kind)
  description = json.dumps(launch_plan.to_json(plan), indent=2) + "\n"
  for name, text in {**made, f"{plan.name}.json": description}.items():
    storage.write_text(folder / name, text)
  first = folder / next(iter(made))
  written = ", ".join(str(folder / name) for name in [*made, f"{plan.name}.json"])
  return f"Written: {written}\n{note}Next: {_NEXT[options.kind].format(first)}"


def _check_config(plan: launch_plan.Plan) -> str:
  """Reads the config as the training will; a mistake costs seconds here.

  Returns:
    A line about a config that isn't on this machine, or "".

  Raises:
    ValueError: a field or value that the config doesn't take, or a batch that the
      devices can't share.
  """
  file = read.find_file(plan.config).partition(":")[0]
  if not addresses.path(file).is_file():
    return f"There is no {file} here, so it is unchecked. The image must have it.\n"
  values = read.flatten(read.read_file(plan.config, plan.fields))
  for stage in values["stages"]:
    name = f"{stage}_stage.batch_size"
    if not values["num_devices"] and values[name] % plan.devices:
      raise ValueError(
        f"config.{name} must be a multiple of the {plan.devices} devices, got {values[name]}. Give"
        f" --config.{name}, or other machines."
      )
  return ""


def _merged(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
  """Fields of the config, of which the last one of each name counts."""
  by_name = {text.partition("=")[0]: text for text in (*old, *new)}
  return tuple(by_name.values())


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run_with_fields(_make_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
