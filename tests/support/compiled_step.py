"""Compiled steps as the compiler leaves them, without compiling."""

from __future__ import annotations

import pathlib

from sum_l_jax import build
from sum_l_jax.tools import chips
from sum_l_jax.tools.aot import compiler

_TEXTS = pathlib.Path(__file__).parent / "hlo"
# What the TPU compiler makes of the gradient of a matrix product over 8 chips,
# shortened; the names and numbers are its own.
MATMUL = (_TEXTS / "matmul.txt").read_text()
# Three turns of a loop; exchanges in pairs, within fusions, and of a tuple.
LOOP = (_TEXTS / "loop.txt").read_text()
# Parameters that are gathered and gradients that are scattered, in the ways that the
# compilers for TPUs and GPUs have of writing them; shortened likewise.
SHARED = (_TEXTS / "shared.txt").read_text()
# Copies beside other work; S(1) is the chip's fast memory.
ASYNC = (_TEXTS / "async.txt").read_text()
# A scan over three blocks with a Pallas kernel, as the TPU compiler leaves it, shortened:
# the kernel's attributes go over several lines, the text has no number of turns, and the
# body reads and writes slices of stacks in main memory.
KERNEL = (_TEXTS / "kernel.txt").read_text()
# A convolution with padding, and products of a batch as the TPU compiler writes them.
CONVOLUTIONS = (_TEXTS / "convolutions.txt").read_text()


def compiled(numbers=1_023_750_000, **changes):
  """A program of 3,000,000 cycles that negates the numbers, on a v5e."""
  settings = build.read_settings("configs/epic55.py", ["--config.joint_stage.batch_size=64"])
  text = """\
ENTRY %main (a: f32[N]) -> f32[N] {
  %a = f32[N]{0} parameter(0)
  ROOT %y = f32[N]{0} negate(%a), NOTES
}
""".replace("N]", f"{numbers}]").replace(
    "NOTES",
    (
      'metadata={op_name="jit(step)/transpose(jvp(ego))/slow/s2/0/a/mul"},'
      ' backend_config={"window_config":{"estimated_cycles":"3000000"}}'
    ),
  )
  fields = dict(
    settings=settings,
    stage="joint",
    topology="v5e:2x4",
    chip=chips.CHIPS["v5e"],
    num_chips=8,
    clips=6400,
    text=text,
    memory={
      "arguments": 10**9,
      "outputs": 0,
      "temporaries": 5 * 10**9,
      "code": 0,
      "total": 6 * 10**9,
      "peak": 4 * 10**9,
    },
    costs={"flops": 197e9, "bytes_accessed": 8.19e9},
    seconds=12.0,
  )
  return compiler.Compiled(**fields | changes)
