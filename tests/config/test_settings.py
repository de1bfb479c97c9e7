"""Settings: defaults, units, choices, contradictions."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import pathlib

from etils import epath
import numpy as np
import pytest

from sum_l_jax import build
from sum_l_jax import models
from sum_l_jax.config import durations
from sum_l_jax.config import field_names
from sum_l_jax.config import presets
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.config import trained_layers
from sum_l_jax.experiment import hand_over
from sum_l_jax.models import backbones
from sum_l_jax.models import layer_order
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[2]


def test_defaults_resolve_to_the_paper():
  config = build.resolve(read.default_config())
  assert config.loss.cross_view == "weighted"
  assert config.loss.negatives == "cross"
  assert config.model.projection_prenorm == "false"
  assert config.loss.weights.by_term() == {
    "ego_cls": 1.0,
    "exo_cls": 0.1,
    "ego_exo": 0.02,
    "ego_text": 0.1,
    "exo_text": 0.1,
  }


def test_released_switches_the_cross_view_term_off():
  config = read.default_config()
  config.objective = "released"
  config = build.resolve(config)
  assert config.loss.weights.ego_exo == 0
  assert config.loss.weights.ego_text == 0.1
  assert config.loss.negatives == "cross_and_same"
  assert config.model.projection_prenorm == "true"


@pytest.mark.parametrize(
  "method, terms, cross_view",
  [
    ("sum_l", {"ego_cls", "exo_cls", "ego_exo", "ego_text", "exo_text"}, "weighted"),
    ("fpv_only", {"ego_cls"}, None),
    ("typical_cl", {"ego_cls", "exo_cls", "ego_exo"}, "decoupled"),
    ("triplet", {"ego_cls", "exo_cls", "ego_exo"}, "triplet"),
  ],
)
def test_methods(method, terms, cross_view):
  config = read.default_config()
  config.method = method
  config = build.resolve(config)
  assert {t for t, w in config.loss.weights.by_term().items() if w} == terms
  if cross_view:
    assert config.loss.cross_view == cross_view
  assert config.uses_exo == (method != "fpv_only")


@pytest.mark.parametrize(
  "text, steps",
  [
    ("30 epochs", 12222),
    ("1 epoch", 407),
    ("0.5 epochs", 204),
    ("300 steps", 300),
    ("300steps", 300),
    ("7_steps", 7),
    ("10 percent", 100),
    ("10%", 100),
  ],
)
def test_durations(text, steps):
  assert durations.Clock(26074, 64, total=1000).steps(text, "x") == steps


@pytest.mark.parametrize("text", ["30", "epochs", "3 days", "-1 steps", ""])
def test_unreadable_durations(text):
  with pytest.raises(ValueError, match="config.joint_stage.total must be a"):
    durations.Clock(10, 2).steps(text, "joint_stage.total")


def test_percent_of_nothing():
  with pytest.raises(ValueError, match="cannot be a percentage"):
    durations.Clock(10, 2).steps("10 percent", "x")


CHOICES = {f.name: f.about.choices for f in schema.fields() if f.about.choices}
CHOICES["model.backbone"] = tuple(backbones.BACKBONES)


@pytest.mark.parametrize("field", sorted(CHOICES))
def test_choices_are_listed(field):
  config = read.default_config()
  *sections, name = field.split(".")
  node = config
  for section in sections:
    node = node[section]
  with config.ignore_type():
    node[name] = "nonsense"
  with pytest.raises(ValueError, match=f"config.{field} must be one of") as e:
    build.resolve(config)
  assert "'nonsense'" in str(e.value)
  assert str(CHOICES[field][0]) in str(e.value)


ALL_FROZEN = {"ego.freeze": "all", "exo.freeze": "all"}


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"method": "fpv_only", "loss.cross_view": "weighted"}, "fpv_only"),
    ({"method": "triplet", "loss.cross_view": "info_nce"}, "triplet"),
    ({"method": "fpv_only", "model.share_encoder": True}, "share_encoder"),
    ({"model.share_encoder": True, "init.exo": "x"}, "share_encoder"),
    ({"method": "fpv_only", "model.freeze_exo": True}, "freeze_exo"),
    ({"model.share_encoder": True, "model.freeze_exo": True}, "freeze_exo"),
    ({"init.ego": "exo_stage"}, "config.stages"),
    ({"stages": ("joint", "exo")}, "in this order"),
    ({"stages": ()}, "config.stages"),
    ({"stages": ("later",)}, "config.stages"),
    ({"stop_at": "joint"}, "config.stop_at"),
    ({"frames.crop_size": 300}, "config.frames needs .*: a crop must fit"),
    ({"exo.frames.short_side": (100, 320)}, "config.exo.frames needs .*: a crop must fit"),
    (
      {"frames.crop_area": (0.5, 1.0), "exo.frames.short_side": (256, 320), "frames.stride": 3}
      | {"exo.frames.sampling": "parts"},
      "config.frames.stride=3 has no effect",
    ),
    (
      {"frames.crop_area": (0.5, 1.0), "frames.short_side": (256, 320)},
      r"config.frames.crop_area=.* cuts .* config.frames.short_side=\(256, 320\) has no effect",
    ),
    ({"frames.crop_area": (0.0, 1.0)}, "config.frames.crop_area must be two shares"),
    ({"ego.frames.crop_area": (0.5, 1.1)}, "config.ego.frames.crop_area must be two shares"),
    ({"frames.crop_aspect": (2.0, 1.0)}, "config.frames.crop_aspect must be two positive"),
    ({"ego.backbone": "nonsense"}, "config.ego.backbone must be one of"),
    ({"exo.backbone": "vit_tiny", "model.share_encoder": True}, "one backbone for both views"),
    (
      {"exo.backbone": "tiny", "init.ego": "exo_stage", "stages": ("exo", "joint")},
      "init.ego='exo_stage' starts the ego encoder from .*exo 'tiny'",
    ),
    ({"exo.backbone": "tiny", "init.exo_from": "ego"}, "init.exo_from='ego' starts"),
    ({"model.backbone": "videoprism_b", "frames.crop_size": 224}, "crop_size=224 .* 18 .*patches"),
    ({"model.backbone": "vjepa2_l", "eval.crop_size": 250}, "eval.crop_size=250 .* multiple of 16"),
    (
      {"model.backbone": "vjepa2_l", "ego.frames.count": 15},
      "ego.frames.count=15 .* multiple of 2",
    ),
    ({"exo.backbone": "vit_tiny", "exo.frames.eval_crop_size": 60}, "exo.frames.eval_crop_size=60"),
    ({"model.head": "attentive", "eval.pool_window": 7}, "config.eval.pool_window=7"),
    ({"loss.temperature": 0.0}, "config.loss.temperature must be finite and greater than 0"),
    ({"loss.target_temperature": -0.1}, "config.loss.target_temperature must be .*greater than 0"),
    ({"loss.mask_duplicates": 1.1}, "mask_duplicates must be 0 .*got 1.1"),
    ({"loss.mask_duplicates": -0.5}, r"cosine in \(0, 1\], .*got -0.5"),
    ({"method": "typical_cl", "loss.cross_view": "graded"}, "typical_cl"),
    ({"joint_stage.batch_size": 0}, "config.joint_stage.batch_size"),
    ({"eval.crops": 2}, "config.eval.crops must be one of \\(0, 1, 3\\), got 2"),
    ({"model.dropout": 1.5}, "config.model.dropout"),
    ({"joint_stage.factors": (1.0,)}, "same length"),
    ({"model.bn_group_size": 24}, "bn_group_size must be 0 .*joint_stage.batch_size=64, got 24"),
    ({"joint_stage.chunks": 24}, "joint_stage.chunks must divide .*got 24"),
    ({"joint_stage.accumulate": 24}, "joint_stage.accumulate must divide .*got 24"),
    (
      {"joint_stage.accumulate": 4, "joint_stage.chunks": 32},
      "chunks must divide .*batch_size=64 / accumulate=4, got 32",
    ),
    (
      {"joint_stage.accumulate": 4, "loss.negatives_group": 32},
      "negatives_group must .*batch_size=64 / accumulate=4, got 32",
    ),
    (
      {"joint_stage.accumulate": 4},
      "accumulate=4 averages .*'ego_exo', .* Set config.loss.negatives_group=16",
    ),
    (
      {
        "joint_stage.accumulate": 4,
        "method": "fpv_only",
        "loss.own_terms": ("mine",),
        "loss.own_weights": (1.0,),
      },
      "accumulate=4 .* nobody knows .*'mine'",
    ),
    ({"loss.own_terms": ("mine",)}, "own_weights must have a weight for each"),
    ({"loss.own_terms": ("a", "a")}, "own_terms must name each term once"),
    ({"loss.own_weights": (-1.0,)}, "own_weights must be finite and above 0"),
    (
      {
        "joint_stage.class_balance": 1.0,
        "loss.weights.ego_cls": 0.0,
        "loss.weights.exo_cls": 0.0,
      },
      "class_balance=1.0 weighs the classes",
    ),
    ({"joint_stage.class_balance": 1.5}, "class_balance must be between 0 and 1"),
    ({"loss.negatives_group": 24}, "negatives_group must be 0 .*got 24"),
    ({"loss.negatives_group": 1}, "at least 2 .*got 1"),
    ({"ego.freeze": "some"}, 'config.ego.freeze must be "", "all" or a number .*got .some'),
    ({"ego.freeze": "0"}, "config.ego.freeze must be"),
    ({"exo.freeze": "6"}, "config.exo.freeze='6' must be at most 5"),
    ({"model.lora_rank": 4}, "config.model.lora_rank=4 acts on transformers"),
    ({"model.drop_path": 0.1}, "config.model.drop_path=0.1 acts on transformers"),
    (
      {"model.backbone": "vit_tiny", "model.lora_rank": 4, **ALL_FROZEN},
      "lora_rank=4 acts on transformers .* there is none: ego has .*freeze='all'",
    ),
    ({"joint_stage.layer_decay": 0.9, **ALL_FROZEN}, "joint_stage.layer_decay=0.9 acts on layers"),
    (
      {"joint_stage.layer_decay": 0.9, "ego.freeze": "5", "model.freeze_exo": True},
      "joint_stage.layer_decay=0.9 acts on layers that are trained",
    ),
    (
      {"joint_stage.encoder_factor": 0.1, **ALL_FROZEN},
      "joint_stage.encoder_factor=0.1 acts on encoders that are trained",
    ),
    ({"joint_stage.layer_decay": 0.0}, "layer_decay must be above 0 and at most 1"),
    ({"joint_stage.ema": 1.0}, "ema must be 0 or more and below 1"),
    ({"joint_stage.betas": (0.9, 1.0)}, "betas must be 0 or more and below 1"),
    ({"model.share_encoder": True, "exo.freeze": "all"}, "exo.freeze='all' needs an exo encoder"),
    ({"model.share_encoder": True, "ego.freeze": "1"}, "ego.freeze='1' keeps the running"),
  ],
)
def test_contradictions_and_ranges(changes, words):
  config = read.default_config()
  with config.ignore_type():
    config.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=words):
    build.resolve(config)


def test_an_encoder_whose_layers_nobody_knows():
  """It can be frozen as a whole; numbers of layers need `order`."""

  def changed(**fields):
    config = read.default_config()
    config.update_from_flattened_dict({"model.backbone": "unknown", **fields})
    return config

  order = layer_order.LayerOrder(2, {"kernel": 1})
  for options, known in (({}, False), ({"order": order}, True)):
    models.register_backbone("unknown", lambda *_: None, num_frames=4, stride=1, **options)
    assert build.resolve(changed(**ALL_FROZEN)).ego.freeze == "all"
    for fields in ({"ego.freeze": "1"}, {"joint_stage.layer_decay": 0.5}):
      if known:
        build.resolve(changed(**fields))
      else:
        with pytest.raises(ValueError, match="registered without `order`"):
          build.resolve(changed(**fields))


def test_frozen_layers_by_stage():
  """`model.freeze_exo` is of the joint stage, `exo.freeze` of both."""
  config = read.default_config()
  config.stages = ("exo", "joint")
  config.model.freeze_exo, config.exo.freeze, config.ego.freeze = True, "2", "all"
  settings = build.resolve(config)
  found = {
    (stage, view): trained_layers.frozen(settings, stage, view)
    for stage, view in (("exo", "exo"), ("joint", "exo"), ("joint", "ego"))
  }
  assert found == {("exo", "exo"): "2", ("joint", "exo"): "all", ("joint", "ego"): "all"}


ZERO = {f"loss.weights.{term}": 0.0 for term in ("exo_cls", "ego_exo", "exo_text")}
START = {"init.ego": "exo_stage"}
SHARED = {"model.share_encoder": True}


@pytest.mark.parametrize(
  "fields, needed",
  [
    ({}, True),
    ({"method": "fpv_only"}, False),
    ({"method": "fpv_only", **START}, True),
    (ZERO, False),
    ({**ZERO, "loss.weights.exo_text": 0.1}, True),
    ({"model.freeze_exo": True}, True),
    (SHARED, False),
    ({**SHARED, **START}, True),
  ],
)
def test_an_exo_stage_that_nothing_follows_from_is_left_out(
  fields, needed, tiny_ego, tiny_exo, tiny_tables, tmp_path
):
  """Whether it is needed is seen where weights are taken: from a workdir that has none."""
  config = runs.small(read.default_config(), ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.stages = ("exo", "joint")
  config.update_from_flattened_dict(fields)
  settings = build.resolve(config)
  assert settings.stages == (("exo", "joint") if needed else ("joint",))
  both = dataclasses.replace(settings, stages=("exo", "joint"))
  assert bool(read.why_no_exo_stage(both)) != needed
  trainer = build.Trainer.open(both, "joint", build.make_mesh(both))
  with pytest.raises(FileNotFoundError) if needed else contextlib.nullcontext():
    hand_over.starting_weights(trainer, epath.Path(tmp_path))


def test_a_stop_in_a_stage_that_is_not_run_is_refused():
  config = read.default_config()
  config.method, config.stages, config.stop_at = "fpv_only", ("exo", "joint"), "exo:3"
  with pytest.raises(ValueError, match="stop_at='exo:3' names a stage that this run doesn't have"):
    build.resolve(config)


@pytest.mark.parametrize(
  "name, suggestion",
  [
    ("loss.tempature", "loss.temperature"),
    ("batch_size", "batch_size"),
    ("exo.dataset", "exo.datasets"),
    ("nope", "sum_l_jax/config/schema.py"),
  ],
)
def test_unknown_field(name, suggestion):
  with pytest.raises(ValueError, match=f"no config field '{name}'") as e:
    field_names.check(name)
  assert suggestion in str(e.value)


@pytest.mark.parametrize(
  "name, value, words",
  [
    ("seed", "1", "seed must be a whole number, got '1'"),
    ("report", 1, "report must be true or false, got 1"),
    ("loss.sigma", "0.1", "loss.sigma must be a number, got '0.1'"),
    ("loss.sigma", float("nan"), "loss.sigma must be finite"),
    ("eval.splits", "test", "eval.splits must be texts, as in .*got 'test'"),
    (
      "frames.short_side",
      (64,),
      'frames.short_side must be 2 whole numbers, as in --config.frames.short_side="\\(256,320',
    ),
    ("joint_stage.factors", (1.0, "a"), "joint_stage.factors must be numbers, as in"),
  ],
)
def test_a_value_of_another_type_is_named(name, value, words):
  values = {**schema.Settings().flatten(), name: value}
  with pytest.raises(ValueError, match=f"config.{words}"):
    schema.Settings.from_flat(values)


def test_lists_and_whole_numbers_are_taken_for_tuples_and_floats():
  values = schema.Settings().flatten()
  values |= {"eval.splits": ["a", "b"], "loss.sigma": 1, "joint_stage.factors": [1, 0.5, 0]}
  settings = schema.Settings.from_flat(values)
  assert settings.eval.splits == ("a", "b")
  assert type(settings.loss.sigma) is float
  assert settings.joint_stage.factors == (1.0, 0.5, 0.0)
  assert hash(settings) == hash(schema.Settings.from_flat(values))


def test_known_fields_pass():
  for name in schema.Settings().flatten():
    field_names.check(name)
  field_names.check("loss.weights")


def test_arguments():
  got = read.parse_arguments("b=2", a="1", b="1")
  assert got == {"a": "1", "b": "2"}
  for wrong in ("c=1", "a"):
    with pytest.raises(ValueError, match=r"out of \['a', 'b'\]"):
      read.parse_arguments(wrong, a="1", b="1")


def test_config_files_are_found_from_anywhere(tmp_path, monkeypatch):
  root = pathlib.Path(read.__file__).resolve().parents[2]
  monkeypatch.chdir(tmp_path)
  for given in ("configs/demo.py:method=triplet", "demo.py:method=triplet"):
    found = read.find_file(given)
    assert found == f"{root / 'configs' / 'demo.py'}:method=triplet"
  # One's own file of the same name goes first; others stay what they are.
  (tmp_path / "demo.py").write_text("")
  for given in ("demo.py", "configs/no_such.py:a=1", "elsewhere/demo.py"):
    assert read.find_file(given) == given


def test_every_field_is_read_somewhere():
  """A field that nobody reads would be a promise that nothing keeps."""
  read = set()
  for path in (ROOT / "sum_l_jax").rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      # Assignments don't count: the defaults are assignments.
      if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        read.add(node.attr)
  fields = schema.Settings().flatten()
  weights = {f for f in fields if f.startswith("loss.weights.")}
  for name in fields.keys() - weights:
    if name.startswith("init."):  # Read by view: config.init[view].
      name = "init"
    assert name.rsplit(".", 1)[-1] in read, name


def test_workdir_differences_ignore_runtime_fields():
  config = read.default_config()
  old = build.resolve(config).to_json()
  config.log_every_steps = 3
  config.eval.clips = 2
  config.stop_at = "joint:3"
  config.seed = 5
  config.loss.temperature = 0.1
  new = build.resolve(config).to_json()
  assert read.differences(old, new) == ["loss.temperature: 0.06 -> 0.1", "seed: 0 -> 5"]
  assert read.differences(old, old) == []


@pytest.mark.parametrize(
  "terms, expected",
  [
    ("none", (0.0, 0.0, 0.0, "weighted")),
    ("aw", (0.02, 0.0, 0.0, "weighted")),
    ("m", (0.0, 0.1, 0.1, "weighted")),
    ("a_m", (0.02, 0.1, 0.1, "filtered")),
    ("aw_m", (0.02, 0.1, 0.1, "weighted")),
  ],
)
def test_rows_of_table_5(terms, expected):
  config = read.default_config()
  presets.set_ablation(config, terms=terms, exo_encoder="original")
  loss = build.resolve(config).loss
  assert (
    loss.weights.ego_exo,
    loss.weights.ego_text,
    loss.weights.exo_text,
    loss.cross_view,
  ) == expected
  assert (loss.weights.ego_cls, loss.weights.exo_cls) == (1.0, 0.1)


def test_rows_of_table_6():
  def made(kind):
    config = read.default_config()
    config.stages = ("exo", "joint")
    presets.set_ablation(config, terms="aw_m", exo_encoder=kind)
    config.init.ego = "kinetics"  # As the command line does, later.
    return build.resolve(config)

  fields = lambda c: (c.model.freeze_exo, c.model.share_encoder, c.init.exo, tuple(c.stages))
  both = ("exo", "joint")
  assert fields(made("original")) == (False, False, "", both)
  assert fields(made("frozen")) == (True, False, "", both)
  assert fields(made("shared")) == (False, True, "", ("joint",))
  assert fields(made("same_init")) == (False, False, "kinetics", ("joint",))
  config = read.default_config()
  for name in ("terms", "exo_encoder"):
    choice = {"terms": "m", "exo_encoder": "shared", name: "x"}
    with pytest.raises(ValueError, match=f"{name} must be one of"):
      presets.set_ablation(config, **choice)


def test_a_skip_list_changes_what_is_learnt_and_older_runs_have_none():
  config = read.default_config()
  new = build.resolve(config).to_json()
  fields = json.loads(new)
  del fields["ego.skip_list"], fields["exo.skip_list"]
  old = json.dumps(fields)
  assert read.differences(old, new) == []
  config.ego.skip_list = "skip.txt"
  listed = build.resolve(config).to_json()
  assert read.differences(old, listed) == ["ego.skip_list: '' -> 'skip.txt'"]


def test_switches_beyond_the_paper_are_off_and_older_runs_had_none():
  config = read.default_config()
  new = build.resolve(config).to_json()
  fields = json.loads(new)
  assert fields["loss.cross_view"] == "weighted"
  assert fields["loss.mask_duplicates"] == 0.0
  del fields["loss.mask_duplicates"], fields["loss.target_temperature"]
  assert read.differences(json.dumps(fields), new) == []
  config.loss.cross_view = "graded"
  config.loss.mask_duplicates = 1.0
  switched = build.resolve(config)
  assert switched.loss.cross_view == "graded"
  assert read.differences(new, switched.to_json()) == [
    "loss.cross_view: 'weighted' -> 'graded'",
    "loss.mask_duplicates: 0.0 -> 1.0",
  ]


def _resolved(**changes):
  config = read.default_config()
  config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
  return build.resolve(config)


@pytest.mark.parametrize(
  "backbone, clip, normalization",
  [
    # What they were before encoders had crops of their own.
    ("slowfast_r50", (32, 2, 224, (256, 320), 256), "video"),
    ("slow_r50", (8, 8, 224, (256, 320), 256), "video"),
    ("tiny", (8, 2, 224, (256, 320), 256), "video"),
    # As published: 292 is the short side of V-JEPA 2's test, int(256 / 224 * 256).
    ("vjepa2_l", (64, 4, 256, (292, 365), 256), "imagenet"),
    ("videoprism_b", (16, 2, 288, (329, 411), 288), "unit"),
    ("avion_b", (16, 4, 224, (256, 320), 224), "lavila"),
  ],
)
def test_clips_follow_the_encoder(backbone, clip, normalization):
  settings = _resolved(model__backbone=backbone)
  for view in ("ego", "exo"):
    assert dataclasses.astuple(settings.clip(view))[:5] == clip
    assert settings.view(view).normalization == normalization
  # Both views have them from what they share.
  assert not any(any(np.ravel(x)) for x in dataclasses.astuple(settings.exo.frames))
  assert settings.frames.count == clip[0] and settings.eval.crop_size == clip[-1]


def test_each_view_follows_its_own_encoder():
  settings = _resolved(
    model__backbone="slowfast_r50",
    exo__backbone="videoprism_b",
    exo__frames__count=8,
    exo__normalization="imagenet",
  )
  assert [settings.backbone(view) for view in ("ego", "exo")] == ["slowfast_r50", "videoprism_b"]
  assert dataclasses.astuple(settings.clip("ego"))[:5] == (32, 2, 224, (256, 320), 256)
  # The strides are alike, and the number of frames was given.
  assert dataclasses.astuple(settings.clip("exo"))[:5] == (8, 2, 288, (329, 411), 288)
  assert (settings.ego.normalization, settings.exo.normalization) == ("video", "imagenet")


def test_what_views_share_is_what_ego_has():
  """So that settings which know no views, as of earlier runs, say what evaluation sees."""
  settings = _resolved(ego__backbone="tiny", ego__frames__count=4, frames__stride=3)
  assert (settings.model.backbone, settings.frames.count) == ("tiny", 4)
  assert settings.exo.backbone == "slowfast_r50"
  assert dataclasses.astuple(settings.clip("exo"))[:2] == (32, 3)
  assert settings.exo.frames.stride == 0


def test_a_view_that_names_its_crop_has_its_own():
  """Short side and area are two ways of one crop, so one of them turns the other off."""
  area = (0.5, 1.0)
  shared = _resolved(frames__crop_area=area)
  assert {(shared.clip(v).crop_area, shared.clip(v).short_side) for v in ("ego", "exo")} == {
    (area, (0, 0))
  }
  one = _resolved(frames__crop_area=area, exo__frames__short_side=(256, 288))
  assert one.clip("ego").crop_area == area
  assert (one.clip("exo").crop_area, one.clip("exo").short_side) == ((0.0, 0.0), (256, 288))
  other = _resolved(exo__frames__crop_area=area, exo__frames__crop_aspect=(1.0, 2.0))
  assert (other.clip("ego").crop_area, other.clip("ego").short_side) == ((0.0, 0.0), (256, 320))
  assert (other.clip("exo").crop_area, other.clip("exo").short_side) == (area, (0, 0))
  assert other.clip("exo").crop_aspect == (1.0, 2.0)
