"""Vectors of videos and texts, beside those of retrieval."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import sum_l_jax
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.prediction import embedded_windows
from sum_l_jax.prediction import new_texts
from sum_l_jax.prediction import predictor
from sum_l_jax.video import decode


def test_a_clip_has_the_vector_that_retrieval_gives_it(model, finished, tiny_exo, tmp_path):
  """One window as long as the clip, of frames in files, by the tower of its view."""
  data = records.ClipDataset(tiny_exo, "train")
  expected = embedding.Embedder(weight_files.read_weights(finished[0]))(data).vectors
  for number in (0, 3):
    clip, folder = data.clips[number], tmp_path / str(number)
    folder.mkdir()
    for i, jpeg in enumerate(data.read_frames(number, range(clip.num_frames))):
      (folder / f"{i:03d}.jpg").write_bytes(jpeg)
    found = model.embed(folder, fps=clip.fps, view="exo", window=clip.num_frames / clip.fps)
    assert found.video == str(folder) and len(found) == 1
    assert (found.starts[0], found.stops[0]) == (0, pytest.approx(clip.num_frames / clip.fps))
    np.testing.assert_allclose(found.vectors[0], expected[number], atol=2e-6)


def test_windows_share_batches_and_stay_in_order(finished):
  video = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
  one, many = (
    sum_l_jax.load(finished[0], batch_size=size).embed(video, fps=12, window=1.0, stride=0.5)
    for size in (2, 16)
  )
  assert one.starts.tolist() == many.starts.tolist() == (0.5 * np.arange(9)).tolist()
  np.testing.assert_allclose(one.vectors, many.vectors, atol=2e-6)
  assert np.ptp(one.vectors, axis=0).max() > 1e-3


def test_texts_are_looked_up_or_encoded(model, tiny_narrations, monkeypatch):
  known = tiny_narrations.narrations[:2]
  np.testing.assert_array_equal(model.embed_text(known), tiny_narrations.lookup(known))
  # The sentence model of the run would be asked, in a process of its own.
  monkeypatch.setattr(new_texts, "_call", lambda given: (2, "error: there is no such model"))
  with pytest.raises(ValueError, match=r"^'fly a kite' .*'random-16' can't be run here: there is"):
    model.embed_text([known[0], "fly a kite"])
  table = narration_table.NarrationTable(["fly a kite"], np.full((1, 16), 2.0), "random-16")
  tables = {("Fly a kite", "random-16"): table}
  monkeypatch.setattr(new_texts, "embed", lambda texts, name: tables[*texts, name])
  np.testing.assert_allclose(model.embed_text(["Fly a kite"])[0], 0.25, rtol=1e-6)
  asked = []

  def encode(texts):
    asked.extend(texts)
    return np.full((len(texts), 16), 3.0)

  found = model.embed_text(["Fly a kite.", known[0]], encode=encode)
  assert asked == ["fly a kite"]
  np.testing.assert_allclose(found[0], 0.25, rtol=1e-6)
  np.testing.assert_array_equal(found[1], tiny_narrations.lookup(known[:1])[0])
  with pytest.raises(ValueError, match="'encode' gave vectors of 3 numbers, but .* with 16"):
    model.embed_text(["fly a kite"], encode=lambda texts: np.ones((len(texts), 3)))
  other = narration_table.NarrationTable(["a"], np.ones((1, 16)), model="another")
  with pytest.raises(ValueError, match="by model 'random-16', but 'the table that was given'"):
    model.embed_text(["a"], narrations=other)
  for wrong in ("take cup", None, [], np.array([]), [1], ["take cup", "  "]):
    with pytest.raises(ValueError, match="must be a list of sentences"):
      model.embed_text(wrong)
  np.testing.assert_array_equal(model.embed_text(np.array(known[:1])), found[1:])


def test_a_model_without_a_text_side_says_so(finished, model):
  weights = weight_files.read_weights(finished[0])
  ego = {name: part for name, part in weights.params["ego"].items() if name != "projection"}
  bare = dataclasses.replace(weights, params={"ego": ego})
  with pytest.raises(ValueError, match="no space that texts are in: .*feature='pooled'"):
    embedded_windows.embed_texts(bare, ["take cup"])
  with pytest.raises(ValueError, match="no 'projection'"):
    embedded_windows.VideoEmbedder(bare, "ego", "projection")
  with pytest.raises(ValueError, match=r"view must be one of \('ego', 'exo'\), got 'side'"):
    model.embed("video.mp4", view="side")
  exported = predictor.Predictor(model.recipe, lambda video: {})
  for call in (lambda: exported.embed_text(["a"]), lambda: exported.embed("video.mp4")):
    with pytest.raises(ValueError, match="class scores alone.*sum_l_jax.load"):
      call()


def test_pooled_features_are_what_the_heads_read(model, finished, tiny_ego):
  data = records.ClipDataset(tiny_ego, "val")
  clip = data.clips[0]
  frames = np.stack([decode.decode_jpeg(j) for j in data.read_frames(0, range(clip.num_frames))])
  found = model.embed(frames, fps=clip.fps, feature="pooled", window=clip.num_frames / clip.fps)
  heads = weight_files.read_weights(finished[0]).params["ego"]["heads"]
  (predicted,) = (
    p
    for p in model.predict(frames, fps=clip.fps, window=clip.num_frames / clip.fps, top=9)
    if p.task == "verb"
  )
  logits = found.vectors[0] @ heads["verb"]["kernel"] + heads["verb"]["bias"]
  scores = np.exp(logits - logits.max())
  np.testing.assert_allclose(predicted.scores, np.sort(scores / scores.sum())[::-1], rtol=1e-4)
