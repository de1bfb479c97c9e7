"""Every setting changes something, and the losses and optimizers are what they say.

A setting that is not passed on is the bug that no other test sees, for everything
still runs. The table below has an entry for each field of `config/schema.py`: a
value unlike its default, and where the difference shows. A field that changes
nothing fails, and so does one without an entry.

Sections that are formulas, the losses and the stages, are computed once more by
numpy and torch from the config's values, with every field unlike its default.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import json
import os
import pathlib
import tempfile
from typing import Any
from unittest import mock

from flax import nnx
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from data_prep.toy_kitchen import builder
from sum_l_jax import build
from sum_l_jax import build_evaluation
from sum_l_jax import loss_options
from sum_l_jax import main
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.data import feature_card
from sum_l_jax.data import loader
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.data import shard_filler
from sum_l_jax.data import transferred_labels
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.experiment import final
from sum_l_jax.experiment import hand_over
from sum_l_jax.experiment import loop
from sum_l_jax.losses import own_terms
from sum_l_jax.models import backbones
from sum_l_jax.models import layer_order
from sum_l_jax.models import network_spec
from sum_l_jax.models import vit_spec
from sum_l_jax.system import devices
from sum_l_jax.system import retries
from sum_l_jax.train import metrics
from sum_l_jax.train import wandb_writer
from tests.support import feature_sets
from tests.support import loss_oracles
from tests.support import runs
from tests.support import tiny_data


class Pooled(nnx.Module):
  """An encoder that compiles in a moment: means of a 2 x 2 grid, one layer.

  A clip has two tokens.
  """

  feature_dim = 8

  def __init__(self, options, rng):
    self.dtype = options.dtype
    self.kernel = nnx.Param(jnp.asarray(rng.standard_normal((12, 8), np.float32)))
    self.mean = nnx.BatchStat(jnp.zeros(8))

  def __call__(self, video, *, train, prepare, key=None):
    del key
    x = prepare(video).astype(self.dtype)
    batch, frames, height, width, _ = x.shape
    grid = x.reshape(batch, frames, 2, height // 2, 2, width // 2, 3).mean((1, 3, 5))
    # Odd in each entry: the views of a clip differ by more than a factor.
    feature = jnp.tanh(grid.reshape(batch, 12).astype(jnp.float32) @ self.kernel[...])
    if train:
      self.mean[...] = 0.9 * self.mean[...] + 0.1 * jax.lax.stop_gradient(feature).mean(0)
    return feature, {}, jnp.stack([feature, feature**2], axis=1)


BLOCK = network_spec.NetworkSpec(
  slow=network_spec.PathwaySpec(
    stem=network_spec.StemSpec(4, (1, 3, 3), 2, max_pool=False),
    stages=(network_spec.StageSpec(1, 4, 8, 3),),
  )
)
# Without statistics of a batch.
TRANSFORMER = vit_spec.VitSpec(width=8, depth=1, mlp=8, heads=1, patch=(2, 4, 4), image=8, frames=4)
TWO_PATHWAYS = dataclasses.replace(BLOCK, fast=BLOCK.slow, alpha=4, fusion_kernel=5)


def _agreement(outputs, batch):
  """A term of one's own: the mean squared cosine of pairs."""
  del batch
  cosines = jnp.sum(outputs["ego"]["embedding"] * outputs["exo"]["embedding"], axis=1)
  return jnp.mean(cosines**2)


@pytest.fixture(autouse=True)
def _encoders(monkeypatch):
  table = backbones.BACKBONES
  order = layer_order.LayerOrder(1, {"kernel": 1})
  monkeypatch.setitem(table, "pooled", backbones.Backbone(Pooled, 4, 2, order=order))
  monkeypatch.setitem(table, "pooled_6", backbones.Backbone(Pooled, 6, 1))
  for name, spec in (("block", BLOCK), ("pathways", TWO_PATHWAYS)):
    monkeypatch.setitem(table, name, backbones.from_tables(spec, num_frames=8, stride=1))
  vit = backbones.from_vit(TRANSFORMER, stride=1, normalization="video")
  monkeypatch.setitem(table, "transformer", vit)
  monkeypatch.setitem(own_terms._TERMS, "agreement", _agreement)


@dataclasses.dataclass(frozen=True)
class World:
  """Data of the tests, and what was trained on them.

  Attributes:
    base: fields by dotted name that make a run small.
    folder: where files lie.
    known: what was seen already.
  """

  base: Mapping[str, Any]
  folder: pathlib.Path
  known: dict[Any, Any] = dataclasses.field(default_factory=dict)

  def config(self, fields: Mapping[str, Any]) -> read.Config:
    """The base with other values; "{x}" stands for a path of the folder."""
    config = read.default_config()
    whole = lambda value: value.format(folder=self.folder) if isinstance(value, str) else value
    changes = {
      name: tuple(map(whole, value)) if isinstance(value, tuple) else whole(value)
      for name, value in {**self.base, **fields}.items()
    }
    config.update_from_flattened_dict(changes)
    return config

  def settings(self, fields: Mapping[str, Any]) -> schema.Settings:
    """The same, resolved."""
    return build.resolve(self.config(fields))

  def new_folder(self) -> pathlib.Path:
    """A folder that is not there yet, for a run."""
    return pathlib.Path(tempfile.mkdtemp(dir=self.folder))

  def trained(self) -> pathlib.Path:
    """The workdir of a run of both stages."""
    workdir = self.folder / "trained"
    if not workdir.exists():
      config = {"exo_stage.total": "1 steps", "joint_stage.total": "1 steps"}
      assert main.run(self.config({**config, "stages": ("exo", "joint")}), workdir)
    return workdir

  def seen(self, look: Callable[..., Any], fields: Mapping[str, Any]) -> Any:
    """What a function sees with these fields, as something to compare."""
    key = look, repr(read.flatten(self.config(fields)))
    if key not in self.known:
      self.known[key] = _mark(look(self, fields))
    return self.known[key]

  def trainer(self, fields: Mapping[str, Any], stage: str = "joint") -> build.Trainer:
    """A stage on one device."""
    return build.Trainer.open(self.settings(fields), stage, devices.make_mesh(1))


@pytest.fixture(name="world", scope="module")
def world_fixture(tiny_ego, tiny_exo, tiny_narrations, tiny_tables, tmp_path_factory):
  folder = tmp_path_factory.mktemp("every_setting")
  config = runs.small(
    read.default_config(), ego=tiny_ego, exo=tiny_exo, tables=tiny_tables, backbone="pooled"
  )
  plain = read.flatten(read.default_config())
  base = {name: value for name, value in read.flatten(config).items() if value != plain[name]}
  base |= {"frames.count": 4, "frames.crop_size": 8, "frames.short_side": (10, 14)}
  base |= {"eval.crop_size": 8, "report": False, "model.dropout": 0.0}
  # Other data of each kind.
  tiny_data.write_tiny(folder / "ego", "ego_two", {"train": 12, "val": 5, "test": 4})
  tiny_data.write_tiny(folder / "exo", "exo_two", {"train": 9, "val": 6})
  for name in ("narrations", "pairs"):
    (folder / f"{name}.npz").write_bytes((tiny_tables / f"{name}.npz").read_bytes())
  table = pairing.PairTable.load(tiny_tables / "pairs.npz")
  other = dataclasses.replace(table, neighbours=np.roll(table.neighbours, 1, axis=0))
  other.save(folder / "other_pairs.npz")
  texts = sorted(
    {
      clip.narration
      for where, split in ((tiny_ego, "train"), (tiny_exo, "train"))
      for clip in records.ClipDataset(where, split).clips
    }
  )
  vectors = np.random.default_rng(11).standard_normal((len(texts), 16))
  turned = narration_table.NarrationTable(texts, vectors, model=tiny_narrations.model)
  turned.save(folder / "other_narrations.npz", command="tests")
  sayings = [
    f"{verb} {noun}" for verb in tiny_data.VERBS.class_names for noun in tiny_data.NOUNS.class_names
  ]
  whole = np.random.default_rng(13).standard_normal((len(sayings), 16))
  narration_table.NarrationTable(sayings, whole, model=tiny_narrations.model).save(
    folder / "all_narrations.npz", command="tests"
  )
  dataclasses.replace(table, text_fingerprint=turned.fingerprint).save(folder / "turned_pairs.npz")
  for view, folder_of in (("ego", tiny_ego), ("exo", tiny_exo)):
    data = records.ClipDataset(folder_of, "train")
    verbs = np.full(len(data), 1, np.int32)
    transferred_labels.TransferredLabels(
      {"verb": tiny_data.VERBS}, {"verb": verbs}, (data.annotation_fingerprint,)
    ).save(folder / f"{view}_labels.npz")
  for name, seed in (("first_tokens", 0), ("tokens", 1)):
    rng = np.random.default_rng(seed)
    for view, source, count in (("ego", tiny_ego, 17), ("exo", tiny_exo, 11)):
      values = {"train": rng.standard_normal((count, 1, 2, 8))}
      frames = feature_card.FeatureFrames(4, 2, 8)
      feature_sets.write(folder / f"{view}_{name}", source, values, frames=frames)
  (folder / "skip_ego.txt").write_text("ego_train_003\nego_train_004\n")
  (folder / "skip_exo.txt").write_text("exo_train_001\nexo_train_002\nexo_train_003\n")
  return World(base, folder)


# Where a difference shows: functions of the world and of fields by dotted name.


@functools.cache
def batches(stage="joint", count=3):
  """What the stream gives."""

  def look(world, fields):
    try:
      with world.trainer(fields, stage).stream(start_step=0) as stream:
        return [next(stream) for _ in range(count)]
    except ValueError as error:
      return str(error)

  return look


@functools.cache
def stored(view):
  """What the stream gives of a view, whose features are the first ones where none are named."""

  def look(world, fields):
    if fields.get(f"{view}.input") == "tokens" and not fields.get(f"{view}.features"):
      fields = {**fields, f"{view}.features": (f"{{folder}}/{view}_first_tokens",)}
    found = batches()(world, fields)
    assert not isinstance(found, str), found
    return found

  return look


@functools.cache
def learned(stage="joint", steps=3):
  """The numbers that steps report, and the weights and their averages after them."""

  def look(world, fields):
    trainer = world.trainer(fields, stage)
    state, sums = trainer.initial_state(), []
    with trainer.stream(start_step=0) as stream:
      for _ in range(steps):
        state, found = trainer.step(state, devices.put_batch(next(stream), trainer.mesh))
        sums.append(found)
    after = state.params, state.stats, state.averaged()
    return [metrics.compute([s]) for s in sums], jax.device_get(after)

  return look


def own_term(world, fields):
  """The steps with terms of one's own, which have a weight each."""
  given = fields.get("loss.own_weights") or (0.25,) * len(fields["loss.own_terms"])
  return learned()(world, {**fields, "loss.own_weights": given})


def program(world, fields):
  """The program of a gradient, before the compiler."""
  trainer = world.trainer(fields)
  params, stats = trainer.network.shapes
  with trainer.stream(start_step=0) as stream:
    batch = next(stream)

  def loss(params, stats):
    outputs, _ = trainer.network.apply(params, stats, batch, train=True, key=jax.random.key(0))
    return trainer.objective(outputs, batch)[0]

  return str(jax.make_jaxpr(jax.grad(loss))(params, stats))


@functools.cache
def step_program(stage):
  """The program of a step, before the compiler."""

  def look(world, fields):
    trainer = world.trainer(fields, stage)
    with trainer.stream(start_step=0) as stream:
      return trainer.step.lower(trainer.abstract_state(), next(stream)).as_text()

  return look


def starting(world, fields):
  """The weights that a stage starts from."""
  world.trained()
  return hand_over.starting_weights(world.trainer(fields), world.folder / "nothing")


def places(world, fields):
  """How the parameters are divided between two devices."""
  mesh = jax.sharding.AbstractMesh((1, 2), devices.BATCH_AXES)
  layout = build.make_layout(world.settings(fields), mesh)
  params, _ = world.trainer(fields).network.shapes
  flat = weight_files.flatten(params)
  return {name: str(layout.spec(name, leaf.shape)) for name, leaf in flat.items()}


def calendar(world, fields):
  """What is due before each step."""
  steps = loop.Calendar.of(world.trainer(fields), 0, 8)
  return [dataclasses.astuple(steps.due(step, asked=False)) for step in range(9)]


def watched(world, fields):
  """What is evaluated while a stage trains."""
  trainer = world.trainer(fields)
  found = build_evaluation.build_stage_evaluators(trainer.settings, trainer.opened, trainer.mesh)
  if not found:
    return None
  (evaluator,) = found
  scores = evaluator(*trainer.network.init()).scores
  return evaluator.dataset.split, len(evaluator.stream), evaluator.stream.num_views, scores


@functools.cache
def stage_run(stage="joint"):
  """The steps of a stage, and the checkpoints that are left."""

  def look(world, fields):
    settings, workdir = world.settings(fields), world.new_folder()
    done = loop.train_stage(settings, stage, workdir=workdir, mesh=devices.make_mesh(1))
    folder = hand_over.checkpoint_folder(workdir, stage)
    return done.step, sorted(path.name for path in folder.iterdir() if path.name.isdigit())

  return look


def whole_run(world, fields):
  """The files of a run, or why there are none, and what it rendered first."""
  workdir = world.new_folder()
  with mock.patch.object(builder, "build") as render:
    try:
      table = main.run(world.config(fields), workdir)
    except ValueError as error:
      return str(error)
  return sorted(path.name for path in workdir.iterdir()), bool(table), repr(render.call_args_list)


def scored_run(world, fields):
  """The scores that a run ends with."""
  workdir = world.new_folder()
  assert main.run(world.config(fields), workdir)
  return dict(np.load(workdir / "scores_val.npz"))


def judged(world, fields):
  """The checkpoints of a run that gets worse and worse, and which one it evaluates."""
  worse = iter(range(9))

  def scalars(self, params, stats):
    del params, stats
    return {f"{self.prefix}verb_top1": 1 - next(worse) / 10}

  workdir = world.new_folder()
  with mock.patch.object(evaluators.Evaluator, "scalars", scalars):
    main.run(world.config(fields), workdir)
  folder = hand_over.checkpoint_folder(workdir, "joint")
  result = json.loads((workdir / "result.json").read_text())
  return sorted(path.name for path in folder.iterdir() if path.name.isdigit()), result["step"]


def tracked(world, fields):
  """Which run is begun at Weights & Biases."""
  with mock.patch.object(wandb_writer, "WandbRun") as begun:
    main.run(world.config(fields), world.new_folder())
  return [call.args[0] for call in begun.call_args_list]


def storage_of_run(world, fields):
  """How long a run waits for disks, how often it uploads, where compiled programs are."""
  before = jax.config.values["jax_compilation_cache_dir"]
  writer = mock.patch.object(metrics, "Writer", side_effect=metrics.Writer)
  with mock.patch.dict(os.environ), writer as opened:
    main.run(world.config(fields), world.new_folder())
    cache = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", before)
    return retries.patience(), opened.call_args.kwargs["upload_seconds"], cache


def evaluated(world, fields):
  """The result of a trained network."""
  workdir = world.new_folder()
  final.evaluate_checkpoint(
    world.settings(fields), world.trained(), workdir=workdir, mesh=devices.make_mesh(1)
  )
  splits = json.loads((workdir / "result.json").read_text())["splits"]
  scores = {path.name: dict(np.load(path)) for path in workdir.glob("scores_*.npz")}
  for entry in splits.values():
    del entry["seconds"]
  # Numbers alone: the text repeats settings, and would show a difference where
  # there is none.
  numbers = [x for x in jax.tree.leaves(splits) if not isinstance(x, str)]
  return sorted(splits), numbers, scores


class _Enough(Exception):
  """Nothing is to be read."""


def reading(world, fields):
  """How Grain is asked to read."""
  seen = []
  options, watch = grain.ReadOptions, loader.reading.Reading

  def processes(**given):
    seen.append(given)
    raise _Enough

  with (
    mock.patch.object(grain, "ReadOptions", lambda **g: seen.append(g) or options(**g)),
    mock.patch.object(grain, "MultiprocessingOptions", processes),
    mock.patch.object(loader.reading, "Reading", side_effect=watch) as watched,
  ):
    try:
      world.trainer(fields).stream(start_step=0).close()
    except _Enough:
      pass
  return seen, watched.call_args.kwargs["timeout"]


def frames_read(world, fields):
  """Whether frames are read again in four epochs."""
  original, seen = records.ClipDataset.read_frames, []

  def read_frames(self, index, frames):
    # One data set each: threads of an earlier stream may still be reading another.
    seen.extend((str(self.directory), id(self), index, frame) for frame in frames)
    return original(self, index, frames)

  with mock.patch.object(records.ClipDataset, "read_frames", read_frames):
    batches(count=17)(world, {**fields, "method": "fpv_only", "input.num_threads": 1})
  return len(seen) > len(set(seen))


def copied(world, fields):
  """Where copies of shards go, and how large they may be."""
  with mock.patch.object(shard_filler, "start") as start:
    world.trainer(fields).stream(start_step=0).close()
  return start.call_args.args[0]


def damaged(world, fields):
  """Whether a run goes on where a clip can't be read."""
  original = records.ClipDataset.read_frames

  def read_frames(self, index, frames):
    if index == 3:
      raise ValueError("it is damaged")
    return original(self, index, frames)

  with (
    mock.patch.object(records.ClipDataset, "read_frames", read_frames),
    mock.patch.object(loader, "_MIN_JUDGED", 1),
  ):
    return isinstance(batches(count=5)(world, {**fields, "method": "fpv_only"}), str)


@dataclasses.dataclass(frozen=True)
class Entry:
  """A value unlike a field's default.

  Attributes:
    value: the value.
    shows: where the difference shows.
    given: other fields, on both sides of the comparison.
  """

  value: Any
  shows: Callable[[World, Mapping[str, Any]], Any]
  given: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_STEPS = learned()
_RUN = {"stop_at": "joint:0"}
_FPV = {"method": "fpv_only"}
# Some pairs of each batch are above the threshold and some below.
_PAIRS = {"pairs.top_k": 3, "loss.threshold": 0.2, "joint_stage.batch_size": 8}
_MANY = {"loss.cross_view": "ego_nce", "joint_stage.batch_size": 8}
# The terms that a mixed clip may have.
_LABELS = {f"loss.weights.{term}": 0.0 for term in ("ego_exo", "ego_text", "exo_text")}
_ALONE = {"eval.during_split": "", "eval.splits": ("val",), "joint_stage.total": "1 steps"}
_RETRIEVAL = {"eval.retrieval": True, "narrations": "{folder}/all_narrations.npz"}
_JUDGED = {
  "joint_stage.total": "3 steps",
  "eval.every": "1 steps",
  "checkpoint.keep": 1,
  "checkpoint.best": "eval/val/verb_top1",
}
_BY_AREA = {"frames.short_side": (0, 0), "frames.crop_area": (0.2, 0.9)}
_VIT = {"model.backbone": "transformer"}
_AVERAGED = {**_ALONE, "joint_stage.ema": 0.5}
_KITCHEN = {**_RUN, "prepare.recipe": "toy_kitchen_generic"}


# Ways of the test to ask for features; `stored` fills in what is missing.
_EGO_TOKENS = {**_FPV, "ego.input": "tokens"}
_EXO_TOKENS = {"exo.input": "tokens"}
_FROZEN = {"ego.freeze": "all", "exo.freeze": "all"}
_GRID = {
  "joint_stage.grid_learning_rates": Entry((0.01, 0.001), step_program("joint"), _FROZEN),
  "joint_stage.grid_weight_decays": Entry((0.0, 0.1), step_program("joint"), _FROZEN),
}


def _stage(stage: str) -> dict[str, Entry]:
  """The fields of a stage."""
  at = f"{stage}_stage."
  steps = learned(stage)
  plateaus = {at + "boundaries": ("0 steps", "1 steps", "2 steps")}
  warm = {at + "warmup": "2 steps"}
  program = step_program(stage)
  decay = {at + "weight_decay": 0.1}
  return {
    at + "batch_size": Entry(2, steps),
    at + "accumulate": Entry(2, program, {**_VIT, "loss.negatives_group": 2}),
    at + "chunks": Entry(2, program, {"model.backbone": "transformer"}),
    at + "total": Entry("2 steps", stage_run(stage)),
    at + "optimizer": Entry("adamw", steps),
    at + "learning_rate": Entry(0.02, steps),
    at + "momentum": Entry(0.5, steps),
    at + "nesterov": Entry(False, steps),
    at + "weight_decay": Entry(0.1, steps),
    at + "clip_norm": Entry(0.01, steps),
    at + "schedule": Entry("cosine", steps),
    at + "boundaries": Entry(("0 steps", "1 steps", "200 steps"), steps),
    at + "factors": Entry((1.0, 0.3, 0.1), steps, plateaus),
    at + "warmup": Entry("2 steps", steps),
    at + "warmup_start": Entry(0.005, steps, warm),
    at + "label_smoothing": Entry(0.1, steps),
    at + "class_balance": Entry(1.0, steps),
    at + "mixup": Entry(0.8, program, _LABELS),
    at + "cutmix": Entry(1.0, program, _LABELS),
    at + "cutmix_share": Entry(1.0, program, {**_LABELS, at + "mixup": 0.8, at + "cutmix": 1.0}),
    at + "final_rate": Entry(0.005, steps, {at + "schedule": "cosine"}),
    at + "betas": Entry((0.5, 0.9), steps, {at + "optimizer": "adamw"}),
    at + "decay_rule": Entry("matrices", steps, {at + "weight_decay": 0.1}),
    at + "decay_also": Entry(("*bias",), steps, {**decay, at + "decay_rule": "matrices"}),
    at + "decay_never": Entry(("*bias",), steps, decay),
    at + "encoder_factor": Entry(0.5, steps),
    at + "layer_decay": Entry(0.5, steps),
    at + "ema": Entry(0.5, steps),
    **(_GRID if stage == "joint" else {}),
  }


FIELDS: dict[str, Entry] = {
  "seed": Entry(1, _STEPS),
  "method": Entry("typical_cl", _STEPS),
  "objective": Entry("released", _STEPS),
  "stages": Entry(("exo", "joint"), whole_run, _ALONE),
  "precision": Entry("bfloat16", _STEPS),
  "num_devices": Entry(2, whole_run, _RUN),
  "mesh.fsdp": Entry(2, whole_run, _RUN),
  "mesh.rules": Entry(("encoder/kernel -> 1", ". -> largest"), places),
  "mesh.whole_below": Entry(10, places),
  "log_every_steps": Entry(3, calendar),
  "wandb": Entry("tests", tracked, _RUN),
  "report": Entry(True, whole_run, _ALONE),
  "on_non_finite": Entry("skip", _STEPS, {"joint_stage.learning_rate": 3e38}),
  "stop_at": Entry("joint:0", whole_run, _ALONE),
  "narrations": Entry(
    "{folder}/other_narrations.npz", batches(), {"pairs.table": "{folder}/turned_pairs.npz"}
  ),
  "prepare.recipe": Entry("toy_kitchen_generic", whole_run, _RUN),
  "prepare.directory": Entry("{folder}/elsewhere", whole_run, _KITCHEN),
  "prepare.seed": Entry(3, whole_run, _KITCHEN),
  "ego.dataset": Entry("{folder}/ego", batches(), _FPV),
  "ego.train_split": Entry("val", batches(), _FPV),
  "ego.pseudo_labels": Entry("{folder}/ego_labels.npz", batches()),
  "ego.skip_list": Entry("{folder}/skip_ego.txt", batches(count=5)),
  "ego.channel_order": Entry("BGR", _STEPS),
  "ego.normalization": Entry("imagenet", _STEPS),
  "ego.color_lighting": Entry(0.2, batches()),
  "ego.freeze": Entry("all", _STEPS),
  "exo.datasets": Entry(("{folder}/exo",), batches("exo")),
  "exo.train_split": Entry("val", batches("exo"), {"exo.datasets": ("{folder}/exo",)}),
  "exo.pseudo_labels": Entry("{folder}/exo_labels.npz", batches()),
  "exo.skip_list": Entry("{folder}/skip_exo.txt", batches("exo")),
  "exo.pool_sampling": Entry(
    "equal", batches("exo"), {"exo.datasets": ("{folder}/exo", "{folder}/ego")}
  ),
  "exo.channel_order": Entry("BGR", _STEPS),
  "exo.normalization": Entry("imagenet", _STEPS),
  "exo.color_lighting": Entry(0.2, batches()),
  "ego.input": Entry("tokens", stored("ego"), _FPV),
  "ego.features": Entry(("{folder}/ego_tokens",), stored("ego"), _EGO_TOKENS),
  "exo.input": Entry("tokens", stored("exo")),
  "exo.features": Entry(("{folder}/exo_tokens",), stored("exo"), _EXO_TOKENS),
  "ego.backbone": Entry("pooled_6", batches(), {"frames.count": 0}),
  "ego.frames.count": Entry(6, batches()),
  "ego.frames.stride": Entry(1, batches()),
  "ego.frames.crop_size": Entry(6, batches()),
  "ego.frames.short_side": Entry((12, 12), batches()),
  "ego.frames.eval_crop_size": Entry(12, evaluated),
  "ego.frames.crop_area": Entry((0.2, 0.9), batches(), {"frames.short_side": (0, 0)}),
  "ego.frames.crop_aspect": Entry((2.0, 2.0), batches(), _BY_AREA),
  "ego.frames.sampling": Entry("parts", batches(), {"frames.stride": 0}),
  "exo.backbone": Entry("pooled_6", batches(), {"frames.count": 0}),
  "exo.frames.count": Entry(6, batches()),
  "exo.frames.stride": Entry(1, batches()),
  "exo.frames.crop_size": Entry(6, batches()),
  "exo.frames.short_side": Entry((12, 12), batches()),
  "exo.frames.eval_crop_size": Entry(12, evaluated, _RETRIEVAL),
  "exo.frames.crop_area": Entry((0.2, 0.9), batches(), {"frames.short_side": (0, 0)}),
  "exo.frames.crop_aspect": Entry((2.0, 2.0), batches(), _BY_AREA),
  "exo.frames.sampling": Entry("parts", batches(), {"frames.stride": 0}),
  "exo.freeze": Entry("1", _STEPS),
  "pairs.table": Entry("{folder}/other_pairs.npz", batches()),
  "pairs.top_k": Entry(3, batches()),
  "pairs.tie_tolerance": Entry(1.5, batches()),
  "frames.count": Entry(6, batches()),
  "frames.stride": Entry(1, batches()),
  "frames.crop_size": Entry(6, batches()),
  "frames.short_side": Entry((12, 12), batches()),
  "frames.crop_area": Entry((0.2, 0.9), batches(), {"frames.short_side": (0, 0)}),
  "frames.crop_aspect": Entry((2.0, 2.0), batches(), _BY_AREA),
  "frames.sampling": Entry("parts", batches(), {"frames.stride": 0}),
  "frames.flip": Entry(1.0, batches()),
  "frames.rand_augment": Entry("rand-m7-n4-mstd0.5-inc1", batches()),
  "frames.erase": Entry(1.0, batches()),
  "model.backbone": Entry("pooled_6", batches(), {"frames.count": 0}),
  "model.head": Entry("attentive", _STEPS),
  "model.probe_depth": Entry(2, _STEPS, {"model.head": "attentive"}),
  "model.probe_heads": Entry(2, _STEPS, {"model.head": "pooler"}),
  "model.dropout": Entry(0.5, _STEPS),
  "model.projection_prenorm": Entry("true", _STEPS),
  "model.share_encoder": Entry(True, _STEPS),
  "model.lora_rank": Entry(2, _STEPS, _VIT),
  "model.lora_alpha": Entry(4.0, _STEPS, {**_VIT, "model.lora_rank": 2}),
  "model.drop_path": Entry(0.5, _STEPS, _VIT),
  "model.freeze_exo": Entry(True, _STEPS),
  "model.bn_group_size": Entry(2, learned(steps=1), {"model.backbone": "block"}),
  "model.conv": Entry("native", program, {"model.backbone": "block"}),
  "model.attention": Entry("blocks", program, {"model.backbone": "vit_tiny", "frames.count": 8}),
  "model.remat": Entry("blocks", program, {"model.backbone": "block"}),
  "model.pack_clips": Entry(
    2, program, {"model.backbone": "pathways", "model.conv": "tpu", "frames.count": 8}
  ),
  "loss.cross_view": Entry("decoupled", _STEPS),
  "loss.negatives": Entry("cross_and_same", _STEPS),
  "loss.negatives_from": Entry("all", _STEPS, _PAIRS),
  "loss.average_over": Entry("all", _STEPS, _PAIRS),
  "loss.negatives_group": Entry(2, _STEPS),
  "loss.temperature": Entry(0.2, _STEPS),
  "loss.sigma": Entry(0.3, _STEPS, _PAIRS),
  "loss.threshold": Entry(0.3, _STEPS, _PAIRS),
  "loss.triplet_margin": Entry(0.3, _STEPS, {"method": "triplet"}),
  "loss.target_temperature": Entry(0.3, _STEPS, {**_PAIRS, "loss.cross_view": "graded"}),
  "loss.video_text": Entry("sup_con", _STEPS),
  "loss.positives": Entry("labels", _STEPS, _MANY),
  "loss.positive_tasks": Entry(("verb",), _STEPS, _MANY),
  "loss.compared": Entry("narrations", _STEPS, _MANY),
  "loss.sigmoid_bias": Entry(-3.0, _STEPS, {**_MANY, "loss.cross_view": "sigmoid"}),
  "loss.ranking_margin": Entry(0.5, _STEPS, {**_MANY, "loss.cross_view": "max_margin"}),
  "loss.mask_duplicates": Entry(0.9, _STEPS, _PAIRS),
  "loss.own_terms": Entry(("agreement",), own_term),
  "loss.own_weights": Entry((0.5,), own_term, {"loss.own_terms": ("agreement",)}),
  **{f"loss.weights.{term}": Entry(0.37, _STEPS) for term in types.TERMS},
  **_stage("exo"),
  **_stage("joint"),
  "init.ego": Entry("{folder}/trained", starting),
  "init.exo": Entry("{folder}/trained", starting),
  "init.exo_from": Entry("stage_one", whole_run, _ALONE),
  "eval.splits": Entry(("val", "test"), evaluated, {"ego.dataset": "{folder}/ego"}),
  "eval.during_split": Entry("", watched),
  "eval.every": Entry("3 steps", calendar),
  "eval.checkpoint": Entry("best", judged, _JUDGED),
  "eval.clips": Entry(3, evaluated),
  "eval.crops": Entry(3, evaluated),
  "eval.during_clips": Entry(3, watched),
  "eval.during_crops": Entry(3, watched),
  "eval.crop_size": Entry(12, evaluated),
  "eval.pool_window": Entry(1, watched, {"model.backbone": "block"}),
  "eval.batch_size": Entry(2, watched),
  "eval.ensemble": Entry("max", evaluated),
  "eval.parameters": Entry("trained", scored_run, _AVERAGED),
  "eval.retrieval": Entry(True, evaluated),
  "eval.retrieval_exo_split": Entry(
    "val", evaluated, {**_RETRIEVAL, "exo.datasets": ("{folder}/exo",)}
  ),
  "eval.retrieval_clips": Entry(3, evaluated, _RETRIEVAL),
  "checkpoint.every": Entry("3 steps", calendar),
  "checkpoint.keep": Entry(
    3, stage_run(), {"checkpoint.every": "1 steps", "joint_stage.total": "3 steps"}
  ),
  "checkpoint.best": Entry("eval/val/verb_top1", judged, {**_JUDGED, "checkpoint.best": ""}),
  "checkpoint.patience": Entry(1, judged, _JUDGED),
  "input.num_threads": Entry(3, reading),
  "input.num_workers": Entry(2, reading),
  "input.prefetch": Entry(5, reading),
  "input.cache_mib": Entry(16, frames_read),
  "input.shard_cache": Entry("{folder}/copies", copied),
  "input.shard_cache_gib": Entry(2.0, copied, {"input.shard_cache": "{folder}/copies"}),
  "input.max_corrupt_share": Entry(0.9, damaged),
  "input.timeout_seconds": Entry(7.0, reading),
  "storage.patience_seconds": Entry(7.0, storage_of_run, _RUN),
  "storage.upload_seconds": Entry(7.0, storage_of_run, _RUN),
  "storage.compilation_cache": Entry("{folder}/programs", storage_of_run, _RUN),
}
DEFAULTS = {field.name: field.default for field in schema.fields()}


def test_every_field_has_an_entry():
  assert FIELDS.keys() == DEFAULTS.keys()


def _mark(value: Any) -> Any:
  """What is compared: bytes of arrays, and the shape of what holds them."""
  leaves, tree = jax.tree.flatten(value)
  arrays = [np.asarray(leaf) for leaf in leaves]
  return str(tree), [(x.dtype.str, x.shape, x.tobytes()) for x in arrays]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_changes_something(field, world):
  entry = FIELDS[field]
  usual = world.base.get(field, DEFAULTS[field])
  assert entry.value != usual
  before, after = (
    world.seen(entry.shows, {**entry.given, field: value}) for value in (usual, entry.value)
  )
  assert before != after, f"{field}={entry.value!r} gives what {usual!r} gives"


def initial(world, fields):
  """The weights that a network starts from where there are no others."""
  return world.trainer(fields).network.init()


def step_arguments(world, fields):
  """What the train step is made from, as far as it is no function."""
  with mock.patch.multiple(build, make_train_step=mock.DEFAULT, compile_step=mock.DEFAULT) as made:
    _ = world.trainer(fields).step
  given = {name: x for make in made.values() for name, x in make.call_args.kwargs.items()}
  return sorted((name, x) for name, x in given.items() if name != "mesh")


# Fields that are read in more places than the one in the table.
ELSEWHERE = [
  ("seed", 1, initial, {}),
  ("seed", 1, batches(), {}),
  ("seed", 1, batches("exo"), {}),
  ("seed", 1, step_arguments, {}),
  ("precision", "bfloat16", watched, {}),
  ("frames.count", 6, watched, {}),
  ("frames.stride", 1, watched, {}),
  ("frames.short_side", (12, 12), batches("exo"), {}),
  ("frames.sampling", "parts", watched, {"frames.stride": 0}),
  ("frames.flip", 1.0, batches("exo"), {}),
  ("ego.channel_order", "BGR", watched, {}),
  ("model.head", "pooler", watched, {}),
  ("exo.channel_order", "BGR", learned("exo"), {}),
  ("model.dropout", 0.5, learned("exo"), {}),
  ("loss.negatives", "cross_and_same", _STEPS, {"loss.weights.ego_exo": 0.0}),
  ("loss.mask_duplicates", 0.9, _STEPS, {**_PAIRS, "loss.weights.ego_exo": 0.0}),
  ("on_non_finite", "skip", step_arguments, {}),
]


@pytest.mark.parametrize("field, value, shows, given", ELSEWHERE)
def test_a_field_changes_something_in_each_place(field, value, shows, given, world):
  usual = world.base.get(field, DEFAULTS[field])
  before, after = (world.seen(shows, {**given, field: x}) for x in (usual, value))
  assert before != after


@pytest.mark.parametrize("field", ["model.freeze_exo", "model.share_encoder"])
def test_stage_one_trains_the_exo_encoder_whatever_the_joint_stage_does(field, world):
  plain, changed = (world.seen(learned("exo"), {field: value}) for value in (False, True))
  assert plain == changed


# The formulas once more, from the values of the config.

LOSS = {
  "loss.temperature": 0.3,
  "loss.sigma": 0.4,
  "loss.threshold": 0.15,
  "loss.target_temperature": 0.5,
  "loss.triplet_margin": 0.7,
  "loss.negatives": "cross_and_same",
  "loss.negatives_from": "all",
  "loss.average_over": "all",
  "loss.negatives_group": 4,
  "loss.mask_duplicates": 0.95,
  "loss.video_text": "sup_con",
  "loss.positives": "labels",
  "loss.positive_tasks": ("noun",),
  "loss.compared": "narrations",
  "loss.sigmoid_bias": -2.5,
  "loss.ranking_margin": 0.45,
  "loss.own_terms": ("agreement",),
  "loss.own_weights": (0.35,),
  **{f"loss.weights.{term}": 0.9 - 0.1 * i for i, term in enumerate(types.TERMS)},
}


# What the terms of the paper do not look at.
_NOT_MANY = {
  f"loss.{name}": DEFAULTS[f"loss.{name}"]
  for name in ("video_text", "positives", "positive_tasks", "compared")
}
# Tests of the losses have all the forms with many positives.
KINDS = [k for k in loss_options.CROSS_VIEW if k not in loss_options.MANY_POSITIVES]
KINDS += ["ego_nce", "adaptive_margin"]


def _many(form, first, second, texts, labels, mask):
  """A form with many positives by the config's values, in numpy."""
  return loss_oracles.numpy_matching(
    form,
    first,
    second,
    texts=texts,
    labels=labels,
    positives=LOSS["loss.positives"],
    mask=mask,
    temperature=LOSS["loss.temperature"],
    margin=LOSS["loss.ranking_margin"],
    same_view=True,
    cosine=LOSS["loss.mask_duplicates"],
  )


def test_every_field_of_the_loss_is_unlike_its_default():
  named = {name for name in DEFAULTS if name.startswith("loss.")}
  assert {*LOSS, "loss.cross_view"} == named
  assert all(DEFAULTS[name] != value for name, value in LOSS.items())


def _cross_view(kind, z, texts, labels, mask):
  """The cross-view term of a group by the config's values, in numpy or torch."""
  cosine = LOSS["loss.mask_duplicates"]
  if kind in loss_options.MANY_POSITIVES:
    # The clips of both views with the narrations of both.
    sides = [list(zip(part, (0, 1))) for part in (z, texts)]
    return _many(kind, *sides, texts, labels, mask)
  if kind == "triplet":
    # Each ego clip of a pair against the next one, cyclically.
    a, p = (torch.tensor(x[mask > 0]) for x in z)
    if len(a) < 2:
      return 0.0
    loss = torch.nn.TripletMarginLoss(margin=LOSS["loss.triplet_margin"])
    return loss(a, p, a.roll(-1, 0)).item()
  if kind == "graded":
    options = dict(
      temperature=LOSS["loss.temperature"],
      target_temperature=LOSS["loss.target_temperature"],
      threshold=LOSS["loss.threshold"],
      mask=mask,
      all_negatives=True,
      same_view=True,
      cosine=cosine,
    )
    one = loss_oracles.numpy_graded(*z, *texts, **options)
    return one + loss_oracles.numpy_graded(*z[::-1], *texts[::-1], **options)
  return loss_oracles.numpy_ego_exo(
    *z,
    np.sum(texts[0] * texts[1], axis=1),
    kind=kind,
    temperature=LOSS["loss.temperature"],
    sigma=LOSS["loss.sigma"],
    threshold=LOSS["loss.threshold"],
    mask=mask,
    same_view=True,
    negatives_from="all",
    average_over=LOSS["loss.average_over"],
    texts=texts,
    cosine=cosine,
  )


def _video_text(z, text, labels, mask):
  """Half of L_m in a group."""
  if (form := LOSS["loss.video_text"]) != "decoupled":
    return _many(form, [(z, 0)], [(text, 0)], [text], [labels], mask)
  options = dict(
    temperature=LOSS["loss.temperature"],
    decoupled=True,
    mask=mask,
    same_view=True,
    texts=(text, text),
    cosine=LOSS["loss.mask_duplicates"],
  )
  both = loss_oracles.numpy_contrast(z, text, **options)
  return both + loss_oracles.numpy_contrast(text, z, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_reports_the_loss_of_the_config(kind, world):
  """From the config's values to the scalar of a compiled step on real batches.

  A clip of each view is masked: a pair is there only if both of it are.
  """
  fields = {**LOSS, "loss.cross_view": kind, "pairs.top_k": 3, "joint_stage.batch_size": 8}
  # They contradict each other.
  if kind == "triplet":
    fields["loss.mask_duplicates"] = 0.0
  if kind not in loss_oracles.SELECTING:
    fields["loss.average_over"] = "selected"
  if kind not in loss_options.MANY_POSITIVES:
    fields |= _NOT_MANY
  trainer = world.trainer(fields)
  with trainer.stream(start_step=0) as stream:
    batch = next(stream)
  batch["ego"]["mask"][1] = batch["exo"]["mask"][6] = 0
  state = trainer.initial_state()
  outputs, _ = jax.jit(lambda p, s: trainer.network.apply(p, s, batch, train=True))(
    state.params, state.stats
  )
  _, sums = trainer.step(state, devices.put_batch(batch, trainer.mesh))
  found = metrics.compute([sums])

  double = lambda x: np.asarray(x, np.float64)
  z, texts, masks = (
    [double(part[view][name]) for view in types.VIEWS]
    for part, name in ((outputs, "embedding"), (batch, "narration"), (batch, "mask"))
  )
  groups = loss_oracles.groups(8, LOSS["loss.negatives_group"])
  pair = masks[0] * masks[1]
  nouns = [
    [({name},) for name in np.array(tiny_data.NOUNS.class_names)[batch[v]["labels"]["noun"]]]
    for v in types.VIEWS
  ]
  cut = lambda arrays, g: [x[g] for x in arrays]
  with mock.patch.dict(LOSS, fields):
    expected = {
      "ego_exo": np.mean(
        [_cross_view(kind, *(cut(x, g) for x in (z, texts, nouns)), pair[g]) for g in groups]
      )
    }
    for i, view in enumerate(types.VIEWS):
      expected[f"{view}_text"] = np.mean(
        [_video_text(*(x[i][g] for x in (z, texts, nouns)), masks[i][g]) for g in groups]
      )
  for view, mask in zip(types.VIEWS, masks):
    rows = torch.tensor(mask > 0)
    expected[f"{view}_cls"] = sum(
      torch.nn.functional.cross_entropy(
        torch.tensor(double(logits))[rows], torch.tensor(batch[view]["labels"][task]).long()[rows]
      ).item()
      for task, logits in outputs[view]["logits"].items()
    )
  for term in types.TERMS:
    assert found[f"loss/{term}"] == pytest.approx(expected[term], rel=1e-4, abs=1e-5), term
    assert abs(expected[term]) > 1e-2, term
  total = sum(LOSS[f"loss.weights.{term}"] * value for term, value in expected.items())
  agreement = np.mean(np.sum(z[0] * z[1], axis=1) ** 2)
  assert found["loss/agreement"] == pytest.approx(agreement, rel=1e-4)
  total += 0.35 * agreement
  assert found["loss"] == pytest.approx(total, rel=1e-4)


STAGE = {
  "batch_size": 3,
  "total": "10 steps",
  "learning_rate": 0.05,
  "momentum": 0.7,
  "weight_decay": 0.03,
  "clip_norm": 0.2,
  "boundaries": ("0 steps", "3 steps"),
  "factors": (0.8, 0.3),
  "warmup": "2 steps",
  "warmup_start": 0.01,
  "final_rate": 0.002,
  "betas": (0.8, 0.95),
  "decay_rule": "matrices",
  "decay_also": ("*/heads/verb/bias",),
  "decay_never": ("*/heads/noun/kernel",),
  "encoder_factor": 0.5,
  "layer_decay": 0.6,
  "ema": 0.7,
}
# What the gradient is of has tests of its own (tests/train, tests/losses).
NO_FORMULAS = (
  *("accumulate", "chunks", "class_balance", "cutmix", "cutmix_share", "label_smoothing"),
  "mixup",
)


@pytest.mark.parametrize("stage", schema.STAGES)
@pytest.mark.parametrize(
  "optimizer, schedule, nesterov",
  [
    ("sgd", "relative_steps", False),
    ("sgd", "cosine", True),
    ("adamw", "cosine_after_warmup", False),
  ],
)
def test_a_stage_moves_the_weights_as_torch_does(stage, optimizer, schedule, nesterov, world):
  chosen = {**STAGE, "optimizer": optimizer, "schedule": schedule, "nesterov": nesterov}
  assert {f"{stage}_stage.{name}" for name in {*chosen, *NO_FORMULAS}} == {
    name for name in DEFAULTS if name.startswith(f"{stage}_stage.") and name not in _GRID
  }
  trainer = world.trainer({f"{stage}_stage.{name}": v for name, v in chosen.items()}, stage)

  def policy(step):
    begin = 2 if schedule == "cosine_after_warmup" else 0
    if schedule != "relative_steps":
      return 0.002 + 0.048 * (np.cos(np.pi * (step - begin) / (10 - begin)) + 1) / 2
    return 0.05 * (0.3 if step >= 3 else 0.8)

  def rate(step):
    return 0.01 + step / 2 * (policy(2) - 0.01) if step < 2 else policy(step)

  @jax.jit
  def gradient(params, stats, batch):
    loss = lambda p: trainer.objective(
      trainer.network.apply(p, stats, batch, train=True)[0], batch
    )[0]
    return jax.grad(loss)(params)

  state = trainer.initial_state()
  flat = weight_files.flatten(jax.device_get(state.params))
  weights = {name: torch.tensor(np.array(value)) for name, value in flat.items()}
  averages = {name: np.array(value, np.float64) for name, value in flat.items()}

  def decays(name):
    kernel = name.endswith("kernel") and not name.endswith("heads/noun/kernel")
    return kernel or name.endswith("heads/verb/bias")

  # The encoder has one layer, and the heads come after it.
  factors = [0.5 * 0.6 if "/encoder/" in name else 1.0 for name in weights]
  groups = [
    {"params": [weight], "weight_decay": 0.03 * decays(name)} for name, weight in weights.items()
  ]
  if optimizer == "sgd":
    moved = torch.optim.SGD(groups, 1.0, momentum=0.7, nesterov=nesterov)
  else:
    moved = torch.optim.AdamW(groups, 1.0, betas=(0.8, 0.95))
  with trainer.stream(start_step=0) as stream:
    for step in range(5):
      batch = next(stream)
      assert {len(part["mask"]) for part in batch.values()} == {3}
      grads = weight_files.flatten(jax.device_get(gradient(state.params, state.stats, batch)))
      for name, weight in weights.items():
        weight.grad = torch.tensor(np.array(grads[name]))
      norm = torch.nn.utils.clip_grad_norm_(weights.values(), 0.2)
      assert norm > 0.2
      for group, factor in zip(moved.param_groups, factors, strict=True):
        group["lr"] = rate(step) * factor
      moved.step()
      for name, weight in weights.items():
        averages[name] = 0.7 * averages[name] + 0.3 * weight.numpy()
      state, sums = trainer.step(state, devices.put_batch(batch, trainer.mesh))
      found = metrics.compute([sums])
      assert found["learning_rate"] == pytest.approx(rate(step), rel=1e-5)
      assert found["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
  after = weight_files.flatten(jax.device_get(state.params))
  averaged = weight_files.flatten(jax.device_get(state.ema))
  for name, weight in weights.items():
    np.testing.assert_allclose(after[name], weight, rtol=2e-3, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(averaged[name], averages[name], rtol=2e-3, atol=2e-5, err_msg=name)
    assert not np.array_equal(after[name], flat[name]), name
  assert trainer.total_steps == 10


def test_an_evaluator_takes_the_kinds_of_its_data_set(world, tiny_exo_multi_label):
  """Sigmoids where clips have any number of classes, and the rule of the config."""
  dataset = records.ClipDataset(tiny_exo_multi_label, "train")
  settings = world.settings({"eval.ensemble": "max", "exo.channel_order": "BGR"})
  evaluator = build_evaluation.build_evaluator(
    settings,
    dataset,
    view="exo",
    mesh=devices.make_mesh(1),
    views=build_evaluation.during_views(settings),
  )
  network = build.build_network(settings, {"exo": dataset.tasks}, embedding_dim=None)
  params, stats = network.init()
  # Logits that are far from 0, where a softmax would be another function.
  params = jax.tree.map(lambda x: 30 * x if x.ndim == 2 else x, params)
  found = evaluator(params, stats)
  seen = 0
  for batch in evaluator.stream:
    pixels = {"exo": {name: batch[name] for name in ("video", "color_offset")}}
    outputs, _ = network.apply(params, stats, pixels, train=False)
    for row in np.flatnonzero(batch["mask"]):
      for task, logits in outputs["exo"]["logits"].items():
        expected = torch.sigmoid(torch.tensor(np.array(logits[row])))
        scores = found.scores[task][batch["clip"][row]]
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)
        seen += 1
  assert seen == 2 * len(dataset)
  assert set(found.metrics) == {
    f"{t}_map_{d}" for t in dataset.tasks for d in ("sklearn", "charades")
  }
