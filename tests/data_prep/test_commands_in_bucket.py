"""Commands whose inputs and outputs lie in a bucket: the same files as on a disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from data_prep import doctor
from data_prep import embed_narrations
from data_prep import init_manifest
from data_prep import mine_pairs
from data_prep import similarity_report
from data_prep.published_weights import files
from sum_l_jax.system import addresses
from sum_l_jax.system import npz_files
from sum_l_jax.system import storage
from tests.support import numbered_video

pytestmark = pytest.mark.slow


class _Lengths:
  """An encoder that is quick."""

  def __call__(self, texts):
    return np.random.default_rng(len(texts)).standard_normal((len(texts), 16))


@pytest.fixture
def places(bucket, tmp_path, tiny_ego, tiny_exo):
  """A folder of a disk and one of a bucket, with the same data sets."""
  for name, folder in (("ego", tiny_ego), ("exo", tiny_exo)):
    (tmp_path / name).symlink_to(folder)
    storage.upload_folder(folder, bucket / name, last="card.json")
  return tmp_path, bucket


def test_from_the_data_sets_to_the_pairs(places, monkeypatch, capsys):
  monkeypatch.setattr(embed_narrations, "load_encoder", lambda model, device: _Lengths())
  written = []
  for place in places:
    ego, exo, texts = place / "ego", place / "exo", place / "out" / "narrations.npz"
    if not addresses.is_remote(place):
      storage.make_folder(place / "out")
    storage.write_text(place / "more.txt", "peel a mango\n")
    options = [f"--datasets={ego},{exo}", f"--texts={place / 'more.txt'}", f"--output={texts}"]
    assert embed_narrations.main(options) == 0
    assert embed_narrations.main([*options, "--append"]) == 0
    options = [f"--ego={ego}", f"--exo={exo}", f"--narrations={texts}"]
    pairs = place / "out" / "pairs.npz"
    assert mine_pairs.main([*options, f"--output={pairs}", "--top_k=3"]) == 0
    assert similarity_report.main([*options, f"--output={place / 'out' / 'a.png'}"]) == 0
    report, skipped = place / "out" / "report.json", place / "out" / "skipped.txt"
    options = [f"--narrations={texts}", f"--pairs={pairs}", f"--report={report}"]
    status = doctor.main([*map(str, (ego, exo)), *options, f"--skip_list={skipped}", "--verify"])
    said = capsys.readouterr().out.replace(str(place), "PLACE")
    tables = [
      {k: v.tolist() for k, v in npz_files.load(path)[1].items() if k != "command"}
      for path in (texts, pairs)
    ]
    numbers = storage.read_text(place / "out" / "a.json")
    found = storage.read_text(report).replace(str(place), "PLACE")
    assert storage.read_bytes(place / "out" / "a.png")[1:4] == b"PNG"
    written.append((status, said, tables, numbers, json.loads(found)))
    assert storage.names(place / "out") == sorted(
      ["a.json", "a.png", "narrations.npz", "pairs.npz", "report.json", "skipped.txt"]
    )
  assert written[0] == written[1]


def test_a_manifest_of_videos(places):
  written = []
  for place in places:
    for name in ("train/cut_bread/a.mp4", "val/wash/b.mkv", "train/wash/frames/f_001.jpg"):
      if not addresses.is_remote(place):
        storage.make_folder((place / "videos" / name).parent)
      storage.write_bytes(place / "videos" / name, numbered_video.draw(1).tobytes())
    output = place / "manifest.csv"
    assert init_manifest.main([str(place / "videos"), f"--output={output}", "--fps=5"]) == 0
    written.append(storage.read_text(output))
    assert init_manifest.main([str(place / "videos"), f"--output={output}", "--fps=5"]) == 2
  assert written[0] == written[1] and written[0].count("\n") == 4


def test_weights_of_others(places):
  arrays = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
  for place in places:
    path = place / "weights.pyth"
    files.write_torch(path, arrays, "{}")
    read = files.read(path)
    assert read.path == path and read.card == "{}"
    np.testing.assert_array_equal(read.tensors["a.weight"], arrays["a.weight"])
    storage.write_bytes(path, storage.read_bytes(path)[:200])
    with pytest.raises(ValueError, match=str(place)):
      files.read(path)
