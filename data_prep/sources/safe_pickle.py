"""Reads pickles of strangers without executing what is in them.

A pickle is a program: `pickle.load` runs whatever the file says. `load` here
admits numpy arrays and plain containers alone, and refuses every other file.
"""

from __future__ import annotations

import dataclasses
import pathlib
import pickle
from typing import Any

# All that is needed to rebuild a pickled numpy array or scalar.
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
    content: noun for what it holds, in the plural: "weights".
    form: form in which it is written: "a Caffe2 pickle (.pkl)".
  """

  content: str
  form: str


DATA = Kind("data", "a pickle")

# PyTorch's weights-only loader raises it too.
UnpicklingError = pickle.UnpicklingError


class _RefusedError(pickle.UnpicklingError):
  """Its text is the name that was not admitted."""


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
    called: name of what it would call.
    kind: what the file should be.

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
    detail: what is wrong with it.
    kind: what the file should be.

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
    kind: what the file should be, for the error texts.

  Returns:
    The first object in the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file would execute something, is damaged or is no pickle.
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
