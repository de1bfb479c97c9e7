"""Clips that the questions of a benchmark ask for: to be embedded, never trained on.

Their ids come from `multiple_choice`, as the benchmark looks for them. The clips make
a split without labels, for they are the benchmark's own test or validation data.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from etils import epath

from data_prep.sources import clip_specs
from data_prep.sources import split_rules
from data_prep.sources import video_finder
from sum_l_jax.evaluation.benchmarks import egomcq
from sum_l_jax.evaluation.benchmarks import multiple_choice

TEST = "test"

# (start, stop, duration of the video) -> what is shown of it.
Clamp = Callable[[float, float, float], tuple[float, float]]


def read_egomcq(
  path: epath.Path,
  *,
  media_roots: Sequence[epath.Path],
  problems: clip_specs.Problems | None = None,
) -> clip_specs.Annotations:
  """Reads `egomcq.json` as clips of Ego4D's videos, `<video_uid>.mp4`.

  Args:
    path: the file.
    media_roots: folders of the videos.
    problems: what to do with a clip that can't be used; None raises.

  Returns:
    The choices of all questions, each clip once, in the split "test".

  Raises:
    FileNotFoundError: the file or a video is missing.
    ValueError: the file is damaged, or a span is unusable.
  """
  return make_clips(
    path,
    egomcq.spans(egomcq.read_questions(path)),
    video_finder.VideoFinder(media_roots),
    problems or clip_specs.Problems(),
  )


def make_clips(
  path: epath.Path,
  spans: Sequence[multiple_choice.Span],
  videos: video_finder.VideoFinder,
  problems: clip_specs.Problems,
  *,
  clamp: Clamp | None = None,
  metadata: Mapping[str, Any] | None = None,
) -> clip_specs.Annotations:
  """Makes a clip of each span.

  Args:
    path: the file of questions; "val" in its name makes the split "validation".
    spans: the spans, each once.
    videos: finds the videos.
    problems: what to do with a clip that can't be used.
    clamp: the official rule for spans that reach beyond their video; None leaves
      spans as they are, so that one beyond the end is a problem of its clip.
    metadata: JSON values for the data set's card.

  Raises:
    FileNotFoundError: a video is missing.
    ValueError: a span is unusable.
  """
  clips, moved = [], 0
  for span in spans:
    with problems.of(span.clip_id, span.where):
      start, stop = span.start_seconds, span.stop_seconds
      if clamp is not None:
        start, stop = clamp(start, stop, videos.duration(span.video_id, span.where))
      if not 0 <= start < stop:
        raise ValueError(
          f"{span.where}: nothing of {span.start_seconds:g} to {span.stop_seconds:g} s lies in"
          f" video {span.video_id!r}. Take the official file and the whole video."
        )
      moved += (start, stop) != (span.start_seconds, span.stop_seconds)
      clips.append(
        clip_specs.ClipSpec(
          clip_id=span.clip_id,
          video_id=span.video_id,
          media=videos.find(span.video_id, span.where),
          start_seconds=start,
          stop_seconds=stop,
          narration=span.text,
          labels={},
          where=span.where,
        )
      )
  split = split_rules.VALIDATION if "val" in path.stem.split("_") else TEST
  notes = [f"{len(clips):,} clips of questions make the split {split!r}, to be embedded alone"]
  if moved:
    notes.append(
      f"{moved:,} of them end beyond their video, or are shorter than a second, and were changed"
      " as the official reader does"
    )
  return clip_specs.Annotations(
    [], {}, (path,), {split: clips}, metadata=dict(metadata or {}), notes=notes
  )
