"""Ids of clips that show the same moment from several cameras.

A clip is a segment as one camera saw it, and its id says both:
"<segment>@<camera>". So two data sets of one view each tell which of their clips
show the same segment, and a benchmark needs no other table for it.
"""

from __future__ import annotations

_AT = "@"


def moment(owner: str, start_seconds: float, stop_seconds: float, label: object) -> str:
  """The id of a stretch of a recording, by what the official files say of it.

  Args:
    owner: the recording, such as an official uid.
    start_seconds: where it starts.
    stop_seconds: where it stops.
    label: what is annotated there; stretches of equal times differ in it.
  """
  return f"{owner}_{start_seconds:.5f}_{stop_seconds:.5f}_{label}"


def clip_id(segment: str, camera: str) -> str:
  """The id of a segment's clip.

  Args:
    segment: id of the segment.
    camera: name of the camera.

  Raises:
    ValueError: the camera's name would hide where the segment's ends.

  >>> clip_id("take7_0.50000_2.00000_843", "cam01")
  'take7_0.50000_2.00000_843@cam01'
  """
  if not camera or _AT in camera:
    raise ValueError(f"The name of a camera must not be empty or hold {_AT!r}, got {camera!r}.")
  return f"{segment}{_AT}{camera}"


def segment_of(clip: str) -> str:
  """The segment that a clip shows: what stands before the camera in its id.

  Raises:
    ValueError: it names no camera.

  >>> segment_of("take7_0.50000_2.00000_843@cam01")
  'take7_0.50000_2.00000_843'
  """
  segment, at, camera = clip.rpartition(_AT)
  if not (at and segment and camera):
    raise ValueError(
      f"Clip {clip!r} doesn't say which segment it shows. Its id must be SEGMENT{_AT}CAMERA, as"
      " data_prep.build_dataset writes it for egoexo4d, egoexo4d_keysteps and ego2exo."
    )
  return segment
