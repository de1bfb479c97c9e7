"""What the tests of prediction share: a model and two videos."""

from __future__ import annotations

import pytest

import sum_l_jax
from tests.support import predicted_videos


@pytest.fixture(scope="module", name="model")
def model_fixture(finished):
  return sum_l_jax.load(finished[0])


@pytest.fixture(scope="module", name="video")
def video_fixture(tmp_path_factory):
  return predicted_videos.write_clip(tmp_path_factory.mktemp("video") / "clip.mp4")


@pytest.fixture(scope="module", name="cut_off")
def cut_off_fixture(tmp_path_factory):
  return predicted_videos.write_cut_off(tmp_path_factory.mktemp("cut_off") / "cut.mp4")
