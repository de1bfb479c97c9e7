"""Our vision transformers as models of Hugging Face's transformers.

What is written is a `model.safetensors`, whose names are those that transformers
itself saves, and a `config.json`, so that `from_pretrained(folder)` of the class
it names gives the network. `convert` reads the file again, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from typing import Any

import numpy as np

from data_prep.published_weights import vit_arrays
from data_prep.published_weights import vit_names
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.models import backbones
from sum_l_jax.models.vit_spec import VitSpec


@dataclasses.dataclass(frozen=True)
class Exported:
  """What is written.

  Attributes:
    tensors: arrays by transformers' names.
    card: our card, as JSON.
    config: text of config.json.
    notes: lines for the report.
  """

  tensors: Mapping[str, np.ndarray]
  card: str
  config: str
  notes: Sequence[str]


def _common(spec: VitSpec) -> dict[str, Any]:
  return {
    "hidden_size": spec.width,
    "num_attention_heads": spec.heads,
    "layer_norm_eps": spec.norm_eps,
    "dtype": "float32",
  }


def _videoprism(spec: VitSpec) -> dict[str, Any]:
  return {
    **_common(spec),
    "intermediate_size": spec.mlp,
    "image_size": spec.image,
    "num_frames": spec.frames,
    "tubelet_size": list(spec.patch),
    "num_spatial_layers": spec.depth,
    "num_temporal_layers": spec.time_depth,
    "num_auxiliary_layers": spec.joint_depth,
    "attn_logit_softcapping": spec.logit_cap,
  }


def _one_stack(spec: VitSpec) -> dict[str, Any]:
  return {**_common(spec), "num_hidden_layers": spec.depth, "patch_size": spec.patch[1]}


def _vjepa2(spec: VitSpec) -> dict[str, Any]:
  return {
    **_one_stack(spec),
    "mlp_ratio": spec.mlp / spec.width,
    "crop_size": spec.image,
    "frames_per_clip": spec.frames,
    "tubelet_size": spec.patch[0],
  }


def _videomae(spec: VitSpec) -> dict[str, Any]:
  return {
    **_one_stack(spec),
    "intermediate_size": spec.mlp,
    "image_size": spec.image,
    "num_frames": spec.frames,
    "tubelet_size": spec.patch[0],
    "use_mean_pooling": True,
  }


def _siglip(spec: VitSpec) -> dict[str, Any]:
  return {**_one_stack(spec), "intermediate_size": spec.mlp, "image_size": spec.image}


def _dinov2(spec: VitSpec) -> dict[str, Any]:
  return {
    **_one_stack(spec),
    "mlp_ratio": spec.mlp // spec.width,
    "image_size": spec.image,
    "use_mask_token": False,
  }


@dataclasses.dataclass(frozen=True)
class _Target:
  """A class of transformers.

  Attributes:
    architecture: its name.
    model_type: what its config calls itself.
    config: the other fields of the config, from our row.
    prefix: what all names of the encoder begin with in its files.
    unprefixed: beginnings of names that have no prefix.
    classifier: whether it has a class head on the feature of a clip.
  """

  architecture: str
  model_type: str
  config: Callable[[VitSpec], dict[str, Any]]
  prefix: str = ""
  unprefixed: tuple[str, ...] = ()
  classifier: bool = False


# By format of `vit_names`, the one that each family is written in.
TARGETS = {
  "videoprism": _Target("VideoPrismVisionModel", "videoprism_vision_model", _videoprism),
  "videoprism_lvt": _Target("VideoPrismVideoModel", "videoprism_vision_model", _videoprism),
  "vjepa2": _Target("VJEPA2Model", "vjepa2", _vjepa2),
  "videomae": _Target(
    "VideoMAEForVideoClassification",
    "videomae",
    _videomae,
    prefix="videomae.",
    unprefixed=("fc_norm.", "classifier.", vit_arrays.OWN),
    classifier=True,
  ),
  "siglip": _Target("SiglipVisionModel", "siglip_vision_model", _siglip),
  "dinov2": _Target("Dinov2Model", "dinov2", _dinov2),
}


def find_format(backbone: str, spec: VitSpec) -> str:
  """The format in which a backbone is written.

  Raises:
    ValueError: transformers has no such network.
  """
  for name in TARGETS:
    form = vit_names.FORMATS[name]
    family = any(f"{backbone}_".startswith(f"{start}_") for start in form.backbones)
    if family and ("pool/probe" in form.arrays) == bool(spec.pooling in ("pooler", "map")):
      return name
  families = sorted({start for name in TARGETS for start in vit_names.FORMATS[name].backbones})
  raise ValueError(
    f"{backbone!r} has no counterpart in transformers, so there are no names to write it with."
    f" Those of {', '.join(families)} have. `python -m data_prep export_weights` writes any network"
    " as an .npz file."
  )


def export(weights: weight_files.Weights, views: Sequence[str]) -> Exported:
  """Gives one view's encoder the names and layouts of transformers.

  The class head comes along where transformers has one on the same feature
  (VideoMAE), and where there is only one.

  Args:
    weights: weights of a vision transformer.
    views: the view.

  Raises:
    ValueError: there are several views or none, it is no vision transformer, it
      has low-rank updates beside its kernels, or transformers has no such network.
  """
  if len(views) != 1 or "encoder" not in weights.params.get(views[0], {}):
    own = sorted(view for view, tower in weights.params.items() if "encoder" in tower)
    raise ValueError(
      f"{weights.source} has encoders of {own}, and a model of transformers has one: choose it"
      " with --view."
    )
  view = views[0]
  backbone = weight_files.backbone_of(weights.card, view)
  spec = backbones.find(backbone).vit
  if spec is None:
    raise ValueError(
      f"{weights.source} holds a {backbone!r}, which is no vision transformer: --export=pyth writes"
      " networks of one or two pathways."
    )
  name = find_format(backbone, spec)
  form, target = vit_names.FORMATS[name], TARGETS[name]
  tower = weights.params[view]
  arrays = weight_files.flatten(tower["encoder"])
  if any(ours.endswith("/lora_a") for ours in arrays):
    raise ValueError(
      f"{weights.source} has low-rank updates (LoRA) beside its kernels, and transformers keeps no"
      " such arrays: add them to the kernels first."
    )
  tensors = vit_arrays.write(form, spec, arrays)
  config = {
    "architectures": [target.architecture],
    "model_type": target.model_type,
    **target.config(spec),
  }
  card = {**weights.card, "exported_views": [view], "head_names": {}}
  heads, left = tower.get("heads", {}), [part for part in ("projection", "probe") if part in tower]
  if target.classifier and len(heads) == 1 and "probe" not in tower:
    ((task, head),) = heads.items()
    tensors["classifier.weight"] = np.ascontiguousarray(np.asarray(head["kernel"]).T)
    tensors["classifier.bias"] = np.asarray(head["bias"])
    kind = weights.card["kinds"].get(view, {}).get(task, types.SOFTMAX)
    card["head_names"] = {"classifier": (view, task, kind)}
    labels = weights.card["tasks"].get(view, {}).get(task, [])
    config["id2label"] = {str(i): label for i, label in enumerate(labels)}
    config["label2id"] = {label: i for i, label in enumerate(labels)}
  else:
    left += [f"heads/{task}" for task in heads]
  tensors = {
    key if key.startswith(target.unprefixed) else target.prefix + key: value
    for key, value in tensors.items()
  }
  notes = [f"class        {target.architecture} of transformers"]
  notes += [f"left behind  {view}/{part}, for which it has no place" for part in left]
  own = [key.removeprefix(vit_arrays.OWN) for key in tensors if key.startswith(vit_arrays.OWN)]
  notes += [f"kept         {key}, which transformers does not know" for key in own]
  if name == "videomae":
    notes.append("note         transformers' fc_norm has an epsilon of 1e-5, ours 1e-6")
  return Exported(tensors, json.dumps(card), json.dumps(config, indent=2), notes)
