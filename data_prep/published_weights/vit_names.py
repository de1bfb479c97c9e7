"""What files of published vision transformers call the arrays of `models/vit.py`.

    format                what it is
    videoprism            transformers' VideoPrismVisionModel, .safetensors
    videoprism_lvt        its VideoPrismVideoModel and VideoPrismClipModel
    vjepa2                its VJEPA2Model
    videomae              its VideoMAEModel
    siglip                its SiglipVisionModel and SiglipModel
    dinov2                its Dinov2Model
    videoprism_flax       the VideoPrism authors' .npz
    videoprism_lvt_flax   the same of the video-text networks
    vjepa2_meta           Meta's .pt
    vjepa21_meta          the same of V-JEPA 2.1
    videomae_torch        the VideoMAE authors' .pth
    lavila, avion         their authors' .pt

A format is a table. On its left are arrays of an encoder's tree, or modules that
hold a kernel (or scale) and a bias; on its right what a file calls them:

    {n}      the number of a block; without it all blocks are in one array
    {leaf}   kernel, scale or bias, as the file says it; if it isn't there, it
             follows after a dot
    [0]      the first third of the array, on its first axis
    a + b    the sum of two arrays
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import re

_TORCH = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_BLOCK = (
  *("norm1", "attention/query", "attention/key", "attention/value", "attention/out"),
  *("norm2", "mlp/up", "mlp/down"),
)


def _blocks(stack: str, start: str, names: str) -> dict[str, str]:
  """The modules of a stack; their names in the order of `_BLOCK`."""
  return {
    f"{stack}/block/{module}": start + name
    for module, name in zip(_BLOCK, names.split(), strict=True)
  }


def _fused(module: str, name: str) -> dict[str, str]:
  """Queries, keys and values that are one array."""
  parts = enumerate(("query", "key", "value"))
  return {f"{module}/{part}": f"{name}[{i}]" for i, part in parts}


@dataclasses.dataclass(frozen=True)
class Format:
  """How the files of one kind name arrays.

  Attributes:
    title: what such a file is, for messages.
    backbones: what the names of the backbones that it may hold begin with.
    sign: pattern of a name that such a file has, and no other.
    arrays: the table, see the module.
    wrapper: pattern of what may precede the names.
    spellings: patterns of other names for the same arrays, and what to write
      instead.
    leaves: what the file calls kernels, scales and biases.
    flax: whether kernels are laid out as Flax does it, with an axis for heads.
    flat_patches: whether the kernel of the patches may be a matrix, whose inputs
      are ordered channel, row, column.
    image_patches: whether it is exported with two axes, rows and columns.
    leading: arrays that are exported with a first axis of 1.
    start: what arrays that a file may lack are then filled with: "ones", "zeros",
      or "sinusoids" for a table of positions.
    resized: arrays whose first axis is brought to the network's length, as the
      authors do: interpolated where it is too short, cut where it is too long.
    heads: whether linear layers of the file act on the feature of a clip, or on
      what a probe reads.
    probe: table of the attentive probe that the file may have, {} for none.
    projection: name of the projection into a space shared with text, or "".
    skipped: patterns of names that are left behind, and what they are.
    refused: patterns of names that other networks have, and what those are.
  """

  title: str
  backbones: tuple[str, ...]
  sign: str
  arrays: Mapping[str, str]
  wrapper: str = ""
  spellings: Mapping[str, str] = dataclasses.field(default_factory=dict)
  leaves: Mapping[str, str] = dataclasses.field(default_factory=lambda: _TORCH)
  flax: bool = False
  flat_patches: bool = False
  image_patches: bool = False
  leading: frozenset[str] = frozenset()
  start: Mapping[str, str] = dataclasses.field(default_factory=dict)
  resized: frozenset[str] = frozenset()
  heads: bool = False
  probe: Mapping[str, str] = dataclasses.field(default_factory=dict)
  projection: str = ""
  skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
  refused: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def canonical(self, name: str) -> str:
    """The name without its wrapper, as the table spells it."""
    name = re.sub(f"^(?:{self.wrapper})", "", name) if self.wrapper else name
    for pattern, instead in self.spellings.items():
      name = re.sub(pattern, instead, name)
    return name


_VIDEOPRISM_LAYER = (
  "layernorm_before attention.q_proj attention.k_proj attention.v_proj attention.o_proj"
  " layernorm_after mlp.fc1 mlp.fc2"
)


def _videoprism(start: str) -> dict[str, str]:
  return {
    "patches": f"{start}spatial_embeddings.patch_embeddings.projection",
    "space": f"{start}spatial_embeddings.position_embeddings",
    "time": f"{start}temporal_embeddings.position_embeddings",
    **_blocks("blocks", f"{start}spatial_layers.{{n}}.", _VIDEOPRISM_LAYER),
    "norm": f"{start}layernorm1",
    **_blocks("time_blocks", f"{start}temporal_layers.{{n}}.", _VIDEOPRISM_LAYER),
    "time_norm": f"{start}layernorm2",
  }


_FLAX_LAYER = (
  "layer_norm/{leaf} self_attention/query/{short} self_attention/key/{short}"
  " self_attention/value/{short} self_attention/post/{short}"
  " ff_layer/layer_norm/{leaf} ff_layer/ffn_layer1/linear/{leaf}"
  " ff_layer/ffn_layer2/linear/{leaf}"
)


def _videoprism_flax(start: str) -> dict[str, str]:
  layers = "transformers_stack/x_layers/"
  return {
    "patches": f"{start}patch_projection/linear/{{leaf}}",
    "space": f"{start}spatial_pos_emb/emb_var",
    "time": f"{start}temporal_pos_emb/emb_var",
    **_blocks("blocks", f"{start}spatial_encoder/{layers}", _FLAX_LAYER),
    "norm": f"{start}spatial_ln/{{leaf}}",
    **_blocks("time_blocks", f"{start}temporal_encoder/{layers}", _FLAX_LAYER),
    "time_norm": f"{start}temporal_ln/{{leaf}}",
  }


_POOLER = "contrastive_vision_pooler/pooling_attention"
_VJEPA_BLOCK = "norm1 attn.qkv[0] attn.qkv[1] attn.qkv[2] attn.proj norm2 mlp.fc1 mlp.fc2"
_VJEPA_META = {
  "patches": "patch_embed.proj",
  **_blocks("blocks", "blocks.{n}.", _VJEPA_BLOCK),
  "norm": "norm",
}
_HF_BLOCK = (
  "{0} attention.attention.query attention.attention.key attention.attention.value"
  " attention.output.dense {1} {2} {3}"
)
_TEXT = {r"(text_model|textual|text_encoder)[./].*": "the text tower"}

# The task of a probe's only query.
PROBE_TASK = "action"
_CROSS = "pooler.cross_attention_layer."
_VJEPA_PROBE = {
  **_blocks(
    "blocks",
    "pooler.self_attention_layers.{n}.",
    "layer_norm1 self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj"
    " layer_norm2 mlp.fc1 mlp.fc2",
  ),
  "cross/norm1": f"{_CROSS}layer_norm1",
  "cross/attention/query": f"{_CROSS}cross_attn.q_proj",
  "cross/attention/key": f"{_CROSS}cross_attn.k_proj",
  "cross/attention/value": f"{_CROSS}cross_attn.v_proj",
  "cross/norm2": f"{_CROSS}layer_norm2",
  "cross/mlp/up": f"{_CROSS}mlp.fc1",
  "cross/mlp/down": f"{_CROSS}mlp.fc2",
  f"queries/{PROBE_TASK}": "pooler.query_tokens",
}

FORMATS: dict[str, Format] = {
  "videoprism_lvt": Format(
    title="VideoPrism's video-text network of transformers",
    backbones=("videoprism_lvt",),
    sign=r"(video_model\.)?auxiliary_layers\.0\.attention\.q_proj\.weight",
    wrapper=r"video_model\.",
    arrays={
      **_videoprism("vision_model."),
      **_blocks("joint_blocks", "auxiliary_layers.{n}.", _VIDEOPRISM_LAYER),
      "pool/probe": "head.pooling_attention_query",
      "pool/query": "head.q_proj",
      "pool/key": "head.k_proj",
      "pool/value": "head.v_proj",
      "pool/out": "head.o_proj",
      "pool/scale": "head.per_dim_scale",
      "pool/norm": "head_layernorm",
    },
    leading=frozenset({"space", "time", "pool/probe"}),
    skipped=_TEXT,
  ),
  "videoprism": Format(
    title="VideoPrism's encoder of transformers",
    backbones=("videoprism",),
    sign=r"(vision_model\.)?spatial_layers\.0\.attention\.q_proj\.weight",
    wrapper=r"vision_model\.",
    arrays=_videoprism(""),
    leading=frozenset({"space", "time"}),
    skipped={r"(head|head_layernorm|classifier)\..*": "the pooler and its classifier"},
  ),
  "vjepa2": Format(
    title="V-JEPA 2 of transformers",
    backbones=("vjepa2",),
    sign=r"(vjepa2\.)?encoder\.layer\.0\.attention\.proj\.weight",
    wrapper=r"vjepa2\.",
    arrays={
      "patches": "encoder.embeddings.patch_embeddings.proj",
      **_blocks(
        "blocks",
        "encoder.layer.{n}.",
        "norm1 attention.query attention.key attention.value attention.proj norm2 mlp.fc1 mlp.fc2",
      ),
      "norm": "encoder.layernorm",
    },
    heads=True,
    probe=_VJEPA_PROBE,
    skipped={r"predictor\..*": "the predictor"},
  ),
  # Before VideoMAE, whose names it shares.
  "dinov2": Format(
    title="DINOv2 of transformers",
    backbones=("dinov2",),
    sign=r"(dinov2\.)?encoder\.layer\.0\.layer_scale1\.lambda1",
    wrapper=r"dinov2\.",
    # What the modules have been called since transformers 5.
    spellings={
      r"attention\.q_proj\.": "attention.attention.query.",
      r"attention\.k_proj\.": "attention.attention.key.",
      r"attention\.v_proj\.": "attention.attention.value.",
      r"attention\.o_proj\.": "attention.output.dense.",
    },
    arrays={
      "patches": "embeddings.patch_embeddings.projection",
      "space": "embeddings.position_embeddings",
      "class_token": "embeddings.cls_token",
      **_blocks(
        "blocks", "encoder.layer.{n}.", _HF_BLOCK.format("norm1", "norm2", "mlp.fc1", "mlp.fc2")
      ),
      "blocks/block/scale1": "encoder.layer.{n}.layer_scale1.lambda1",
      "blocks/block/scale2": "encoder.layer.{n}.layer_scale2.lambda1",
      "norm": "layernorm",
    },
    image_patches=True,
    leading=frozenset({"space", "class_token"}),
    start={"time": "sinusoids"},
    skipped={
      r"embeddings\.mask_token": "the token of masked patches",
      r"classifier\..*": "a classifier of the class token beside the mean of the patches",
    },
    refused={
      r"embeddings\.register_tokens": "DINOv2 with registers",
      r".*\.mlp\.weights_in\.weight": "DINOv2 g, with SwiGLU",
    },
  ),
  "videomae": Format(
    title="VideoMAE of transformers",
    backbones=("videomae",),
    sign=r"(videomae\.)?encoder\.layer\.0\.attention\.attention\.(q_bias|query\.bias)",
    wrapper=r"videomae\.",
    spellings={
      r"attention\.query\.bias$": "attention.q_bias",
      r"attention\.value\.bias$": "attention.v_bias",
    },
    arrays={
      "patches": "embeddings.patch_embeddings.projection",
      **_blocks(
        "blocks",
        "encoder.layer.{n}.",
        _HF_BLOCK.format(
          "layernorm_before", "layernorm_after", "intermediate.dense", "output.dense"
        ),
      ),
      "blocks/block/attention/query/bias": "encoder.layer.{n}.attention.attention.q_bias",
      "blocks/block/attention/value/bias": "encoder.layer.{n}.attention.attention.v_bias",
      "norm": "fc_norm",
    },
    start={"norm/scale": "ones", "norm/bias": "zeros"},
    heads=True,
    skipped={
      r"(decoder|encoder_to_decoder)\..*|mask_token": "the decoder",
      r"layernorm\..*": "the norm of tokens, which the feature does without",
      r"embeddings\.position_embeddings": "sinusoids, which are computed",
    },
    refused={r"embeddings\.cls_token": "ViT for images"},
  ),
  "siglip": Format(
    title="SigLIP's vision tower of transformers",
    backbones=("siglip2",),
    sign=r"(vision_model\.)?head\.probe",
    wrapper=r"vision_model\.",
    arrays={
      "patches": "embeddings.patch_embedding",
      "space": "embeddings.position_embedding.weight",
      **_blocks(
        "blocks",
        "encoder.layers.{n}.",
        "layer_norm1 self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj"
        " layer_norm2 mlp.fc1 mlp.fc2",
      ),
      "norm": "post_layernorm",
      "pool/probe": "head.probe",
      **_fused("pool/attention", "head.attention.in_proj_{leaf}"),
      "pool/attention/out": "head.attention.out_proj",
      "pool/norm": "head.layernorm",
      "pool/mlp/up": "head.mlp.fc1",
      "pool/mlp/down": "head.mlp.fc2",
    },
    image_patches=True,
    leading=frozenset({"pool/probe"}),
    start={"time": "sinusoids"},
    skipped={**_TEXT, r"logit_(scale|bias)": "the temperature", r".*\.position_ids": "indices"},
  ),
  "videoprism_lvt_flax": Format(
    title="VideoPrism's video-text network of its authors (.npz)",
    backbones=("videoprism_lvt",),
    sign=r"(params/)?auxiliary_encoder/transformers_stack/x_layers/self_attention/query/w",
    wrapper=r"params/",
    leaves={"kernel": "kernel", "scale": "scale", "bias": "bias"},
    flax=True,
    arrays={
      **_videoprism_flax("vision_encoder/"),
      **_blocks("joint_blocks", "auxiliary_encoder/transformers_stack/x_layers/", _FLAX_LAYER),
      "pool/probe": f"{_POOLER}_query",
      "pool/query": f"{_POOLER}/query/{{short}}",
      "pool/key": f"{_POOLER}/key/{{short}}",
      "pool/value": f"{_POOLER}/value/{{short}}",
      "pool/out": f"{_POOLER}/post/{{short}}",
      "pool/scale": f"{_POOLER}/per_dim_scale/per_dim_scale",
      "pool/norm": f"{_POOLER}_layer_norm/{{leaf}}",
    },
    skipped=_TEXT,
  ),
  "videoprism_flax": Format(
    title="VideoPrism's encoder of its authors (.npz)",
    backbones=("videoprism",),
    sign=r"(params/)?spatial_encoder/transformers_stack/x_layers/self_attention/query/w",
    wrapper=r"params/",
    leaves={"kernel": "kernel", "scale": "scale", "bias": "bias"},
    flax=True,
    arrays=_videoprism_flax(""),
  ),
  "vjepa21_meta": Format(
    title="V-JEPA 2.1 of its authors",
    backbones=("vjepa21",),
    sign=r"(backbone\.)?norms_block\.3\.weight",
    wrapper=r"backbone\.",
    arrays={
      **_VJEPA_META,
      "patches/bias": "patch_embed.proj.bias + video_mod_embed",
      "norm": "norms_block.3",
    },
    skipped={
      r"(patch_embed_img\..*|img_mod_embed)": "what single images take",
      r"norms_block\.[012]\..*": "norms after inner blocks",
      r"pos_embed": "a table of positions, which are rotations",
    },
  ),
  "videomae_torch": Format(
    title="VideoMAE of its authors",
    backbones=("videomae",),
    sign=r"(encoder\.)?blocks\.0\.attn\.q_bias",
    wrapper=r"encoder\.",
    arrays={
      "patches": "patch_embed.proj",
      **_blocks("blocks", "blocks.{n}.", _VJEPA_BLOCK),
      "blocks/block/attention/query/bias": "blocks.{n}.attn.q_bias",
      "blocks/block/attention/value/bias": "blocks.{n}.attn.v_bias",
      "norm": "fc_norm",
    },
    start={"norm/scale": "ones", "norm/bias": "zeros"},
    heads=True,
    skipped={
      r"(decoder|encoder_to_decoder)\..*|mask_token": "the decoder",
      r"norm\..*": "the norm of tokens, which the feature does without",
      r"pos_embed": "sinusoids, which are computed",
    },
    refused={r"cls_token": "ViT with a class token", r"blocks\.0\.gamma_1": "VideoMAE with scales"},
  ),
  "lavila": Format(
    title="LaViLa",
    backbones=("lavila",),
    sign=r"visual\.blocks\.0\.timeattn\.qkv\.weight",
    arrays={
      "patches": "visual.patch_embed.proj",
      "space": "visual.pos_embed",
      "time": "visual.temporal_embed",
      "class_token": "visual.cls_token",
      "stem_norm": "visual.ln_pre",
      **_blocks("blocks", "visual.blocks.{n}.", _VJEPA_BLOCK),
      "blocks/block/time_norm": "visual.blocks.{n}.norm3",
      **_fused("blocks/block/time_attention", "visual.blocks.{n}.timeattn.qkv"),
      "blocks/block/time_attention/out": "visual.blocks.{n}.timeattn.proj",
      "norm": "visual.norm",
    },
    resized=frozenset({"time"}),
    heads=True,
    projection="image_projection",
    skipped={
      r"(textual|transformer|token_embedding|ln_final)\..*": "the text tower",
      r"positional_embedding|text_projection(\..*)?": "the text tower",
      r"logit_scale": "the temperature",
    },
    refused={r".*\.alpha_timeattn": "LaViLa with a gate before the attention through time"},
  ),
  "avion": Format(
    title="AVION",
    backbones=("avion",),
    sign=r"visual\.transformer\.resblocks\.0\.attn\.(Wqkv\.|in_proj_)weight",
    spellings={
      r"attn\.in_proj_(weight|bias)$": r"attn.Wqkv.\1",
      r"^(visual\..*)mlp\.c_fc\.": r"\1mlp.fc1.",
      r"^(visual\..*)mlp\.c_proj\.": r"\1mlp.fc2.",
    },
    arrays={
      "patches": "visual.conv1",
      "space": "visual.positional_embedding",
      "time": "visual.temporal_embedding",
      "class_token": "visual.class_embedding",
      "stem_norm": "visual.ln_pre",
      **_blocks(
        "blocks",
        "visual.transformer.resblocks.{n}.",
        "ln_1 attn.Wqkv[0] attn.Wqkv[1] attn.Wqkv[2] attn.out_proj ln_2 mlp.fc1 mlp.fc2",
      ),
      "norm": "visual.ln_post",
    },
    flat_patches=True,
    resized=frozenset({"time"}),
    heads=True,
    projection="visual.image_projection",
    skipped={**_TEXT, r"logit_scale": "the temperature"},
  ),
  # The fewest marks of its own: the last to be asked.
  "vjepa2_meta": Format(
    title="V-JEPA 2 of its authors",
    backbones=("vjepa2",),
    sign=r"(backbone\.)?blocks\.0\.attn\.qkv\.weight",
    wrapper=r"backbone\.",
    arrays=_VJEPA_META,
    skipped={r"pos_embed": "a table of positions, which are rotations"},
    refused={r"cls_token": "ViT with a class token"},
  ),
}


@dataclasses.dataclass(frozen=True)
class Place:
  """Where one of our arrays lies in a file.

  Attributes:
    name: name of the array; "{n}" in it is the number of a block.
    third: which third of its first axis; None for all of it.
    added: name of an array that is added to it, or "".
    layout: how it is laid out: "patches", "linear" ([out, in]), "heads" and
      "joined_heads" (Flax's kernels with an axis for heads, before and after
      attention), or "plain".
  """

  name: str
  third: int | None
  added: str
  layout: str


def detect(names: Iterable[str]) -> str:
  """The format of a file with these names; "" where it is none of these."""
  names = list(names)
  for key, form in FORMATS.items():
    if any(re.fullmatch(form.sign, name) for name in names):
      return key
  return ""


def find(form: Format, ours: str) -> Place | None:
  """Where an array of an encoder lies.

  Args:
    form: format of the file.
    ours: flat name, such as "blocks/block/norm1/scale".

  Returns:
    The place; None where the format has none.
  """
  module, _, leaf = ours.rpartition("/")
  text = form.arrays.get(ours)
  if text is None:
    text = form.arrays.get(module)
    if text is None:
      return None
    if "{leaf}" not in text and "{short}" not in text:
      text = re.sub(r"(\[\d\])?$", r".{leaf}\1", text, count=1)
    text = text.replace("{leaf}", form.leaves[leaf])
    text = text.replace("{short}", {"kernel": "w", "bias": "b"}.get(leaf, leaf))
  text, _, added = text.partition(" + ")
  third = re.search(r"\[(\d)\]$", text)
  return Place(
    re.sub(r"\[\d\]$", "", text), int(third[1]) if third else None, added, _layout(form, ours)
  )


def _layout(form: Format, ours: str) -> str:
  module, _, leaf = ours.rpartition("/")
  part = module.rpartition("/")[2]
  if not form.flax:
    if leaf != "kernel":
      return "plain"
    return "patches" if module == "patches" else "linear"
  if part in ("query", "key", "value"):
    return "heads"
  return "joined_heads" if part == "out" and leaf == "kernel" else "plain"
