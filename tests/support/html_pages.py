"""Reads the HTML pages that commands write, and checks that they are safe."""

from __future__ import annotations

import html.parser
import re

EVIL = "<script>alert('x')</script> \"cut\" & stir"
_VOID = ("meta", "img", "link", "br", "hr", "input", "source")


class Page(html.parser.HTMLParser):
  """Tags with attributes, text by section, table rows; tags must balance."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.open = [], []
    self.texts: dict[str, list[str]] = {"": []}
    self.rows: list[list[str]] = []
    self._section = ""
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    self.tags.append((tag, attributes))
    if tag == "section":
      self._section = attributes["id"]
      self.texts[self._section] = []
    if tag == "tr":
      self.rows.append([])
    if tag in ("td", "th"):
      self.rows[-1].append("")
    if tag not in _VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag
    if tag == "section":
      self._section = ""

  def handle_data(self, data):
    if self.open and self.open[-1] in ("td", "th"):
      self.rows[-1][-1] += data
    if data.strip() and "style" not in self.open:
      self.texts[self._section].append(data.strip())

  def of(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]

  def row(self, *first):
    """The first row whose first cells are these."""
    return next(r for r in self.rows if r[: len(first)] == list(first))

  def text(self, section):
    return " ".join(self.texts[section])


def check_is_safe(text):
  """The page loads nothing, runs nothing, and describes its pictures."""
  page = Page(text)
  for tag, attributes in page.tags:
    assert tag not in ("script", "link", "iframe", "object", "base", "form")
    for name, value in attributes.items():
      assert not name.startswith("on")
      if name in ("src", "href", "srcset"):
        assert value.startswith(("data:image/", "#")), value
  assert not re.search(r"url\(|@import|https?:", text)
  policy = [a["content"] for a in page.of("meta") if "http-equiv" in a]
  assert policy and policy[0].startswith("default-src 'none'")
  assert all(a["alt"].strip() for a in page.of("img"))
  ids = [a["id"] for _, a in page.tags if "id" in a]
  assert len(ids) == len(set(ids))
  assert {a["href"][1:] for a in page.of("a")} <= set(ids)
  return page
