"""A page shows every kind of block, and what others wrote stays text."""

from __future__ import annotations

from sum_l_jax.tools import page
from tests.support import html_pages

EVIL = html_pages.EVIL


def test_every_kind_of_block_escapes():
  picture = page.Picture(b"jpeg", EVIL)
  table = page.Table(EVIL, [EVIL, "b"], [[EVIL, EVIL]])
  lines = [("what", EVIL), ("text", EVIL), ("id", EVIL)]
  cards = [page.Card(lines, picture), page.Card(lines, page.UNREADABLE, marked=True)]
  blocks = [
    page.Texts([EVIL]),
    page.Missing(EVIL),
    page.Code(EVIL),
    table,
    page.Table(EVIL, [EVIL, "b"], [[EVIL, EVIL]], folded=True),
    page.Charts([picture]),
    page.Beside([table, page.Charts([picture])]),
    page.Gallery([(EVIL, [*cards, page.Card(lines)])]),
    page.Strips(EVIL, [(EVIL, picture)]),
  ]
  text = page.render(EVIL, [EVIL], [page.Section("one", EVIL, blocks)])
  found = html_pages.check_is_safe(text)
  assert found.text("one").count("alert('x')") == 1 + 3 + 4 + 4 + 4 + 1 + 3 * 3 + 2
  pictures = found.of("img")
  assert [a["alt"] for a in pictures] == [EVIL] * 4
  assert {a["src"] for a in pictures} == {"data:image/jpeg;base64,anBlZw=="}
  assert found.texts["one"].count("The frame can't be read.") == 1
  assert [a for a in found.of("li") if a.get("class") == "marked"]


def test_drawings_and_moving_pictures():
  """The page may turn the colours of a drawing, and of no photograph."""
  pictures = [
    page.Picture(b"<svg/>", "a drawing", page.DRAWING),
    page.Picture(b"film", "a film", "image/webp", b"still"),
    page.Picture(b"jpeg", "a photograph"),
  ]
  text = page.render("t", [], [page.Section("one", "One", [page.Charts(pictures)])])
  found = html_pages.check_is_safe(text)
  assert [a.get("class") for a in found.of("img")] == ["drawing", None, None]
  assert [a["src"].partition(";")[0] for a in found.of("img")] == [
    "data:image/svg+xml",
    "data:image/webp",
    "data:image/jpeg",
  ]
  (still,) = found.of("source")
  assert still["srcset"] == "data:image/jpeg;base64,c3RpbGw="
  assert "prefers-reduced-motion: reduce" in still["media"]


def test_control_characters():
  text = page.render("a\x1b[2J", ["\u202eb<script>"], [])
  assert "a\\u001b[2J" in text and "\\u202eb&lt;script&gt;" in text
  assert not set(text) & set("\x1b\u202e")
