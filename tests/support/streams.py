"""Training streams for tests, from arguments that lie flat."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np

from sum_l_jax.data import examples
from sum_l_jax.data import input_options
from sum_l_jax.data import loader
from sum_l_jax.data import transforms

EGO_TRANSFORM = transforms.ClipTransform(4, 2, 32, (36, 44))
EXO_TRANSFORM = transforms.ClipTransform(4, 2, 32, (36, 44), color_lighting=0.1)
_OPTIONS = {field.name for field in dataclasses.fields(input_options.Input)}


def open_stream(*, ego=None, exo=(), ego_skip=(), exo_skip=(), ego_transform=EGO_TRANSFORM, **more):
  """A stream of batches of four; `more` are other arguments or fields of Input."""
  views = {}
  if ego is not None:
    views["ego"] = examples.ViewClips([ego], ego_transform, ego_skip)
  if exo:
    views["exo"] = examples.ViewClips(exo, EXO_TRANSFORM, exo_skip)
  more = {"batch_size": 4, "seed": 3, "prefetch": 2} | more
  options = {name: more.pop(name) for name in _OPTIONS & more.keys()}
  return loader.TrainStream(views, options=input_options.Input(**options), **more)


def take(count, **arguments):
  """The first batches of such a stream."""
  with open_stream(**arguments) as stream:
    return list(itertools.islice(stream, count))


def assert_equal(one, two):
  """Two batches, or lists of them, are the same to the bit."""
  assert jax.tree.structure(one) == jax.tree.structure(two)
  jax.tree.map(np.testing.assert_array_equal, one, two)
