"""Time of a training step on CPU, against PyTorch with the same shapes.

  python -m benchmarks.step [--quick] [--output=FILE]

Forward, backward and SGD with momentum, float32, BatchNorm in training; JAX
and PyTorch (channels_last_3d) in turn in one process, by the clock and by
processor time over all threads. A step of the same framework, or five of a
small network, precedes each timed one; each network has a process of its own,
and memory comes in large pages, as in `sum_l_jax.main`. The peers are
pytorchvideo's networks without their heads, and `tiny` of the device check.
`two_encoders` is the SUM-L step: `tiny` twice with heads, projections and all
terms of Eq. 12.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import json
import pathlib
import subprocess
import sys
import tempfile

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import measure
from sum_l_jax import loss_options
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.losses.objective import Objective
from sum_l_jax.models.layers import convolution
from sum_l_jax.system import devices
from sum_l_jax.system import processes
from sum_l_jax.tools.device_check import torch_peer
from tests.support import reference_networks

RATE, MOMENTUM = 0.01, 0.9
# name: backbone, batch, frames, side.
CASES = {
  "tiny": ("tiny", 32, 8, 56),
  "slow_r50": ("slow_r50", 4, 8, 112),
  "slowfast_r50": ("slowfast_r50", 4, 32, 112),
}
QUICK = {
  "tiny": ("tiny", 8, 8, 56),
  "slow_r50": ("slow_r50", 1, 8, 64),
  "slowfast_r50": ("slowfast_r50", 1, 32, 64),
}
_TWO_ENCODERS = "two_encoders"
_ALL = (*CASES, _TWO_ENCODERS)
# Between them they have every kind of layer.
_QUICK_CASES = ("slowfast_r50", _TWO_ENCODERS)
# Steps of a small network for each one of a large network, and untimed before
# each: single steps of some 30 ms vary too much.
_STEPS = {"tiny": 5, _TWO_ENCODERS: 5}
TASKS = {"verb": 12, "noun": 14}
TEXT = 384


def _sgd(params, velocity, grads):
  velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, grads)
  return jax.tree.map(lambda p, v: p - RATE * v, params, velocity), velocity


def _jax_step(module: nnx.Module, loss: Callable, batch) -> Callable[[], None]:
  """A compiled step; `loss` takes the module and the batch."""
  graph, params, rest = nnx.split(module, nnx.Param, ...)

  def scalar(params, rest):
    copy = nnx.merge(graph, params, rest, copy=True)
    value = loss(copy, batch)
    return value, nnx.state(copy, nnx.BatchStat)

  def step(state, rest):
    params, velocity = state
    grads, stats = jax.grad(scalar, has_aux=True)(params, rest)
    params, velocity = _sgd(params, velocity, grads)
    return (params, velocity), stats

  mesh = devices.make_mesh(1)
  step = devices.jit_over(mesh, step, donate=True)
  # Placed where the step returns it, so that the second step compiles nothing.
  state, rest = jax.device_put(
    ((params, jax.tree.map(jnp.zeros_like, params)), rest), devices.replicated(mesh)
  )

  def run():
    nonlocal state
    state, stats = step(state, rest)
    jax.block_until_ready((state, stats))

  return run


def encoder_step(backbone: str, x: np.ndarray, backend: str = "cpu"):
  """The step of one encoder, on the mean square of its feature."""
  options = models.EncoderOptions(conv=backend)
  network = models.BACKBONES[backbone].make(options, np.random.default_rng(0))
  return _jax_step(
    network, lambda net, x: jnp.square(net(x, train=True, prepare=lambda x: x)[0]).mean(), x
  )


def _tiny() -> nn.Module:
  """The demo's network in PyTorch."""
  return torch_peer.Encoder(models.BACKBONES["tiny"].spec)


class _Published(nn.Module):
  """A network of pytorchvideo up to its pooled feature."""

  def __init__(self, backbone: str):
    super().__init__()
    spec = models.BACKBONES[backbone].spec
    self.alpha = spec.alpha
    blocks = reference_networks.build(
      {"slow_r50": "slow_r50_8x8", "slowfast_r50": "slowfast_r50_8x8"}[backbone]
    ).blocks
    self.two = spec.fast is not None
    self.blocks = blocks[:-2] if self.two else blocks[:-1]

  def forward(self, x):
    x = [x[:, :, :: self.alpha], x] if self.two else x
    for block in self.blocks:
      x = block(x)
    maps = x if self.two else [x]
    return torch.cat([m.mean((2, 3, 4)) for m in maps], dim=1)


def _torch_layout(x: np.ndarray) -> torch.Tensor:
  x = torch.from_numpy(x.transpose(0, 4, 1, 2, 3))
  return x.contiguous(memory_format=torch.channels_last_3d)


def _torch_step(network: nn.Module, loss: Callable) -> Callable[[], None]:
  network.to(memory_format=torch.channels_last_3d).train()
  optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM)

  def run():
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()

  return run


def torch_encoder_step(backbone: str, x: np.ndarray):
  network = _tiny() if backbone == "tiny" else _Published(backbone)
  video = _torch_layout(x)
  return _torch_step(network, lambda: network(video).square().mean())


# The two-encoder step.


def two_view_batch(batch: int, frames: int, side: int):
  """Random clips, labels and narrations of both views."""
  rng = np.random.default_rng(0)
  parts = {}
  for view in types.VIEWS:
    text = rng.standard_normal((batch, TEXT)).astype(np.float32)
    # Narrations similar enough to pass the filter of 0.5 with their partners.
    text += 8 * np.random.default_rng(1).standard_normal((batch, TEXT))
    parts[view] = {
      "video": rng.integers(0, 256, (batch, frames, side, side, 3)).astype(np.uint8),
      "labels": {task: rng.integers(0, k, batch) for task, k in TASKS.items()},
      "narration": (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32),
    }
  return parts


def two_encoder_step(parts):
  """The SUM-L step of the library: model and objective as in training."""
  tasks = {view: dict(TASKS) for view in types.VIEWS}
  model = models.make_model(backbone="tiny", tasks=tasks, embedding_dim=TEXT, dropout=0.0, seed=0)
  objective = Objective(tasks={view: dict.fromkeys(TASKS, types.SOFTMAX) for view in types.VIEWS})

  def loss(model, parts):
    return objective(model(parts, train=True), parts)[0]

  return _jax_step(model, loss, parts)


class _Tower(nn.Module):
  def __init__(self):
    super().__init__()
    self.encoder = _tiny()
    width = models.BACKBONES["tiny"].spec.feature_dim
    self.heads = nn.ModuleList(nn.Linear(width, k) for k in TASKS.values())
    self.projection = nn.Linear(width, TEXT)

  def forward(self, x):
    feature = self.encoder((x.float() / 255 - 0.45) / 0.225)
    embedding = functional.normalize(self.projection(feature), dim=1)
    return [head(feature) for head in self.heads], embedding


def _decoupled(a, b, temperature):
  """Eq. 7 and 9, one direction: per row, without the positive below."""
  similarity = a @ b.T / temperature
  positive = similarity.diagonal()
  others = similarity.masked_fill(torch.eye(len(a), dtype=torch.bool), -torch.inf)
  return torch.logsumexp(others, dim=1) - positive


def torch_two_encoder_step(parts, temperature=0.06, sigma=0.1, threshold=0.5):
  towers = nn.ModuleDict({view: _Tower() for view in types.VIEWS})
  videos, labels, texts = {}, {}, {}
  for view, part in parts.items():
    videos[view] = _torch_layout(part["video"])
    labels[view] = [torch.from_numpy(y) for y in part["labels"].values()]
    texts[view] = torch.from_numpy(part["narration"])
  weights = loss_options.WEIGHTS

  def loss():
    value, embeddings = 0.0, {}
    for view, tower in towers.items():
      logits, embeddings[view] = tower(videos[view])
      value += weights[f"{view}_cls"] * sum(
        functional.cross_entropy(z, y) for z, y in zip(logits, labels[view])
      )
      both = _decoupled(embeddings[view], texts[view], temperature) + _decoupled(
        texts[view], embeddings[view], temperature
      )
      value += weights[f"{view}_text"] * both.mean() / 2
    similarity = (texts["ego"] * texts["exo"]).sum(1)
    kept = similarity > threshold
    ego, exo = embeddings["ego"][kept], embeddings["exo"][kept]
    pair = torch.softmax(similarity[kept] / sigma, 0) * kept.sum()
    both = _decoupled(ego, exo, temperature) + _decoupled(exo, ego, temperature)
    return value + weights["ego_exo"] * (pair * both).mean() / 2

  return _torch_step(towers, loss)


def _measure(functions, rounds, *, settle) -> dict:
  others = [name for name in functions if name != "torch"]
  return {
    clock: {
      "milliseconds": {
        name: round(1e3 * float(np.median(values)), 1) for name, values in times.items()
      },
      "ratio_to_torch": {name: measure.ratio(times, name, "torch") for name in others},
    }
    for clock, times in measure.interleave_clocks(functions, rounds, settle=settle).items()
  }


def run_case(name: str, *, quick: bool, rounds: int) -> dict:
  """Times one of `CASES`, or the step of two encoders."""
  if name == _TWO_ENCODERS:
    parts = two_view_batch(8 if quick else 32, 8, 56)
    functions = {"jax": two_encoder_step(parts), "torch": torch_two_encoder_step(parts)}
    size = (len(parts["ego"]["video"]), 8, 56)
  else:
    backbone, *size = (QUICK if quick else CASES)[name]
    x = np.random.default_rng(0).standard_normal((*size, size[-1], 3)).astype(np.float32)
    functions = {"jax": encoder_step(backbone, x), "torch": torch_encoder_step(backbone, x)}
    if backbone == "tiny":
      functions["jax_native"] = encoder_step(backbone, x, convolution.NATIVE)
  steps = _STEPS.get(name, 1)
  return {
    **dict(zip(("batch", "frames", "side"), size)),
    **_measure(functions, steps * rounds, settle=steps),
  }


def run_apart(name: str, options: Sequence[str]) -> dict:
  """`run_case` in a process of its own.

  Raises:
    subprocess.CalledProcessError: it failed; its errors were shown.
  """
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder) / "case.json"
    subprocess.run(
      [sys.executable, "-m", "benchmarks.step", f"--cases={name}", f"--output={output}", *options],
      check=True,
      stdout=subprocess.DEVNULL,
    )
    return json.loads(output.read_text(encoding="utf-8"))["results"][name]


def main(argv: Sequence[str] | None = None) -> int:
  parser = measure.make_parser("step", __doc__)
  parser.add_argument("--rounds", type=int, default=0)
  parser.add_argument(
    "--cases",
    default="",
    metavar="NAME[,...]",
    help=f"some of {', '.join(_ALL)}; default: all, or {', '.join(_QUICK_CASES)} with --quick",
  )
  args = parser.parse_args(argv)
  torch.set_num_threads(processes.cores())
  rounds = args.rounds or (3 if args.quick else 6)
  names = args.cases.split(",") if args.cases else (_QUICK_CASES if args.quick else _ALL)
  if not set(names) <= set(_ALL):
    parser.error(f"--cases must be some of {', '.join(_ALL)}; got {args.cases}")
  if len(names) == 1:
    results = {names[0]: run_case(names[0], quick=args.quick, rounds=rounds)}
  else:
    options = [f"--rounds={rounds}", *["--quick"] * args.quick]
    results = {name: run_apart(name, options) for name in names}
  for name, found in results.items():
    for clock in ("wall", "processor"):
      ratios = ", ".join(
        f"{which} {r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f})"
        for which, r in found[clock]["ratio_to_torch"].items()
      )
      sys.stdout.write(f"{name}: {clock} time over PyTorch's: {ratios}\n")
  if args.output:
    measure.write(args.output, measure.command("step", argv), results)
  return 0


if __name__ == "__main__":
  processes.use_huge_pages()
  sys.exit(main())
