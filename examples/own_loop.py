"""The SUM-L loss in a training loop of your own, with a model of your own.

  python examples/own_loop.py

The model may be any function of parameters and arrays. Here it is linear, and
takes random features in place of videos. A narration is a unit vector, as a
sentence model gives it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

import sum_l_jax

VIEWS = ("ego", "exo")
CLASSES, FEATURES, WIDTH, PAIRS = 5, 16, 8, 32


def model(params: dict, clips: jax.Array) -> dict:
  """Scores of the classes [B, K], and unit vectors [B, D] beside the texts'."""
  embedding = clips @ params["projection"]
  embedding /= jnp.linalg.norm(embedding, axis=-1, keepdims=True)
  return {"logits": {"verb": clips @ params["head"]}, "embedding": embedding}


objective = sum_l_jax.Objective(tasks={view: {"verb": "softmax"} for view in VIEWS})
optimizer = optax.adam(0.01)


@jax.jit
def step(params: dict, state: optax.OptState, batch: dict) -> tuple:
  """Takes one step; also returns the total loss and its terms."""

  def loss(params: dict) -> tuple:
    outputs = {view: model(params[view], batch[view]["video"]) for view in VIEWS}
    return objective(outputs, batch)

  (total, terms), gradients = jax.value_and_grad(loss, has_aux=True)(params)
  updates, state = optimizer.update(gradients, state)
  return optax.apply_updates(params, updates), state, total, terms


def random_batch(key: jax.Array) -> dict:
  """Pairs of an ego and an exo clip; most have similar narrations."""
  label_key, *keys = jax.random.split(key, 1 + len(VIEWS))
  labels = jax.random.randint(label_key, (PAIRS,), 0, CLASSES)
  batch = {}
  for view, key in zip(VIEWS, keys, strict=True):
    text_key, clip_key = jax.random.split(key)
    text = jax.nn.one_hot(labels, WIDTH) + 0.3 * jax.random.normal(text_key, (PAIRS, WIDTH))
    text /= jnp.linalg.norm(text, axis=-1, keepdims=True)
    clips = jnp.tile(3 * text, FEATURES // WIDTH)
    clips += jax.random.normal(clip_key, clips.shape)
    batch[view] = {"video": clips, "labels": {"verb": labels}, "narration": text}
  return batch


def train(steps: int = 100) -> list[dict[str, float]]:
  """Trains; returns the total and the terms of every step."""
  tower = {"projection": jnp.eye(FEATURES, WIDTH), "head": jnp.zeros((FEATURES, CLASSES))}
  params = dict.fromkeys(VIEWS, tower)
  state = optimizer.init(params)
  history = []
  for number in range(steps):
    batch = random_batch(jax.random.key(number))
    params, state, total, terms = step(params, state, batch)
    history.append({"total": float(total), **{name: float(v) for name, v in terms.items()}})
  return history


if __name__ == "__main__":
  for number, values in enumerate(train()):
    if number % 10 == 0:
      print(number, " ".join(f"{name} {value:.3f}" for name, value in values.items()))
