"""The keys of narrations: by TensorFlow Text, and the same without it."""

from __future__ import annotations

import csv
import pathlib
import random
import subprocess
import sys
import unicodedata

import pytest

from data_prep.mining import narration_keys
from sum_l_jax.data import narration_table
from sum_l_jax.system import extras

EPIC55 = pathlib.Path(__file__).parents[4] / "shared" / "data" / "epic55"
LABELS = EPIC55 / "EPIC_train_action_labels.csv"

# The import of TensorFlow takes seconds.
pytestmark = pytest.mark.slow


def _former_key(text):
  """The key as it was before final full stops were dropped."""
  folded = unicodedata.normalize("NFKC", text).casefold()
  return " ".join(unicodedata.normalize("NFKC", folded).split())


@pytest.mark.skipif(not LABELS.exists(), reason="needs ../shared/data/epic55 (CC BY-NC 4.0)")
def test_official_narrations_keep_their_keys():
  with LABELS.open(encoding="utf-8") as handle:
    texts = sorted({row["narration"] for row in csv.DictReader(handle)})
  keys = dict(zip(texts, narration_keys.normalize(texts), strict=True))
  assert len(set(map(_former_key, texts))) == 8793
  stopped = [text for text in texts if _former_key(text).endswith(".")]
  assert len(stopped) == 30
  for text in texts:
    assert keys[text] == _former_key(text).removesuffix("."), text
  # 25 of them are another narration with a full stop.
  assert len(set(keys.values())) == 8793 - 25


@pytest.mark.parametrize(
  "text, key",
  [
    ("Open  Door.", "open door"),
    ("open door .", "open door"),
    ("open door...", "open door"),
    ("open door\u2026", "open door"),
    ("打开门。", "打开门"),
    ("cut at 2.5 cm", "cut at 2.5 cm"),
    ("open door!", "open door!"),
    (" . ", "."),
    ("", ""),
    ("ＯＰＥＮ\u3000ﬁle", "open file"),
    ("STRASSE Straße", "strasse strasse"),
    ("İstanbul", "i\u0307stanbul"),
    # A soft hyphen, a zero width space and a byte order mark are not seen.
    ("\ufeffopen\u00ad the\u200b door", "open the door"),
  ],
)
def test_keys(text, key):
  assert narration_table.normalize_narration(text) == key
  assert narration_keys.normalize([text]) == [key]
  assert narration_table.normalize_narration(key) == key


def test_the_libraries_agree_on_every_letter():
  pytest.importorskip("tensorflow_text")
  fold = narration_keys._tensorflow_text()
  # All that either library changes, except what is newer than Python's tables.
  letters = [
    f"a{chr(c)}b"
    for c in range(0x110000)
    if unicodedata.category(chr(c)) not in ("Cs", "Cn", "Co") or chr(c) in "\u2065\ufff0\U000e0fff"
  ]
  rng = random.Random(0)
  words = ["".join(rng.choices("abcİßſΣςé\u0301\u0323ÅﬁＡ㎞\u200d .", k=8)) for _ in range(2000)]
  texts = letters + words
  other = [
    (text, one)
    for text, one in zip(texts, map(narration_table.tidy_narration, fold(texts)), strict=True)
    if one != narration_table.normalize_narration(text)
  ]
  assert other == []


def test_a_text_that_is_no_unicode_has_the_key_that_is_looked_up():
  text = "open \ud800 door"
  assert narration_keys.normalize([text, "Cut."]) == [
    narration_table.normalize_narration(text),
    "cut",
  ]


def test_the_library_is_used_where_it_is_installed(monkeypatch):
  tensorflow_text = pytest.importorskip("tensorflow_text")
  called = []
  for name in ("normalize_utf8", "case_fold_utf8"):
    whole = getattr(tensorflow_text, name)
    monkeypatch.setattr(
      tensorflow_text,
      name,
      lambda *given, whole=whole, name=name: (called.append(name), whole(*given))[1],
    )
  assert narration_keys.normalize(["Open Door"]) == ["open door"]
  assert called[-3:] == ["normalize_utf8", "case_fold_utf8", "normalize_utf8"]


def test_without_the_library_one_line_says_so(monkeypatch, capsys):
  texts = ["Open  Door.", "ﬁle", "Straße", "a\u00adb"]
  keys = narration_keys.normalize(texts)
  assert capsys.readouterr().err == ""
  monkeypatch.setitem(sys.modules, "tensorflow_text", None)
  assert narration_keys.normalize(texts) == keys
  assert capsys.readouterr().err == (
    "note: tensorflow_text is not installed (extra 'text'); the standard library normalises"
    " the narrations, with the same result.\n"
  )
  assert extras.EXTRAS["tensorflow_text"] == "text"


def test_the_import_says_nothing_of_processors():
  """TensorFlow's C++ code would."""
  pytest.importorskip("tensorflow_text")
  code = (
    "from data_prep.mining import narration_keys as keys\n"
    "import sys; print(keys.normalize(['Cut.'])); print('here', file=sys.stderr)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert (done.stdout, done.stderr) == ("['cut']\n", "here\n")


def test_the_command_needs_no_tensorflow_to_show_its_help():
  code = (
    "import sys; from data_prep import embed_narrations as e\n"
    "e.make_parser(); assert 'tensorflow' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
