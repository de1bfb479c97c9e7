"""Networks with clips side by side compute what they compute clip by clip."""

from __future__ import annotations

import dataclasses
from unittest import mock

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax.models import backbones
from sum_l_jax.models import network_spec
from sum_l_jax.models import resnet3d
from sum_l_jax.models import slowfast
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.layers import packing

pytestmark = pytest.mark.slow


def _pathway(features, kernel):
  return network_spec.PathwaySpec(
    stem=network_spec.StemSpec(features, kernel),
    stages=(
      network_spec.StageSpec(1, features, 2 * features, 3, stride=1),
      network_spec.StageSpec(1, 32 * features, 8, 1),
    ),
  )


SPEC = network_spec.NetworkSpec(
  slow=_pathway(4, (1, 3, 3)), fast=_pathway(2, (3, 3, 3)), alpha=2, fusion_kernel=3
)


def _network(backend, pack_clips, bn_group_size=0, spec=SPEC):
  options = EncoderOptions(conv=backend, bn_group_size=bn_group_size, pack_clips=pack_clips)
  family = slowfast.SlowFast if spec.fast else resnet3d.ResNet3D
  return family(spec, options, np.random.default_rng(0))


def _packs(network, batch, *, train=True):
  """Clips side by side after s1, s2 ... of the slow and the fast pathway."""
  counts = {"slow": (), "fast": ()}
  run_stage = resnet3d.Pathway.run_stage

  def spy(pathway, name, x, *, train):
    y = run_stage(pathway, name, x, train=train)
    counts[pathway.name] += (batch // y.shape[0],)
    return y

  x = jax.ShapeDtypeStruct((batch, 4, 12, 12, 3), jnp.float32)
  graphdef, state = nnx.split(network)
  with mock.patch.object(resnet3d.Pathway, "run_stage", spy):
    jax.eval_shape(
      lambda state, x: nnx.merge(graphdef, state, copy=True)(x, train=train, prepare=lambda x: x),
      state,
      x,
    )
  return counts["slow"], counts["fast"]


@pytest.mark.parametrize(
  "count,slow,fast",
  [
    # The inner channels are 64, 64, 128, 256, 512 and 8, 8, 16, 32, 64.
    (8, (2, 2, 1, 1, 1), (8, 8, 8, 4, 2)),
    (16, (2, 2, 1, 1, 1), (16, 16, 8, 4, 2)),
    # What can't be halved is taken apart.
    (3, (1, 1, 1, 1, 1), (3, 3, 3, 3, 1)),
    (1, (1, 1, 1, 1, 1), (1, 1, 1, 1, 1)),
  ],
)
def test_stages_fill_the_lanes(count, slow, fast):
  spec = backbones.BACKBONES["slowfast_r50"].spec
  network = nnx.eval_shape(lambda: _network("tpu", count, spec=spec))
  assert _packs(network, 48) == (slow, fast)


@pytest.mark.parametrize("name, slow", [("slow_r50", (2, 2, 1, 1, 1)), ("tiny", (1, 1, 1, 1))])
def test_the_only_pathway_fills_the_lanes(name, slow):
  """Except in `tiny`, whose stem has a convolution of its own."""
  spec = backbones.BACKBONES[name].spec
  network = nnx.eval_shape(lambda: _network("tpu", 8, spec=spec))
  assert _packs(network, 48) == (slow, ())


def _value_and_gradient(network, x):
  graphdef, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
  # The last of a block starts as zero, and would hide the rest.
  params = jax.tree.map(lambda p: jnp.where(p == 0, 0.5, p), params)

  @jax.jit
  def run(params, x):
    def loss(params):
      copy = nnx.merge(graphdef, params, stats, copy=True)
      y, stages, _ = copy(x, train=True, prepare=lambda x: x)
      weight = jnp.sin(jnp.arange(y.shape[-1]))
      return (y * weight).sum(), (y, stages, nnx.state(copy, nnx.BatchStat))

    return jax.grad(loss, has_aux=True)(params)

  return run(params, x)


def test_clips_and_frames_side_by_side():
  packed = _network("tpu", 4)
  choose = lambda frames: packed.fast.stem.choose_packing((4, frames), train=True)
  assert choose(4) == (4, 4)  # 4 clips of 2 channels.
  assert choose(3) == (4, 1)
  assert packed.fast.stem.choose_packing((4, 4), train=False) == (1, 1)
  assert _network("tpu", 1).fast.stem.choose_packing((4, 4), train=True) == (1, 1)
  # Inner channels are 4, 4, 128 and 2, 2, 64.
  assert _packs(packed, 4) == ((4, 4, 1), (4, 4, 2))
  apart = ((1, 1, 1), (1, 1, 1))
  assert _packs(packed, 4, train=False) == apart
  assert _packs(_network("gpu", 4), 4) == apart


# Groups of two clips: their statistics are not torn apart.
# Without norms between the pathways as with them.
_BARE = dataclasses.replace(SPEC, fusion_norm=False, regular_frames=True)
_ALONE = dataclasses.replace(SPEC, fast=None, alpha=1)


@pytest.mark.parametrize(
  "count,group,spec", [(4, 0, SPEC), (2, 2, SPEC), (4, 0, _BARE), (4, 0, _ALONE), (2, 2, _ALONE)]
)
def test_packed_and_apart_agree(count, group, spec):
  x = np.random.default_rng(1).standard_normal((4, 4, 12, 12, 3), np.float32)
  apart = _value_and_gradient(_network("gpu", 1, group, spec), x)
  got = _value_and_gradient(_network("tpu", count, group, spec), x)
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
    assert packing.choose_clips(batch, 0, group) == expected
    stem = _network("tpu", 0, group).fast.stem
    assert stem.choose_packing((batch, 4), train=True)[0] == expected


def test_clips_that_cannot_be_shared_out():
  x = np.zeros((3, 4, 12, 12, 3), np.float32)
  with pytest.raises(ValueError, match="pack_clips=2 must divide.* 3 clips"):
    _network("tpu", 2)(x, train=True, prepare=lambda x: x)
