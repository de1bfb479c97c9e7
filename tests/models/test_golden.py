"""The reference's outputs, committed; needs no PyTorch and no other network."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest

from tests.support import golden_inputs

FOLDER = pathlib.Path(__file__).parent / "golden"


@pytest.mark.parametrize("backbone", golden_inputs.BACKBONES)
def test_same_activations(backbone, optimized):
  with np.load(FOLDER / f"{backbone}.npz", allow_pickle=False) as file:
    golden = dict(file)
  assert json.loads(str(golden.pop("card")))["seed"] == golden_inputs.SEED
  params, stats = golden_inputs.trees(backbone)
  outputs, _ = jax.jit(
    lambda p, s, v: golden_inputs.network(backbone).apply(p, s, {"ego": {"video": v}}, train=False)
  )(params, stats, golden_inputs.video(backbone))
  found = {
    "logits": outputs["ego"]["logits"]["action"][0],
    "features": outputs["ego"]["features"][0],
  }
  deviation = {name: golden[name].std() for name in found}
  for stage, paths in outputs["ego"]["stages"].items():
    for path, x in paths.items():
      flat = np.asarray(x[0]).reshape(-1)
      found[f"{stage}/{path}"] = flat[golden_inputs.places(flat.size)]
      deviation[f"{stage}/{path}"] = golden.pop(f"{stage}/{path}/std")
  assert golden.keys() == found.keys()
  worst = {
    name: float(np.abs(found[name] - golden[name]).max() / deviation[name]) for name in found
  }
  assert max(worst.values()) <= 1e-4, worst
