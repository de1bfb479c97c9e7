"""Labels of a video, from a checkpoint.

  python -m sum_l_jax.predict --checkpoint=runs/epic55 VIDEO [VIDEO ...]
  python -m sum_l_jax.predict --checkpoint=runs/epic55 --window=2 --stride=1 \
      --top=5 --output=csv VIDEO

One line a window, class and score. Frames, crop and channel order are those
the checkpoint was trained with; its card says them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
import csv
import dataclasses
import json
import pathlib
import sys
from typing import Any
from typing import TextIO

import numpy as np

from sum_l_jax import types


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The best classes of one task in one window of a video.

  Attributes:
    video: its path.
    start, stop: of the window, seconds.
    task: for example "verb".
    classes: names, best first.
    scores: their probabilities.
  """

  video: str
  start: float
  stop: float
  task: str
  classes: tuple[str, ...]
  scores: tuple[float, ...]


class Predictor:
  """A checkpoint's ego encoder, ready for clips.

  Args:
    checkpoint: workdir, checkpoint folder or `.npz` file.

  Raises:
    FileNotFoundError, ValueError: no such checkpoint, or one without an ego
      encoder.
  """

  def __init__(self, checkpoint: str | pathlib.Path):
    from sum_l_jax import models
    from sum_l_jax.checkpoint import weights as weights_lib
    from sum_l_jax.data import device
    from sum_l_jax.data import transforms
    from sum_l_jax.evaluation import evaluate
    from sum_l_jax.train import state as train_state

    weights = weights_lib.read_weights(checkpoint)
    self.card = weights.card
    weights_lib.require_view(weights, types.EGO)
    self.class_names = self.card["tasks"][types.EGO]
    frames, pixels = self.card["frames"], self.card["pixels"][types.EGO]
    size = frames["crop_size"]
    self._transform = transforms.ClipTransform(
        num_frames=frames["count"], stride=frames["stride"], crop_size=size,
        short_side=(size, size), flip=0.0,
    )
    network = train_state.Network(lambda: models.make_model(
        backbone=self.card["backbone"],
        tasks={types.EGO: {t: len(n) for t, n in self.class_names.items()}},
        embedding_dim=None,
        pixels={types.EGO: models.PixelSpec(**{
            k: tuple(v) if isinstance(v, list) else v
            for k, v in pixels.items()
        })},
    ))
    self._params, self._stats = (
        {types.EGO: {k: v for k, v in tree[types.EGO].items()
                     if k != "projection"}}
        for tree in (weights.params, weights.stats)
    )
    self._score = evaluate.make_score_step(
        network, view=types.EGO, kinds=self.card["kinds"][types.EGO],
        mesh=device.make_mesh(1),
    )

  @property
  def fps(self) -> float:
    """The frame rate of the training data, which windows are read at."""
    return self.card["frames"]["fps"]

  def scores(self, frames: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities of one clip.

    Args:
      frames: uint8 RGB [H, W, 3] each, at `fps`, all of one size.

    Returns:
      task -> [K].
    """
    indices = self._transform.test_indices(len(frames), 0, 1)
    video = self._transform.test([frames[i] for i in indices], 1)
    pixels = {
        "video": video, "color_offset": np.zeros((1, 3), np.float32)
    }
    scored = self._score(self._params, self._stats, pixels)
    return {task: np.asarray(values)[0] for task, values in scored.items()}

  def predict(
      self, video: str | pathlib.Path, *, window: float = 2.0,
      stride: float = 1.0, top: int = 5,
  ) -> Iterator[Prediction]:
    """Slides a window over a video file.

    Args:
      video: the file.
      window, stride: seconds.
      top: classes a task.

    Raises:
      FileNotFoundError, ValueError: no such video, or a damaged one.
    """
    from data_prep import media  # The decoding that made the training data.
    from sum_l_jax.data import decode

    if window <= 0 or stride <= 0 or top < 1:
      raise ValueError(
          "window and stride must be positive seconds and top at least 1, got"
          f" {window=}, {stride=}, {top=}."
      )
    with media.VideoFile(pathlib.Path(video)) as file:
      duration = file.duration or window
      start = 0.0
      while start == 0.0 or start + window <= duration + 1e-6:
        stop = min(start + window, duration)
        jpegs = file.read_clip(start, stop, fps=self.fps)
        scores = self.scores([decode.decode_jpeg(data) for data in jpegs])
        for task, values in scores.items():
          best = np.argsort(-values, kind="stable")[:top]
          yield Prediction(
              str(video), start, stop, task,
              tuple(self.class_names[task][i] for i in best),
              tuple(float(values[i]) for i in best),
          )
        start += stride


def _write(predictions: Iterator[Prediction], how: str, out: TextIO) -> None:
  if how == "json":
    for item in predictions:
      out.write(json.dumps(dataclasses.asdict(item)) + "\n")
    return
  if how == "csv":
    rows = csv.writer(out)
    rows.writerow(["video", "start", "stop", "task", "rank", "class", "score"])
    for item in predictions:
      for rank, pair in enumerate(zip(item.classes, item.scores), start=1):
        rows.writerow([item.video, f"{item.start:.2f}", f"{item.stop:.2f}",
                       item.task, rank, pair[0], f"{pair[1]:.4f}"])
    return
  for item in predictions:
    named = ", ".join(
        f"{name} {score:.2f}" for name, score in zip(item.classes, item.scores)
    )
    out.write(f"{item.video} {item.start:.1f}-{item.stop:.1f} s "
              f"{item.task}: {named}\n")


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("videos", nargs="+", help="video files")
  parser.add_argument("--checkpoint", required=True,
                      help="workdir, checkpoint folder or .npz file")
  parser.add_argument("--window", type=float, default=2.0, help="seconds")
  parser.add_argument("--stride", type=float, default=1.0, help="seconds")
  parser.add_argument("--top", type=int, default=5, help="classes a task")
  parser.add_argument("--output", choices=("text", "json", "csv"),
                      default="text")
  parser.add_argument("--debug", action="store_true",
                      help="show the stack trace of an error")
  return parser


def main(arguments: Sequence[str] | None = None) -> Any:
  options = _parser().parse_args(arguments)
  try:
    predictor = Predictor(options.checkpoint)

    def predictions():
      for video in options.videos:
        yield from predictor.predict(
            video, window=options.window, stride=options.stride,
            top=options.top,
        )

    _write(predictions(), options.output, sys.stdout)
  except (ValueError, FileNotFoundError) as error:
    if options.debug:
      raise
    sys.stderr.write(f"error: {error}\n")
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
