"""Embeds a folder of videos, and finds the moments that a text describes.

  python examples/search_videos.py runs/demo VIDEOS INDEX "cut tomato"

VIDEOS is a folder of video files; INDEX is written at the first search. Texts
are looked up in the narration table of the run, or in the one that is given as
a fifth argument.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
import pathlib
import sys

from data_prep.clips import clip_dataset
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation.retrieval import cosine
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import windows


def moments(folder: pathlib.Path, fps: float) -> Iterator[types.Clip]:
  """Yields two seconds of video for every second, as clips without labels."""
  for path in video_sources.find([folder])[0]:
    with video_sources.open_source(path, default_fps=fps) as source:
      for cut in windows.WindowCutter(source, fps=fps, window=2.0, stride=1.0, short_side=256):
        name = f"{path.relative_to(folder)} at {cut.start:g} s"
        yield types.Clip(name, cut.jpegs, fps, narration="", labels={})


def search(
  checkpoint: str, videos: str, index: str, text: str, narrations: str = "", *, top: int = 5
) -> list[tuple[str, float]]:
  """The moments that are most similar to a text, with their cosines."""
  weights = weight_files.read_weights(checkpoint)
  card = weights.card
  clip_dataset.write_clip_dataset(
    index,
    name="videos",
    view=types.EGO,
    tasks={},
    splits={"test": lambda: moments(pathlib.Path(videos), card["frames"]["fps"])},
    unlabelled=["test"],
  )
  dataset = records.ClipDataset(index, "test")
  keys = embedding.Embedder(weights)(dataset).vectors
  narrations = narrations or json.loads(card["config"])["narrations"]
  query = narration_table.NarrationTable.load(narrations).lookup([text])
  (rows,), (cosines,) = cosine.find_nearest(query, keys, top)
  return [(dataset.clips[row].clip_id, float(c)) for row, c in zip(rows, cosines, strict=True)]


if __name__ == "__main__":
  for name, similarity in search(*sys.argv[1:]):
    print(f"{similarity:.3f}  {name}")
