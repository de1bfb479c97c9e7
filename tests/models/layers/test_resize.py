"""Tables of positions are resized as the libraries of their authors do it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sum_l_jax.models.layers import resize

SIZES = [(7, 3), (2, 11), (5, 4), (1, 1), (10, 8)]


def _table():
  return np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method, mode", [("cubic", "bicubic"), ("linear", "bilinear")])
def test_as_pytorch(size, method, mode):
  image = torch.tensor(_table()).double().permute(2, 0, 1)[None]
  wanted = torch.nn.functional.interpolate(image, size, mode=mode, align_corners=False)
  found = resize.resize(jnp.asarray(_table()), size, method)
  np.testing.assert_allclose(found, wanted[0].permute(1, 2, 0), atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_as_jax_with_antialiasing(size):
  wanted = jax.image.resize(_table(), (*size, 3), "bilinear")
  found = resize.resize(jnp.asarray(_table()), size, "linear_antialias")
  np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_an_unknown_method_is_refused():
  with pytest.raises(ValueError, match="method must be one of .*'nearest'"):
    resize.weights(3, 4, "nearest")
