"""A linear classifier of your own videos on a network's features.

  python examples/linear_probe.py runs/demo VIDEOS

VIDEOS has a folder for each class, with video files in it. A fifth of the videos of each
class, at least one, is held out to measure with.
"""

from __future__ import annotations

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sum_l_jax
from sum_l_jax.prediction import video_sources


def features(model, folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """One vector [C] and one label for each video, and the names of the classes."""
  classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
  vectors, labels = [], []
  for number, name in enumerate(classes):
    for video in sorted(video_sources.find([folder / name])[0]):
      vectors.append(model.embed(video, feature="pooled").vectors.mean(0))
      labels.append(number)
  return np.stack(vectors), np.array(labels), classes


def fit(x: np.ndarray, y: np.ndarray, classes: int, steps: int = 300) -> tuple:
  """Multinomial logistic regression with weight decay; returns kernel and bias."""
  optimizer = optax.adamw(0.05, weight_decay=1e-3)

  def loss(params: tuple) -> jax.Array:
    logits = x @ params[0] + params[1]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  @jax.jit
  def step(params: tuple, state: optax.OptState) -> tuple:
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  params = jnp.zeros((x.shape[1], classes)), jnp.zeros(classes)
  state = optimizer.init(params)
  for _ in range(steps):
    params, state = step(params, state)
  return params


def probe(run: str, folder: str) -> float:
  """The share of the videos that were held out whose class is found."""
  x, y, classes = features(sum_l_jax.load(run), pathlib.Path(folder))
  place = np.array([np.sum(y[:i] == label) for i, label in enumerate(y)])
  held_out = place % 5 == 0  # The first, sixth ... of each class.
  mean, scale = x[~held_out].mean(0), x[~held_out].std(0) + 1e-6
  kernel, bias = fit((x[~held_out] - mean) / scale, y[~held_out], len(classes))
  found = np.argmax((x[held_out] - mean) / scale @ kernel + bias, axis=1)
  return float(np.mean(found == y[held_out]))


if __name__ == "__main__":
  print(f"top-1 of videos held out: {probe(*sys.argv[1:]):.3f}")
