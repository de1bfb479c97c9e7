"""What the TPU compiler makes of single stages of SlowFast R50, in variants.

  python -m benchmarks.tpu_layers [--cases=fast_s2,...] [--output=FILE]

Stems and the first two blocks of stages in bfloat16, forwards and backwards
with batch statistics, on one v5e chip: estimated cycles, traffic, memory. Each
is compiled as `models/layers` has it and in the ways that were given up. Needs
the extra `tpu` and no TPU; takes about a minute of processor time each. Nothing
is run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import sys
import time
from typing import Any
from unittest import mock

from benchmarks import measure
from sum_l_jax.system import command_line
from sum_l_jax.system import devices
from sum_l_jax.tools.aot.__main__ import set_environment

set_environment()

from flax import nnx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from sum_l_jax.models import backbones  # noqa: E402
from sum_l_jax.models import resnet3d  # noqa: E402
from sum_l_jax.models.encoder import EncoderOptions  # noqa: E402
from sum_l_jax.models.layers import convolution  # noqa: E402
from sum_l_jax.models.layers.stem import Stem  # noqa: E402
from sum_l_jax.tools import program_costs  # noqa: E402
from sum_l_jax.tools.aot import hlo  # noqa: E402
from sum_l_jax.tools.aot import topologies  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Case:
  """A stem, or two blocks, of one pathway.

  Attributes:
    pathway: "slow" or "fast".
    stage: "s1", "s2" ...
    clips: number of clips of the chip.
    pack: number of clips side by side.
    frames: number of frames of each side by side in the stem.
    table: formulations instead of those of `convolution.FORMULATIONS["tpu"]`.
  """

  pathway: str
  stage: str
  clips: int = 8
  pack: int = 1
  frames: int = 1
  table: tuple[tuple[str, str], ...] = ()


_NATIVE = tuple((kind, convolution.NATIVE) for kind in ("pointwise", "temporal"))
_ROWS = tuple((kind, "rows") for kind in ("pointwise", "temporal"))
CASES = {
  "fast_s1_one_frame": Case("fast", "s1", pack=8),
  "fast_s1": Case("fast", "s1", pack=8, frames=2),
  "fast_s2_native": Case("fast", "s2", pack=8, table=_NATIVE),
  "fast_s2_fold_rows": Case("fast", "s2", pack=8, table=(("pointwise", "fold"),)),
  "fast_s2": Case("fast", "s2", pack=8),
  "fast_s3_native": Case("fast", "s3", pack=4, table=_NATIVE),
  "fast_s3": Case("fast", "s3", pack=4),
  "fast_s4_native": Case("fast", "s4", pack=2, table=_NATIVE),
  "fast_s4": Case("fast", "s4", pack=2),
  "slow_s1_one_clip": Case("slow", "s1"),
  "slow_s1": Case("slow", "s1", pack=2),
  "slow_s2_one_clip": Case("slow", "s2"),
  "slow_s2_one_clip_rows": Case("slow", "s2", table=_ROWS),
  "slow_s2": Case("slow", "s2", pack=2),
  "slow_s3": Case("slow", "s3"),
  "slow_s3_rows": Case("slow", "s3", table=_ROWS),
  "slow_s2_of_4_native": Case("slow", "s2", clips=4, table=_NATIVE),
  "slow_s2_of_4": Case("slow", "s2", clips=4),
  "slow_s3_of_4_native": Case("slow", "s3", clips=4, table=_NATIVE),
  "slow_s3_of_4": Case("slow", "s3", clips=4),
}
_SPEC = backbones.BACKBONES["slowfast_r50"].spec
_SIDES = {"s2": 56, "s3": 56, "s4": 28, "s5": 14}
_FRAMES = {"slow": 8, "fast": 32}


def _build(case: Case) -> tuple[nnx.Module, Callable, tuple[int, ...]]:
  """The layers, how they are run, and the shape of their input."""
  spec = getattr(_SPEC, case.pathway)
  options = EncoderOptions(conv="tpu", dtype=jnp.bfloat16)
  rng = np.random.default_rng(0)
  frames = _FRAMES[case.pathway]
  if case.stage == "s1":

    def run_stem(layer: Stem, x: jax.Array) -> jax.Array:
      with mock.patch.object(Stem, "choose_packing", return_value=(case.pack, case.frames)):
        return layer(x, train=True)

    return Stem(spec.stem, options, rng), run_stem, (case.clips, frames, 224, 224, 3)
  index = int(case.stage[1:]) - 2
  stage, width = spec.stages[index], spec.widths[index]
  if case.pathway == "slow":
    width += 2 * _SPEC.fast.widths[index]  # What the fast pathway brings.
  blocks = nnx.List(
    [
      resnet3d.Bottleneck(width, stage, stride=stage.stride, options=options, rng=rng),
      resnet3d.Bottleneck(stage.out, stage, stride=1, options=options, rng=rng),
    ]
  )

  def run(blocks, x):
    for block in blocks:
      x = block(x, train=True)
    return x

  side = _SIDES[case.stage]
  return blocks, run, (case.clips // case.pack, frames, side, side, width * case.pack)


def compile_case(case: Case) -> dict[str, Any]:
  """Estimates of the compiler; bytes, seconds, operations."""
  mesh, chip = topologies.make_mesh("v5e:1x1")
  everywhere = devices.replicated(mesh)
  abstract = lambda tree: jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere), tree
  )
  with mock.patch.dict(convolution.FORMULATIONS["tpu"], case.table):
    layers, run, shape = _build(case)
    graphdef, params, stats = nnx.split(layers, nnx.Param, nnx.BatchStat)

    def forward(params, stats, x):
      copy = nnx.merge(graphdef, params, stats, copy=True)
      return run(copy, x), nnx.state(copy, nnx.BatchStat)

    def step(params, stats, x, dy):
      def loss(params, x):
        y, moved = forward(params, stats, x)
        return jnp.sum(y.astype(jnp.float32) * dy.astype(jnp.float32)), moved

      # Pixels have no gradient.
      wanted = (0,) if case.stage == "s1" else (0, 1)
      return jax.value_and_grad(loss, wanted, has_aux=True)(params, x)

    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    dy, _ = jax.eval_shape(forward, params, stats, x)
    lowered = jax.jit(step).lower(*abstract((params, stats, x, dy)))
    start = time.process_time()
    program = lowered.compile()
    seconds = time.process_time() - start
  text = hlo.Program(program.as_text())
  return {
    "milliseconds_by_cycles": 1e3 * text.cycles / chip.clock_hz,
    "main_bytes": text.main_bytes,
    "seconds_of_compiling": seconds,
    "memory": program_costs.read_memory(program),
    **program_costs.read_costs(program),
  }


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.tpu_layers",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--cases", default=",".join(CASES), metavar="NAME[,...]")
  parser.add_argument("--output", metavar="FILE", help="write a JSON here")

  def run(args: argparse.Namespace) -> str:
    names = command_line.names(args.cases)
    unknown = sorted(set(names) - set(CASES))
    if unknown:
      raise ValueError(f"--cases knows {', '.join(CASES)}; got {unknown}.")
    jax.config.update("jax_enable_compilation_cache", False)
    results = {}
    for name in names:
      found = results[name] = compile_case(CASES[name])
      sys.stdout.write(
        f"{name:24}{found['milliseconds_by_cycles']:8.2f} ms"
        f"{found['main_bytes'] / 1e9:7.2f} GB main memory"
        f"{found['bytes_accessed'] / 1e9:7.2f} GB accessed"
        f"{found['memory']['peak'] / 1e9:7.2f} GB peak"
        f"{found['flops'] / 1e12:7.3f} TFLOP, compiled in"
        f" {found['seconds_of_compiling']:.0f} s\n"
      )
      sys.stdout.flush()
    if args.output:
      measure.write(
        args.output,
        measure.command("tpu_layers", argv),
        {name: {**dataclasses.asdict(CASES[name]), **found} for name, found in results.items()},
      )
    return ""

  return command_line.run(parser, run, argv)


if __name__ == "__main__":
  sys.exit(main())
