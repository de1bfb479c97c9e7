"""The lines of the log: terms that add up, and how many clips there are."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from sum_l_jax import build
from sum_l_jax.config import read
from sum_l_jax.data import records
from sum_l_jax.experiment import train_log
from sum_l_jax.losses.objective import Objective
from sum_l_jax.system import devices
from tests.support import runs

_VALUES = {
  "loss": 3.948 + 0.1 * 3.572 - 0.02 * 6.0,
  "loss/ego_cls": 3.948,
  "loss/ego_text": 3.572,
  "loss/exo_text": -6.0,
  "loss/selected_pairs": 23.0,
  "ego/verb_top1": 0.25,
}
_WEIGHTS = {"ego_cls": 1.0, "ego_text": 0.1, "exo_text": 0.02, "ego_exo": 0.5}


def test_the_terms_of_a_line_add_up():
  found = train_log.contributions(_VALUES, _WEIGHTS)
  assert found.keys() == {f"weighted/{term}" for term in ("ego_cls", "ego_text", "exo_text")}
  assert sum(found.values()) == pytest.approx(_VALUES["loss"], rel=1e-12)
  text = train_log.sum_of_terms(_VALUES, _WEIGHTS)
  assert text == (
    "4.185 = ego_cls 3.948 + ego_text 0.3572 (0.1 x 3.572) - exo_text 0.12 (0.02 x -6)"
  )
  # As a reader adds up what is shown.
  total, *terms = re.sub(r"\(.*?\)", "", text).split(" ", 1)
  shown = re.findall(r"([=+-]) \w+ (-?[\d.]+)", terms[0])
  assert sum(float(x) * (-1 if sign == "-" else 1) for sign, x in shown) == pytest.approx(
    float(total), abs=1e-3
  )


def test_a_first_term_below_zero_keeps_its_sign():
  values = {"loss": -0.3, "loss/ego_text": -3.0}
  assert train_log.sum_of_terms(values, {"ego_text": 0.1}) == "-0.3 = ego_text -0.3 (0.1 x -3)"


def test_probes_have_contributions_of_their_own_in_the_files_alone():
  values = {"loss": 2.0, "loss/ego_cls": 2.0, "probe_1/loss": 1.0, "probe_1/loss/ego_cls": 1.0}
  found = train_log.contributions(values, {"ego_cls": 1.0})
  assert found == {"weighted/ego_cls": 2.0, "probe_1/weighted/ego_cls": 1.0}
  assert train_log.sum_of_terms(values, {"ego_cls": 1.0}) == "2 = ego_cls 2"


@pytest.mark.parametrize(
  "fields, named",
  [
    ({}, "ego_exo, ego_text, exo_text"),
    ({"cross_view": "info_nce"}, "ego_text, exo_text"),
    ({"cross_view": "triplet", "video_text": "sup_con"}, ""),
    ({"weights": {"ego_cls": 1.0}}, ""),
  ],
)
def test_negative_values_are_explained_where_there_may_be_some(fields, named):
  objective = Objective(tasks={}, **fields)
  text = train_log.negative_terms(objective, {"ego": {}, "exo": {}})
  assert text.partition(":")[0] == named
  # A stage of the ego view alone compares no exo clips.
  assert "exo" not in train_log.negative_terms(objective, {"ego": {}})


def test_totals_say_how_many_clips_are_used_and_why_not_the_others(
  tiny_ego, tiny_exo, tiny_tables, tmp_path
):
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  for view, folder, count in (("ego", tiny_ego, 2), ("exo", tiny_exo, 1)):
    ids = [clip.clip_id for clip in records.ClipDataset(folder, "train").clips[:count]]
    (tmp_path / view).write_text("\n".join([*ids, "not_there"]))
    config[view].skip_list = str(tmp_path / view)
  trainer = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1))
  # All narrations of ego have the same partners, so that others have none.
  pairs = dataclasses.replace(
    trainer.opened.pairs, ego_rows=np.zeros_like(trainer.opened.pairs.ego_rows)
  )
  data = dataclasses.replace(trainer.opened, pairs=pairs)
  ego, exo = train_log.totals(dataclasses.replace(trainer, data=data))
  assert ego == "train split of ego: 15 of 17 clips (2 are in ego.skip_list)"
  # Independently: whom may an ego clip draw?
  rng = np.random.default_rng(0)
  partners = {pairs.draw(0, rng)[:2] for _ in range(200)}
  assert 1 <= len(partners) < 10
  assert exo == (
    f"train split of exo: {len(partners)} of 11 clips ({11 - len(partners)} are nobody's partner,"
    " 1 is in exo.skip_list)"
  )
  exo_stage = build.Trainer.open(build.resolve(config), "exo", devices.make_mesh(1))
  assert train_log.totals(exo_stage) == [
    "train split of exo: 10 of 11 clips (1 is in exo.skip_list)"
  ]
