"""Names of settings as people type them: what was meant, and what a value must be."""

from __future__ import annotations

import difflib
import re

from sum_l_jax.config import fields
from sum_l_jax.config import schema

_VALUE = re.compile(r"flag --config\.(?P<name>[\w.]+)=(?P<value>.*?): ", re.DOTALL)
_UNKNOWN = re.compile(r"Unknown command line flag '(?P<name>[\w.]+)'")
_ENUM = re.compile(r"flag --(?P<name>\w+)=(?P<value>.*?): value should be one of <(?P<all>.*)>")
# What people call fields by, in the words of other libraries.
_OTHER_WORDS = {
  "lr": "learning_rate",
  "rate": "learning_rate",
  "wd": "weight_decay",
  "bs": "batch_size",
  "batch": "batch_size",
  "epochs": "total",
  "num_epochs": "total",
  "steps": "total",
  "num_steps": "total",
  "gpus": "num_devices",
  "devices": "num_devices",
  "workers": "num_workers",
  "threads": "num_threads",
}


def check(name: str) -> None:
  """Raises ValueError for a field that does not exist, with close matches."""
  known = [field.name for field in schema.fields()]
  if name in known or name in schema.sections():
    return

  def leaf(field: str) -> str:
    return field.rpartition(".")[2]

  last = _OTHER_WORDS.get(leaf(name)) or leaf(name)
  # The section may be wrong or left out, and then the last word is the better sign.
  leaves = difflib.get_close_matches(last, {leaf(field) for field in known}, n=3, cutoff=0.7)
  close = [field for word in leaves for field in known if leaf(field) == word]
  close = difflib.get_close_matches(name, close, n=3, cutoff=0.0) + close
  close += difflib.get_close_matches(name, known, n=3, cutoff=0.6)
  found = list(dict.fromkeys(close))[:4]
  raise ValueError(
    f"There is no config field {name!r}."
    + (f" Did you mean {' or '.join(found)}?" if found else "")
    + " All fields, with their meaning, are in docs/configuration.md and"
    " sum_l_jax/config/schema.py."
  )


def explain(error: Exception) -> str:
  """What to say of an error that the flags raised."""
  text = str(error).strip()
  if "Traceback" in text:  # From inside a config file: its last line says it.
    text = text.splitlines()[-1].partition(": ")[2]
  known = {field.name: field for field in schema.fields()}
  if match := _VALUE.match(text):
    name, value = match["name"], match["value"]
    if name in known:
      return f"config.{name} must be {fields.describe_kind(known[name])}, got {value!r}."
    if name in schema.sections():
      own = [field for field in known if field.startswith(f"{name}.")]
      return (
        f"config.{name} is a section, got {value!r}. Set one of its fields, such as"
        f" --config.{own[0]}={known[own[0]].default}; it has {', '.join(own)}."
      )
  if match := _ENUM.match(text):
    return f"--{match['name']} must be {match['all'].replace('|', ' or ')}, got {match['value']!r}."
  if match := _UNKNOWN.match(text):
    name = match["name"]
    leaves = {field.rpartition(".")[2] for field in known} | _OTHER_WORDS.keys()
    if "." in name or name in leaves:
      return f"There is no option --{name}. {advice(name)}"
  return text


def advice(name: str) -> str:
  """How to set the field that a name may mean."""
  try:
    check(name)
  except ValueError as error:
    return f"Fields of the config are set by --config.x=y. {error}"
  return f"Fields of the config are set by --config.x=y: type --config.{name}=..."
