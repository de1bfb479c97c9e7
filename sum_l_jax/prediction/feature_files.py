"""Files of features, in the layouts that code for detecting actions reads.

Beside each file of features is a card with the same name, `NAME.json`. It is written
last, so that what has a card is whole, and it says what the features were made with.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
import dataclasses
import json
from typing import Any
import zipfile

from etils import epath
import numpy as np

from sum_l_jax.prediction import feature_options
from sum_l_jax.prediction import sliding_features
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.video import file_names

_FORMAT = 1
# Cards that are read at a time; in a bucket, each takes some requests.
_LOOKS = 16
# Rows that are converted and written at a time.
_BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class _Features:
  file: checked_json.Name
  bytes: checked_json.Index


@dataclasses.dataclass(frozen=True)
class _Video:
  size: checked_json.Index


@dataclasses.dataclass(frozen=True)
class _Card:
  """The fields of a card that are read again."""

  format: int
  features: _Features
  video: _Video
  settings: checked_json.Object


def name_videos(videos: Sequence[epath.Path]) -> dict[str, epath.Path]:
  """Names for the features of videos: those of the files, without suffix.

  Raises:
    ValueError: two videos would have the same.
  """
  named: dict[str, epath.Path] = {}
  twice = []
  for video in videos:
    # A folder of frames may have a dot in its name.
    name = video.name if storage.is_dir(video) else video.stem
    if name in named and named[name] != video:
      twice.append(f"{str(named[name])!r} and {str(video)!r}")
    named.setdefault(name, video)
  if twice:
    raise ValueError(
      f"Features are named after their videos, and these would have one name: {twice[0]}"
      f"{f', and {len(twice) - 1} more' if len(twice) > 1 else ''}. Rename them, or give them in"
      " separate commands, with an --output of their own."
    )
  return named


def video_size(video: epath.Path) -> int:
  """Bytes of a video or `.tar` file; of a folder, the number of its frames."""
  if storage.is_dir(video):
    return sum(map(file_names.is_frame, storage.names(video)))
  return storage.size(video)


class FeatureFiles:
  """The files in one folder, all made with the same settings."""

  def __init__(
    self, folder: epath.Path, layout: str, dtype: str, settings: Mapping[str, Any]
  ) -> None:
    """Says where they are and what they have in common.

    Args:
      folder: the folder, which exists.
      layout: a key of `feature_options.LAYOUTS`.
      dtype: type of the stored vectors, one of `feature_options.DTYPES`.
      settings: JSON values, see `sliding_features.Extractor.settings`.
    """
    self._folder, self._layout, self._dtype = folder, feature_options.LAYOUTS[layout], dtype
    self._settings = json.loads(json.dumps({**settings, "layout": layout, "dtype": dtype}))

  def path(self, name: str) -> epath.Path:
    """The file of features of this name."""
    return self._folder / f"{name}{self._layout.suffix}"

  def _card(self, name: str) -> epath.Path:
    return self._folder / f"{name}.json"

  def done(self, named: Mapping[str, epath.Path]) -> set[str]:
    """The names of videos whose features are there, whole, and of these videos.

    Args:
      named: videos by name.

    Raises:
      ValueError: features of one of the names were made with other settings.
    """
    with futures.ThreadPoolExecutor(_LOOKS) as pool:
      found = pool.map(self._is_done, named.keys(), named.values())
      return {name for name, done in zip(named, found) if done}

  def _is_done(self, name: str, video: epath.Path) -> bool:
    place = self._card(name)
    try:
      card = checked_json.decode(storage.read_bytes(place), _Card)
    except (FileNotFoundError, checked_json.JsonError):
      return False  # Whatever is there is written again.
    if differing := _difference(card.settings, self._settings):
      raise ValueError(
        f"{str(place)!r} was made with other settings: {differing}. Features of two kinds must"
        " not lie in one folder: give another --output, or make all of them again with"
        " --overwrite."
      )
    try:
      whole = storage.size(self._folder / card.features.file) == card.features.bytes
      same = card.video.size == video_size(video)
    except FileNotFoundError:
      return False
    return card.format == _FORMAT and whole and same

  def write(
    self,
    name: str,
    rows: sliding_features.Rows,
    grid: feature_options.Grid,
    about: Mapping[str, Any],
  ) -> epath.Path:
    """Writes the features of a video and, after them, their card.

    Args:
      name: name of the file, without suffix.
      rows: the features.
      grid: the windows, for the times.
      about: more JSON values for the card.

    Returns:
      The file of features.

    Raises:
      ValueError: the type can't hold a value.
    """
    starts, ends = grid.seconds(rows.frames, rows.begin)
    path = self.path(name)
    # An older card must not stand beside a newer file.
    storage.remove(self._card(name))
    with storage.replacing(path) as scratch:
      self._write_rows(scratch, rows.vectors, starts, ends)
      size = storage.size(scratch)
    count, width = rows.vectors.shape
    card = {
      "format": _FORMAT,
      "features": {
        "file": path.name,
        "bytes": size,
        "array": self._layout.key or None,
        "shape": [count, width],
        "dtype": self._dtype,
      },
      "video": {
        "path": rows.video,
        "size": video_size(addresses.path(rows.video)),
        "frames": rows.frames,
        "begin_seconds": rows.begin,
      },
      "settings": self._settings,
      **about,
      "start_seconds": starts.tolist(),
      "end_seconds": ends.tolist(),
    }
    if not grid.lead:  # It takes the middle of the first window for half a window's time.
      # The names of ActionFormer's settings.
      card["actionformer"] = {
        "feat_stride": grid.stride,
        "num_frames": grid.window,
        "default_fps": grid.fps,
        "input_dim": width,
        "file_ext": self._layout.suffix,
        "file_prefix": None,
      }
    text = json.dumps(card, ensure_ascii=False, indent=1)
    storage.write_text(self._card(name), text + "\n")
    return path

  def _write_rows(
    self, path: Any, vectors: np.ndarray, starts: np.ndarray, ends: np.ndarray
  ) -> None:
    """Writes a local file; the vectors go through memory block by block."""
    if not self._layout.key:
      rows = np.lib.format.open_memmap(path, "w+", np.dtype(self._dtype), vectors.shape)
      for first, block in self._blocks(vectors):
        rows[first : first + len(block)] = block
      rows.flush()
      return
    # Not compressed: vectors hardly shrink, and readers are faster without.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
      with archive.open(f"{self._layout.key}.npy", "w", force_zip64=True) as file:
        self._write_array(file, vectors)
      for key, times in zip(self._layout.times, (starts, ends)):
        with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
          np.lib.format.write_array(file, times, allow_pickle=False)

  def _write_array(self, file: Any, vectors: np.ndarray) -> None:
    header = {
      "descr": np.lib.format.dtype_to_descr(np.dtype(self._dtype)),
      "fortran_order": False,
      "shape": vectors.shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    for _, block in self._blocks(vectors):
      file.write(block.tobytes())

  def _blocks(self, vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields rows in the stored type, and the first one's number."""
    for first in range(0, len(vectors), _BLOCK):
      with np.errstate(over="ignore"):
        block = vectors[first : first + _BLOCK].astype(self._dtype)
      if not np.isfinite(block).all():
        raise ValueError(f"A feature is too large for {self._dtype}. Take float32.")
      yield first, block


def _difference(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  """The settings in which two cards differ, or ""."""
  found = [
    f"{name} was {json.dumps(there.get(name))}, and is {json.dumps(now.get(name))} now"
    for name in (*now, *(there.keys() - now.keys()))
    if there.get(name) != now.get(name)
  ]
  return command_line.some(found, 2)
