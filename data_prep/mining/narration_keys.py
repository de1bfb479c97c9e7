"""The lookup keys of narrations, made by TensorFlow Text where it is installed.

Training and evaluation make them with the standard library
(`narration_table.normalize_narration`). The keys are the same in both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
import sys
from typing import Any

from sum_l_jax.data import narration_table

_Fold = Callable[[Sequence[str]], list[str]]


def normalize(texts: Sequence[str]) -> list[str]:
  """Makes the key of each text.

  Without TensorFlow Text one line on standard error says so.
  """
  fold = _tensorflow_text()
  keys = list(map(narration_table.normalize_narration, texts))
  if fold is None or not texts:
    return keys
  made = map(narration_table.tidy_narration, fold(texts))
  # The two libraries have tables of different versions of Unicode. Training
  # looks up by the standard library's, so a letter that only one of them knows
  # keeps the form that will be looked up.
  return [one if one == key else key for one, key in zip(made, keys, strict=True)]


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
  """Hides what TensorFlow's C++ code prints about processors and drivers.

  TF_CPP_MIN_LOG_LEVEL doesn't hide it (2.21.0). Python's errors are raised as ever.
  """
  try:
    stderr = os.dup(2)
  except OSError:  # It is closed, as in a daemon.
    yield
    return
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(stderr, 2)
    os.close(nowhere)
    os.close(stderr)


def _tensorflow_text() -> _Fold | None:
  """A function that normalises by NFKC and folds case, or None without the library."""
  try:
    with _without_chatter():
      import tensorflow_text

      normalize_utf8, fold_case = tensorflow_text.normalize_utf8, tensorflow_text.case_fold_utf8
      import tensorflow as tf

      # The sentence model may need the GPU's memory, which TensorFlow would take.
      with contextlib.suppress(RuntimeError):  # TensorFlow was used before.
        tf.config.set_visible_devices([], "GPU")
      fold_case([""])  # The first use looks for devices.
  except Exception as error:  # Built for another TensorFlow, it fails in its own ways.
    if isinstance(error, ModuleNotFoundError):
      reason = "is not installed (extra 'text')"
    else:
      reason = f"can't be loaded ({type(error).__name__})"
    print(
      f"note: tensorflow_text {reason}; the standard library normalises the"
      " narrations, with the same result.",
      file=sys.stderr,
    )
    return None

  def fold(texts: Sequence[str]) -> list[str]:
    # A lone surrogate, which JSON can hold, is no UTF-8.
    encoded = [text.encode("utf-8", "replace") for text in texts]
    folded: Any = normalize_utf8(fold_case(normalize_utf8(encoded, "NFKC")), "NFKC")
    return [text.decode("utf-8") for text in folded.numpy().tolist()]

  return fold
