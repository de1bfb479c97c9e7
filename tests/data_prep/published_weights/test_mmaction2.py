"""mmaction2's checkpoints: their networks' logits, pixels, frames and pooling."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from data_prep import convert_weights
from data_prep.published_weights import choices
import sum_l_jax
from sum_l_jax import models
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.evaluation import towers
from sum_l_jax.models import pixel_format
from sum_l_jax.train.state import Network
from tests.support import mmaction2_networks
from tests.support import reference_networks

SLOW, SLOWFAST = "slow_r50_8x8", "mmaction2_slowfast_r50_8x8"


def save(path, network, **more):
  """A file as mmengine's runner leaves it."""
  torch.save(
    {"meta": {"epoch": 256, "CLASSES": None}, "state_dict": network.state_dict(), **more}, path
  )
  return path


def convert(path, output, model):
  return convert_weights.main([f"--input={path}", f"--output={output}", f"--model={model}"])


@pytest.fixture(scope="module", name="converted")
def converted_fixture(tmp_path_factory):
  """Each network, and the weights that its file became."""
  found = {}

  def get(model):
    if model not in found:
      folder = tmp_path_factory.mktemp(model)
      network = mmaction2_networks.build(model)
      assert convert(save(folder / "zoo.pth", network), folder / "out", model) == 0
      found[model] = network, folder / "out"
    return found[model]

  return get


@pytest.mark.parametrize(
  "model, crop",
  [(SLOW, 64), (SLOW, 96), (SLOWFAST, 64), ("mmaction2_slowfast_r50_4x16", 64)],
)
def test_logits(converted, model, crop):
  network, folder = converted(model)
  weights = weight_files.read_weights(folder)
  frames = weights.card["frames"]["count"]
  assert frames == (8 if model == SLOW else 32)
  video = np.random.default_rng(3).integers(0, 256, (2, frames, crop, crop, 3), np.uint8)
  with torch.no_grad():
    expected = network.double()(video).numpy()
    network.float()
  ours, _ = Network(lambda: towers.class_model(weights.card, "ego")).apply(
    weights.params, weights.stats, {"ego": {"video": video}}, train=False
  )
  logits = np.asarray(ours["ego"]["logits"]["action"])
  assert np.abs(logits - expected).max() <= 1e-5 * expected.std()


def test_what_the_card_says(converted, tmp_path, capsys):
  network = mmaction2_networks.build(SLOWFAST)
  path = save(tmp_path / "zoo.pth", network)
  assert convert(path, tmp_path / "out", SLOWFAST) == 0
  out = capsys.readouterr().out
  # 110 convolutions; 106 BatchNorms of four arrays, and a counter each.
  assert f"loaded       ego/encoder: {110 + 4 * 106} arrays" in out
  assert "left behind  106 batch counters" in out
  assert "RGB, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, 32 frames at stride 2" in out
  assert "scores       the whole map" in out
  card = weight_files.read_weights(tmp_path / "out").card
  assert card["network"]["pool_window"] == 0
  assert not card["network"]["fusion_norm"]
  assert towers.pool_window(card, "ego") == 0


def test_the_head_has_its_columns_where_the_feature_has_them(converted):
  """Theirs: 256 fast ones, then 2048 slow ones. Ours: slow first."""
  network, folder = converted(SLOWFAST)
  kernel = weight_files.read_weights(folder).params["ego"]["heads"]["action"]["kernel"]
  theirs = network.cls_head.fc_cls.weight.detach().numpy().T
  np.testing.assert_array_equal(kernel[:2048], theirs[256:])
  np.testing.assert_array_equal(kernel[2048:], theirs[:256])


def test_prediction_sees_their_pixels(converted):
  network, folder = converted(SLOW)
  loaded = sum_l_jax.load(folder)
  video = np.random.default_rng(5).integers(0, 256, (1, 8, 256, 256, 3), np.uint8)
  with torch.no_grad():
    expected = network(video).softmax(dim=-1)
  np.testing.assert_allclose(loaded.score_batch(video)["action"], expected, atol=1e-5)


@pytest.mark.parametrize("given", ["video", "imagenet"])
def test_training_from_them_warns_of_other_pixels(converted, caplog, given):
  _, folder = converted(SLOW)
  weights = weight_files.read_weights(folder)
  logger = logging.getLogger("absl")
  propagate, logger.propagate = logger.propagate, True
  try:
    weight_files.graft(
      weights.params,
      weights.stats,
      weights,
      view="ego",
      tasks={"action": ("a",)},
      pixels={"channel_order": "RGB", "normalization": given},
    )
  finally:
    logger.propagate = propagate
  warned = "was trained on imagenet pixels, and ego will be trained on video" in caplog.text
  assert warned == (given == "video")
  assert ("--config.ego.normalization=imagenet" in caplog.text) == warned


def test_their_networks_are_not_taken_for_others(converted, tmp_path, capsys):
  network, _ = converted(SLOWFAST)
  path = save(tmp_path / "zoo.pth", network)
  assert convert(path, tmp_path / "a", "slowfast_r50_8x8") == 2
  error = " ".join(capsys.readouterr().err.split())
  assert "no BatchNorm and ReLU after the convolutions between its pathways" in error
  assert f"Choose --model from {SLOWFAST}" in error
  # The kernel tells 8x8 from 4x16 among their own.
  assert convert(path, tmp_path / "b", "mmaction2_slowfast_r50_4x16") == 2
  error = " ".join(capsys.readouterr().err.split())
  assert f"Its fusion kernels span 7 frames: choose --model={SLOWFAST}" in error
  other = {"model_state": reference_networks.state(reference_networks.build("slowfast_r50_8x8"))}
  torch.save(other, tmp_path / "hub.pyth")
  assert convert(tmp_path / "hub.pyth", tmp_path / "c", SLOWFAST) == 2
  error = " ".join(capsys.readouterr().err.split())
  assert "Choose --model from slowfast_r50_8x8, slowfast_r50_4x16, slowfast_r101_8x8." in error
  assert not any((tmp_path / name).exists() for name in "abc")


def test_they_have_no_counterpart_to_go_out_to(converted, tmp_path, capsys):
  _, folder = converted(SLOWFAST)
  output = tmp_path / "out.pyth"
  arguments = ["--export=pyth", f"--input={folder}", f"--output={output}"]
  assert convert_weights.main(arguments) == 2
  assert "'mmaction2_slowfast_r50', which has no PyTorch" in capsys.readouterr().err
  # SLOW has one, and keeps its pixels and its pooling on the way.
  _, folder = converted(SLOW)
  arguments = ["--export=pyth", f"--input={folder}", f"--output={output}"]
  assert convert_weights.main(arguments) == 0
  assert convert(output, tmp_path / "again", SLOW) == 0
  first, second = (weight_files.read_weights(f).card for f in (folder, tmp_path / "again"))
  assert first["pixels"] == second["pixels"]
  assert first["pixels"]["ego"]["mean"] == [x / 255 for x in mmaction2_networks.MEAN]
  assert first["network"] == second["network"]


@pytest.mark.parametrize("alpha", [4, 8])
def test_their_slow_frames(alpha):
  times = torch.arange(32.0)[None, None]
  expected = torch.nn.functional.interpolate(times, scale_factor=1 / alpha, mode="nearest")
  assert list(pixel_format.slow_indices(32, alpha, regular=True)) == expected[0, 0].tolist()


def test_deeper_networks_by_shapes():
  """R101 takes over the fusion kernel of R50, unlike PySlowFast's."""
  network = mmaction2_networks.build("mmaction2_slowfast_r101_8x8")
  shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
  entry = models.BACKBONES[choices.MODELS["mmaction2_slowfast_r101_8x8"]]
  assert entry.spec.fusion_kernel == shapes["backbone.slow_path.conv1_lateral.conv.weight"][2]
  assert "backbone.slow_path.layer3.22.conv1.conv.weight" in shapes
