"""Reads pickles of strangers without executing what is in them.

A pickle is a program: `pickle.load` runs whatever the file says. `load` here
knows numbers, texts, plain containers, and numpy arrays of numbers or texts. It
refuses every other file. It imports nothing that a file names, and no object
takes a state from a file: arrays are made here, from a type in `_DTYPES`, a
shape and bytes.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import math
import mmap
import pickle
import re
import struct
from typing import Any
from typing import ClassVar

from etils import epath
import numpy as np

from sum_l_jax.system import storage

# Types of elements, as numpy spells them in a pickle; `_TEXT` are those of
# texts. Objects and records are not among them: their bytes are pointers.
_DTYPES = {
  code: np.dtype(code)
  for code in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
}
_TEXT = re.compile(r"[SU][1-9][0-9]{0,3}")


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


class _UnknownContentError(pickle.UnpicklingError):
  """Its text is what the file holds and should not."""


# A damaged pickle is a program with arbitrary mistakes in it.
_MISTAKES = (
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
  struct.error,
)


class DType:
  """Stands for `numpy.dtype` in a file.

  A real dtype would take its flags from the file, and an array of such a dtype
  would take bytes for pointers.
  """

  def __init__(self, code: object = None, *_: object) -> None:
    if not isinstance(code, str) or not (code in _DTYPES or _TEXT.fullmatch(code)):
      what = repr(code[:20]) if isinstance(code, str) else type(code).__name__
      raise _UnknownContentError(f"an array of {what}")
    self._dtype = _DTYPES.get(code, np.dtype(code))

  def __setstate__(self, state: object) -> None:
    """Takes the byte order, and nothing else."""
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
    if order not in ("<", ">", "|", "="):
      raise _UnknownContentError("an array in an unknown byte order")
    self._dtype = self._dtype.newbyteorder(order)

  def fill(self, shape: tuple[int, ...], data: object, *, fortran: bool = False) -> np.ndarray:
    """Makes an array from bytes, which must fit the shape."""
    data = data.encode("latin1") if isinstance(data, str) else data  # Python 2.
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * self._dtype.itemsize:
      raise _UnknownContentError("an array whose bytes do not fit its shape")
    flat = np.frombuffer(data, self._dtype)
    if flat.dtype.kind == "b":  # Any byte but 0 is true, and numpy relies on 1.
      flat = flat.view(np.uint8) != 0
    elif flat.dtype.kind == "U":
      codes = flat.view(np.dtype(np.uint32).newbyteorder(flat.dtype.byteorder))
      if codes.max(initial=0) > 0x10FFFF:
        raise _UnknownContentError("texts beyond Unicode")
    return flat.copy().reshape(shape, order="F" if fortran else "C")


class Array(np.ndarray):
  """Stands for numpy's way to make an empty array and fill it afterwards."""

  def __new__(cls, *_: object) -> Array:
    """Makes an empty array, whatever the file asks for."""
    return super().__new__(cls, (0,), np.uint8)

  def __setstate__(self, state: object) -> None:
    """Takes (version, shape, dtype, whether in Fortran's order, bytes)."""
    match state:
      case (*_, tuple() as shape, DType() as dtype, bool() | int() as fortran, data) if len(
        shape
      ) <= 32 and all(isinstance(n, int) and 0 <= n < 2**48 for n in shape):
        sound = dtype.fill(shape, data, fortran=bool(fortran))
        sound_state: Any = sound.__reduce__()[2]
        super().__setstate__(sound_state)
      case _:
        raise _UnknownContentError("an array that can't be rebuilt")


def _scalar(dtype: object = None, data: object = b"") -> Any:
  """Stands for the function of numpy that rebuilds a scalar."""
  if not isinstance(dtype, DType):
    raise _UnknownContentError("a scalar that can't be rebuilt")
  return dtype.fill((), data)[()]


def _encode(text: object = None, encoding: object = None) -> bytes:
  """Stands for `_codecs.encode`, with which protocol 2 writes bytes."""
  if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
    raise _UnknownContentError("bytes in an unknown encoding")
  return text.encode("latin1")


def _no_bytes() -> bytes:
  """Stands for `bytes`, which protocol 2 calls where there are none."""
  return b""


def _ordered_dict(items: object = ()) -> collections.OrderedDict[Any, Any]:
  """Stands for `collections.OrderedDict`, whose items Python 2 gives in a list."""
  if not isinstance(items, list | tuple):
    raise _UnknownContentError("a dict that can't be rebuilt")
  pairs = [(key, value) for key, value in items]
  return collections.OrderedDict(zip(_sound_keys(k for k, _ in pairs), (v for _, v in pairs)))


# What stands for the names that files of arrays hold.
NUMPY = {
  "numpy.ndarray": Array,
  "numpy.dtype": DType,
  "numpy.core.multiarray._reconstruct": Array,
  "numpy._core.multiarray._reconstruct": Array,
  "numpy.core.multiarray.scalar": _scalar,
  "numpy._core.multiarray.scalar": _scalar,
}
_ADMITTED = {
  **NUMPY,
  "_codecs.encode": _encode,
  "builtins.bytes": _no_bytes,
  "collections.OrderedDict": _ordered_dict,
}

# What a pickle may say. Missing on purpose: objects of classes, extension codes,
# persistent ids, buffers and sets. REDUCE, BUILD and those that fill a dict have
# a stricter way below.
_OPCODES = frozenset(
  {
    pickle.PROTO,
    pickle.FRAME,
    pickle.STOP,
    pickle.MARK,
    pickle.POP,
    pickle.POP_MARK,
    pickle.DUP,
    pickle.NONE,
    pickle.NEWTRUE,
    pickle.NEWFALSE,
    pickle.INT,
    pickle.BININT,
    pickle.BININT1,
    pickle.BININT2,
    pickle.LONG,
    pickle.LONG1,
    pickle.LONG4,
    pickle.FLOAT,
    pickle.BINFLOAT,
    pickle.STRING,
    pickle.BINSTRING,
    pickle.SHORT_BINSTRING,
    pickle.BINBYTES,
    pickle.SHORT_BINBYTES,
    pickle.BINBYTES8,
    pickle.UNICODE,
    pickle.BINUNICODE,
    pickle.SHORT_BINUNICODE,
    pickle.BINUNICODE8,
    pickle.EMPTY_TUPLE,
    pickle.TUPLE,
    pickle.TUPLE1,
    pickle.TUPLE2,
    pickle.TUPLE3,
    pickle.EMPTY_LIST,
    pickle.LIST,
    pickle.APPEND,
    pickle.APPENDS,
    pickle.EMPTY_DICT,
    pickle.PUT,
    pickle.BINPUT,
    pickle.LONG_BINPUT,
    pickle.MEMOIZE,
    pickle.GET,
    pickle.BINGET,
    pickle.LONG_BINGET,
    pickle.GLOBAL,
    pickle.STACK_GLOBAL,
  }
)
_MODULES_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def _sound_keys(keys: Iterable[Any]) -> list[Any]:
  """Refuses keys that nest: to hash one that nests deeply ends the process."""
  keys = list(keys)
  for key in keys:
    parts = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(p, str | bytes | int | float | None) for p in parts):
      raise _UnknownContentError(f"a dict with a {type(key).__name__} for a key")
  return keys


class _Unpickler(pickle._Unpickler):
  """The standard library's reader in Python, with fewer opcodes.

  The one in C can't go without an opcode. It also takes as much memory as the
  largest number under which a file wants something remembered.
  """

  # What the base has, beyond what its type says.
  stack: list[Any]
  pop_mark: Callable[[], list[Any]]

  dispatch: ClassVar[dict[int, Any]] = {
    ord(code): pickle._Unpickler.dispatch[ord(code)] for code in _OPCODES
  }

  def find_class(self, module: str, name: str) -> Any:
    """Gives what stands for a name, and imports nothing."""
    full_name = f"{_MODULES_OF_PYTHON_2.get(module, module)}.{name}"
    if full_name not in _ADMITTED:
      raise _RefusedError(full_name)
    return _ADMITTED[full_name]

  def _reduce(self) -> None:
    """Calls one of the stand-ins."""
    args = self.stack.pop()
    function = self.stack[-1]
    if not isinstance(args, tuple) or not any(function is f for f in _ADMITTED.values()):
      raise _UnknownContentError(f"a call of a {type(function).__name__}")
    self.stack[-1] = function(*args)

  dispatch[ord(pickle.REDUCE)] = _reduce

  def _build(self) -> None:
    """Lets a stand-in take what it needs of a state."""
    state = self.stack.pop()
    instance = self.stack[-1]
    if not isinstance(instance, DType | Array):
      raise _UnknownContentError(f"a state for a {type(instance).__name__}")
    instance.__setstate__(state)

  dispatch[ord(pickle.BUILD)] = _build

  def _put_items(self, items: list[Any]) -> None:
    target = self.stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
      raise _UnknownContentError(f"items for a {type(target).__name__}")
    target.update(zip(_sound_keys(items[::2]), items[1::2], strict=True))

  def _set_items(self) -> None:
    self._put_items(self.pop_mark())

  dispatch[ord(pickle.SETITEMS)] = _set_items

  def _set_item(self) -> None:
    value = self.stack.pop()
    self._put_items([self.stack.pop(), value])

  dispatch[ord(pickle.SETITEM)] = _set_item

  def _dict(self) -> None:
    items = self.pop_mark()
    self.stack.append({})
    self._put_items(items)

  dispatch[ord(pickle.DICT)] = _dict


class _Opaque:
  """Stands for any object while a pickle is only looked over."""

  def append(self, item: object) -> None:
    """Takes an item of a list."""

  def extend(self, items: object) -> None:
    """Takes items of a list."""


_MOST_LEVELS = 100


def _tuple_of(count: int) -> Callable[[_Outline], None]:
  """Makes the handler of an opcode that turns the last items into a tuple."""

  def add(outline: _Outline) -> None:
    items = outline.stack[-count:]
    if len(items) < count:
      raise _UnknownContentError("a tuple of what isn't there")
    del outline.stack[-count:]
    outline.add_tuple(items)

  return add


class _Outline(_Unpickler):
  """Follows a pickle without making anything of it, to see how deeply it nests.

  Tuples are hashed by recursion in C, without a limit, wherever one becomes a key
  or an element of a set: a deep one ends the process.
  """

  dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

  def __init__(self, file: Any) -> None:
    super().__init__(file, encoding="latin1")
    # Depths by the identity of tuples, which are kept so that no other takes it.
    self._levels: dict[int, tuple[int, Any]] = {}

  def find_class(self, module: str, name: str) -> Any:
    """Gives an object that is nothing."""
    del module, name
    return _Opaque()

  def add_tuple(self, items: list[Any]) -> None:
    """Makes a tuple that is not too deep."""
    made = tuple(items)
    level = 1 + max((self._levels.get(id(item), (0,))[0] for item in items), default=0)
    if level > _MOST_LEVELS:
      raise _UnknownContentError(f"tuples within tuples, deeper than {_MOST_LEVELS} levels")
    self._levels[id(made)] = level, made
    self.stack.append(made)

  def _tuple(self) -> None:
    self.add_tuple(self.pop_mark())

  dispatch[ord(pickle.TUPLE)] = _tuple

  dispatch[ord(pickle.TUPLE1)] = _tuple_of(1)
  dispatch[ord(pickle.TUPLE2)] = _tuple_of(2)
  dispatch[ord(pickle.TUPLE3)] = _tuple_of(3)

  def _call(self) -> None:
    del self.stack[-2:]
    self.stack.append(_Opaque())

  dispatch[ord(pickle.REDUCE)] = _call
  dispatch[ord(pickle.NEWOBJ)] = _call

  def _stand_in(self) -> None:
    self.stack[-1] = _Opaque()

  dispatch[ord(pickle.BINPERSID)] = _stand_in

  def _drop_state(self) -> None:
    self.stack.pop()

  dispatch[ord(pickle.BUILD)] = _drop_state

  def _empty_set(self) -> None:
    self.stack.append(_Opaque())

  dispatch[ord(pickle.EMPTY_SET)] = _empty_set

  def _put_items(self, items: list[Any]) -> None:
    """Keeps nothing: keys of dicts have been tuples before."""


def check_nesting(file: Any, path: epath.Path, *, kind: Kind, pickles: int = 1) -> None:
  """Refuses pickles that would end the process of another reader.

  Args:
    file: binary file, from its current place.
    path: its path, for the error text.
    kind: what the file should be.
    pickles: number of pickles, one after the other.

  Raises:
    ValueError: a pickle nests too deeply, or is damaged.
  """
  try:
    for _ in range(pickles):
      _Outline(file).load()
  except _UnknownContentError as error:
    raise _unknown_content(path, str(error), kind) from None
  except _MISTAKES as error:
    raise damage(path, str(error) or type(error).__name__, kind) from error


def refusal(path: epath.Path, called: str, kind: Kind) -> ValueError:
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


def _unknown_content(path: epath.Path, content: str, kind: Kind) -> ValueError:
  return ValueError(
    f"{path} is refused: it holds {content}, and a file of {kind.content} needs"
    " nothing but arrays of numbers or texts and plain containers. If it is yours,"
    f" write the {kind.content} alone into a new one."
  )


def damage(path: epath.Path, detail: str, kind: Kind) -> ValueError:
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
    f" {kind.form}, whole: compare its size of {storage.size(path):,} bytes"
    " with the source, or download it again."
  )


def load(path: epath.Path, *, kind: Kind = DATA) -> object:
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
    with (
      storage.local_copy(path) as copy,
      copy.open("rb") as file,
      # Reads no further than the file goes, whatever length it claims.
      mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
      return _Unpickler(content, encoding="latin1").load()
  except _RefusedError as error:
    raise refusal(path, str(error), kind) from None
  except _UnknownContentError as error:
    raise _unknown_content(path, str(error), kind) from None
  except KeyError as error:  # The opcode isn't in the table.
    raise damage(path, f"unknown code {error}", kind) from error
  except _MISTAKES as error:
    detail = str(error) or type(error).__name__
    raise damage(path, detail, kind) from error
