"""Reads clips from any TFDS data set that has a video feature.

The data set must be prepared: `--dataset=tfds:NAME/VERSION@DIR` reads the folder
`DIR/NAME/VERSION` (with a config, `tfds:NAME/CONFIG/VERSION@DIR`). Each example
is a clip, and TFDS's splits are kept. Nothing is downloaded, and no code of the
data set is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib
from typing import Any

from etils import epath
import numpy as np

from data_prep.clips import clip_dataset
from sum_l_jax import types
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.video import jpeg

PREFIX = "tfds:"


@dataclasses.dataclass(frozen=True)
class Fields:
  """Which features are what.

  Attributes:
    video: feature of the frames, a Video or a sequence of images; "" takes the
      only one.
    narration: feature of a text; "" makes one of the class names.
    labels: features of classes; empty takes all of them.
    clip_id: feature of a text or number; "" numbers the clips.
  """

  video: str = ""
  narration: str = ""
  labels: Sequence[str] = ()
  clip_id: str = ""


def find(address: str) -> epath.Path:
  """The folder that `tfds:NAME/VERSION@DIR` names.

  Raises:
    FileNotFoundError, ValueError: it isn't written like that, or not there.
  """
  name, at, folder = address.removeprefix(PREFIX).rpartition("@")
  if not (at and name and folder) or ".." in pathlib.PurePosixPath(name).parts:
    raise ValueError(
      f"--dataset={address!r} must be tfds:NAME/VERSION@DIR, for example"
      " tfds:ucf101/2.0.0@~/tensorflow_datasets."
    )
  path = addresses.path(os.path.expanduser(folder), what="--dataset") / name
  if not storage.is_file(path / "dataset_info.json"):
    raise FileNotFoundError(
      f"{str(path)!r} holds no TFDS data set: there is no dataset_info.json. Prepare it with"
      f" TFDS first (tfds build {name.partition('/')[0]}), or correct the address."
    )
  return path


class Source:
  """One prepared data set.

  Attributes:
    name: its name.
    about: what TFDS says of where it comes from.
    tasks: label sets by name.
    identity: JSON values that identify what is read.
  """

  def __init__(self, path: epath.Path, fields: Fields, *, fps: float, short_side: int) -> None:
    """Opens it; no example is read.

    Args:
      path: folder of the data set.
      fields: which features are what.
      fps: frames a second of its videos, which TFDS doesn't know.
      short_side: larger frames are shrunk to it.

    Raises:
      ValueError: there is no such feature, or it is of another kind.
    """
    import tensorflow_datasets as tfds

    self._path, self._fps, self._short_side = path, fps, short_side
    # Annotated, since TFDS's decorators hide the arguments.
    self._builder: Any = tfds.builder_from_directory(path)
    info = self._builder.info
    # TFDS reads them in no fixed order.
    self._features = dict(sorted(info.features.items()))
    self.name = info.name
    self.about = clip_dataset.read_about(path)
    videos = [name for name, feature in self._features.items() if _is_video(feature)]
    labels = {name: f for name, f in self._features.items() if _class_label(f) is not None}
    video = fields.video or (videos[0] if len(videos) == 1 else "")
    self._fields = dataclasses.replace(fields, video=video, labels=tuple(fields.labels or labels))
    self._check("--tfds_video", [video], videos)
    self._check("--tfds_labels", self._fields.labels, labels)
    for option, name in (("narration", fields.narration), ("id", fields.clip_id)):
      if name:
        self._check(f"--tfds_{option}", [name], self._features)
    self.tasks = {name: _task(name, self._features[name]) for name in self._fields.labels}
    if not fields.narration and not self.tasks:
      raise ValueError(
        f"{str(path)!r} has no feature of classes, so --tfds_narration must name a text:"
        f" {', '.join(self._features)}."
      )
    self.identity = {
      "source": f"{PREFIX}{info.full_name}",
      "splits": {split: info.splits[split].num_examples for split in info.splits},
      **dataclasses.asdict(self._fields),
      "labels": list(self._fields.labels),
      "fps": fps,
      "short_side": short_side,
      "jpeg_quality": jpeg.JPEG_QUALITY,
    }

  def _check(self, option: str, names: Sequence[str], choices: Any) -> None:
    wrong = [name for name in names if name not in choices]
    if wrong:
      close = command_line.close_match(wrong[0], choices)
      raise ValueError(
        f"{option} must name a feature of {str(self._path)!r} of that kind, got"
        f" {wrong[0]!r}{close}; there are: {', '.join(choices) or 'none'}."
      )

  @property
  def splits(self) -> Mapping[str, Callable[[], Iterator[types.Clip]]]:
    """The function that yields the clips, by split."""
    return {split: functools.partial(self._clips, split) for split in self._builder.info.splits}

  def _examples(self, split: str) -> Iterator[Mapping[str, Any]]:
    import tensorflow_datasets as tfds

    if self._builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
      yield from self._builder.as_data_source(split)
      return
    # TFRecord and others are read by TensorFlow alone.
    yield from tfds.as_numpy(self._builder.as_dataset(split, shuffle_files=False))

  def _clips(self, split: str) -> Iterator[types.Clip]:
    for number, example in enumerate(self._examples(split)):
      labels = {
        name: tuple(int(i) for i in np.atleast_1d(np.asarray(example[name], np.int64)) if i >= 0)
        for name in self.tasks
      }
      clip_id = f"{split}_{number:07d}"
      if self._fields.clip_id:
        clip_id = _text(example[self._fields.clip_id])
      if self._fields.narration:
        narration = _text(example[self._fields.narration])
      else:
        names = [self.tasks[t].class_names[i] for t, ids in labels.items() for i in ids]
        narration = " ".join(names).replace("_", " ")
      yield types.Clip(
        clip_id=clip_id,
        frames=[self._encode(frame, clip_id) for frame in example[self._fields.video]],
        fps=self._fps,
        narration=narration,
        labels=labels,
        video_id=clip_id,
      )

  def _encode(self, frame: np.ndarray, clip_id: str) -> bytes:
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] not in (1, 3):
      raise ValueError(
        f"Clip {clip_id!r}: a frame must be uint8 [H, W, 1 or 3], got {frame.dtype} {frame.shape}."
      )
    if frame.shape[-1] == 1:
      frame = np.repeat(frame, 3, axis=-1)
    return jpeg.encode(jpeg.shrink(frame, self._short_side))


def _text(value: Any) -> str:
  return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _inner(feature: Any) -> Any:
  """The feature of a sequence's elements; None for one that is no sequence."""
  return getattr(feature, "feature", None)


def _is_video(feature: Any) -> bool:
  import tensorflow_datasets as tfds

  return isinstance(feature, tfds.features.Video) or isinstance(
    _inner(feature), tfds.features.Image
  )


def _class_label(feature: Any) -> Any:
  """The ClassLabel of a feature of one or several classes; None for others."""
  import tensorflow_datasets as tfds

  label = _inner(feature) or feature
  return label if isinstance(label, tfds.features.ClassLabel) else None


def _task(name: str, feature: Any) -> types.Task:
  label = _class_label(feature)
  kind = types.SOFTMAX if label is feature else types.MULTI_LABEL
  return types.Task(name, kind, tuple(label.names))
