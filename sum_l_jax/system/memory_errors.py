"""What XLA says where a device has too little memory.

The texts are those of compilers and allocators, which state the same in several
ways: before a program runs (TPU: "Used 21.95G of 15.48G hbm"), when it is loaded,
or when its working memory is taken at once (GPU: "Out of memory while trying to
allocate 4770354232 bytes").
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import re

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?(?:B|\b|ytes)"
_USED = re.compile(rf"Used {_SIZE} of {_SIZE}")
_ASKED = re.compile(
  r"(?:trying to allocate|Failed to allocate(?: request for)?|[Aa]ttempting to"
  rf" (?:allocate|reserve)) {_SIZE}"
)
_MEMORY = re.compile(
  r"[Oo]ut of memory|[Rr]an out of memory|[Ff]ailed to allocate|ttempting to (?:allocate|reserve)"
  r"|exceeded \w+ capacity|bytes? limit|Oom",
)


class OutOfMemoryError(ValueError):
  """A device has too little memory for what the settings ask; says what to lower."""


@dataclasses.dataclass(frozen=True)
class Shortage:
  """What is known of it, in bytes of one device; None where it isn't.

  Attributes:
    needed: memory that the program needs.
    available: memory that there is.
    reason: XLA's own words, its first line.
  """

  needed: int | None
  available: int | None
  reason: str


def _bytes(number: str, unit: str) -> int:
  return round(float(number) * _UNITS[unit])


def read(error: BaseException, stats: Mapping[str, int] | None = None) -> Shortage | None:
  """Reads an error of JAX.

  Args:
    error: what JAX raised.
    stats: what `jax.Device.memory_stats` says of the device, if it says something.

  Returns:
    The shortage, or None where the error is about something else.
  """
  text = str(error)
  # Other libraries, such as TensorStore, have errors of the same name.
  if type(error).__name__ not in ("JaxRuntimeError", "XlaRuntimeError"):
    return None
  if "RESOURCE_EXHAUSTED" not in text or not _MEMORY.search(text):
    return None
  reason = next(line.strip() for line in text.splitlines() if line.strip())[:200]
  if used := _USED.search(text):
    return Shortage(_bytes(*used.group(1, 2)), _bytes(*used.group(3, 4)), reason)
  limit = (stats or {}).get("bytes_limit")
  asked = _ASKED.search(text)
  if not asked or not limit:
    return Shortage(None, limit, reason)
  in_use = (stats or {}).get("bytes_in_use", 0)
  return Shortage(_bytes(*asked.group(1, 2)) + in_use, limit, reason)
