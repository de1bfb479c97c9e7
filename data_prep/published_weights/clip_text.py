"""The text towers of LaViLa's and AVION's files, as folders of `transformers`.

Both have CLIP's text transformer under OpenAI's names; LaViLa's has QuickGELU
and AVION's the exact GELU. `transformers.CLIPTextModelWithProjection` computes
them.
"""

from __future__ import annotations

from collections.abc import Mapping
import re
from typing import Any

import numpy as np

# What stands before the names of the text tower, and its activation.
_FAMILIES = {"textual.": ("AVION", "gelu"), "": ("LaViLa", "quick_gelu")}
# CLIP's heads have 64 channels at every width.
_HEAD = 64
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_OF_A_LAYER = {
  "attn.out_proj": "self_attn.out_proj",
  "ln_1": "layer_norm1",
  "ln_2": "layer_norm2",
  "mlp.c_fc": "mlp.fc1",
  "mlp.c_proj": "mlp.fc2",
}
_OTHERS = {
  "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
  "positional_embedding": "text_model.embeddings.position_embedding.weight",
  "ln_final.weight": "text_model.final_layer_norm.weight",
  "ln_final.bias": "text_model.final_layer_norm.bias",
}


def convert(
  tensors: Mapping[str, np.ndarray], *, heads: int | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
  """Finds the text tower among the arrays of a file.

  Args:
    tensors: arrays by the names of the file.
    heads: heads of an attention; None is one for 64 channels, as in all of CLIP.

  Returns:
    Fields of a `CLIPTextConfig`, the arrays by names of `transformers`, and the
    family, "LaViLa" or "AVION".

  Raises:
    ValueError: there is no such tower, or a part of it is missing.
  """
  prefix = "textual." if any(n.startswith("textual.") for n in tensors) else ""
  family, activation = _FAMILIES[prefix]
  own = {name[len(prefix) :]: x for name, x in tensors.items() if name.startswith(prefix)}
  lacking = sorted({*_OTHERS, "text_projection"} - own.keys())
  if lacking:
    raise ValueError(
      f"The file has no text tower of CLIP's kind: {', '.join(lacking)} are missing. LaViLa's and"
      " AVION's dual encoders have one; classifiers, narrators and networks with DistilBERT don't."
    )
  arrays = {theirs: np.asarray(own[name]) for name, theirs in _OTHERS.items()}
  arrays["text_projection.weight"] = own["text_projection"].T
  depth = 0
  for name, array in own.items():
    found = _LAYER.fullmatch(name)
    if found:
      depth = max(depth, int(found[1]) + 1)
      arrays |= _of_a_layer(f"text_model.encoder.layers.{found[1]}.", found[2], array)
  width = own["text_projection"].shape[0]
  # A weight and a bias each of queries, keys, values, three projections and two norms.
  if len(arrays) != len(_OTHERS) + 1 + 16 * depth or not depth:
    raise ValueError(
      f"The text tower is not whole: {depth} layers have {len(arrays) - len(_OTHERS) - 1} arrays,"
      " where each has 16."
    )
  vocabulary = len(own["token_embedding.weight"])
  fields = {
    "vocab_size": vocabulary,
    "hidden_size": width,
    "intermediate_size": len(arrays["text_model.encoder.layers.0.mlp.fc1.bias"]),
    "num_hidden_layers": depth,
    "num_attention_heads": heads or width // _HEAD,
    "max_position_embeddings": len(own["positional_embedding"]),
    "projection_dim": own["text_projection"].shape[1],
    "hidden_act": activation,
    "layer_norm_eps": 1e-5,
    # The feature is read at the largest number of a text, which is its end.
    "bos_token_id": vocabulary - 2,
    "eos_token_id": vocabulary - 1,
    "pad_token_id": vocabulary - 1,
  }
  arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
  return fields, arrays, family


def _of_a_layer(start: str, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
  """The arrays that one array of a layer becomes."""
  if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
    kind = name.rpartition("_")[2]
    parts = zip("qkv", np.split(np.asarray(array), 3), strict=True)
    return {f"{start}self_attn.{part}_proj.{kind}": values for part, values in parts}
  module, _, kind = name.rpartition(".")
  return {f"{start}{_OF_A_LAYER[module]}.{kind}": array} if module in _OF_A_LAYER else {}
