"""Example queries and what they find, as one HTML file to look at.

The file needs nothing beside it: pictures are data URIs, and its content
security policy lets it load and run nothing. Narrations and ids come from data
sets that others wrote; all text is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
import dataclasses
import html

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem;
  font: 1rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; }
h2 { font-size: 1rem; font-weight: 600; margin: 0 0 .6rem; }
p { margin: .2rem 0; overflow-wrap: anywhere; max-width: 60rem; }
section { border-top: 1px solid var(--line); margin-top: 1.2rem;
  padding-top: 1rem; display: grid; gap: 1rem;
  grid-template-columns: 12rem minmax(0, 1fr); }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
li, .query { border: 1px solid var(--line); border-radius: .4rem;
  overflow: hidden; display: flex; flex-direction: column; }
.query { border-width: 2px; align-self: start; }
img, .none { display: block; width: 100%; aspect-ratio: 4 / 3;
  object-fit: contain; background: var(--soft); }
.none { padding: 1rem; }
.body { padding: .5rem .6rem .6rem; }
.body p { font-size: .875rem; }
.body .text { font-size: 1rem; font-weight: 600; }
.id { opacity: .75; font-family: ui-monospace, monospace; }
.both { border: 3px double currentColor; }
@media (max-width: 44rem) {
  section { grid-template-columns: minmax(0, 1fr); }
  .query { flex-direction: row; align-items: center; }
  .query img, .query .none { width: 9rem; flex: none; }
  ol { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
}
"""


@dataclasses.dataclass(frozen=True)
class Card:
  """A clip or a text.

  Attributes:
    name: clip id, or "" for a text.
    kind: for example "ego clip".
    narration: the text.
    image: a JPEG file; None where it can't be read; b"" for a text.
    classes: for example "verb: pour"; shown of a query.
  """

  name: str
  kind: str
  narration: str
  image: bytes | None
  classes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Fact:
  """What a query and a key share, or don't: for example "verb", "take".

  Without a value the narrations are meant, which the page shows anyway.
  """

  same: bool
  what: str
  value: str = ""


@dataclasses.dataclass(frozen=True)
class Hit:
  """A key that a query found.

  Attributes:
    card: the key.
    cosine: of the two embeddings.
    facts: what they share.
  """

  card: Card
  cosine: float
  facts: tuple[Fact, ...]

  @property
  def all_same(self) -> bool:
    return bool(self.facts) and all(fact.same for fact in self.facts)


@dataclasses.dataclass(frozen=True)
class Query:
  """A query and the keys it found, best first."""

  card: Card
  hits: tuple[Hit, ...]


def render(title: str, intro: Sequence[str], queries: Sequence[Query]) -> str:
  """The page.

  Args:
    title: its heading.
    intro: a paragraph each.
    queries: in the order shown.

  Returns:
    HTML, a whole document.
  """
  e = html.escape
  policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
  return "\n".join(
    [
      "<!DOCTYPE html>",
      '<html lang="en">',
      "<head>",
      '<meta charset="utf-8">',
      f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f"<title>{e(title)}</title>",
      f"<style>{_STYLE}</style>",
      "</head>",
      "<body>",
      "<main>",
      f"<h1>{e(title)}</h1>",
      *(f"<p>{e(text)}</p>" for text in intro),
      *(_section(number, query) for number, query in enumerate(queries, start=1)),
      "</main>",
      "</body>",
      "</html>",
      "",
    ]
  )


def _section(number: int, query: Query) -> str:
  heading = f"query-{number}"
  return "\n".join(
    [
      f'<section aria-labelledby="{heading}">',
      "<div>",
      f'<h2 id="{heading}">Query {number}: {html.escape(query.card.kind)}</h2>',
      f'<div class="query">{_picture(query.card)}',
      f'<div class="body">{_text(query.card)}',
      *(f"<p>{html.escape(text)}</p>" for text in query.card.classes),
      "</div></div>",
      "</div>",
      "<div>",
      "<h2>Found, best first</h2>",
      "<ol>",
      *(_hit(rank, hit) for rank, hit in enumerate(query.hits, start=1)),
      "</ol>",
      "</div>",
      "</section>",
    ]
  )


def _hit(rank: int, hit: Hit) -> str:
  texts = [": ".join(filter(None, (fact.what, fact.value))) for fact in hit.facts]
  facts = [
    f"<p>{'✓ same' if fact.same else '✗ other'} {html.escape(text)}</p>"
    for fact, text in zip(hit.facts, texts)
  ]
  marked = ' class="both"' if hit.all_same else ""
  return "\n".join(
    [
      f"<li{marked}>{_picture(hit.card)}",
      f'<div class="body"><p>{rank}. cosine {hit.cosine:.3f}</p>',
      _text(hit.card),
      *facts,
      "</div></li>",
    ]
  )


def _text(card: Card) -> str:
  lines = [f'<p class="text">{html.escape(card.narration)}</p>']
  if card.name:
    lines.append(f'<p class="id">{html.escape(card.name)}</p>')
  return "".join(lines)


def _picture(card: Card) -> str:
  if card.image is None:
    return '<div class="none">The frame can\'t be read.</div>'
  if not card.image:
    return ""
  data = base64.b64encode(card.image).decode("ascii")
  alt = html.escape(f"Middle frame of the {card.kind}: {card.narration}")
  return f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">'
