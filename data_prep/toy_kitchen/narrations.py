"""Writes the text of toy_kitchen: a short English narration for every clip.

The two views are narrated in the manner of their models: ego as EPIC-Kitchens
does (a bare phrase, "chop loaf"), exo as LEMMA's templates do ("cut bread on
the board with knife"), generic clips like captions ("a star spins"). The set
is finite and listed by `all_narrations`, so that the embeddings can ship with
the package.
"""

from __future__ import annotations

from collections.abc import Mapping

from etils import epath
import numpy as np

from data_prep.toy_kitchen import vocabulary
from sum_l_jax import types

# Embeddings of all narrations, made by `embed.py`.
TABLE = epath.Path(__file__).with_name("narrations.npz")

_EGO_VERBS = {
  "take": ("take {}", "pick up {}", "grab {}"),
  "put": ("put {}", "put down {}", "set {} down"),
  "cut": ("cut {}", "chop {}", "slice {}"),
  "stir": ("stir {}", "mix {}"),
  "pour": ("pour {}", "tip out {}", "empty {}"),
  "open": ("open {}", "uncover {}"),
  "close": ("close {}", "shut {}", "cover {}"),
  "wash": ("wash {}", "scrub {}", "rinse {}"),
  "shake": ("shake {}", "rattle {}"),
  "turn": ("turn {}", "rotate {}", "flip {}"),
}
_EXO_VERBS = {
  "take": ("get {} from the table", "pick {} up using hand"),
  "put": ("put {} to the table", "place {} on the counter using hand"),
  "cut": ("cut {} on the board", "cut {} using knife", "slice {} with knife"),
  "stir": ("stir {} using spoon", "mix {} in the bowl with spoon"),
  "pour": ("pour from {} into the sink", "pour {} into the glass"),
  "open": ("open {} using hand", "take the lid off {}"),
  "close": ("close {} using hand", "put the lid on {}"),
  "wash": ("wash {} using sponge", "clean {} in the sink"),
  "peel": ("peel {} using knife", "peel the skin off {}"),
  "squeeze": ("squeeze {} using hand", "press {} on the table"),
}
_MOTIONS = {
  "rise": "rises",
  "fall": "falls",
  "grow": "grows",
  "shrink": "shrinks",
  "circle": "circles",
  "swing": "swings",
  "bob": "bobs",
  "spin": "spins",
  "pulse": "pulses",
  "bounce": "bounces",
}
_NOUNS = {
  "potato": ("potato", "spud"),
  "bread": ("bread", "loaf"),
  "cup": ("cup", "mug"),
  "bottle": ("bottle", "flask"),
  "box": ("box", "carton"),
  "courgette": ("courgette", "zucchini"),
  "pan": ("pan", "skillet"),
}


def _phrases(view: str, verb: int, noun: int) -> list[str]:
  templates = _EGO_VERBS if view == types.EGO else _EXO_VERBS
  name = vocabulary.NOUNS[noun]
  return [
    template.format(word)
    for template in templates[vocabulary.VERBS[verb]]
    for word in _NOUNS.get(name, (name,))
  ]


def _caption(motion: int, shape: int) -> str:
  name = vocabulary.SHAPES[shape]
  article = "an" if name[0] in "aeiou" else "a"
  return f"{article} {name} {_MOTIONS[vocabulary.MOTIONS[motion]]}"


def narrate(view: str, labels: Mapping[str, int], rng: np.random.Generator) -> str:
  """Draws one of the narrations of a clip's labels.

  Args:
    view: "ego", "exo" or "generic".
    labels: class id by task name.
    rng: source of the draw; the same state gives the same text.
  """
  if view == vocabulary.GENERIC:
    return _caption(labels["motion"], labels["shape"])
  phrases = _phrases(view, labels["verb"], labels["noun"])
  return phrases[rng.integers(len(phrases))]


def all_narrations() -> list[str]:
  """All narrations that a clip of any view can have, sorted, distinct."""
  kitchen = {
    phrase
    for view in types.VIEWS
    for split in vocabulary.COUNTS[view]
    for verb, noun in vocabulary.combinations(view, split)
    for phrase in _phrases(view, verb, noun)
  }
  captions = {
    _caption(motion, shape)
    for motion in range(len(vocabulary.MOTIONS))
    for shape in range(len(vocabulary.SHAPES))
  }
  return sorted(kitchen | captions)
