"""Finds videos that are called like their ids, each once however many clips it has."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib

from etils import epath

from data_prep.sources import clip_specs
from sum_l_jax.video import media


class VideoFinder:
  """The videos of a data set, below the folders of --media."""

  def __init__(self, roots: Sequence[epath.Path], folders: Sequence[str] = ("",)) -> None:
    """Looks for nothing yet.

    Args:
      roots: folders of --media.
      folders: folders in them where a video may lie, each "" or ending in "/".
    """
    self._roots = roots
    self._folders = folders
    # Where a video is, or what the error says of one that is nowhere.
    self._found: dict[str, epath.Path | clip_specs.MissingMediaError] = {}
    self._durations: dict[str, float | ValueError] = {}

  def find(self, video_id: str, where: str) -> epath.Path:
    """Where a video is.

    Raises:
      MissingMediaError: it is nowhere.
      ValueError: the id leads out of the folders.
    """
    if video_id not in self._found:
      clip_specs.check_inside(video_id, "video_uid", where)
      videos = {f"{folder}{video_id}": [f"{folder}{video_id}"] for folder in self._folders}
      try:
        self._found[video_id] = clip_specs.find_media(
          video_id, self._roots, where, frames={}, videos=videos
        )
      except clip_specs.MissingMediaError as error:
        self._found[video_id] = error
    found = self._found[video_id]
    if isinstance(found, clip_specs.MissingMediaError):
      raise found
    return found

  def duration(self, video_id: str, where: str) -> float:
    """Length of a video in seconds, from the file itself.

    Raises:
      MissingMediaError: it is nowhere.
      ValueError: it can't be opened, or doesn't say.
    """
    path = self.find(video_id, where)
    if video_id not in self._durations:
      try:
        with contextlib.closing(media.VideoFile(path)) as video:
          known = video.duration
        if known is None:
          raise ValueError(f"{where}: {str(path)!r} doesn't say how long it is.")
        self._durations[video_id] = known
      except ValueError as error:
        self._durations[video_id] = error
    found = self._durations[video_id]
    if isinstance(found, ValueError):
      raise found
    return found
