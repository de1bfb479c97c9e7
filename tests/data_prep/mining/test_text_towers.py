"""Text towers give the vectors that their authors' networks give.

What a tower computes is stated in numpy, float64, and which word pieces it reads
by hand, of vocabularies of a few pieces. All parameters are random.
"""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import scipy.special
import torch
import transformers

from data_prep import convert_text_tower
from data_prep import embed_narrations
from data_prep.mining import text_towers
from sum_l_jax.data import narration_table

WIDTH, LAYERS, HEADS, MLP, OUT = 128, 2, 2, 24, 6
LETTERS = {letter: 2 * i for i, letter in enumerate("abcdefgh")}
START, END = 16, 17


def _randomize(module):
  generator = torch.Generator().manual_seed(0)
  for name, value in module.named_parameters():
    std = value.shape[-1] ** -0.5 if value.ndim > 1 and "embed" not in name else 0.3
    value.data = std * torch.randn(value.shape, generator=generator)
  for part in module.modules():
    if isinstance(part, torch.nn.LayerNorm) and "Prism" not in type(part).__name__:
      part.weight.data += 1.0
  return module


def _arrays(state):
  return {name: value.detach().numpy().astype(np.float64) for name, value in state.items()}


def _norm(x, weight, bias, eps):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * weight + bias


def _causal(x, weights, activation, eps, cap=0.0):
  """Pre-norm layers on `[N, D]`; weights of each: q, k, v, out, up, down, norm1, norm2."""
  dense = lambda x, pair: x @ pair[0].T + pair[1]
  later = np.triu(np.full((len(x), len(x)), -np.inf), 1)
  for layer in weights:
    y = _norm(x, *layer["norm1"], eps)
    q, k, v = (dense(y, layer[name]).reshape(len(x), HEADS, -1) for name in ("q", "k", "v"))
    logits = np.einsum("nhd,mhd->hnm", q, k) / np.sqrt(WIDTH / HEADS)
    logits = cap * np.tanh(logits / cap) if cap else logits
    y = np.einsum("hnm,mhd->nhd", scipy.special.softmax(logits + later, -1), v)
    x = x + dense(y.reshape(len(x), -1), layer["out"])
    x = x + dense(activation(dense(_norm(x, *layer["norm2"], eps), layer["up"])), layer["down"])
  return x


def _quick_gelu(x):
  return x * scipy.special.expit(1.702 * x)


def _gelu(x):
  return x * scipy.special.ndtr(x)


def _unit(x):
  return x / np.linalg.norm(x)


def _clip(p, prefix, activation):
  """A function from word pieces to a vector, of OpenAI's names for CLIP's text tower."""
  p = {name[len(prefix) :]: x for name, x in p.items() if name.startswith(prefix)}
  layers = []
  for index in range(LAYERS):
    q = lambda name, index=index: p[f"transformer.resblocks.{index}.{name}"]
    pair = lambda name, q=q: (q(f"{name}.weight"), q(f"{name}.bias"))
    parts = zip("qkv", np.split(q("attn.in_proj_weight"), 3), np.split(q("attn.in_proj_bias"), 3))
    layers.append(
      {name: (weight, bias) for name, weight, bias in parts}
      | {"out": pair("attn.out_proj"), "up": pair("mlp.c_fc"), "down": pair("mlp.c_proj")}
      | {"norm1": pair("ln_1"), "norm2": pair("ln_2")}
    )

  def embed(ids):
    x = p["token_embedding.weight"][ids] + p["positional_embedding"][: len(ids)]
    x = _norm(_causal(x, layers, activation, 1e-5), p["ln_final.weight"], p["ln_final.bias"], 1e-5)
    return _unit(x[np.argmax(ids)] @ p["text_projection"])

  return embed


def _openai_names(state):
  """The names of OpenAI, LaViLa and AVION, of those of transformers."""
  p = {}
  for name, x in state.items():
    name = name.removeprefix("text_model.").replace("encoder.layers.", "transformer.resblocks.")
    name = name.replace("self_attn.out_proj", "attn.out_proj").replace("mlp.fc1", "mlp.c_fc")
    name = name.replace("layer_norm1", "ln_1").replace("layer_norm2", "ln_2")
    name = name.replace("mlp.fc2", "mlp.c_proj").replace("final_layer_norm", "ln_final")
    p[name] = x
  for index in range(LAYERS):
    start = f"transformer.resblocks.{index}"
    for kind in ("weight", "bias"):
      parts = [p.pop(f"{start}.self_attn.{part}_proj.{kind}") for part in "qkv"]
      p[f"{start}.attn.in_proj_{kind}"] = np.concatenate(parts)
  p["token_embedding.weight"] = p.pop("embeddings.token_embedding.weight")
  p["positional_embedding"] = p.pop("embeddings.position_embedding.weight")
  p["text_projection"] = p.pop("text_projection.weight").T
  return p


def _clip_tokenizer(folder):
  vocabulary = {}
  for letter, number in LETTERS.items():
    vocabulary |= {letter: number, f"{letter}</w>": number + 1}
  vocabulary |= {"<|startoftext|>": START, "<|endoftext|>": END}
  tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[])
  tokenizer.save_pretrained(folder)


def _clip_ids(text, limit):
  """Letters, the last one of a word with its mark, between start and end."""
  pieces = [LETTERS[x] + (i == len(w) - 1) for w in text.split() for i, x in enumerate(w)]
  return np.array([START, *pieces[: limit - 2], END])


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
  """A folder with a whole CLIP, whose text has 8 places; and its parameters."""
  folder = tmp_path_factory.mktemp("clip-tiny")
  shape = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": MLP}
  text = {"vocab_size": 18, "hidden_size": WIDTH, "max_position_embeddings": 8, **shape}
  config = transformers.CLIPConfig(
    text_config={**text, "bos_token_id": START, "eos_token_id": END, "pad_token_id": END},
    vision_config={"hidden_size": 16, "image_size": 8, "patch_size": 4, **shape},
    projection_dim=OUT,
  )
  model = _randomize(transformers.CLIPModel(config))
  model.save_pretrained(folder)
  _clip_tokenizer(folder)
  return folder, _arrays(model.state_dict())


TEXTS = ["cab", "Bad  egg.", "bead face head"]  # The last has 12 letters, of which 6 are read.


def test_clip(clip_folder, tmp_path, capsys):
  folder, state = clip_folder
  text = {name: x for name, x in state.items() if name.startswith(("text_model", "text_proj"))}
  embed = _clip(_openai_names(text), "", _quick_gelu)
  (tmp_path / "t.txt").write_text("\n".join(TEXTS), encoding="utf-8")
  output = tmp_path / "n.npz"
  command = [f"--texts={tmp_path / 't.txt'}", f"--model={folder}", f"--output={output}"]
  assert embed_narrations.main(command) == 0
  assert "1 of 3 narrations have more than the 8 word pieces" in capsys.readouterr().err
  table = narration_table.NarrationTable.load(output)
  assert table.model == folder.name and table.dim == OUT
  for words in ("cab", "bad egg", "bead face head"):
    (vector,) = table.lookup([words])
    np.testing.assert_allclose(vector, embed(_clip_ids(words, 8)), atol=1e-6)


@pytest.mark.parametrize(
  "prefix, activation, family", [("", _quick_gelu, "LaViLa"), ("textual.", _gelu, "AVION")]
)
def test_files_of_lavila_and_avion(clip_folder, tmp_path, capsys, prefix, activation, family):
  folder, state = clip_folder
  text = {name: x for name, x in state.items() if name.startswith(("text_model", "text_proj"))}
  names = {f"{prefix}{name}": x for name, x in _openai_names(text).items()}
  tensors = {f"module.{name}": torch.tensor(x, dtype=torch.float32) for name, x in names.items()}
  tensors["module.visual.transformer.resblocks.0.ln_1.weight"] = torch.ones(3)
  settings = argparse.Namespace(model="CLIP")
  torch.save({"state_dict": tensors, "args": settings}, tmp_path / "weights.pth")
  command = [f"--input={tmp_path / 'weights.pth'}", f"--tokenizer={folder}"]
  command.append(f"--output={tmp_path / 'text'}")
  assert convert_text_tower.main(command) == 0
  assert f"the text tower of {family}, 2 layers of 128" in capsys.readouterr().out
  embed = _clip(names, prefix, activation)
  found = embed_narrations.load_encoder(str(tmp_path / "text"))(["cab", "bad egg"])
  for words, vector in zip(("cab", "bad egg"), found):
    np.testing.assert_allclose(vector, embed(_clip_ids(words, 8)), atol=1e-6)
  assert convert_text_tower.main(command) == 2
  assert "Give a new folder" in capsys.readouterr().err


def test_files_without_the_tower_are_refused(clip_folder, tmp_path, capsys):
  folder, _ = clip_folder
  torch.save({"state_dict": {"visual.proj": torch.ones(3)}}, tmp_path / "weights.pth")
  command = [f"--input={tmp_path / 'weights.pth'}", f"--tokenizer={folder}"]
  assert convert_text_tower.main([*command, f"--output={tmp_path / 'text'}"]) == 2
  assert "no text tower of CLIP's kind" in capsys.readouterr().err
  assert not (tmp_path / "text").exists()


PIECES = ["<pad>", "</s>", "<unk>", "▁", "▁cut", "▁the", "▁door", "."]


@pytest.fixture(scope="module")
def videoprism_folder(tmp_path_factory):
  """A folder with a whole video-text VideoPrism, whose text has 6 places; and its parameters."""
  folder = tmp_path_factory.mktemp("lvt-tiny")
  shape = {"num_attention_heads": HEADS, "intermediate_size": MLP}
  text = {"vocab_size": 8, "hidden_size": WIDTH, "max_position_embeddings": 6, **shape}
  video = {"image_size": 4, "num_frames": 2, "tubelet_size": [1, 4, 4], "hidden_size": 16, **shape}
  depth = {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
  config = transformers.VideoPrismConfig(
    vision_config={**video, **depth}, text_config={**text, "num_hidden_layers": LAYERS}
  )
  model = _randomize(transformers.VideoPrismClipModel(config))
  model.save_pretrained(folder)
  scores = [(piece, -1.0 if i > 3 else -5.0) for i, piece in enumerate(PIECES)]
  transformers.VideoPrismTokenizer(vocab=scores, extra_ids=0).save_pretrained(folder)
  return folder, _arrays(model.text_model.state_dict())


def _videoprism(p, ids):
  """Flax's statement: sinusoids, the class token last, ReLU, capped logits, gamma - 1."""
  place, half = np.arange(len(ids))[:, None], WIDTH // 2
  angle = place * np.exp(-np.arange(half) * np.log(10_000) / (half - 1))
  x = p["embeddings.token_embedding.weight"][ids] * np.sqrt(WIDTH)
  x = x + np.concatenate([np.sin(angle), np.cos(angle)], 1)
  x = np.concatenate([x, p["embeddings.cls_emb"][0] * np.sqrt(WIDTH)])
  layers = []
  for index in range(LAYERS):
    pair = lambda name, index=index: (
      p[f"layers.{index}.{name}.weight"],
      p[f"layers.{index}.{name}.bias"],
    )
    norm = lambda name, pair=pair: (1 + pair(name)[0], pair(name)[1])
    layers.append(
      {name: pair(f"attention.{name}_proj") for name in "qkv"}
      | {"out": pair("attention.o_proj"), "up": pair("mlp.fc1"), "down": pair("mlp.fc2")}
      | {"norm1": norm("layernorm_before"), "norm2": norm("layernorm_after")}
    )
  x = _causal(x, layers, lambda x: np.maximum(x, 0), 1e-6, cap=50.0)
  return _unit(_norm(x[-1], 1 + p["layernorm.weight"], p["layernorm.bias"], 1e-6))


def test_videoprism(videoprism_folder):
  folder, p = videoprism_folder
  tower = embed_narrations.load_encoder(str(folder))
  assert tower.limit == 6
  found = tower(["Cut!", "the -- DOOR.", "cut the door cut the door"])
  wanted = [[4, 7], [5, 6, 7], [4, 5, 6, 4, 5, 6]]
  for vector, ids in zip(found, wanted, strict=True):
    np.testing.assert_allclose(vector, _videoprism(p, ids), atol=2e-6)
  assert tower.longer(["cut", "cut the door cut the door"]) == {"cut the door cut the door": 7}


def test_siglip_reads_the_last_of_all_places(tmp_path):
  shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": MLP}
  config = transformers.SiglipConfig(
    text_config={"vocab_size": 8, "hidden_size": 16, "max_position_embeddings": 5, **shape},
    vision_config={"hidden_size": 16, "image_size": 8, "patch_size": 4, **shape},
  )
  model = _randomize(transformers.SiglipModel(config)).eval()
  model.save_pretrained(tmp_path)
  scores = [(piece, -1.0 if i > 3 else -5.0) for i, piece in enumerate(PIECES)]
  # Any tokenizer that pads with 0 does; SigLIP's own needs a file of SentencePiece.
  transformers.VideoPrismTokenizer(vocab=scores, extra_ids=0).save_pretrained(tmp_path)
  found = embed_narrations.load_encoder(str(tmp_path))(["cut", "the door"])
  ids = torch.tensor([[4, 0, 0, 0, 0], [5, 6, 0, 0, 0]])
  with torch.no_grad():
    hidden = model.text_model(ids).last_hidden_state[:, -1]
    wanted = torch.nn.functional.normalize(model.text_model.head(hidden), dim=-1)
  np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_folder_without_some_weights_is_refused(videoprism_folder, tmp_path):
  """Otherwise they would be random, and nobody would hear of it."""
  folder, _ = videoprism_folder
  model = transformers.VideoPrismClipModel.from_pretrained(folder)
  state = {n: x for n, x in model.state_dict().items() if "text_model.layers.1.mlp" not in n}
  model.save_pretrained(tmp_path, state_dict=state)
  with pytest.raises(ValueError, match="isn't a whole text tower: 4 parameters are missing"):
    embed_narrations.load_encoder(str(tmp_path))


def test_what_is_a_tower(clip_folder, tmp_path):
  folder, _ = clip_folder
  assert text_towers.model_type(folder) == "clip"
  (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
  assert text_towers.model_type(tmp_path) == ""
  (tmp_path / "config.json").write_text('{"model_type": "clip"}', encoding="utf-8")
  assert text_towers.model_type(tmp_path) == "clip"
  # A model of sentence-transformers is one, whatever is within.
  (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
  assert text_towers.model_type(tmp_path) == ""
