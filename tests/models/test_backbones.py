"""The networks have the published sizes; nothing is run or allocated."""

from __future__ import annotations

from flax import nnx
import jax
import jax.numpy as jnp
import pytest

from sum_l_jax import models

# Parameters of the backbone alone, and with the heads of each label set:
# counted on the reference modules (PySlowFast and the authors' releases).
K400 = {"action": 400}
EPIC55 = {"verb": 125, "noun": 352}
EPIC100 = {"verb": 97, "noun": 300}
CHARADES = {"action": 157}
LEMMA = {"verb": 25, "noun": 64}
COUNTS = [
  ("slow_r50", {}, 31_634_496),
  ("slow_r50", K400, 32_454_096),
  ("slow_r50", EPIC55, 32_611_869),
  ("slow_r50", EPIC100, 32_447_949),
  ("slow_r50", CHARADES, 31_956_189),
  ("slow_r50", LEMMA, 31_816_857),
  ("slowfast_r50_4x16", {}, 33_558_216),
  ("slowfast_r50_4x16", K400, 34_480_216),
  ("slowfast_r50_4x16", EPIC55, 34_657_701),
  ("slowfast_r50", {}, 33_644_488),
  ("slowfast_r50", K400, 34_566_488),
  ("slowfast_r50", EPIC55, 34_743_973),
  ("slowfast_r101", {}, 61_904_968),
  ("slowfast_r101", K400, 62_826_968),
  ("slowfast_r101", EPIC100, 62_820_053),
]
RUNNING_VALUES = {
  "slow_r50": 53_120,
  "slowfast_r50_4x16": 60_688,
  "slowfast_r50": 60_688,
  "slowfast_r101": 119_440,
}
CONVOLUTIONS = {"slow_r50": 53, "slowfast_r50_4x16": 110, "slowfast_r50": 110, "slowfast_r101": 212}


@pytest.fixture(name="abstract", scope="module")
def _abstract():
  """Encoders as shapes, built once per backbone."""
  built = {}

  def build(backbone):
    if backbone not in built:
      built[backbone] = nnx.eval_shape(
        lambda: models.make_model(backbone=backbone, tasks={"ego": {}}, embedding_dim=None)
      )
    return built[backbone]

  return build


@pytest.mark.parametrize("backbone,tasks,count", COUNTS)
def test_parameter_count(abstract, backbone, tasks, count):
  width = models.BACKBONES[backbone].spec.feature_dim
  heads = nnx.eval_shape(
    lambda: models.make_model(backbone="tiny", tasks={"ego": tasks}, embedding_dim=None)
  )
  encoder = models.count_parameters(abstract(backbone))
  linear = models.count_parameters(heads.ego.heads) if tasks else 0
  classes = sum(tasks.values())
  # A head is one linear layer per task; here on the width of `tiny`.
  assert linear == classes * (models.BACKBONES["tiny"].spec.feature_dim + 1)
  assert encoder + classes * (width + 1) == count


@pytest.mark.parametrize("backbone", RUNNING_VALUES)
def test_running_values_and_convolutions(abstract, backbone):
  _, params, stats = nnx.split(abstract(backbone), nnx.Param, nnx.BatchStat)
  assert models.count_parameters(stats) == RUNNING_VALUES[backbone]
  kernels = [x for x in jax.tree.leaves(params) if len(x.shape) == 5]
  assert len(kernels) == CONVOLUTIONS[backbone]


@pytest.mark.slow
def test_complete_model_as_released():
  """Two encoders, EK-100 and LEMMA heads, two projections 2304 -> 384."""
  model = nnx.eval_shape(
    lambda: models.make_model(
      backbone="slowfast_r101", tasks={"ego": EPIC100, "exo": LEMMA}, embedding_dim=384
    )
  )
  assert models.count_parameters(model) == 126_700_406
  assert models.count_parameters(model.ego.projection) == 885_120


@pytest.mark.parametrize("backbone", [name for name, e in models.BACKBONES.items() if e.spec])
def test_spec_describes_itself(backbone):
  entry = models.BACKBONES[backbone]
  spec = entry.spec
  assert entry.frames_multiple == spec.alpha
  assert entry.num_frames % entry.frames_multiple == 0
  assert (spec.fast is None) == (spec.alpha == 1)
  assert entry.stage_names == spec.stage_names


def _stage_shapes(abstract, backbone, frames, side):
  graphdef, state = nnx.split(abstract(backbone))
  video = jax.ShapeDtypeStruct((1, frames, side, side, 3), jnp.uint8)

  def run(state, video):
    model = nnx.merge(graphdef, state, copy=True)
    return model({"ego": {"video": video}}, train=False)["ego"]

  outputs = jax.eval_shape(run, state, video)
  shapes = {
    (stage, path): activation.shape[1:]
    for stage, paths in outputs["stages"].items()
    for path, activation in paths.items()
  }
  return shapes, outputs["features"].shape


def test_slow_r50_stages(abstract):
  shapes, features = _stage_shapes(abstract, "slow_r50", 8, 224)
  assert shapes == {
    ("s1", "slow"): (8, 56, 56, 64),
    ("s2", "slow"): (8, 56, 56, 256),
    ("s3", "slow"): (8, 28, 28, 512),
    ("s4", "slow"): (8, 14, 14, 1024),
    ("s5", "slow"): (8, 7, 7, 2048),
  }
  assert features == (1, 2048)


@pytest.mark.parametrize(
  "backbone,slow_frames,side,last", [("slowfast_r50", 8, 256, 8), ("slowfast_r50_4x16", 4, 224, 7)]
)
def test_slowfast_stages(abstract, backbone, slow_frames, side, last):
  shapes, features = _stage_shapes(abstract, backbone, 32, side)
  sides = (8 * last, 8 * last, 4 * last, 2 * last, last)
  slow, fast = (64, 256, 512, 1024, 2048), (8, 32, 64, 128, 256)
  for index, (length, wide, thin) in enumerate(zip(sides, slow, fast)):
    name = f"s{index + 1}"
    assert shapes[name, "slow"] == (slow_frames, length, length, wide)
    assert shapes[name, "fast"] == (32, length, length, thin)
  assert features == (1, 2304)


def test_slow_pathway_takes_the_fused_channels(abstract):
  slow = abstract("slowfast_r50").ego.encoder.slow
  first = [stage[0].a.conv for stage in (slow.s2, slow.s3, slow.s4, slow.s5)]
  assert [c.kernel.shape[3] for c in first] == [80, 320, 640, 1280]


@pytest.mark.parametrize("backbone,size", [("slowfast_r50", 7), ("slowfast_r101", 5)])
def test_fusion_kernels_differ_between_depths(abstract, backbone, size):
  fusion = abstract(backbone).ego.encoder.fusion
  assert [f.conv.kernel.shape[0] for f in fusion] == [size] * 4
  assert [f.conv.strides for f in fusion] == [(4, 1, 1)] * 4
