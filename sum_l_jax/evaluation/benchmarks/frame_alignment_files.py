"""AE2's sets as they are published, and a vector for each of their frames.

A set is a folder. break_eggs and tennis_forehand have `{ego,exo}/{train,val,test}.csv`
with the name of a video file on each line and no header; pour_milk and pour_liquid
have the videos of a split in `{train,val,test}/{ego,exo}/`. `label.pickle` is a dict
of a video's name, without suffix, to the phase of each of its frames
(dataset/video_align_dataset.py of zihuixue/AlignEgoExo).
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib

from etils import epath
import numpy as np

from sum_l_jax.evaluation.benchmarks import frame_alignment
from sum_l_jax.system import command_line
from sum_l_jax.system import npz_files
from sum_l_jax.system import safe_pickle
from sum_l_jax.system import storage

LABELS_FILE = "label.pickle"
TRAIN = "train"
# The official evaluation takes the test by default.
SPLITS = ("test", "val")
VIEWS = ("ego", "exo")

_SUFFIX = ".mp4"
_KIND = safe_pickle.Kind("phase labels", f"the pickle {LABELS_FILE} of AE2's data")


def read_labels(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads the phase of each frame, int64 `[n]` by the video's name.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it would execute something, is damaged, or holds something else.
  """
  if not storage.is_file(path):
    raise FileNotFoundError(f"There is no file {str(path)!r}, which has AE2's phase labels.")
  content = safe_pickle.load(path, kind=_KIND)
  if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
    raise safe_pickle.damage(path, "it is no dict with names of videos", _KIND)
  found = {}
  for name, own in content.items():
    labels = _phases(own)
    if labels is None:
      raise safe_pickle.damage(path, f"{name!r} has no list of phases from 0", _KIND)
    found[name] = labels
  return found


def _phases(own: object) -> np.ndarray | None:
  """Whole numbers from 0, int64 `[n]`, or None for anything else."""
  try:
    labels = np.asarray(own)
    if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iuf":
      return None
    whole = labels.astype(np.int64)
  except (TypeError, ValueError, OverflowError):
    return None
  return whole if (labels == whole).all() and whole.min() >= 0 else None


def read_names(folder: epath.Path, split: str) -> dict[str, list[str]]:
  """Reads the names of a split's videos by view, without suffix, in order.

  Args:
    folder: folder of one set.
    split: "train", "val" or "test".

  Raises:
    FileNotFoundError: the folder has neither layout.
    ValueError: it has both, or a view lists no video.
  """
  lists = {view: folder / view / f"{split}.csv" for view in VIEWS}
  folders = {view: folder / split / view for view in VIEWS}
  listed = [view for view in VIEWS if storage.is_file(lists[view])]
  laid_out = [view for view in VIEWS if storage.is_dir(folders[view])]
  if listed and laid_out:
    raise ValueError(
      f"{str(folder)!r} says twice which videos are of the split {split!r}: in"
      f" {str(lists[listed[0]])!r} and by {str(folders[laid_out[0]])!r}. Take one away."
    )
  names = {}
  for view in listed or laid_out:
    if listed:
      text = storage.read_text(lists[view], encoding="utf-8-sig")
      files = [line.strip().split("/")[-1] for line in text.splitlines()]
      files = [file for file in files if file]
    else:
      files = [file for file in storage.names(folders[view]) if file.endswith(_SUFFIX)]
    if not files:
      raise ValueError(
        f"{str(lists[view] if listed else folders[view])!r} lists no video ({_SUFFIX})."
      )
    names[view] = [file.removesuffix(_SUFFIX) for file in sorted(set(files))]
  if not names:
    raise FileNotFoundError(
      f"{str(folder)!r} is no set of AE2 with the split {split!r}: it must have"
      f" {{ego,exo}}/{split}.csv (break_eggs, tennis_forehand) or {split}/{{ego,exo}}/ with videos"
      " (pour_milk, pour_liquid). Name the folder of one set."
    )
  return names


class FrameVectors:
  """Files with a vector for each frame of a video, `NAME.npy` [n, D].

  Those of the two views lie in the folders ego and exo, or all in one folder.
  """

  def __init__(self, folder: epath.Path) -> None:
    """Opens nothing yet."""
    if not storage.is_dir(folder):
      raise FileNotFoundError(
        f"There is no folder {str(folder)!r} with a vector for each frame: NAME.npy [frames, D] of"
        " each video, in folders ego and exo or in one."
      )
    self._folder = folder
    self._apart = any(storage.is_dir(folder / view) for view in VIEWS)
    self._sums: dict[str, str] = {}

  @property
  def about(self) -> dict[str, str | int]:
    """What was read, with a checksum over all files."""
    lines = [f"{name} {digest}\n" for name, digest in sorted(self._sums.items())]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return {"folder": str(self._folder), "files": len(lines), "sha256": digest}

  def path(self, name: str, view: str) -> epath.Path:
    """The file of a video."""
    return (self._folder / view if self._apart else self._folder) / f"{name}.npy"

  def read(self, name: str, view: str, frames: int) -> np.ndarray:
    """Reads the vectors of a video, floating `[frames, D]`.

    Raises:
      FileNotFoundError, ValueError: there is no such file, or it has something else.
    """
    path = self.path(name, view)
    if not storage.is_file(path):
      raise FileNotFoundError(
        f"The {view} video {name!r} has no vectors at {str(path)!r}. The measures are of all videos"
        " of a split: make those that are missing."
      )
    try:
      with storage.open_binary(path) as file:
        found = np.load(file, allow_pickle=False)
    except npz_files.DAMAGED as error:
      raise ValueError(
        f"{str(path)!r} can't be read ({error}). Write it with numpy.save, without objects."
      ) from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind != "f":
      shown = f"{getattr(found, 'shape', 'several arrays')} {getattr(found, 'dtype', '')}".strip()
      raise ValueError(f"{str(path)!r} must be an array [frames, D] of floats, got {shown}.")
    if len(found) != frames:
      raise ValueError(
        f"{str(path)!r} has {len(found)} vectors, and {LABELS_FILE} has phases of {frames} frames."
        " Each frame of the video must have one: `python -m sum_l_jax features` makes them with"
        " --stride=1 --lead and the --fps of the video."
      )
    self._sums[f"{view}/{name}"] = storage.sha256(path)
    return found


def read_videos(
  folder: epath.Path, split: str, labels: Mapping[str, np.ndarray], vectors: FrameVectors
) -> list[frame_alignment.Video]:
  """Reads a split's videos with labels and vectors, ego before exo, by name.

  This is the order of the released evaluation, which sorts paths.

  Args:
    folder: folder of one set.
    split: "train", "val" or "test".
    labels: see `read_labels`.
    vectors: the files of vectors.

  Raises:
    FileNotFoundError, ValueError: see `read_names` and `FrameVectors.read`; or a video
      has no labels, or two have one file of vectors.
  """
  names = read_names(folder, split)
  missing = [name for own in names.values() for name in own if name not in labels]
  if missing:
    raise ValueError(
      f"{len(missing)} videos of the split {split!r} have no phases in {LABELS_FILE}:"
      f" {command_line.some([repr(name) for name in missing])}."
    )
  shared = sorted(set(names.get("ego", ())) & set(names.get("exo", ())))
  if shared and vectors.path("", "ego") == vectors.path("", "exo"):
    raise ValueError(
      f"An ego and an exo video are both called {shared[0]!r}, and their vectors lie in one folder."
      " Put them into folders ego and exo."
    )
  return [
    frame_alignment.Video(name, view, vectors.read(name, view, len(labels[name])), labels[name])
    for view, own in names.items()
    for name in own
  ]
