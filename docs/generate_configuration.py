"""Writes docs/configuration.md from sum_l_jax/config/settings.py and configs/*.py.

  python docs/generate_configuration.py
  python docs/generate_configuration.py --check

Defaults and choices are read from the module, meanings from its comments: the
one behind a field and those right above it. `--check` writes nothing and ends
with status 1 where the page is not what the code says.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import importlib.util
import inspect
import io
import json
import pathlib
import re
import sys
import tokenize

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
COMMAND = "python docs/generate_configuration.py"

if str(ROOT) not in sys.path:  # Run as a script, Python sees docs/ alone.
  sys.path.insert(0, str(ROOT))

from sum_l_jax.config import settings  # noqa: E402

# What config.py assigns to a name that has fields below it.
_SECTIONS = ("config_dict.ConfigDict", "_stage")

_INTRODUCTION = """\
# Configuration

Written by `{command}` from `sum_l_jax/config/settings.py`; change the comments there.

A config file (`configs/*.py`) starts from these defaults. The command line
changes single fields; text with blanks or brackets wants quotes:

```sh
# needs the data sets, and a GPU or TPU
python -m sum_l_jax.main --config=configs/epic55.py:backbone=slowfast_r50 \\
    --workdir=runs/x --config.joint_stage.total="300 steps" \\
    --config.exo.datasets="('data/lemma/exo', 'data/kinetics/exo')"
```

What follows the colon are arguments of that file, which its first lines
explain. An unknown field, a value out of its range and settings that contradict
each other are errors that name the field. Durations are text with a unit:
`"30 epochs"`, `"300 steps"`, or `"10 percent"` of the stage.

A workdir belongs to one config. Between two runs in it only these may change,
because they do not touch what is learnt: {runtime}.
"""


@dataclasses.dataclass(frozen=True)
class Field:
  """One assignment in config.py: its dotted name, and its comments."""

  name: str
  meaning: str
  is_section: bool


def _comments(source: str) -> tuple[dict[int, str], dict[int, str]]:
  """Comments by line: those alone on it, and those behind code."""
  alone, behind = {}, {}
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      text = token.string.lstrip("#").strip()
      first = not token.line[: token.start[1]].strip()
      (alone if first else behind)[token.start[0]] = text
  return alone, behind


def _dotted(target: ast.expr) -> str:
  """`c.loss.weights.ego_cls` as "loss.weights.ego_cls"; "" for a variable."""
  names: list[str] = []
  while isinstance(target, ast.Attribute):
    names.insert(0, target.attr)
    target = target.value
  return ".".join(names)


def read_fields(function) -> list[Field]:
  """The fields that a function of config.py sets, in its order."""
  source = inspect.getsource(function)
  alone, behind = _comments(source)
  fields = []
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.Assign) or not _dotted(node.targets[0]):
      continue
    above, line = [], node.lineno - 1
    while line in alone:
      above.insert(0, alone[line])
      line -= 1
    texts = above + [
      behind[line] for line in range(node.lineno, node.end_lineno + 1) if line in behind
    ]
    made_by = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
    fields.append(Field(_dotted(node.targets[0]), _sentences(texts), made_by in _SECTIONS))
  return fields


def _sentences(texts: Sequence[str]) -> str:
  """Lines of comments as one cell of a table."""
  text = " ".join(texts).replace("|", "\\|")
  text = re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", text)
  return re.sub(r"(?<![`\w])(data_prep\.\w+|\w+/\w+\.py)", r"`\1`", text)


def _literal(value: object) -> str:
  """A value as one writes it in a config file."""
  if isinstance(value, str):
    return json.dumps(value)
  if isinstance(value, tuple):
    items = ", ".join(map(_literal, value))
    return f"({items},)" if len(value) == 1 else f"({items})"
  return repr(value)


def _code(values: Iterable[object]) -> str:
  return ", ".join(f"`{value}`" for value in values)


def _choices(name: str, default: object) -> str:
  if name in settings.CHOICES:
    return _code(_literal(value) for value in settings.CHOICES[name])
  return "`True`, `False`" if isinstance(default, bool) else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [header, ["---"] * len(header), *rows]
  return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def _rows(
  fields: Iterable[Field], defaults: Mapping[str, object], prefix: str = ""
) -> Iterator[tuple[str, ...]]:
  for field in fields:
    name = prefix + field.name
    yield (
      f"`{name}`",
      f"`{_literal(defaults[name])}`",
      field.meaning,
      _choices(name, defaults[name]),
    )


def _sections(fields: Sequence[Field]) -> list[tuple[Field, list[Field]]]:
  """Groups fields below their section; the first group is of the run."""
  groups = {"": (Field("", "", True), [])}
  for field in fields:
    if field.is_section:
      groups[field.name] = (field, [])
    else:
      groups[field.name.rpartition(".")[0]][1].append(field)
  return [group for group in groups.values() if group[1] or not group[0].name.endswith("_stage")]


def _with_ego_meanings(fields: Sequence[Field]) -> list[Field]:
  """A field of `exo` without comment means what its namesake of `ego` does."""
  by_name = {field.name: field for field in fields}
  return [
    dataclasses.replace(field, meaning=by_name[twin].meaning)
    if not field.meaning
    and field.name.startswith("exo.")
    and (twin := "ego." + field.name.partition(".")[2]) in by_name
    else field
    for field in fields
  ]


def _settings(fields: Mapping[str, object]) -> str:
  return "; ".join(f"`{name} = {_literal(value)}`" for name, value in fields.items()) or "nothing"


def _implied(fields: Mapping[str, object]) -> str:
  """What a method or an objective sets, with the fields' whole names."""
  places = {"cross_view": "loss.", "negatives": "loss.", "projection_prenorm": "model."}
  return _settings(
    {
      # A switch with three positions is text.
      places.get(name, "loss.weights.") + name: str(value).lower()
      if isinstance(value, bool)
      else value
      for name, value in fields.items()
    }
  )


def read_config_files() -> dict[str, dict[str, object]]:
  """What each file of configs/ changes, by field."""
  defaults = settings.flatten(settings.default_config())
  changed = {}
  for path in sorted((ROOT / "configs").glob("*.py")):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fields = settings.flatten(module.get_config())
    changed[path.name] = {name: value for name, value in fields.items() if defaults[name] != value}
  return changed


def _config_files() -> Iterator[str]:
  yield "## What each config file changes\n\n"
  yield (
    "With no arguments behind the colon; fields that a file does not name"
    " have the defaults above.\n\n"
  )
  for name, fields in read_config_files().items():
    yield f"### {name}\n\n"
    yield _table(
      ("field", "value"),
      ((f"`{field}`", f"`{_literal(value)}`") for field, value in fields.items()),
    )
    yield "\n"


def page() -> str:
  """The whole page."""
  defaults = settings.flatten(settings.default_config())
  header = ("field", "default", "meaning", "choices")
  out = [
    _INTRODUCTION.format(
      command=COMMAND,
      runtime=_code(f"{name}*" if name.endswith(".") else name for name in settings.RUNTIME_FIELDS),
    )
  ]
  fields = _with_ego_meanings(read_fields(settings.default_config))
  for section, members in _sections(fields):
    title = f"`{section.name}`" if section.name else "The run"
    out.append(f"\n## {title}\n\n")
    if section.meaning:
      out.append(f"{section.meaning}\n\n")
    out.append(_table(header, _rows(members, defaults)))
  stage = read_fields(settings._stage)
  out.append("\n## `exo_stage` and `joint_stage`\n\n")
  out.append("Both have the same fields; here those of `joint_stage`.\n\n")
  out.append(_table(header, _rows(stage, defaults, "joint_stage.")))
  out.append("\n## What a method sets\n\n")
  out.append(
    _table(
      ("`method`", "sets"),
      ((f"`{name}`", _implied(values)) for name, values in settings.METHODS.items()),
    )
  )
  out.append(
    "\n## What an objective sets\n\nWhere the field is `auto`, and"
    " always `loss.weights`; a method goes before it.\n\n"
  )
  out.append(
    _table(
      ("`objective`", "sets"),
      ((f"`{name}`", _implied(values)) for name, values in settings.OBJECTIVES.items()),
    )
  )
  out.append(
    "\n## What `terms=` sets\n\nAn argument of the config files: rows"
    " of the paper's Table 5. `exo_encoder=` picks one of Table 6: "
    f"{_code(settings.EXO_ENCODERS)}.\n\n"
  )
  out.append(
    _table(
      ("`terms=`", "sets"),
      (
        (f"`{name}`", _settings({f"loss.{k}": v for k, v in values.items()}))
        for name, values in settings.TERMS.items()
      ),
    )
  )
  out.append("\n## What `backbone=` sets\n\n`model.backbone`, and the frames it is fed with.\n\n")
  out.append(
    _table(
      ("`backbone=`", "`frames.count`", "`frames.stride`"),
      (
        (f"`{name}`", str(count), str(stride))
        for name, (count, stride) in settings._SAMPLING.items()
      ),
    )
  )
  return "".join([*out, "\n", *_config_files()]).rstrip("\n") + "\n"


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--check", action="store_true", help="write nothing; status 1 where the page is stale"
  )
  args = parser.parse_args(argv)
  text = page()
  if not args.check:
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0
  if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
    return 0
  sys.stderr.write(
    f"error: {PAGE.relative_to(ROOT)} is not what the code says. Run"
    f" `{COMMAND}` and commit the page.\n"
  )
  return 1


if __name__ == "__main__":
  sys.exit(main())
