"""What is found before the first step: mistakes end a run, doubts are told."""

from __future__ import annotations

import json
import shutil

import pytest

from sum_l_jax import build
from sum_l_jax import main
from sum_l_jax.config import read
from sum_l_jax.data import pairing
from sum_l_jax.experiment import run_findings
from tests.support import runs


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  config.stages = ("exo", "joint")
  return runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)


def found(config):
  return [run_findings.as_text(f) for f in run_findings.examine(build.resolve(config))]


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"eval.splits": ("vall",)}, "config.eval.splits names 'vall'.*did you mean 'val'"),
    ({"eval.during_split": "test"}, r"config.eval.during_split names 'test', .*\['train', 'val'\]"),
    ({"eval.splits": ("val", "test")}, "no split 'test'.*--validation_parts"),
  ],
)
def test_splits_that_are_not_there(config, changes, words):
  config.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=f"(?i){words}"):
    run_findings.examine(build.resolve(config))


def test_stage_one_alone_says_that_no_pool_can_be_evaluated(config):
  config.stages = ("exo",)
  config.eval.during_split = "tran"
  (told,) = found(config)
  assert "config.eval.during_split names 'tran' (did you mean 'train'?), which no exo pool" in told
  assert "there are ['train']" in told
  for split in ("train", ""):
    config.eval.during_split = split
    assert found(config) == []


def test_what_a_run_is_told(config, tiny_tables):
  cosines = pairing.PairTable.load(tiny_tables / "pairs.npz")
  best = cosines.similarity[cosines.ego_rows, 0]
  config.loss.threshold = float(best.max())
  config.exo_stage.batch_size = 12
  config.joint_stage.total = "2 epochs"
  config.eval.splits = ()
  config.eval.during_split = ""
  told = found(config)
  assert len(told) == 4
  for text, words in zip(
    told,
    (
      "config.exo_stage.batch_size=12 is more than the 11 clips",
      "config.joint_stage.total='2 epochs' is 8 steps of 4 clips",
      f"pairs.npz: None of 17 pairs has a cosine above {best.max():g}",
      "config.eval.splits is empty",
    ),
    strict=True,
  ):
    assert words in text


def test_pairs_matter_where_a_term_looks_at_them(config):
  config.loss.threshold = 1.0
  (text,) = found(config)
  assert "None of 17 pairs has a cosine above 1;" in text
  config.loss.weights.ego_exo = 0.0
  assert found(config) == []


def test_an_unlabelled_split_is_predicted_only(config, tiny_ego, tmp_path):
  ego = shutil.copytree(tiny_ego, tmp_path / "ego")
  card = json.loads((ego / "card.json").read_text(encoding="utf-8"))
  (ego / "card.json").write_text(json.dumps({**card, "unlabelled": ["val"]}), encoding="utf-8")
  config.ego.dataset = str(ego)
  (text,) = found(config)
  assert text.endswith(
    "ego, split 'val': The clips have no labels: they are predicted, and not scored."
  )


def test_findings_are_written_for_the_report(config, tmp_path, caplog):
  config.eval.splits = ()
  findings = run_findings.examine(build.resolve(config))
  run_findings.tell(findings, tmp_path)
  assert run_findings.read(tmp_path) == [run_findings.as_text(f) for f in findings]
  assert caplog.text.count("config.eval.splits is empty") == 1
  (tmp_path / "findings.json").write_text('{"findings": [{"check": 3}]}', encoding="utf-8")
  with pytest.raises(ValueError, match="findings.json.* is damaged"):
    run_findings.read(tmp_path)
  assert run_findings.read(tmp_path / "elsewhere") == []


def test_an_evaluation_of_nothing_is_refused(config, tmp_path):
  config.eval.splits = ()
  tmp_path.joinpath("run").mkdir()
  with pytest.raises(ValueError, match="config.eval.splits is empty, .*nothing to evaluate"):
    main.run(config, tmp_path / "run", mode="eval")


def test_first_person_clips_need_labels(config, tiny_ego, tmp_path):
  ego = shutil.copytree(tiny_ego, tmp_path / "ego")
  card = json.loads((ego / "card.json").read_text(encoding="utf-8"))
  (ego / "card.json").write_text(json.dumps({**card, "unlabelled": ["train"]}), encoding="utf-8")
  config.ego.dataset = str(ego)
  with pytest.raises(ValueError, match="no labels to train on.*label column.*pseudo_labels"):
    run_findings.examine(build.resolve(config))
