"""Charades-Ego's mAP against a statement of the official scorer."""

from __future__ import annotations

from etils import epath
import numpy as np
import pytest

from sum_l_jax.evaluation.benchmarks import charades_ego_map

NAMES = [
  "Holding some clothes",
  "Tidying a table, or a desk",
  *(f"Doing {i}" for i in range(2, 157)),
]


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
  (tmp_path / "CharadesEgo").mkdir()
  lines = [f"c{i:03d} {name}\n" for i, name in enumerate(NAMES)]
  (tmp_path / "CharadesEgo" / "Charades_v1_classes.txt").write_text("".join(lines))
  rows = ["id,script,actions,length,egocentric"]
  # An action without a length counts as well: only classes are read.
  rows += ['AEGO,"a, b",c001 3.0 2.0;c156 0.00 4.00,5,Yes', 'BEGO,"line\nbreak",,5,Yes']
  (tmp_path / "CharadesEgo" / "CharadesEgo_v1_test_only1st.csv").write_text("\n".join(rows))
  return epath.Path(tmp_path)


def _official(scores, targets):
  """Average precision of each class, with videos without a label at the end."""
  labelled = targets.any(axis=1)
  out = []
  for own, truth in zip(scores.T, targets.T):
    order = [*np.flatnonzero(labelled)[np.argsort(-own[labelled])], *np.flatnonzero(~labelled)]
    ranked = truth[order]
    places = np.flatnonzero(ranked)
    out.append(np.mean(ranked.cumsum()[places] / (places + 1)) if places.size else np.nan)
  return np.array(out)


def _videos(targets):
  names = tuple(f"name {i}" for i in range(targets.shape[1]))
  return charades_ego_map.Videos(tuple(map(str, range(len(targets)))), targets, names, ())


def test_videos_and_names_are_read_by_their_columns(folder):
  videos = charades_ego_map.read_videos(folder)
  assert videos.clip_ids == ("AEGO", "BEGO")
  assert [np.flatnonzero(row).tolist() for row in videos.targets] == [[1, 156], []]
  assert videos.names[:3] == ("Holding some clothes", "Tidying a table", "Doing 2")
  assert videos.notes == ("1 class names have a comma and are cut there.",)
  whole = charades_ego_map.read_videos(folder / "CharadesEgo", names="whole")
  assert whole.names == tuple(NAMES) and whole.notes == ()
  path = folder / "CharadesEgo" / "CharadesEgo_v1_test_only1st.csv"
  path.write_text(path.read_text().replace("c156", "c157"))
  with pytest.raises(ValueError, match="classes c000 to c156; got 'c157 0.00 4.00'"):
    charades_ego_map.read_videos(folder)


def test_map_is_the_official_one():
  rng = np.random.default_rng(0)
  targets = rng.random((40, 6)) < 0.25
  targets[5:9] = False
  scores = rng.standard_normal((40, 6))
  found = charades_ego_map.score(scores, _videos(targets))
  wanted = _official(scores, targets)
  assert found.metrics["map"].value == pytest.approx(wanted.mean(), abs=1e-12)
  assert found.metrics["map_of_occurring"].value == found.metrics["map"].value
  unlabelled = int((~targets.any(axis=1)).sum())
  assert found.counts["videos_without_label"] == unlabelled
  assert f"{unlabelled} videos have no label and rank last" in found.notes[0]
  # A class that no video has: the official mean is undefined, and that is said.
  targets[:, 2] = False
  found = charades_ego_map.score(scores, _videos(targets))
  assert np.isnan(found.metrics["map"].value)
  wanted = np.nanmean(_official(scores, targets))
  assert found.metrics["map_of_occurring"].value == pytest.approx(wanted, abs=1e-12)
  assert "1 classes have no video ('name 2'), so the official mean is NaN" in found.notes[0]


def test_chance_is_the_mean_over_random_orders():
  rng = np.random.default_rng(1)
  targets = rng.random((12, 3)) < 0.4
  targets[:4] = False
  targets[4] = True
  drawn = [_official(rng.random((12, 3)), targets).mean() for _ in range(3000)]
  assert charades_ego_map.chance(targets) == pytest.approx(np.mean(drawn), abs=0.005)
