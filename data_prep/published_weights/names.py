"""What each family of networks calls the arrays of our encoders.

    family         where from
    pyslowfast     PySlowFast, Ego-Exo; the SUM-L authors' ego tower
    sum_l_exo      the exo tower in the SUM-L authors' joint checkpoint
    caffe2         PySlowFast's Caffe2 model zoo
    pytorchvideo   its hub
    mmaction2      its model zoo

Names are generated from our tree, so "every array is filled" and "every array
is used" are comparisons of two sets.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from sum_l_jax import models
from sum_l_jax.models import backbones

FAMILIES = ("pyslowfast", "sum_l_exo", "caffe2", "pytorchvideo", "mmaction2")

_PATHWAYS = {"slow": 0, "fast": 1}
_TORCH_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}
_CAFFE2_LEAVES = {"scale": "s", "bias": "b", "mean": "rm", "var": "riv"}


@dataclasses.dataclass(frozen=True)
class Layer:
  """Where an array of an encoder belongs.

  Attributes:
    pathway: 0 for slow, 1 for fast and for a fusion.
    stage: number of the stage; 1 is the stem, and a fusion follows its stage.
    block: number of the block in the stage, -1 for stem and fusion.
    part: "stem", "fusion", "shortcut", "a", "b" or "c".
    kind: "conv" or "norm".
    leaf: "kernel", "scale", "bias", "mean" or "var".
  """

  pathway: int
  stage: int
  block: int
  part: str
  kind: str
  leaf: str


_OURS = re.compile(
  r"(?:(?P<stem>slow|fast)/stem"
  r"|(?P<path>slow|fast)/s(?P<stage>\d)/(?P<block>\d+)/(?P<part>\w+)"
  r"|fusion/(?P<fusion>\d))/(?P<kind>conv|norm)/(?P<leaf>\w+)"
)


def parse(name: str) -> Layer:
  """Reads one of our names, "slow/s2/0/a/conv/kernel"."""
  match = _OURS.fullmatch(name)
  if not match:
    raise ValueError(f"{name!r} is not an array of a SlowFast encoder.")
  kind, leaf = match["kind"], match["leaf"]
  if match["stem"]:
    return Layer(_PATHWAYS[match["stem"]], 1, -1, "stem", kind, leaf)
  if match["fusion"]:
    return Layer(1, int(match["fusion"]) + 1, -1, "fusion", kind, leaf)
  return Layer(
    _PATHWAYS[match["path"]], int(match["stage"]), int(match["block"]), match["part"], kind, leaf
  )


def _pyslowfast(layer: Layer, view: str = "") -> str:
  stage, norm = layer.stage, layer.kind == "norm"
  leaf = _TORCH_LEAVES[layer.leaf]
  if layer.part == "fusion":
    return f"s{stage}_fuse{view}.{'bn' if norm else 'conv_f2s'}.{leaf}"
  start = f"s{stage}{view}.pathway{layer.pathway}_"
  if layer.part == "stem":
    return f"{start}stem.{'bn' if norm else 'conv'}.{leaf}"
  branch = "branch1" if layer.part == "shortcut" else f"branch2.{layer.part}"
  return f"{start}res{layer.block}.{branch}{'_bn' if norm else ''}.{leaf}"


def _pytorchvideo(layer: Layer, two_pathways: bool) -> str:
  norm, leaf = layer.kind == "norm", _TORCH_LEAVES[layer.leaf]
  start = f"blocks.{layer.stage - 1}."
  if layer.part == "fusion":
    return f"{start}multipathway_fusion.{'norm' if norm else 'conv_fast_to_slow'}.{leaf}"
  if two_pathways:
    start += f"multipathway_blocks.{layer.pathway}."
  if layer.part == "stem":
    return f"{start}{'norm' if norm else 'conv'}.{leaf}"
  word = "norm" if norm else "conv"
  branch = f"branch1_{word}" if layer.part == "shortcut" else f"branch2.{word}_{layer.part}"
  return f"{start}res_blocks.{layer.block}.{branch}.{leaf}"


def _caffe2(layer: Layer, last_blocks: dict[int, int]) -> str:
  ending = f"bn_{_CAFFE2_LEAVES[layer.leaf]}" if layer.kind == "norm" else "w"
  prefix = "t_" if layer.pathway else ""
  if layer.part == "stem":
    return f"{prefix}{'res_' if layer.kind == 'norm' else ''}conv1_{ending}"
  if layer.part == "fusion":
    if layer.stage == 1:
      return f"t_pool1_subsample_{ending}"
    block = last_blocks[layer.stage]
    return f"t_res{layer.stage}_{block}_branch2c_bn_subsample_{ending}"
  branch = "1" if layer.part == "shortcut" else f"2{layer.part}"
  return f"{prefix}res{layer.stage}_{layer.block}_branch{branch}_{ending}"


def _mmaction2(layer: Layer, two_pathways: bool) -> str:
  leaf = f"{'bn' if layer.kind == 'norm' else 'conv'}.{_TORCH_LEAVES[layer.leaf]}"
  start = "backbone."
  if two_pathways:
    # The convolutions between the pathways are the slow one's.
    slow = layer.part == "fusion" or layer.pathway == 0
    start += "slow_path." if slow else "fast_path."
  if layer.part == "stem":
    return f"{start}conv1.{leaf}"
  if layer.part == "fusion":
    return f"{start}{'conv1' if layer.stage == 1 else f'layer{layer.stage - 1}'}_lateral.{leaf}"
  part = {"shortcut": "downsample", "a": "conv1", "b": "conv2", "c": "conv3"}[layer.part]
  return f"{start}layer{layer.stage - 1}.{layer.block}.{part}.{leaf}"


def network_spec(backbone: str) -> backbones.NetworkSpec:
  """The stage tables of a backbone that has published weights."""
  spec = models.BACKBONES[backbone].spec
  assert spec is not None, backbone
  return spec


def encoder_names(backbone: str, family: str, ours: Iterable[str]) -> dict[str, str]:
  """Finds their names of our encoder's arrays.

  Args:
    backbone: name of a backbone of `models.BACKBONES`, not "tiny".
    family: one of `FAMILIES`.
    ours: flat names of parameters and statistics below `encoder/`.

  Returns:
    Their name of each of our names.
  """
  spec = network_spec(backbone)
  last_blocks = {i + 2: stage.blocks - 1 for i, stage in enumerate(spec.slow.stages)}
  rules = {
    "pyslowfast": _pyslowfast,
    "sum_l_exo": lambda layer: _pyslowfast(layer, "_t"),
    "pytorchvideo": lambda layer: _pytorchvideo(layer, spec.fast is not None),
    "mmaction2": lambda layer: _mmaction2(layer, spec.fast is not None),
    "caffe2": lambda layer: _caffe2(layer, last_blocks),
  }
  return {name: rules[family](parse(name)) for name in ours}


def pool_window(backbone: str, families: Iterable[str]) -> int:
  """Side of the windows that a file's authors pool at test time; 0 is the whole map.

  PySlowFast, pytorchvideo and Ego-Exo average windows of 7 x 7, in their
  multi-task networks too, and so do the SUM-L authors' networks of one pathway.
  Their joint network of two pathways and mmaction2's pool the whole map.
  """
  joint = "sum_l_exo" in families
  return 0 if "mmaction2" in families or (joint and network_spec(backbone).fast) else 7


def normalization(families: Iterable[str]) -> str:
  """How a file's authors normalise pixels, a key of `types.NORMALIZATIONS`."""
  return "imagenet" if "mmaction2" in families else "video"


@dataclasses.dataclass(frozen=True)
class Head:
  """A linear layer that is no part of an encoder.

  Attributes:
    view: "ego" or "exo"; "" where the file has one tower that may be either.
    task: name of the class head's task; "" for a projection into the text space.
    weight: name of the weight.
    bias: name of the bias.
    kind: "softmax" or "multi_label".
    channel_order: channel order of the frames that networks with this head were
      trained on.
    fps: rate of those frames.
    fast_first: whether its columns for the fast pathway come before those for
      the slow one; ours come after.
  """

  view: str
  task: str
  weight: str
  bias: str
  kind: str = "softmax"
  channel_order: str = "RGB"
  fps: float = 30.0
  fast_first: bool = False

  @classmethod
  def of(cls, view: str, task: str, name: str, **settings: Any) -> Head:
    """A head whose weight and bias share a name, as PyTorch calls them."""
    return cls(view, task, f"{name}.weight", f"{name}.bias", **settings)


_EPIC = dict(channel_order="BGR", fps=60.0)
_LEMMA = dict(kind="multi_label", fps=24.0)

# All heads that published files are known to have; a file has a few of them.
HEADS = (
  # Kinetics.
  Head.of("", "action", "head.projection"),
  Head.of("", "action", "blocks.5.proj"),
  Head.of("", "action", "blocks.6.proj"),
  Head("", "action", "pred_w", "pred_b"),
  Head.of("", "action", "cls_head.fc_cls", fast_first=True),
  # Ego data, decoded by OpenCV and never reordered.
  Head.of("ego", "verb", "headepic.projections.0", **_EPIC),
  Head.of("ego", "noun", "headepic.projections.1", **_EPIC),
  Head.of("ego", "verb", "headepic100.projections.0", **_EPIC),
  Head.of("ego", "noun", "headepic100.projections.1", **_EPIC),
  Head.of(
    "ego",
    "action",
    "headcharades-ego.projection",
    kind="multi_label",
    channel_order="BGR",
    fps=24.0,
  ),
  # LEMMA: in the joint checkpoint, and in that of stage one.
  Head.of("exo", "verb", "head_lemma.projections.0", **_LEMMA),
  Head.of("exo", "noun", "head_lemma.projections.1", **_LEMMA),
  Head.of("exo", "verb", "readout.projections.0", **_LEMMA),
  Head.of("exo", "noun", "readout.projections.1", **_LEMMA),
  Head.of("ego", "", "global_con_head.fpv_global_proj"),
  Head.of("exo", "", "global_con_head.tpv_global_proj"),
)

# The linear layers of vision transformers that act on the feature of a clip.
TRANSFORMER_HEADS = (
  # VideoMAE, of its authors and of transformers.
  Head.of("", "action", "head"),
  Head.of("", "action", "classifier"),
  # VideoMAE tuned on EPIC-100 (TIM).
  Head.of("", "verb", "verb_head"),
  Head.of("", "noun", "noun_head"),
  # LaViLa and AVION tuned on EPIC-100; several heads are LaViLa's.
  Head.of("", "action", "fc_cls"),
  Head.of("", "verb", "fc_cls.0"),
  Head.of("", "noun", "fc_cls.1"),
  Head.of("", "action", "fc_cls.2"),
)

# Ego-Exo's class for Kinetics (HandObjKd...), which made its "EE" weights, has
# the action head and two that are distilled: whether a clip is egocentric (2)
# and what it shows (1000 ImageNet classes). Published copies may lack the two.
EGO_EXO_ACTION = Head.of("", "action", "head.projections.0")
_DISTILLED = {"head.projections.1": 2, "head.projections.2": 1000}


def ego_exo_distilled(counts: Mapping[str, int]) -> frozenset[str]:
  """The distillation heads of Ego-Exo's Kinetics weights, if these are such.

  Other multi-task networks use the same names, so that the numbers of classes
  decide.

  Args:
    counts: number of outputs of each linear layer, by name without "weight".

  Returns:
    Names of the layers; empty for other networks.
  """
  found = {n: c for n, c in counts.items() if n.startswith("head.projections.")}
  kept = found.pop("head.projections.0", 0)
  return frozenset(found) if kept and found == _DISTILLED else frozenset()


# Patterns of names that are left behind on purpose, and what they are.
SKIPPED = {
  r"(.*\.)?num_batches_tracked": "batch counters",
  r".*\.split_bn\..*": "per-split statistics of sub-batch normalisation",
  r"(kd_?head|head_?kd|kd)[\w-]*\..*": "distillation heads",
  r"(hand|head)objhead[\w-]*\..*": "auxiliary heads for hands and objects",
  r".*momentum.*|lr|model_iter": "Caffe2's optimizer",
  r"data_preprocessor\..*": "pixel statistics",
}
