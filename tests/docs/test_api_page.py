"""The API page names everything public, and nothing that is not there."""

from __future__ import annotations

import importlib
import inspect
import pathlib
import re

import pytest

import sum_l_jax
from sum_l_jax import losses
from sum_l_jax import models

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "api.md"
DIRECTIVES = re.findall(r"(?m)^::: (\S+)$", PAGE.read_text(encoding="utf-8"))
# What the other rooms offer: who uses the library meets these.
CLASSES = [
  "sum_l_jax.checkpoint.weight_files.Weights",
  "sum_l_jax.data.narration_table.NarrationTable",
  "sum_l_jax.data.pairing.PairTable",
  "sum_l_jax.data.records.ClipDataset",
  "sum_l_jax.evaluation.retrieval.embedding.Embedder",
  "sum_l_jax.prediction.predictor.Predictor",
  "sum_l_jax.train.metric_log.Series",
]


def _find(name):
  module, _, attribute = name.rpartition(".")
  return getattr(importlib.import_module(module), attribute)


def _public():
  for package in (sum_l_jax, losses, models):
    for name in package.__all__:
      if name not in ("__version__", "losses"):
        yield f"{package.__name__}.{name}"


@pytest.mark.parametrize("name", sorted({*_public(), *CLASSES}))
def test_a_public_name_is_on_the_page(name):
  """Under this name, or under another one of the same thing."""
  assert any(_find(shown) is _find(name) for shown in DIRECTIVES)


@pytest.mark.parametrize("name", DIRECTIVES)
def test_what_the_page_names_is_documented(name):
  assert _find(name).__doc__


@pytest.mark.parametrize("name", DIRECTIVES)
def test_formulas_of_docstrings_are_code(name):
  """Markdown would take <a, b> for HTML, stars for emphasis, lines for one."""
  found = _find(name)
  for thing in (found, *(vars(found).values() if inspect.isclass(found) else ())):
    text = inspect.getdoc(thing) if callable(thing) or isinstance(thing, property) else ""
    prose = re.sub(r"(?m)^(    |>>> |  \*\*?\w+:).*$|`[^`]*`", "", text or "")
    assert not re.search(r"<[a-z/]|\*\w", prose), prose
    # Four spaces make a block of code.
    assert not re.search(r"\n\n {1,3}[^ *\d]", text or ""), text


def test_nothing_is_on_the_page_twice():
  assert len(DIRECTIVES) == len(set(DIRECTIVES))
