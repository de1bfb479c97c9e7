"""Every setting of a run: its default, its meaning, its check.

A config file (`configs/*.py`) starts from `default_config()` and changes
values; the command line changes single fields; `resolve()` fills in what a
method or an objective implies and refuses what contradicts itself. Below the
`build_*` functions nothing reads a ConfigDict.

Durations are text with a unit, "30 epochs", "300 steps" or "10 percent" (of
the stage), and become steps in `steps()` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
import difflib
import json
import pathlib
import re

from ml_collections import config_dict

from sum_l_jax import types
from sum_l_jax.system import paths

AUTO = "auto"
STAGES = ("exo", "joint")

# What a method changes; fields that it does not name stay as configured.
METHODS: Mapping[str, Mapping[str, object]] = {
  # The whole of Eq. 12.
  "sum_l": {},
  # The ego encoder alone: Table 5, row 1.
  "fpv_only": {"exo_cls": 0.0, "ego_exo": 0.0, "ego_text": 0.0, "exo_text": 0.0},
  # Eq. 6 over all pairs, no filter, no weights, no text (section 4.1.2).
  "typical_cl": {"cross_view": "decoupled", "ego_text": 0.0, "exo_text": 0.0},
  "triplet": {"cross_view": "triplet", "ego_text": 0.0, "exo_text": 0.0},
}
# What an objective sets where the field is "auto" (docs/paper_vs_released.md).
OBJECTIVES: Mapping[str, Mapping[str, object]] = {
  "paper": {"cross_view": "weighted", "negatives": "cross", "projection_prenorm": False},
  # As published the cross-view term is overwritten with nothing.
  "released": {
    "cross_view": "filtered",
    "negatives": "cross_and_same",
    "projection_prenorm": True,
    "ego_exo": 0.0,
  },
  # What that code seems meant to train: Eq. 7 with same-view negatives.
  "released_intended": {
    "cross_view": "filtered",
    "negatives": "cross_and_same",
    "projection_prenorm": True,
  },
}
CROSS_VIEW = (AUTO, "weighted", "filtered", "decoupled", "info_nce", "triplet", "graded")
CHOICES = {
  "model.backbone": ("tiny", "slow_r50", "slowfast_r50", "slowfast_r50_4x16", "slowfast_r101"),
  "method": tuple(METHODS),
  "objective": tuple(OBJECTIVES),
  "precision": ("float32", "bfloat16"),
  "on_non_finite": ("stop", "skip"),
  "prepare.recipe": ("", "toy_kitchen", "toy_kitchen_generic"),
  "ego.channel_order": ("RGB", "BGR"),
  "exo.channel_order": ("RGB", "BGR"),
  "eval.ensemble": ("sum", "max"),
  "loss.cross_view": CROSS_VIEW,
  "loss.negatives": (AUTO, "cross", "cross_and_same"),
  "loss.negatives_from": ("selected", "all"),
  "model.projection_prenorm": (AUTO, "true", "false"),
  "exo_stage.optimizer": ("sgd", "adamw"),
  "joint_stage.optimizer": ("sgd", "adamw"),
  "exo_stage.schedule": ("cosine", "relative_steps"),
  "joint_stage.schedule": ("cosine", "relative_steps"),
}
# May change between two runs in one workdir: they do not touch what is learnt.
RUNTIME_FIELDS = (
  "log_every_steps",
  "report",
  "stop_at",
  "on_non_finite",
  "input.",
  "checkpoint.",
  "eval.",
  "num_devices",
  "model.remat",
  "model.pack_clips",
)


def _stage() -> config_dict.ConfigDict:
  """One stage's optimisation (facts: the paper's section 4.1.2)."""
  stage = config_dict.ConfigDict()
  stage.batch_size = 64  # Global: over all devices and hosts.
  stage.total = "30 epochs"  # Of ego clips; of exo clips in the exo stage.
  stage.optimizer = "sgd"  # Or "adamw".
  stage.learning_rate = 0.01  # At the global batch size above; never scaled.
  stage.momentum = 0.9  # For "sgd".
  stage.nesterov = True  # For "sgd".
  stage.weight_decay = 1e-4  # Not on BatchNorm.
  stage.clip_norm = 0.0  # Global gradient norm; 0 is off.
  stage.schedule = "relative_steps"  # Of the learning rate, after the warm-up.
  # For relative_steps: from boundaries[i] on, learning_rate * factors[i].
  stage.boundaries = ("0 epochs", "20 epochs", "25 epochs")
  stage.factors = (1.0, 0.1, 0.01)  # See boundaries.
  stage.warmup = "0 epochs"  # Linear, from warmup_start.
  stage.warmup_start = 0.0  # Learning rate at step 0 of a warm-up.
  return stage


def default_config() -> config_dict.ConfigDict:
  """The paper's settings for EPIC-KITCHENS-55, without data."""
  c = config_dict.ConfigDict()
  c.seed = 0  # Of weights, order of clips, augmentation and dropout.
  c.method = "sum_l"  # Which loss terms there are (the paper's Table 1).
  # What the fields that are "auto" become (docs/paper_vs_released.md).
  c.objective = "paper"
  # In this order: "exo" trains the third-person encoder alone, "joint" all.
  c.stages = ("joint",)
  c.precision = "float32"  # Of activations; parameters stay float32.
  c.num_devices = 0  # 0: all there are.
  c.log_every_steps = 20  # Means over so many steps.
  c.report = True  # Write report.html at the end.
  # A step whose loss, gradient or update is NaN or infinite: "stop" ends the
  # run, "skip" leaves that step out and counts it.
  c.on_non_finite = "stop"
  c.stop_at = ""  # "joint:200" saves and ends there; the same command resumes.

  # Data that a run makes itself where it is absent.
  c.prepare = config_dict.ConfigDict()
  c.prepare.recipe = ""  # "": none.
  c.prepare.directory = ""  # Where to.
  c.prepare.seed = 0  # Another seed, other clips.

  c.ego = config_dict.ConfigDict()
  c.ego.dataset = ""  # A folder of data_prep.build_dataset.
  c.ego.train_split = "train"  # Of the data set. So too for exo.
  # A file of data_prep.doctor: clip ids that are never shown. So too for exo.
  c.ego.skip_list = ""
  c.ego.channel_order = "RGB"  # As the encoder sees it.
  c.ego.color_lighting = 0.0  # Std of the PCA lighting.

  c.exo = config_dict.ConfigDict()
  c.exo.datasets = ()  # One or several pools.
  c.exo.train_split = "train"
  c.exo.skip_list = ""
  c.exo.channel_order = "RGB"
  c.exo.color_lighting = 0.1

  c.narrations = ""  # A file of data_prep.embed_narrations.
  c.pairs = config_dict.ConfigDict()
  c.pairs.table = ""  # A file of data_prep.mine_pairs.
  c.pairs.top_k = 1  # An exo clip is drawn out of the so many most similar.
  c.pairs.tie_tolerance = 0.0  # Cosine below the best that counts as a tie.

  c.frames = config_dict.ConfigDict()
  c.frames.count = 32  # Of a clip, as the network sees it.
  c.frames.stride = 2  # In stored frames.
  c.frames.crop_size = 224  # Pixels; a random square while training.
  c.frames.short_side = (256, 320)  # Drawn uniformly, before the crop.
  c.frames.flip = 0.5  # Probability of a mirrored clip.

  c.model = config_dict.ConfigDict()
  c.model.backbone = "slowfast_r50"  # The architecture of both encoders.
  c.model.dropout = 0.5  # Before the heads.
  c.model.projection_prenorm = AUTO  # L2 norm before the projection.
  # Table 6: one encoder for both views; each has running statistics of its own.
  c.model.share_encoder = False
  # Table 6: the joint stage leaves the exo encoder as it starts, its BatchNorm
  # statistics too.
  c.model.freeze_exo = False
  c.model.bn_group_size = 0  # 0: the global batch; n: groups of n clips.
  c.model.conv = AUTO  # How convolutions are computed (models/layers/convolution.py).
  # What the backward pass computes anew instead of keeping: "none", "blocks"
  # (of all stages), or stages such as "s1,s2".
  c.model.remat = "none"
  # Clips side by side in thin stages of SlowFast, in training on TPUs; 1: none;
  # 0: as many as divide the clips of a chip, up to 8, which is best.
  c.model.pack_clips = 0

  c.loss = config_dict.ConfigDict()
  # L_a: "weighted" is Eq. 9, "filtered" Eq. 7, "decoupled" Eq. 6.
  c.loss.cross_view = AUTO
  # Clips of the other view alone, or of the same view too.
  c.loss.negatives = AUTO
  # Of the pairs above the threshold, or of all pairs in the batch.
  c.loss.negatives_from = "selected"
  c.loss.negatives_group = 0  # 0: the global batch; n: groups of n clips.
  c.loss.temperature = 0.06  # tau of Eq. 2
  c.loss.sigma = 0.1  # Eq. 10
  c.loss.threshold = 0.5  # Eq. 7, strictly greater.
  c.loss.triplet_margin = 0.1  # Of the cosine, for cross_view "triplet".
  # Beyond the paper (docs/paper_vs_released.md).
  c.loss.target_temperature = 0.06  # Of narrations, for cross_view "graded".
  # A cosine of narrations, such as 0.99, from which clips are no negatives of
  # each other; 0 is off.
  c.loss.mask_duplicates = 0.0
  c.loss.weights = config_dict.ConfigDict()
  c.loss.weights.ego_cls = 1.0  # L_f of Eq. 12
  c.loss.weights.exo_cls = 0.1  # w_t of Eq. 12
  c.loss.weights.ego_exo = 0.02  # w_aw
  c.loss.weights.ego_text = 0.1  # w_m, first-person half of Eq. 11
  c.loss.weights.exo_text = 0.1  # w_m, third-person half

  c.exo_stage = _stage()
  c.joint_stage = _stage()

  # Starting weights: a checkpoint folder, an .npz file, or "" for random.
  # init.ego = "exo_stage" starts the ego encoder from stage one.
  c.init = config_dict.ConfigDict()
  c.init.ego = ""
  c.init.exo = ""

  c.eval = config_dict.ConfigDict()
  c.eval.splits = ("validation",)  # After training and with --mode=eval.
  c.eval.during_split = "validation"  # While training; "" is off.
  c.eval.every = "5 epochs"  # While training, and at the end of a stage.
  c.eval.clips = 10  # Temporal views.
  c.eval.crops = 3  # Spatial views: 1 or 3.
  c.eval.during_clips = 1  # Temporal views while training.
  c.eval.during_crops = 1  # Spatial views while training.
  c.eval.crop_size = 256  # Pixels: the short side is resized to it.
  # 0 pools the whole map; 7 as the single-task networks of PySlowFast do:
  # windows of 7 x 7 whose scores are averaged, another result above crop 224.
  c.eval.pool_window = 0
  c.eval.batch_size = 16  # Test views a step, over all devices.
  c.eval.ensemble = "sum"  # "max" for Charades-Ego.
  # Retrieval between ego clips, exo clips and text (docs/retrieval.md); also
  # while training, where it embeds the exo clips at every evaluation.
  c.eval.retrieval = False
  c.eval.retrieval_exo_split = "train"  # Of every pool.
  c.eval.retrieval_clips = 2000  # At most, a side; evenly spaced.

  c.checkpoint = config_dict.ConfigDict()
  c.checkpoint.every = "1 epochs"  # And at the end of a stage.
  c.checkpoint.keep = 2  # The newest so many.

  c.input = config_dict.ConfigDict()
  c.input.num_threads = 2  # That read and decode, a process.
  c.input.num_workers = 0  # Processes; 0 decodes in threads of this one.
  c.input.prefetch = 2  # Batches.
  # Decoded frames kept in memory, by view and process; for small data sets.
  c.input.cache_mib = 0
  c.input.max_corrupt_share = 0.01  # Of the clips read; above it a run stops.
  # Without a batch for so long, reading processes are started anew and a run
  # that reads in threads ends; 0 waits for ever.
  c.input.timeout_seconds = 300.0
  return c


# Frames and stride of each backbone (reference facts, section 5).
_SAMPLING = {
  "tiny": (8, 2),
  "slow_r50": (8, 8),
  "slowfast_r50": (32, 2),
  "slowfast_r50_4x16": (32, 2),
  "slowfast_r101": (32, 2),
}


def set_backbone(config: config_dict.ConfigDict, backbone: str) -> None:
  """Sets a backbone and the frames it is fed with.

  Raises:
    ValueError: an unknown name; lists the choices.
  """
  if backbone not in _SAMPLING:
    raise ValueError(f"backbone must be one of {sorted(_SAMPLING)}, got {backbone!r}.")
  config.model.backbone = backbone
  config.frames.count, config.frames.stride = _SAMPLING[backbone]


# Table 5: which alignment terms there are, on top of both label losses.
TERMS: Mapping[str, Mapping[str, object]] = {
  "none": {"weights.ego_exo": 0.0, "weights.ego_text": 0.0, "weights.exo_text": 0.0},
  "aw": {"weights.ego_text": 0.0, "weights.exo_text": 0.0},
  "m": {"weights.ego_exo": 0.0},
  "a_m": {"cross_view": "filtered"},
  "aw_m": {},
}
# Table 6: where the third-person encoder of the joint stage comes from.
EXO_ENCODERS = ("original", "same_init", "shared", "frozen")


def set_ablation(config: config_dict.ConfigDict, *, terms: str, exo_encoder: str) -> None:
  """Sets a row of the paper's Table 5 and one of Table 6.

  Args:
    config: changed in place.
    terms: "aw_m" is the whole of Eq. 12; "a_m" without the weights of Eq. 10,
      "aw" without text, "m" without the cross-view term, "none" labels alone.
    exo_encoder: "original" comes from its own training; "frozen" too, and
      stays as it is; "same_init" starts like the ego encoder; "shared" is the
      ego encoder.

  Raises:
    ValueError: an unknown name; lists the choices.
  """
  for name, value, choices in (
    ("terms", terms, tuple(TERMS)),
    ("exo_encoder", exo_encoder, EXO_ENCODERS),
  ):
    if value not in choices:
      raise ValueError(f"{name} must be one of {choices}, got {value!r}.")
  config.loss.update_from_flattened_dict(dict(TERMS[terms]))
  config.model.freeze_exo = exo_encoder == "frozen"
  config.model.share_encoder = exo_encoder == "shared"
  if exo_encoder in ("same_init", "shared"):
    config.stages = ("joint",)
  if exo_encoder == "shared":
    config.init.exo = ""
  if exo_encoder == "same_init":
    # A reference: it follows --config.init.ego.
    config.init.exo = config.init.get_ref("ego")


def find_file(path: str) -> str:
  """Where a config file is, with its arguments as given.

  The files of this project are found from anywhere, also where it is installed
  from a wheel.

  Args:
    path: "configs/demo.py:method=sum_l"; a file, or the name of one of
      `configs/` with that folder or without.

  Returns:
    The same with another path, or the argument where there is no such file.
  """
  name, colon, arguments = path.partition(":")
  file = pathlib.Path(name)
  if not file.is_file() and str(file.parent) in (".", "configs"):
    package = pathlib.Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
      if (folder / file.name).is_file():
        return f"{folder / file.name}{colon}{arguments}"
  return path


def parse_arguments(argument: str, **defaults: str) -> dict[str, str]:
  """Reads a config file's argument string, "method=sum_l,backbone=tiny".

  Raises:
    ValueError: an unknown key or a malformed item; lists the choices.
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
    ValueError: it isn't.
  """
  if not value.isdecimal():
    raise ValueError(f"Config argument {name} must be a whole number, got {value!r}.")
  return int(value)


def flatten(config: Mapping, prefix: str = "") -> dict[str, object]:
  """All leaf fields by dotted name."""
  out = {}
  for key in config:
    value, name = config[key], f"{prefix}{key}"
    if isinstance(value, (config_dict.ConfigDict, dict)):
      out.update(flatten(value, name + "."))
    else:
      out[name] = tuple(value) if isinstance(value, list) else value
  return out


def check_field_name(name: str) -> None:
  """Raises ValueError for a field that does not exist, with close matches."""
  known = flatten(default_config())
  sections = {k.rsplit(".", i)[0] for k in known for i in (1, 2) if "." in k}
  if name in known or name in sections:
    return
  close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
  last = name.rsplit(".", 1)[-1]
  close += [k for k in known if k.rsplit(".", 1)[-1] == last and k not in close]
  raise ValueError(
    f"There is no config field {name!r}."
    + (f" Did you mean {' or '.join(close[:3])}?" if close else "")
    + " All fields, with their meaning, are in sum_l_jax/config/settings.py."
  )


_STOP_AT = re.compile(r"((exo|joint):\d+)?")
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)[\s_]*(steps?|epochs?|percent|%)\s*")


def _parse_duration(text: str, field: str) -> tuple[float, str]:
  match = _DURATION.fullmatch(str(text))
  if not match:
    raise ValueError(
      f"config.{field} must be a duration such as '30 epochs', '300 steps'"
      f" or '10 percent', got {text!r}."
    )
  unit = match.group(2).rstrip("s")
  return float(match.group(1)), {"%": "percent"}.get(unit, unit)


def steps(
  duration: str, *, field: str, num_clips: int, batch_size: int, total: int | None = None
) -> int:
  """Turns a duration into steps; the only place that does.

  Args:
    duration: text with a unit.
    field: the field's name, for messages.
    num_clips: clips of one epoch.
    batch_size: global.
    total: steps of the stage, for "percent".

  Raises:
    ValueError: unreadable, or a percentage without a whole.
  """
  amount, unit = _parse_duration(duration, field)
  if unit == "step":
    return round(amount)
  if unit == "epoch":
    return round(amount * num_clips / batch_size)
  if total is None:
    raise ValueError(
      f"config.{field} cannot be a percentage, got {duration!r}: it defines"
      " the whole. Give epochs or steps."
    )
  return round(amount / 100 * total)


def _check_choices(fields: Mapping[str, object]) -> None:
  for name, choices in CHOICES.items():
    if str(fields[name]) not in choices:
      raise ValueError(f"config.{name} must be one of {choices}, got {fields[name]!r}.")


def _check_numbers(fields: Mapping[str, object]) -> None:
  """Ranges, named by field."""
  at_least = {
    1: (
      "exo_stage.batch_size",
      "joint_stage.batch_size",
      "frames.count",
      "frames.stride",
      "frames.crop_size",
      "eval.clips",
      "eval.crop_size",
      "eval.batch_size",
      "eval.during_clips",
      "eval.retrieval_clips",
      "pairs.top_k",
      "checkpoint.keep",
      "input.num_threads",
      "input.prefetch",
      "log_every_steps",
    ),
    0: (
      "num_devices",
      "model.bn_group_size",
      "model.pack_clips",
      "eval.pool_window",
      "loss.negatives_group",
      "input.num_workers",
      "input.cache_mib",
      "input.timeout_seconds",
      "pairs.tie_tolerance",
      "exo_stage.weight_decay",
      "joint_stage.weight_decay",
      "exo_stage.learning_rate",
      "joint_stage.learning_rate",
    ),
  }
  for low, names in at_least.items():
    for name in names:
      if fields[name] < low:
        raise ValueError(f"config.{name} must be {low} or more, got {fields[name]!r}.")
  for name in ("loss.temperature", "loss.sigma", "loss.target_temperature"):
    if fields[name] <= 0:
      raise ValueError(f"config.{name} must be positive, got {fields[name]!r}.")
  for name in ("model.dropout", "frames.flip", "input.max_corrupt_share"):
    if not 0 <= fields[name] <= 1:
      raise ValueError(f"config.{name} must lie in 0..1, got {fields[name]!r}.")
  if not 0 <= fields["loss.mask_duplicates"] <= 1:
    raise ValueError(
      "config.loss.mask_duplicates must be 0 (off) or a cosine in (0, 1],"
      f" got {fields['loss.mask_duplicates']!r}."
    )
  for name in ("eval.crops", "eval.during_crops"):
    if fields[name] not in (1, 3):
      raise ValueError(f"config.{name} must be 1 or 3, got {fields[name]!r}.")
  low, high = fields["frames.short_side"]
  if not fields["frames.crop_size"] <= low <= high:
    raise ValueError(
      "config.frames needs crop_size <= short_side[0] <= short_side[1], got"
      f" crop_size={fields['frames.crop_size']},"
      f" short_side={(low, high)}: a crop must fit the resized frame."
    )
  for stage in STAGES:
    bounds = fields[f"{stage}_stage.boundaries"]
    if len(bounds) != len(fields[f"{stage}_stage.factors"]):
      raise ValueError(
        f"config.{stage}_stage.boundaries and .factors must have the same"
        f" length, got {len(bounds)} and"
        f" {len(fields[f'{stage}_stage.factors'])}."
      )


def _check_combinations(config: config_dict.ConfigDict) -> None:
  """Settings that contradict each other."""
  unknown = set(config.stages) - set(STAGES)
  if (
    unknown
    or not config.stages
    or tuple(config.stages) != tuple(s for s in STAGES if s in config.stages)
  ):
    raise ValueError(
      f"config.stages must be some of {STAGES}, in this order, got {tuple(config.stages)}."
    )
  if "joint" in config.stages and config.method == "fpv_only":
    if config.loss.cross_view != AUTO:
      raise ValueError(
        "config.method='fpv_only' has no cross-view term, but"
        f" config.loss.cross_view={config.loss.cross_view!r}. Drop one."
      )
    if config.model.share_encoder:
      raise ValueError(
        "config.model.share_encoder=True needs an exo view, which"
        " config.method='fpv_only' does not have. Drop one."
      )
  if config.model.freeze_exo and (config.model.share_encoder or config.method == "fpv_only"):
    raise ValueError(
      "config.model.freeze_exo=True needs an exo encoder of its own, which"
      f" config.model.share_encoder={config.model.share_encoder} with"
      f" config.method={config.method!r} does not have. Drop one."
    )
  implied = METHODS[config.method].get("cross_view")
  if implied and config.loss.cross_view not in (AUTO, implied):
    raise ValueError(
      f"config.method={config.method!r} means loss.cross_view={implied!r},"
      f" but loss.cross_view={config.loss.cross_view!r} is set. Drop one."
    )
  if not _STOP_AT.fullmatch(config.stop_at):
    raise ValueError(
      f"config.stop_at must be empty or <stage>:<step> such as 'joint:200', got {config.stop_at!r}."
    )
  if config.init.ego == "exo_stage" and "exo" not in config.stages:
    raise ValueError(
      f"config.init.ego='exo_stage' needs 'exo' in config.stages, which is {tuple(config.stages)}."
    )
  if config.model.share_encoder and config.init.exo:
    raise ValueError(
      "config.model.share_encoder=True leaves no exo encoder to start from"
      f" config.init.exo={config.init.exo!r}. Drop one."
    )


def _check_groups(config: config_dict.ConfigDict) -> None:
  """Groups within a batch must divide it."""
  groups = [(stage, "model.bn_group_size", config.model.bn_group_size) for stage in config.stages]
  if "joint" in config.stages:
    groups.append(("joint", "loss.negatives_group", config.loss.negatives_group))
  pack = config.model.pack_clips or 1
  for stage, field, size in groups:
    batch = config[f"{stage}_stage"].batch_size
    if size and batch % size:
      raise ValueError(
        f"config.{field} must be 0 (the global batch) or divide"
        f" config.{stage}_stage.batch_size={batch}, got {size}. The batch of"
        " one device reproduces training without communication."
      )
    if batch % pack:
      raise ValueError(
        f"config.model.pack_clips={pack} must divide"
        f" config.{stage}_stage.batch_size={batch}, best the clips of a"
        " chip; 0 chooses, 1 is off."
      )
  if config.model.bn_group_size % pack:
    raise ValueError(
      f"config.model.bn_group_size={config.model.bn_group_size} must be a"
      f" multiple of config.model.pack_clips={pack}:"
      " packed clips share their statistics."
    )
  if config.loss.negatives_group == 1:
    raise ValueError(
      "config.loss.negatives_group must be 0 (the global batch) or at least"
      " 2, got 1: an example alone has no negatives."
    )


def resolve(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """Checks a config and fills in what method and objective imply.

  Returns:
    A locked copy without "auto" in `loss` and `model.projection_prenorm`.

  Raises:
    ValueError: names the field, what it must be and what it was.
  """
  for name in flatten(config):
    check_field_name(name)
  fields = flatten(config)
  for name, value in fields.items():
    texts = (value,) if isinstance(value, str) else value
    if isinstance(texts, tuple):
      paths.check_local((t for t in texts if isinstance(t, str)), f"config.{name}")
  _check_choices(fields)
  _check_numbers(fields)
  _check_combinations(config)
  _check_groups(config)
  out = config.copy_and_resolve_references()
  out.unlock()
  implied = {**OBJECTIVES[out.objective], **METHODS[out.method]}
  for term in types.TERMS:
    if term in implied:
      out.loss.weights[term] = float(implied[term])
  for section, field in (
    ("loss", "cross_view"),
    ("loss", "negatives"),
    ("model", "projection_prenorm"),
  ):
    if out[section][field] == AUTO:
      out[section][field] = (
        str(implied[field]).lower() if isinstance(implied[field], bool) else implied[field]
      )
  return out.lock()


def uses_exo(config: config_dict.ConfigDict) -> bool:
  """Whether the joint stage has a third-person side, after `resolve`."""
  weights = config.loss.weights
  return any(weights[t] for t in ("exo_cls", "ego_exo", "exo_text"))


def uses_text(config: config_dict.ConfigDict) -> bool:
  """Whether the joint stage needs narration vectors, after `resolve`.

  The filter and the weights of the cross-view term read them too.
  """
  weights = config.loss.weights
  return any(weights[t] for t in ("ego_exo", "ego_text", "exo_text"))


def to_json(config: config_dict.ConfigDict) -> str:
  return json.dumps(flatten(config), indent=1, sort_keys=True)


def differences(old: str, new: str) -> list[str]:
  """Fields that differ between two `to_json` texts and matter for training."""
  # A run begun before a field existed has its default.
  defaults = json.loads(to_json(default_config()))
  old_fields, new_fields = defaults | json.loads(old), json.loads(new)
  return [
    f"{name}: {old_fields.get(name)!r} -> {new_fields.get(name)!r}"
    for name in sorted(old_fields.keys() | new_fields.keys())
    if old_fields.get(name) != new_fields.get(name) and not name.startswith(RUNTIME_FIELDS)
  ]
