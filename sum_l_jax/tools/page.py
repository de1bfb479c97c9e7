"""A page for people to read: what it is made of, and the HTML around it.

Narrations, ids and class names come from data sets that others wrote; the
template escapes every text. The page loads and runs nothing: pictures and moving
pictures are data URIs, folded parts are `<details>`, a choice of light and dark is
a matter of CSS, and the content security policy forbids the rest.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
import dataclasses
from typing import ClassVar

from etils import epath
import jinja2

from sum_l_jax.system import text_cleaning

UNREADABLE = "The frame can't be read."
# Media type of drawings.
DRAWING = "image/svg+xml"


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture inside a page.

  Attributes:
    data: the file.
    alt: what it shows, for those who can't see it.
    kind: media type of the file. A drawing (`DRAWING`) has no background of its own,
      and its colours are turned round where the page is dark.
    still: for a picture that moves, the JPEG file that those see who have asked
      their device for less motion; empty where the picture stands still.
  """

  data: bytes
  alt: str
  kind: str = "image/jpeg"
  still: bytes = b""

  @property
  def source(self) -> str:
    """The file as a data URI."""
    return _data_uri(self.data, self.kind)

  @property
  def still_source(self) -> str:
    """The file that stands still, as a data URI; "" for none."""
    return _data_uri(self.still, "image/jpeg") if self.still else ""

  @property
  def drawn(self) -> bool:
    """Whether it is a drawing, and no photograph."""
    return self.kind == DRAWING


def _data_uri(data: bytes, kind: str) -> str:
  return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


@dataclasses.dataclass(frozen=True)
class Texts:
  """Paragraphs."""

  kind: ClassVar = "texts"
  lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Missing:
  """Why there is nothing to show, in one line."""

  kind: ClassVar = "missing"
  text: str


@dataclasses.dataclass(frozen=True)
class Code:
  """A command, as it was typed."""

  kind: ClassVar = "code"
  text: str


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of text; the first column names the row.

  Attributes:
    caption: what the table shows.
    head: heads of the columns.
    rows: rows of as many cells.
    folded: whether the table is closed until a reader opens it.
    text: columns that hold text too and are not right-aligned.
    wraps: columns that hold text of any length.
  """

  kind: ClassVar = "table"
  caption: str
  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  folded: bool = False
  text: Sequence[int] = ()
  wraps: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class Charts:
  """Pictures in columns, as wide as the page allows."""

  kind: ClassVar = "charts"
  pictures: Sequence[Picture]


@dataclasses.dataclass(frozen=True)
class Beside:
  """Blocks beside each other where the window is wide enough, else below."""

  kind: ClassVar = "beside"
  blocks: Sequence[Table | Charts]


@dataclasses.dataclass(frozen=True)
class Card:
  """A small picture with lines of text below it.

  Attributes:
    lines: texts with what each is: "what" (a remark), "text", "id".
    picture: the picture, `UNREADABLE` where there should be one, or "".
    marked: whether the card has a double frame.
  """

  lines: Sequence[tuple[str, str]]
  picture: Picture | str = ""
  marked: bool = False


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Groups of cards, each with a heading."""

  kind: ClassVar = "gallery"
  groups: Sequence[tuple[str, Sequence[Card]]]


@dataclasses.dataclass(frozen=True)
class Strips:
  """Wide pictures below each other, each under its caption."""

  kind: ClassVar = "strips"
  heading: str
  rows: Sequence[tuple[str, Picture]]


Block = Texts | Missing | Code | Table | Charts | Beside | Gallery | Strips


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the page.

  Attributes:
    name: name of its anchor.
    title: its heading.
    blocks: what it shows.
  """

  name: str
  title: str
  blocks: Sequence[Block]


def _without_controls(value: object) -> object:
  return text_cleaning.visible(value) if type(value) is str else value


def render(title: str, intro: Sequence[str], sections: Sequence[Section]) -> str:
  """Makes a whole HTML document.

  Args:
    title: heading of the page.
    intro: paragraphs below the heading.
    sections: sections, in the order shown.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(epath.Path(__file__).parent),
    autoescape=True,
    finalize=_without_controls,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  template = environment.get_template("page.html.jinja")
  return template.render(title=title, intro=intro, sections=sections)
