"""What the EPIC-KITCHENS action recognition challenges ask for.

The format of EPIC-KITCHENS-100 is that of epic-kitchens/C1-Action-Recognition,
the one of EPIC-KITCHENS-55 that of epic-kitchens/epic-kitchens-55-lib,
docs/source/submission_format.md.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
import csv
import dataclasses
from typing import Any

from sum_l_jax.system import addresses
from sum_l_jax.system import storage

# How many entries of a list of problems are shown.
SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Challenge:
  """One format.

  Attributes:
    name: "epic100" or "epic55".
    version: version of the format.
    classes: number of classes K by task.
    members: split by name of a file in the zip.
    id_column: column of the official annotations that names the entries.
    supervised: whether the Supervision Levels Scale is declared.
  """

  name: str
  version: str
  classes: Mapping[str, int]
  members: Mapping[str, str]
  id_column: str
  supervised: bool

  def entry_id(self, clip_id: str) -> str:
    """Name of a clip's entry: narration_id, or the uid at the end of the id."""
    return clip_id.rpartition("_")[2] if self.id_column == "uid" else clip_id


EPIC55 = Challenge(
  "epic55",
  "0.1",
  {"verb": 125, "noun": 352},
  {"seen.json": "test_seen", "unseen.json": "test_unseen"},
  "uid",
  False,
)
EPIC100 = Challenge(
  "epic100", "0.2", {"verb": 97, "noun": 300}, {"test.json": "test"}, "narration_id", True
)
CHALLENGES = {c.name: c for c in (EPIC100, EPIC55)}

# Supervision Levels Scale, arXiv:2008.09890 and github.com/epic-kitchens/SLS.
SUPERVISION = {
  "sls_pt": (
    "pre-training",
    (
      "none: everything starts from random weights",
      "public image data sets, such as ImageNet",
      "public image and video data sets, such as Kinetics",
      "self-supervised on public data",
      "self-supervised on public data and on videos of EPIC-KITCHENS",
      "private data",
    ),
  ),
  "sls_tl": (
    "labels of EPIC-KITCHENS used in training",
    (
      "none: a pre-trained model as it is",
      "captions and classes in their order in a video, without times",
      "and one timestamp a narration",
      "and start and end of each action",
      "and spatial annotations, or spatial labels from elsewhere",
      "and categories of classes, or other prior knowledge of how classes relate",
    ),
  ),
  "sls_td": (
    "data of the training itself, beyond pre-training",
    (
      "none: zero-shot",
      "up to 5 examples a class",
      "a random sample of at most 25 % of the training set",
      "the training set",
      "the training and the validation set",
      "and other data, labelled or not, such as a third-person collection",
    ),
  ),
}


def supervision_text(name: str) -> str:
  """Says what a dimension of the scale and its levels mean, a line each."""
  title, levels = SUPERVISION[name]
  return "\n".join([f"{title}:", *(f"  {number}  {text}" for number, text in enumerate(levels))])


def check_supervision(challenge: Challenge, levels: Mapping[str, Any]) -> dict[str, int]:
  """Checks the levels that a submission declares.

  Args:
    challenge: the format.
    levels: levels by name; None counts as left out.

  Returns:
    The levels that are not left out.

  Raises:
    ValueError: one is missing, is not in 0..5 or is not part of the format.
  """
  given = {name: level for name, level in levels.items() if level is not None}
  wanted = tuple(SUPERVISION) if challenge.supervised else ()
  unknown = sorted(given.keys() - set(wanted))
  if unknown:
    raise ValueError(
      f"{unknown} must be left out: the format of {challenge.name} (version {challenge.version})"
      f" has {sorted(wanted) or 'no supervision levels'}."
    )
  for name in wanted:
    level = given.get(name)
    # bool is an int.
    if type(level) is not int or not 0 <= level <= 5:
      got = "nothing" if level is None else repr(level)
      raise ValueError(
        f"{name} must be a whole number from 0 to 5, got {got}. It declares the"
        f" {supervision_text(name)}\nWhich to declare for SUM-L: docs/evaluation.md."
      )
  return given


def check_ids(found: Collection[str], wanted: Collection[str], where: str) -> None:
  """Compares entries with those of the official list.

  Raises:
    ValueError: entries are missing or unknown; says how many, and the first.
  """
  found, wanted = set(found), set(wanted)
  problems = []
  for ids, text in ((wanted - found, "are missing"), (found - wanted, "are unknown to it")):
    if ids:
      more = ", ..." if len(ids) > SHOWN else ""
      problems.append(f"{len(ids)} {text} ({', '.join(sorted(ids)[:SHOWN])}{more})")
  if problems:
    raise ValueError(
      f"{where} must have exactly the {len(wanted)} clips of the official list:"
      f" {' and '.join(problems)}. Evaluate the whole test set, built from the same annotations."
    )


def read_ids(path: addresses.PathLike, challenge: Challenge) -> tuple[str, ...]:
  """Reads the entries that an official annotation file (CSV) asks for.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it lacks the column of ids, or has no rows.
  """
  path = addresses.path(path)
  if not storage.is_file(path):
    raise FileNotFoundError(f"There is no annotation file {str(path)!r}.")
  with storage.open_text(path) as file:
    rows = csv.DictReader(file)
    columns = rows.fieldnames or ()
    ids = tuple(row.get(challenge.id_column) or "" for row in rows)
  if challenge.id_column not in columns or not all(ids) or not ids:
    raise ValueError(
      f"{path} must be the official CSV file of a test set, with a filled column"
      f" {challenge.id_column!r}; it has {len(ids)} rows and the columns {list(columns)}."
    )
  return ids
