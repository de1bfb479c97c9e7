"""Turns LEMMA's human-object interactions (HOIs) into short English texts.

  put${s0}@cup|bowl:{m1}@table:{s2}@hand
  put cup and bowl to table with hand

An HOI is a verb, "$", and up to three positions separated by ":"; a position is
empty, or a role and its objects. LEMMA's package does not say what the roles
and positions mean. Here they are read like this:

  * The digit of a role is its place in the verb's pattern, as table 1 of
    LEMMA's supplementary material lists it: TARGETS first, then LOCATION where
    the pattern has one, then TOOLS. An empty position leaves its place empty.
  * The letter, s or m, says nothing, with two exceptions. LEMMA's authors give
    cook and cut a LOCATION in that table and none in their later EgoTaskQA, so
    a second position of role s with no third after it is taken for the tools.
    With a verb that has no pattern, s reads "with" and m "to". Both agree with
    the rule of the released SUM-L code.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import re

TEMPLATES = "templates"
RELEASED = "released"
RULES = (TEMPLATES, RELEASED)

# The HOI of doing nothing.
NULL_HOI = "null$"

MAX_POSITIONS = 3

# The preposition before the objects of each position. Where a pattern has only
# one place, its objects may sit in the first or the second.
_PREPOSITIONS = {
  "blend": ("", "with"),
  "clean": ("", "with"),
  "close": ("",),
  "cook": ("", "in", "with"),
  "cut": ("", "on", "with"),
  "drink": ("", "with"),
  "eat": ("", "with"),
  "fill": ("", "with"),
  "get": ("", "from", "with"),
  "open": ("",),
  "play": ("", "with"),
  "point": ("to", "to"),
  "pour": ("", "into", "with"),
  "put": ("", "to", "with"),
  "sit": ("on", "on"),
  "sweep": ("", "with"),
  # Follows EgoTaskQA, for this part of the table could not be read.
  "switch": ("with", "with"),
  "throw": ("", "into"),
  "turn-off": ("", "with"),
  "turn-on": ("", "with"),
}

# Verbs whose second position may hold the tools; see the module's docstring.
_LOCATION_OR_TOOLS = ("cook", "cut")

_POSITION = re.compile(r"\{([sm])([0-2])\}@([^@{}]+)")

# Applied in this order, as in the released SUM-L code.
_RELEASED_REPLACEMENTS = (
  ("${s0}@", " "),
  ("${m0}@", " "),
  (":{s1}@", " with "),
  (":{m1}@", " to the "),
  (":{s2}@", " with "),
  (":{m2}@", " with "),
  ("|", " and "),
)


@dataclasses.dataclass(frozen=True)
class Position:
  """The objects in one place of a verb's pattern.

  Attributes:
    role: "s" or "m".
    place: 0, 1 or 2.
    objects: names of the objects, at least one.
  """

  role: str
  place: int
  objects: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Hoi:
  """One interaction.

  Attributes:
    verb: the verb, for example "turn-on".
    positions: positions that are not empty, by place.
  """

  verb: str
  positions: tuple[Position, ...] = ()


def check_rule(rule: str) -> None:
  """Raises ValueError unless `rule` is one of `RULES`."""
  if rule not in RULES:
    raise ValueError(f"LEMMA's narration rule must be one of {', '.join(RULES)}; got {rule!r}.")


def narrate(text: str, rule: str = TEMPLATES) -> str:
  """Turns an HOI into a narration.

  Args:
    text: HOI as in `all_hois.json`.
    rule: "templates", or "released": the replacements of the released SUM-L
      code, to the letter, whatever they leave behind.

  Returns:
    The narration.

  Raises:
    ValueError: the rule is unknown, or "templates" meets a malformed HOI.
  """
  check_rule(rule)
  if rule == TEMPLATES:
    return render(parse(text))
  for old, new in _RELEASED_REPLACEMENTS:
    text = text.replace(old, new)
  return text


def parse(text: str) -> Hoi:
  """Takes an HOI apart.

  Args:
    text: HOI as in `all_hois.json`.

  Returns:
    Its verb and positions.

  Raises:
    ValueError: the HOI is malformed; the error says how.
  """
  verb, separator, rest = text.partition("$")
  if not separator or not verb.strip():
    raise _malformed(text, "it must begin with a verb and $")
  parts = rest.split(":")
  if len(parts) > MAX_POSITIONS:
    raise _malformed(text, f"it has {len(parts)} positions, at most {MAX_POSITIONS} can be")
  positions = [_parse_position(part, text) for part in parts if part]
  places = [position.place for position in positions]
  if places != sorted(set(places)):
    raise _malformed(text, "the numbers of its roles must count up")
  return Hoi(verb.strip(), tuple(positions))


def _parse_position(part: str, text: str) -> Position:
  match = _POSITION.fullmatch(part)
  if not match:
    raise _malformed(
      text,
      f"position {part!r} must be like {{s0}}@cup|bowl, with a role of"
      " {s0}, {m0}, {s1}, {m1}, {s2}, {m2}, or empty",
    )
  role, place, names = match.groups()
  objects = tuple(name.strip() for name in names.split("|"))
  if not all(objects):
    raise _malformed(text, f"an object of position {part!r} has no name")
  return Position(role, int(place), objects)


def _malformed(text: str, reason: str) -> ValueError:
  return ValueError(
    f"HOI {text!r} can't be read: {reason}. Take the official file, correct"
    f" the text, or choose the narration rule {RELEASED!r}, which takes any."
  )


def render(hoi: Hoi) -> str:
  """Writes an interaction by its verb's pattern.

  Args:
    hoi: the interaction.

  Returns:
    Words separated by single blanks; hyphens and underscores become blanks.
  """
  words = [hoi.verb]
  for position in hoi.positions:
    words.append(_preposition(hoi, position))
    words.append(" and ".join(position.objects))
  return " ".join(re.sub(r"[-_]", " ", " ".join(words)).split())


def _preposition(hoi: Hoi, position: Position) -> str:
  pattern: Sequence[str] = _PREPOSITIONS.get(hoi.verb, ("",))
  last = position.place == hoi.positions[-1].place
  if hoi.verb in _LOCATION_OR_TOOLS and position.place == 1:
    return "with" if position.role == "s" and last else pattern[1]
  if position.place < len(pattern):
    return pattern[position.place]
  return "to" if (position.role, position.place) == ("m", 1) else "with"
