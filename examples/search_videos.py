"""Finds the moments of a folder of videos that a sentence describes, or a video shows.

  python examples/search_videos.py runs/demo VIDEOS INDEX.npz "cut tomato"
  python examples/search_videos.py runs/demo VIDEOS INDEX.npz my_clip.mp4

VIDEOS are third-person videos, unless a fifth argument is "ego"; a video to search with is a
first-person one. INDEX.npz is written at the first search.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

import sum_l_jax
from sum_l_jax.prediction import video_sources


def embed_folder(model, folder: pathlib.Path, view: str) -> dict[str, np.ndarray]:
  """A vector for every second of every video: video, start in seconds, vector [D]."""
  found = [model.embed(video, view=view) for video in video_sources.find([folder])[0]]
  return {
    "video": np.concatenate([np.repeat(one.video, len(one)) for one in found]),
    "start": np.concatenate([one.starts for one in found]),
    "vectors": np.concatenate([one.vectors for one in found]),
  }


def search(
  run: str,
  videos: str,
  index: str,
  query: str,
  view: str = "exo",
  *,
  top: int = 5,
) -> list[tuple[str, float, float]]:
  """The moments that are most similar: video, start in seconds, cosine."""
  model = sum_l_jax.load(run)
  if not pathlib.Path(index).exists():
    np.savez(index, **embed_folder(model, pathlib.Path(videos), view))
  with np.load(index) as file:
    moments = dict(file)
  if pathlib.Path(query).exists():
    vector = model.embed(query).vectors.mean(0)
    vector /= np.linalg.norm(vector)
  else:
    (vector,) = model.embed_text([query])
  cosines = moments["vectors"] @ vector
  best = np.argsort(-cosines, kind="stable")[:top]
  return [(str(moments["video"][i]), moments["start"][i], float(cosines[i])) for i in best]


if __name__ == "__main__":
  for video, start, cosine in search(*sys.argv[1:]):
    print(f"{cosine:.3f}  {video} at {start:g} s")
