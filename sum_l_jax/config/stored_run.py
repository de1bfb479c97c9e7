"""The settings of a run that is there, as a config file.

`--workdir=RUN` without `--config`, `--config=RUN` and `--config=RUN/config.json` all
read this file with the run as its argument (`read.find_file`), so that fields are set
and checked as those of any other config.
"""

from __future__ import annotations

from typing import Any

from ml_collections import config_dict

from sum_l_jax.config import presets
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.system import addresses
from sum_l_jax.system import run_files
from sum_l_jax.system import storage

# What belongs to one command, not to the run.
_OF_ONE_COMMAND = ("stop_at",)


def get_config(argument: str = "") -> config_dict.ConfigDict:
  """The config from which a run's stored settings follow.

  Args:
    argument: workdir of the run, or its `config.json`.

  Raises:
    ValueError: the file is damaged, or of another version.
  """
  path = addresses.path(argument, what="--config")
  if storage.is_dir(path):
    path = path / run_files.CONFIG
  try:
    return make_config(storage.read_text(path))
  except ValueError as error:
    raise ValueError(f"{str(path)!r}: {error}") from error


def make_config(text: str) -> config_dict.ConfigDict:
  """The config from which the settings of a `Settings.to_json` text follow.

  What method and objective set is left to them, so that a field that is changed has the
  same consequences as in the run's own config file.

  Args:
    text: stored settings.

  Raises:
    ValueError: the text is damaged, or has fields that do not exist.
  """
  values = read.with_defaults(text)
  known = {field.name: field for field in schema.fields()}
  unknown = sorted(values.keys() - known.keys())
  if unknown:
    raise ValueError(
      f"there are no settings {', '.join(unknown)}. The run is of another version of sum_l_jax:"
      " give its --config=FILE."
    )
  values = {name: _as_default(value, known[name].default) for name, value in values.items()}
  values.update({name: known[name].default for name in _OF_ONE_COMMAND})
  return _with_values(_given(values))


def _as_default(value: Any, default: Any) -> Any:
  return tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value


def _with_values(values: dict[str, Any]) -> config_dict.ConfigDict:
  config = read.default_config()
  config.update_from_flattened_dict(values)
  return config


def _given(values: dict[str, Any]) -> dict[str, Any]:
  """Values without those that method and objective set, if these set them again."""
  default = {field.name: field.default for field in schema.fields()}
  of_objective = presets.OBJECTIVES.get(values["objective"], {})
  of_method = presets.METHODS.get(values["method"], {})
  implied = {**of_objective, **of_method}
  mine = [name for name, value in implied.items() if values[name] == value]
  weights = [name for name in mine if default[name] != schema.AUTO]
  for left_out in (mine, weights):
    given = {**values, **{name: default[name] for name in left_out}}
    try:
      again = {**given, **read.preset_fields(schema.Settings.from_flat(given), given)}
    except ValueError:
      continue
    if again == values:
      return given
  return values


def describe(old: str, new: str) -> list[str]:
  """Fields that differ between two `to_json` texts, also where the run may go on."""
  before, after = read.with_defaults(old), read.with_defaults(new)
  return [
    f"{name}: {before.get(name)!r} -> {after.get(name)!r}"
    for name in sorted(before.keys() | after.keys())
    if before.get(name) != after.get(name) and name not in _OF_ONE_COMMAND
  ]
