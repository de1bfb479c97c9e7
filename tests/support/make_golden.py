"""Writes the golden outputs, by pytorchvideo's networks.

  python -m tests.support.make_golden

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
from sum_l_jax.checkpoint import weight_files
from tests.support import golden_inputs
from tests.support import reference_networks

FOLDER = pathlib.Path(__file__).parents[1] / "models" / "golden"


def outputs(backbone: str) -> dict[str, np.ndarray]:
  """Logits, pooled feature and samples of every stage."""
  model = {ours: theirs for theirs, ours in choices.MODELS.items()}[backbone]
  network = reference_networks.build(model)
  params, stats = golden_inputs.trees(backbone)
  state = network.state_dict()
  for tree in (params, stats):
    flat = weight_files.flatten(tree["ego"]["encoder"])
    for ours, name in names.encoder_names(backbone, "pytorchvideo", flat).items():
      state[name] = torch.from_numpy(convert.to_theirs(flat[ours]))
  head = params["ego"]["heads"]["action"]
  (weight, bias) = (k for k in state if ".proj." in k)
  state[weight] = torch.from_numpy(head["kernel"].T.copy())
  state[bias] = torch.from_numpy(head["bias"])
  network.load_state_dict(state)
  pixels = (golden_inputs.video(backbone).astype(np.float32) / 255 - 0.45) / 0.225
  with torch.no_grad():
    found = reference_networks.run(network, pixels.astype(np.float32))
  out = {"logits": found["logits"][0].numpy(), "features": found["features"][0].numpy()}
  for stage, tensors in found["stages"].items():
    for path, tensor in zip(("slow", "fast"), tensors):
      flat = tensor[0].permute(1, 2, 3, 0).reshape(-1).numpy()
      out[f"{stage}/{path}"] = flat[golden_inputs.places(flat.size)]
      out[f"{stage}/{path}/std"] = flat.std()
  return out


def main() -> None:
  card = {
    "command": "python -m tests.support.make_golden",
    "seed": golden_inputs.SEED,
    "versions": {p: importlib.metadata.version(p) for p in ("pytorchvideo", "torch", "numpy")},
  }
  for backbone in golden_inputs.BACKBONES:
    np.savez_compressed(
      FOLDER / f"{backbone}.npz", card=np.array(json.dumps(card)), **outputs(backbone)
    )
    print(f"wrote {backbone}.npz")


if __name__ == "__main__":
  main()
