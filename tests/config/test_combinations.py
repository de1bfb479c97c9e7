"""Every combination of method, objective, terms and exo_encoder is what it says.

What a name promises is stated here a second time, from the paper's tables and
docs/paper_vs_released.md.
"""

from __future__ import annotations

import functools
import itertools

import jax
import pytest

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.config import presets
from sum_l_jax.config import read

METHODS = ("sum_l", "fpv_only", "typical_cl", "triplet")
OBJECTIVES = ("paper", "released", "released_intended")
TERMS = ("auto", "none", "aw", "m", "a_m", "aw_m")
EXO_ENCODERS = ("original", "same_init", "shared", "frozen")
LABELS = {"ego_cls", "exo_cls"}
TEXT = {"ego_text", "exo_text"}


def make_config(method, objective, terms, exo_encoder):
  config = read.read_file(
    f"configs/epic55.py:method={method},objective={objective},terms={terms},"
    f"exo_encoder={exo_encoder}"
  )
  config.init.ego = "kinetics"
  if exo_encoder in ("original", "frozen"):
    config.init.exo = "stage_one"
  return config


def promised(method, objective, terms, exo_encoder):
  """The terms and the kind of the cross-view term; None where names contradict."""
  if method != "sum_l" and terms != "auto":
    return None
  if method == "fpv_only":
    return None if exo_encoder != "original" else ({"ego_cls"}, None)
  if method in ("typical_cl", "triplet"):
    return LABELS | {"ego_exo"}, {"typical_cl": "decoupled"}.get(method, method)
  if terms == "auto":
    if objective == "released":
      return LABELS | TEXT, None
    return LABELS | TEXT | {"ego_exo"}, {"paper": "weighted"}.get(objective, "filtered")
  found = LABELS | (TEXT if "m" in terms.split("_") else set())
  kind = {"aw": "weighted", "a": "filtered"}.get(terms.split("_")[0])
  return found | ({"ego_exo"} if kind else set()), kind


@functools.cache
def computed(objective):
  """The terms that an `Objective` adds up, of outputs of the right shapes."""
  array = lambda *shape: jax.ShapeDtypeStruct(shape, "float32")
  outputs = {
    view: {"logits": {"verb": array(4, 3)}, "embedding": array(4, 8)} for view in types.VIEWS
  }
  batch = {
    view: {"labels": {"verb": array(4, 3)}, "narration": array(4, 8)} for view in types.VIEWS
  }
  _, terms = jax.eval_shape(objective, outputs, batch)
  return set(terms) & set(types.TERMS)


@pytest.mark.parametrize("method", METHODS)
def test_all_combinations(method):
  assert set(METHODS) == set(presets.METHODS) and set(OBJECTIVES) == set(presets.OBJECTIVES)
  assert set(TERMS) == set(presets.TABLE_5) and set(EXO_ENCODERS) == set(presets.TABLE_6)
  for rest in itertools.product(OBJECTIVES, TERMS, EXO_ENCODERS):
    choice = (method, *rest)
    expected = promised(*choice)
    if expected is None:
      with pytest.raises(ValueError, match="Drop one"):
        build.resolve(make_config(*choice))
      continue
    settings = build.resolve(make_config(*choice))
    task = types.Task("verb", "multi_label", ("a", "b", "c"))
    objective = build.Trainer(
      settings,
      "joint",
      None,
      tasks={view: {"verb": task} for view in types.VIEWS},
      embedding_dim=8,
      num_clips=64,
    ).objective
    terms, kind = expected
    assert computed(objective) == terms, choice
    if kind:
      assert objective.cross_view == kind, choice
    released = rest[0] != "paper"
    assert objective.negatives == ("cross_and_same" if released else "cross"), choice
    assert settings.model.projection_prenorm == str(released).lower(), choice
    assert settings.model.share_encoder == (rest[2] == "shared"), choice
    assert settings.model.freeze_exo == (rest[2] == "frozen"), choice
    start = {"same_init": "kinetics", "shared": ""}.get(rest[2], "stage_one")
    assert settings.init.exo == start, choice


def changed(**fields):
  config = read.default_config()
  config.update_from_flattened_dict(fields)
  return config


@pytest.mark.parametrize(
  "fields, words",
  [
    ({"method": "typical_cl", "loss.weights.ego_exo": 0.0}, "method='typical_cl' names a cross"),
    ({"loss.cross_view": "graded", "loss.weights.ego_exo": 0.0}, "'graded' names a cross-view"),
    ({"objective": "released", "loss.weights.ego_exo": 0.5}, "means loss.weights.ego_exo=0.0, but"),
    ({"method": "fpv_only", "loss.weights.exo_text": 0.5}, "means loss.weights.exo_text=0.0, but"),
    ({"method": "triplet", "loss.weights.ego_text": 0.5}, "means loss.weights.ego_text=0.0, but"),
    ({f"loss.weights.{term}": 0.0 for term in types.TERMS}, "leaves nothing to train"),
    (
      {"method": "triplet", "loss.video_text": "ego_nce"},
      "video_text='ego_nce' is the form.*ego_text and exo_text are 0",
    ),
    ({"loss.positives": "labels"}, "positives='labels' is set, but no term.*'weighted'"),
    (
      {"loss.video_text": "sup_con", "loss.compared": "narrations"},
      "compared='narrations' is set, but no term",
    ),
    (
      {
        "loss.cross_view": "sigmoid",
        "loss.positives": "narrations",
        "loss.positive_tasks": ("verb",),
      },
      "positive_tasks=.'verb',. is set.*with loss.positives='narrations'",
    ),
    (
      {
        "model.share_encoder": True,
        **{f"loss.weights.{t}": 0.0 for t in ("exo_cls", "ego_exo", "exo_text")},
      },
      "share_encoder=True needs an exo view",
    ),
  ],
)
def test_what_leaves_nothing_is_an_error(fields, words):
  config = changed(**fields)
  with pytest.raises(ValueError, match=words):
    build.resolve(config)


def test_whoever_names_a_cross_view_term_has_it():
  for fields in ({"loss.cross_view": "info_nce"}, {"method": "typical_cl"}):
    settings = build.resolve(changed(objective="released", **fields))
    assert settings.loss.weights.ego_exo == 0.02
    assert settings.loss.negatives == "cross_and_same"
  # A stage one alone has no joint loss that could be empty.
  alone = {f"loss.weights.{term}": 0.0 for term in types.TERMS}
  build.resolve(changed(stages=("exo",), **alone))
