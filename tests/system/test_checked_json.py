"""JSON of strangers: typed, bounded, and named where it goes wrong."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sum_l_jax.system import checked_json


@dataclasses.dataclass(frozen=True)
class Entry:
  name: checked_json.Name
  row: checked_json.Index
  rate: checked_json.Positive = 1.0


@dataclasses.dataclass(frozen=True)
class File:
  entries: dict[str, Entry]
  notes: checked_json.Object = dataclasses.field(default_factory=dict)


def _text(**changed):
  return json.dumps({"entries": {"a": {"name": "x", "row": 3, **changed}}})


def test_values():
  assert checked_json.decode(_text(rate=2), File) == File({"a": Entry("x", 3, 2.0)})
  assert checked_json.decoder(Entry)(b'{"name": "x", "row": 0, "more": 1}') == Entry("x", 0)


@pytest.mark.parametrize(
  "text, said",
  [
    (_text(row=-1), "int` >= 0 - at `$.entries"),
    (_text(row=True), "got `bool`"),
    (_text(row=1.0), "got `float`"),
    (_text(row="1"), "got `str`"),
    (_text(row=2**60), "int`"),
    (_text(rate=float("nan")), "float`"),
    (_text(rate=float("inf")), "float` <= 1e"),
    (_text(rate=0), "float` > 0"),
    (_text(name=""), "length >= 1"),
    (_text(name="\ud800"), "surrogates not allowed"),
    ('{"entries": {"a": {"row": 3}}}', "missing required field `name`"),
    ("{}", "missing required field `entries`"),
    ("[]", "got `array`"),
    ("", "Expecting value"),
    ('{"entries": {}} {}', "Extra data"),
    ('{"entries": {}, "notes": {"b": 1, "a": 1, "b": 2}}', "the key 'b' occurs twice"),
    ('{"entries": {}, "notes": ' + '{"a":' * 100 + "1" + "}" * 100 + "}", "deeper than 64"),
    ('{"entries": {}, "notes": ' + "[" * 10**6, "too deeply"),
    ('{"entries": {}, "n": ' + "1" * 10**5 + "}", "4300 digits"),
  ],
)
def test_what_is_refused(tmp_path, text, said):
  for given in (text, text.encode("utf-8", "surrogatepass")):
    with pytest.raises(checked_json.JsonError) as error:
      checked_json.decode(given, File)
    assert said in str(error.value) or "surrogates" in said
  path = tmp_path / "f.json"
  path.write_bytes(text.encode("utf-8", "surrogatepass"))
  with pytest.raises(ValueError, match=r"f.json' is damaged: .*\. Make it again\.$"):
    checked_json.read(path, File, mend="Make it again.")


def test_a_byte_order_mark_is_no_damage(tmp_path):
  path = tmp_path / "f.json"
  path.write_bytes(b"\xef\xbb\xbf" + _text().encode())
  assert checked_json.read(path, File, mend="").entries["a"].row == 3
  with pytest.raises(FileNotFoundError, match=r"There is no file '.*g.json'. Make it.$"):
    checked_json.read(tmp_path / "g.json", File, mend="Make it.")
  with pytest.raises(FileNotFoundError, match="There is no file"):
    checked_json.read(tmp_path, File, mend="Make it.")


def test_lines_are_as_strict():
  read = checked_json.decoder(Entry)
  for line in (b'{"name": "x", "row": -1}', b"\xff", b"[" * 10**6, b'{"name": "x", "row": NaN}'):
    with pytest.raises(checked_json.JsonError):
      read(line)
