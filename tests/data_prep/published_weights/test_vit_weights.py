"""Published vision transformers come in with the numbers of their own networks.

The networks are tiny, with a random value in every parameter; what is published
could not be downloaded where this was written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from data_prep import convert_weights
from data_prep.published_weights import choices
from data_prep.published_weights import convert
from data_prep.published_weights import files
from data_prep.published_weights import transformers_export
from data_prep.published_weights import vit_names
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.evaluation import towers
from sum_l_jax.models import backbones
from sum_l_jax.models import vit_spec
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.train.state import Network
from tests.support import clip_networks
from tests.support import transformers_networks

FAMILIES = transformers_networks.FAMILIES
# Of differences, relative to the standard deviation.
TOLERANCE, GRADIENT = 1e-5, 1e-4
CLIP_ROW = dict(width=24, depth=2, mlp=48, heads=2, image=8, frames=4)
ROWS = {
  **{name: (family.row, family.normalization) for name, family in FAMILIES.items()},
  "avion_tiny": (transformers_networks.shrunk("avion_b", patch=(1, 4, 4), **CLIP_ROW), "lavila"),
  "lavila_tiny": (transformers_networks.shrunk("lavila_b", patch=(1, 4, 4), **CLIP_ROW), "lavila"),
  "vjepa21_tiny": (
    transformers_networks.shrunk(
      "vjepa21_b", width=24, depth=4, mlp=48, heads=2, image=32, frames=4
    ),
    "imagenet",
  ),
}


@pytest.fixture(scope="module", autouse=True)
def rows_fixture():
  """The tiny rows, among the backbones while this module runs."""
  with pytest.MonkeyPatch.context() as patch:
    for name, (row, normalization) in ROWS.items():
      entry = backbones.from_vit(row, stride=4, normalization=normalization)
      patch.setitem(backbones.BACKBONES, name, entry)
    yield


@pytest.fixture(scope="module", name="network")
def network_fixture():
  """Each tiny network of transformers, made once."""
  made = {}

  def get(name):
    if name not in made:
      made[name] = FAMILIES[name].build()
    return made[name]

  return get


def draw_video(row, *, frames=0, side=0):
  shape = (2, frames or row.frames, side or row.image, side or row.image, 3)
  return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def as_torch(video):
  """`[B, T, H, W, C]` -> `[B, T, C, H, W]`, in double precision."""
  return torch.from_numpy(video.transpose(0, 1, 4, 2, 3)).double()


class Bare(nnx.Module):
  """An encoder whose pixels are given as they are."""

  def __init__(self, backbone):
    make = backbones.BACKBONES[backbone].make
    self.encoder = make(EncoderOptions(attention="plain"), np.random.default_rng(0))

  def __call__(self, video, *, train, key):
    encoding = self.encoder(video, train=train, prepare=lambda x: x, key=key)
    return encoding.tokens, encoding.feature


def encode(backbone, tree, video):
  """Tokens and feature of an encoder with these arrays."""
  network = Network(lambda: Bare(backbone))
  run = jax.jit(lambda tree, video: network.apply({"encoder": tree}, {}, video, train=False)[0])
  return run(tree, video)


def close(got, wanted, tolerance=TOLERANCE):
  wanted = wanted.detach().numpy() if hasattr(wanted, "detach") else np.asarray(wanted)
  got = np.asarray(got, np.float64)
  assert got.shape == wanted.shape
  assert np.abs(got - wanted).max() <= tolerance * wanted.std()


def convert_file(path, **options):
  return convert.convert(files.read(path), convert.Options(**options))


def save_network(network, folder, **options):
  """A folder as transformers writes it."""
  network.float().save_pretrained(folder, **options)
  return folder


# --- The numbers of transformers.


# The video-text network has all parts of VideoPrism's encoder, whose tokens and
# feature are compared below.
@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"videoprism_tiny"}))
def test_tokens_feature_and_gradients(name, network, tmp_path):
  family, theirs = FAMILIES[name], network(name)
  weights, report = convert_file(save_network(theirs, tmp_path / "theirs"))
  assert report.backbone == weights.card["backbone"] == name
  tree = weights.params["ego"]["encoder"]
  video = draw_video(family.row)
  theirs.double()
  theirs.zero_grad()
  tokens, feature = family.run(theirs, as_torch(video))
  # Sums with random factors, so that every gradient is of some size.
  rng = np.random.default_rng(2)
  factors = [rng.standard_normal(x.shape) for x in (tokens, feature)]
  sum((torch.from_numpy(f) * x).sum() for f, x in zip(factors, (tokens, feature))).backward()
  gradients = {
    key: torch.zeros_like(value) if value.grad is None else value.grad
    for key, value in theirs.named_parameters()
  }
  # transformers' own renaming, from modules to files.
  held = {key: value.detach().clone() for key, value in theirs.named_parameters()}
  with torch.no_grad():
    for key, value in theirs.named_parameters():
      value.copy_(gradients[key])
  wanted, _ = convert_file(save_network(theirs, tmp_path / "gradients"))
  theirs.double()
  with torch.no_grad():
    for key, value in theirs.named_parameters():
      value.copy_(held[key])
  theirs.float()

  # What tells frames apart is ours alone, and its gradient has nothing to be compared with.
  times = tree.get("time") if family.row.attention == "frame" else None
  network_of_ours = Network(lambda: Bare(name))

  def loss(tree):
    ours, pooled = network_of_ours.apply({"encoder": tree}, {}, video, train=False)[0]
    if times is not None:
      ours = ours - jnp.repeat(times, ours.shape[1] // len(times), axis=0)
    return (ours * factors[0]).sum() + (pooled * factors[1]).sum(), (ours, pooled)

  (_, (ours, pooled)), found = jax.jit(jax.value_and_grad(loss, has_aux=True))(tree)
  close(ours, tokens)
  close(pooled, feature)
  found = weight_files.flatten(found)
  expected = weight_files.flatten(wanted.params["ego"]["encoder"])
  assert found.keys() == expected.keys()
  unseen = not family.row.logit_cap and not family.row.positions.startswith("rotary")
  for key in found.keys() - ({"time"} if times is not None else set()):
    # Softmax doesn't see the bias of keys, unless they are turned or logits capped.
    if key.endswith("key/bias") and (unseen or key.startswith("pool")):
      rounding = 1e-4 * np.abs(found[key.replace("key", "value")]).max()
      assert np.abs(found[key]).max() <= rounding and np.abs(expected[key]).max() <= rounding
    else:
      close(found[key], expected[key], GRADIENT)


@pytest.mark.parametrize(
  "name, frames, side",
  [
    ("videoprism_tiny", 4, 36),
    ("videoprism_tiny", 6, 54),
    ("videoprism_tiny", 3, 18),
    ("dinov2_tiny", 4, 42),
  ],
)
def test_positions_of_other_sizes(name, frames, side, network, tmp_path):
  family, theirs = FAMILIES[name], network(name)
  weights, _ = convert_file(save_network(theirs, tmp_path / "theirs"))
  video = draw_video(family.row, frames=frames, side=side)
  with torch.no_grad():
    tokens, feature = family.run(theirs.double(), as_torch(video), resized=True)
  tree = weights.params["ego"]["encoder"]
  if name.startswith("dinov2"):
    tree = {**tree, "time": np.zeros_like(tree["time"])}
  ours, pooled = encode(name, tree, video)
  close(ours, tokens)
  close(pooled, feature)


@pytest.mark.parametrize("name", ["videomae_tiny", "vjepa2_tiny"])
def test_class_scores(name, network, tmp_path):
  """From bytes, normalised as the card says, in the network that predicts; V-JEPA's by a probe."""
  theirs = network(name)
  converted, _ = convert_file(save_network(theirs, tmp_path / "theirs"))
  weight_files.write_weights(tmp_path / "ours.npz", converted)
  weights = weight_files.read_weights(tmp_path / "ours.npz")
  video = np.random.default_rng(4).integers(0, 256, (2, 4, 32, 32, 3), np.uint8)
  mean, std = (np.array(x) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
  with torch.no_grad():
    logits = theirs.double()(as_torch((video / 255 - mean) / std)).logits
  model = Network(lambda: towers.class_model(weights.card, "ego"))
  params, stats = towers.arrays(weights, "ego", model)
  out, _ = model.apply(params, stats, {"ego": {"video": video}}, train=False)
  close(out["ego"]["logits"]["action"], logits)
  assert weights.card["tasks"]["ego"] == {"action": [f"class {i}" for i in range(7)]}


# --- There and back.


@pytest.mark.parametrize("name", FAMILIES)
def test_round_trip_to_the_bit(name, network, tmp_path, capsys):
  theirs = network(name)
  source = save_network(theirs, tmp_path / "theirs")
  assert convert_weights.main([f"--input={source}", f"--output={tmp_path / 'ours'}"]) == 0
  export = ["--export=safetensors", f"--input={tmp_path / 'ours'}"]
  assert convert_weights.main([*export, f"--output={tmp_path / 'back'}"]) == 0
  capsys.readouterr()
  back = safetensors.torch.load_file(tmp_path / "back" / "model.safetensors")
  file = files.read(source)
  form = vit_names.FORMATS[vit_names.detect(file.tensors)]
  before = {form.canonical(key): value for key, value in file.tensors.items()}
  after = {form.canonical(key): value.numpy() for key, value in back.items()}
  assert not after.keys() - before.keys()
  for key, value in after.items():
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, before[key], err_msg=key)
  # And in again.
  first = weight_files.read_weights(tmp_path / "ours")
  again, _ = convert_file(tmp_path / "back")
  one, two = (weight_files.flatten(weights.params["ego"]["encoder"]) for weights in (first, again))
  assert one.keys() == two.keys()
  assert all(np.array_equal(one[key], two[key]) for key in one)
  # transformers loads it whole, and it is the same network.
  config = json.loads((tmp_path / "back" / "config.json").read_text())
  load = getattr(transformers, config["architectures"][0]).from_pretrained
  loaded, info = load(
    tmp_path / "back", output_loading_info=True, attn_implementation="eager", **_NO_L2.get(name, {})
  )
  assert not info["unexpected_keys"]
  assert all(key.startswith("predictor.") for key in info["missing_keys"])
  own = dict(loaded.named_parameters())
  video = torch.from_numpy(draw_video(FAMILIES[name].row).transpose(0, 1, 4, 2, 3))
  assert own
  with torch.no_grad():
    tokens, _ = FAMILIES[name].run(theirs.float(), video)
    torch.testing.assert_close(_loaded_tokens(name, loaded.eval(), video), tokens)


_NO_L2 = {"videoprism_lvt_tiny": {"apply_l2norm": False}}


def _loaded_tokens(name, loaded, video):
  """Tokens of the class that is exported, which may be a part of what was built."""
  if name == "vjepa2_tiny":
    return loaded(video, skip_predictor=True).last_hidden_state
  if name == "videomae_tiny":
    return loaded.videomae(video).last_hidden_state
  if name == "siglip2_tiny":
    out = loaded(video.flatten(0, 1)).last_hidden_state
    return out.unflatten(0, (len(video), -1)).flatten(1, 2)
  if name == "videoprism_lvt_tiny":
    return loaded(video).last_hidden_state
  return FAMILIES[name].run(loaded, video)[0]


def test_what_transformers_has_no_place_for(network, tmp_path):
  """A trained table of frames is kept under our name; a class head stays behind."""
  weights, _ = convert_file(save_network(network("dinov2_tiny"), tmp_path / "theirs"))
  ego = weights.params["ego"]
  ego["encoder"]["time"] = ego["encoder"]["time"] + np.float32(0.5)
  ego["heads"] = {"verb": {"kernel": np.ones((48, 3)), "bias": np.ones(3)}}
  exported = transformers_export.export(weights, ["ego"])
  assert "left behind  ego/heads/verb, for which it has no place" in exported.notes
  assert "kept         time, which transformers does not know" in exported.notes
  path = tmp_path / "back.safetensors"
  files.write_safetensors(path, exported.tensors, exported.card)
  again, _ = convert_file(path)
  np.testing.assert_array_equal(again.params["ego"]["encoder"]["time"], ego["encoder"]["time"])


def test_one_class_head_goes_out_and_comes_in(network, tmp_path):
  weights, _ = convert_file(save_network(network("videomae_tiny"), tmp_path / "theirs"))
  weights.card["tasks"]["ego"] = {"verb": list("abcdefg")}
  weights.card["kinds"]["ego"] = {"verb": types.MULTI_LABEL}
  ego = weights.params["ego"]
  ego["heads"] = {"verb": ego["heads"]["action"]}
  exported = transformers_export.export(weights, ["ego"])
  files.write_safetensors(tmp_path / "back", exported.tensors, exported.card, exported.config)
  assert json.loads(exported.config)["id2label"]["6"] == "g"
  again, _ = convert_file(tmp_path / "back")
  assert again.card["tasks"] == {"ego": {"verb": list("abcdefg")}}
  assert again.card["kinds"] == {"ego": {"verb": types.MULTI_LABEL}}
  np.testing.assert_array_equal(
    again.params["ego"]["heads"]["verb"]["kernel"], ego["heads"]["verb"]["kernel"]
  )


def test_heads_that_read_a_probe_stay_behind(network, tmp_path):
  """transformers gives probes other heads, and a classifier of VideoMAE reads the feature."""
  weights, _ = convert_file(save_network(network("vjepa2_tiny"), tmp_path / "theirs"))
  assert weights.card["network"]["head"] == "attentive"
  for backbone in ("vjepa2_tiny", "videomae_tiny"):
    tower = dict(weights.params["ego"])
    if backbone == "videomae_tiny":
      source, _ = convert_file(save_network(network(backbone), tmp_path / backbone))
      tower["encoder"] = source.params["ego"]["encoder"]
    card = {**weights.card, "backbone": backbone}
    changed = dataclasses.replace(weights, params={"ego": tower}, card=card)
    exported = transformers_export.export(changed, ["ego"])
    assert not any("classifier" in name or "pooler" in name for name in exported.tensors)
    left = [line for line in exported.notes if line.startswith("left behind")]
    assert [line.split()[2] for line in left] == ["ego/probe,", "ego/heads/action,"]


def test_a_probe_goes_with_its_classifier(network, tmp_path):
  folder = save_network(network("vjepa2_tiny"), tmp_path / "theirs")
  classes = {"ego": {"action": ["cut", "put"]}}
  weights, report = convert_file(folder, head="reinit", classes=classes)
  assert weights.params["ego"].keys() == {"encoder"}
  assert "head" not in weights.card["network"]
  assert len(report.skipped["of a probe whose classifier is left behind"]) == 31
  weights, report = convert_file(folder, skip=[r"(pooler|classifier)\..*"])
  assert weights.params["ego"].keys() == {"encoder"}
  assert len(report.skipped["as --skip says"]) == 33
  with pytest.raises(ValueError, match="missing in the file: pooler.cross_attention_layer.mlp.fc1"):
    convert_file(folder, skip=[r"pooler\.cross_attention_layer\.mlp\.fc1\..*"])


def test_several_files_and_their_index(network, tmp_path):
  theirs = network("vjepa2_tiny")
  whole, _ = convert_file(save_network(theirs, tmp_path / "whole"))
  folder = save_network(theirs, tmp_path / "sharded", max_shard_size="40KB")
  assert len(list(folder.glob("*.safetensors"))) > 2
  for path in (folder, folder / "model.safetensors.index.json"):
    parts, _ = convert_file(path)
    one, two = weight_files.flatten(whole.params), weight_files.flatten(parts.params)
    assert all(np.array_equal(one[key], two[key]) for key in one) and one.keys() == two.keys()


@pytest.mark.parametrize(
  "name, has", [("videoprism_lvt_tiny", True), ("siglip2_tiny", True), ("videoprism_tiny", False)]
)
def test_features_in_the_space_of_texts_are_projected_as_they_are(network, tmp_path, name, has):
  weights, report = convert_file(save_network(network(name), tmp_path / "theirs"))
  ego, width = weights.params["ego"], ROWS[name][0].width
  assert ("projection" in ego) == has == (weights.card["embedding_dim"] == width)
  if has:
    np.testing.assert_array_equal(ego["projection"]["kernel"], np.eye(width))
    assert not ego["projection"]["bias"].any() and report.new["projection"] == "the identity"


# --- The authors' own files.


def test_videoprism_of_its_authors(network, tmp_path):
  """Flax's layouts, restated: kernels with an axis for heads, layers in one array."""
  for name in ("videoprism_tiny", "videoprism_lvt_tiny"):
    theirs = network(name)
    wanted, _ = convert_file(save_network(theirs, tmp_path / name))
    state = {key: value.numpy() for key, value in theirs.float().state_dict().items()}
    flax = flax_arrays(state, heads=4, lvt="lvt" in name)
    np.savez(tmp_path / f"{name}.npz", **flax)
    found, report = convert_file(tmp_path / f"{name}.npz")
    assert report.backbone == name
    assert found.card["versions"]["container"] == "npz"
    one, two = weight_files.flatten(wanted.params), weight_files.flatten(found.params)
    assert one.keys() == two.keys()
    for key, value in one.items():
      np.testing.assert_array_equal(two[key], value, err_msg=key)
  assert {"the text tower"} == report.skipped.keys()


def flax_arrays(state, *, heads, lvt):
  """The arrays of transformers' VideoPrism as the authors' file has them."""
  out = {}
  inner, outer = ("video_model.vision_model.", "video_model.") if lvt else ("", "")
  root = "params/vision_encoder/" if lvt else "params/"

  def dense(name, weight):
    out[f"{name}/kernel"], out[f"{name}/bias"] = (
      state[f"{weight}.weight"].T,
      state[f"{weight}.bias"],
    )

  def norm(name, weight):
    out[f"{name}/scale"], out[f"{name}/bias"] = state[f"{weight}.weight"], state[f"{weight}.bias"]

  def attention(name, weight):
    for part, letter in (("query", "q"), ("key", "k"), ("value", "v")):
      kernel = state[f"{weight}.{letter}_proj.weight"]
      out[f"{name}/{part}/w"] = np.stack(np.split(kernel, heads)).transpose(2, 0, 1)
      out[f"{name}/{part}/b"] = state[f"{weight}.{letter}_proj.bias"].reshape(heads, -1)
    kernel = state[f"{weight}.o_proj.weight"]
    out[f"{name}/post/w"] = np.stack(np.split(kernel, heads, axis=1), axis=1)
    out[f"{name}/post/b"] = state[f"{weight}.o_proj.bias"]

  def stack(name, weight, count):
    rows = []
    for i in range(count):
      before = set(out)
      norm("layer_norm", f"{weight}.{i}.layernorm_before")
      attention("self_attention", f"{weight}.{i}.attention")
      norm("ff_layer/layer_norm", f"{weight}.{i}.layernorm_after")
      dense("ff_layer/ffn_layer1/linear", f"{weight}.{i}.mlp.fc1")
      dense("ff_layer/ffn_layer2/linear", f"{weight}.{i}.mlp.fc2")
      rows.append({key: out.pop(key) for key in set(out) - before})
    for key in rows[0]:
      start = f"{name}/transformers_stack/x_layers/"
      out[start + key] = np.stack([row[key] for row in rows])

  patches = state[f"{inner}spatial_embeddings.patch_embeddings.projection.weight"]
  width = len(patches)
  linear = f"{root}patch_projection/linear"
  out[f"{linear}/kernel"] = np.moveaxis(patches[:, :, 0], (2, 3, 1, 0), (0, 1, 2, 3)).reshape(
    -1, width
  )
  out[f"{linear}/bias"] = state[f"{inner}spatial_embeddings.patch_embeddings.projection.bias"]
  for part, number in (("spatial", 1), ("temporal", 2)):
    table = state[f"{inner}{part}_embeddings.position_embeddings"]
    out[f"{root}{part}_pos_emb/emb_var"] = table[0]
    stack(f"{root}{part}_encoder", f"{inner}{part}_layers", 2 if part == "spatial" else 1)
    norm(f"{root}{part}_ln", f"{inner}layernorm{number}")
  if lvt:
    stack("params/auxiliary_encoder", f"{outer}auxiliary_layers", 1)
    pooler = "params/contrastive_vision_pooler/pooling_attention"
    out[f"{pooler}_query"] = state[f"{outer}head.pooling_attention_query"][0]
    attention(pooler, f"{outer}head")
    out[f"{pooler}/per_dim_scale/per_dim_scale"] = state[f"{outer}head.per_dim_scale"]
    norm(f"{pooler}_layer_norm", f"{outer}head_layernorm")
    out["params/text_encoder/token_emb/emb_var"] = np.ones((9, 32), np.float32)
  return out


def fused(state, start, query, key, value):
  return np.concatenate([state[start + name] for name in (query, key, value)])


def meta_blocks(state):
  """The blocks of transformers' V-JEPA 2 under Meta's names."""
  out = {}
  for key, value in state.items():
    if not key.startswith("vjepa2.encoder.layer."):
      continue
    number, rest = key.removeprefix("vjepa2.encoder.layer.").split(".", 1)
    if rest.startswith("attention.proj") or not rest.startswith("attention"):
      out[f"blocks.{number}.{rest.replace('attention', 'attn')}"] = value
    elif "query" in rest:
      for leaf in ("weight", "bias"):
        names = [f"attention.{part}.{leaf}" for part in ("query", "key", "value")]
        start = f"vjepa2.encoder.layer.{number}."
        out[f"blocks.{number}.attn.qkv.{leaf}"] = fused(state, start, *names)
  return out


def meta_file(state, positions):
  """transformers' V-JEPA 2 under Meta's names, with a table that is of no use."""
  state = {key: value.numpy() for key, value in state.items()}
  return {
    **meta_blocks(state),
    "norm.weight": state["vjepa2.encoder.layernorm.weight"],
    "norm.bias": state["vjepa2.encoder.layernorm.bias"],
    "patch_embed.proj.weight": state["vjepa2.encoder.embeddings.patch_embeddings.proj.weight"],
    "patch_embed.proj.bias": state["vjepa2.encoder.embeddings.patch_embeddings.proj.bias"],
    "pos_embed": np.zeros((1, positions, 40), np.float32),
  }


def as_tensors(arrays, start=""):
  return {start + key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}


def test_vjepa2_of_its_authors(network, tmp_path):
  theirs = network("vjepa2_tiny")
  wanted, _ = convert_file(save_network(theirs, tmp_path / "theirs"))
  meta = meta_file(theirs.float().state_dict(), 8)
  other = {key: value + 1 for key, value in meta.items()}
  content = {
    "encoder": as_tensors(other, "module.backbone."),
    "target_encoder": as_tensors(meta, "module.backbone."),
    "predictor": {"module.backbone.norm.weight": torch.ones(2)},
    "epoch": 3,
    "opt": {"state": {}, "param_groups": [{"lr": 0.1}]},
  }
  torch.save(content, tmp_path / "vitl.pt")
  file = files.read(tmp_path / "vitl.pt")
  assert file.notes[0] == "weights      under 'target_encoder'"
  assert file.notes[1] == "left behind  weights under 'encoder', 'predictor'"
  found, report = convert.convert(file, convert.Options())
  one = weight_files.flatten(wanted.params["ego"]["encoder"])
  two = weight_files.flatten(found.params["ego"]["encoder"])
  assert one.keys() == two.keys()
  assert all(np.array_equal(one[key], two[key]) for key in one)
  assert report.skipped == {"a table of positions, which are rotations": ["pos_embed"]}
  # V-JEPA 1 has the same arrays, and a table that is added.
  content["target_encoder"]["module.backbone.pos_embed"] = torch.zeros(1, 9, 40)
  torch.save(content, tmp_path / "vitl.pt")
  with pytest.raises(ValueError, match="table of 9 positions, as V-JEPA 1 has"):
    convert_file(tmp_path / "vitl.pt")


def test_vjepa21_of_its_authors(tmp_path):
  rng = np.random.default_rng(7)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  arrays = {"patch_embed.proj.weight": draw(24, 3, 2, 16, 16), "patch_embed.proj.bias": draw(24)}
  arrays |= {"patch_embed_img.proj.weight": draw(24, 3, 1, 16, 16), "img_mod_embed": draw(1, 1, 24)}
  arrays |= {"patch_embed_img.proj.bias": draw(24), "video_mod_embed": draw(1, 1, 24)}
  for i in range(4):
    arrays |= {f"norms_block.{i}.weight": draw(24), f"norms_block.{i}.bias": draw(24)}
    for name, shape in (("attn.qkv", (72, 24)), ("attn.proj", (24, 24)), ("mlp.fc1", (48, 24))):
      arrays |= {
        f"blocks.{i}.{name}.weight": draw(*shape),
        f"blocks.{i}.{name}.bias": draw(shape[0]),
      }
    arrays |= {f"blocks.{i}.mlp.fc2.weight": draw(24, 48), f"blocks.{i}.mlp.fc2.bias": draw(24)}
    for name in ("norm1", "norm2"):
      arrays |= {f"blocks.{i}.{name}.weight": draw(24), f"blocks.{i}.{name}.bias": draw(24)}
  torch.save({"ema_encoder": as_tensors(arrays, "module.backbone.")}, tmp_path / "b.pt")
  weights, report = convert_file(tmp_path / "b.pt")
  tree = weights.params["ego"]["encoder"]
  assert report.backbone == "vjepa21_tiny"
  np.testing.assert_array_equal(
    tree["patches"]["bias"], arrays["patch_embed.proj.bias"] + arrays["video_mod_embed"][0, 0]
  )
  np.testing.assert_array_equal(tree["norm"]["scale"], arrays["norms_block.3.weight"])
  key = tree["blocks"]["block"]["attention"]["key"]
  np.testing.assert_array_equal(key["kernel"][2], arrays["blocks.2.attn.qkv.weight"][24:48].T)
  np.testing.assert_array_equal(key["bias"][3], arrays["blocks.3.attn.qkv.bias"][24:48])
  assert {reason: len(names) for reason, names in report.skipped.items()} == {
    "what single images take": 3,
    "norms after inner blocks": 6,
  }
  with pytest.raises(ValueError, match="'vjepa21_tiny' has no counterpart in transformers"):
    transformers_export.export(weights, ["ego"])


def test_videomae_of_its_authors(network, tmp_path):
  theirs = network("videomae_tiny")
  wanted, _ = convert_file(save_network(theirs, tmp_path / "theirs"))
  state = {key: value.numpy() for key, value in theirs.float().state_dict().items()}
  tuned = {
    "patch_embed.proj.weight": state["videomae.embeddings.patch_embeddings.projection.weight"],
    "patch_embed.proj.bias": state["videomae.embeddings.patch_embeddings.projection.bias"],
  }
  spelled = {"layernorm_before": "norm1", "layernorm_after": "norm2", "output.dense": "mlp.fc2"}
  spelled |= {"intermediate.dense": "mlp.fc1", "attention.output.dense": "attn.proj"}
  for i in range(2):
    start, block = f"videomae.encoder.layer.{i}.", f"blocks.{i}."
    for old, new in spelled.items():
      for leaf in ("weight", "bias"):
        tuned[f"{block}{new}.{leaf}"] = state[f"{start}{old}.{leaf}"]
    parts = [f"attention.attention.{part}.weight" for part in ("query", "key", "value")]
    tuned[f"{block}attn.qkv.weight"] = fused(state, start, *parts)
    tuned[f"{block}attn.q_bias"] = state[f"{start}attention.attention.query.bias"]
    tuned[f"{block}attn.v_bias"] = state[f"{start}attention.attention.value.bias"]
  pretrained = {f"encoder.{key}": value for key, value in tuned.items()}
  for part in ("weight", "bias"):
    tuned[f"fc_norm.{part}"], tuned[f"head.{part}"] = (
      state[f"{name}.{part}"] for name in ("fc_norm", "classifier")
    )
    pretrained[f"encoder.norm.{part}"] = np.full(48, 9.0, np.float32)
  pretrained |= {"mask_token": np.ones((1, 1, 8)), "decoder.head.weight": np.ones((3, 8))}
  torch.save({"module": as_tensors(tuned)}, tmp_path / "tuned.pth")
  torch.save({"model": as_tensors(pretrained), "args": argparse.Namespace()}, tmp_path / "pre.pth")

  found, _ = convert_file(tmp_path / "tuned.pth")
  one, two = weight_files.flatten(wanted.params), weight_files.flatten(found.params)
  assert one.keys() == two.keys()
  assert all(np.array_equal(one[key], two[key]) for key in one)

  found, report = convert_file(tmp_path / "pre.pth")
  tree = found.params["ego"]["encoder"]
  # The feature's norm starts afresh, as it does when its authors tune it.
  np.testing.assert_array_equal(tree["norm"]["scale"], np.ones(48))
  np.testing.assert_array_equal(tree["norm"]["bias"], np.zeros(48))
  assert report.new == {"encoder/norm/scale": "ones", "encoder/norm/bias": "zeros"}
  assert len(report.skipped["the norm of tokens, which the feature does without"]) == 2
  one, two = (
    weight_files.flatten(tree["blocks"]),
    weight_files.flatten(wanted.params["ego"]["encoder"]["blocks"]),
  )
  assert all(np.array_equal(one[key], two[key]) for key in one)


def clip_file(path, model, **more):
  """A file as LaViLa's and AVION's scripts write it, with a Namespace inside."""
  state = {f"module.{key}": value for key, value in model.float().state_dict().items()}
  args = argparse.Namespace(model="CLIP", context_length=77, lr=1e-4)
  torch.save({"epoch": 4, "state_dict": state, "args": args, "best_acc1": 0.5, **more}, path)
  return path


SIZES = (24, 2, 48, 2, 4, 8, 4)  # Width, depth, MLP, heads, patch, image, frames.


@pytest.mark.parametrize("flash", [True, False])
def test_avion(tmp_path, flash):
  tower = clip_networks.AvionTower(*SIZES, 6)
  theirs = clip_networks.randomise(clip_networks.Clip(tower), 3)
  path = clip_file(tmp_path / "avion.pt", theirs)
  if not flash:  # nn.MultiheadAttention's names, and a linear layer for patches.
    content = torch.load(path, weights_only=False)
    renamed = {}
    for key, value in content["state_dict"].items():
      for old, new in (("Wqkv.", "in_proj_"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
        key = key.replace(old, new)
      renamed[key] = value.flatten(1) if key.endswith("conv1.weight") else value
    torch.save({**content, "state_dict": renamed}, path)
  file = files.read(path)
  assert "left behind  objects of argparse.Namespace, unopened" in file.notes
  weights, report = convert.convert(file, convert.Options())
  assert report.backbone == "avion_tiny"
  assert weights.card["pixels"]["ego"]["mean"] == types.NORMALIZATIONS["lavila"][0]
  video = draw_video(ROWS["avion_tiny"][0])
  with torch.no_grad():
    tokens, embedding = tower.double()(as_torch(video))
  ego = weights.params["ego"]
  ours, feature = encode("avion_tiny", ego["encoder"], video)
  close(ours, tokens[:, 1:])
  close(feature, tokens[:, 0])
  close(feature @ ego["projection"]["kernel"] + ego["projection"]["bias"], embedding)
  assert weights.card["embedding_dim"] == 6
  assert not weights.card["network"]["projection_prenorm"]


def test_lavila_with_fewer_frames_than_ours(tmp_path):
  """Positions in time are interpolated, as its authors do before they tune it."""
  tower = clip_networks.LavilaTower(*SIZES[:-1], 2)
  theirs = clip_networks.randomise(clip_networks.Clip(tower, embedding=5), 4)
  weights, report = convert_file(clip_file(tmp_path / "lavila.pt", theirs))
  assert report.resized == ["visual.temporal_embed from 2 to 4 frames"]
  table = theirs.visual.temporal_embed.detach()
  more = torch.nn.functional.interpolate(table.mT, 4, mode="linear").mT
  np.testing.assert_allclose(weights.params["ego"]["encoder"]["time"], more[0], atol=1e-6)
  tower.temporal_embed = torch.nn.Parameter(more)
  video = draw_video(ROWS["lavila_tiny"][0])
  with torch.no_grad():
    tokens = tower.double()(as_torch(video))
  ours, feature = encode("lavila_tiny", weights.params["ego"]["encoder"], video)
  close(ours, tokens[:, 1:])
  close(feature, tokens[:, 0])
  np.testing.assert_array_equal(
    weights.params["ego"]["projection"]["kernel"], theirs.image_projection.detach().float()
  )
  assert sum(len(names) for names in report.skipped.values()) == 6


def test_lavila_with_three_heads(tmp_path):
  tower = clip_networks.LavilaTower(*SIZES)
  theirs = clip_networks.randomise(clip_networks.Clip(tower), 4)
  theirs.fc_cls = torch.nn.ModuleList(torch.nn.Linear(24, count) for count in (97, 300, 3806))
  theirs.textual = torch.nn.Module()
  weights, _ = convert_file(clip_file(tmp_path / "lavila.pt", theirs), view="both")
  for view in types.VIEWS:
    heads = weights.params[view]["heads"]
    sizes = {task: len(head["bias"]) for task, head in heads.items()}
    assert sizes == {"verb": 97, "noun": 300, "action": 3806}


# --- A run starts from them.


def test_what_is_printed_and_the_card(network, tmp_path, capsys):
  source = save_network(network("vjepa2_tiny"), tmp_path / "theirs")
  assert convert_weights.main([f"--input={source}", f"--output={tmp_path / 'ours'}"]) == 0
  out = capsys.readouterr().out
  for line in (
    "backbone     vjepa2_tiny",
    "format       V-JEPA 2 of transformers",
    "loaded       ego/encoder: 20 arrays",
    "loaded       ego/heads/action: 2 arrays",
    "loaded       ego/probe: 31 arrays",
    "needs        ego: RGB, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, 4 frames at stride 4",
  ):
    assert line in out, out
  weights = weight_files.read_weights(tmp_path / "ours")
  assert weights.card["frames"] == {"count": 4, "stride": 4, "crop_size": 32, "fps": 30.0}
  model = Network(
    lambda: models.make_model(
      backbone="vjepa2_tiny", tasks={"ego": {"verb": 3}, "exo": {}}, embedding_dim=4
    )
  )
  params, stats = jax.device_get(model.init())
  for view, tasks in (("ego", {"verb": tuple("abc")}), ("exo", {})):
    params, stats = weight_files.graft(params, stats, weights, view=view, tasks=tasks)
    one = weight_files.flatten(params[view]["encoder"])
    two = weight_files.flatten(weights.params["ego"]["encoder"])
    assert all(np.array_equal(one[key], two[key]) for key in two) and one.keys() == two.keys()


def test_networks_with_the_same_arrays(network, tmp_path, monkeypatch):
  """As V-JEPA 2 g at 256 and at 384: a config decides, or a table that was left over."""
  larger = dataclasses.replace(ROWS["vjepa2_tiny"][0], image=64)
  entry = backbones.from_vit(larger, stride=4, normalization="imagenet")
  monkeypatch.setitem(backbones.BACKBONES, "vjepa2_tiny_64", entry)
  folder = save_network(network("vjepa2_tiny"), tmp_path / "theirs")
  config = json.loads((folder / "config.json").read_text())
  for size, name in ((32, "vjepa2_tiny"), (64, "vjepa2_tiny_64"), (48, "vjepa2_tiny")):
    (folder / "config.json").write_text(json.dumps({**config, "crop_size": size}))
    weights, report = convert_file(folder)
    assert weights.card["backbone"] == name
    assert weights.card["frames"]["crop_size"] == backbones.BACKBONES[name].crop_size
    other = "vjepa2_tiny" if name.endswith("64") else "vjepa2_tiny_64"
    assert f"note         the same arrays fit {other}: choose with --backbone" in report.lines()
  for rows, name in ((8, "vjepa2_tiny"), (32, "vjepa2_tiny_64")):
    state = meta_file(network("vjepa2_tiny").float().state_dict(), rows)
    torch.save({"encoder": as_tensors(state)}, tmp_path / "vitg.pt")
    assert convert_file(tmp_path / "vitg.pt")[1].backbone == name
  weights, report = convert_file(tmp_path / "vitg.pt", backbone="vjepa2_tiny")
  assert weights.card["backbone"] == report.backbone == "vjepa2_tiny"


def test_what_a_config_says(network, tmp_path):
  """Names of classes, and the frames of a network that has no table of them."""
  folder = save_network(network("videomae_tiny"), tmp_path / "videomae")
  config = json.loads((folder / "config.json").read_text())
  config["id2label"] = {str(i): f"label {i}" for i in range(7)}
  (folder / "config.json").write_text(json.dumps(config))
  weights, _ = convert_file(folder)
  assert weights.card["tasks"] == {"ego": {"action": [f"label {i}" for i in range(7)]}}
  (folder / "config.json").write_text(json.dumps({**config, "id2label": [1]}))
  with pytest.raises(ValueError, match="config.json beside .* is damaged: .*id2label"):
    convert_file(folder)
  folder = save_network(network("vjepa2_tiny"), tmp_path / "vjepa2")
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps({**config, "frames_per_clip": 16}))
  assert convert_file(folder)[0].card["frames"]["count"] == 16
  assert convert_file(folder / "model.safetensors")[0].card["frames"]["count"] == 4


def test_what_can_not_be_written_for_transformers(network, tmp_path):
  weights, _ = convert_file(save_network(network("vjepa2_tiny"), tmp_path / "theirs"), view="both")
  with pytest.raises(
    ValueError, match=r"encoders of \['ego', 'exo'\], and .* choose it with --view"
  ):
    transformers_export.export(weights, ["ego", "exo"])
  name = ("blocks", "block", "attention", "query")
  node = weights.params["exo"]["encoder"]
  for part in name:
    node = node[part]
  node["lora_a"] = np.ones((2, 40, 1), np.float32)
  with pytest.raises(ValueError, match="has low-rank updates"):
    transformers_export.export(weights, ["exo"])
  convolutional = dataclasses.replace(weights, card={**weights.card, "backbone": "slow_r50"})
  with pytest.raises(ValueError, match="'slow_r50', which is no vision transformer: --export=pyth"):
    transformers_export.export(convolutional, ["ego"])
  with pytest.raises(ValueError, match="has no PyTorch counterpart"):
    convert.export(weights, ["ego"])


def test_published_rows_are_choices():
  assert set(choices.TRANSFORMERS) == vit_spec.SPECS.keys() - {"vit_tiny"}
  for name in choices.TRANSFORMERS:
    forms = [
      form
      for form in vit_names.FORMATS.values()
      if name.startswith(tuple(f"{start}_" for start in form.backbones))
    ]
    shapes = convert.encoder_shapes(name)
    # Each array of each published size has a place in a format of its family.
    assert any(
      all(vit_names.find(form, ours) or ours in form.start for ours in shapes) for form in forms
    ), name
    parameters = sum(math.prod(shape) for shape in shapes.values())
    assert parameters > 2e7


# --- Files that are not what they should be.


def test_other_sizes_are_refused_with_the_choices(network, tmp_path):
  config = transformers.VJEPA2Config(
    crop_size=32,
    frames_per_clip=4,
    hidden_size=36,
    num_attention_heads=2,
    num_hidden_layers=3,
    pred_hidden_size=24,
    pred_num_attention_heads=2,
    pred_num_hidden_layers=1,
  )
  folder = save_network(transformers.VJEPA2Model(config), tmp_path / "other")
  with pytest.raises(ValueError) as error:
    convert_file(folder)
  text = str(error.value)
  assert "V-JEPA 2 of transformers with 3 blocks of 36 channels, and no backbone" in text
  assert "none of them has as many blocks and channels" in text
  assert "vjepa2_g_384 (40 blocks of 1408, 64 frames of 384 pixels in patches of 16)" in text
  # More positions than the row has.
  dinov2 = transformers.Dinov2Config(
    image_size=42, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2
  )
  folder = save_network(transformers.Dinov2Model(dinov2), tmp_path / "large")
  with pytest.raises(ValueError) as error:
    convert_file(folder)
  text = str(error.value)
  assert (
    "it does not fit dinov2_tiny (embeddings.position_embeddings (1, 10, 48), wanted (5, 48))"
    in text
  )
  assert "dinov2_b (12 blocks of 768" in text
  with pytest.raises(
    ValueError, match="does not fit 'dinov2_tiny'.* 1 of another shape: embeddings.pos"
  ):
    convert_file(folder, backbone="dinov2_tiny")


def edited(network, path, edit):
  state = dict(network.float().state_dict())
  edit(state)
  safetensors.torch.save_file(state, path)
  return path


def test_damaged_and_foreign_files(network, tmp_path):
  theirs = network("vjepa2_tiny")
  key = "vjepa2.encoder.layer.1.mlp.fc1.weight"
  path = tmp_path / "model.safetensors"

  edited(theirs, path, lambda state: state.pop(key))
  with pytest.raises(
    ValueError, match=r"does not fit vjepa2_tiny \(without encoder.layer.1.mlp.fc1"
  ):
    convert_file(path)
  with pytest.raises(ValueError, match="1 missing in the file: encoder.layer.1.mlp.fc1.weight"):
    convert_file(path, backbone="vjepa2_tiny")

  edited(theirs, path, lambda state: state.update(extra=torch.ones(2)))
  with pytest.raises(ValueError, match="1 in the file without a place: extra"):
    convert_file(path)
  convert_file(path, skip=["extra"])

  with pytest.raises(ValueError, match="'dinov2_tiny'.* missing in the file"):
    convert_file(path, backbone="dinov2_tiny", skip=["extra"])
  with pytest.raises(ValueError, match="a vision transformer, V-JEPA 2 of transformers, and 'slow"):
    convert_file(path, backbone="slow_r50")
  with pytest.raises(ValueError, match="no vision transformer, which 'vjepa2_l' is"):
    torch.save({"s1.pathway0_stem.conv.weight": torch.ones(1)}, tmp_path / "slow.pyth")
    convert_file(tmp_path / "slow.pyth", backbone="vjepa2_l")

  whole = path.read_bytes()
  for cut in (4, 200, len(whole) // 2):
    path.write_bytes(whole[:cut])
    with pytest.raises(ValueError, match="can't be read as weights"):
      files.read(path)

  edited(
    network("dinov2_tiny"), path, lambda s: s.update({"embeddings.register_tokens": torch.ones(1)})
  )
  with pytest.raises(ValueError, match="none of ours, DINOv2 with registers"):
    convert_file(path)


def test_hostile_indexes(network, tmp_path):
  folder = save_network(network("vjepa2_tiny"), tmp_path / "sharded", max_shard_size="40KB")
  index = folder / "model.safetensors.index.json"
  content = json.loads(index.read_text())
  first = next(iter(content["weight_map"]))
  secret = tmp_path / "secret.safetensors"
  safetensors.torch.save_file({first: torch.ones(1)}, secret)

  def refused(change, message, error=ValueError):
    changed = {**content, "weight_map": dict(content["weight_map"])}
    change(changed)
    index.write_text(json.dumps(changed))
    with pytest.raises(error, match=message):
      files.read(folder)

  refused(
    lambda c: c["weight_map"].update({first: "../secret.safetensors"}), "which is not beside it"
  )
  refused(lambda c: c["weight_map"].update({first: str(secret)}), "which is not beside it")
  refused(
    lambda c: c["weight_map"].update({first: "model-9.safetensors"}),
    "names the file 'model-9.safetensors', which is not beside it",
    FileNotFoundError,
  )
  refused(lambda c: c["weight_map"].update(more=content["weight_map"][first]), "names: more")
  refused(lambda c: c["weight_map"].update({first: 3}), "index.json' is damaged")
  refused(lambda c: c["weight_map"].update({first: "config.json"}), "no .safetensors file")
  index.write_text(json.dumps(content)[:-9])
  with pytest.raises(ValueError, match="index.json' is damaged"):
    files.read(folder)
  index.unlink()
  with pytest.raises(FileNotFoundError, match="must hold either model.safetensors or"):
    files.read(folder)


def test_npz_files_are_read_without_pickle(tmp_path):
  path = tmp_path / "w.npz"
  np.savez(path, a=np.array([{}], dtype=object))
  with pytest.raises(ValueError, match="can't be read as weights"):
    files.read(path)
  np.savez(path, a=np.array(["text"]))
  with pytest.raises(ValueError, match="'a' is an array of <U4, no numbers"):
    files.read(path)
  # numpy writes bfloat16 as two bytes without a type.
  values = jnp.array([1.5, -3.0], jnp.bfloat16)
  np.savez(path, a=np.asarray(values).view("V2"))
  np.testing.assert_array_equal(files.read(path).tensors["a"], [1.5, -3.0])
