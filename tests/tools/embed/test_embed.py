"""Embeddings of a whole run: the same as the network gives by hand."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import numpy as np
from pyarrow import parquet
import pytest

from data_prep.clips import clip_dataset
from sum_l_jax import build
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import clip_selection
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.main import run
from sum_l_jax.system import devices
from sum_l_jax.tools.embed.__main__ import main
from sum_l_jax.video import decode
from tests.support import runs
from tests.support import tiny_data


@pytest.fixture(scope="module", name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  config.stages = ("exo", "joint")
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  return config


def by_hand(config, weights, dataset, clips):
  """Embeddings of all clips through both towers' network, one clip a call."""
  config = build.resolve(config)
  network = build.build_network(
    config, {"ego": dataset.tasks, "exo": dataset.tasks}, embedding_dim=16
  )
  transform = build.eval_transform(config, "ego")
  apply = jax.jit(
    lambda pixels: network.apply(
      weights.params, weights.stats, {dataset.view: pixels}, train=False
    )[0]
  )
  out = []
  for number, clip in enumerate(dataset.clips):
    views = []
    for sample in range(clips):
      indices = transform.test_indices(clip.num_frames, sample, clips)
      frames = [decode.decode_jpeg(jpeg) for jpeg in dataset.read_frames(number, indices)]
      views.append(transform.test(frames, 1)[0])
    found = [apply({"video": view[None], "color_offset": np.zeros((1, 3), "f4")}) for view in views]
    mean = np.mean([f[dataset.view]["embedding"][0] for f in found], axis=0)
    out.append(mean / np.linalg.norm(mean))
  return np.array(out)


@pytest.mark.parametrize("view, split, clips", [("ego", "val", 3), ("exo", "train", 1)])
def test_vectors_are_those_of_the_network(view, split, clips, config, finished, tiny_ego, tiny_exo):
  weights = weight_files.read_weights(finished[0])
  folder = {"ego": tiny_ego, "exo": tiny_exo}[view]
  dataset = records.ClipDataset(folder, split)
  expected = by_hand(config, weights, dataset, clips)
  for batch_size in (1, 7):
    found = embedding.Embedder(weights, clips=clips, batch_size=batch_size)(dataset)
    assert found.vectors.dtype == np.float32 and found.readable.all()
    np.testing.assert_allclose(found.vectors, expected, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-6)


def test_averaging_does_not_depend_on_order_or_batches():
  rng = np.random.default_rng(0)
  vectors = rng.standard_normal((12, 5)).astype(np.float32)
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  clip, view = np.divmod(np.arange(12), 3)
  step = lambda params, stats, batch: tuple(batch[n] for n in ("video", "clip", "view", "mask"))

  def run(order, size):
    def batches():
      for first in range(0, 12, size):
        rows = order[first : first + size]
        arrays = {
          "video": vectors,
          "clip": clip,
          "view": view,
          "mask": np.ones(12, np.float32),
          "color_offset": view,
        }
        yield {
          name: np.resize(x[rows], (size, *x.shape[1:]))
          if name != "mask"
          else np.pad(x[rows], (0, size - len(rows)))
          for name, x in arrays.items()
        }  # Padding repeats rows, with mask 0.

    return embedding.embed(step, None, None, batches(), num_clips=5, num_views=3)

  expected = run(np.arange(12), 12)
  assert expected.readable.tolist() == [True] * 4 + [False]
  assert not expected.vectors[4].any()
  mean = vectors.reshape(4, 3, 5).astype(np.float64).mean(axis=1)
  np.testing.assert_allclose(
    expected.vectors[:4], mean / np.linalg.norm(mean, axis=1)[:, None], rtol=1e-6
  )
  for size in (1, 5, 7):
    found = run(rng.permutation(12), size)
    np.testing.assert_array_equal(found.vectors, expected.vectors)
  with pytest.raises(ValueError, match="came a second time"):
    run(np.array([0, 1, 2, 0, 3]), 5)
  vectors[3, 0] = np.nan
  with pytest.raises(ValueError, match="not finite"):
    run(np.arange(12), 5)


@pytest.mark.slow
def test_released_projections_and_a_shared_encoder(config, tiny_ego, tiny_exo, tmp_path):
  """The form of the projection comes from the card; exo uses ego's encoder."""
  config = config.copy_and_resolve_references()
  config.stages = ("joint",)
  config.objective = "released"
  config.model.share_encoder = True
  config.joint_stage.total = "1 steps"
  run(config, tmp_path)
  weights = weight_files.read_weights(tmp_path)
  assert "encoder" not in weights.params["exo"]
  dataset = records.ClipDataset(tiny_exo, "train")
  found = embedding.Embedder(weights)(dataset)
  np.testing.assert_allclose(found.vectors, by_hand(config, weights, dataset, 1), atol=2e-6)
  settings = json.loads(weights.card["config"])
  other = dataclasses.replace(
    weights,
    card={**weights.card, "config": (json.dumps(settings | {"model.projection_prenorm": "false"}))},
  )
  plain = embedding.Embedder(other)(dataset)
  assert np.abs(plain.vectors - found.vectors).max() > 1e-3


def read_npz(path):
  with np.load(path, allow_pickle=False) as file:
    columns = {name: file[name] for name in file.files}
  return columns, json.loads(str(columns.pop("about")))


def read_parquet(path):
  table = parquet.read_table(path)
  columns = {n: np.array(table[n].to_pylist()) for n in table.column_names}
  return columns, json.loads(table.schema.metadata[b"about"])


def test_both_formats_agree(finished, tiny_ego, tiny_exo, tmp_path, capsys):
  arguments = [
    f"--checkpoint={finished[0]}",
    f"--datasets={tiny_ego}:val,{tiny_exo}",
    "--split=train",
    "--nearest=3",
    "--batch_size=4",
  ]
  for suffix in ("npz", "parquet"):
    assert main([*arguments, f"--output={tmp_path}/e.{suffix}"]) == 0
  out = capsys.readouterr().out
  assert "16 clips of 2 data set(s), vectors of 16 numbers" in out
  for stem in ("e", "e_nearest"):
    a, about_a = read_npz(tmp_path / f"{stem}.npz")
    b, about_b = read_parquet(tmp_path / f"{stem}.parquet")
    assert about_a == about_b and set(a) == set(b)
    for name in a:
      np.testing.assert_array_equal(a[name], b[name].astype(a[name].dtype))

  found, about = read_npz(tmp_path / "e.npz")
  ego, exo = (records.ClipDataset(*x) for x in ((tiny_ego, "val"), (tiny_exo, "train")))
  clips = [*ego.clips, *exo.clips]
  assert found["clip_id"].tolist() == [c.clip_id for c in clips]
  assert found["narration"].tolist() == [c.narration for c in clips]
  assert found["view"].tolist() == ["ego"] * 5 + ["exo"] * 11
  assert found["split"].tolist() == ["val"] * 5 + ["train"] * 11
  first = json.loads(found["labels"][0])
  assert " ".join([*first["verb"], *first["noun"]]) == clips[0].narration
  assert about["step"] == 6 and set(about["sha256"]) == {"ego", "exo"}

  near, _ = read_npz(tmp_path / "e_nearest.npz")
  assert len(near["rank"]) == 16 * 3
  vectors = found["vector"].astype(np.float64)
  for row in range(16):
    own = near["query_row"] == row
    others = np.arange(5, 16) if row < 5 else np.arange(5)
    cosines = vectors[others] @ vectors[row]
    np.testing.assert_allclose(near["cosine"][own], np.sort(cosines)[::-1][:3], atol=2e-6)
    assert near["rank"][own].tolist() == [1, 2, 3]
    assert set(near["key_row"][own]) <= set(others)
  np.testing.assert_array_equal(near["key_clip_id"], found["clip_id"][near["key_row"]])


def test_unreadable_clips_are_left_out(finished, tmp_path, capsys):
  clips = tiny_data.noise_clips("c", 4, seed=5)
  broken = [frame[: len(frame) // 2] for frame in clips[1].frames]
  clips[1] = dataclasses.replace(clips[1], frames=broken)
  clip_dataset.write_clip_dataset(
    tmp_path / "ego",
    name="broken",
    view="ego",
    tasks=tiny_data.SOFTMAX_TASKS,
    splits={"val": lambda: clips},
  )
  output = tmp_path / "e.npz"
  assert (
    main(
      [f"--checkpoint={finished[0]}", f"--output={output}", f"--datasets={tmp_path / 'ego'}:val"]
    )
    == 0
  )
  assert "1 clips can't be read and are left out: c001" in (capsys.readouterr().out)
  found, about = read_npz(output)
  assert found["clip_id"].tolist() == ["c000", "c002", "c003"]
  assert about["skipped"] == ["c001"]


@pytest.mark.parametrize("of", [1, 3, 8])
def test_parts_give_the_same(finished, tiny_ego, tiny_exo, tmp_path, capsys, of):
  """A whole part, and one of the last clips, can't be read."""
  clips = tiny_data.noise_clips("c", 9, seed=5)
  for number in (3, 4, 5, 8):
    broken = [frame[: len(frame) // 2] for frame in clips[number].frames]
    clips[number] = dataclasses.replace(clips[number], frames=broken)
  clip_dataset.write_clip_dataset(
    tmp_path / "own",
    name="broken",
    view="ego",
    tasks=tiny_data.SOFTMAX_TASKS,
    splits={"val": lambda: clips},
  )
  embed = lambda name, *more: main(
    [
      f"--checkpoint={finished[0]}",
      f"--datasets={tiny_exo}:train,{tmp_path / 'own'}:val,{tiny_ego}:val",
      "--batch_size=3",
      "--nearest=2",
      f"--output={tmp_path / name}",
      *more,
    ]
  )
  assert embed("whole.npz") == 0
  for number in range(1, of):
    assert embed("out.npz", f"--part={number}/{of}") == 0
  capsys.readouterr()
  assert embed("out.npz", f"--merge={of}") == 2
  assert f"1 of {of} parts are missing" in capsys.readouterr().err
  assert embed("out.npz", f"--part=0/{of}") == 0
  assert embed("out.npz", f"--merge={of}") == 0
  for stem in ("", "_nearest"):
    found, wanted = (read_npz(tmp_path / f"{name}{stem}.npz") for name in ("out", "whole"))
    assert found[1] == wanted[1] and set(found[0]) == set(wanted[0])
    for name, column in wanted[0].items():
      np.testing.assert_array_equal(found[0][name], column)
  assert wanted[1]["skipped"] == ["c003", "c004", "c005", "c008"]
  assert not (tmp_path / "out.npz.parts").exists()


def test_parts_of_other_weights_are_refused(finished, tiny_ego, tmp_path, capsys):
  options = [f"--datasets={tiny_ego}:val", f"--output={tmp_path / 'out.npz'}"]
  weights = weight_files.read_weights(finished[0])
  weights.params["ego"]["projection"]["kernel"] = 2 * weights.params["ego"]["projection"]["kernel"]
  weight_files.write_weights(tmp_path / "other.npz", weights)
  assert main([*options, f"--checkpoint={finished[0]}", "--part=0/1"]) == 0
  capsys.readouterr()
  assert main([*options, f"--checkpoint={tmp_path / 'other.npz'}", "--merge=1"]) == 2
  assert "made from something else: sha256 was" in capsys.readouterr().err
  exo_only = f"--checkpoint={finished[0] / 'exo'}"
  assert main([*options, exo_only, "--part=0/1"]) == 2
  assert "it has no ego tower" in capsys.readouterr().err


def test_evenly_spaced_clips(tiny_ego):
  assert clip_selection.spaced(10, 4).tolist() == [0, 2, 5, 7]
  assert clip_selection.spaced(3, 9).tolist() == [0, 1, 2]
  whole = records.ClipDataset(tiny_ego, "train")
  assert whole.fingerprint
  part = clip_selection.subset(whole, np.array([4, 11]))
  assert [c.clip_id for c in part.clips] == ["ego_train_004", "ego_train_011"]
  assert len(whole) == 17 and part.fingerprint != whole.fingerprint
  assert part.read_frames(1, [2]) == whole.read_frames(11, [2])


def test_errors(finished, tiny_ego, tiny_exo, tmp_path, capsys):
  checkpoint = f"--checkpoint={finished[0]}"

  def error(*arguments):
    assert main([*arguments]) == 2
    return capsys.readouterr().err

  assert "names no split: give " in error(checkpoint, f"--datasets={tiny_exo}")
  assert "no split 'test'; it has ['train', 'val']" in error(
    checkpoint, f"--datasets={tiny_ego}:test"
  )
  assert "No clip data set in" in error(checkpoint, f"--datasets={tmp_path}", "--split=val")
  assert "each once" in error(checkpoint, f"--datasets={tiny_ego},{tiny_ego}", "--split=val")
  one = f"--datasets={tiny_ego}:val"
  assert "('.npz', '.parquet')" in error(checkpoint, one, "--output=e.csv")
  assert "there is no folder" in error(checkpoint, one, "--output=nowhere/e.npz")
  assert "two or more data sets" in error(checkpoint, one, "--nearest=2")
  assert "No checkpoint in" in error(f"--checkpoint={tmp_path}", one)
  assert "crops must be one of" in error(checkpoint, one, "--crops=2")
  stage_one = error(f"--checkpoint={finished[0] / 'exo'}", one)
  assert "it has no ego tower, but ['exo']" in stage_one
  assert "no projection into the text space" in error(
    f"--checkpoint={finished[0] / 'exo'}", f"--datasets={tiny_exo}:train"
  )

  # The weights that method "fpv_only" leaves.
  weights = weight_files.read_weights(finished[0])
  ego = {k: v for k, v in weights.params["ego"].items() if k != "projection"}
  fpv = dataclasses.replace(weights, params={"ego": ego}, stats={"ego": weights.stats["ego"]})
  weight_files.write_weights(tmp_path / "fpv.npz", fpv)
  alone = error(f"--checkpoint={tmp_path / 'fpv.npz'}", one)
  assert "its ego tower has no projection" in alone
  assert "method 'fpv_only'" in alone
  assert "it has no exo tower" in error(
    f"--checkpoint={tmp_path / 'fpv.npz'}", f"--datasets={tiny_exo}:train"
  )

  side = pathlib.Path(tmp_path / "side")
  clip_dataset.write_clip_dataset(
    side,
    name="s",
    view="side",
    tasks=tiny_data.SOFTMAX_TASKS,
    splits={"val": lambda: tiny_data.noise_clips("s", 2, seed=1)},
  )
  assert "is of view 'side'; there are towers" in error(checkpoint, f"--datasets={side}:val")


def test_the_batch_must_fit_the_devices(finished, monkeypatch):
  weights = weight_files.read_weights(finished[0])
  with pytest.raises(ValueError, match="batch size must be 1 or more"):
    embedding.Embedder(weights, batch_size=0)
  assert devices.make_mesh().size == 1
