"""Gives the nouns their looks.

Nouns come in families that share the silhouette and nearly the colour, so that a
few hundred clips are not enough to tell them apart:

  discs   tomato apple onion potato      bars    carrot cucumber courgette
  boxes   bread box                      rings   plate bowl pan
  upright cup bottle
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_prep.toy_kitchen import drawing
from data_prep.toy_kitchen import vocabulary

_LOOKS = {
  "tomato": drawing.Look("disc", (200, 50, 40), (60, 140, 50), "star"),
  "apple": drawing.Look("disc", (185, 70, 45), (70, 120, 40), "stem"),
  "onion": drawing.Look("disc", (190, 120, 90), (225, 185, 160), "rings"),
  "potato": drawing.Look("disc", (180, 140, 85), (120, 85, 50), "dots", 1.2),
  "carrot": drawing.Look("taper", (225, 125, 40), (70, 150, 50), "cap", 1.2),
  "bread": drawing.Look("loaf", (190, 140, 80), (135, 85, 45), "slashes", 1.05),
  "plate": drawing.Look("ring", (205, 205, 200), (230, 230, 228)),
  "bowl": drawing.Look("ring", (190, 200, 210), (110, 125, 150), "rings"),
  "cup": drawing.Look("cup", (120, 140, 190), (60, 70, 100), "plain"),
  "bottle": drawing.Look("bottle", (90, 150, 140), (220, 220, 210), "band", 1.0),
  "cucumber": drawing.Look("bar", (55, 115, 50), (115, 170, 80), "stripes", 1.2),
  "box": drawing.Look("square", (195, 150, 100), (225, 205, 165), "band"),
  "courgette": drawing.Look("bar", (70, 120, 50), (140, 175, 90), "dots", 1.2),
  "pan": drawing.Look("pan", (75, 75, 80), (50, 50, 55), "plain"),
}


def noun_look(noun: int, rng: np.random.Generator) -> drawing.Look:
  """The look of one instance of a noun: colour and width vary a little."""
  look = _LOOKS[vocabulary.NOUNS[noun]]
  return dataclasses.replace(
    look,
    color=drawing.vary(look.color, rng, 0.1),
    accent=drawing.vary(look.accent, rng, 0.1),
    stretch=look.stretch * rng.uniform(0.92, 1.08),
  )


def other_noun(noun: int, rng: np.random.Generator) -> int:
  """A noun other than the given one, for things that lie around."""
  count = len(vocabulary.NOUNS)
  return int((noun + rng.integers(1, count)) % count)
