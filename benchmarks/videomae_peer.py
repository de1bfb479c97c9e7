"""VideoMAE's network of `transformers`, with our values: what the benchmarks compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers.models import videomae

from data_prep.published_weights import vit_arrays
from data_prep.published_weights import vit_names
from sum_l_jax.models import vit_spec


def make(spec: vit_spec.VitSpec, arrays: Mapping[str, Any], way: str) -> torch.nn.Module:
  """Makes the network, without a norm after the blocks and without dropout.

  Args:
    spec: what the encoder is.
    arrays: our parameters of the encoder, by path.
    way: implementation of attention, "eager" or "sdpa".
  """
  config = videomae.VideoMAEConfig(
    image_size=spec.image,
    patch_size=spec.patch[1],
    tubelet_size=spec.patch[0],
    num_frames=spec.frames,
    hidden_size=spec.width,
    num_hidden_layers=spec.depth,
    num_attention_heads=spec.heads,
    intermediate_size=spec.mlp,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    layer_norm_eps=spec.norm_eps,
    use_mean_pooling=True,
  )
  network: Any = videomae.VideoMAEModel._from_config(config, attn_implementation=way)
  tensors = vit_arrays.write(vit_names.FORMATS["videomae"], spec, arrays)
  # Files have other names for these two than the network itself.
  rename = lambda name: name.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias")
  network.load_state_dict(
    {
      rename(name): torch.from_numpy(np.array(value))
      for name, value in tensors.items()
      if not name.startswith("fc_norm.")
    }
  )
  return network
