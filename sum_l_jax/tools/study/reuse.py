"""Finds runs of other studies that are what a cell asks for.

Several tables have the same row: "FPV only" is trained once per seed. A run is
known by its settings and by the contents of its data and starting weights, which
its checkpoints and its `result.json` record. Where they lie doesn't count.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
from typing import Any

from etils import epath

from sum_l_jax import types
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.config.schema import Settings
from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.tools.study import cell_results
from sum_l_jax.tools.study import runner

_RETRIEVAL = "pools of retrieval"


def find(settings: Settings, seed: int, studies: Sequence[epath.Path]) -> epath.Path | None:
  """Finds the folder of a finished run that is the same, if there is one.

  Data that the run would still have to render (`config.prepare`) are known by
  their recipe, its seed and their names.

  Args:
    settings: what the run is asked to do.
    seed: seed of the run.
    studies: workdirs of studies, in the order of preference.

  Raises:
    FileNotFoundError: one of the workdirs holds no study.
    ValueError: data or a finished run are damaged, or its `result.json` is of another
      evaluation than its own.
  """
  wanted = cell_results.relevant(settings.to_json())
  for study in studies:
    if not storage.is_file(study / runner.STUDY_FILE):
      raise FileNotFoundError(
        f"--reuse: {str(study)!r} is not the workdir of a study: it has no {runner.STUDY_FILE}."
      )
    for mark in storage.matching(study / f"seed_{seed}", f"*/{runner.MARK}"):
      saved = storage.read_text(mark.with_name(run_files.CONFIG))
      if cell_results.relevant(saved) == wanted and _same_contents(settings, saved, mark.parent):
        return mark.parent
  return None


def _same_contents(settings: Settings, saved: str, folder: epath.Path) -> bool:
  """Whether a finished run had the data and weights that settings name."""
  from sum_l_jax import build  # Imports JAX, for which --help does not wait.

  try:
    of_run = _of_run(folder, settings.stages)
  except FileNotFoundError:
    return False  # Without its checkpoint or result, nothing says what it had.
  try:
    of_settings = _of_settings(settings, retrieval=_RETRIEVAL in of_run)
  except FileNotFoundError:
    # Data that are missing: the run will say so, or render them.
    names = _rendered(json.loads(settings.to_json()))
    if names is None or names != _rendered(read.with_defaults(saved)):
      return False
    inits = build.init_digests(settings)
    given = {view: digest for view, digest in inits.items() if f"init.{view}" not in names}
    return all(
      data["init"].get(view) == digest
      for name, data in of_run.items()
      if name in settings.stages
      for view, digest in given.items()
    )
  return of_run == of_settings


def _of_run(folder: epath.Path, stages: Sequence[str]) -> dict[str, Any]:
  """Digests of what a run was trained and evaluated on, by stage and split.

  Raises:
    FileNotFoundError: it left no checkpoint or result.
  """
  from sum_l_jax.checkpoint import weight_files

  found: dict[str, Any] = {
    stage: weight_files.read_card(folder / stage).get("data") for stage in stages
  }
  if schema.JOINT_STAGE in stages:
    try:
      splits = cell_results.load(folder)["splits"]
    except ValueError as error:
      raise ValueError(
        f"--reuse: {error} Evaluate it again as that study does, or leave the study out."
      ) from error
    found |= {f"split {name}": entry.get("fingerprint") for name, entry in splits.items()}
    found |= {f"features of {name}": entry.get("features") for name, entry in splits.items()}
    of_retrieval = [e["retrieval_of"] for e in splits.values() if "retrieval_of" in e]
    if of_retrieval:
      found[_RETRIEVAL] = of_retrieval[0].get("exo_fingerprints")
  return found


def _of_settings(settings: Settings, *, retrieval: bool) -> dict[str, Any]:
  """The same of what settings name.

  Args:
    settings: the settings.
    retrieval: whether the run would score retrieval.

  Raises:
    FileNotFoundError: data are not there.
  """
  from sum_l_jax import build
  from sum_l_jax import build_data
  from sum_l_jax import build_features
  from sum_l_jax.data import records

  inits = build.init_digests(settings)
  found: dict[str, Any] = {
    stage: {**build_data.open_data(settings, stage).fingerprints, "init": inits}
    for stage in settings.stages
  }
  if schema.JOINT_STAGE in settings.stages:
    for split in settings.eval.splits:
      data = records.ClipDataset(settings.ego.dataset, split)
      found[f"split {split}"] = data.fingerprint
      stores = build_features.find_stores(settings, types.EGO, [data], training=False)
      found[f"features of {split}"] = build_features.digest(stores[0]) if stores else None
  if retrieval:
    split = settings.eval.retrieval_exo_split
    pools = [records.ClipDataset(folder, split) for folder in settings.exo.datasets]
    found[_RETRIEVAL] = [pool.fingerprint for pool in pools]
  return found


def _rendered(fields: Mapping[str, Any]) -> dict[str, Any] | None:
  """Names of the files that a recipe makes, by field; None if others are named."""
  if not fields["prepare.recipe"]:
    return None
  root = epath.Path(fields["prepare.directory"])
  names: dict[str, Any] = {}
  for field in schema.fields():
    if not field.about.path or field.name == "prepare.directory":
      continue
    value = fields[field.name]
    given = [path for path in ([value] if isinstance(value, str) else value) if path]
    inside = [path for path in given if epath.Path(path).is_relative_to(root)]
    if inside == given:
      names[field.name] = [str(epath.Path(path).relative_to(root)) for path in given]
    elif field.name not in (f"init.{view}" for view in types.VIEWS):
      return None
  return names
