"""Scalars out of TensorBoard's event files, without TensorFlow.

A file is a row of records: length (8 bytes), checksum (4), an `Event` message,
checksum (4). TensorBoard's own reader imports TensorFlow where it is installed,
which takes seconds and hundreds of MB; the message definitions alone do not.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import pathlib
import struct

from google.protobuf import message
import numpy as np
from tensorboard.compat.proto import event_pb2


@dataclasses.dataclass(frozen=True)
class Series:
  """One scalar over a stage, in the order of its steps.

  Attributes:
    steps: int64 `[n]`, ascending.
    values: float64 `[n]`.
    times: float64 `[n]`, when each was written, seconds since 1970.
  """

  steps: np.ndarray
  values: np.ndarray
  times: np.ndarray


_HEAD, _TAIL = 12, 4


def _events(path: pathlib.Path) -> Iterator[event_pb2.Event]:
  """The events of a file, as far as it is whole: a run may be writing it."""
  data = path.read_bytes()
  place = 0
  while place + _HEAD <= len(data):
    (length,) = struct.unpack_from("<Q", data, place)
    start, place = place + _HEAD, place + _HEAD + length + _TAIL
    if place > len(data):
      return
    try:
      yield event_pb2.Event.FromString(data[start : start + length])
    except message.DecodeError:
      return


def _number(value) -> float | None:
  """The number of a summary value, or None of a picture or text."""
  which = value.WhichOneof("value")
  if which == "simple_value":
    return value.simple_value
  if which != "tensor" or value.tensor.dtype != 1:  # DT_FLOAT
    return None
  if len(value.tensor.tensor_content) == 4:
    return struct.unpack("<f", value.tensor.tensor_content)[0]
  return value.tensor.float_val[0] if len(value.tensor.float_val) == 1 else None


def read_scalars(folder: str | pathlib.Path) -> dict[str, Series]:
  """All scalars that a stage has logged.

  A run that was stopped and resumed has several files; of a step that was taken
  twice the later value counts.

  Args:
    folder: with `events.out.tfevents.*`, such as `<workdir>/joint`.

  Returns:
    By tag; empty where there is no file.
  """
  found: dict[str, dict[int, tuple[float, float]]] = {}
  for path in sorted(pathlib.Path(folder).glob("events.out.tfevents.*")):
    for event in _events(path):
      for value in event.summary.value:
        number = _number(value)
        if number is None:
          continue
        steps = found.setdefault(value.tag, {})
        if event.wall_time >= steps.get(event.step, (0.0, 0.0))[0]:
          steps[event.step] = (event.wall_time, number)
  return {tag: _series(steps) for tag, steps in found.items()}


def _series(steps: dict[int, tuple[float, float]]) -> Series:
  order = sorted(steps)
  times, values = zip(*(steps[step] for step in order))
  return Series(
    np.array(order, np.int64), np.array(values, np.float64), np.array(times, np.float64)
  )
