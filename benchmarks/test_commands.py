"""What the benchmarks compare with is right, and their commands parse."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from benchmarks import checkpoints
from benchmarks import exact_search
from benchmarks import feature_extraction
from benchmarks import feature_rate
from benchmarks import growth
from benchmarks import host_input
from benchmarks import input_rate
from benchmarks import mining_rate
from benchmarks import vit
from sum_l_jax.data import nearest


def test_the_reference_recipe_gives_our_pixels(tmp_path):
  """Within one grey level; half of it is the rounding of our resize."""
  input_rate.write_clips(tmp_path, 1)
  assert 0 < input_rate.agreement(tmp_path, 3) <= 1.0
  reference = input_rate.ReferenceClips(tmp_path / "files")[0]
  assert reference.shape == (3, 32, 224, 224)


def test_both_transformers_give_the_same_tokens():
  """The one in PyTorch has our weights, and the update's loss is a function of these."""
  spec = vit.row("videomae_b", depth=1, quick=True)
  small = dataclasses.replace(spec, width=64, mlp=128, heads=2)
  assert vit.difference(small) < 1e-5


def test_numpy_finds_what_mining_finds():
  queries = mining_rate.unit_vectors(1030, 1)
  keys = mining_rate.unit_vectors(500, 2)
  positions, _ = nearest.nearest(queries, keys, 10)
  found = mining_rate.by_numpy(queries, keys, 10)
  # Float32 can swap two that are equal to 1e-7.
  assert (positions == found).mean() > 0.999


def test_exact_search_is_compared_with_brute_force(capsys):
  sizes = ["--queries=300", "--keys=1000", "--dim=16", "--block=128", "--check=50"]
  assert exact_search.main(sizes) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.partition(":")[0] for line in lines] == ["random", "clustered"]
  assert all(line.endswith("; 0 of 50 queries differ from brute force") for line in lines)


def test_without_faiss_the_others_are_compared(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(mining_rate, "_QUICK", ((64, 300, 2),))
  monkeypatch.setattr(mining_rate, "find_faiss", lambda folder: None)
  output = tmp_path / "mining.json"
  assert mining_rate.main(["--quick", f"--output={output}"]) == 0
  assert "faiss is not there and is left out" in capsys.readouterr().out
  (size,) = json.loads(output.read_text("utf-8"))["results"]["sizes"]
  assert list(size["wall"]["our_rate_over"]) == ["numpy"]
  assert size["share_of_same_positions"]["numpy"] > 0.99


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponents_of_power_laws(power):
  sizes = np.array([4, 8, 16, 32])
  assert growth.exponent(sizes, 3.0 * sizes**power) == pytest.approx(power)


def test_the_larger_half_has_two_points_at_least():
  fitted = growth._fitted([1, 10], [1.0, 100.0])
  assert fitted["exponent"] == pytest.approx(2.0)
  assert fitted["exponent_of_larger_half"] == pytest.approx(2.0)


def test_growth_draws_its_curves(tmp_path):
  curve = growth._fitted([1, 2, 4], [1.0, 2.0, 4.0])
  assert curve["exponent"] == pytest.approx(1.0)
  growth.draw({"a": curve, "b": curve, "c": curve}, tmp_path / "x.png")
  assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_of_cores_is_that_of_the_committed_results():
  """It follows when the steps are compiled, or clips are read, once more."""
  page = (pathlib.Path(__file__).parents[1] / "docs" / "performance.md").read_text("utf-8")
  assert host_input.committed_table() in page
  # 16 clips in a fifth of a second on each of two chips, by cores of 40 a second.
  program = {
    "backbone": "x",
    "method": "sum_l",
    "stage": "joint",
    "topology": "v5e:1x2",
    "chips": 2,
    "batch_size": 16,
    "batch_per_chip": 8,
    "clip": [32, 224],
    "step_seconds": {"cycles": 0.2, "arithmetic": 0.1, "memory": 0.1},
  }
  rates = {"frames": 32, "crop": 224, "processor": {"disk": {"median": 40.0}}}
  assert host_input.table({"places": [rates]}, [program]).endswith(
    "| `x`, 8 pairs of 32 x 224 x 224, v5e | 200 ms | 80 | 40.0 | 2.0 |"
  )


def test_checkpoints_are_timed(tmp_path, capsys):
  output = tmp_path / "checkpoints.json"
  assert checkpoints.main(["--quick", f"--folder={tmp_path}", f"--output={output}"]) == 0
  assert capsys.readouterr().out.startswith("0.02 GB: save ")
  (size,) = json.loads(output.read_text("utf-8"))["results"]["sizes"]
  seconds = size["seconds"]
  assert [len(seconds[name]) for name in ("save", "complete", "checksums")] == [3, 3, 3]
  assert len(seconds["remove"]) == 1  # Two of three stay.
  assert all(a < b for a, b in zip(seconds["checksums"], seconds["complete"]))
  assert 0.015 < size["gigabytes_written"] < 0.025


def test_an_epoch_of_stored_features_reads_every_value(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(feature_rate, "QUICK", {"pooled": (70, 1, 32), "tokens": (9, 5, 4)})
  output = tmp_path / "rate.json"
  assert feature_rate.main(["--quick", f"--folder={tmp_path}", f"--output={output}"]) == 0
  assert len(capsys.readouterr().out.splitlines()) == 18
  found = json.loads(output.read_text("utf-8"))["results"]
  assert {kind: of["bytes"] > of["clips"] * of["tokens"] * 2048 for kind, of in found.items()} == {
    "pooled": True,
    "tokens": True,
  }
  feature_rate.write_set(tmp_path / "set", "tokens", 9, 5)
  assert feature_rate.Epochs(tmp_path / "set", 4, 0)() == 9 * 5 * 2048


def test_feature_extraction_gives_what_transformers_gives(tmp_path, capsys):
  output = tmp_path / "features.json"
  assert feature_extraction.main(["--quick", f"--output={output}"]) == 0
  assert capsys.readouterr().out.startswith("114 x 64: ")
  (found,) = json.loads(output.read_text("utf-8"))["results"]["videos"]
  assert found["windows"] == 3
  # Their resizing is another, and a little of the texture goes with it.
  assert min(found["correlation"].values()) > 0.99
