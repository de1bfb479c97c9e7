"""Every setting of a run: its default, its meaning and its check, once each.

A run's settings are frozen dataclasses. Each field says what it means and what
it may be; the defaults of config files (`config/read.py`), the errors for wrong
values, and the page of settings (docs/configuration.md) all come from here.

Durations are text with a unit, "30 epochs", "300 steps" or "10 percent" (of
the stage); `config/durations.py` turns them into steps.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import json
import math
import re
from typing import Any

from sum_l_jax import loss_options
from sum_l_jax import types
from sum_l_jax.config import presets
from sum_l_jax.config.fields import Field
from sum_l_jax.config.fields import above
from sum_l_jax.config.fields import assemble
from sum_l_jax.config.fields import at_least
from sum_l_jax.config.fields import between
from sum_l_jax.config.fields import checked
from sum_l_jax.config.fields import section
from sum_l_jax.config.fields import setting
from sum_l_jax.config.fields import walk
from sum_l_jax.config.fields import walk_sections
from sum_l_jax.loss_options import Rule
from sum_l_jax.system import sharding_rules

AUTO = "auto"
EXO_STAGE = "exo"
JOINT_STAGE = "joint"
STAGES = (EXO_STAGE, JOINT_STAGE)
# The terms that compare the clips of a batch.
ALIGNMENT = ("ego_exo", "ego_text", "exo_text")
# What `freeze` of a view may be, besides a number of layers.
NOTHING_FROZEN = ""
ALL_FROZEN = "all"


def _is_freeze(value: str) -> bool:
  return value in (NOTHING_FROZEN, ALL_FROZEN) or (value.isdecimal() and int(value) > 0)


@dataclasses.dataclass(frozen=True)
class Prepare:
  """Data that a run makes itself where it is absent."""

  recipe: str = setting(
    "", "What to make; empty makes nothing.", choices=("", "toy_kitchen", "toy_kitchen_generic")
  )
  directory: str = setting("", "Folder that the data is written to.", path=True)
  seed: int = setting(0, "Seed of the clips; another seed renders other clips.")


def _is_range_or_off(value: tuple[float, float]) -> bool:
  return value == (0.0, 0.0) or 0.0 < value[0] <= value[1]


_RANGE_OR_OFF = "be two positive numbers, ascending, or (0, 0)"
_AREA = Rule(
  lambda value: _is_range_or_off(value) and value[1] <= 1.0,
  "be two shares of a frame, ascending, above 0 and at most 1, or (0, 0)",
)


@dataclasses.dataclass(frozen=True)
class ViewFrames:
  """How clips of one view become what its encoder sees; 0 is what both views have."""

  count: int = setting(0, "Frames of a clip; 0 is `frames.count`.", allowed=at_least(0))
  stride: int = setting(
    0, "Distance between two frames, in stored frames; 0 is `frames.stride`.", allowed=at_least(0)
  )
  crop_size: int = setting(
    0, "Side in pixels of the random square; 0 is `frames.crop_size`.", allowed=at_least(0)
  )
  short_side: tuple[int, int] = setting(
    (0, 0),
    "Range of the short side in pixels; zeros are `frames.short_side`, or that of the encoder where"
    " both views have `frames.crop_area`.",
  )
  eval_crop_size: int = setting(
    0,
    "Pixels that the short side is resized to at test time; 0 is `eval.crop_size`.",
    allowed=at_least(0),
    runtime=True,
  )
  crop_area: tuple[float, float] = setting(
    (0.0, 0.0),
    "Range of the share of a frame that is cut out; zeros are `frames.crop_area`, or off where the"
    " view has a `short_side`.",
    allowed=_AREA,
  )
  crop_aspect: tuple[float, float] = setting(
    (0.0, 0.0),
    "Range of width by height of such a crop; zeros are `frames.crop_aspect`.",
    allowed=Rule(_is_range_or_off, _RANGE_OR_OFF),
  )
  sampling: str = setting(
    "", "Which frames of a clip; empty is `frames.sampling`.", choices=("", *types.FRAME_SAMPLING)
  )


@dataclasses.dataclass(frozen=True)
class View:
  """What the settings of both views have in common."""

  input: str = setting(
    types.FRAMES,
    'What the view\'s tower gets: "frames" of videos, or "tokens", which an encoder that is not'
    " trained made of them once (docs/features.md).",
    choices=types.INPUTS,
  )
  features: tuple[str, ...] = setting(
    (),
    'With input "tokens", the folders that data_prep.extract_features wrote. Each split is read'
    " from the one that was made of it; for training one with drawn views goes before.",
    path=True,
  )
  backbone: str = setting(
    "",
    'Architecture of the view\'s encoder; empty is `model.backbone`. With input "tokens" it is the'
    " encoder of the features.",
  )
  frames: ViewFrames = section(ViewFrames)

  train_split: str = setting("train", "Split to train on.")
  skip_list: str = setting(
    "",
    "File of clip ids, one a line, that are never shown; data_prep.doctor writes one.",
    path=True,
  )
  pseudo_labels: str = setting(
    "",
    "File of labels that data_prep.pseudo_labels wrote, which take the place of the training"
    " clips' own; empty keeps these.",
    path=True,
  )
  channel_order: str = setting(
    "RGB", "Order of the colour channels that the encoder sees.", choices=("RGB", "BGR")
  )
  normalization: str = setting(
    AUTO,
    "Mean and standard deviation of the pixels that the encoder sees:"
    ' "auto" is what the backbone was designed for; "video" is 0.45 and 0.225, as'
    ' in PySlowFast and SUM-L; "imagenet" that of ImageNet for each channel, as in mmaction2;'
    ' "unit" leaves pixels between 0 and 1, "half" brings them to -1 and 1; "lavila" is that of'
    " LaViLa and AVION.",
    choices=(AUTO, *types.NORMALIZATIONS),
  )
  color_lighting: float = setting(
    0.0, "Standard deviation of the random PCA lighting; 0 is off.", allowed=at_least(0)
  )
  freeze: str = setting(
    NOTHING_FROZEN,
    'What of the encoder is not trained, and keeps its BatchNorm statistics: "all", or a number'
    ' of layers at its start, blocks or stages, such as "3"; empty is nothing.',
    allowed=Rule(_is_freeze, 'be "", "all" or a number of layers such as "3"'),
  )


@dataclasses.dataclass(frozen=True)
class Ego(View):
  """The first-person view, which is evaluated."""

  dataset: str = setting("", "Folder that data_prep.build_dataset wrote.", path=True)


@dataclasses.dataclass(frozen=True)
class Exo(View):
  """The third-person view."""

  datasets: tuple[str, ...] = setting(
    (), "Folders that data_prep.build_dataset wrote, one for each pool of clips.", path=True
  )
  pool_sampling: str = setting(
    "clips",
    "How the exo stage divides an epoch among several pools: by their clips, by the square root of"
    " these, or equally.",
    choices=types.POOL_SAMPLING,
  )


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Which exo clip an ego clip is paired with."""

  table: str = setting("", "File that data_prep.mine_pairs wrote.", path=True)
  top_k: int = setting(
    1, "How many of the most similar exo clips one is drawn from.", allowed=at_least(1)
  )
  tie_tolerance: float = setting(
    0.0, "Difference to the best cosine that still counts as a tie.", allowed=at_least(0)
  )


@dataclasses.dataclass(frozen=True)
class Frames:
  """How clips become what the network sees; a view may have numbers of its own."""

  count: int = setting(
    0, "Frames of a clip; 0 is the number that the backbone was designed for.", allowed=at_least(0)
  )
  stride: int = setting(
    0,
    "Distance between two frames, in stored frames; 0 is the distance that the backbone was"
    " designed for.",
    allowed=at_least(0),
  )
  crop_size: int = setting(
    0,
    "Side in pixels of the random square that is cut out in training; 0 is the side that the"
    " backbone was designed for, 224 for convolutional networks.",
    allowed=at_least(0),
  )
  short_side: tuple[int, int] = setting(
    (0, 0),
    "Range of the short side in pixels; it is drawn uniformly, before the crop. Zeros are 256 to"
    " 320 for convolutional networks, and 8/7 to 10/7 of the crop for vision transformers.",
  )
  crop_area: tuple[float, float] = setting(
    (0.0, 0.0),
    "Range of the share of a frame's area that is cut out in training and resized to the crop,"
    " in place of resizing to `short_side` first, by the rule of torchvision's RandomResizedCrop;"
    " zeros are off.",
    allowed=_AREA,
  )
  crop_aspect: tuple[float, float] = setting(
    (3 / 4, 4 / 3),
    "Range of width by height of such a crop, before it is resized.",
    allowed=Rule(lambda value: 0.0 < value[0] <= value[1], "be two positive numbers, ascending"),
  )
  sampling: str = setting(
    types.BY_STRIDE,
    'Which frames of a clip: "stride" takes them at `stride` from a random place, "parts" one of'
    " each of `count` equal parts of the clip (of an untrimmed video, in training, of a window as"
    " long as those that are narrated), a random one in training and the middle at test time.",
    choices=types.FRAME_SAMPLING,
  )
  flip: float = setting(0.5, "Probability of a mirrored clip.", allowed=between(0, 1))
  rand_augment: str = setting(
    "",
    'Policy of RandAugment in timm\'s notation, such as "rand-m7-n4-mstd0.5-inc1", which changes'
    " all frames of a clip alike; empty is off.",
    allowed=Rule(
      lambda value: not value or bool(re.fullmatch(types.RAND_AUGMENT, value)),
      "be empty or a policy such as 'rand-m7-n4-mstd0.5-inc1'",
    ),
  )
  erase: float = setting(
    0.0,
    "Probability that a rectangle of a clip shows noise, the same one in all frames.",
    allowed=between(0, 1),
  )


@dataclasses.dataclass(frozen=True)
class Model:
  """The two-view network."""

  backbone: str = setting(
    "slowfast_r50",
    "Architecture of the encoders of both views, where these name none of their own; a config file"
    " may register one (docs/library.md).",
  )
  head: str = setting(
    types.LINEAR_HEAD,
    'What class heads and projection read: "linear" the encoder\'s pooled feature; "attentive" what'
    " V-JEPA's probe makes of its tokens, with one query for each; \"pooler\" what VideoPrism's"
    " pooler does, with one query for all.",
    choices=types.HEADS,
  )
  probe_depth: int = setting(
    4,
    "Blocks of the attentive probe; the last one has the queries.",
    allowed=at_least(1),
  )
  probe_heads: int = setting(
    16,
    "Attention heads of a probe; where they don't divide the width of the tokens, the largest"
    " number below that does. V-JEPA has 16 at every width; VideoPrism's pooler as many as its"
    " encoder, 12 in B and 16 in L.",
    allowed=at_least(1),
  )
  dropout: float = setting(0.5, "Dropout rate before the class heads.", allowed=between(0, 1))
  projection_prenorm: str = setting(
    AUTO,
    "Whether the feature has unit length before the projection too.",
    choices=(AUTO, "true", "false"),
  )
  share_encoder: bool = setting(
    False,
    "Whether both views use one encoder (Table 6); each view keeps running statistics of its own.",
  )
  freeze_exo: bool = setting(
    False,
    "Whether the joint stage leaves the exo encoder and its BatchNorm statistics as they are"
    " (Table 6).",
  )
  lora_rank: int = setting(
    0,
    "Rank of the low-rank updates (LoRA) that are trained in the place of a transformer's own"
    " parameters; 0 is none.",
    allowed=at_least(0),
  )
  lora_alpha: float = setting(
    16.0, "Scale of the low-rank updates, which is divided by the rank.", allowed=above(0)
  )
  drop_path: float = setting(
    0.0,
    "Share of the residual branches that a transformer drops in training, in its last block, or in"
    " all blocks where its family does so (AVION).",
    allowed=Rule(lambda value: 0 <= value < 1, "be 0 or more and below 1"),
  )
  bn_group_size: int = setting(
    0, "Clips that share batch statistics; 0 is the global batch.", allowed=at_least(0)
  )
  conv: str = setting(
    AUTO, "How convolutions are computed (sum_l_jax/models/layers/convolution.py)."
  )
  attention: str = setting(
    AUTO,
    'How attention is computed: "plain", "xla", "cudnn", "blocks" or "splash"'
    ' (sum_l_jax/models/layers/attention.py); "auto" chooses by the backend and the shapes.',
  )
  remat: str = setting(
    "none",
    'What the backward pass computes again instead of keeping it: "none", "blocks" (in all'
    " stages; of a transformer's blocks all but what attention gave), or stages such as"
    ' "s1,s2".',
    runtime=True,
  )
  pack_clips: int = setting(
    0,
    "How many clips the thin stages compute side by side in training on TPUs. 1 is"
    " none; 0, which is best, takes as many as divide the clips of a chip, up to 8.",
    allowed=at_least(0),
    runtime=True,
  )


def _weight(term: str, meaning: str) -> Any:
  return setting(loss_options.WEIGHTS[term], meaning, allowed=loss_options.WEIGHT_RULE)


@dataclasses.dataclass(frozen=True)
class Weights:
  """The weights of the five terms of Eq. 12."""

  ego_cls: float = _weight("ego_cls", "Weight of L_f, the classification of the ego view.")
  exo_cls: float = _weight("exo_cls", "w_t, the weight of the classification of the exo view.")
  ego_exo: float = _weight("ego_exo", "w_aw, the weight of the cross-view term.")
  ego_text: float = _weight(
    "ego_text", "w_m for the first-person half of Eq. 11, video against text."
  )
  exo_text: float = _weight("exo_text", "w_m for the third-person half of Eq. 11.")

  def by_term(self) -> dict[str, float]:
    """The weights by the names of the terms."""
    return {term: getattr(self, term) for term in types.TERMS}


def _loss(name: str, default: Any, meaning: str) -> Any:
  return setting(default, meaning, allowed=loss_options.RULES[name])


@dataclasses.dataclass(frozen=True)
class Loss:
  """The loss of the joint stage."""

  cross_view: str = setting(
    AUTO,
    'The cross-view term: "weighted" is Eq. 9, "filtered" Eq. 7, "decoupled" Eq. 6. The last five'
    " take many positives and need no pairs (docs/method.md).",
    choices=(AUTO, *loss_options.CROSS_VIEW),
  )
  negatives: str = setting(
    AUTO,
    "Whether the negatives are the clips of the other view alone, or those of the same view too.",
    choices=(AUTO, *loss_options.NEGATIVES),
  )
  negatives_from: str = setting(
    "selected",
    "Whether negatives come from the pairs above the threshold or from all pairs of the batch.",
    choices=loss_options.NEGATIVES_FROM,
  )
  average_over: str = setting(
    "selected",
    "Which pairs the mean of Eq. 9 and the expectation of Eq. 10 are over: those above the"
    " threshold, or all pairs of the batch (docs/paper_vs_released.md).",
    choices=loss_options.AVERAGE_OVER,
  )
  negatives_group: int = _loss(
    "negatives_group", 0, "How many clips are each other's negatives; 0 is the global batch."
  )
  temperature: float = _loss("temperature", loss_options.TEMPERATURE, "tau of Eq. 2.")
  sigma: float = _loss("sigma", loss_options.SIGMA, "Temperature of the weights, Eq. 10.")
  threshold: float = _loss(
    "threshold",
    loss_options.THRESHOLD,
    "Cosine of the narrations that a pair must exceed to be kept, Eq. 7.",
  )
  triplet_margin: float = _loss(
    "triplet_margin",
    loss_options.TRIPLET_MARGIN,
    'Margin of the Euclidean distances between unit vectors, for cross_view "triplet".',
  )
  target_temperature: float = _loss(
    "target_temperature",
    loss_options.TARGET_TEMPERATURE,
    'Temperature of the narrations, for cross_view "graded"; beyond the paper'
    " (docs/paper_vs_released.md).",
  )
  video_text: str = setting(
    "decoupled",
    'The terms of video and text: "decoupled" is Eq. 11; the others take many positives.',
    choices=loss_options.VIDEO_TEXT,
  )
  positives: str = setting(
    "pair_or_labels",
    "What makes two clips positives of a form with many of them: being a pair, sharing a class of"
    " each of `positive_tasks`, either of both, or narrations above the threshold.",
    choices=loss_options.POSITIVES,
  )
  positive_tasks: tuple[str, ...] = setting(
    (),
    'Label sets, such as "verb" and "noun", that positives share a class of; their classes are'
    " compared by name. Empty is all that both views have.",
  )
  compared: str = setting(
    "clips",
    "What a form with many positives compares in the cross-view term: ego clips with exo clips, or"
    " the clips of both views with the narrations of both, as EgoExoNCE does.",
    choices=loss_options.COMPARED,
  )
  sigmoid_bias: float = _loss(
    "sigmoid_bias",
    loss_options.SIGMOID_BIAS,
    'Bias of the form "sigmoid", which is not trained; its scale is 1 / temperature.',
  )
  ranking_margin: float = _loss(
    "ranking_margin",
    loss_options.RANKING_MARGIN,
    'Margin of the forms "max_margin" and "adaptive_margin", in cosines.',
  )
  mask_duplicates: float = _loss(
    "mask_duplicates",
    0.0,
    "Cosine of the narrations, such as 0.99, from which two clips are not each other's negatives;"
    " 0 is off. Beyond the paper (docs/paper_vs_released.md).",
  )
  weights: Weights = section(Weights)
  own_terms: tuple[str, ...] = setting(
    (),
    "Terms of your own, which the config file has registered (docs/library.md); they are added to"
    " those of Eq. 12.",
    allowed=Rule(lambda value: len(set(value)) == len(value), "name each term once"),
  )
  own_weights: tuple[float, ...] = setting(
    (),
    "Weights of the terms of your own, in their order.",
    allowed=Rule(
      lambda value: all(weight > 0 and math.isfinite(weight) for weight in value),
      "be finite and above 0",
    ),
  )


@dataclasses.dataclass(frozen=True)
class Stage:
  """How a stage is optimised (paper, section 4.1.2)."""

  batch_size: int = setting(64, "Clips of a step, over all devices and hosts.", allowed=at_least(1))
  chunks: int = setting(
    1,
    "Parts of a batch that the encoders see one after the other, which bounds the memory; the loss"
    " is that of the whole batch. For encoders without BatchNorm (docs/performance.md).",
    allowed=at_least(1),
  )
  accumulate: int = setting(
    1,
    "Micro-batches of a step, one after the other, whose gradients are averaged. It is refused"
    " where their mean is not the gradient of the batch (docs/fine_tuning.md).",
    allowed=at_least(1),
  )
  total: str = setting(
    "30 epochs", "Length of the stage; an epoch counts ego clips, in the exo stage exo clips."
  )
  optimizer: str = setting("sgd", "The optimizer.", choices=types.OPTIMIZERS)
  learning_rate: float = setting(
    0.01, "Learning rate at the global batch size above; it is never scaled.", allowed=at_least(0)
  )
  momentum: float = setting(0.9, 'Momentum of "sgd".')
  nesterov: bool = setting(True, 'Whether "sgd" uses Nesterov\'s momentum.')
  betas: tuple[float, float] = setting(
    (0.9, 0.999),
    'Decay of the two moments of "adamw".',
    allowed=Rule(lambda value: all(0 <= beta < 1 for beta in value), "be 0 or more and below 1"),
  )
  weight_decay: float = setting(1e-4, "Weight decay; see decay_rule.", allowed=at_least(0))
  decay_rule: str = setting(
    "all_but_norm",
    'What decays: "all_but_norm" is everything but the scales and biases of normalisations, as in'
    ' PySlowFast, "matrices" no biases, positions, class tokens or queries either, as in VideoMAE.',
    choices=types.DECAY_RULES,
  )
  decay_also: tuple[str, ...] = setting(
    (), 'Parameters that decay too, by patterns of their paths, such as "*/encoder/space".'
  )
  decay_never: tuple[str, ...] = setting(
    (), "Parameters that never decay, by patterns of their paths."
  )
  clip_norm: float = setting(0.0, "Bound of the global gradient norm; 0 is off.")
  schedule: str = setting(
    "relative_steps", "Learning-rate schedule after the warm-up.", choices=types.SCHEDULES
  )
  boundaries: tuple[str, ...] = setting(
    ("0 epochs", "20 epochs", "25 epochs"),
    'For "relative_steps": from boundaries[i] on, the rate is learning_rate * factors[i].',
  )
  factors: tuple[float, ...] = setting(
    (1.0, 0.1, 0.01), "Factors of the learning rate; see boundaries."
  )
  warmup: str = setting("0 epochs", "Length of the linear warm-up from warmup_start.")
  warmup_start: float = setting(0.0, "Learning rate at step 0 of a warm-up.")
  label_smoothing: float = _loss(
    "label_smoothing",
    0.0,
    "Share of a softmax task's target that is spread over all classes; multi-label tasks have"
    " none.",
  )
  class_balance: float = setting(
    0.0,
    "Exponent of the weights that even out how often the classes occur in the training split; 0 is"
    " off, 1 gives all classes the same weight (docs/fine_tuning.md).",
    allowed=between(0, 1),
  )
  mixup: float = setting(
    0.0,
    "Parameter of the Beta distribution of mixup's shares; 0 is off. Mixed clips have two labels"
    " and no narration: only the classification terms may have a weight.",
    allowed=at_least(0),
  )
  cutmix: float = setting(
    0.0, "The same for CutMix, which shows one clip in a window of the other.", allowed=at_least(0)
  )
  cutmix_share: float = setting(
    0.5, "Share of the batches with CutMix where there is mixup too.", allowed=between(0, 1)
  )
  final_rate: float = setting(0.0, "Learning rate at the end of a cosine.", allowed=at_least(0))
  encoder_factor: float = setting(
    1.0,
    "Factor of the learning rate in the encoders; heads and projections have the rate itself.",
    allowed=above(0),
  )
  layer_decay: float = setting(
    1.0,
    "Factor of the learning rate from each layer of an encoder, block or stage, to the one before;"
    " the last has this factor once.",
    allowed=Rule(lambda value: 0 < value <= 1, "be above 0 and at most 1"),
  )
  ema: float = setting(
    0.0,
    "Decay of a moving average of the parameters, such as 0.9999, which is saved beside them and"
    " evaluated in their place; 0 is none.",
    allowed=Rule(lambda value: 0 <= value < 1, "be 0 or more and below 1"),
  )


def _is_list_of(values: tuple[float, ...]) -> bool:
  return len(set(values)) == len(values) and all(value >= 0 for value in values)


_DISTINCT = Rule(_is_list_of, "be different numbers of 0 or more")


@dataclasses.dataclass(frozen=True)
class JointStage(Stage):
  """The joint stage, which may train many probes at once."""

  grid_learning_rates: tuple[float, ...] = setting(
    (),
    "Learning rates of probes that are trained at once on frozen encoders, each with each of"
    " grid_weight_decays; the best on eval.during_split is kept (docs/fine_tuning.md). Empty is"
    " learning_rate.",
    allowed=_DISTINCT,
  )
  grid_weight_decays: tuple[float, ...] = setting(
    (), "Weight decays of these probes; empty is weight_decay.", allowed=_DISTINCT
  )

  @property
  def has_grid(self) -> bool:
    """Whether several probes are trained at once."""
    return bool(self.grid_learning_rates or self.grid_weight_decays)


@dataclasses.dataclass(frozen=True)
class Init:
  """Starting weights: a checkpoint folder or an .npz file; empty is random."""

  ego: str = setting(
    "", 'Weights that the ego encoder starts from; "exo_stage" takes those of stage one.', path=True
  )
  exo: str = setting("", "Weights that the exo encoder starts from.", path=True)
  exo_from: str = setting(
    "",
    "Where the exo encoder of the joint stage must come from (Table 6); a training without it is an"
    ' error. "stage_one": from a stage one, of this run or of the one in `init.exo`; "ego": from'
    " the weights of `init.ego`. Empty asks for nothing.",
    choices=("", "stage_one", "ego"),
    runtime=True,
  )


@dataclasses.dataclass(frozen=True)
class Eval:
  """Evaluation of the ego view, while and after training."""

  splits: tuple[str, ...] = setting(
    ("validation",), "Splits to evaluate after training and with --mode=eval."
  )
  during_split: str = setting("validation", "Split to evaluate while training; empty is off.")
  every: str = setting(
    "5 epochs", "How often to evaluate while training; the end of a stage is evaluated always."
  )
  checkpoint: str = setting(
    "last",
    'Which checkpoint of the workdir is evaluated after training and with --mode=eval; "best" needs'
    " `checkpoint.best`.",
    choices=("last", "best"),
  )
  clips: int = setting(
    0,
    'Temporal views of a clip; 0 is 10 and, with input "tokens", as many as were stored.',
    allowed=at_least(0),
  )
  crops: int = setting(
    0,
    'Spatial views of a temporal view; 0 is 3 and, with input "tokens", as many as were stored.',
    choices=(0, 1, 3),
  )
  during_clips: int = setting(
    0,
    'Temporal views while training; 0 is 1 and, with input "tokens", as many as were stored.',
    allowed=at_least(0),
  )
  during_crops: int = setting(
    0,
    'Spatial views while training; 0 is 1 and, with input "tokens", as many as were stored.',
    choices=(0, 1, 3),
  )
  crop_size: int = setting(
    0,
    "Pixels that the short side is resized to; 0 is 256 for convolutional networks, and the crop of"
    " training for vision transformers.",
    allowed=at_least(0),
  )
  pool_window: int = setting(
    -1,
    "0 pools the whole map. 7 pools windows of 7 x 7 and averages their scores, which gives"
    " another result above crop 224. -1 does what the authors do: what the card of converted"
    " weights says; for slow_r50, windows that span the map of the training crop; otherwise, the"
    " whole map.",
    allowed=at_least(-1),
  )
  batch_size: int = setting(
    16,
    "Test views of a step, over all devices; padded to a multiple of their number.",
    allowed=at_least(1),
  )
  ensemble: str = setting(
    "sum", 'How the scores of the views are joined; "max" for Charades-Ego.', choices=("sum", "max")
  )
  parameters: str = setting(
    "ema",
    'Which parameters are evaluated: "ema" are their moving averages where a stage has them, and'
    ' "trained" those that are trained.',
    choices=("ema", "trained"),
  )
  retrieval: bool = setting(
    False,
    "Whether retrieval between ego clips, exo clips and text is scored (docs/retrieval.md). While"
    " training this embeds the exo clips at every evaluation.",
  )
  retrieval_exo_split: str = setting("train", "Split of every exo pool for retrieval.")
  retrieval_clips: int = setting(
    2000, "Most clips on each side of retrieval; they are spaced evenly.", allowed=at_least(1)
  )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """When checkpoints are written, and how many are kept."""

  every: str = setting("1 epochs", "How often to save; the end of a stage is saved always.")
  keep: int = setting(2, "How many recent checkpoints to keep.", allowed=at_least(1))
  best: str = setting(
    "",
    'Metric of the evaluations while training, such as "eval/validation/action_top1", by which the'
    " best checkpoint of a stage is kept beside the recent ones; empty keeps none"
    " (docs/following_a_run.md).",
  )
  patience: int = setting(
    0,
    "Number of evaluations in a row without a better `checkpoint.best` after which a stage ends"
    " early; 0 never does.",
    allowed=at_least(0),
  )


@dataclasses.dataclass(frozen=True)
class Input:
  """How clips are read and decoded."""

  num_threads: int = setting(2, "Threads of a process that read and decode.", allowed=at_least(1))
  num_workers: int = setting(
    0, "Processes that decode; 0 decodes in threads of the training process.", allowed=at_least(0)
  )
  prefetch: int = setting(2, "Batches that are read ahead.", allowed=at_least(1))
  cache_mib: int = setting(
    0,
    "MiB of decoded frames to keep in memory, for each view and process; for small data sets.",
    allowed=at_least(0),
  )
  shard_cache: str = setting(
    "",
    "Folder on a local disk for copies of shards that are in a bucket; empty reads single records"
    " from the bucket (docs/data.md).",
    path=True,
  )
  shard_cache_gib: float = setting(
    0.0,
    "GiB of all copies in that folder; 0 is half of what its disk has free.",
    allowed=at_least(0),
  )
  max_corrupt_share: float = setting(
    0.01, "Share of the clips that may be corrupt; a run stops above it.", allowed=between(0, 1)
  )
  timeout_seconds: float = setting(
    300.0,
    "How long to wait for a batch. After that reading processes are started again, and a run that"
    " reads in threads ends; 0 waits for ever.",
    allowed=at_least(0),
  )


@dataclasses.dataclass(frozen=True)
class Storage:
  """How disks and buckets are written to, and how long their faults may last."""

  patience_seconds: float = setting(
    0.0,
    "Seconds that a fault of a disk or bucket may last before the run ends with an error; 0 is"
    " what the variable SUM_L_STORAGE_SECONDS says, or 120.",
    allowed=at_least(0),
  )
  upload_seconds: float = setting(
    60.0,
    "Seconds between two uploads of metrics.jsonl and TensorBoard's files where the workdir is in"
    " a bucket; a kill costs at most the numbers of this time.",
    allowed=at_least(0.1),
  )
  compilation_cache: str = setting(
    "",
    "Folder or gs:// address of the programs that JAX has compiled, which a restarted run takes"
    " from there. Empty is JAX_COMPILATION_CACHE_DIR, or the user's own cache folder. Whoever can"
    " write there can run code in this run.",
  )


@dataclasses.dataclass(frozen=True)
class Mesh:
  """How devices share one copy of the state (docs/performance.md)."""

  fsdp: int = setting(
    1,
    "Number of devices that share one copy of parameters and optimizer state, each with a part of"
    " every large array; 1 gives each device a copy of its own.",
    allowed=at_least(1),
  )
  rules: tuple[str, ...] = setting(
    sharding_rules.RULES,
    'Which axis of an array is divided. A rule is a regular expression, "->", and an axis: its'
    ' number, "largest", "largest_inner" (not the first) or "whole". The first one found in the'
    " array's path holds; without any an array is whole.",
  )
  whole_below: int = setting(
    sharding_rules.WHOLE_BELOW,
    "Elements of an array, or of its part in one block of a transformer, below which each device"
    " has it whole.",
    allowed=at_least(0),
  )


@dataclasses.dataclass(frozen=True)
class Settings:
  """All settings of a run; `config.read.resolve` makes them from a config."""

  seed: int = setting(
    0, "Seed of the initial weights, the order of clips, augmentation and dropout."
  )
  method: str = setting(
    "sum_l", "Which terms the loss has (the paper's Table 1).", choices=tuple(presets.METHODS)
  )
  objective: str = setting(
    "paper",
    'What the fields that are "auto" become (docs/paper_vs_released.md).',
    choices=tuple(presets.OBJECTIVES),
  )
  stages: tuple[str, ...] = setting(
    (JOINT_STAGE,),
    'Stages in their order: "exo" trains the third-person encoder alone, "joint" everything. An exo'
    " stage before a joint one that takes nothing from it is left out, as with method='fpv_only'.",
  )
  precision: str = setting(
    "float32", "Type of the activations; parameters stay float32.", choices=("float32", "bfloat16")
  )
  num_devices: int = setting(
    0, "Devices to use; 0 uses all there are.", allowed=at_least(0), runtime=True
  )
  log_every_steps: int = setting(
    20,
    "Steps between two lines of the log, which gives their means.",
    allowed=at_least(1),
    runtime=True,
  )
  wandb: str = setting(
    "",
    "Project at Weights & Biases that gets the numbers too, with the extra `wandb`; empty is none"
    " (docs/following_a_run.md).",
    runtime=True,
  )
  report: bool = setting(True, "Whether report.html is written at the end.", runtime=True)
  on_non_finite: str = setting(
    "stop",
    'What follows a step whose loss, gradient or update is NaN or infinite: "stop" ends the run,'
    ' "skip" leaves the step out and counts it.',
    choices=("stop", "skip"),
    runtime=True,
  )
  stop_at: str = setting(
    "",
    '"joint:200" saves and ends at that step; the same command without it resumes.',
    runtime=True,
  )
  prepare: Prepare = section(Prepare)
  ego: Ego = section(Ego)
  exo: Exo = section(Exo, color_lighting=0.1)
  narrations: str = setting("", "File that data_prep.embed_narrations wrote.", path=True)
  pairs: Pairs = section(Pairs)
  frames: Frames = section(Frames)
  model: Model = section(Model)
  mesh: Mesh = section(Mesh, runtime=True)
  loss: Loss = section(Loss)
  exo_stage: Stage = section(Stage)
  joint_stage: JointStage = section(JointStage)
  init: Init = section(Init)
  eval: Eval = section(Eval, runtime=True)
  checkpoint: Checkpoint = section(Checkpoint, runtime=True)
  input: Input = section(Input, runtime=True)
  storage: Storage = section(Storage, runtime=True)

  def stage(self, name: str) -> Stage:
    """The settings of the stage "exo" or "joint"."""
    return {EXO_STAGE: self.exo_stage, JOINT_STAGE: self.joint_stage}[name]

  def view(self, name: str) -> View:
    """The settings of the view "ego" or "exo"."""
    return {types.EGO: self.ego, types.EXO: self.exo}[name]

  def stored(self, view: str) -> bool:
    """Whether a view gets features that an encoder made before."""
    return self.view(view).input == types.TOKENS

  def backbone(self, view: str) -> str:
    """Name of a view's encoder."""
    return self.view(view).backbone or self.model.backbone

  def clip(self, view: str) -> ViewFrames:
    """How clips of a view become what its encoder sees; of resolved settings, without zeros."""
    own, shared = self.view(view).frames, self.frames
    # Short side and area are two ways of one crop: a view that names one has its own.
    crop = own if any(own.short_side) or any(own.crop_area) else shared
    return ViewFrames(
      count=own.count or shared.count,
      stride=own.stride or shared.stride,
      crop_size=own.crop_size or shared.crop_size,
      short_side=crop.short_side,
      eval_crop_size=own.eval_crop_size or self.eval.crop_size,
      crop_area=crop.crop_area,
      crop_aspect=own.crop_aspect if any(own.crop_aspect) else shared.crop_aspect,
      sampling=own.sampling or shared.sampling,
    )

  @property
  def views(self) -> tuple[str, ...]:
    """Views that the stages of the run have."""
    ego = JOINT_STAGE in self.stages
    exo = EXO_STAGE in self.stages or (ego and self.uses_exo)
    return (types.EGO,) * ego + (types.EXO,) * exo

  @property
  def uses_exo(self) -> bool:
    """Whether the joint stage has a third-person side."""
    weights = self.loss.weights
    return any((weights.exo_cls, weights.ego_exo, weights.exo_text))

  def to_json(self) -> str:
    """All fields by dotted name, sorted: what a workdir and a checkpoint keep."""
    return json.dumps(self.flatten(), indent=1, sort_keys=True)

  def flatten(self) -> dict[str, Any]:
    """All values by dotted name."""
    return {field.name: field.default for field in walk(self)}

  @classmethod
  def from_flat(cls, values: Mapping[str, Any]) -> Settings:
    """Makes settings from values by dotted name, each checked.

    Args:
      values: one value for every field.

    Raises:
      ValueError: a value has another type or lies outside its range; names the
        field, what it must be and what it was.
    """
    return assemble(cls, {field.name: checked(field, values[field.name]) for field in fields()})


@functools.cache
def fields() -> tuple[Field, ...]:
  """All fields of the settings, with their defaults."""
  return tuple(walk(Settings()))


@functools.cache
def sections() -> Mapping[str, type]:
  """All sections of the settings by their dotted names; "" is the run itself."""
  return dict(walk_sections(Settings))
