"""mmaction2's SLOW and SlowFast stated in torch, with random weights.

A statement of its own, from the sizes in mmaction2's configurations; names and
shapes of the arrays are those of its checkpoints. It shares no code with the
library, and none with pytorchvideo.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class Unit(nn.Module):
  """A convolution without bias, and BatchNorm if there is any."""

  def __init__(self, inputs, outputs, kernel, stride=(1, 1, 1), normalize=True):
    super().__init__()
    padding = tuple((k - 1) // 2 for k in kernel)
    self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
    if normalize:
      self.bn = nn.BatchNorm3d(outputs)

  def forward(self, x):
    x = self.conv(x)
    return self.bn(x) if hasattr(self, "bn") else x


class Block(nn.Module):
  def __init__(self, inputs, width, stride, inflated, shortcut):
    super().__init__()
    self.conv1 = Unit(inputs, width, (3, 1, 1) if inflated else (1, 1, 1))
    self.conv2 = Unit(width, width, (1, 3, 3), (1, stride, stride))
    self.conv3 = Unit(width, 4 * width, (1, 1, 1))
    if shortcut:
      self.downsample = Unit(inputs, 4 * width, (1, 1, 1), (1, stride, stride))

  def forward(self, x):
    y = self.conv3(functional.relu(self.conv2(functional.relu(self.conv1(x)))))
    x = self.downsample(x) if hasattr(self, "downsample") else x
    return functional.relu(x + y)


class Path(nn.Module):
  """One pathway; with `lateral`, (kernel, alpha), what joins it from a fast one."""

  def __init__(self, depth, width, stem, inflate, lateral=None):
    super().__init__()
    self.conv1 = Unit(3, width, (stem, 7, 7), (1, 2, 2))
    # What the fast pathway brings along: twice its channels, an eighth of ours.
    extra = lambda channels: channels // 4 if lateral else 0
    join = lambda channels: Unit(
      channels // 8, channels // 4, (lateral[0], 1, 1), (lateral[1], 1, 1), normalize=False
    )
    if lateral:
      self.conv1_lateral = join(width)
    channels = width
    for i, count in enumerate(BLOCKS[depth]):
      blocks, inner = [], width * 2**i
      for number in range(count):
        inputs = channels + extra(channels) if number == 0 else channels
        stride = 2 if i and number == 0 else 1
        blocks.append(Block(inputs, inner, stride, inflate[i], shortcut=number == 0))
        channels = 4 * inner
      setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
      if lateral and i < 3:
        setattr(self, f"layer{i + 1}_lateral", join(channels))

  def stem(self, x):
    return functional.max_pool3d(
      functional.relu(self.conv1(x)), (1, 3, 3), (1, 2, 2), padding=(0, 1, 1)
    )


class SlowFast(nn.Module):
  def __init__(self, depth, alpha, kernel):
    super().__init__()
    self.alpha = alpha
    self.slow_path = Path(depth, 64, 1, (False, False, True, True), (kernel, alpha))
    self.fast_path = Path(depth, 8, 5, (True, True, True, True))

  def forward(self, x):
    slow = functional.interpolate(x, scale_factor=(1 / self.alpha, 1.0, 1.0), mode="nearest")
    slow, fast = self.slow_path.stem(slow), self.fast_path.stem(x)
    slow = torch.cat([slow, self.slow_path.conv1_lateral(fast)], dim=1)
    for i in range(1, 5):
      slow = getattr(self.slow_path, f"layer{i}")(slow)
      fast = getattr(self.fast_path, f"layer{i}")(fast)
      if i < 4:
        slow = torch.cat([slow, getattr(self.slow_path, f"layer{i}_lateral")(fast)], dim=1)
    return torch.cat([fast.mean((2, 3, 4)), slow.mean((2, 3, 4))], dim=1)


class SlowOnly(Path):
  def __init__(self):
    super().__init__(50, 64, 1, (False, False, True, True))

  def forward(self, x):
    x = self.stem(x)
    for i in range(1, 5):
      x = getattr(self, f"layer{i}")(x)
    return x.mean((2, 3, 4))


class Head(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.fc_cls = nn.Linear(width, 400)

  def forward(self, x):
    return self.fc_cls(x)


class Recognizer(nn.Module):
  """A network with 400 classes: uint8 RGB `[B, T, H, W, 3]` -> logits."""

  def __init__(self, backbone, width):
    super().__init__()
    self.backbone, self.cls_head = backbone, Head(width)

  def forward(self, video):
    pixels = torch.from_numpy((video - MEAN) / STD).to(self.cls_head.fc_cls.weight.dtype)
    return self.cls_head(self.backbone(pixels.permute(0, 4, 1, 2, 3)))


# --model of the conversion -> the backbone and the width of its feature.
NETWORKS = {
  "slow_r50_8x8": lambda: (SlowOnly(), 2048),
  "mmaction2_slowfast_r50_8x8": lambda: (SlowFast(50, alpha=4, kernel=7), 2304),
  "mmaction2_slowfast_r50_4x16": lambda: (SlowFast(50, alpha=8, kernel=5), 2304),
  "mmaction2_slowfast_r101_8x8": lambda: (SlowFast(101, alpha=4, kernel=7), 2304),
}


def build(model: str, *, seed: int = 0) -> Recognizer:
  """A network in evaluation mode whose BatchNorms have statistics of their own."""
  torch.manual_seed(seed)
  network = Recognizer(*NETWORKS[model]())
  with torch.no_grad():
    for name, module in network.named_modules():
      if isinstance(module, nn.BatchNorm3d):
        # Small on the last of a block, as trained ones are.
        low, high = (0.1, 0.3) if "conv3" in name else (0.7, 1.3)
        module.weight.uniform_(low, high)
        module.bias.uniform_(-0.3, 0.3)
        module.running_mean.uniform_(-0.2, 0.2)
        module.running_var.uniform_(0.5, 1.5)
    network.cls_head.fc_cls.weight.normal_(0, 0.05)
  return network.eval()
