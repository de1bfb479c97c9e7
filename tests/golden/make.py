"""Writes the golden outputs, by pytorchvideo's networks.

  python -m tests.golden.make

One file a network, with the seed, the versions and this command in its `card`.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib

import numpy as np
import torch

from data_prep.published_weights import choices
from data_prep.published_weights import convert
from data_prep.published_weights import names
from sum_l_jax.checkpoint import weights as weights_lib
from tests import reference_networks as reference
from tests.golden import inputs

FOLDER = pathlib.Path(__file__).parent


def outputs(backbone: str) -> dict[str, np.ndarray]:
  """Logits, pooled feature and samples of every stage."""
  model = {ours: theirs for theirs, ours in choices.MODELS.items()}[backbone]
  network = reference.build(model)
  params, stats = inputs.trees(backbone)
  state = network.state_dict()
  for tree in (params, stats):
    flat = weights_lib.flatten(tree["ego"]["encoder"])
    for ours, name in names.encoder_names(backbone, "pytorchvideo", flat).items():
      state[name] = torch.from_numpy(convert.to_theirs(flat[ours]))
  head = params["ego"]["heads"]["action"]
  (weight, bias) = (k for k in state if ".proj." in k)
  state[weight] = torch.from_numpy(head["kernel"].T.copy())
  state[bias] = torch.from_numpy(head["bias"])
  network.load_state_dict(state)
  pixels = (inputs.video(backbone).astype(np.float32) / 255 - 0.45) / 0.225
  with torch.no_grad():
    found = reference.run(network, pixels.astype(np.float32))
  out = {"logits": found["logits"][0].numpy(), "features": found["features"][0].numpy()}
  for stage, tensors in found["stages"].items():
    for path, tensor in zip(("slow", "fast"), tensors):
      flat = tensor[0].permute(1, 2, 3, 0).reshape(-1).numpy()
      out[f"{stage}/{path}"] = flat[inputs.places(flat.size)]
      out[f"{stage}/{path}/std"] = flat.std()
  return out


def main() -> None:
  card = {
    "command": "python -m tests.golden.make",
    "seed": inputs.SEED,
    "versions": {p: importlib.metadata.version(p) for p in ("pytorchvideo", "torch", "numpy")},
  }
  for backbone in inputs.BACKBONES:
    np.savez_compressed(
      FOLDER / f"{backbone}.npz", card=np.array(json.dumps(card)), **outputs(backbone)
    )
    print(f"wrote {backbone}.npz")


if __name__ == "__main__":
  main()
