"""PyTorch's side of the comparison is the same network."""

from __future__ import annotations

import pytest
import torch

from sum_l_jax.models import backbones
from sum_l_jax.tools.device_check import torch_peer
from tests.support import reference_networks


@pytest.mark.parametrize(
  "backbone, model", [("slow_r50", "slow_r50_8x8"), ("slowfast_r50", "slowfast_r50_8x8")]
)
def test_it_is_the_published_network(backbone, model):
  """With its weights, pytorchvideo's features."""
  spec = backbones.BACKBONES[backbone].spec
  blocks = reference_networks.build(model).blocks
  blocks = blocks[: -2 if spec.fast else -1]
  network = torch_peer.Encoder(spec).eval()
  pathways = [network.slow, network.fast] if spec.fast else [network.slow]
  _copy(pathways, network.fusion, blocks)
  x = torch.randn(1, 3, 8 * (4 if spec.fast else 1), 64, 64)
  with torch.no_grad():
    theirs = [x[:, :, :: spec.alpha], x] if spec.fast else x
    for block in blocks:
      theirs = block(theirs)
    maps = theirs if spec.fast else [theirs]
    expected = torch.cat([m.mean((2, 3, 4)) for m in maps], dim=1)
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4 * expected.std().item())


def _copy(pathways, fusion, blocks):
  """Weights in the order in which both networks have them."""
  for index, block in enumerate(blocks):
    if len(pathways) == 1:
      pairs = [(pathways[0][index], block)]
    else:
      pairs = list(zip((p[index] for p in pathways), block.multipathway_blocks))
      if index < len(fusion):
        pairs.append((fusion[index], block.multipathway_fusion))
    for ours, theirs in pairs:
      _copy_module(ours, theirs)


def _copy_module(ours, theirs):
  own = [m for m in _ordered(ours) if isinstance(m, (torch.nn.Conv3d, torch.nn.BatchNorm3d))]
  other = [m for m in theirs.modules() if isinstance(m, (torch.nn.Conv3d, torch.nn.BatchNorm3d))]
  assert [type(m) for m in own] == [type(m) for m in other]
  for a, b in zip(own, other):
    a.load_state_dict(b.state_dict())


def _ordered(module):
  """Modules with the shortcut of a block first, as pytorchvideo has it."""
  if isinstance(module, torch_peer.Bottleneck):
    yield from module.shortcut.modules()
    yield from module.branch.modules()
    return
  yield module
  for child in module.children():
    yield from _ordered(child)
