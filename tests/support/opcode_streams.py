"""Pickles made up opcode by opcode, with all that may do harm among them."""

from __future__ import annotations

import struct

import numpy as np

# A module that nothing may import.
TRAP = "antigravity"

_NAMES = (
  *(b"numpy\nndarray\n", b"numpy\ndtype\n", b"numpy.core.multiarray\nscalar\n"),
  *(b"numpy.core.multiarray\n_reconstruct\n", b"numpy._core.multiarray\n_reconstruct\n"),
  *(b"collections\nOrderedDict\n", b"_codecs\nencode\n", b"__builtin__\nbytes\n"),
)
_TRAPS = (TRAP.encode() + b"\nfly\n", b"os\nmkdir\n", b"builtins\nexec\n", b"numpy\nmemmap\n")
_TEXTS = (b"f8", b"O8", b"V8", b"U3", b"i4", b"<", b"|", b"latin1", b"AAAAAAAA", b"\xff" * 16)
_NUMBERS = (0, 1, 2, 3, 8, -1, 2**31 - 1, -(2**31))
# Without an argument: stack, marks, containers, REDUCE, BUILD, NEWOBJ, sets.
_PLAIN = b"(012NttRRRbbb]}la eusd)\x85\x86\x87\x88\x89\x81\x92\x8f\x90\x91\x94oQ".replace(b" ", b"")


def _text(rng: np.random.Generator) -> bytes:
  text = _TEXTS[int(rng.integers(len(_TEXTS)))]
  return b"U" + bytes([len(text)]) + text


def _number(rng: np.random.Generator) -> bytes:
  return b"J" + struct.pack("<i", _NUMBERS[int(rng.integers(len(_NUMBERS)))])


def _array(rng: np.random.Generator) -> bytes:
  """An array as numpy writes it, with parts left to chance."""
  kind = _TEXTS[int(rng.integers(5))]
  flags = int(rng.choice([0, 63, 27]))
  return (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\x01btR(K\x01(K\x01t"
    + (b"cnumpy\ndtype\nU" + bytes([len(kind)]) + kind + b"K\0K\x01\x87R")
    + (
      b"(K\x03U\x01"
      + bytes([int(rng.choice([*b"<>|="]))])
      + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK"
    )
    + (bytes([flags]) + b"tb\x89U" + bytes([int(rng.choice([4, 8, 12]))]))
    + rng.bytes(12)[: int(rng.choice([4, 8, 12]))]
    + b"tb"
  )


def _piece(rng: np.random.Generator) -> bytes:
  kind = int(rng.integers(14))
  if kind < 5:
    return _PLAIN[(i := int(rng.integers(len(_PLAIN)))) : i + 1]
  if kind < 7:
    return b"c" + _NAMES[int(rng.integers(len(_NAMES)))]
  if kind == 7:
    return _text(rng)
  if kind == 8:
    return _number(rng)
  if kind == 9:
    return _array(rng)
  if kind == 10:  # Keep and fetch, also under numbers that are huge.
    slot = int(rng.choice([0, 1, 2, 255]))
    huge = b"r" + struct.pack("<I", 2**28 + slot)
    return (b"q" + bytes([slot]), b"h" + bytes([slot]), huge)[int(rng.integers(3))]
  if kind == 11:
    return (b"\x82\x01", b"Pid\n", b"\x84\1\0\0\0", b"(i" + _TRAPS[0], b"F1e400\n")[
      int(rng.integers(5))
    ]
  if kind == 12:
    return b"c" + _NAMES[int(rng.integers(len(_NAMES)))] + _text(rng) + b"\x85R"
  return b"c" + _TRAPS[int(rng.integers(len(_TRAPS)))] if rng.random() < 0.2 else b")"


def make(rng: np.random.Generator) -> bytes:
  """A stream of up to forty opcodes that most often ends with STOP."""
  pieces = [_piece(rng) for _ in range(int(rng.integers(1, 41)))]
  start = (b"", b"\x80\x02", b"\x80\x04")[int(rng.integers(3))]
  # Something to work upon, so that more than an empty stack is met.
  return start + b"N]}(" * int(rng.integers(2)) + b"".join(pieces) + b"." * int(rng.random() < 0.95)
