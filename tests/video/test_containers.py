"""A sample of the property test of containers; `make soak` runs some hundreds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sum_l_jax.video import media
from tests.stress import containers
from tests.support import made_videos


@pytest.mark.parametrize("suffix", made_videos.CONTAINERS)
@pytest.mark.parametrize("seed", [1, 2])
def test_frames_are_right_in_every_way(tmp_path, monkeypatch, suffix, seed):
  monkeypatch.setattr(media, "_SEEK_SECONDS", 0.3)
  made = made_videos.make(tmp_path, suffix, seed)
  assert containers.check(made, seed) > 5


def test_the_end_of_a_fragmented_mp4_whose_pictures_are_reordered(tmp_path):
  """Its length counts from when the first picture is decoded, 0.58 s early."""
  made = made_videos.make(tmp_path, "mp4", 75)
  assert containers.check(made, 75) > 5


def test_the_check_finds_a_wrong_frame(tmp_path):
  made = made_videos.make(tmp_path, "mp4", 1)
  late = dataclasses.replace(made, times=tuple(np.asarray(made.times) + 0.2))
  with pytest.raises(AssertionError):
    containers.check(late, 1)
