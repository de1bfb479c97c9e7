"""The README.md of an exported network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sum_l_jax import types

_TEXT = """# A video network, exported by sum_l_jax

`card.json` has the class names (`class_names`: task -> names, position = class
id), what goes in (`input`) and what comes out (`outputs`). sum_l_jax is not
needed.

```sh
{install}
```

```python
{code}
```

In: `video`, uint8 {shape}: {size}, {count} frames, {crop} x {crop} pixels, RGB.
Scaling, normalisation and the channel order that the network was trained on
({order}) are part of the program.
Out, float32:

{outputs}

{platforms}

## From a video to a clip

1. Read the window at {fps:g} frames a second: frame k is the one nearest to
   k / {fps:g} seconds after its start. That gives n frames.
2. {take}
3. Resize each so that its short side is {crop} pixels (bilinear, half-pixel
   centres, no antialiasing: OpenCV's INTER_LINEAR), and cut the central
   {crop} x {crop}.

Before all this, the training frames had been shrunk to a short side of at most
320 pixels (or what `build_dataset --short_side` was given), by averaging over
areas as OpenCV's INTER_AREA does, and stored as JPEG of quality 90. sum_l_jax
does the same when it predicts.
"""

_BY_STRIDE = """Take {count} of them, {stride} apart, from just after the middle: with
   `start = round(max(n - {span}, 0) / 9 * 5)` the positions are
   `np.clip(start + {stride} * np.arange({count}), 0, n - 1)`."""

_IN_PARTS = """Take the middle of each of {count} equal parts: the positions are
   `np.floor((np.arange({count}) + 0.5) * n / {count}).astype(int)`."""

_JAX = """import json

import jax
from jax import export
import numpy as np

with open("card.json", encoding="utf-8") as file:
  card = json.load(file)
with open("model.jax_export", "rb") as file:
  model = export.deserialize(bytearray(file.read()))
with np.load("weights.npz") as file:
  weights = jax.device_put({name: file[name] for name in file.files})
run = jax.jit(model.call)  # Compiled once for each number of clips.

video = np.load("clip.npy")
scores = run(weights, video)
for task, values in scores.items():
  for number, row in enumerate(np.asarray(values)):
    for k in np.argsort(-row, kind="stable")[:5]:
      print(number, task, card["class_names"][task][k], row[k])"""

_ONNX = """import json

import numpy as np
import onnxruntime

providers = onnxruntime.get_available_providers()
session = onnxruntime.InferenceSession("model.onnx", providers=providers)
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])

video = np.load("clip.npy")
scores = dict(zip(names, session.run(list(names), {"video": video})))
for task, values in scores.items():
  for number, row in enumerate(values):
    for k in np.argsort(-row, kind="stable")[:5]:
      print(number, task, names[task][k], row[k])"""

_SAVED_MODEL = """import json

import numpy as np
import tensorflow as tf

with open("card.json", encoding="utf-8") as file:
  card = json.load(file)
model = tf.saved_model.load("saved_model")
run = model.signatures["serving_default"]

video = np.load("clip.npy")
scores = run(video=tf.constant(video))
for task, values in scores.items():
  for number, row in enumerate(values.numpy()):
    for k in np.argsort(-row, kind="stable")[:5]:
      print(number, task, card["class_names"][task][k], row[k])"""


# What to install, and the program.
_PROGRAMS = {
  # jax.export reads and writes with flatbuffers, which jax doesn't require.
  "jax": ("pip install jax numpy flatbuffers", _JAX),
  "saved_model": ("pip install tensorflow numpy", _SAVED_MODEL),
  "onnx": ("pip install onnxruntime numpy", _ONNX),
}
_PLATFORMS = "The program is made for {}."
_OPERATORS = """The file has the operators of ONNX 1.13 (set 18), and carries the entries of
`card.json` as metadata. Tried was onnxruntime on CPU."""


def make_readme(card: Mapping[str, Any]) -> str:
  """Makes the text, in Markdown.

  Args:
    card: card from `exported_model.make_card`.
  """
  frames, shape = card["frames"], card["input"]["shape"]
  install, code = _PROGRAMS[card["format"]]
  platforms = _PLATFORMS.format(", ".join(card["platforms"]))
  fixed = isinstance(shape[0], int)
  take = _IN_PARTS if frames["sampling"] == types.IN_PARTS else _BY_STRIDE
  return _TEXT.format(
    install=install,
    code=code,
    shape=f"[{', '.join(map(str, shape))}]",
    size=f"{shape[0]} clips, no other number" if fixed else "any number of clips",
    crop=frames["crop_size"],
    count=frames["count"],
    take=take.format(
      count=frames["count"],
      stride=frames["stride"],
      span=(frames["count"] - 1) * frames["stride"] + 1,
    ),
    fps=frames["fps"],
    order=card["pixels"]["channel_order"],
    outputs="\n".join(
      f"- `{task}` {output['shape']}: {output['meaning']}"
      for task, output in card["outputs"].items()
    ),
    platforms=_OPERATORS if card["format"] == "onnx" else platforms,
  )
