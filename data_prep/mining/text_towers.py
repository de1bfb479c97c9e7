"""The text towers of image and video networks, as encoders of narrations.

A folder of `transformers` (config.json, weights, tokenizer) whose network was
trained to bring texts and pictures together has a text tower: CLIP's, of which
LaViLa and AVION are, SigLIP's, and VideoPrism's. Their vectors lie in the space
of the videos' embeddings, which those of a sentence model do not.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
import string
from typing import Any

from etils import epath
import numpy as np

from data_prep.mining import sentence_models
from sum_l_jax.system import storage

# Texts that a tower is given at a time.
_BATCH = 128
_PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))
# Family and class of `transformers` by the model_type of config.json.
_TOWERS = {
  "clip": ("clip", "CLIPTextModelWithProjection"),
  "clip_text_model": ("clip", "CLIPTextModelWithProjection"),
  "siglip": ("siglip", "SiglipTextModel"),
  "siglip_text_model": ("siglip", "SiglipTextModel"),
  "siglip2": ("siglip", "Siglip2TextModel"),
  "siglip2_text_model": ("siglip", "Siglip2TextModel"),
  "videoprism": ("videoprism", "VideoPrismClipModel"),
  "videoprism_text_model": ("videoprism", "VideoPrismTextModel"),
}


def model_type(folder: epath.Path) -> str:
  """The model_type of a folder with a text tower, or "" for any other folder.

  A folder of sentence-transformers, which has a modules.json, is another one,
  whatever is within.
  """
  config = folder / "config.json"
  if storage.exists(folder / "modules.json") or not storage.exists(config):
    return ""
  try:
    settings = json.loads(storage.read_text(config))
  except ValueError:
    return ""
  name = settings.get("model_type", "") if isinstance(settings, dict) else ""
  return name if name in _TOWERS else ""


def canonicalize(text: str) -> str:
  """A text as VideoPrism reads it.

  Punctuation becomes spaces, letters become small, spaces single, and a full
  stop follows (videoprism/utils.py, canonicalize_text).

  >>> canonicalize("Hello,World..")
  'hello world.'
  """
  return " ".join(text.translate(_PUNCTUATION).lower().split()) + "."


def sinusoids(count: int, width: int) -> np.ndarray:
  """VideoPrism's positions of a text, float32 `[count, width]`.

  Sines, then cosines, of i / 10000^(j / (width / 2 - 1)), j < width / 2
  (videoprism/encoders.py, PositionalEmbedding).
  """
  half = width // 2
  angle = np.arange(count)[:, None] * 10_000.0 ** (-np.arange(half) / max(half - 1, 1))
  return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


class TextTower:
  """A text tower of `transformers`, as an `Encoder` of narrations.

  Attributes:
    limit: number of word pieces that it reads of a text.
  """

  def __init__(self, folder: epath.Path, *, device: str = "cpu") -> None:
    """Loads a tower.

    Args:
      folder: local folder for which `model_type` isn't "".
      device: PyTorch's name of the device.

    Raises:
      ValueError: weights of the tower are missing or of another shape.
      Exception: `transformers` can't read the folder, in ways of its own.
    """
    import torch
    import transformers

    self._torch, self._device = torch, device
    kind = model_type(folder)
    self.family, name = _TOWERS[kind]
    here = str(folder)
    config = transformers.AutoConfig.from_pretrained(here, local_files_only=True)
    text = getattr(config, "text_config", config)
    if kind == "clip":  # The one within may still hold the default.
      text.projection_dim = config.projection_dim
    whole = name == "VideoPrismClipModel"
    with sentence_models.quiet():
      self._model, report = getattr(transformers, name).from_pretrained(
        here,
        config=config if whole else text,
        local_files_only=True,
        output_loading_info=True,
        dtype=torch.float32,
        # The capped logits of VideoPrism are in no other.
        attn_implementation="eager",
      )
    # Others than these would be random: `transformers` only warns of it.
    lacking = sorted(key for key in report["missing_keys"] if "position_ids" not in key)
    if lacking or report["mismatched_keys"]:
      raise ValueError(
        f"{here!r} isn't a whole text tower: {len(lacking)} parameters are missing"
        f" ({', '.join(lacking[:3])}), {len(report['mismatched_keys'])} have another shape"
      )
    if whole:
      self._model = self._model.text_model
    self._model.to(device).eval()
    if self.family == "videoprism":
      # `transformers` has a table of 10000^(-2 j / width), also in its files; the
      # weights were trained with this one.
      places = self._model.embeddings.position_embedding
      places.copy_(torch.from_numpy(sinusoids(*places.shape)))
    self.limit = int(text.max_position_embeddings)
    self._tokenizer = transformers.AutoTokenizer.from_pretrained(here, local_files_only=True)

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    """Embeds texts, unit vectors, float32 `[len(texts), D]`."""
    torch, rows = self._torch, []
    for start in range(0, len(texts), _BATCH):
      given = self._tokens(texts[start : start + _BATCH])
      with torch.inference_mode():
        found = self._model(**{name: value.to(self._device) for name, value in given.items()})
      vectors = found.text_embeds if self.family == "clip" else found.pooler_output
      rows.append(torch.nn.functional.normalize(vectors, dim=-1).float().cpu().numpy())
    return np.concatenate(rows)

  def longer(self, texts: Sequence[str]) -> dict[str, int]:
    """The texts of which it doesn't read the end, with their numbers of word pieces."""
    if not texts:
      return {}
    pieces = self._tokenizer(self._read(texts), truncation=False, verbose=False)["input_ids"]
    return {text: len(ids) for text, ids in zip(texts, pieces) if len(ids) > self.limit}

  def _read(self, texts: Sequence[str]) -> list[str]:
    return [canonicalize(text) if self.family == "videoprism" else text for text in texts]

  def _tokens(self, texts: Sequence[str]) -> dict[str, Any]:
    """What the network reads of texts.

    VideoPrism's network is causal only where it is given a mask. SigLIP's reads
    the last place of 64, without one, as it was trained.
    """
    siglip = self.family == "siglip"
    return dict(
      self._tokenizer(
        self._read(texts),
        padding="max_length" if siglip else True,
        padding_side="right",
        truncation=True,
        max_length=self.limit,
        return_attention_mask=not siglip,
        return_tensors="pt",
      )
    )
