"""The content of toy_kitchen: verbs, nouns, their combinations, the counts.

Both views share one list of verbs and one of nouns, so class ids agree, but
each view uses only part of them:

                 shared   ego only          exo only
  verbs          8        shake, turn       peel, squeeze
  nouns          10       cucumber, box     courgette, pan

The combinations of a shared verb and a shared noun are dealt out by a Latin
square, so every verb and every noun gets its share of each kind:

  held_out   exo and ego test, never ego training ("unseen" combinations)
  both       exo and ego
  ego        ego only
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence

from sum_l_jax import types

GENERIC = "generic"
VIEWS = (types.EGO, types.EXO, GENERIC)

_BOTH_VERBS = ("take", "put", "cut", "stir", "pour", "open", "close", "wash")
_BOTH_NOUNS = (
  *("tomato", "apple", "onion", "potato", "carrot"),
  *("bread", "plate", "bowl", "cup", "bottle"),
)
# What both views have, then two of the ego view alone and two of the exo view.
VERBS = (*_BOTH_VERBS, "shake", "turn", "peel", "squeeze")
NOUNS = (*_BOTH_NOUNS, "cucumber", "box", "courgette", "pan")
_SHARED_VERBS, _EGO_VERBS, _EXO_VERBS = range(8), (8, 9), (10, 11)
_SHARED_NOUNS, _EGO_NOUNS, _EXO_NOUNS = range(10), (10, 11), (12, 13)

# The third style, which plays the part of Kinetics in pretraining. No motion's
# mirror image is another motion, for a horizontal flip must keep the label.
MOTIONS = ("rise", "fall", "grow", "shrink", "circle", "swing", "bob", "spin", "pulse", "bounce")
SHAPES = ("disc", "oval", "bar", "taper", "square", "ring", "star", "cross")
COLORS = ("red", "orange", "yellow", "green", "teal", "blue", "brown", "white")
TEXTURES = ("plain", "dots", "stripes", "rings", "slashes", "band")

COUNTS = {
  types.EGO: {"train": 400, "validation": 300, "test": 1500},
  types.EXO: {"train": 2400, "validation": 300},
  GENERIC: {"train": 2200, "validation": 300},
}
# There are more ego clips than the default 400, for learning curves; clip i is the
# same clip whatever the count.
EGO_POOL = 1600

Combination = tuple[int, int]  # (verb id, noun id)


def _square(residues: tuple[int, ...]) -> list[Combination]:
  """The shared combinations whose Latin-square residue is in `residues`."""
  return [
    (verb, noun)
    for verb in _SHARED_VERBS
    for noun in _SHARED_NOUNS
    if (noun + 3 * verb) % len(_SHARED_NOUNS) in residues
  ]


def _checker(verbs: Iterable[int], nouns: Sequence[int], parity: int) -> list[Combination]:
  """Every other combination of the two lists."""
  return [(v, n) for v in verbs for n in nouns if (v + n) % 2 == parity]


HELD_OUT = tuple(_square((0, 1, 2)))
EGO_SEEN = tuple(
  _square((3, 4, 5, 6, 7, 8))
  + [(v, n) for v in _SHARED_VERBS for n in _EGO_NOUNS]
  + _checker(_EGO_VERBS, (*_SHARED_NOUNS, *_EGO_NOUNS), 1)
)
EXO_SEEN = (
  HELD_OUT
  + tuple(_square((3, 4, 5)))
  + tuple((v, n) for v in _SHARED_VERBS for n in _EXO_NOUNS)
  + tuple((v, n) for v in _EXO_VERBS for n in (*_SHARED_NOUNS, *_EXO_NOUNS))
)


def combinations(view: str, split: str) -> tuple[Combination, ...]:
  """All combinations that clips of this view and split may show."""
  if view == types.EXO:
    return EXO_SEEN
  return EGO_SEEN if split == "train" else EGO_SEEN + HELD_OUT


def verb_weight(verb: int) -> float:
  """Mild long tail over verbs, so that class frequencies are not equal."""
  return 1.0 / (1.0 + 0.12 * verb)


def tasks(view: str) -> dict[str, types.Task]:
  """The tasks of a view, by name; class id = position in the class names."""
  check_view(view)
  if view == GENERIC:
    named = {"motion": MOTIONS, "shape": SHAPES, "color": COLORS, "texture": TEXTURES}
  else:
    named = {"verb": VERBS, "noun": NOUNS}
  return {name: types.Task(name, types.SOFTMAX, names) for name, names in named.items()}


def check_view(view: str) -> None:
  """Raises ValueError unless toy_kitchen has this view."""
  if view not in VIEWS:
    raise ValueError(f"toy_kitchen: view must be one of {VIEWS}, got {view!r}.")


def check_split(view: str, split: str) -> None:
  """Raises ValueError unless toy_kitchen has this split of this view."""
  check_view(view)
  if split not in COUNTS[view]:
    raise ValueError(
      f"toy_kitchen: split of view {view!r} must be one of {tuple(COUNTS[view])}, got {split!r}."
    )
