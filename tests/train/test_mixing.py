"""Mixup and CutMix: pixels, shares and labels of what is mixed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax import build
from sum_l_jax.config import read
from sum_l_jax.train import mixing

B, T, H, W = 6, 3, 20, 24


def _batch():
  rng = np.random.default_rng(0)
  view = lambda: {
    "video": rng.integers(0, 256, (B, T, H, W, 3)).astype(np.uint8),
    "labels": {"verb": np.arange(B), "noun": rng.integers(0, 2, (B, 4)).astype(np.float32)},
    "known": {"verb": rng.integers(0, 2, (B, 7)).astype(bool)},
    "mask": np.array([1.0, 0, 1, 1, 1, 1], np.float32),
    "color_offset": rng.standard_normal((B, 3)).astype(np.float32),
  }
  return {"ego": view(), "exo": view()}


NEIGHBOUR = [1, 0, 3, 2, 5, 4]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_what_a_mixed_batch_shows_and_says(kind):
  batch = _batch()
  mixed = jax.jit(mixing.Mixing(**{kind: 0.8}))(batch, jax.random.key(4))
  shares = {}
  for view, part in mixed.items():
    other = part["mixed"]
    video = np.asarray(part["video"])
    assert video.dtype == np.uint8
    (share,) = {float(s) for s in other["share"]}
    shares[view] = share
    own, neighbour = batch[view]["video"], batch[view]["video"][NEIGHBOUR]
    if kind == "mixup":
      exact = share * own.astype(np.float64) + (1 - share) * neighbour
      assert np.abs(video - exact).max() < 0.501
    else:
      # A rectangle, the same in all frames and clips, has the neighbour's pixels.
      differs = (own != neighbour).any(-1)
      assert ((video == own).all(-1) | (video == neighbour).all(-1)).all()
      inside = ((video == neighbour).all(-1) & differs).any((0, 1))
      rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
      assert len(rows) and len(columns)
      box = np.zeros((H, W), bool)
      box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
      np.testing.assert_array_equal(inside, box)
      np.testing.assert_array_equal(video, np.where(box[:, :, None], neighbour, own))
      assert share == pytest.approx(1 - box.mean(), abs=1e-6)
    for name in ("verb", "noun"):
      np.testing.assert_array_equal(part["labels"][name], batch[view]["labels"][name])
      np.testing.assert_array_equal(other["labels"][name], batch[view]["labels"][name][NEIGHBOUR])
    np.testing.assert_array_equal(other["known"]["verb"], batch[view]["known"]["verb"][NEIGHBOUR])
    np.testing.assert_array_equal(other["mask"], batch[view]["mask"][NEIGHBOUR])
    np.testing.assert_array_equal(part["color_offset"], batch[view]["color_offset"])
  assert shares["ego"] != shares["exo"]


def test_shares_are_those_of_the_distributions():
  both = mixing.Mixing(mixup=0.8, cutmix=1.0, switch=0.6)
  assert both and not mixing.Mixing()
  keys = jax.random.split(jax.random.key(0), 8000)
  own, share = map(np.asarray, jax.jit(jax.vmap(lambda key: both._draw(key, 50, 50)))(keys))
  cut = np.isin(own, (0.0, 1.0)).all((1, 2))
  assert cut.mean() == pytest.approx(0.6, abs=0.02)
  mixed = share[~cut]
  np.testing.assert_allclose(own[~cut], mixed[:, None, None] + np.zeros((50, 50)), rtol=1e-5)
  # Beta(a, a) has the mean 1 / 2 and the variance 1 / (4 (2 a + 1)).
  assert mixed.mean() == pytest.approx(0.5, abs=0.02)
  assert mixed.var() == pytest.approx(1 / (4 * 2.6), abs=0.005)
  # The area of a rectangle with sides sqrt(u) whose middle is uniform: what the
  # border leaves of a side s is s - s^2 / 4 on average.
  u = (np.arange(100_000) + 0.5) / 100_000
  side = np.floor(50 * np.sqrt(u)) / 50
  expected = np.mean((side - side**2 / 4) ** 2)
  assert 1 - share[cut].mean() == pytest.approx(expected, abs=0.02)
  # Every place is covered, those in the middle more often.
  covered = 1 - own[cut].mean(0)
  assert covered.min() > 0.1 and covered[25, 25] > 2 * covered[0, 0]


def test_clips_need_neighbours_and_pixels():
  batch = {"ego": {**_batch()["ego"], "video": jnp.zeros((3, 1, 4, 4, 3), jnp.uint8)}}
  with pytest.raises(ValueError, match="batch of 3 has one left over"):
    mixing.Mixing(mixup=1.0)(batch, jax.random.key(0))
  del batch["ego"]["video"]
  with pytest.raises(ValueError, match="has none: set mixing to 0"):
    mixing.Mixing(mixup=1.0)(batch, jax.random.key(0))


def _resolved(**fields):
  config = read.default_config()
  config.update_from_flattened_dict({"model.backbone": "tiny", **fields})
  return build.resolve(config)


def test_mixed_clips_are_not_aligned():
  for name in ("mixup", "cutmix"):
    with pytest.raises(ValueError, match=f"joint_stage.{name}=0.8 shows two .*ego_exo=0.02 aligns"):
      _resolved(**{f"joint_stage.{name}": 0.8})
    with pytest.raises(ValueError, match="exo_text=0.1 aligns"):
      _resolved(
        **{
          f"joint_stage.{name}": 0.8,
          "loss.weights.ego_exo": 0.0,
          "loss.weights.ego_text": 0.0,
        }
      )
    _resolved(**{f"joint_stage.{name}": 0.8, "method": "fpv_only"})
    _resolved(**{f"exo_stage.{name}": 0.8, "stages": ("exo", "joint")})
    with pytest.raises(ValueError, match="must be even, got 7"):
      _resolved(**{f"exo_stage.{name}": 0.8, "stages": ("exo",), "exo_stage.batch_size": 7})
