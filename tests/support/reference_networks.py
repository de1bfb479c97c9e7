"""The reference networks in PyTorch, with random weights, and their outputs.

pytorchvideo's models are the oracle: an implementation by others of the same
networks. Weights are random and not gentle: BatchNorm has statistics, scales
and shifts of its own, so that nothing cancels by being 0 or 1.
"""

from __future__ import annotations

import re
import sys
import types

import numpy as np
import torch
from torch import nn


def _hub():
  """pytorchvideo's model functions.

  It imports torchvision for a detection head that nobody uses here, and which
  would bring another PyTorch along: a stand-in takes that import.
  """
  if "torchvision" not in sys.modules:
    vision, ops = types.ModuleType("torchvision"), types.ModuleType("ops")
    ops.RoIAlign = object
    vision.ops = ops
    sys.modules["torchvision"], sys.modules["torchvision.ops"] = vision, ops
    try:
      from pytorchvideo.models import hub
    finally:
      # Other libraries ask whether torchvision is there.
      del sys.modules["torchvision"], sys.modules["torchvision.ops"]
    return hub
  from pytorchvideo.models import hub

  return hub


# --model of the conversion -> pytorchvideo's function.
HUB = {
  "slow_r50_8x8": "slow_r50",
  "slowfast_r50_8x8": "slowfast_r50",
  "slowfast_r101_8x8": "slowfast_r101",
}


def build(model: str, *, seed: int = 0, clear_of_kinks: bool = False):
  """A network with 400 classes, in evaluation mode.

  Args:
    model: a key of `HUB`.
    seed: seed of the weights.
    clear_of_kinks: keeps what ReLUs see several standard deviations away from
      zero, on either side. At a kink a rounding error flips a whole gradient:
      in float32 two right implementations then differ by a percent.
  """
  torch.manual_seed(seed)
  network = getattr(_hub(), HUB[model])()
  generator = torch.Generator().manual_seed(seed + 1)
  uniform = lambda x, low, high: x.uniform_(low, high, generator=generator)
  with torch.no_grad():
    for name, module in network.named_modules():
      if isinstance(module, nn.BatchNorm3d):
        # The residual branches' last scales are small, as trained ones are;
        # else the activations grow with depth and swamp the comparison.
        last = name.endswith("norm_c")
        uniform(module.weight, *((0.1, 0.3) if last else (0.7, 1.3)))
        uniform(module.bias, -0.3, 0.3)
        if clear_of_kinks:
          uniform(module.weight, 0.1, 0.2)
          uniform(module.bias, 1.0, 2.0)
          if last or "branch1" in name:
            # Small sums, and on one side: residual blocks add up.
            module.weight *= 0.1
            module.bias *= 0.1
          else:
            module.bias[::3] *= -1
        uniform(module.running_mean, -0.2, 0.2)
        uniform(module.running_var, 0.5, 1.5)
      elif isinstance(module, nn.Linear):
        module.weight.normal_(0, 0.05, generator=generator)
        uniform(module.bias, -0.5, 0.5)
  return network.eval()


def make_smooth(network: nn.Module) -> nn.Module:
  """Puts softplus where the network has ReLU."""
  for module in list(network.modules()):
    for name, child in module.named_children():
      if isinstance(child, nn.ReLU):
        setattr(module, name, nn.Softplus())
  return network


def pathways(network: nn.Module, x: np.ndarray) -> list | torch.Tensor:
  """Pixels `[B, T, H, W, 3]` as the network takes them."""
  fast = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 4, 1, 2, 3)))
  if not has_two(network):
    return fast
  frames = fast.shape[2]
  slow = torch.linspace(0, frames - 1, frames // 4).long()
  return [fast[:, :, slow], fast]


def has_two(network: nn.Module) -> bool:
  return hasattr(network.blocks[0], "multipathway_blocks")


def run(network: nn.Module, x: np.ndarray, *, window: int = 0) -> dict:
  """Every stage's activations, the pooled feature and the logits.

  Args:
    network: result of `build`; in training mode its statistics move.
    x: normalised pixels `[B, T, H, W, 3]`.
    window: 0 pools the whole map; else windows of this side.

  Returns:
    stages: name -> [slow, fast] or [slow], `[B, C, T, H, W]`, before fusion;
    features `[B, C]` (`[B, P, C]` with windows), logits, as tensors.
  """
  two, stages = has_two(network), {}
  x = pathways(network, x)
  for number, block in enumerate(network.blocks[:5], start=1):
    if two:
      x = [part(v) for part, v in zip(block.multipathway_blocks, x)]
      stages[f"s{number}"] = list(x)
      if hasattr(block.multipathway_fusion, "conv_fast_to_slow"):
        x = block.multipathway_fusion(x)
    else:
      x = block(x)
      stages[f"s{number}"] = [x]
  pooled = []
  for value in x if two else [x]:
    if window:
      value = nn.functional.avg_pool3d(value, (value.shape[2], window, window), stride=1)
      pooled.append(value.flatten(2).transpose(1, 2))
    else:
      pooled.append(value.mean(dim=(2, 3, 4)))
  features = torch.cat(pooled, dim=-1)
  return {"stages": stages, "features": features, "logits": network.blocks[-1].proj(features)}


# --- Names of other families, by rules on pytorchvideo's names. Stated again:
# --- the library goes the other way, from its own tree.


def pyslowfast_name(name: str, two: bool) -> str:
  """`blocks.1.res_blocks.0.branch2.conv_a.weight` in PySlowFast's words."""
  if ".proj." in name:
    return name.replace(f"blocks.{6 if two else 5}.proj", "head.projection")
  match = re.fullmatch(r"blocks\.(\d)\.(.*)", name)
  stage, rest = int(match[1]) + 1, match[2]
  if rest.startswith("multipathway_fusion."):
    rest = rest.removeprefix("multipathway_fusion.")
    rest = rest.replace("conv_fast_to_slow", "conv_f2s").replace("norm", "bn")
    return f"s{stage}_fuse.{rest}"
  path = 0
  if two:
    path, rest = re.fullmatch(r"multipathway_blocks\.(\d)\.(.*)", rest).groups()
  if stage == 1:
    return f"s1.pathway{path}_stem.{rest.replace('norm', 'bn')}"
  block, rest = re.fullmatch(r"res_blocks\.(\d+)\.(.*)", rest).groups()
  rest = rest.replace("branch1_conv", "branch1").replace("branch1_norm", "branch1_bn")
  rest = re.sub(r"branch2\.conv_([abc])", r"branch2.\1", rest)
  rest = re.sub(r"branch2\.norm_([abc])", r"branch2.\1_bn", rest)
  return f"s{stage}.pathway{path}_res{block}.{rest}"


def caffe2_name(name: str, last_block: dict[int, int]) -> str:
  """A PySlowFast name in the words of the Caffe2 model zoo."""
  if name.startswith("head.projection"):
    return "pred_w" if name.endswith("weight") else "pred_b"
  ending = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}[
    name.rsplit(".", 1)[1]
  ]
  is_norm = re.search(r"(\.|_)bn\.", name) is not None
  ending = f"bn_{ending}" if is_norm else "w"
  if match := re.match(r"s(\d)_fuse", name):
    stage = int(match[1])
    if stage == 1:
      return f"t_pool1_subsample_{ending}"
    return f"t_res{stage}_{last_block[stage]}_branch2c_bn_subsample_{ending}"
  stage, path = re.match(r"s(\d)\.pathway(\d)", name).groups()
  prefix = "t_" if path == "1" else ""
  if stage == "1":
    return f"{prefix}{'res_' if is_norm else ''}conv1_{ending}"
  block = re.search(r"_res(\d+)\.", name)[1]
  branch = re.search(r"branch2\.([abc])", name)
  branch = f"2{branch[1]}" if branch else "1"
  return f"{prefix}res{stage}_{block}_branch{branch}_{ending}"


def state(network: nn.Module) -> dict[str, torch.Tensor]:
  """pytorchvideo's entries."""
  return dict(network.state_dict())


def pyslowfast_state(network: nn.Module) -> dict[str, torch.Tensor]:
  two = has_two(network)
  return {pyslowfast_name(k, two): v for k, v in state(network).items()}
