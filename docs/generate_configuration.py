"""Writes docs/configuration.md from sum_l_jax/config and configs/*.py.

  python docs/generate_configuration.py
  python docs/generate_configuration.py --check

Defaults, meanings, choices and ranges are those of the dataclasses in
sum_l_jax/config/schema.py. `--check` writes nothing and ends with status 1
where the page is not what the code says.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import importlib.util
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
COMMAND = "python docs/generate_configuration.py"

if str(ROOT) not in sys.path:  # Run as a script, Python sees docs/ alone.
  sys.path.insert(0, str(ROOT))

from sum_l_jax.config import presets  # noqa: E402
from sum_l_jax.config import read  # noqa: E402
from sum_l_jax.config import schema  # noqa: E402
from sum_l_jax.config.fields import Field  # noqa: E402
from sum_l_jax.models import backbones  # noqa: E402

_INTRODUCTION = """\
# Configuration

`{command}` writes this page from `sum_l_jax/config/schema.py`; a field's
meaning, its default and what it may be stand there.

A config file (`configs/*.py`) starts from these defaults. The command line
changes single fields; text with blanks or brackets needs quotes:

```sh
# needs the data sets, and a GPU or TPU
python -m sum_l_jax.main --config=configs/epic55.py:backbone=slowfast_r50 \\
    --workdir=runs/x --config.joint_stage.total="300 steps" \\
    --config.exo.datasets="('data/lemma/exo', 'data/kinetics/exo')"
```

What follows the colon are arguments of that file, which its first lines
explain. An unknown field, a value of another type or out of its range, and
settings that contradict each other are errors that name the field. Durations
are text with a unit: `"30 epochs"`, `"300 steps"`, or `"10 percent"` of the
stage.

A workdir belongs to one config. Between two runs in it only these fields may
change, because they do not touch what is learnt: {runtime}.
"""


def _text(meaning: str) -> str:
  """A meaning as a cell of a table, with its pages linked and its code marked."""
  text = meaning.replace("|", "\\|")
  text = re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", text)
  return re.sub(r"(?<![`\w])(data_prep\.\w+|[\w/]+/\w+\.py)", r"`\1`", text)


def _allowed(field: Field) -> str:
  """The values that a field takes."""
  if field.name == "model.backbone":
    return _code(map(_literal, backbones.BACKBONES))
  if field.about.choices:
    return _code(map(_literal, field.about.choices))
  if field.kind is bool:
    return "`True`, `False`"
  return (
    _text(field.about.allowed.text.removeprefix("be ").removeprefix("lie "))
    if field.about.allowed
    else ""
  )


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


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [header, ["---"] * len(header), *rows]
  return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


_HEADER = ("field", "default", "meaning", "allowed")


def _rows(fields: Iterable[Field]) -> Iterator[tuple[str, ...]]:
  for field in fields:
    yield (
      f"`{field.name}`",
      f"`{_literal(field.default)}`",
      _text(field.about.meaning),
      _allowed(field),
    )


def _sections() -> Iterator[str]:
  """The tables of fields, those of the run itself first."""
  fields = list(schema.fields())
  for name, section in schema.sections().items():
    if name == "exo_stage":  # The fields of joint_stage.
      continue
    title = f"`{name}`" if name else "The run"
    if name == "joint_stage":
      title = "`exo_stage` and `joint_stage`"
    yield f"\n## {title}\n\n"
    if name:
      yield f"{(section.__doc__ or '').strip()}\n\n"
    if name == "joint_stage":
      yield "Both stages have the same fields; the table has those of `joint_stage`.\n\n"
    own = [field for field in fields if field.name.rpartition(".")[0] == name]
    yield _table(_HEADER, _rows(own))


def _settings(fields: Mapping[str, object]) -> str:
  return "; ".join(f"`{name} = {_literal(value)}`" for name, value in fields.items()) or "nothing"


def _presets(key: str, table: Mapping[str, Mapping[str, object]]) -> str:
  return _table((key, "sets"), ((f"`{n}`", _settings(values)) for n, values in table.items()))


def read_config_files() -> dict[str, dict[str, object]]:
  """What each file of configs/ changes, by field."""
  changed = {}
  for path in sorted((ROOT / "configs").glob("*.py")):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fields = read.flatten(module.get_config())
    changed[path.name] = {
      field.name: fields[field.name]
      for field in schema.fields()
      if fields[field.name] != field.default
    }
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
  whole = ["input", "checkpoint", "eval"]
  runtime = [
    f.name for f in schema.fields() if f.about.runtime and f.name.partition(".")[0] not in whole
  ] + [f"{name}.*" for name in whole]
  out = [
    _INTRODUCTION.format(command=COMMAND, runtime=_code(runtime)),
    *_sections(),
    "\n## What a method sets\n\n",
    _presets("`method`", presets.METHODS),
    "\n## What an objective sets\n\nIt sets fields that are `auto`, and the weight of the"
    " cross-view term where neither the method nor `loss.cross_view` names such a term. A method"
    " takes precedence over it. A weight that is set to another value is an error.\n\n",
    _presets("`objective`", presets.OBJECTIVES),
    "\n## What `terms=` sets\n\n`terms=` is an argument of the config files: a row of the paper's"
    " Table 5, for the method `sum_l`. `auto` names no row: the terms are those of the"
    " objective.\n\n",
    _presets("`terms=`", presets.TABLE_5),
    "\n## What `exo_encoder=` sets\n\n`exo_encoder=` is an argument of the config files: a row of"
    " the paper's Table 6. With `same_init`, `init.exo` also follows `init.ego`.\n\n",
    _presets("`exo_encoder=`", presets.TABLE_6),
    "\n## The frames of each backbone\n\nA backbone is fed with these where the fields are 0, and"
    ' `normalization` is "auto".\n\n',
    _table(
      (
        *("`model.backbone`", "`frames.count`", "`frames.stride`", "`frames.crop_size`"),
        *("`frames.short_side`", "`eval.crop_size`", "`normalization`"),
      ),
      map(_inputs, backbones.BACKBONES),
    ),
    "\n",
    *_config_files(),
  ]
  return "".join(out).rstrip("\n") + "\n"


def _inputs(name: str) -> tuple[str, ...]:
  entry = backbones.BACKBONES[name]
  numbers = (
    *(entry.num_frames, entry.stride, entry.crop_size),
    *(entry.short_sides_of(entry.crop_size), entry.eval_crop_of(entry.crop_size)),
  )
  return (f"`{name}`", *map(str, numbers), f'`"{entry.normalization}"`')


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
