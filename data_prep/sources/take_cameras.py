"""Takes of Ego-Exo4D: their cameras, where the videos lie, and sides of captures.

A take is a stretch of a capture, which several cameras filmed at the same time.
`takes.json` lists them. It is read like this:

  * Whether a camera is a first person's is what its entry says (`is_ego`). Names
    don't tell: there are takes in which gp05 is worn, and aria02 is as good as
    aria01. Entries of `frame_aligned_videos` that no camera belongs to, such as
    "collage", are made of several cameras, and "moblie" filmed the room before
    the take; none of them is a view of the take.
  * Of Aria's streams only "rgb" is a video of what the person sees; the others
    are those of its trackers. Other cameras have one stream, "0".
  * Times count from the take's beginning, at 30 frames a second, alike for all
    cameras.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import pathlib

from etils import epath

from data_prep.sources import clip_specs
from sum_l_jax import types
from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line

FPS = 30.0
TAKES_FILE = "takes.json"
# Which third-person cameras clips are made of.
BEST, ALL = "best", "all"
CAMERAS = (BEST, ALL)

_RGB_STREAMS = ("rgb", "0")
_NO_VIEWS = frozenset({"moblie", "mobile", "collage", "best_exo"})
_SMALL = "downscaled/448"
_MEND = "Take the official file of Ego-Exo4D."

# What some files write as true or false, and others as "1" or "0".
Flag = bool | int | str | None


def flag(value: Flag, what: str, where: str) -> bool:
  """Reads true, 1, "1" or "true", and what says the opposite; None is false.

  Raises:
    ValueError: it is something else; the error names the place and the field.
  """
  text = str(value).strip().casefold()
  if text in ("true", "1"):
    return True
  if text in ("false", "0", "none"):
    return False
  raise ValueError(f"{where}: {what} must be true or false, or 1 or 0; got {value!r}. {_MEND}")


def side(capture_uid: str) -> str:
  """The view whose data set has a capture, where no moment may be seen from both.

  It depends on the capture's id alone, and half of the captures are on each side.
  """
  digest = hashlib.sha256(f"unpaired {capture_uid}".encode()).digest()
  return types.EGO if digest[0] < 128 else types.EXO


@dataclasses.dataclass(frozen=True)
class _Stream:
  relative_path: str | None = None


@dataclasses.dataclass(frozen=True)
class _Camera:
  cam_id: checked_json.Name
  is_ego: Flag


@dataclasses.dataclass(frozen=True)
class _Capture:
  cameras: tuple[_Camera, ...] = ()


@dataclasses.dataclass(frozen=True)
class _TakeEntry:
  """What an entry of `takes.json` must hold; null where it isn't known."""

  take_uid: checked_json.Name
  take_name: checked_json.Name
  root_dir: checked_json.Name
  capture_uid: str | int | None = None
  capture: _Capture | None = None
  frame_aligned_videos: dict[str, dict[str, _Stream]] | None = None
  best_exo: str | None = None
  parent_task_name: str | None = None
  duration_sec: checked_json.Positive | None = None


class Take:
  """One take.

  Attributes:
    uid: its id.
    name: its name, unique as well.
    where: file and entry, for error texts.
    capture: id of the capture.
    best_exo: the third-person camera that shows the task best, or "".
    activity: what is done in it, such as "Bike Repair", or "".
    seconds: length; infinite where it isn't known.
  """

  def __init__(self, entry: _TakeEntry, where: str) -> None:
    self.uid, self.name, self.where = entry.take_uid, entry.take_name, where
    self.capture = "" if entry.capture_uid is None else str(entry.capture_uid)
    self.best_exo = entry.best_exo or ""
    self.activity = (entry.parent_task_name or "").strip()
    self.seconds = entry.duration_sec or float("inf")
    self._entry = entry
    self._cameras: dict[str, list[str]] | None = None

  def cameras(self, view: str) -> Sequence[str]:
    """Names of the cameras of a view, sorted.

    Raises:
      ValueError: the entry doesn't tell, or names none of this view.
    """
    if self._cameras is None:
      cameras = self._entry.capture.cameras if self._entry.capture else ()
      streams = self._entry.frame_aligned_videos or {}
      found: dict[str, list[str]] = {types.EGO: [], types.EXO: []}
      for camera in cameras:
        if camera.cam_id in streams and camera.cam_id not in _NO_VIEWS:
          ego = flag(camera.is_ego, f"is_ego of camera {camera.cam_id!r}", self.where)
          found[types.EGO if ego else types.EXO].append(camera.cam_id)
      self._cameras = {name: sorted(set(names)) for name, names in found.items()}
    if not self._cameras[view]:
      person = "first" if view == types.EGO else "third"
      others = command_line.some([c for names in self._cameras.values() for c in names])
      raise ValueError(
        f"{self.where}: take {self.name!r} has no camera of the {person} person with a video"
        f" (cameras with one: {others or 'none'}). Leave it out with --on_error=skip."
      )
    return self._cameras[view]

  def chosen(self, view: str, cameras: str, best: str) -> Sequence[str]:
    """The cameras that clips are made of; none where the best one isn't known.

    Args:
      view: view of the data set.
      cameras: one of `CAMERAS`, for the third person.
      best: the camera that shows this moment best, or "".
    """
    names = self.cameras(view)
    if view == types.EGO or cameras == ALL:
      return names
    # Some moments name a camera that is worn, or isn't there.
    return next(([name] for name in (best, self.best_exo) if name in names), [])

  def capture_or_error(self) -> str:
    """The id of the capture.

    Raises:
      ValueError: it isn't known.
    """
    if not self.capture:
      raise ValueError(f"{self.where}: take {self.name!r} has no capture_uid. {_MEND}")
    return self.capture

  def places(self, camera: str) -> list[str]:
    """Paths at which a camera's video may lie, without suffix, in order of preference.

    Raises:
      ValueError: the camera has no stream in colour, or the entry leads elsewhere.
    """
    streams = (self._entry.frame_aligned_videos or {}).get(camera, {})
    name = next((s for s in _RGB_STREAMS if s in streams), None)
    path = streams[name].relative_path if name else None
    if not path:
      raise ValueError(
        f"{self.where}: camera {camera!r} of take {self.name!r} has no video in colour; streams:"
        f" {', '.join(streams) or 'none'}. Leave it out with --on_error=skip."
      )
    clip_specs.check_inside(path, f"relative_path of {camera!r}", self.where)
    root = clip_specs.check_inside(self._entry.root_dir, "root_dir", self.where)
    video = pathlib.PurePosixPath(path).with_suffix("")
    small = video.parent / _SMALL / video.name
    # --media may name the folder of the download, or its folder takes.
    roots = list(dict.fromkeys([root, root.removeprefix("takes/")]))
    return [f"{r}/{v}" for v in (small, video) for r in roots]


class Takes:
  """The takes of a release, by uid, and where their videos are.

  Attributes:
    file: the file that lists them.
  """

  def __init__(self, file: epath.Path, media_roots: Sequence[epath.Path]) -> None:
    """Reads the file.

    Raises:
      FileNotFoundError, ValueError: it isn't there, or is damaged.
    """
    self.file = file
    self._roots = media_roots
    self._media: dict[tuple[str, str], epath.Path | Exception] = {}
    self._takes: dict[str, Take] = {}
    entries = checked_json.read(file, tuple[_TakeEntry, ...], mend=_MEND)
    for number, entry in enumerate(entries):
      where = f"{file.name}, entry {number}"
      if entry.take_uid in self._takes:
        raise ValueError(f"{where}: take_uid {entry.take_uid!r} occurs twice. {_MEND}")
      self._takes[entry.take_uid] = Take(entry, where)

  def get(self, uid: str, where: str) -> Take:
    """The take of that uid.

    Raises:
      ValueError: there is none.
    """
    if uid not in self._takes:
      raise ValueError(
        f"{where}: take {uid!r} is not in {self.file.name}, which lists {len(self._takes)}. Take"
        " all files from one release, or leave it out with --on_error=skip."
      )
    return self._takes[uid]

  @property
  def activities(self) -> tuple[str, ...]:
    """The activities of all takes, sorted."""
    return tuple(sorted({take.activity for take in self._takes.values()} - {""}))

  def named(self) -> Mapping[str, Take]:
    """The takes by name."""
    return {take.name: take for take in self._takes.values()}

  def video(self, take: Take, camera: str, where: str) -> epath.Path:
    """Finds the video of a camera; each is looked for once.

    Raises:
      FileNotFoundError: it isn't there; the error lists the places.
      ValueError: see `Take.places`.
    """
    key = (take.uid, camera)
    if key not in self._media:
      try:
        places = {place: [place] for place in take.places(camera)}
        name = f"{take.name}/{camera}"
        self._media[key] = clip_specs.find_media(name, self._roots, where, frames={}, videos=places)
      except (ValueError, FileNotFoundError) as error:
        self._media[key] = error
    found = self._media[key]
    if isinstance(found, Exception):
      raise found
    return found
