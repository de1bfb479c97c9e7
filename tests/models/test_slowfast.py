"""SlowFast with clips side by side computes what it computes clip by clip."""

from __future__ import annotations

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax.models import backbones
from sum_l_jax.models import slowfast
from sum_l_jax.models.layers import packing


def _pathway(features, kernel):
  return backbones.PathwaySpec(
    stem=backbones.StemSpec(features, kernel),
    stages=(
      backbones.StageSpec(1, features, 2 * features, 3, stride=1),
      backbones.StageSpec(1, 32 * features, 8, 1),
    ),
  )


SPEC = backbones.NetworkSpec(
  slow=_pathway(4, (1, 3, 3)), fast=_pathway(2, (3, 3, 3)), alpha=2, fusion_kernel=3
)


def _network(backend, pack_clips, bn_group_size=0):
  options = backbones.EncoderOptions(
    conv=backend, bn_group_size=bn_group_size, pack_clips=pack_clips
  )
  return slowfast.SlowFast(SPEC, options, np.random.default_rng(0))


def test_stages_fill_the_lanes():
  spec = backbones.BACKBONES["slowfast_r50"].spec
  build = lambda count: slowfast._packs(spec.fast, count)
  # 8, 8, 16, 32, 64 channels, 128 lanes.
  assert build(8) == (8, 8, 8, 4, 2)
  assert build(16) == (16, 16, 8, 4, 2)
  assert build(1) == (1, 1, 1, 1, 1)
  # What can't be halved is taken apart.
  assert build(3) == (3, 3, 3, 3, 1)
  # 64, 64, 128, 256, 512.
  assert slowfast._packs(spec.slow, 8) == (2, 2, 1, 1, 1)


def _value_and_gradient(network, x):
  graphdef, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
  # The last of a block starts as zero, and would hide the rest.
  params = jax.tree.map(lambda p: jnp.where(p == 0, 0.5, p), params)

  @jax.jit
  def run(params, x):
    def loss(params):
      copy = nnx.merge(graphdef, params, stats, copy=True)
      y, stages = copy(x, train=True)
      weight = jnp.sin(jnp.arange(y.shape[-1]))
      return (y * weight).sum(), (y, stages, nnx.state(copy, nnx.BatchStat))

    return jax.grad(loss, has_aux=True)(params)

  return run(params, x)


def test_packed_and_apart_agree():
  x = np.random.default_rng(1).standard_normal((4, 4, 12, 12, 3), np.float32)
  packed = _network("tpu", 4)
  assert packed._choose_frames(4, 4) == 4  # 4 clips of 2 channels.
  assert packed._choose_frames(3, 4) == packed._choose_frames(4, 1) == 1
  # Inner channels are 4, 4, 128 and 2, 2, 64.
  assert packed._choose_packs(4, train=True) == ((4, 4, 1), (4, 4, 2))
  apart = ((1, 1, 1), (1, 1, 1))
  assert packed._choose_packs(4, train=False) == apart
  assert _network("gpu", 4)._choose_packs(4, train=True) == apart
  apart = _value_and_gradient(_network("gpu", 1), x)
  got = _value_and_gradient(packed, x)
  assert jax.tree.structure(got) == jax.tree.structure(apart)
  for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(apart)):
    scale = np.abs(other).max() + 1e-3
    np.testing.assert_allclose(one / scale, other / scale, atol=2e-4)


@pytest.mark.parametrize(
  "batch,chips,group,expected",
  [
    (64, 8, 0, 8),
    (64, 1, 0, 8),
    (12, 1, 0, 4),
    (12, 4, 0, 1),
    (64, 16, 0, 4),
    (64, 8, 2, 2),
    (64, 8, 12, 4),
    (7, 1, 0, 1),
  ],
)
def test_as_many_clips_as_divide_those_of_a_chip(batch, chips, group, expected):
  mesh = jax.sharding.AbstractMesh((chips,), ("data",))
  with jax.sharding.use_abstract_mesh(mesh):
    assert packing.fitting_count(batch, group) == expected
    network = _network("tpu", 0, group)
    assert network._choose_packs(batch, train=True)[1][0] == expected


def test_clips_that_cannot_be_shared_out():
  x = np.zeros((3, 4, 12, 12, 3), np.float32)
  with pytest.raises(ValueError, match="pack_clips=2 must divide.* 3 clips"):
    _network("tpu", 2)(x, train=True)
