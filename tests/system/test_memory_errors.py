"""What XLA says of too little memory, in the words of its compilers and allocators."""

from __future__ import annotations

import jax
import pytest

from sum_l_jax.system import memory_errors

_GIB = 2**30
# Texts as users have met them, with what they say in GiB.
TEXTS = {
  # LargeWorldModel/LWM#60, EasyDeL#78.
  "tpu compiler": (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm."
    " Used 21.95G of 15.48G hbm.\n Exceeded hbm capacity by 6.47G.\n\nTotal hbm usage >= 22.47G:",
    {},
    (21.95, 15.48),
  ),
  # EnzymeAD/Enzyme-JAX#2422.
  "tpu compiler, numbered": (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: XLA:TPU compile permanent error. Ran out of"
    " memory in memory space hbm. Used 215.17G of 31.25G hbm. Exceeded hbm capacity by 183.92G.",
    {},
    (215.17, 31.25),
  ),
  # jax#13428, jax#22755.
  "gpu, bytes": (
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4770354232 bytes.\n"
    "BufferAssignment OOM Debugging.\nBufferAssignment stats:",
    {"bytes_limit": 8 * _GIB, "bytes_in_use": 4 * _GIB},
    (4 + 4770354232 / _GIB, 8),
  ),
  # mesh-transformer-jax#66, equinox#737.
  "gpu, request": (
    "RESOURCE_EXHAUSTED: Failed to allocate request for 6.27GiB (6727663616B) on device ordinal 0",
    {"bytes_limit": 8 * _GIB, "bytes_in_use": 4 * _GIB},
    (4 + 6.27, 8),
  ),
  "tpu, at run time": (
    "RESOURCE_EXHAUSTED: Attempting to allocate 2.00G. That was not possible."
    " There are 1.50G free.",
    {"bytes_limit": 16 * _GIB, "bytes_in_use": 14 * _GIB},
    (16, 16),
  ),
  "nothing is known": (
    "RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes.",
    {},
    (None, None),
  ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_texts_of_xla_are_read(case):
  text, stats, expected = TEXTS[case]
  found = memory_errors.read(jax.errors.JaxRuntimeError(text), stats)
  numbers = [x if x is None else x / _GIB for x in (found.needed, found.available)]
  assert numbers == [x if x is None else pytest.approx(x, rel=1e-6) for x in expected]
  assert found.reason in text and "\n" not in found.reason


@pytest.mark.parametrize(
  "error",
  [
    jax.errors.JaxRuntimeError("INTERNAL: Out of memory is not what this is about"),
    # A message that is too long for the coordination service.
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Received message larger than max"),
    ValueError("RESOURCE_EXHAUSTED: out of memory, says TensorStore"),
  ],
)
def test_other_errors_are_none(error):
  assert memory_errors.read(error) is None
