"""Compiles the train step of a config for chips that need not be there."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import re
import time
from typing import Any

import jax

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.config import settings
from sum_l_jax.system import devices
from sum_l_jax.tools.aot import chips
from sum_l_jax.tools.aot import topologies
from sum_l_jax.tools.aot import workload
from sum_l_jax.train.state import create_state
from sum_l_jax.train.step import make_train_step

# Only for schedules given in epochs, whose numbers don't change the program.
_SOME_CLIPS = 100_000


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A step, compiled, or why it could not be.

  Attributes:
    config: resolved.
    stage: "joint" or "exo".
    topology: name.
    chip: what one of them can do.
    num_chips: of the mesh.
    clips: of an epoch; 0 where unknown.
    text: the optimised program; "" where it doesn't fit.
    memory: bytes on one chip by what they hold.
    costs: of the compiler's analysis, one chip, one step.
    seconds: that compiling took.
    problem: what the compiler says where the program doesn't fit.
  """

  config: Any
  stage: str
  topology: str
  chip: chips.Chip
  num_chips: int
  clips: int
  text: str
  memory: dict[str, int]
  costs: dict[str, float]
  seconds: float
  problem: str = ""

  @property
  def batch_size(self) -> int:
    return build.stage_section(self.config, self.stage).batch_size


def _views(config, stage: str) -> tuple[str, ...]:
  if stage == build.EXO_STAGE:
    return (types.EXO,)
  return types.VIEWS if settings.uses_exo(config) else (types.EGO,)


def find_data(config, stage: str, *, classes: dict[str, str]) -> dict[str, workload.DataSet]:
  """The data sets of a stage by view, of which no file is read.

  Args:
    config: resolved.
    stage: "joint" or "exo".
    classes: by view, the options `--ego_classes` and `--exo_classes`.

  Raises:
    ValueError: the numbers of classes are not known.
  """
  folders = {types.EGO: config.ego.dataset, types.EXO: next(iter(config.exo.datasets), "")}
  return {
    view: workload.find(view, folders[view], f"--{view}_classes", classes.get(view, ""))
    for view in _views(config, stage)
  }


def lower_step(
  config,
  stage: str,
  mesh: jax.sharding.Mesh,
  *,
  tasks: dict[str, dict[str, types.Task]],
  embedding_dim: int,
  clips: int,
) -> jax.stages.Lowered:
  """Traces the step that `train.loop` runs, on shapes alone.

  Args:
    config: resolved; `model.conv` says for which backend.
    stage: "joint" or "exo".
    mesh: of the chips.
    tasks: label sets by view.
    embedding_dim: of the narrations, where the stage has any.
    clips: of an epoch.
  """
  width = embedding_dim if len(tasks) == 2 else None
  network = build.build_network(config, tasks, embedding_dim=width)
  optimizer, schedule, _ = build.build_optimizer(config, stage, num_clips=clips or _SOME_CLIPS)
  step = make_train_step(
    network,
    build.build_objective(config, stage, tasks),
    optimizer,
    schedule,
    seed=config.seed,
    mesh=mesh,
    skip_non_finite=config.on_non_finite == "skip",
  )
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  state = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
    jax.eval_shape(lambda params, stats: create_state(params, stats, optimizer), *network.shapes),
  )
  batch = workload.abstract_batch(
    tasks,
    batch_size=build.stage_section(config, stage).batch_size,
    num_frames=config.frames.count,
    crop_size=config.frames.crop_size,
    embedding_dim=width,
    sharding=devices.batch_sharding(mesh),
  )
  return step.lower(state, batch)


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
  """So that the compiler is really asked, and its time its own."""
  before = jax.config.jax_enable_compilation_cache
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", before)


def read_memory(program: jax.stages.Compiled) -> dict[str, int]:
  """Bytes on one chip.

  Returns:
    "arguments"; "outputs" without those that take an argument's place;
    "temporaries"; "code"; "total" of these, which a chip must have; "peak", the
    most that is in use at a time, 0 where the compiler doesn't say. Temporaries
    are one block with gaps: the total may be above the peak.
  """
  found = program.memory_analysis()
  parts = {
    "arguments": found.argument_size_in_bytes,
    "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
    "temporaries": found.temp_size_in_bytes,
    "code": found.generated_code_size_in_bytes,
  }
  peak = getattr(found, "peak_memory_in_bytes", 0) or 0
  return {**parts, "total": sum(parts.values()), "peak": peak}


def read_costs(program: jax.stages.Compiled) -> dict[str, float]:
  """{"flops", "bytes_accessed"} of one chip and step; absent if unsaid."""
  found = program.cost_analysis() or {}
  names = {"flops": "flops", "bytes_accessed": "bytes accessed"}
  return {name: float(found[key]) for name, key in names.items() if key in found}


_TOO_LARGE = re.compile(r"RESOURCE_EXHAUSTED|Ran out of memory")


def compile_step(
  config, stage: str, topology: str, *, classes: dict[str, str], embedding_dim: int, clips: int = 0
) -> Compiled:
  """Compiles the step of a stage for a topology.

  Args:
    config: resolved. `model.conv` "auto" becomes the topology's backend.
    stage: "joint" or "exo".
    topology: such as "v5e:4x8".
    classes: options `--ego_classes` and `--exo_classes` by view; may be empty
      where the data sets are known.
    embedding_dim: of the narrations.
    clips: of an epoch; 0 takes what is known of the data set.

  Raises:
    ValueError: a topology, data set or batch size that can't be.
  """
  mesh, chip = topologies.make_mesh(topology)
  batch_size = build.stage_section(config, stage).batch_size
  if batch_size % mesh.size:
    raise ValueError(
      f"{mesh.size} chips can't share a batch of {batch_size} clips evenly."
      " Give --batch_per_chip, or another topology."
    )
  config = config.copy_and_resolve_references()
  with config.unlocked():
    if config.model.conv == settings.AUTO:
      config.model.conv = chip.backend
  data = find_data(config, stage, classes=classes)
  leading = next(iter(data))
  clips = clips or data[leading].clips.get(leading, 0)
  lowered = lower_step(
    config,
    stage,
    mesh,
    tasks={v: d.tasks for v, d in data.items()},
    embedding_dim=embedding_dim,
    clips=clips,
  )
  about = dict(
    config=config, stage=stage, topology=topology, chip=chip, num_chips=mesh.size, clips=clips
  )
  start = time.monotonic()
  try:
    with _without_cache():
      program = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if not _TOO_LARGE.search(str(error)):
      raise
    return Compiled(
      **about, text="", memory={}, costs={}, problem=str(error), seconds=time.monotonic() - start
    )
  seconds = time.monotonic() - start
  return Compiled(
    **about,
    text=program.as_text(),
    memory=read_memory(program),
    costs=read_costs(program),
    seconds=seconds,
  )
