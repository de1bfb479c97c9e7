"""Stage one's training step in PyTorch, at its best: the peer of this library's.

Layers and sizes of the networks come from this library's stage tables. Weights
are random; nothing is trained with these networks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.models import backbones
from sum_l_jax.models import network_spec
from sum_l_jax.tools.device_check import clocks
from sum_l_jax.tools.device_check import synthetic_trainer

_Size = tuple[int, int, int]


class ConvNorm(nn.Sequential):
  """A convolution without bias, BatchNorm, and a ReLU or none."""

  def __init__(
    self,
    channels: int,
    out: int,
    size: _Size,
    strides: _Size = (1, 1, 1),
    *,
    relu: bool = True,
  ) -> None:
    padding = (size[0] // 2, size[1] // 2, size[2] // 2)
    super().__init__(
      nn.Conv3d(channels, out, size, strides, padding, bias=False),
      nn.BatchNorm3d(out),
      nn.ReLU(inplace=True) if relu else nn.Identity(),
    )


class Bottleneck(nn.Module):
  """A residual block; see `models.resnet3d`."""

  def __init__(self, channels: int, spec: network_spec.StageSpec, stride: int) -> None:
    super().__init__()
    strides = (1, stride, stride)
    self.branch = nn.Sequential(
      ConvNorm(channels, spec.inner, (spec.temporal_kernel, 1, 1)),
      ConvNorm(spec.inner, spec.inner, (1, 3, 3), strides),
      ConvNorm(spec.inner, spec.out, (1, 1, 1), relu=False),
    )
    self.shortcut: nn.Module = nn.Identity()
    if channels != spec.out or stride != 1:
      self.shortcut = ConvNorm(channels, spec.out, (1, 1, 1), strides, relu=False)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """[B, C, T, H, W] -> [B, O, T, H / s, W / s]."""
    return functional.relu(self.shortcut(x) + self.branch(x))


class DifferenceStem(nn.Module):
  """The stem of `tiny`, which sees differences of frames; see `layers.difference`."""

  def __init__(self, spec: network_spec.StemSpec) -> None:
    super().__init__()
    size = (1, spec.stride, spec.stride)
    self.conv = nn.Conv3d(3, 3 * spec.features, size, size, bias=False)
    self.norm = nn.BatchNorm3d(spec.features)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """[B, 3, T, H, W] -> [B, C, T, H / s, W / s]."""
    frame, before, after = self.conv(x).chunk(3, dim=1)
    x = (
      frame
      + functional.pad(before[:, :, 1:] - before[:, :, :-1], (0, 0, 0, 0, 1, 0))
      + functional.pad(after[:, :, 1:] - after[:, :, :-1], (0, 0, 0, 0, 0, 1))
    )
    return torch.relu(self.norm(x))


def _stem(spec: network_spec.StemSpec) -> nn.Module:
  if spec.differences:
    return DifferenceStem(spec)
  layers: list[nn.Module] = [ConvNorm(3, spec.features, spec.kernel, (1, spec.stride, spec.stride))]
  if spec.max_pool:
    layers.append(nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)))
  return nn.Sequential(*layers)


def _stages(spec: network_spec.PathwaySpec, extra: tuple[int, ...] = ()) -> nn.ModuleList:
  """The stem and the stages, with the channels that others append before each."""
  stages: list[nn.Module] = [_stem(spec.stem)]
  for index, stage in enumerate(spec.stages):
    width, blocks = spec.widths[index] + sum(extra[index : index + 1]), []
    for stride in (stage.stride, *[1] * (stage.blocks - 1)):
      blocks.append(Bottleneck(width, stage, stride))
      width = stage.out
    stages.append(nn.Sequential(*blocks))
  return nn.ModuleList(stages)


class Encoder(nn.Module):
  """A network of one or two pathways, up to its pooled feature."""

  def __init__(self, spec: network_spec.NetworkSpec) -> None:
    super().__init__()
    self.spec = spec
    self.fast, self.fusion = None, None
    fused: tuple[int, ...] = ()
    if spec.fast is not None:
      fused = tuple(2 * width for width in spec.fast.widths[:-1])
      self.fast = _stages(spec.fast)
      size, strides = (spec.fusion_kernel, 1, 1), (spec.alpha, 1, 1)
      padding = (spec.fusion_kernel // 2, 0, 0)
      self.fusion = nn.ModuleList(
        ConvNorm(width // 2, width, size, strides)
        if spec.fusion_norm
        else nn.Conv3d(width // 2, width, size, strides, padding, bias=False)
        for width in fused
      )
    self.slow = _stages(spec.slow, fused)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Normalised clips [B, 3, T, H, W] -> features [B, C]."""
    if self.fast is None or self.fusion is None:
      for stage in self.slow:
        x = stage(x)
      return x.mean((2, 3, 4))
    fast, slow = x, x[:, :, :: self.spec.alpha]
    last = len(self.slow) - 1
    for index, (slow_stage, fast_stage) in enumerate(zip(self.slow, self.fast)):
      slow, fast = slow_stage(slow), fast_stage(fast)
      if index < last:
        slow = torch.cat([slow, self.fusion[index](fast)], dim=1)
    return torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], dim=1)


class Classifier(nn.Module):
  """An encoder with class heads, from bytes."""

  def __init__(self, spec: network_spec.NetworkSpec, classes: dict[str, int], dropout: float):
    super().__init__()
    self.encoder = Encoder(spec)
    self.dropout = nn.Dropout(dropout)
    self.heads = nn.ModuleDict({n: nn.Linear(spec.feature_dim, k) for n, k in classes.items()})

  def forward(self, video: torch.Tensor) -> dict[str, torch.Tensor]:
    """uint8 [B, 3, T, H, W] -> logits by task."""
    feature = self.dropout(self.encoder((video.float() / 255 - 0.45) / 0.225))
    return {name: head(feature) for name, head in self.heads.items()}


def memory() -> int:
  """Bytes of the GPU that JAX would take of it; 0 without one."""
  return int(0.75 * torch.cuda.mem_get_info()[1]) if torch.cuda.is_available() else 0


def measure(
  trainer: build.Trainer, *, precision: str, compiled: bool, least: float
) -> dict[str, Any]:
  """Times forward, backward and SGD on the GPU, or the processor without one.

  Channels come last, `torch.compile` fuses, autocast computes in bfloat16, and
  products of float32 are those of TF32, as in JAX.

  Args:
    trainer: stage one, for its settings; it computes nothing here.
    precision: "bfloat16" or "float32".
    compiled: whether `torch.compile` is used.
    least: seconds for which steps are timed.
  """
  device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  settings, section = trainer.settings, trainer.section
  spec = backbones.find(settings.model.backbone).spec
  assert spec is not None  # The check's backbones are all of tables.
  classes = {name: task.num_classes for name, task in trainer.tasks[types.EXO].items()}
  # Its type doesn't say that `to` takes a memory format.
  network: Any = Classifier(spec, classes, settings.model.dropout)
  network = network.to(device, memory_format=torch.channels_last_3d).train()
  optimizer = torch.optim.SGD(
    network.parameters(),
    lr=section.learning_rate,
    momentum=section.momentum,
    nesterov=section.nesterov,
    weight_decay=section.weight_decay,
  )
  clips = synthetic_trainer.random_clips(trainer)[types.EXO]
  video = torch.from_numpy(clips["video"]).to(device).permute(0, 4, 1, 2, 3)
  labels = {n: torch.from_numpy(y).to(device).long() for n, y in clips["labels"].items()}
  forward: Any = torch.compile(network) if compiled else network

  def run() -> None:
    optimizer.zero_grad()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
      logits = forward(video)
      loss = sum(functional.cross_entropy(z, labels[name]) for name, z in logits.items())
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    optimizer.step()

  def wait() -> None:
    if device.type == "cuda":
      torch.cuda.synchronize()

  found = clocks.spread(clocks.seconds_of(run, wait, least=least))
  batch = section.batch_size
  return {
    "version": torch.__version__,
    "device": device.type,
    "compiled": compiled,
    "batch": batch,
    **found,
    "clips_per_second": batch / found["seconds"],
    "peak_in_use": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
  }
