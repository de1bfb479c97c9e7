"""What the soak of preempted runs calls equal."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stress import arena
from tests.stress import preemptions

WHOLE = {
  "joint 6 params/a": np.array([1.0, -0.0, 3.0], np.float32),
  "joint 6 opt_state/a": np.array([1.0, 2.0], np.float32),
  "joint 6 step": np.int32(6),
  "metrics": np.array('{"val": 0.5}'),
}


def _compare(tmp_path, changes, *, optimizer=True, without=()):
  np.savez(tmp_path / "whole.npz", **WHOLE)
  found = {k: v for k, v in (WHOLE | changes).items() if k not in without}
  np.savez(tmp_path / "found.npz", **found)
  return preemptions._compare(tmp_path / "found.npz", tmp_path / "whole.npz", optimizer=optimizer)


def test_every_bit_counts(tmp_path):
  assert _compare(tmp_path, {}) == 0.0
  one = {"joint 6 params/a": np.array([1.0, 0.0, 3.0], np.float32)}
  assert 0.0 < _compare(tmp_path, one) < 1e-6
  one["joint 6 params/a"][2] += 3e-6
  assert 0.8e-6 < _compare(tmp_path, one) < 1.2e-6  # Relative to its largest value.


def test_the_optimizer_counts_where_it_is_asked_for(tmp_path):
  other = {"joint 6 opt_state/a": np.array([1.0, 2.5], np.float32)}
  assert _compare(tmp_path, other) == pytest.approx(0.25)
  assert _compare(tmp_path, other, optimizer=False) == 0.0


@pytest.mark.parametrize(
  "changes, without",
  [
    ({"joint 6 step": np.int32(4)}, ()),
    ({"metrics": np.array('{"val": 0.6}')}, ()),
    ({"joint 6 params/a": np.zeros(2, np.float32)}, ()),
    ({}, ("joint 6 params/a",)),
  ],
)
def test_what_is_no_matter_of_rounding_is_lost(changes, without, tmp_path):
  with pytest.raises(arena.LostError):
    _compare(tmp_path, changes, without=without)
