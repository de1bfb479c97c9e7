"""Charades-Ego: mAP of first-person test videos by the names of the classes.

Source: Lin et al., "Egocentric Video-Language Pretraining" (EgoVLP, NeurIPS 2022);
Zhao et al., LaViLa (CVPR 2023); files `lavila/utils/evaluation_charades.py`,
`lavila/utils/preprocess.py` and `eval_zeroshot.py` of facebookresearch/LaViLa.
"""

from __future__ import annotations

import csv
import dataclasses

from etils import epath
import numpy as np

from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import label_metrics
from sum_l_jax.system import command_line
from sum_l_jax.system import csv_rows
from sum_l_jax.system import storage
from sum_l_jax.system import text_lines

PROTOCOL = protocol.Protocol(
  name="charades_ego",
  title="Charades-Ego zero-shot mAP (first person)",
  source=(
    "Lin et al., EgoVLP, NeurIPS 2022, and Zhao et al., LaViLa, CVPR 2023;"
    " lavila/utils/evaluation_charades.py of facebookresearch/LaViLa"
  ),
  definition=(
    "All videos of CharadesEgo_v1_test_only1st.csv against the 157 classes, by cosine without"
    " softmax; a class's text is its name cut at the first comma, as the official reader takes"
    " the line for CSV. Videos without a label rank last. A class's average precision is the"
    " mean of the precision at its positives; the mean over all classes is NaN where a class has"
    " no positive. Equal scores rank in the file's order."
  ),
)
NUM_CLASSES = 157
CLASSES_FILE = "Charades_v1_classes.txt"
# A class's text: cut at the first comma of its line, or the whole name.
CUT, WHOLE = "cut", "whole"
NAMES = (CUT, WHOLE)

_VIDEOS_FILE = "CharadesEgo_v1_test_only1st.csv"
# The folder that the archive of annotations makes.
_LABELS = "CharadesEgo"


@dataclasses.dataclass(frozen=True)
class Videos:
  """What is classified.

  Attributes:
    clip_ids: ids of the N videos, which are the data set's.
    targets: bool `[N, 157]`, the classes of each video.
    names: texts of the classes.
    notes: sentences about the official files.
  """

  clip_ids: tuple[str, ...]
  targets: np.ndarray
  names: tuple[str, ...]
  notes: tuple[str, ...]


def read_class_names(directory: epath.Path) -> tuple[str, ...]:
  """Reads `Charades_v1_classes.txt`, whose lines are like "c000 Holding some clothes".

  Raises:
    FileNotFoundError: the file isn't there.
    ValueError: the file doesn't have the 157 classes in order.
  """
  path = directory / CLASSES_FILE
  if not storage.is_file(path):
    raise FileNotFoundError(
      f"{str(path)!r} is missing. It lies in the official annotation archive"
      " beside the CSV files; give the folder with --annotations or"
      " --class_lists."
    )
  names = []
  for number, line in enumerate(text_lines.read_lines(path, mend="Take the official file.")):
    code, _, name = line.strip().partition(" ")
    if code != f"c{number:03d}" or not name.strip():
      raise ValueError(
        f"{path.name}, line {number + 1}: expected 'c{number:03d} <phrase>',"
        f" got {line!r}. Take the official file."
      )
    names.append(name.strip())
  if len(names) != NUM_CLASSES:
    raise ValueError(
      f"{path.name} has {len(names)} classes, the data set {NUM_CLASSES}. Take the official file."
    )
  return tuple(names)


def read_videos(folder: epath.Path, *, names: str = CUT) -> Videos:
  """Reads the official test videos and classes.

  Args:
    folder: the official annotations.
    names: one of NAMES.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is damaged.
  """
  if names not in NAMES:
    raise ValueError(f"names must be one of {list(NAMES)}, got {names!r}.")
  if not storage.is_file(folder / _VIDEOS_FILE) and storage.is_dir(folder / _LABELS):
    folder /= _LABELS
  whole = read_class_names(folder)
  cut = tuple(cells[0].strip() for cells in csv.reader(whole))
  rows, _ = csv_rows.read_rows(folder / _VIDEOS_FILE, ("id", "actions"))
  videos: dict[str, np.ndarray] = {}
  for where, row in rows:
    csv_rows.check_cells(row, where)
    if not row["id"]:
      raise ValueError(f"{where}: id is empty. Take the official file.")
    if row["id"] in videos:
      raise ValueError(f"{where}: video {row['id']!r} occurs twice. Take the official file.")
    videos[row["id"]] = _classes(row["actions"], where)
  shorter = sum(a != b for a, b in zip(cut, whole, strict=True))
  notes = [f"{shorter} class names have a comma and are cut there."] if shorter else []
  return Videos(
    tuple(videos),
    np.stack(list(videos.values())),
    cut if names == CUT else whole,
    tuple(notes) if names == CUT else (),
  )


def chance(targets: np.ndarray) -> float:
  """The mAP of videos in random order, those without a label last.

  With L labelled videos of which P have the class, a positive is at each of the L
  ranks with probability P / L, and its expected precision at rank k is (1 + (k - 1)
  (P - 1) / (L - 1)) / k. Their sum over k, divided by P, has a closed form with the
  harmonic number H of L.

  Args:
    targets: bool `[N, K]`, each class with a positive.
  """
  labelled = int(targets.any(axis=1).sum())
  positives = targets.sum(axis=0)
  harmonic = float(np.sum(1.0 / np.arange(1, labelled + 1)))
  others = (positives - 1) / max(labelled - 1, 1)
  return float(np.mean((harmonic + others * (labelled - harmonic)) / labelled))


def score(scores: np.ndarray, videos: Videos) -> protocol.Outcome:
  """Scores a matrix.

  Args:
    scores: `[N, 157]`, videos against classes; higher is better.
    videos: the videos and their classes.

  Raises:
    ValueError: shapes don't fit, or no video has a label.
  """
  targets = videos.targets
  scores = np.asarray(scores, np.float64)
  if scores.shape != targets.shape:
    raise ValueError(
      f"Scores must have a row for each video and a column for each class, {targets.shape}, got"
      f" {scores.shape}."
    )
  present = targets.any(axis=0)
  if not present.any():
    raise ValueError("No video has a label, so there is nothing to measure.")
  precisions = label_metrics.average_precisions(scores, targets, definition="charades")
  # The same samples of videos for both; its mean leaves absent classes out.
  bounds = bootstrap.intervals({"action": scores}, {"action": targets.astype(np.float32)})
  found = bounds["action_map_charades"]
  occurring = protocol.Score(
    float(precisions[present].mean()), chance(targets[:, present]), interval=(found.low, found.high)
  )
  notes = list(videos.notes)
  if present.all():
    official = occurring
  else:
    official = protocol.Score(float("nan"))
    absent = [videos.names[i] for i in np.flatnonzero(~present)]
    notes.append(
      f"{len(absent)} classes have no video ({command_line.some([repr(n) for n in absent])}), so"
      " the official mean is NaN, written as null. map_of_occurring leaves them out."
    )
  unlabelled = int((~targets.any(axis=1)).sum())
  if unlabelled:
    notes.append(f"{unlabelled} videos have no label and rank last in every class.")
  counts = {
    "videos": len(targets),
    "videos_without_label": unlabelled,
    "classes": targets.shape[1],
    "classes_with_video": int(present.sum()),
  }
  return protocol.Outcome({"map": official, "map_of_occurring": occurring}, counts, notes)


def _classes(cell: str, where: str) -> np.ndarray:
  """The classes of "c092 11.90 21.20;c147 0.00 12.60", whatever their times are."""
  found = np.zeros(NUM_CLASSES, bool)
  for part in filter(None, (p.strip() for p in cell.split(";"))):
    code = part.split()[0]
    digits = code[1:]
    if code[0] != "c" or not digits.isascii() or not digits.isdecimal():
      digits = str(NUM_CLASSES)
    if int(digits) >= NUM_CLASSES:
      raise ValueError(
        f"{where}: actions must read like 'c092 11.90 21.20;c147 0.00 12.60', classes c000 to"
        f" c{NUM_CLASSES - 1}; got {part!r}. Take the official file."
      )
    found[int(digits)] = True
  return found
