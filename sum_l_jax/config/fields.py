"""How a setting is declared, listed and checked.

A dataclass of settings declares each field by `setting`, and those that hold
other dataclasses by `section`. Everything else is read off these declarations:
the fields by dotted name, with their meanings, and the check of values.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import typing
from typing import Any
from typing import TypeVar

from sum_l_jax.loss_options import Rule

_META = "sum_l_jax"
_Settings = TypeVar("_Settings")


@dataclasses.dataclass(frozen=True)
class About:
  """What one field means, and which values it takes.

  Attributes:
    meaning: one or two sentences for the page of settings.
    choices: the values that it takes; empty if they can't be listed.
    allowed: range of its values, or None.
    runtime: whether it may change between two runs in one workdir, because it
      does not touch what is learnt.
    path: whether it says where data lie. What they are is compared by their
      contents, and they may move.
  """

  meaning: str
  choices: tuple[Any, ...] = ()
  allowed: Rule | None = None
  runtime: bool = False
  path: bool = False


def at_least(low: float) -> Rule:
  """Allows a smallest value and everything above."""
  return Rule(lambda value: value >= low, f"be {low:g} or more")


def above(low: float) -> Rule:
  """Allows everything above a value."""
  return Rule(lambda value: value > low, f"be above {low:g}")


def between(low: float, high: float) -> Rule:
  """Allows two values and everything between them."""
  return Rule(lambda value: low <= value <= high, f"be between {low:g} and {high:g}")


def setting(default: Any, meaning: str, **about: Any) -> Any:
  """A field with a default, a meaning and the other attributes of `About`."""
  return dataclasses.field(default=default, metadata={_META: About(meaning, **about)})


def section(of: type, *, runtime: bool = False, **defaults: Any) -> Any:
  """A field that holds another dataclass of settings.

  Args:
    of: the dataclass.
    runtime: whether all its fields may change between two runs in one workdir.
    **defaults: defaults that differ from those of the class.
  """
  return dataclasses.field(
    default_factory=lambda: of(**defaults), metadata={_META: About("", runtime=runtime)}
  )


@dataclasses.dataclass(frozen=True)
class Field:
  """A leaf of the tree of settings.

  Attributes:
    name: dotted name, "loss.temperature".
    default: its default.
    kind: its type, for example `float` or `tuple[str, ...]`.
    about: its meaning and its range.
  """

  name: str
  default: Any
  kind: Any
  about: About


# Reading the types takes a millisecond a class, and does not change.
_hints = functools.cache(typing.get_type_hints)


def walk_sections(of: type, prefix: str = "") -> Iterator[tuple[str, type]]:
  """All dataclasses of settings with their dotted names; "" is `of` itself."""
  yield prefix.removesuffix("."), of
  for name, kind in _hints(of).items():
    if dataclasses.is_dataclass(kind):
      yield from walk_sections(typing.cast(type, kind), f"{prefix}{name}.")


def walk(of: Any, prefix: str = "", runtime: bool = False) -> Iterator[Field]:
  """All leaves below a dataclass of settings, with its values as their defaults.

  Args:
    of: instance of a dataclass of settings.
    prefix: dotted name of its section, with a dot at the end.
    runtime: whether the whole section may change between two runs.
  """
  hints = _hints(type(of))
  for field in dataclasses.fields(of):
    value, about = getattr(of, field.name), field.metadata[_META]
    if dataclasses.is_dataclass(value):
      yield from walk(value, f"{prefix}{field.name}.", runtime or about.runtime)
    else:
      if runtime:
        about = dataclasses.replace(about, runtime=True)
      yield Field(f"{prefix}{field.name}", value, hints[field.name], about)


def _converted(value: Any, kind: Any) -> Any:
  """A value as the type of its field, or None where it is of another type."""
  if typing.get_origin(kind) is tuple:
    if isinstance(value, str) or not isinstance(value, Sequence):
      return None
    kinds = typing.get_args(kind)
    if kinds[-1] is Ellipsis:
      kinds = (kinds[0],) * len(value)
    items = tuple(_converted(v, k) for v, k in zip(value, kinds))
    return items if len(kinds) == len(value) and None not in items else None
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  return value if type(value) is kind else None


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_PLURALS = {int: "whole numbers", float: "numbers", bool: "true or false", str: "texts"}
_SAMPLES = {int: (256, 320), float: (0.5, 1.0), str: ("first", "second")}


def describe_kind(field: Field) -> str:
  """What a field must be, in words, with how a list is typed."""
  if typing.get_origin(field.kind) is not tuple:
    return _KINDS[field.kind]
  kind, *others = typing.get_args(field.kind)
  count = "" if others == [Ellipsis] else f"{1 + len(others)} "
  sample = field.default if any(field.default) else _SAMPLES[kind]
  typed = ",".join(map(repr, sample))
  return f'{count}{_PLURALS[kind]}, as in --config.{field.name}="({typed})"'


def checked(field: Field, given: Any) -> Any:
  """A value as the type of its field.

  Args:
    field: the field.
    given: a value; lists are taken for tuples, whole numbers for floats.

  Raises:
    ValueError: the value has another type or lies outside the field's range;
      names the field, what it must be and what it was.
  """
  value, about = _converted(given, field.kind), field.about
  if about.choices and value not in about.choices:
    raise ValueError(f"config.{field.name} must be one of {about.choices}, got {given!r}.")
  if value is None:
    raise ValueError(f"config.{field.name} must be {describe_kind(field)}, got {given!r}.")
  if about.allowed and not about.allowed.holds(value):
    raise ValueError(f"config.{field.name} must {about.allowed.text}, got {value!r}.")
  return value


def assemble(of: type[_Settings], values: Mapping[str, Any], prefix: str = "") -> _Settings:
  """Makes a dataclass of settings from values by dotted name."""
  return of(
    **{
      name: assemble(typing.cast(type, kind), values, f"{prefix}{name}.")
      if dataclasses.is_dataclass(kind)
      else values[prefix + name]
      for name, kind in _hints(of).items()
    }
  )
