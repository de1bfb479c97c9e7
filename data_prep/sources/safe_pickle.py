"""Reads pickles of strangers without executing what is in them.

Pickles are programs: `pickle.load` runs whatever a file says. `load` admits
numpy arrays and plain containers alone, and refuses every other file.
"""

from __future__ import annotations

import dataclasses
import pathlib
import pickle
from typing import Any

# Everything that a pickled numpy array or scalar needs to come back.
_ADMITTED = {
  ("numpy", "ndarray"),
  ("numpy", "dtype"),
  ("numpy.core.multiarray", "_reconstruct"),
  ("numpy._core.multiarray", "_reconstruct"),
  ("numpy.core.multiarray", "scalar"),
  ("numpy._core.multiarray", "scalar"),
  ("_codecs", "encode"),  # Bytes, as Python 2 wrote them.
  ("collections", "OrderedDict"),
}


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a file should be, for error texts.

  Attributes:
    content: what it holds, in the plural: "weights".
    form: how it is written: "a Caffe2 pickle (.pkl)".
  """

  content: str
  form: str


DATA = Kind("data", "a pickle")

# Also what PyTorch's weights-only loader raises.
UnpicklingError = pickle.UnpicklingError


class _RefusedError(pickle.UnpicklingError):
  """Its text is the name that is not admitted."""


class _Unpickler(pickle.Unpickler):
  """Finds the admitted names only."""

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _ADMITTED:
      raise _RefusedError(f"{module}.{name}")
    return super().find_class(module, name)


def refusal(path: pathlib.Path, called: str, kind: Kind) -> ValueError:
  """The error for a file that would execute something.

  Args:
    path: the file.
    called: the name that it would call.
    kind: what it should be.

  Returns:
    The error, to be raised.
  """
  return ValueError(
    f"{path} is refused: opening it would call {called}, and a file of"
    f" {kind.content} needs nothing but arrays and plain containers. Do not"
    f" open it with other tools; get the {kind.content} from their original"
    " source."
  )


def damage(path: pathlib.Path, detail: str, kind: Kind) -> ValueError:
  """The error for a file that is not what it should be.

  Args:
    path: the file, which exists.
    detail: what is wrong.
    kind: what it should be.

  Returns:
    The error, to be raised.
  """
  return ValueError(
    f"{path} can't be read as {kind.content} ({detail}). It must be"
    f" {kind.form}, whole: compare its size of {path.stat().st_size:,} bytes"
    " with the source, or download it again."
  )


def load(path: pathlib.Path, *, kind: Kind = DATA) -> object:
  """Reads a pickle of arrays and plain containers.

  Args:
    path: the file. Strings of Python 2 are read as Latin-1.
    kind: what it should be, for the error texts.

  Returns:
    The first object in the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it would execute something, is damaged or is no pickle.
  """
  try:
    with path.open("rb") as file:
      return _Unpickler(file, encoding="latin1").load()
  except _RefusedError as error:
    raise refusal(path, str(error), kind) from None
  # A damaged pickle is a program with arbitrary mistakes in it.
  except (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    detail = str(error) or type(error).__name__
    raise damage(path, detail, kind) from error
