"""The video towers of AVION and LaViLa stated in torch, with random weights.

A statement of its own; names and shapes of the arrays are those of the authors'
checkpoints. It shares no code with the library.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def randomise(module: nn.Module, seed: int, *, offset_norms: bool = False) -> nn.Module:
  """Gives every parameter a random value of a size that keeps activations sound.

  Args:
    module: network, whose parameters change.
    seed: seed of the values.
    offset_norms: whether its LayerNorms add 1 to their scales.
  """
  rng = torch.Generator().manual_seed(seed)
  norms = {
    f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)
  }
  with torch.no_grad():
    for name, value in module.named_parameters():
      draw = torch.randn(value.shape, generator=rng, dtype=torch.float64)
      if name in norms:
        draw = 0.3 * draw + (0.0 if offset_norms else 1.0)
      elif name.endswith("weight") and value.ndim > 1 and "position" not in name:
        draw *= 1.0 / np.sqrt(value[0].numel())
      else:
        draw *= 0.3
      value.copy_(draw)
  return module


class _Attention(nn.Module):
  """Fused queries, keys and values; AVION's flash form and LaViLa's."""

  def __init__(self, width: int, heads: int, names: tuple[str, str]):
    super().__init__()
    self.heads = heads
    self.names = names
    self.add_module(names[0], nn.Linear(width, 3 * width))
    self.add_module(names[1], nn.Linear(width, width))

  def forward(self, x, mask=None):
    split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
    q, k, v = map(split, getattr(self, self.names[0])(x).chunk(3, dim=-1))
    y = functional.scaled_dot_product_attention(q, k, v, mask)
    return getattr(self, self.names[1])(y.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
  def __init__(self, width: int, hidden: int, activation):
    super().__init__()
    self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
    self.activation = activation

  def forward(self, x):
    return self.fc2(self.activation(self.fc1(x)))


class _AvionBlock(nn.Module):
  def __init__(self, width: int, hidden: int, heads: int):
    super().__init__()
    self.ln_1, self.ln_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
    self.attn = _Attention(width, heads, ("Wqkv", "out_proj"))
    self.mlp = _Mlp(width, hidden, functional.gelu)

  def forward(self, x):
    x = x + self.attn(self.ln_1(x))
    return x + self.mlp(self.ln_2(x))


class AvionTower(nn.Module):
  """Joint attention over a class token and all patches of a clip."""

  def __init__(self, width, depth, hidden, heads, patch, image, frames, embedding):
    super().__init__()
    places = (image // patch) ** 2
    empty = lambda *shape: nn.Parameter(torch.empty(*shape))
    self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
    self.class_embedding = empty(width)
    self.positional_embedding = empty(places + 1, width)
    self.temporal_embedding = empty(frames, width)
    self.ln_pre, self.ln_post = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
    self.transformer = nn.Module()
    self.transformer.resblocks = nn.ModuleList(
      _AvionBlock(width, hidden, heads) for _ in range(depth)
    )
    self.image_projection = empty(width, embedding)

  def forward(self, video):
    """`[B, T, 3, H, W]` -> tokens with the class token first, and embedding."""
    x = torch.stack([self.conv1(frame).flatten(2).mT for frame in video.unbind(1)], 1)
    x = x + self.positional_embedding[1:] + self.temporal_embedding[:, None]
    first = (self.class_embedding + self.positional_embedding[0]).expand(len(x), 1, -1)
    x = self.ln_pre(torch.cat([first, x.flatten(1, 2)], 1))
    for block in self.transformer.resblocks:
      x = block(x)
    x = self.ln_post(x)
    return x, x[:, 0] @ self.image_projection


class _LavilaBlock(nn.Module):
  def __init__(self, width: int, hidden: int, heads: int):
    super().__init__()
    norm = lambda: nn.LayerNorm(width, eps=1e-6)
    self.norm1, self.norm2, self.norm3 = norm(), norm(), norm()
    self.attn = _Attention(width, heads, ("qkv", "proj"))
    self.timeattn = _Attention(width, heads, ("qkv", "proj"))
    self.mlp = _Mlp(width, hidden, lambda x: x * torch.sigmoid(1.702 * x))

  def forward(self, x, same_frame, same_place):
    t = x + self.timeattn(self.norm3(x), same_place)
    s = x + self.attn(self.norm1(t), same_frame)
    return s + self.mlp(self.norm2(s))


class LavilaTower(nn.Module):
  """Divided attention; which tokens see each other is a mask over all pairs."""

  def __init__(self, width, depth, hidden, heads, patch, image, frames):
    super().__init__()
    places = (image // patch) ** 2
    empty = lambda *shape: nn.Parameter(torch.empty(*shape))
    self.patch_embed = nn.Module()
    self.patch_embed.proj = nn.Conv2d(3, width, patch, patch, bias=False)
    self.cls_token = empty(1, 1, width)
    self.pos_embed = empty(1, places + 1, width)
    self.temporal_embed = empty(1, frames, width)
    self.ln_pre = nn.LayerNorm(width, eps=1e-5)
    self.blocks = nn.ModuleList(_LavilaBlock(width, hidden, heads) for _ in range(depth))
    self.norm = nn.LayerNorm(width, eps=1e-6)

  def forward(self, video):
    """`[B, T, 3, H, W]` -> tokens with the class token first."""
    x = torch.stack([self.patch_embed.proj(f).flatten(2).mT for f in video.unbind(1)], 1)
    frames, places = x.shape[1:3]
    x = x + self.pos_embed[:, 1:] + self.temporal_embed[0, :, None]
    first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
    x = self.ln_pre(torch.cat([first, x.flatten(1, 2)], 1))
    index = torch.arange(frames * places)

    def mask(group):
      sees = torch.ones(1 + len(index), 1 + len(index), dtype=torch.bool)
      sees[1:, 1:] = group[:, None] == group
      return sees

    for block in self.blocks:
      x = block(x, mask(index // places), mask(index % places))
    return self.norm(x)


class Clip(nn.Module):
  """A video tower under the names of a whole file, with a stub of a text tower."""

  def __init__(self, visual: nn.Module, embedding: int = 0):
    super().__init__()
    self.visual = visual
    self.logit_scale = nn.Parameter(torch.ones([]))
    if embedding:  # LaViLa's; AVION's is within the tower.
      self.image_projection = nn.Parameter(torch.empty(visual.norm.weight.numel(), embedding))
      self.text_projection = nn.Parameter(torch.empty(8, embedding))
      self.token_embedding = nn.Embedding(11, 8)
      self.positional_embedding = nn.Parameter(torch.empty(7, 8))
      self.ln_final = nn.LayerNorm(8)
    else:
      self.textual = nn.Module()
      self.textual.token_embedding = nn.Embedding(11, 8)
      self.textual.text_projection = nn.Parameter(torch.empty(8, 5))
