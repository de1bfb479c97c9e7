"""Compares the loss and its gradient with those of this machine's processor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from sum_l_jax import build
from sum_l_jax.models.layers import convolution
from sum_l_jax.system import devices
from sum_l_jax.tools.device_check import synthetic_trainer
from sum_l_jax.train.state import Tree

_BATCH = 4
# Bounds of the relative differences in float32 with all its digits.
LOSS_BOUND, GRADIENT_BOUND = 1e-4, 1e-3
# Standard deviations by which BatchNorm moves what a ReLU sees away from its
# kink, where one rounding turns a gradient on or off: two right answers would
# differ by percents.
_AWAY = 4.0
# Name: type of the activations, precision of products.
_CASES = {
  "float32, all digits": ("float32", "highest"),
  "float32": ("float32", None),
  "bfloat16": ("bfloat16", None),
}
EXACT = "float32, all digits"


def _weights(trainer: build.Trainer) -> tuple[Tree, Tree]:
  """Starting weights, with a BatchNorm that lets gradients through, clear of kinks.

  A block's last scale starts at zero, and so does the gradient of all that
  stands before it. A quarter of the channels stay behind their ReLU.
  """
  with jax.default_device(jax.local_devices(backend="cpu")[0]):
    params, stats = jax.device_get(trainer.network.init())
  rng = np.random.default_rng(0)

  def drawn(path: Any, value: np.ndarray) -> np.ndarray:
    names = [entry.key for entry in path]
    if names[-1] == "scale":
      return rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
    if names[-1] == "bias" and "encoder" in names:
      return np.where(rng.random(value.shape) < 0.25, -_AWAY, _AWAY).astype(np.float32)
    return value

  return jax.tree_util.tree_map_with_path(drawn, params), stats


def loss_and_gradient(
  trainer: build.Trainer, weights: tuple[Tree, Tree], batch: Any
) -> tuple[float, Tree]:
  """The loss of a batch and its gradient, computed on the trainer's devices.

  Args:
    trainer: the stage.
    weights: parameters and statistics.
    batch: numpy arrays by view.
  """

  def value(params: Tree, stats: Tree, batch: Any) -> jax.Array:
    key = jax.random.key(0)
    outputs, _ = trainer.network.apply(params, stats, batch, train=True, key=key)
    return trainer.objective(outputs, batch)[0]

  function = devices.jit_over(trainer.mesh, jax.value_and_grad(value))
  params, stats = jax.device_put(weights, trainer.everywhere)
  loss, gradient = function(params, stats, devices.put_batch(batch, trainer.mesh))
  return float(loss), jax.device_get(gradient)


def _norm(tree: Tree) -> float:
  return float(np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(tree))))


def difference(gradient: Tree, reference: Tree) -> float:
  """Length of the difference over the length of the reference."""
  apart = jax.tree.map(lambda a, b: a.astype(np.float64) - b, gradient, reference)
  return _norm(apart) / _norm(reference)


def compare(
  backbone: str, device: Any, *, conv: str = convolution.AUTO
) -> Iterator[dict[str, Any]]:
  """Compares a device with the processor, on a small step of both views.

  Args:
    backbone: name of a backbone.
    device: the device.
    conv: how the device computes convolutions. The processor does it in its
      own way.

  Yields:
    Relative differences by precision, one at a time; "agrees" says whether
    those of float32 with all its digits lie within the bounds.
  """

  def make(device: Any, precision: str, conv: str) -> build.Trainer:
    return synthetic_trainer.make_trainer(
      backbone,
      batch=_BATCH,
      mesh=synthetic_trainer.mesh_of(device),
      precision=precision,
      conv=conv,
      small=True,
    )

  try:
    processor = jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    yield {"skipped": "JAX_PLATFORMS names no cpu to compare with; unset it, or add ',cpu'."}
    return
  trainer = make(processor, "float32", "cpu")
  weights = _weights(trainer)
  batch = synthetic_trainer.random_clips(trainer)
  loss, gradient = loss_and_gradient(trainer, weights, batch)
  yield {"batch": _BATCH, "loss_of_processor": loss, "gradient_norm_of_processor": _norm(gradient)}
  for name, (precision, products) in _CASES.items():
    with jax.default_matmul_precision(products):
      own_loss, own = loss_and_gradient(make(device, precision, conv), weights, batch)
    found = {"loss": abs(own_loss - loss) / abs(loss), "gradient": difference(own, gradient)}
    yield {name: found}
    if name == EXACT:
      agrees = found["loss"] <= LOSS_BOUND and found["gradient"] <= GRADIENT_BOUND
      bounds = {"loss": LOSS_BOUND, "gradient": GRADIENT_BOUND}
      yield {"agrees": agrees, "bounds": bounds}
