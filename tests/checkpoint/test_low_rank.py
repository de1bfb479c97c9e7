"""Low-rank updates become part of their kernels, or are refused."""

from __future__ import annotations

import numpy as np
import pytest

from sum_l_jax.checkpoint import low_rank


def tree(seed=0, lead=(3,)):
  draw = np.random.default_rng(seed).standard_normal
  part = lambda *shape: draw((*lead, *shape)).astype(np.float32)
  return {
    "ego": {
      "up": {"kernel": part(4, 6), "bias": part(6), "lora_a": part(4, 2), "lora_b": part(2, 6)},
      "norm": {"scale": part(4)},
    }
  }


def test_the_product_is_added_and_rounded_once():
  params = tree()
  up = params["ego"]["up"]
  merged, card = low_rank.merge(params, {"lora_alpha": 8.0, "stage": "joint"}, "here")
  assert card == {"stage": "joint"}
  assert merged["ego"]["up"].keys() == {"kernel", "bias"}
  double = lambda name: up[name].astype(np.float64)
  expected = double("kernel") + 8.0 / 2 * double("lora_a") @ double("lora_b")
  found = merged["ego"]["up"]["kernel"]
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=1e-7)
  for part, name in (("up", "bias"), ("norm", "scale")):
    assert merged["ego"][part][name] is params["ego"][part][name]
  assert up.keys() == {"kernel", "bias", "lora_a", "lora_b"}  # The argument stays.
  again, card = low_rank.merge(merged, card, "here")
  np.testing.assert_array_equal(again["ego"]["up"]["kernel"], found)


@pytest.mark.parametrize("lost, card", [("lora_a", {"lora_alpha": 8.0}), ("", {})])
def test_half_an_update_is_refused(lost, card):
  params = tree()
  params["ego"]["up"].pop(lost, None)
  with pytest.raises(
    ValueError, match="here has low-rank updates at 'ego/up/' that can't be added"
  ):
    low_rank.merge(params, card, "here")
