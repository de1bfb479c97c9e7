"""A copy of a video with the predicted labels drawn on its frames."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

import cv2
from etils import epath
import numpy as np

from sum_l_jax.prediction import best_labels
from sum_l_jax.prediction import predictor
from sum_l_jax.prediction import video_sources
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.video import film

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def captions(predictions: Iterable[best_labels.Prediction]) -> tuple[list[float], list[list[str]]]:
  """Decides what is written over the frames, and when.

  Returns:
    The middle of each window, in seconds, ascending; and its lines, the best
    class of each task.
  """
  lines: dict[float, list[str]] = {}
  for item in predictions:
    middle = (item.start + item.stop) / 2
    lines.setdefault(middle, []).append(f"{item.task}: {item.classes[0]} {item.scores[0]:.2f}")
  middles = sorted(lines)
  return middles, [lines[middle] for middle in middles]


def _nearest(middles: Sequence[float], moment: float) -> int:
  right = bisect.bisect_left(middles, moment)
  if right == len(middles):
    return right - 1
  if right and moment - middles[right - 1] <= middles[right] - moment:
    return right - 1
  return right


def draw(image: np.ndarray, lines: Sequence[str]) -> None:
  """Writes lines on dark ground into the upper left corner, in place.

  Args:
    image: picture, uint8 `[H, W, 3]`, contiguous.
    lines: texts; characters outside ASCII become "?", for lack of a font.
  """
  height, width = image.shape[:2]
  lines = [line.encode("ascii", "replace").decode() for line in lines]
  scale = max(height, 120) / 600
  margin = max(2, round(8 * scale))
  widest = max(cv2.getTextSize(t, _FONT, scale, 1)[0][0] for t in lines)
  scale *= min(1.0, max(width - 2 * margin, 1) / widest)
  thick = max(1, round(1.5 * scale))
  sizes = [cv2.getTextSize(text, _FONT, scale, thick) for text in lines]
  step = max(size[1] + base for size, base in sizes) + margin
  right = max(size[0] for size, _ in sizes) + 2 * margin
  image[: step * len(lines) + margin, :right] //= 3
  for number, text in enumerate(lines, start=1):
    place = (margin, number * step)
    cv2.putText(image, text, place, _FONT, scale, (255, 255, 255), thick, cv2.LINE_AA)


def check_output(video: epath.Path, output: epath.Path) -> None:
  """Refuses a file that can't be written, before anything is computed.

  Raises:
    ValueError: another suffix, a folder that is not there, or the video itself.
  """
  command_line.check_output(output, option="--overlay", suffixes=(".mp4",))
  if addresses.resolved(output) == addresses.resolved(video):
    raise ValueError(f"--overlay={str(output)!r} is the video itself. Give another name.")


def write_overlay(
  video: addresses.PathLike,
  predictions: Iterable[best_labels.Prediction],
  output: addresses.PathLike,
  *,
  fps: float = 30.0,
  progress: predictor.Progress | None = None,
) -> int:
  """Reads a video once more and writes it with its labels.

  A frame carries the labels of the window whose middle is nearest. One frame
  is held at a time; sound stays behind. The file appears when it is complete.

  Args:
    video: video file, or a folder of frames.
    predictions: predictions of its windows.
    output: the `.mp4` file.
    fps: frame rate of a folder of frames.
    progress: called for every frame.

  Returns:
    The number of frames.

  Raises:
    FileNotFoundError, ValueError: the video can't be read, there is no
      prediction, or the output can't be written.
  """
  video, output = addresses.path(video), addresses.path(output)
  check_output(video, output)
  middles, lines = captions(predictions)
  if not middles:
    raise ValueError(f"There is no prediction to draw on {str(video)!r}.")
  with video_sources.open_source(video, default_fps=fps) as source:
    return film.write(output, _drawn(source, middles, lines, progress), fps=source.average_fps())


def _drawn(
  source: video_sources.Source,
  middles: Sequence[float],
  lines: Sequence[Sequence[str]],
  progress: predictor.Progress | None,
) -> Iterator[tuple[float, np.ndarray]]:
  """Yields seconds and frames of one even size, with their labels."""
  shape = None
  for moment, frame in source.images():
    # A copy: the frames of an array are not ours.
    image = np.array(frame(), order="C")
    if shape is None:
      shape = tuple(max(side // 2 * 2, 2) for side in image.shape[:2])
    if image.shape[:2] != shape:
      # The encoder wants even sides, all the same.
      image = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)
    draw(image, lines[_nearest(middles, moment)])
    if progress:
      progress(source.name, moment, source.duration)
    yield moment, image
