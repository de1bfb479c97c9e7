"""A page shows every kind of block, and what others wrote stays text."""

from __future__ import annotations

from sum_l_jax.tools import page
from tests.support import html_pages

EVIL = html_pages.EVIL


def test_every_kind_of_block_escapes():
  picture = page.Picture(b"jpeg", EVIL)
  lines = [("what", EVIL), ("text", EVIL), ("id", EVIL)]
  cards = [page.Card(lines, picture), page.Card(lines, page.UNREADABLE, marked=True)]
  blocks = [
    page.Texts([EVIL]),
    page.Missing(EVIL),
    page.Code(EVIL),
    page.Table(EVIL, [EVIL, "b"], [[EVIL, EVIL]]),
    page.Table(EVIL, [EVIL, "b"], [[EVIL, EVIL]], folded=True),
    page.Charts([picture]),
    page.Gallery([(EVIL, [*cards, page.Card(lines)])]),
    page.Strips(EVIL, [(EVIL, picture)]),
  ]
  text = page.render(EVIL, [EVIL], [page.Section("one", EVIL, blocks)])
  found = html_pages.check_is_safe(text)
  assert found.text("one").count("alert('x')") == 1 + 3 + 4 + 4 + 1 + 3 * 3 + 2
  pictures = found.of("img")
  assert [a["alt"] for a in pictures] == [EVIL] * 3
  assert {a["src"] for a in pictures} == {"data:image/jpeg;base64,anBlZw=="}
  assert found.texts["one"].count("The frame can't be read.") == 1
  assert [a for a in found.of("li") if a.get("class") == "marked"]


def test_control_characters():
  text = page.render("a\x1b[2J", ["\u202eb<script>"], [])
  assert "a\\u001b[2J" in text and "\\u202eb&lt;script&gt;" in text
  assert not set(text) & set("\x1b\u202e")
