"""Vision transformers on CPU, against `transformers` in PyTorch with the same weights.

  python -m benchmarks.vit [--quick] [--cases=NAME[,...]] [--depth=N] [--output=FILE]

VideoMAE's ViT-B and ViT-L at their published clips, 16 x 224 x 224 in 1,568
tokens, batch 1, float32: forwards, and forwards, backwards and update by AdamW,
on the mean square of the tokens. Ours and PyTorch's, with its plain attention
(eager) and its fused one (SDPA), run in turn in one process, after an untimed
call each. `--depth` takes fewer blocks, of which the networks have 12 and 24;
all blocks cost the same.

Memory is measured with one network in a process: the most that it had resident
during a call (`VmHWM`), less what it had before the network was made. It contains
parameters, gradients and optimizer state.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks import measure
from benchmarks import videomae_peer
from sum_l_jax.models import vit
from sum_l_jax.models import vit_spec
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.system import devices
from sum_l_jax.system import processes

RATE, DECAY = 1e-4, 0.05
FORWARD, UPDATE = "forward", "update"
CASES = tuple(
  f"{name}:{kind}" for kind in (FORWARD, UPDATE) for name in ("videomae_b", "videomae_l")
)
WAYS = ("ours", "eager", "sdpa")
_MIB = 2**20


def row(name: str, *, depth: int, quick: bool) -> vit_spec.VitSpec:
  """A row of the table with fewer blocks, and smaller clips if that is asked for."""
  found = vit_spec.SPECS[name]
  found = dataclasses.replace(found, depth=min(depth or found.depth, found.depth))
  return dataclasses.replace(found, image=64, frames=4, depth=1) if quick else found


def clip(spec: vit_spec.VitSpec) -> np.ndarray:
  """A random clip, `[1, T, H, W, 3]`."""
  shape = (1, spec.frames, spec.image, spec.image, 3)
  return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def encoder(spec: vit_spec.VitSpec) -> vit.Vit:
  """Our network; its initial values depend on the row alone."""
  return vit.Vit(spec, EncoderOptions(conv="cpu"), np.random.default_rng(0))


def _our_tokens(graph: Any, params: Any, video: jax.Array) -> jax.Array:
  network = nnx.merge(graph, params, copy=True)
  return network(video, train=False, prepare=lambda x: x).tokens


def ours(spec: vit_spec.VitSpec, kind: str) -> Callable[[], Any]:
  """A call that returns the tokens, or makes an update."""
  graph, params = nnx.split(encoder(spec))
  mesh = devices.make_mesh(1)
  params, video = jax.device_put((params, jnp.asarray(clip(spec))), devices.replicated(mesh))
  if kind == FORWARD:
    run = devices.jit_over(mesh, lambda p, x: _our_tokens(graph, p, x), params=params)
    return lambda: jax.block_until_ready(run(params, video))
  optimizer = optax.adamw(RATE, weight_decay=DECAY)

  def step(state: Any, video: jax.Array) -> Any:
    params, moments = state
    grads = jax.grad(lambda p: jnp.square(_our_tokens(graph, p, video)).mean())(params)
    updates, moments = optimizer.update(grads, moments, params)
    return optax.apply_updates(params, updates), moments

  step = devices.jit_over(mesh, step, donate=True, params=params)
  state = jax.device_put((params, optimizer.init(params)), devices.replicated(mesh))

  def call() -> None:
    nonlocal state, params
    params = None  # Those before the first update are in nobody's memory then.
    state = jax.block_until_ready(step(state, video))

  return call


def theirs(spec: vit_spec.VitSpec, kind: str, way: str) -> Callable[[], Any]:
  """The same call of `transformers`' network, with the same weights."""
  params = nnx.to_flat_state(nnx.state(encoder(spec), nnx.Param))
  arrays = {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in params}
  network: Any = videomae_peer.make(spec, arrays, way)
  video = torch.from_numpy(clip(spec).transpose(0, 1, 4, 2, 3)).contiguous()
  if kind == FORWARD:
    network.eval()

    def forward() -> torch.Tensor:
      with torch.inference_mode():
        return network(video).last_hidden_state

    return forward
  network.train()
  optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)

  def update() -> None:
    optimizer.zero_grad()
    network(video).last_hidden_state.square().mean().backward()
    optimizer.step()

  return update


def function(spec: vit_spec.VitSpec, kind: str, way: str) -> Callable[[], Any]:
  """What is timed: `ours`, or `theirs`."""
  return ours(spec, kind) if way == "ours" else theirs(spec, kind, way)


def difference(spec: vit_spec.VitSpec) -> float:
  """Largest difference of the tokens, over their standard deviation."""
  wanted = theirs(spec, FORWARD, "eager")().numpy()
  return float(np.abs(np.asarray(ours(spec, FORWARD)()) - wanted).max() / wanted.std())


def time_case(spec: vit_spec.VitSpec, kind: str, rounds: int) -> dict[str, Any]:
  """Seconds of each way, by the clock and by processor time, and our ratio to the others."""
  functions = {way: function(spec, kind, way) for way in WAYS}
  return {
    clock: {
      "seconds": {way: round(float(np.median(values)), 3) for way, values in times.items()},
      "ratio": {way: measure.ratio(times, "ours", way) for way in WAYS[1:]},
    }
    for clock, times in measure.interleave_clocks(functions, rounds, settle=1).items()
  }


def _resident(field: str) -> float:
  """MiB of this process: `VmRSS`, or `VmHWM`, the most so far."""
  status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
  (line,) = (line for line in status.splitlines() if line.startswith(f"{field}:"))
  return int(line.split()[1]) * 1024 / _MIB


def memory(spec: vit_spec.VitSpec, kind: str, way: str) -> float:
  """MiB that a call has resident at most, without what the process had before."""
  before = _resident("VmRSS")
  call = function(spec, kind, way)
  call()
  # The second call: the first one also compiles. 5 forgets the most so far.
  pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
  call()
  return round(_resident("VmHWM") - before)


def _apart(options: Sequence[str]) -> Any:
  """What this module measures with these options, in a process of its own."""
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder) / "part.json"
    command = [sys.executable, "-m", "benchmarks.vit", *options, f"--part={output}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(output.read_text(encoding="utf-8"))


def _part(args: Any, rounds: int) -> Any:
  """The one measurement of a process."""
  name, kind = args.cases.split(":")
  spec = row(name, depth=args.depth, quick=args.quick)
  if args.way:
    return memory(spec, kind, args.way)
  found = time_case(spec, kind, rounds)
  return {**found, "difference_over_deviation": difference(spec)} if kind == FORWARD else found


def run_case(case: str, options: Sequence[str], args: Any) -> dict[str, Any]:
  """Times and memory of one case, each in processes of their own."""
  name, _ = case.split(":")
  spec = row(name, depth=args.depth, quick=args.quick)
  options = [f"--cases={case}", *options]
  return {
    "clip": [spec.frames, spec.image, spec.image],
    "tokens": int(np.prod(spec.grid)),
    "blocks": spec.depth,
    "blocks_of_the_network": vit_spec.SPECS[name].depth,
    **_apart(options),
    "mib": {way: _apart([*options, f"--way={way}"]) for way in WAYS},
  }


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("vit", __doc__)
  parser.add_argument("--rounds", type=int, default=0)
  parser.add_argument("--depth", type=int, default=0, help="number of blocks; 0 is all")
  parser.add_argument("--cases", default=",".join(CASES), metavar="NAME:KIND[,...]")
  parser.add_argument("--way", default="", choices=("", *WAYS), help="whose memory, with --part")
  parser.add_argument("--part", type=pathlib.Path, metavar="FILE", help="measure one part alone")
  args = parser.parse_args(argv)
  cases = args.cases.split(",")
  if not set(cases) <= set(CASES):
    parser.error(f"--cases must be some of {', '.join(CASES)}; got {args.cases}")
  torch.set_num_threads(processes.cores())
  rounds = args.rounds or (1 if args.quick else 3)
  if args.part:
    args.part.write_text(json.dumps(_part(args, rounds)), encoding="utf-8")
    return 0
  options = [f"--rounds={rounds}", f"--depth={args.depth}", *["--quick"] * args.quick]
  results = {}
  for case in cases:
    results[case] = found = run_case(case, options, args)
    ratios = ", ".join(
      f"{ratio['median']:.2f} of {way}" for way, ratio in found["wall"]["ratio"].items()
    )
    sys.stdout.write(f"{case}, {found['blocks']} blocks: {ratios}; MiB {found['mib']}\n")
    sys.stdout.flush()
  if args.output:
    measure.write(args.output, measure.command("vit", argv), results)
  return 0


if __name__ == "__main__":
  processes.use_huge_pages()
  sys.exit(main())
