"""From config files and the command line to `Settings`.

A config file (`configs/*.py`) starts from `default_config()` and changes
values, the command line changes single fields, and `resolve()` fills in what
the method, the objective and the backbone imply and refuses settings that
contradict each other. Nothing below reads a ConfigDict.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Any
from typing import Protocol

from absl import flags
from etils import epath
from ml_collections import config_dict
from ml_collections import config_flags

from sum_l_jax import loss_options
from sum_l_jax import types
from sum_l_jax.config import durations
from sum_l_jax.config import field_names
from sum_l_jax.config import presets
from sum_l_jax.config import schema
from sum_l_jax.config import stored_features
from sum_l_jax.config import trained_layers
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import run_files
from sum_l_jax.system import sharding_rules
from sum_l_jax.system import storage

# Where a run's config.json tells how it was extended, beside the fields.
EXTENDED = "extended"

# A config file's values, which may still change.
Config = config_dict.ConfigDict

# The config file that reads the settings of a run.
_STORED_RUN = epath.Path(__file__).with_name("stored_run.py")
_STOP_AT = re.compile(rf"(({'|'.join(schema.STAGES)}):\d+)?")


class Sampling(trained_layers.Layered, Protocol):
  """The clips that a backbone was designed for, and what its layers are."""

  @property
  def num_frames(self) -> int:
    """Frames of a clip."""
    ...

  @property
  def stride(self) -> int:
    """Distance between two frames, in stored frames."""
    ...

  @property
  def frames_multiple(self) -> int:
    """What the number of frames must be a multiple of."""
    ...

  @property
  def crop_size(self) -> int:
    """Side of the training crop in pixels."""
    ...

  @property
  def crop_multiple(self) -> int:
    """What the side of a crop must be a multiple of."""
    ...

  @property
  def normalization(self) -> str:
    """A key of `types.NORMALIZATIONS`."""
    ...

  def short_sides_of(self, crop: int) -> tuple[int, int]:
    """Range of the short side before a training crop of this side."""
    ...

  def eval_crop_of(self, crop: int) -> int:
    """Side of the crop at test time, where `crop` is that of training."""
    ...


def default_config() -> config_dict.ConfigDict:
  """The paper's settings for EPIC-KITCHENS-55, without data, to be changed."""
  fields = {field.name: field.default for field in schema.fields()}
  return config_dict.ConfigDict(_nested(fields))


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `flatten`."""
  tree: dict[str, Any] = {}
  for name, value in fields.items():
    node, (*sections, leaf) = tree, name.split(".")
    for section in sections:
      node = node.setdefault(section, {})
    node[leaf] = value
  return tree


def find_file(path: str) -> str:
  """Finds a config file; its arguments stay as given.

  The files of this project are found from anywhere, also where it is installed
  from a wheel.

  Args:
    path: "configs/demo.py:method=sum_l"; a file, or the name of one of
      `configs/` with that folder or without, and with ".py" or without; or a workdir of
      a run or its config.json, for the settings of that run.

  Returns:
    The same with another path, or the argument where there is no such file.
  """
  if holds_run(path):
    return f"{_STORED_RUN}:{path}"
  name, colon, arguments = path.partition(":")
  file = epath.Path(name)
  if not file.is_file() and str(file.parent) in (".", "configs"):
    package = epath.Path(__file__).parents[1]
    for folder in (package / "configs", package.parent / "configs"):
      for found in (folder / file.name, folder / f"{file.name}.py"):
        if found.is_file():
          return f"{found}{colon}{arguments}"
  return path


def holds_run(path: str) -> bool:
  """Whether a path is the workdir of a run, or the config.json in it."""
  try:
    place = addresses.path(path)
  except ValueError:
    return False
  if place.name == run_files.CONFIG:
    return storage.is_file(place)
  return bool(path) and storage.is_file(place / run_files.CONFIG)


def read_file(path: str, overrides: Sequence[str] = ()) -> config_dict.ConfigDict:
  """Reads a config file and changes single fields, as the command line does.

  Args:
    path: the file with its arguments, "configs/demo.py:method=sum_l".
    overrides: changed fields, "--config.seed=1".

  Raises:
    ValueError: no such file or field, or a value of another type.
  """
  path = find_file(path)
  file = epath.Path(path.partition(":")[0])
  if not file.is_file():
    raise ValueError(f"There is no config file {str(file)!r}.")
  for override in overrides:
    name = override.partition("=")[0].removeprefix("--config.")
    field_names.check(name.split("[")[0])
  arguments = ["read", f"--config={path}", *overrides]
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file(
    "config", None, "", flag_values=values, lock_config=True, sys_argv=arguments
  )
  try:
    values(arguments)
  except flags.Error as error:
    raise ValueError(field_names.explain(error)) from error
  return holder.value


def parse_arguments(argument: str, **defaults: str) -> dict[str, str]:
  """Reads a config file's argument string, "method=sum_l,backbone=tiny".

  Args:
    argument: text behind the colon of --config.
    **defaults: the keys that the file knows, with their defaults.

  Raises:
    ValueError: a key is unknown or an item malformed; lists the choices.
  """
  out = dict(defaults)
  for item in filter(None, (argument or "").split(",")):
    key, equals, value = item.partition("=")
    if not equals or key not in defaults:
      raise ValueError(
        f"Config argument {item!r}: expected key=value with a key out of"
        f" {sorted(defaults)}, such as " + ",".join(f"{k}={v}" for k, v in defaults.items())
      )
    out[key] = value
  return out


def parse_whole_number(name: str, value: str) -> int:
  """Reads a config argument that must be 0, 1, 2, ...

  Raises:
    ValueError: it is something else.
  """
  if not value.isdecimal():
    raise ValueError(f"Config argument {name} must be a whole number, got {value!r}.")
  return int(value)


def flatten(config: config_dict.ConfigDict | dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """All values of a config by dotted name."""
  out = {}
  for key in config:
    value, name = config[key], f"{prefix}{key}"
    if isinstance(value, (config_dict.ConfigDict, dict)):
      out.update(flatten(value, name + "."))
    else:
      out[name] = value
  return out


def resolve(config: config_dict.ConfigDict, backbones: Mapping[str, Sampling]) -> schema.Settings:
  """Checks a config and fills in what method, objective and backbone imply.

  Args:
    config: as a config file and the command line made it.
    backbones: the encoders there are, by name.

  Returns:
    Settings without "auto" in `loss`, `model.projection_prenorm` and the views,
    with the backbones' frames where the config gives none, and without an exo stage
    of which the joint stage takes nothing. What the views share is ego's; exo has
    numbers of its own where they differ. What stored features are made of is known
    when these are opened.

  Raises:
    ValueError: names the field, what it must be and what it was.
  """
  values = flatten(config.copy_and_resolve_references())
  for name, value in values.items():
    field_names.check(name)
    texts = value if isinstance(value, (tuple, list)) else (value,)
    for text in texts:
      if isinstance(text, str):
        addresses.check(text, what=f"config.{name}")
  given = schema.Settings.from_flat(values)
  _check_ranges(given)
  _check_combinations(given)
  _check_groups(given)
  _check_best(given)
  values.update(preset_fields(given, values))
  implied = schema.Settings.from_flat(values)
  if why_no_exo_stage(implied):
    values["stages"] = (schema.JOINT_STAGE,)
    implied = schema.Settings.from_flat(values)
  _check_stop(implied)
  stored_features.check(implied)
  values.update(_inputs(implied, backbones))
  settings = schema.Settings.from_flat(values)
  _check_terms(given, settings)
  trained_layers.check(
    settings,
    {v: backbones[settings.backbone(v)] for v in types.VIEWS if not settings.stored(v)},
  )
  return settings


def why_no_exo_stage(given: schema.Settings) -> str:
  """Why a run of both stages needs no exo stage; "" where it needs it, or has one stage.

  The joint stage takes the exo tower, and with init.ego="exo_stage" the ego encoder,
  from stage one (`experiment.hand_over.starting_weights`). Where it takes neither,
  stage one would be trained for nothing.

  Args:
    given: settings in which method and objective have set the weights.
  """
  if given.stages != schema.STAGES or given.init.ego == "exo_stage":
    return ""
  if not given.uses_exo:
    by = " by config.method='fpv_only'" if given.method == "fpv_only" else ""
    return f"config.loss.weights.exo_cls, ego_exo and exo_text are 0{by}"
  if given.model.share_encoder and not given.stored(types.EXO):
    return (
      "config.model.share_encoder=True has one encoder for both views, which starts like the ego"
      f" encoder, from config.init.ego={given.init.ego!r}"
    )
  return ""


def _check_stop(settings: schema.Settings) -> None:
  """Checks that the run has the stage at which it is to stop."""
  stage = settings.stop_at.partition(":")[0]
  if stage and stage not in settings.stages:
    raise ValueError(
      f"config.stop_at={settings.stop_at!r} names a stage that this run doesn't have; it has"
      f" {', '.join(settings.stages)}."
    )


def _inputs(given: schema.Settings, backbones: Mapping[str, Sampling]) -> dict[str, Any]:
  """The encoders of the views by dotted name, and what they are fed with.

  Raises:
    ValueError: there is no such encoder, or it can't take these clips.
  """
  clips = {}
  found: dict[str, Any] = {}
  framed = stored_features.framed(given)
  for view in (view for view in types.VIEWS if not given.stored(view)):
    name = given.backbone(view)
    if name not in backbones:
      field = f"{view}.backbone" if given.view(view).backbone else "model.backbone"
      raise ValueError(
        f"config.{field} must be one of {tuple(backbones)}, got {name!r}."
        " The config file must import the module that registers an encoder of your own"
        " (sum_l_jax.models.register_backbone); beside a --workdir, give that file as --config."
      )
    clips[view] = _clip(given, view, backbones[name])
    if given.view(view).normalization == schema.AUTO:
      found[f"{view}.normalization"] = backbones[name].normalization
  found.update(stored_features.test_views(given))
  if not framed:
    return found
  first, *others = framed
  found["model.backbone"] = given.backbone(first)
  for name, number in dataclasses.asdict(clips[first]).items():
    found["eval.crop_size" if name == "eval_crop_size" else f"frames.{name}"] = number
    for view in others:
      own = getattr(clips[view], name)
      if own != number:
        found[f"{view}.frames.{name}"] = own
  if others and given.backbone(types.EXO) != given.backbone(types.EGO):
    _check_different(given)
    found["exo.backbone"] = given.backbone(types.EXO)
  return found


def _clip(given: schema.Settings, view: str, encoder: Sampling) -> schema.ViewFrames:
  """What a view's encoder is fed with, checked.

  Raises:
    ValueError: patches or pathways do not divide it, or a crop is larger than
      the frame.
  """
  clip, name = given.clip(view), given.backbone(view)
  crop = clip.crop_size or encoder.crop_size
  by_area = any(clip.crop_area)
  if by_area and any(clip.short_side):
    raise ValueError(
      f"{_place(given, view, 'crop_area')}={clip.crop_area} cuts crops out of frames as they are"
      f" stored, so that {_place(given, view, 'short_side')}={clip.short_side} has no effect. Set"
      " one of them to (0, 0)."
    )
  # The encoder's own distance is what stored settings have, see below.
  if clip.sampling == types.IN_PARTS and clip.stride not in (0, encoder.stride):
    raise ValueError(
      f"{_place(given, view, 'stride')}={clip.stride} has no effect on frames of equal parts."
      f" Leave it 0, or set {_place(given, view, 'sampling')} to {types.BY_STRIDE!r}."
    )
  low, high = clip.short_side
  if not by_area and not high:
    low, high = encoder.short_sides_of(crop)
  clip = dataclasses.replace(
    clip,
    count=clip.count or encoder.num_frames,
    stride=clip.stride or encoder.stride,
    crop_size=crop,
    short_side=(low, high),
    eval_crop_size=clip.eval_crop_size or encoder.eval_crop_of(crop),
  )
  if not by_area and not crop <= low <= high:
    raise ValueError(
      f"{_place(given, view, 'short_side').rpartition('.')[0]} needs crop_size <= short_side[0] <="
      f" short_side[1], got crop_size={crop}, short_side={(low, high)}: a crop must fit the resized"
      " frame."
    )
  what = "the frames of its patches, or the frame ratio of its pathways"
  multiples = {
    "count": (encoder.frames_multiple, what),
    "crop_size": (encoder.crop_multiple, "the side of its patches"),
    "eval_crop_size": (encoder.crop_multiple, "the side of its patches"),
  }
  for field, (multiple, what) in multiples.items():
    number = getattr(clip, field)
    if number % multiple:
      raise ValueError(
        f"{_place(given, view, field)}={number} must be a multiple of {multiple} for the encoder"
        f" {name!r}: {what}."
      )
  return clip


def _place(given: schema.Settings, view: str, field: str) -> str:
  """The setting that a view's number comes from: its own or the shared one."""
  if getattr(given.view(view).frames, field) not in (0, (0, 0), ""):
    return f"config.{view}.frames.{field}"
  return "config.eval.crop_size" if field == "eval_crop_size" else f"config.frames.{field}"


def _check_different(given: schema.Settings) -> None:
  """Checks what two encoders of different kinds can't do.

  Raises:
    ValueError: they are to share parameters, or to start from the same.
  """
  names = " and ".join(f"{view} {given.backbone(view)!r}" for view in types.VIEWS)
  if given.model.share_encoder:
    raise ValueError(
      f"config.model.share_encoder=True needs one backbone for both views, got {names}. Drop one."
    )
  if given.init.ego == "exo_stage":
    raise ValueError(
      "config.init.ego='exo_stage' starts the ego encoder from the exo encoder, but they are"
      f" different: {names}. Give weights of its own."
    )
  if given.init.exo_from == "ego":
    raise ValueError(
      "config.init.exo_from='ego' starts the exo encoder from the ego encoder's weights, but they"
      f" are different: {names}. Give config.init.exo and another exo_from."
    )


def _cross_view(given: schema.Settings) -> tuple[str, str]:
  """The cross-view term that a config names, and what names it; or "" twice."""
  if kind := presets.METHODS[given.method].get("loss.cross_view"):
    return str(kind), f"config.method={given.method!r}"
  if (kind := given.loss.cross_view) != schema.AUTO:
    return kind, f"config.loss.cross_view={kind!r}"
  return "", ""


def preset_fields(given: schema.Settings, values: Mapping[str, Any]) -> dict[str, Any]:
  """What method and objective put in the place of fields.

  A method goes before the objective, and whoever names a cross-view term has
  it: the objective "released" leaves it out only where nobody does.

  Raises:
    ValueError: a weight is set to something else; names the field.
  """
  default = {field.name: field.default for field in schema.fields()}
  presets_of = {
    f"config.objective={given.objective!r}": presets.OBJECTIVES[given.objective],
    f"config.method={given.method!r}": presets.METHODS[given.method],
  }
  implied: dict[str, Any] = {}
  for source, fields in presets_of.items():
    for name, value in fields.items():
      if not name.startswith("loss.weights."):
        if values[name] == schema.AUTO:
          implied[name] = value
        continue
      if source.startswith("config.objective") and _cross_view(given)[0]:
        continue
      if values[name] not in (value, default[name]):
        raise ValueError(
          f"{source} means {name}={value}, but config.{name}={values[name]} is set. Drop one."
        )
      implied[name] = value
  return implied


def _check_terms(given: schema.Settings, settings: schema.Settings) -> None:
  """Checks that the joint stage has the terms that the config names.

  Args:
    given: the config, before method and objective filled it in.
    settings: the resolved settings.

  Raises:
    ValueError: a term that is named has no weight, or nothing is left.
  """
  if schema.JOINT_STAGE not in settings.stages:
    return
  weights = settings.loss.weights
  kind, source = _cross_view(given)
  if kind and not weights.ego_exo:
    raise ValueError(
      f"{source} names a cross-view term, but its weight, config.loss.weights.ego_exo, is 0."
      " Give it a weight above 0, or drop one."
    )
  loss = settings.loss
  if len(loss.own_terms) != len(loss.own_weights):
    raise ValueError(
      "config.loss.own_weights must have a weight for each of config.loss.own_terms, got"
      f" {loss.own_weights} for {loss.own_terms}."
    )
  if not (any(weights.by_term().values()) or loss.own_terms):
    raise ValueError(
      "All of config.loss.weights are 0, which leaves nothing to train. Give one of"
      f" {', '.join(weights.by_term())} a weight above 0."
    )
  if settings.joint_stage.class_balance and not (weights.ego_cls or weights.exo_cls):
    raise ValueError(
      f"config.joint_stage.class_balance={settings.joint_stage.class_balance} weighs the classes of"
      " the terms ego_cls and exo_cls, whose config.loss.weights are 0. Leave it at 0."
    )
  _check_positives(settings)
  _check_accumulated(settings)
  mixed = [f for f in ("mixup", "cutmix") if getattr(settings.joint_stage, f)]
  aligned = [t for t in schema.ALIGNMENT if getattr(weights, t)]
  if mixed and aligned:
    raise ValueError(
      f"config.joint_stage.{mixed[0]}={getattr(settings.joint_stage, mixed[0])} shows two clips in"
      " one, which no narration describes and no clip is the partner of, but"
      f" config.loss.weights.{aligned[0]}={getattr(weights, aligned[0])} aligns it. Set one to 0;"
      " the exo stage may mix, and so may a joint stage of ego_cls and exo_cls alone."
    )
  for field in ("share_encoder", "freeze_exo"):
    if getattr(settings.model, field) and not settings.uses_exo:
      raise ValueError(
        f"config.model.{field}=True needs an exo view, but the weights of exo_cls, ego_exo and"
        " exo_text in config.loss.weights are 0. Drop one."
      )


def _check_accumulated(settings: schema.Settings) -> None:
  """Refuses terms whose mean over micro-batches is not that of the batch."""
  loss, count = settings.loss, settings.joint_stage.accumulate
  if count == 1:
    return
  name = f"config.joint_stage.accumulate={count}"
  aligned = [t for t in schema.ALIGNMENT if getattr(loss.weights, t)]
  if aligned and not loss.negatives_group:
    micro = settings.joint_stage.batch_size // count
    raise ValueError(
      f"{name} averages the gradients of micro-batches, which is not the gradient of the batch for"
      f" the terms {aligned}: they compare all its clips with each other. Set"
      f" config.loss.negatives_group={micro} (or a divisor of it), which compares those of a"
      " micro-batch alone; or take config.joint_stage.chunks, which keeps the batch whole, with"
      " encoders without BatchNorm; or a method without these terms, such as 'fpv_only'."
    )
  if loss.own_terms:
    raise ValueError(
      f"{name} averages the gradients of micro-batches, and nobody knows whether that is the"
      f" gradient of the batch for {loss.own_terms} of config.loss.own_terms. Set it to 1, or take"
      " config.joint_stage.chunks, which keeps the batch whole."
    )


def _check_positives(settings: schema.Settings) -> None:
  """Checks that what forms with many positives are told reaches one.

  Raises:
    ValueError: a field is set, and no term with a weight looks at it.
  """
  loss, plain = settings.loss, schema.Loss()
  weights = loss.weights
  many = loss_options.MANY_POSITIVES
  if loss.video_text in many and not (weights.ego_text or weights.exo_text):
    raise ValueError(
      f"config.loss.video_text={loss.video_text!r} is the form of the terms of video and text, but"
      " config.loss.weights.ego_text and exo_text are 0. Give one a weight above 0, or drop it."
    )
  across = loss.cross_view in many and bool(weights.ego_exo)
  reached = {
    "positives": across or loss.video_text in many,
    "positive_tasks": (across or loss.video_text in many)
    and loss.positives in ("labels", "pair_or_labels"),
    "compared": across,
  }
  for name, is_reached in reached.items():
    if getattr(loss, name) != getattr(plain, name) and not is_reached:
      by = f", with loss.positives={loss.positives!r}" if name == "positive_tasks" else ""
      raise ValueError(
        f"config.loss.{name}={getattr(loss, name)!r} is set, but no term of the loss looks at it:"
        f" loss.cross_view={loss.cross_view!r} and loss.video_text={loss.video_text!r}{by}. Choose"
        f" one of {many} for a term with a weight, or leave it at {getattr(plain, name)!r}."
      )


def _check_ranges(given: schema.Settings) -> None:
  """Ranges that depend on another field."""
  durations.check(given.eval.every, "eval.every")
  durations.check(given.checkpoint.every, "checkpoint.every")
  for name in schema.STAGES:
    stage = given.stage(name)
    for field in ("total", "warmup"):
      durations.check(getattr(stage, field), f"{name}_stage.{field}")
    for boundary in stage.boundaries:
      durations.check(boundary, f"{name}_stage.boundaries")
    if len(stage.boundaries) != len(stage.factors):
      raise ValueError(
        f"config.{name}_stage.boundaries and .factors must have the same length, got"
        f" {len(stage.boundaries)} and {len(stage.factors)}."
      )
  for rule in given.mesh.rules:
    try:
      sharding_rules.read_rule(rule)
    except ValueError as error:
      raise ValueError(f"config.mesh.rules: {error}") from error
  if not _STOP_AT.fullmatch(given.stop_at):
    raise ValueError(
      f"config.stop_at must be empty or <stage>:<step> such as 'joint:200', got {given.stop_at!r}."
    )


def _check_combinations(given: schema.Settings) -> None:
  """Settings that contradict each other."""
  model = given.model
  if not given.stages or given.stages != tuple(s for s in schema.STAGES if s in given.stages):
    raise ValueError(
      f"config.stages must be some of {schema.STAGES}, in this order, got {given.stages}."
    )
  if schema.JOINT_STAGE in given.stages and given.method == "fpv_only":
    if given.loss.cross_view != schema.AUTO:
      raise ValueError(
        "config.method='fpv_only' has no cross-view term, but"
        f" config.loss.cross_view={given.loss.cross_view!r}. Drop one."
      )
    if model.share_encoder:
      raise ValueError(
        "config.model.share_encoder=True needs an exo view, which"
        " config.method='fpv_only' does not have. Drop one."
      )
  if model.freeze_exo and (model.share_encoder or given.method == "fpv_only"):
    raise ValueError(
      "config.model.freeze_exo=True needs an exo encoder of its own, which"
      f" config.model.share_encoder={model.share_encoder} with"
      f" config.method={given.method!r} does not have. Drop one."
    )
  if model.head != types.LINEAR_HEAD and given.eval.pool_window > 0:
    raise ValueError(
      f"config.eval.pool_window={given.eval.pool_window} pools the encoder's map, which"
      f" config.model.head={model.head!r} does not read. Drop one."
    )
  implied = presets.METHODS[given.method].get("loss.cross_view")
  if implied and given.loss.cross_view not in (schema.AUTO, implied):
    raise ValueError(
      f"config.method={given.method!r} means loss.cross_view={implied!r},"
      f" but loss.cross_view={given.loss.cross_view!r} is set. Drop one."
    )
  if given.init.ego == "exo_stage" and schema.EXO_STAGE not in given.stages:
    raise ValueError(
      f"config.init.ego='exo_stage' needs 'exo' in config.stages, which is {given.stages}."
    )
  if model.share_encoder and given.init.exo:
    raise ValueError(
      "config.model.share_encoder=True leaves no exo encoder to start from"
      f" config.init.exo={given.init.exo!r}. Drop one."
    )


def _check_best(given: schema.Settings) -> None:
  """The best checkpoint is one by a metric that a stage measures.

  Raises:
    ValueError: it is not, or a field asks for a best checkpoint where there is none.
  """
  metric, split = given.checkpoint.best, given.eval.during_split
  if not metric:
    for field, value in (
      ("checkpoint.patience", given.checkpoint.patience),
      ("eval.checkpoint", "" if given.eval.checkpoint == "last" else given.eval.checkpoint),
    ):
      if value:
        raise ValueError(
          f"config.{field}={value!r} needs a metric by which checkpoints are judged. Give"
          f" --config.checkpoint.best, such as eval/{split or 'validation'}/verb_top1."
        )
    return
  views = {schema.EXO_STAGE: "exo_", schema.JOINT_STAGE: ""}
  begins = [f"eval/{views[stage]}{split}/" for stage in given.stages]
  if not split or not metric.startswith(tuple(begins)):
    raise ValueError(
      f"config.checkpoint.best={metric!r} must be a metric of the evaluations while training:"
      f" with config.eval.during_split={split!r} and config.stages={given.stages} its name begins"
      f" with {' or '.join(begins) if split else 'nothing, as none is made'}."
    )
  if given.eval.checkpoint == "best" and metric.startswith(f"eval/exo_{split}/"):
    raise ValueError(
      f"config.eval.checkpoint='best' evaluates the ego encoder of the joint stage, but"
      f" config.checkpoint.best={metric!r} judges the exo stage. Name a metric that begins with"
      f" eval/{split}/."
    )
  if schema.JOINT_STAGE in given.stages and given.joint_stage.has_grid:
    raise ValueError(
      f"config.checkpoint.best={metric!r} keeps the best state of one network, but"
      " joint_stage.grid_learning_rates or grid_weight_decays train many probes, of which the best"
      " is chosen at the end. Drop one."
    )


def _check_parts(name: str, section: schema.Stage) -> None:
  """What a batch is cut into must divide it."""
  batch, count = section.batch_size, section.accumulate
  if batch % count:
    raise ValueError(f"{name}.accumulate must divide {name}.batch_size={batch}, got {count}.")
  micro = f"{name}.batch_size={batch}" + (f" / accumulate={count}" if count > 1 else "")
  if batch // count % section.chunks:
    raise ValueError(f"{name}.chunks must divide {micro}, got {section.chunks}.")
  if (section.mixup or section.cutmix) and batch // count % 2:
    raise ValueError(
      f"{name}.mixup and cutmix mix clips two by two, so that {micro} must be even, got"
      f" {batch // count}."
    )


def _check_groups(given: schema.Settings) -> None:
  """Groups within a batch must divide it."""
  group, pack = given.model.bn_group_size, given.model.pack_clips or 1
  groups = [(stage, "model.bn_group_size", group) for stage in given.stages]
  if schema.JOINT_STAGE in given.stages:
    groups.append((schema.JOINT_STAGE, "loss.negatives_group", given.loss.negatives_group))
  for stage in given.stages:
    _check_parts(f"config.{stage}_stage", given.stage(stage))
  for stage, field, size in groups:
    section = given.stage(stage)
    batch = section.batch_size // section.accumulate
    name = f"config.{stage}_stage.batch_size={section.batch_size}"
    if section.accumulate > 1:
      name += f" / accumulate={section.accumulate}"
    if size and batch % size:
      raise ValueError(
        f"config.{field} must be 0 (the global batch) or divide {name}, got {size}. The batch of"
        " one device reproduces training without communication."
      )
    if batch % pack:
      raise ValueError(
        f"config.model.pack_clips={pack} must divide {name}, best the clips of a"
        " chip; 0 chooses, 1 is off."
      )
  if group % pack:
    raise ValueError(
      f"config.model.bn_group_size={group} must be a multiple of"
      f" config.model.pack_clips={pack}: packed clips share their statistics."
    )


def with_defaults(text: str) -> dict[str, Any]:
  """Fields of a `Settings.to_json` text.

  A run that began before a field existed has the field's default.
  """
  return {**json.loads(schema.Settings().to_json()), **_saved(text)}


def _saved(text: str) -> dict[str, Any]:
  try:
    found = checked_json.decode(text, checked_json.Object)
    found.pop(EXTENDED, None)
    for name, default in json.loads(schema.Settings().to_json()).items():
      value = found.get(name, default)
      # JSON may write a float without its point; a bool is an int to Python.
      kinds = (int, float) if isinstance(default, float) else (type(default),)
      if type(value) not in kinds:
        wanted = {"str": "text", "bool": "true or false", "int": "a whole number"}
        kind = type(default).__name__
        raise checked_json.JsonError(f"{name} must be {wanted.get(kind, f'a {kind}')}")
  except checked_json.JsonError as error:
    raise ValueError(
      f"A run's saved config is damaged: {error}. Restore config.json in its workdir."
    ) from error
  return found


def without_places(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Values by dotted name, with what says where data lie made alike.

  The data themselves are compared by their contents. What stays of a path is
  whether there is one, and how many.
  """
  moving = {field.name for field in schema.fields() if field.about.path}

  def meaning(value: Any) -> Any:
    if isinstance(value, str):
      return value if value in ("", "exo_stage") else "a path"
    return len(value)

  return {name: meaning(v) if name in moving else v for name, v in fields.items()}


def changed_fields(old: str, new: str) -> list[str]:
  """Names of the fields that differ between two `to_json` texts and matter for training.

  Data may have moved: checkpoints know them by their contents.
  """
  old_fields, new_fields = with_defaults(old), _saved(new)
  before, after = without_places(old_fields), without_places(new_fields)
  runtime = {field.name for field in schema.fields() if field.about.runtime}
  return [
    name
    for name in sorted(old_fields.keys() | new_fields.keys())
    if before.get(name) != after.get(name) and name not in runtime
  ]


def differences(old: str, new: str) -> list[str]:
  """The `changed_fields` with their values."""
  before, after = with_defaults(old), _saved(new)
  return [
    f"{name}: {before.get(name)!r} -> {after.get(name)!r}" for name in changed_fields(old, new)
  ]
