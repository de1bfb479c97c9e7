"""The report as a page: what sections are made of, and the HTML around it.

Narrations, ids and class names come from data sets that others wrote; the
template escapes every text. The page loads and runs nothing: pictures are data
URIs, folded parts are `<details>`, and its content security policy forbids the
rest.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib

import jinja2

from sum_l_jax.tools.report import charts

_TEMPLATE = "report.html.jinja"


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of text; the first column names the row.

  Attributes:
    caption: what it shows.
    head: of the columns.
    rows: as many cells each.
    folded: closed until it is asked for.
    text: columns that hold text too and are not right-aligned.
    wraps: columns that hold text of any length.
  """

  caption: str
  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  folded: bool = False
  text: Sequence[int] = ()
  wraps: Sequence[int] = ()
  kind: str = dataclasses.field(default="table", init=False)


@dataclasses.dataclass(frozen=True)
class Charts:
  """Pictures in columns, as wide as the page allows."""

  pictures: Sequence[charts.Picture]
  kind: str = dataclasses.field(default="charts", init=False)


@dataclasses.dataclass(frozen=True)
class Texts:
  """Paragraphs."""

  lines: Sequence[str]
  kind: str = dataclasses.field(default="texts", init=False)


@dataclasses.dataclass(frozen=True)
class Code:
  """A command, as it was typed."""

  text: str
  kind: str = dataclasses.field(default="code", init=False)


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two clips that were paired.

  Attributes:
    heading: for example "best, cosine 0.98".
    sides: of ego and exo, what it is, its narration, and its picture or None.
  """

  heading: str
  sides: Sequence[tuple[str, str, charts.Picture | None]]


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Pairs of clips beside each other."""

  pairs: Sequence[Pair]
  kind: str = dataclasses.field(default="pairs", init=False)


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip with rows of frames.

  Attributes:
    heading: of the clip.
    rows: a caption and a wide picture each.
  """

  heading: str
  rows: Sequence[tuple[str, charts.Picture]]


@dataclasses.dataclass(frozen=True)
class Clips:
  """Clips below each other."""

  clips: Sequence[Clip]
  kind: str = dataclasses.field(default="clips", init=False)


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the page.

  Attributes:
    name: of its anchor.
    title: its heading.
    blocks: what it shows.
    missing: why there is nothing to show, in one line.
  """

  name: str
  title: str
  blocks: Sequence[object] = ()
  missing: str = ""


def render(title: str, intro: Sequence[str], sections: Sequence[Section]) -> str:
  """The page.

  Args:
    title: its heading.
    intro: a paragraph each.
    sections: in the order shown.

  Returns:
    HTML, a whole document.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  return environment.get_template(_TEMPLATE).render(title=title, intro=intro, sections=sections)
