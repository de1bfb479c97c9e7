"""Compiles the train step of a config for chips that need not be there."""

from __future__ import annotations

from collections.abc import Collection
import dataclasses
import functools
import re
import time

import jax

from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.config import schema
from sum_l_jax.config.schema import Settings
from sum_l_jax.system import devices
from sum_l_jax.tools import chips
from sum_l_jax.tools import jax_config
from sum_l_jax.tools import program_costs
from sum_l_jax.tools import workload
from sum_l_jax.tools.aot import topologies

# Only for schedules given in epochs, whose numbers don't change the program.
_SOME_CLIPS = 100_000
_TOO_LARGE = re.compile(r"RESOURCE_EXHAUSTED|Ran out of memory")


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A step, compiled, or why it could not be.

  Attributes:
    settings: resolved settings.
    stage: "joint" or "exo".
    topology: name of the topology.
    chip: what one of its chips can do.
    num_chips: number of chips in the mesh.
    clips: clips of an epoch; 0 where unknown.
    seconds: how long compiling took.
    text: the optimised program; "" where it doesn't fit.
    memory: bytes on one chip by what they hold.
    costs: the compiler's analysis of one chip and one step.
    problem: what the compiler says where the program doesn't fit.
  """

  settings: Settings
  stage: str
  topology: str
  chip: chips.Chip
  num_chips: int
  clips: int
  seconds: float
  text: str = ""
  memory: dict[str, int] = dataclasses.field(default_factory=dict)
  costs: dict[str, float] = dataclasses.field(default_factory=dict)
  problem: str = ""

  @property
  def batch_size(self) -> int:
    """Clips of a step, over all chips."""
    return self.settings.stage(self.stage).batch_size


def find_data(
  settings: Settings, stage: str, *, classes: dict[str, str]
) -> dict[str, workload.DataSet]:
  """Describes the data sets of a stage by view; reads no file of theirs.

  Args:
    settings: resolved settings.
    stage: "joint" or "exo".
    classes: the options `--ego_classes` and `--exo_classes`, by view.

  Raises:
    ValueError: the numbers of classes are not known.
  """
  views = (types.EXO,) if stage == build.EXO_STAGE else types.VIEWS
  if stage != build.EXO_STAGE and not settings.uses_exo:
    views = (types.EGO,)
  found = {}
  for view in views:
    option, given = f"--{view}_classes", classes.get(view, "")
    folders = (settings.ego.dataset,) if view == types.EGO else settings.exo.datasets or ("",)
    # An option says what all pools have together.
    pools = folders[:1] if given else folders
    found[view] = workload.unite([workload.find(view, pool, option, given) for pool in pools])
  return found


def lower_step(
  settings: Settings,
  stage: str,
  mesh: jax.sharding.Mesh,
  *,
  tasks: build.Tasks,
  embedding_dim: int,
  clips: int,
  united: Collection[str] = (),
) -> jax.stages.Lowered:
  """Traces the step that training runs, on shapes alone.

  Args:
    settings: resolved settings; `model.conv` says for which backend.
    stage: "joint" or "exo".
    mesh: mesh of the chips.
    tasks: label sets by view.
    embedding_dim: width of the narrations' vectors, where the stage has any.
    clips: clips of an epoch; 0 where they are unknown.
    united: views that have several pools with different classes.
  """
  width = embedding_dim if len(tasks) == 2 else None
  trainer = build.Trainer(settings, stage, mesh, tasks, width, clips or _SOME_CLIPS)
  batch = workload.abstract_batch(
    tasks,
    batch_size=trainer.section.batch_size,
    clips=trainer.clips,
    tokens=trainer.tokens,
    embedding_dim=width,
    sharding=devices.batch_sharding(mesh),
    united=united,
  )
  return trainer.step.lower(trainer.abstract_state(), batch)


def compile_step(
  settings: Settings,
  stage: str,
  topology: str,
  *,
  classes: dict[str, str],
  embedding_dim: int,
  clips: int = 0,
) -> Compiled:
  """Compiles the step of a stage for a topology.

  Args:
    settings: resolved settings, of which `model.conv` "auto" becomes the
      topology's backend.
    stage: "joint" or "exo".
    topology: name of a topology, such as "v5e:4x8".
    classes: options `--ego_classes` and `--exo_classes` by view; may be empty
      where the data sets are known.
    embedding_dim: width of the narrations' vectors.
    clips: clips of an epoch; 0 takes what is known of the data set.

  Raises:
    ValueError: a topology, data set or batch size that is not possible.
  """
  mesh, chip = topologies.make_mesh(topology, fsdp=settings.mesh.fsdp)
  batch_size = settings.stage(stage).batch_size
  if batch_size % mesh.size:
    raise ValueError(
      f"{mesh.size} chips can't share a batch of {batch_size} clips evenly. Give --batch_per_chip,"
      " or another topology."
    )
  if settings.model.conv == schema.AUTO:
    model = dataclasses.replace(settings.model, conv=chip.backend)
    settings = dataclasses.replace(settings, model=model)
  data = find_data(settings, stage, classes=classes)
  leading = next(iter(data))
  clips = clips or data[leading].clips.get(leading, 0)
  tasks = {view: found.tasks for view, found in data.items()}
  lowered = lower_step(
    settings,
    stage,
    mesh,
    tasks=tasks,
    embedding_dim=embedding_dim,
    clips=clips,
    united=[view for view, data_set in data.items() if data_set.united],
  )
  make = functools.partial(Compiled, settings, stage, topology, chip, mesh.size, clips)
  start = time.monotonic()
  try:
    # So that the compiler is really asked, and the time is its own.
    with jax_config.changed("jax_enable_compilation_cache", False):
      program = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if not _TOO_LARGE.search(str(error)):
      raise
    return make(time.monotonic() - start, problem=str(error))
  return make(
    time.monotonic() - start,
    text=program.as_text() or "",
    memory=program_costs.read_memory(program),
    costs=program_costs.read_costs(program),
  )
