"""Tiny networks of Hugging Face's transformers with random values everywhere.

Each is stated with the row of `models/vit_spec.py` that it is, shrunk, and what of
its outputs are our tokens and feature. Epsilons are set to those the published
networks were trained with, where transformers has others.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import torch
from transformers.models import dinov2
from transformers.models import siglip
from transformers.models import videomae
from transformers.models import videoprism
from transformers.models import vjepa2
from transformers.models.vjepa2 import modeling_vjepa2

from sum_l_jax.models import vit_spec
from tests.support import clip_networks


def shrunk(name: str, **fields: Any) -> vit_spec.VitSpec:
  """A row of the table with other fields."""
  return dataclasses.replace(vit_spec.SPECS[name], **fields)


@dataclasses.dataclass(frozen=True)
class Family:
  """One network.

  Attributes:
    row: our row.
    normalization: pixels of the family, a key of `types.NORMALIZATIONS`.
    make: builds the network.
    run: gives tokens `[B, N, D]` and feature `[B, D]` for a video
      `[B, T, 3, H, W]`; `resized` where it isn't of the size of the table.
    offset_norms: whether its LayerNorms add 1 to their scales.
  """

  row: vit_spec.VitSpec
  normalization: str
  make: Callable[[], torch.nn.Module]
  run: Callable[..., tuple[torch.Tensor, torch.Tensor]]
  offset_norms: bool = False

  def build(self) -> torch.nn.Module:
    """The network with random values, float32."""
    network = self.make().eval()
    return clip_networks.randomise(network, 5, offset_norms=self.offset_norms)


_VIDEOPRISM = dict(
  image_size=36,
  num_frames=4,
  tubelet_size=[1, 18, 18],
  hidden_size=32,
  num_attention_heads=4,
  intermediate_size=128,
  num_spatial_layers=2,
  num_temporal_layers=1,
  num_auxiliary_layers=1,
  apply_l2norm=False,
  # So low that it counts for logits as small as these.
  attn_logit_softcapping=2.0,
)
_VIDEOPRISM_ROW = dict(
  width=32, depth=2, mlp=128, heads=4, image=36, frames=4, time_depth=1, logit_cap=2.0
)


def _prism(network, video, *, resized=False):
  tokens = network(video, interpolate_pos_encoding=resized).last_hidden_state
  return tokens, tokens.mean(1)


def _prism_pooled(network, video):
  out = network.video_model(video)
  return out.last_hidden_state, out.pooler_output[:, 0]


def _clip_of_prism():
  text = dict(vocab_size=9, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
  text |= dict(num_attention_heads=4, max_position_embeddings=8)
  config = videoprism.VideoPrismConfig(vision_config=_VIDEOPRISM, text_config=text)
  # No other way of attention has the cap.
  network = videoprism.VideoPrismClipModel._from_config(config, attn_implementation="eager")
  network.video_model.config._attn_implementation = "eager"
  return network


def _vjepa2():
  config = vjepa2.VJEPA2Config(
    patch_size=16,
    crop_size=32,
    frames_per_clip=4,
    hidden_size=40,
    num_attention_heads=2,
    mlp_ratio=2.0,
    num_hidden_layers=2,
    num_pooler_layers=1,
    pred_hidden_size=24,
    pred_num_attention_heads=2,
    pred_num_hidden_layers=1,
    num_labels=7,
  )
  network = vjepa2.VJEPA2ForVideoClassification(config)
  # Meta's probes have other heads, epsilon and MLP than transformers gives them.
  probe = dataclasses.replace(
    config, num_attention_heads=10, layer_norm_eps=1e-5, mlp_ratio=4.0, attn_implementation="eager"
  )
  network.pooler = modeling_vjepa2.VJEPA2AttentivePooler(probe)
  return network


def _run_vjepa2(network, video):
  tokens = network.vjepa2(video, skip_predictor=True).last_hidden_state
  return tokens, tokens.mean(1)


def _videomae():
  config = videomae.VideoMAEConfig(
    image_size=32,
    num_frames=4,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    num_labels=7,
    layer_norm_eps=1e-6,
  )
  network = videomae.VideoMAEForVideoClassification(config)
  network.fc_norm.eps = 1e-6
  return network


def _run_videomae(network, video):
  tokens = network.videomae(video).last_hidden_state
  return tokens, network.fc_norm(tokens.mean(1))


def _of_frames(out, batch, skip):
  """Tokens of all frames of a clip, and the mean of their features."""
  tokens = out.last_hidden_state[:, skip:].unflatten(0, (batch, -1)).flatten(1, 2)
  return tokens, out.pooler_output.unflatten(0, (batch, -1)).mean(1)


_FRAMES = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4)
_FRAMES_ROW = dict(width=48, depth=2, heads=4, frames=4)


def _siglip():
  vision = dict(image_size=32, intermediate_size=96, **_FRAMES)
  text = dict(vocab_size=9, intermediate_size=64, max_position_embeddings=8, **_FRAMES)
  text |= dict(bos_token_id=1, eos_token_id=2)
  config = siglip.SiglipConfig(vision_config=vision, text_config=text)
  return siglip.SiglipModel(config)


def _dinov2():
  return dinov2.Dinov2Model(dinov2.Dinov2Config(image_size=28, mlp_ratio=2, **_FRAMES))


FAMILIES = {
  "videoprism_tiny": Family(
    shrunk("videoprism_b", **_VIDEOPRISM_ROW),
    "unit",
    lambda: videoprism.VideoPrismVisionModel._from_config(
      videoprism.VideoPrismVisionConfig(**_VIDEOPRISM), attn_implementation="eager"
    ),
    _prism,
    offset_norms=True,
  ),
  "videoprism_lvt_tiny": Family(
    shrunk("videoprism_lvt_b", joint_depth=1, **_VIDEOPRISM_ROW),
    "unit",
    _clip_of_prism,
    _prism_pooled,
    offset_norms=True,
  ),
  "vjepa2_tiny": Family(
    shrunk("vjepa2_l", width=40, depth=2, mlp=80, heads=2, image=32, frames=4),
    "imagenet",
    _vjepa2,
    _run_vjepa2,
  ),
  "videomae_tiny": Family(
    shrunk("videomae_b", width=48, depth=2, mlp=96, heads=4, image=32, frames=4),
    "imagenet",
    _videomae,
    _run_videomae,
  ),
  "siglip2_tiny": Family(
    shrunk("siglip2_b", mlp=96, image=32, **_FRAMES_ROW),
    "half",
    _siglip,
    lambda network, video: _of_frames(network.vision_model(video.flatten(0, 1)), len(video), 0),
  ),
  "dinov2_tiny": Family(
    shrunk("dinov2_b", mlp=96, image=28, **_FRAMES_ROW),
    "imagenet",
    _dinov2,
    lambda network, video, resized=False: _of_frames(network(video.flatten(0, 1)), len(video), 1),
  ),
}
