"""The vision transformers: sizes, places and what training does to their blocks."""

from __future__ import annotations

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax import models
from sum_l_jax.models import vit
from sum_l_jax.models import vit_spec
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.layers import transformer

# Of the published networks, counted from their authors' modules. V-JEPA 2.1 B has
# 86,833,152, of which 590,592 are the patches of single images, 1,536 what is
# added to tell images from videos, and 4,608 norms after inner blocks. DINOv2 has
# a token for masked patches.
COUNTS = {
  "videoprism_b": 114_365_184,
  "videoprism_l": 353_965_056,
  "vjepa2_l": 303_885_312,
  "vjepa2_h": 631_648_000,
  "vjepa2_g": 1_012_173_952,
  "vjepa21_b": 86_833_152 - 590_592 - 1_536 - 4_608,
  "videomae_b": 86_227_200,
  "avion_b": 85_811_712,
  "avion_l": 303_196_160,
  "lavila_b": 114_178_560,
  "lavila_l": 404_006_912,
  "dinov2_s": 22_056_576 - 384,
  "dinov2_b": 86_580_480 - 768,
  "siglip2_b": 92_930_304,
}
SMALL = vit_spec.VitSpec(width=24, depth=3, mlp=48, heads=2, patch=(2, 4, 4), image=8, frames=4)


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_parameters(name):
  make = models.BACKBONES[name].make
  encoder = nnx.eval_shape(lambda: make(EncoderOptions(), np.random.default_rng(0)))
  # A frame encoder of ours has a table of time, which tells frames apart, beside.
  spec = vit_spec.SPECS[name]
  times = spec.frames * spec.width if spec.attention == "frame" else 0
  assert models.count_parameters(encoder) - times == COUNTS[name]


def _encoder(spec=SMALL, **options):
  return vit.Vit(spec, EncoderOptions(**options), np.random.default_rng(0))


def _video(spec=SMALL, batch=3):
  shape = (batch, spec.frames, spec.image, spec.image, 3)
  return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _features(encoder, video, **call):
  call = {"train": False, **call}
  return encoder(jnp.asarray(video), prepare=lambda x: x, **call)


def test_patches_are_flattened_by_frame_row_column_channel():
  video = np.arange(2 * 4 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 4, 6, 3)
  patches = vit.cut_patches(jnp.asarray(video), (2, 2, 3))
  assert patches.shape == (2, 2, 2, 2, 36)
  np.testing.assert_array_equal(patches[1, 1, 0, 1], video[1, 2:, :2, 3:].ravel())


def test_a_clip_that_patches_do_not_divide_is_refused():
  with pytest.raises(ValueError, match="patches of 2 x 4 x 4"):
    _features(_encoder(), _video()[:, :3])


def test_dropping_a_path_drops_it_for_the_clip_and_keeps_the_mean():
  encoder = _encoder(drop_path=0.9)
  video = np.repeat(_video(batch=1), 400, axis=0)
  plain = _features(encoder, video)
  dropped = _features(encoder, video, train=True, key=jax.random.key(0))
  assert len(np.unique(np.asarray(dropped.feature)[:, 0].round(5))) > 4
  np.testing.assert_array_equal(
    dropped.feature, _features(encoder, video, train=True, key=jax.random.key(0)).feature
  )
  assert np.abs(dropped.feature - plain.feature).max() > 0.1


def test_divided_attention_starts_without_attention_through_time():
  """So that a network of images becomes one of videos, as LaViLa's does."""
  spec = dataclasses.replace(SMALL, attention="divided", class_token=True)
  encoder = _encoder(spec)
  before = _features(encoder, _video()).tokens
  random = lambda: jnp.asarray(np.random.default_rng(2).standard_normal((3, 24, 24)), "float32")
  encoder.blocks.block.time_attention.value.kernel[...] = random()
  np.testing.assert_array_equal(_features(encoder, _video()).tokens, before)
  encoder.blocks.block.time_attention.out.kernel[...] = random()
  assert np.abs(_features(encoder, _video()).tokens - before).max() > 1e-2


def test_rates_of_dropping():
  np.testing.assert_allclose(transformer.drop_rates(5, 0.2), [0, 0.05, 0.1, 0.15, 0.2])
  assert transformer.drop_rates(3, 0.2, constant=True) == (0.2, 0.2, 0.2)


def test_recomputation_changes_no_gradient():

  def gradient(remat):
    graph, params = nnx.split(_encoder(remat=remat))

    def loss(params):
      encoder = nnx.merge(graph, params, copy=True)
      return jnp.square(_features(encoder, _video(), train=True).tokens).sum()

    return jax.grad(loss)(params)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    gradient("none"),
    gradient("blocks"),
  )


def test_low_rank_updates_start_at_nothing_and_then_count():
  encoder = _encoder(lora_rank=2)
  plain = _features(_encoder(), _video()).feature
  np.testing.assert_array_equal(_features(encoder, _video()).feature.shape, plain.shape)
  before = _features(encoder, _video()).feature
  low = encoder.blocks.block.attention.value
  low.lora_b[...] = jnp.ones_like(low.lora_b[...])
  changed = _features(encoder, _video()).feature
  assert np.abs(changed - before).max() > 1e-3
  # The same as a kernel with the update added: alpha / rank is 16 / 2.
  product = jnp.einsum("lir,lro->lio", low.lora_a[...], low.lora_b[...])
  low.kernel[...] = low.kernel[...] + 8.0 * product
  low.lora_b[...] = jnp.zeros_like(low.lora_b[...])
  np.testing.assert_allclose(_features(encoder, _video()).feature, changed, atol=1e-5)


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"heads": 5}, "heads=5 must divide"),
    ({"image": 9}, "must divide frames"),
    ({"pooling": "class"}, "needs class_token"),
    ({"attention": "divided"}, "needs class_token"),
    ({"time_depth": 2}, "goes with"),
    ({"joint_depth": 2}, "joint_depth=2 goes with"),
    ({"positions": "rotary", "attention": "frame"}, "'rotary' turns the patches"),
    ({"positions": "rotary", "class_token": True}, "'rotary' turns the patches"),
    ({"positions": "rotary", "heads": 6}, "width / heads = 4"),
    ({"attention": "space_then_time", "class_token": True}, "no use for class_token"),
  ],
)
def test_a_row_that_contradicts_itself_is_refused(fields, message):
  values = {"width": 24, "depth": 1, "mlp": 8, "heads": 2, "patch": (2, 4, 4)}
  with pytest.raises(ValueError, match=message):
    vit_spec.VitSpec(**{**values, "image": 8, "frames": 4, **fields})


def test_clips_have_the_size_of_published_scores():
  """DINOv2's table is of 518 pixels, and its scores are of 224."""
  sizes = {name: models.BACKBONES[name].crop_size for name in ("dinov2_b", "vjepa2_l", "lavila_b")}
  assert sizes == {"dinov2_b": 224, "vjepa2_l": 256, "lavila_b": 224}


def test_recomputation_of_stages_is_refused():
  with pytest.raises(ValueError, match="remat must be 'none', 'blocks'.*got 's1,s2'"):
    _encoder(remat="s1,s2")
