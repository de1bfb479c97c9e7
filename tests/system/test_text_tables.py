"""Tables as text."""

from __future__ import annotations

import math

import pytest

from sum_l_jax.system import text_tables


@pytest.mark.parametrize(
  "value, signed, text",
  [
    (0.1234, False, "12.3"),
    (1.0, True, "+100.0"),
    (-0.051, True, "-5.1"),
    (None, True, "-"),
    (math.nan, False, "-"),
  ],
)
def test_percent(value, signed, text):
  assert text_tables.percent(value, signed=signed) == text


def test_aligned():
  lines = text_tables.aligned([["", "a", "long"], ["name", "12.5", ""]])
  assert lines == ["         a  long", "name  12.5"]


def test_markdown():
  assert text_tables.markdown([["a", "b"], ["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"
