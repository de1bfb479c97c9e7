"""From the settings to a run's parts; `Trainer` has those of one stage.

The two stages (paper, section 3): `exo` trains the third-person encoder alone
with L_t; `joint` trains everything with Eq. 12, or the ego encoder alone where
the method has no exo terms. Settings end here: what stands below takes plain
arguments.

A step is assembled where there is nothing to read clips or checkpoints with:
the modules that import Grain, OpenCV or Orbax are imported by the functions
that need them.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import importlib.metadata
from typing import TYPE_CHECKING
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sum_l_jax import build_data
from sum_l_jax import build_features
from sum_l_jax import loss_options
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.config import durations
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.config import trained_layers
from sum_l_jax.config.schema import EXO_STAGE
from sum_l_jax.config.schema import JOINT_STAGE
from sum_l_jax.config.schema import Settings
from sum_l_jax.data import class_balance
from sum_l_jax.data import input_options
from sum_l_jax.data import label_union
from sum_l_jax.data import shard_cache
from sum_l_jax.losses import own_terms
from sum_l_jax.losses.many_positives import Matching
from sum_l_jax.losses.objective import Objective
from sum_l_jax.models import backbones
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.system import devices
from sum_l_jax.system import sharding
from sum_l_jax.train import parameter_rules
from sum_l_jax.train import probe_grid
from sum_l_jax.train.accumulation import WithoutBatchStatistics
from sum_l_jax.train.chunks import Chunked
from sum_l_jax.train.mixing import Mixing
from sum_l_jax.train.optimizer import Schedule
from sum_l_jax.train.optimizer import make_optimizer
from sum_l_jax.train.optimizer import make_schedule
from sum_l_jax.train.state import Applied
from sum_l_jax.train.state import Network
from sum_l_jax.train.state import TrainState
from sum_l_jax.train.state import Tree
from sum_l_jax.train.state import create_state
from sum_l_jax.train.step import KeyedStep
from sum_l_jax.train.step import Step
from sum_l_jax.train.step import compile_step
from sum_l_jax.train.step import make_train_step

if TYPE_CHECKING:
  from sum_l_jax.data import loader
  from sum_l_jax.data import transforms

Tasks = Mapping[str, Mapping[str, types.Task]]
_VERSIONS = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def resolve(config: read.Config) -> Settings:
  """Checks a config file's values; see `config.read.resolve`."""
  return read.resolve(config, backbones.BACKBONES)


def read_settings(path: str, overrides: Sequence[str] = ()) -> Settings:
  """Reads a config file as `sum_l_jax.main` does.

  Args:
    path: the file with its arguments, "configs/demo.py:method=sum_l".
    overrides: changed fields, "--config.seed=1".

  Raises:
    ValueError: no such file or field, a wrong value, or a contradiction.
  """
  return resolve(read.read_file(path, overrides))


def init_digests(settings: Settings) -> dict[str, str]:
  """Digests of the given starting weights by view; "" where there are none."""
  from sum_l_jax.checkpoint import weight_files

  sources = {types.EGO: settings.init.ego, types.EXO: settings.init.exo}
  return {
    view: weight_files.file_digest(source) if source and source != "exo_stage" else ""
    for view, source in sources.items()
  }


def train_transform(settings: Settings, view: str) -> transforms.ClipTransform:
  """Sampling and augmentation of one view in training."""
  from sum_l_jax.data import transforms

  if settings.stored(view):
    return build_features.transform(settings, view)
  clip = settings.clip(view)
  return transforms.ClipTransform(
    num_frames=clip.count,
    stride=clip.stride,
    crop_size=clip.crop_size,
    short_side=clip.short_side,
    flip=settings.frames.flip,
    color_lighting=settings.view(view).color_lighting,
    rand_augment=settings.frames.rand_augment,
    erase=settings.frames.erase,
    crop_area=clip.crop_area,
    crop_aspect=clip.crop_aspect,
    sampling=clip.sampling,
  )


def eval_transform(settings: Settings, view: str) -> transforms.ClipTransform:
  """Sampling of one view at test time: no augmentation, and a crop size of its own."""
  from sum_l_jax.data import transforms

  if settings.stored(view):
    return build_features.transform(settings, view)
  clip = settings.clip(view)
  return transforms.ClipTransform.for_testing(
    clip.count, clip.stride, clip.eval_crop_size, clip.sampling
  )


def input_options_of(settings: Settings) -> input_options.Input:
  """Threads, processes and memory of reading."""
  given = settings.input
  return input_options.Input(
    num_threads=given.num_threads,
    num_workers=given.num_workers,
    prefetch=given.prefetch,
    cache_bytes=given.cache_mib * 2**20,
    max_corrupt_share=given.max_corrupt_share,
    timeout=given.timeout_seconds,
    copies=shard_cache.make(
      given.shard_cache, given.shard_cache_gib, what="config.input.shard_cache"
    ),
  )


def this_host() -> input_options.Host:
  """This process among those that JAX connects."""
  return input_options.Host(jax.process_index(), jax.process_count())


def pixel_specs(settings: Settings, views: Iterable[str]) -> dict[str, models.PixelSpec]:
  """What the encoders' pixels look like, by view."""
  return {view: _pixel_spec(settings, view) for view in views}


def _pixel_spec(settings: Settings, view: str) -> models.PixelSpec:
  if settings.stored(view):
    return build_features.pixels(settings, view)
  own = settings.view(view)
  return models.PixelSpec(*types.NORMALIZATIONS[own.normalization], channel_order=own.channel_order)


def probe_options(settings: Settings) -> models.ProbeOptions | None:
  """What reads the encoders' tokens; None where heads read the pooled feature."""
  model = settings.model
  return models.ProbeOptions.of_head(model.head, depth=model.probe_depth, heads=model.probe_heads)


def encoder_options(
  settings: Settings, view: str, *, pool_window: int = 0, lora: bool = True
) -> EncoderOptions:
  """How the encoder of a view computes; see `build_network`."""
  freeze = settings.view(view).freeze
  # What is wholly frozen would not train low-rank updates.
  rank = settings.model.lora_rank if lora and freeze != schema.ALL_FROZEN else 0
  return EncoderOptions(
    conv=settings.model.conv,
    attention=settings.model.attention,
    dtype=jnp.dtype(settings.precision),
    bn_group_size=settings.model.bn_group_size,
    remat=settings.model.remat,
    pool_window=pool_window,
    pack_clips=settings.model.pack_clips,
    drop_path=settings.model.drop_path,
    lora_rank=rank,
    lora_alpha=settings.model.lora_alpha,
    frozen=int(freeze) if freeze.isdecimal() else 0,
  )


def build_network(
  settings: Settings,
  tasks: Tasks,
  *,
  embedding_dim: int | None,
  pool_window: int = 0,
  lora: bool = True,
) -> Network:
  """Builds the model with the towers that `tasks` names.

  Args:
    settings: resolved settings.
    tasks: label sets by view.
    embedding_dim: width of the text vectors; None builds no projections.
    pool_window: side of the windows that evaluation pools, see
      `models.EncoderOptions`.
    lora: whether encoders have the low-rank updates that the settings ask for.
      Weights that were read from a checkpoint have them in their kernels.
  """
  both = len(tasks) == 2
  stage = JOINT_STAGE if both else EXO_STAGE
  frozen = [v for v in tasks if trained_layers.frozen(settings, stage, v) == schema.ALL_FROZEN]
  return Network(
    functools.partial(
      models.make_model,
      backbone={view: settings.backbone(view) for view in tasks if not settings.stored(view)},
      stored=build_features.specs(settings, tasks),
      tasks={
        view: {name: task.num_classes for name, task in named.items()}
        for view, named in tasks.items()
      },
      embedding_dim=embedding_dim,
      dropout=settings.model.dropout,
      pixels=pixel_specs(settings, tasks),
      share_encoder=settings.model.share_encoder and both,
      frozen=frozen,
      prenorm=settings.model.projection_prenorm == "true",
      probe=probe_options(settings),
      options={
        view: encoder_options(settings, view, pool_window=pool_window, lora=lora) for view in tasks
      },
      seed=settings.seed,
    )
  )


def make_mesh(settings: Settings) -> jax.sharding.Mesh:
  """Makes the mesh of the devices that the settings ask for.

  Raises:
    ValueError: there are fewer devices, or they can't share copies evenly.
  """
  return devices.make_mesh(settings.num_devices or None, fsdp=settings.mesh.fsdp)


def make_layout(settings: Settings, mesh: jax.sharding.Mesh) -> sharding.Layout:
  """Says where the arrays of a state lie on a mesh."""
  return sharding.Layout(mesh, settings.mesh.rules, settings.mesh.whole_below)


def _pool_card(data: build_data.StageData) -> list[dict[str, Any]]:
  """What a card says of each exo pool: its name, and its classes in the heads."""
  union = data.labels[types.EXO]
  return [
    {
      "name": name,
      "heads": {head: list(own.task.class_names) for head, own in pool.items()},
      "fingerprint": dataset.fingerprint,
    }
    for name, pool, dataset in zip(label_union.pool_names(data.exo), union.pools, data.exo)
  ]


@dataclasses.dataclass(frozen=True)
class Trainer:
  """One stage of a run: its network, objective, optimizer and step.

  Training, the commands that look at it, and the benchmarks all assemble a
  stage here. Parts are built when they are first asked for.

      trainer = Trainer.open(settings, "joint", mesh)
      state = trainer.initial_state()
      with trainer.stream(start_step=0) as batches:
        state, sums = trainer.step(state, devices.put_batch(next(batches), mesh))

  Attributes:
    settings: resolved settings.
    stage: "exo" or "joint".
    mesh: the devices.
    tasks: label sets by view.
    embedding_dim: width of the narrations' vectors, or None without them.
    num_clips: clips of one epoch.
    data: the data sets; None where only shapes are known.
  """

  settings: Settings
  stage: str
  mesh: jax.sharding.Mesh
  tasks: Tasks
  embedding_dim: int | None
  num_clips: int
  data: build_data.StageData | None = None

  @classmethod
  def open(cls, settings: Settings, stage: str, mesh: jax.sharding.Mesh) -> Trainer:
    """Opens the data of a stage and assembles what trains on it.

    Args:
      settings: resolved settings.
      stage: "exo" or "joint".
      mesh: the devices.

    Raises:
      FileNotFoundError, ValueError: data that are missing or do not fit.
    """
    data = build_data.open_data(settings, stage)
    dim = data.narrations.dim if data.narrations else None
    return cls(settings, stage, mesh, data.tasks, dim, data.num_clips, data)

  @property
  def section(self) -> schema.Stage:
    """The settings of this stage."""
    return self.settings.stage(self.stage)

  @property
  def opened(self) -> build_data.StageData:
    """The data sets.

    Raises:
      ValueError: only shapes are known.
    """
    if self.data is None:
      raise ValueError("This Trainer knows shapes alone; Trainer.open makes one with its data.")
    return self.data

  @functools.cached_property
  def total_steps(self) -> int:
    """Steps of the whole stage.

    Raises:
      ValueError: the stage has no steps.
    """
    size, field = self.section.batch_size, f"{self.stage}_stage.total"
    total = durations.Clock(self.num_clips, size).steps(self.section.total, field)
    if total < 1:
      raise ValueError(
        f"config.{field}={self.section.total!r} is {total} steps at"
        f" {self.num_clips} clips and batch size {size}; give more."
      )
    return total

  @property
  def clock(self) -> durations.Clock:
    """Turns durations of this stage into steps."""
    return durations.Clock(self.num_clips, self.section.batch_size, self.total_steps)

  @functools.cached_property
  def network(self) -> Network:
    """The model as pure functions."""
    return build_network(self.settings, self.tasks, embedding_dim=self.embedding_dim)

  @functools.cached_property
  def objective(self) -> Objective:
    """L_t alone in the exo stage; Eq. 12 and terms of your own in the joint stage."""
    loss = self.settings.loss
    own: Mapping[str, float] = {}
    if self.stage == JOINT_STAGE:
      own = dict(zip(loss.own_terms, loss.own_weights, strict=True))
    weights = {"exo_cls": 1.0} if self.stage == EXO_STAGE else {**loss.weights.by_term(), **own}
    if not self.tasks.get(types.EXO):
      weights = {**weights, "exo_cls": 0.0}
    return Objective(
      tasks={
        view: {name: task.kind for name, task in named.items()}
        for view, named in self.tasks.items()
      },
      weights=weights,
      cross_view=loss.cross_view,
      temperature=loss.temperature,
      sigma=loss.sigma,
      target_temperature=loss.target_temperature,
      threshold=loss.threshold,
      negatives=loss.negatives,
      negatives_from=loss.negatives_from,
      average_over=loss.average_over,
      negatives_group=loss.negatives_group,
      mask_duplicates=loss.mask_duplicates,
      triplet_margin=loss.triplet_margin,
      video_text=loss.video_text,
      positives=loss.positives,
      compared=loss.compared,
      shared_tasks=self._shared_tasks(weights),
      sigmoid_bias=loss.sigmoid_bias,
      ranking_margin=loss.ranking_margin,
      label_smoothing=self.section.label_smoothing,
      class_weights=self._class_weights(),
      own={name: own_terms.find(name) for name in own},
    )

  def _class_weights(self) -> dict[str, dict[str, tuple[float, ...]]]:
    """Weights of the classes by view and head; none where only shapes are known."""
    power, data = self.section.class_balance, self.data
    if not power or data is None:
      return {}
    return {
      view: class_balance.class_weights(
        pools, data.labels[view], power, skipped=data.skip.get(view, frozenset())
      )
      for view, pools in data.pools.items()
    }

  def _shared_tasks(self, weights: Mapping[str, float]) -> tuple[types.SharedTask, ...]:
    """The label sets by which a term of this stage compares clips; empty where none does.

    Raises:
      ValueError: the views do not have them.
    """
    loss = self.settings.loss
    forms = {"ego_exo": loss.cross_view, "ego_text": loss.video_text, "exo_text": loss.video_text}
    compared = [f for term, f in forms.items() if weights.get(term)]
    wanted = [f for f in compared if f in loss_options.MANY_POSITIVES]
    if not any(Matching(form, loss.positives).needs_labels for form in wanted):
      return ()
    return label_union.shared_tasks(self.tasks, loss.positive_tasks)

  @functools.cached_property
  def probes(self) -> tuple[probe_grid.Probe, ...]:
    """The probes that are trained at once; empty where there is one network alone."""
    section = self.section
    if not (isinstance(section, schema.JointStage) and section.has_grid):
      return ()
    return probe_grid.grid(
      section.grid_learning_rates or (section.learning_rate,),
      section.grid_weight_decays or (section.weight_decay,),
    )

  @functools.cached_property
  def schedule(self) -> Schedule:
    """The learning rate of each step."""
    return self._schedule(self.section.learning_rate)

  def _schedule(self, learning_rate: float) -> Schedule:
    section, name = self.section, f"{self.stage}_stage"
    return make_schedule(
      section.schedule,
      learning_rate=learning_rate,
      total_steps=self.total_steps,
      boundaries=[self.clock.steps(b, f"{name}.boundaries") for b in section.boundaries],
      factors=section.factors,
      warmup_steps=self.clock.steps(section.warmup, f"{name}.warmup"),
      warmup_start=section.warmup_start,
      final_rate=section.final_rate,
    )

  @functools.cached_property
  def factors(self) -> Tree | None:
    """Factors of the learning rate by parameter, 0 where it is frozen; None where all are 1.

    Raises:
      ValueError: an encoder that was to have low-rank updates has none.
    """
    section, model = self.section, self.settings.model
    shapes, _ = self.network.shapes
    rates = {}
    for view in (view for view, tower in shapes.items() if "encoder" in tower):
      entry = backbones.find(self.settings.backbone(view))
      freeze = trained_layers.frozen(self.settings, self.stage, view)
      has_lora = parameter_rules.has_lora(shapes[view]["encoder"])
      if model.lora_rank and freeze != schema.ALL_FROZEN and not (has_lora or entry.convolutional):
        raise ValueError(
          f"config.model.lora_rank={model.lora_rank} asks for low-rank updates, but the {view}"
          " encoder makes none of EncoderOptions.lora_rank. Leave it at 0."
        )
      rates[view] = parameter_rules.EncoderRates(
        entry.order,
        factor=section.encoder_factor,
        decay=section.layer_decay,
        frozen=int(freeze) if freeze.isdecimal() else 0,
        all_frozen=freeze == schema.ALL_FROZEN,
        lora_only=has_lora,
      )
    return parameter_rules.factors(shapes, rates)

  @functools.cached_property
  def optimizer(self) -> optax.GradientTransformation:
    """The optimizer of what is trained."""
    return self._optimizer(self.schedule, self.section.weight_decay)

  def _optimizer(self, schedule: Schedule, weight_decay: Any) -> optax.GradientTransformation:
    section = self.section
    decays = parameter_rules.decay_mask(
      self.network.shapes[0],
      section.decay_rule,
      also=section.decay_also,
      never=section.decay_never,
    )
    return make_optimizer(
      section.optimizer,
      schedule,
      momentum=section.momentum,
      nesterov=section.nesterov,
      betas=section.betas,
      weight_decay=weight_decay,
      decays=decays,
      clip_norm=section.clip_norm,
      factors=self.factors,
    )

  @functools.cached_property
  def step(self) -> Step:
    """The compiled train step: state, batch -> state, sums of its metrics.

    The sums are `[P]` where there are P probes.
    """
    if self.probes:
      # The rate is that of the step that is taken, so a schedule need not know it.
      step = probe_grid.make_step(
        lambda rate, decay: self._step(lambda _: rate, decay),
        self.probes,
        [self._schedule(probe.learning_rate) for probe in self.probes],
        self.factors,
      )
    else:
      step = self._step(self.schedule, self.section.weight_decay)
    return compile_step(
      step, self.network, self.mesh, seed=self.settings.seed, shardings=self._divided
    )

  @property
  def _divided(self) -> TrainState | None:
    """Where the arrays of the state lie; None where each device has them all."""
    return self.shardings if self.layout.divided else None

  def _step(self, schedule: Schedule, weight_decay: Any) -> KeyedStep:
    section = self.section
    network: Applied = self.network
    if section.chunks > 1:
      network = Chunked(network, section.chunks, self.mesh)
    if section.accumulate > 1 and not self._parts_are_grouped():
      network = WithoutBatchStatistics(network)
    return make_train_step(
      network,
      self.objective,
      self._optimizer(schedule, weight_decay),
      schedule,
      mesh=self.mesh,
      shardings=self._divided,
      mixing=Mixing(section.mixup, section.cutmix, section.cutmix_share),
      accumulate=section.accumulate,
      factors=self.factors,
      ema=self.section.ema,
      skip_non_finite=self.settings.on_non_finite == "skip",
    )

  def _parts_are_grouped(self) -> bool:
    """Whether micro-batches consist of whole groups of BatchNorm.

    Raises:
      ValueError: groups lie across micro-batches, or a loss is no mean of theirs.
    """
    section, settings = self.section, self.settings
    name = f"config.{self.stage}_stage.accumulate={section.accumulate}"
    rows = section.batch_size // section.accumulate // self.mesh.size
    group = settings.model.bn_group_size
    sizes = {"model.bn_group_size": group}
    if self.stage == JOINT_STAGE:
      sizes["loss.negatives_group"] = settings.loss.negatives_group
    for field, size in sizes.items():
      if size and (not rows or rows % size):
        raise ValueError(
          f"{name} leaves {rows} clips of a micro-batch on each of {self.mesh.size} devices, which"
          f" config.{field}={size} must divide: a group of clips lies in one micro-batch. Take a"
          f" divisor of {rows}, or another accumulate."
        )
    partly = sorted(
      f"{view}/{task}"
      for view, union in (self.data.labels if self.data else {}).items()
      if self.objective.weights.get(f"{view}_cls")
      for task in union.known
    )
    if partly:
      raise ValueError(
        f"{name} averages over micro-batches, which have different numbers of clips with labels of"
        f" {partly}: some clips have no label of these tasks, or data sets that are trained"
        " together don't all have these classes. The mean over the batch is another. Set"
        " accumulate to 1, or train on clips that all have these labels; for exo clips, a weight"
        " of 0 (config.loss.weights.exo_cls) leaves their classification out as well."
      )
    # Encoders from outside are free to ignore the size of groups.
    return bool(group) and all(
      settings.stored(view) or backbones.find(settings.backbone(view)).convolutional
      for view in self.tasks
    )

  @property
  def clips(self) -> dict[str, tuple[int, int]]:
    """Frames of a clip and pixels of their sides in training, by view that has frames."""
    framed = [view for view in self.tasks if not self.settings.stored(view)]
    clips = {view: self.settings.clip(view) for view in framed}
    return {view: (clip.count, clip.crop_size) for view, clip in clips.items()}

  @property
  def tokens(self) -> dict[str, tuple[int, int, str]]:
    """Tokens of a clip, their channels and their type, by view that has features."""
    found = {}
    for view in (view for view in self.tasks if self.settings.stored(view)):
      card = build_features.card(self.settings, view)
      found[view] = (*card.shape[1:], card.dtype)
    return found

  @property
  def everywhere(self) -> jax.sharding.NamedSharding:
    """The sharding of what each device has a copy of."""
    return devices.replicated(self.mesh)

  @functools.cached_property
  def layout(self) -> sharding.Layout:
    """Where the arrays of the state lie."""
    return make_layout(self.settings, self.mesh)

  @functools.cached_property
  def shardings(self) -> TrainState:
    """The sharding of each array of the state."""
    return self.layout.shardings(self._shapes)

  @functools.cached_property
  def _shapes(self) -> TrainState:
    return jax.eval_shape(lambda weights: self._create(weights), self.network.shapes)

  def _create(self, weights: tuple[Tree, Tree]) -> TrainState:
    averaged = bool(self.section.ema)
    state = create_state(*weights, self.optimizer, factors=self.factors, averaged=averaged)
    if not self.probes:
      return state
    probe_grid.check_trained(parameter_rules.split(state.params, self.factors)[0])
    return probe_grid.spread(state, len(self.probes), self.factors)

  def initial_weights(self) -> tuple[Tree, Tree]:
    """Drawn parameters and statistics; where devices share them, in their places."""
    if not self.layout.divided:
      return self.network.init()
    return self.network.init((self.shardings.params, self.shardings.stats))

  def initial_state(self, weights: tuple[Tree, Tree] | None = None) -> TrainState:
    """The state at step 0 on all devices.

    Args:
      weights: parameters and statistics to start from; None draws them.
    """
    weights = weights or self.initial_weights()
    if not self.layout.divided:
      return self.layout.put(self._create(weights))
    weights = self.layout.put(weights)
    return devices.jit_over(self.mesh, self._create, out_shardings=self.shardings)(weights)

  def abstract_state(self) -> TrainState:
    """The state as shapes, for a checkpoint to fill or for the compiler."""
    return jax.tree.map(
      lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
      self._shapes,
      self.shardings,
    )

  def stream(self, *, start_step: int) -> loader.TrainStream:
    """The training batches from `start_step` on."""
    from sum_l_jax.data import examples
    from sum_l_jax.data import loader

    settings, data = self.settings, self.opened
    return loader.TrainStream(
      {
        view: examples.ViewClips(
          pools,
          train_transform(settings, view),
          data.skip.get(view, frozenset()),
          data.features.get(view, ()),
        )
        for view, pools in data.pools.items()
      },
      pairs=data.pairs,
      narrations=data.narrations,
      batch_size=self.section.batch_size,
      seed=settings.seed,
      start_step=start_step,
      stop_step=self.total_steps,
      top_k=settings.pairs.top_k,
      tie_tolerance=settings.pairs.tie_tolerance,
      pool_rule=settings.exo.pool_sampling,
      options=input_options_of(settings),
      host=this_host(),
    )

  @functools.cached_property
  def card(self) -> dict[str, Any]:
    """What a checkpoint says about itself, as JSON values.

    Evaluation and prediction take class names, pixels and frames from it, so
    that right weights can't meet wrong pixels.
    """
    settings, data = self.settings, self.opened
    return {
      "stage": self.stage,
      **self._card_of_encoders(),
      "embedding_dim": self.embedding_dim,
      **({"lora_alpha": settings.model.lora_alpha} if settings.model.lora_rank else {}),
      "tasks": {
        view: {name: list(t.class_names) for name, t in named.items()}
        for view, named in self.tasks.items()
      },
      "kinds": {
        view: {name: t.kind for name, t in named.items()} for view, named in self.tasks.items()
      },
      # Which classes of a head each pool labels, where there are several pools.
      **({"pools": _pool_card(data)} if len(data.exo) > 1 else {}),
      "pixels": {
        view: dataclasses.asdict(spec) for view, spec in pixel_specs(settings, self.tasks).items()
      },
      "data": {**data.fingerprints, "init": init_digests(settings)},
      "config": settings.to_json(),
      "versions": {p: importlib.metadata.version(p) for p in _VERSIONS},
      **({"probes": [dataclasses.asdict(probe) for probe in self.probes]} if self.probes else {}),
    }

  def _card_of_encoders(self) -> dict[str, Any]:
    """Names of the encoders and the frames that they take; exo's where they are others."""
    settings, leading = self.settings, self.opened.leading
    numbers = {}
    stored = build_features.described(settings, tuple(self.tasks))
    for view in self.tasks:
      clip = settings.clip(view)
      numbers[view] = (
        stored[view]["frames"]
        if view in stored
        else {
          "count": clip.count,
          "stride": clip.stride,
          "sampling": clip.sampling,
          "crop_size": clip.eval_crop_size,
        }
      )
    names = {
      view: stored[view]["encoder"]["name"] if view in stored else settings.backbone(view)
      for view in self.tasks
    }
    first = next(view for view in types.VIEWS if view in self.tasks)
    others = {view: given for view, given in numbers.items() if given != numbers[first]}
    return {
      "backbone": names[first],
      **({"backbones": names} if len(set(names.values())) > 1 else {}),
      # The encoders of these views are not among the parameters.
      **({"features": stored} if stored else {}),
      "frames": {
        **numbers[first],
        # The rate of the stored frames, in which the stride counts.
        "fps": leading.clips[0].fps,
        # All rates, so that prediction reads a video at its own, as it was stored.
        "rates": sorted({clip.fps for clip in leading.clips}),
        **({"by_view": others} if others else {}),
      },
    }
