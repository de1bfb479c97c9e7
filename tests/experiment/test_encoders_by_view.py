"""A whole run with another kind of encoder in each view, and heads that attend."""

from __future__ import annotations

import numpy as np
import pytest

from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.prediction import score_network
from sum_l_jax.tools.class_maps import explain
from sum_l_jax.video import decode
from tests.support import runs

_FIELDS = {
  "stages": ("exo", "joint"),
  "model.head": "attentive",
  "model.probe_depth": 2,
  "exo.backbone": "vit_tiny",
  "exo.frames.count": 8,
  "exo.frames.crop_size": 16,
  "exo.frames.short_side": (16, 20),
  "exo.frames.eval_crop_size": 24,
  "exo_stage.total": "2 steps",
  "joint_stage.total": "2 steps",
  "joint_stage.learning_rate": 1e-3,
  "exo_stage.learning_rate": 1e-3,
  "eval.retrieval": False,
}


def _config(ego, exo, tables, **fields):
  config = runs.small(read.default_config(), ego=ego, exo=exo, tables=tables)
  config.update_from_flattened_dict({**_FIELDS, **fields})
  return config


@pytest.fixture(name="workdir", scope="module")
def workdir_fixture(tiny_ego, tiny_exo, tiny_tables, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("by_view") / "run"
  assert main.run(_config(tiny_ego, tiny_exo, tiny_tables), workdir)
  return workdir


def test_the_card_says_what_each_view_takes(workdir):
  card = weight_files.read_card(workdir)
  assert card["backbone"] == "tiny"
  assert card["backbones"] == {"ego": "tiny", "exo": "vit_tiny"}
  ego, exo = (weight_files.frames_of(card, view) for view in ("ego", "exo"))
  assert (ego["count"], ego["crop_size"]) == (8, 32)
  assert (exo["count"], exo["crop_size"], exo["fps"]) == (8, 24, ego["fps"])
  assert set(weight_files.read_weights(workdir).params["exo"]) == {
    *("encoder", "heads", "probe", "projection"),
  }
  # Stage one is of the exo view alone.
  card = weight_files.read_card(workdir / "exo")
  assert (card["backbone"], card["frames"]["count"], "backbones" in card) == ("vit_tiny", 8, False)


def test_prediction_gives_the_scores_of_the_evaluation(workdir, tiny_ego):
  """From the card alone: network, probe, queries, pixels and frames."""
  weights = weight_files.read_weights(workdir)
  score = score_network.checkpoint_score(weights)
  dataset = records.ClipDataset(tiny_ego, "val")
  transform = towers.eval_transform(weights.card, "ego")
  _, saved, _ = result_files.read_scores(workdir, "val")
  views = []
  for number in range(2):
    indices = transform.test_indices(dataset.clips[0].num_frames, number, 2).tolist()
    # A frame may be shown several times.
    frames = [decode.decode_jpeg(dataset.read_frames(0, [index])[0]) for index in indices]
    views.append(transform.test(frames)[0])
  for task, scores in score(np.stack(views)).items():
    np.testing.assert_allclose(np.asarray(scores).mean(0), _share(saved[task][0]), atol=1e-5)


def _share(scores):
  return scores / scores.sum()


def test_both_views_are_embedded_by_their_own_encoder(workdir, tiny_ego, tiny_exo):
  weights = weight_files.read_weights(workdir)
  embedder = embedding.Embedder(weights, batch_size=4, num_threads=1)
  for folder in (tiny_ego, tiny_exo):
    found = embedder(records.ClipDataset(folder, "train"))
    assert found.readable.all()
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1.0, atol=1e-5)


def test_class_maps_say_what_they_lack(workdir):
  weights = weight_files.read_weights(workdir)
  with pytest.raises(ValueError, match="'vit_tiny' is a vision transformer, without stages"):
    explain.Explainer(weights, view="exo")
  with pytest.raises(ValueError, match="read a probe"):
    explain.Explainer(weights, view="ego")


def test_another_head_is_refused(workdir, tiny_ego, tiny_exo, tiny_tables, tmp_path):
  config = _config(tiny_ego, tiny_exo, tiny_tables, **{"model.probe_heads": 8})
  with pytest.raises(ValueError, match="model.head and its size"):
    main.run(config, tmp_path / "again", mode="eval", checkpoint=str(workdir))
