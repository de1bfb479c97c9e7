"""Building what a stage needs from the config: data, network, objective.

The two stages (paper, section 3): `exo` trains the third-person encoder alone
with L_t; `joint` trains everything with Eq. 12, or the ego encoder alone where
the method has no exo terms. The last file, with `loop.py` and `main.py`, that
reads a ConfigDict.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import hashlib
import importlib.metadata
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.config import settings
from sum_l_jax.data import examples
from sum_l_jax.data import input_options
from sum_l_jax.data import loader
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.data import transforms
from sum_l_jax.losses.objective import Objective
from sum_l_jax.models import backbones
from sum_l_jax.train.optimizer import make_optimizer
from sum_l_jax.train.optimizer import make_schedule
from sum_l_jax.train.state import Network

Config = config_dict.ConfigDict
EXO_STAGE, JOINT_STAGE = settings.STAGES
_VERSIONS = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True)
class StageData:
  """The data sets of one stage; a side that it does not use is empty.

  `skip` holds the ids of clips that are never shown, of the views that have a
  list.
  """

  ego: records.ClipDataset | None
  exo: tuple[records.ClipDataset, ...]
  pairs: pairing.PairTable | None
  narrations: narration_table.NarrationTable | None
  skip: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)

  @property
  def tasks(self) -> dict[str, dict[str, types.Task]]:
    """Label sets by view, of the views that the stage has."""
    views = {types.EGO: self.ego, types.EXO: self.exo[0] if self.exo else None}
    return {view: data.tasks for view, data in views.items() if data}

  @property
  def pools(self) -> dict[str, tuple[records.ClipDataset, ...]]:
    """Data sets by view, of the views that the stage has."""
    views = {types.EGO: (self.ego,) if self.ego else (), types.EXO: self.exo}
    return {view: pools for view, pools in views.items() if pools}

  @property
  def leading(self) -> records.ClipDataset:
    """The data set whose clips an epoch counts, and that is evaluated."""
    return self.ego or self.exo[0]

  @property
  def num_clips(self) -> int:
    return len(self.ego) if self.ego else sum(map(len, self.exo))


def _required(value: Any, field: str, what: str) -> Any:
  if not value:
    raise ValueError(
      f"config.{field} is empty: give {what}, as"
      f" --config.{field}=... on the command line or in the config file."
    )
  return value


def build_exo_datasets(config: Config) -> tuple[records.ClipDataset, ...]:
  folders = _required(
    tuple(config.exo.datasets), "exo.datasets", "the third-person data sets' folders"
  )
  return tuple(_with_labels(d, config.exo.train_split) for d in folders)


def _with_labels(folder: str, split: str) -> records.ClipDataset:
  dataset = records.ClipDataset(folder, split)
  if not dataset.labelled:
    raise ValueError(
      f"The split {split!r} of {folder!r} has no labels to train on: they"
      " were not published. Choose another train_split."
    )
  return dataset


def _skip_lists(config: Config, *views: str) -> dict[str, frozenset[str]]:
  """Ids of the clips that are never shown, of the views that have a list."""
  lists = {}
  for view in views:
    path = config[view].skip_list
    if not path:
      continue
    try:
      text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
      raise ValueError(
        f"config.{view}.skip_list={path!r} can't be read ({error}). Give the"
        " file that `python -m data_prep.doctor DIR --deep --skip_list=FILE`"
        " wrote (one clip id a line), or leave the field empty."
      ) from error
    lists[view] = frozenset(filter(None, map(str.strip, text.splitlines())))
  return lists


def build_data(config: Config, stage: str) -> StageData:
  """Opens the training data of a stage; reads indices, no video.

  Raises:
    FileNotFoundError, ValueError: a path that is empty, missing, or belongs to
      other data; names the field.
  """
  if stage == EXO_STAGE:
    return StageData(None, build_exo_datasets(config), None, None, _skip_lists(config, types.EXO))
  folder = _required(config.ego.dataset, "ego.dataset", "the first-person data set's folder")
  ego = _with_labels(folder, config.ego.train_split)
  if not settings.uses_exo(config):
    return StageData(ego, (), None, None, _skip_lists(config, types.EGO))
  exo = build_exo_datasets(config)
  narrations = narration_table.NarrationTable.load(
    _required(config.narrations, "narrations", "the narrations' embeddings")
  )
  pairs = pairing.PairTable.load(_required(config.pairs.table, "pairs.table", "the mined pairs"))
  pairs.check(ego, exo, narrations)
  return StageData(ego, exo, pairs, narrations, _skip_lists(config, types.EGO, types.EXO))


def build_transform(config: Config, view: str) -> transforms.ClipTransform:
  """Sampling and augmentation of one view in training."""
  return transforms.ClipTransform(
    num_frames=config.frames.count,
    stride=config.frames.stride,
    crop_size=config.frames.crop_size,
    short_side=tuple(config.frames.short_side),
    flip=config.frames.flip,
    color_lighting=config[view].color_lighting,
  )


def build_test_transform(config: Config) -> transforms.ClipTransform:
  """Sampling at test time: no augmentation, its own crop size."""
  return transforms.ClipTransform.for_testing(
    config.frames.count, config.frames.stride, config.eval.crop_size
  )


def build_stream(
  config: Config, stage: str, data: StageData, *, start_step: int
) -> loader.TrainStream:
  """The training batches of a stage from `start_step` on."""
  return loader.TrainStream(
    {
      view: examples.ViewClips(pools, build_transform(config, view), data.skip.get(view, ()))
      for view, pools in data.pools.items()
    },
    pairs=data.pairs,
    narrations=data.narrations,
    batch_size=stage_section(config, stage).batch_size,
    seed=config.seed,
    start_step=start_step,
    top_k=config.pairs.top_k,
    tie_tolerance=config.pairs.tie_tolerance,
    options=build_input(config),
    host=this_host(),
  )


def build_input(config: Config) -> input_options.Input:
  """Threads, processes and memory of reading."""
  return input_options.Input(
    num_threads=config.input.num_threads,
    num_workers=config.input.num_workers,
    prefetch=config.input.prefetch,
    cache_bytes=config.input.cache_mib * 2**20,
    timeout=config.input.timeout_seconds,
    max_corrupt_share=config.input.max_corrupt_share,
  )


def this_host() -> input_options.Host:
  """This process among those that JAX connects."""
  return input_options.Host(jax.process_index(), jax.process_count())


def stage_section(config: Config, stage: str) -> Config:
  return config[f"{stage}_stage"]


def build_network(
  config: Config,
  tasks: Mapping[str, Mapping[str, types.Task]],
  *,
  embedding_dim: int | None,
  pool_window: int = 0,
) -> Network:
  """The model with the towers that `tasks` names.

  Args:
    config: resolved.
    tasks: label sets by view.
    embedding_dim: width of the text vectors; None builds no projections.
    pool_window: for evaluation, see `models.EncoderOptions`.
  """
  multiple = backbones.find(config.model.backbone).frames_multiple
  if config.frames.count % multiple:
    raise ValueError(
      f"config.frames.count={config.frames.count} must be a multiple of {multiple} for"
      f" config.model.backbone={config.model.backbone!r}."
    )
  arguments = dict(
    backbone=config.model.backbone,
    tasks={
      view: {name: task.num_classes for name, task in named.items()}
      for view, named in tasks.items()
    },
    embedding_dim=embedding_dim,
    dropout=config.model.dropout,
    pixels={view: models.PixelSpec(channel_order=config[view].channel_order) for view in tasks},
    share_encoder=config.model.share_encoder and len(tasks) == 2,
    # Stage one trains it.
    freeze_exo=config.model.freeze_exo and len(tasks) == 2,
    prenorm=config.model.projection_prenorm == "true",
    options=backbones.EncoderOptions(
      conv=config.model.conv,
      dtype=jnp.dtype(config.precision),
      bn_group_size=config.model.bn_group_size,
      remat=config.model.remat,
      pool_window=pool_window,
      pack_clips=config.model.pack_clips,
    ),
    seed=config.seed,
  )
  return Network(lambda: models.make_model(**arguments))


def build_objective(
  config: Config, stage: str, tasks: Mapping[str, Mapping[str, types.Task]]
) -> Objective:
  """L_t alone in the exo stage, Eq. 12 in the joint stage."""
  weights = dict(config.loss.weights)
  if stage == EXO_STAGE:
    weights = {"exo_cls": 1.0}
  return Objective(
    tasks={
      view: {name: task.kind for name, task in named.items()} for view, named in tasks.items()
    },
    weights=weights,
    cross_view=config.loss.cross_view,
    temperature=config.loss.temperature,
    sigma=config.loss.sigma,
    target_temperature=config.loss.target_temperature,
    threshold=config.loss.threshold,
    negatives=config.loss.negatives,
    negatives_from=config.loss.negatives_from,
    negatives_group=config.loss.negatives_group,
    mask_duplicates=config.loss.mask_duplicates,
    triplet_margin=config.loss.triplet_margin,
  )


def build_optimizer(config: Config, stage: str, *, num_clips: int):
  """Optimizer, schedule and number of steps of a stage.

  Returns:
    (optax transformation, step -> learning rate, total steps).
  """
  section = stage_section(config, stage)
  name = f"{stage}_stage"
  clips = dict(num_clips=num_clips, batch_size=section.batch_size)
  total = settings.steps(section.total, field=f"{name}.total", **clips)
  if total < 1:
    raise ValueError(
      f"config.{name}.total={section.total!r} is {total} steps at"
      f" {num_clips} clips and batch size {section.batch_size}; give more."
    )
  schedule = make_schedule(
    section.schedule,
    learning_rate=section.learning_rate,
    total_steps=total,
    boundaries=[
      settings.steps(b, field=f"{name}.boundaries", total=total, **clips)
      for b in section.boundaries
    ],
    factors=tuple(section.factors),
    warmup_steps=settings.steps(section.warmup, field=f"{name}.warmup", total=total, **clips),
    warmup_start=section.warmup_start,
  )
  optimizer = make_optimizer(
    section.optimizer,
    schedule,
    momentum=section.momentum,
    nesterov=section.nesterov,
    weight_decay=section.weight_decay,
    clip_norm=section.clip_norm,
    frozen=(types.EXO, "encoder") if config.model.freeze_exo and stage == JOINT_STAGE else (),
  )
  return optimizer, schedule, total


def build_card(config: Config, stage: str, data: StageData) -> dict:
  """What a checkpoint says about itself, as JSON values.

  Evaluation and prediction take class names, pixels and frames from it, so
  that right weights can't meet wrong pixels.
  """
  tasks, table = data.tasks, data.narrations
  return {
    "stage": stage,
    "backbone": config.model.backbone,
    "embedding_dim": table.dim if table else None,
    "tasks": {
      view: {name: list(t.class_names) for name, t in named.items()}
      for view, named in tasks.items()
    },
    "kinds": {view: {name: t.kind for name, t in named.items()} for view, named in tasks.items()},
    "pixels": {
      view: dataclasses.asdict(models.PixelSpec(channel_order=config[view].channel_order))
      for view in tasks
    },
    "frames": {
      "count": config.frames.count,
      "stride": config.frames.stride,
      "crop_size": config.eval.crop_size,
      # What the stride counts in.
      "fps": data.leading.clips[0].fps,
    },
    "data": {
      "ego": data.ego.fingerprint if data.ego else None,
      "exo": [pool.fingerprint for pool in data.exo],
      "narrations": table.fingerprint if table else None,
      "text_model": table.model if table else None,
      # Absent without a list: runs from before there were any go on.
      **{
        f"{view}_skip_list": hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]
        for view, ids in data.skip.items()
      },
    },
    "config": settings.to_json(config),
    "versions": {p: importlib.metadata.version(p) for p in _VERSIONS},
  }
