"""From published arrays to our parameter trees, and back.

Nothing is guessed: every array of the encoder must come from the file, and
every array of the file must have been used or left behind for a stated reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import re

import numpy as np

from data_prep.published_weights import choices
from data_prep.published_weights import files
from data_prep.published_weights import names
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.models.layers import norm
from sum_l_jax.system import command_line
from sum_l_jax.train.state import Network


@dataclasses.dataclass(frozen=True)
class Options:
  """What the user may decide.

  Attributes:
    backbone: ours, see `choices.MODELS`.
    view: "ego", "exo" or "both"; "" for what the file has.
    head: "keep": the class heads come along, with the names of `classes`
      where the numbers agree, else with numbers for names. "reinit": heads
      that do not fit `classes` stay behind. "error": they are an error.
    classes: class names by view and task, of a built data set.
    channel_order: "RGB" or "BGR"; "" for what networks of this kind saw.
    fps: of the frames that the network saw; 0 for what is known.
    skip: patterns of names to leave behind.
  """

  backbone: str
  view: str = ""
  head: str = "keep"
  classes: Mapping[str, Mapping[str, Sequence[str]]] = dataclasses.field(default_factory=dict)
  channel_order: str = ""
  fps: float = 0.0
  skip: Sequence[str] = ()


@dataclasses.dataclass
class Report:
  """What happened to every array.

  Attributes:
    loaded: part ("ego/encoder") -> number of arrays.
    skipped: reason -> names.
    inflated: 2-D kernels repeated along time.
    initialised: parts that training will start afresh.
  """

  loaded: dict[str, int] = dataclasses.field(default_factory=dict)
  skipped: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  inflated: list[str] = dataclasses.field(default_factory=list)
  initialised: list[str] = dataclasses.field(default_factory=list)

  def skip(self, reason: str, name: str) -> None:
    self.skipped.setdefault(reason, []).append(name)

  def lines(self) -> list[str]:
    out = [f"loaded       {part}: {n} arrays" for part, n in self.loaded.items()]
    if self.inflated:
      out.append(f"inflated     {len(self.inflated)} 2-D kernels, along time")
    out += [f"left behind  {len(n)} {reason}: {_some(n)}" for reason, n in self.skipped.items()]
    out += [f"to be initialised by training: {part}" for part in self.initialised]
    return out


def _some(items: Iterable[str]) -> str:
  return command_line.some(sorted(items), 6)


def _clean(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Takes off what wrappers put around names and shapes."""
  out = {}
  for name, value in tensors.items():
    name = name.removeprefix("module.")
    # Sub-batch normalisation holds the real one inside, [C, 1, 1, 1].
    name = re.sub(r"(_bn|\.bn)\.bn\.", r"\1.", name)
    if value.ndim == 4 and value.shape[1:] == (1, 1, 1) and "bn." in name:
      value = value.reshape(-1)
    out[name] = value
  return out


def _towers(tensors: Mapping[str, np.ndarray], file: files.WeightFile):
  """Which family names the arrays of which view; view "" may be either."""
  if "conv1_w" in tensors:
    return {"": "caffe2"}
  if any(name.startswith("blocks.0.") for name in tensors):
    return {"": "pytorchvideo"}
  if any(name.startswith("s1_t.") for name in tensors):
    return {types.EGO: "pyslowfast", types.EXO: "sum_l_exo"}
  if any(name.startswith("s1.pathway0_stem.") for name in tensors):
    stage_one = any(name.startswith("readout.") for name in tensors)
    return {types.EXO if stage_one else "": "pyslowfast"}
  raise ValueError(
    f"{file.path} has names of no known network: {_some(list(tensors))}."
    " Known are PySlowFast and Ego-Exo (s1.pathway0_stem...), the joint"
    " SUM-L checkpoint (s1_t...), Caffe2 (conv1_w ...) and pytorchvideo"
    " (blocks.0...)."
  )


def _choose_views(towers: Mapping[str, str], view: str) -> dict[str, str]:
  """Our view -> the view in the file ("" where it has but one tower)."""
  if "" in towers:
    return dict.fromkeys(types.VIEWS if view == "both" else (view or types.EGO,), "")
  if view in ("", "both"):
    if view == "both" and len(towers) == 1:
      return dict.fromkeys(types.VIEWS, next(iter(towers)))
    return {v: v for v in towers}
  # A file of the other view alone starts this one, as Table 6 does.
  return {view: view if view in towers else next(iter(towers))}


def _expected(backbone: str) -> tuple[dict, dict]:
  """Shapes of an encoder's parameters and statistics, flat."""
  network = Network(
    lambda: models.make_model(backbone=backbone, tasks={types.EGO: {}}, embedding_dim=None)
  )
  params, stats = network.shapes
  return tuple(
    {k: v.shape for k, v in weight_files.flatten(tree[types.EGO]["encoder"]).items()}
    for tree in (params, stats)
  )


def to_ours(value: np.ndarray, ndim: int) -> np.ndarray:
  """PyTorch's OIDHW and [out, in] to DHWIO and [in, out]."""
  value = value.astype(np.float32)
  if ndim == 5:
    return np.ascontiguousarray(value.transpose(2, 3, 4, 1, 0))
  return np.ascontiguousarray(value.T) if ndim == 2 else value


def to_theirs(value: np.ndarray) -> np.ndarray:
  value = np.asarray(value)
  if value.ndim == 5:
    return np.ascontiguousarray(value.transpose(4, 3, 0, 1, 2))
  return np.ascontiguousarray(value.T) if value.ndim == 2 else value


def _inflated(value: np.ndarray, frames: int) -> np.ndarray:
  """A 2-D kernel OIHW repeated along time; the sum over time stays."""
  return np.repeat(value[:, :, None] / frames, frames, axis=2)


class _Problems:
  """Collects everything that is wrong, for one message."""

  def __init__(self):
    self.missing: list[str] = []
    self.left_over: list[str] = []
    self.shapes: list[str] = []
    self.hint = ""

  def raise_any(self, path, backbone: str) -> None:
    texts = [
      f"{len(found)} {what}: {_some(found)}"
      for what, found in (
        ("missing in the file", self.missing),
        ("of another shape", self.shapes),
        ("in the file without a place", self.left_over),
      )
      if found
    ]
    if texts:
      raise ValueError(
        f"{path} does not fit {backbone!r}. "
        + ". ".join(texts)
        + "."
        + (
          self.hint
          or " Choose another --model; what is known to be of no"
          " use can be left behind with --skip=PATTERN."
        )
      )


def _fill_encoder(
  tensors: dict[str, np.ndarray],
  backbone: str,
  family: str,
  used: set,
  report: Report,
  problems: _Problems,
) -> tuple[dict, dict]:
  """The encoder's (params, stats), nested; names into `used`."""
  trees = []
  for expected in _expected(backbone):
    filled = {}
    theirs = names.encoder_names(backbone, family, expected)
    for ours, shape in expected.items():
      name = theirs[ours]
      if name not in tensors:
        problems.missing.append(name)
        continue
      used.add(name)
      value = tensors[name]
      if len(shape) == 5 and value.ndim == 4:
        report.inflated.append(name)
        value = _inflated(value, shape[0])
      value = to_ours(value, len(shape))
      if value.shape != shape:
        problems.shapes.append(
          f"{name} {tensors[name].shape}, wanted {to_theirs(np.empty(shape)).shape}"
        )
        problems.hint = problems.hint or _kernel_hint(ours, value, backbone)
        continue
      filled[ours] = value
    trees.append(weight_files.unflatten(filled))
  return trees[0], trees[1]


def _kernel_hint(ours: str, value: np.ndarray, backbone: str) -> str:
  """The fusion kernel tells 8x8 (7 frames at depth 50) from 4x16 (5)."""
  if not ours.startswith("fusion/") or value.ndim != 5:
    return ""
  for model, name in choices.MODELS.items():
    spec = models.BACKBONES[name].spec
    same_depth = spec.fast and spec.slow == models.BACKBONES[backbone].spec.slow
    if same_depth and spec.fusion_kernel == value.shape[0]:
      return f" Its fusion kernels span {value.shape[0]} frames: choose --model={model}."
  return ""


def _known_heads(card: dict) -> list[names.Head]:
  """Those of published files, and those that a card of ours names."""
  own = [
    names.Head.of(view, task, name, kind=kind)
    for name, (view, task, kind) in card.get("head_names", {}).items()
  ]
  taken = {head.weight for head in own}
  return own + [h for h in names.HEADS if h.weight not in taken]


def _class_names(
  head: names.Head, view: str, count: int, options: Options, card: dict
) -> tuple[list[str], str]:
  """Names of a head's classes, and what is wrong with it, if anything."""
  numbered = [f"class {i}" for i in range(count)]
  wanted = options.classes.get(view, {}).get(head.task)
  if wanted is not None and len(wanted) == count:
    return list(wanted), ""
  if wanted is not None:
    return numbered, (f"{head.weight} has {count} classes, the data set {len(wanted)}")
  saved = card.get("tasks", {}).get(head.view, {}).get(head.task)
  if saved is not None:
    return list(saved), ""
  return numbered, f"{head.weight} has {count} classes without names"


def convert(file: files.WeightFile, options: Options) -> tuple[weight_files.Weights, Report]:
  """Turns a file's arrays into weights that a run can start from.

  Returns:
    The weights, with a card that says what pixels and frames they need, and
    what happened to every array.

  Raises:
    ValueError: anything missing, left over or of another shape; all named.
  """
  tensors = _clean(file.tensors)
  report, problems = Report(), _Problems()
  skip = {**names.SKIPPED, **dict.fromkeys(options.skip, "as --skip says")}
  for name in list(tensors):
    for pattern, reason in skip.items():
      if re.fullmatch(pattern, name):
        report.skip(reason, name)
        del tensors[name]
        break
  towers = _towers(tensors, file)
  old_card = json.loads(file.card) if file.card else {}
  # A single tower that we exported knows whose it is.
  exported = old_card.get("exported_views", ())
  views = _choose_views(towers, options.view or (exported[0] if len(exported) == 1 else ""))
  used: set[str] = set()
  params, stats, heads = {}, {}, {}
  for view, origin in views.items():
    encoder = _fill_encoder(tensors, options.backbone, towers[origin], used, report, problems)
    params[view], stats[view] = ({"encoder": encoder[0], "heads": {}}, {"encoder": encoder[1]})
    report.loaded[f"{view}/encoder"] = sum(len(weight_files.flatten(tree)) for tree in encoder)
    heads[view] = _take_heads(tensors, view, origin, params[view], used, options, old_card, report)
  # The towers and heads of a view that was not asked for.
  for name in sorted(tensors.keys() - used):
    if _belongs_elsewhere(name, towers, views, old_card):
      report.skip("of the other view", name)
    else:
      problems.left_over.append(name)
  problems.raise_any(file.path, options.backbone)
  card = _make_card(options, views, params, heads, file, old_card)
  return weight_files.Weights(params, stats, card, str(file.path)), report


def _belongs_elsewhere(name, towers, views, card) -> bool:
  other = {v for v in towers if v} - set(views.values())
  if not other:
    return False
  (view,) = other
  exo_tower = re.match(r"s\d(_fuse)?_t\.", name) is not None
  ego_tower = re.match(r"s\d(_fuse)?\.", name) is not None
  if (exo_tower and view == types.EXO) or (ego_tower and view == types.EGO):
    return True
  return any(name in (h.weight, h.bias) and h.view == view for h in _known_heads(card))


def _take_heads(tensors, view, origin, tower, used, options, card, report) -> list[names.Head]:
  """Puts class heads and projection into `tower`; those that came along."""
  taken = []
  for head in _known_heads(card):
    if head.weight not in tensors or head.view not in ("", origin or view):
      continue
    used.update((head.weight, head.bias))
    if head.task and head.task in tower["heads"]:
      raise ValueError(
        f"The file has two heads for {view}/{head.task}, the second is"
        f" {head.weight!r}; leave one behind with --skip=PATTERN."
      )
    weight, bias = tensors[head.weight], tensors[head.bias]
    # Caffe2 keeps linear layers as they are; PyTorch's fully convolutional
    # ones have trailing ones.
    weight = weight.reshape(weight.shape[0], -1)
    layer = {"kernel": to_ours(weight, 2), "bias": to_ours(bias, 1)}
    if not head.task:
      tower["projection"] = layer
      taken.append(head)
      report.loaded[f"{view}/projection"] = 2
      continue
    _, problem = _class_names(head, view, len(bias), options, card)
    if problem and options.head == "error":
      raise ValueError(
        f"{problem}, and --head=error asks for a fit. Give the data set that"
        " has these classes, or --head=reinit to train a new head."
      )
    if problem and options.head == "reinit":
      report.skip(f"head of other classes ({problem})", head.weight)
      report.skip(f"head of other classes ({problem})", head.bias)
      continue
    tower["heads"][head.task] = layer
    taken.append(head)
    report.loaded[f"{view}/heads/{head.task}"] = 2
  if not tower["heads"]:
    del tower["heads"]
    report.initialised.append(f"{view}/heads")
  return taken


def _make_card(options, views, params, heads, file, old_card) -> dict:
  """What `build.Trainer.card` says of a trained checkpoint, and more."""
  entry = models.BACKBONES[options.backbone]
  class_heads = {v: [h for h in hs if h.task] for v, hs in heads.items()}
  order = {
    view: options.channel_order
    or old_card.get("pixels", {}).get(view, {}).get("channel_order")
    or next((h.channel_order for h in class_heads[view]), "RGB")
    for view in views
  }
  frames = old_card.get("frames", {})
  dim = next(
    (
      int(tower["projection"]["bias"].shape[0])
      for tower in params.values()
      if "projection" in tower
    ),
    None,
  )
  return {
    "stage": "joint" if types.EGO in views else "exo",
    "backbone": options.backbone,
    "embedding_dim": dim,
    "tasks": {
      view: {
        h.task: _class_names(
          h, view, params[view]["heads"][h.task]["bias"].shape[0], options, old_card
        )[0]
        for h in hs
      }
      for view, hs in class_heads.items()
    },
    "kinds": {view: {h.task: h.kind for h in hs} for view, hs in class_heads.items()},
    "pixels": {
      view: dataclasses.asdict(models.PixelSpec(channel_order=order[view])) for view in views
    },
    "frames": {
      "count": entry.num_frames,
      "stride": frames.get("stride", entry.stride),
      "crop_size": frames.get("crop_size", 256),
      "fps": options.fps
      or frames.get("fps")
      or next((h.fps for hs in class_heads.values() for h in hs), 30.0),
    },
    "network": {
      "alpha": entry.spec.alpha,
      "fusion_kernel": entry.spec.fusion_kernel,
      "bn_epsilon": norm.EPSILON,
      # The released projections were trained on unit features.
      "projection_prenorm": old_card.get("network", {}).get("projection_prenorm", dim is not None),
    },
    "data": {"ego": None, "exo": [], "narrations": None, "text_model": None},
    "config": old_card.get("config", "{}"),
    "versions": {"converted_from": file.path.name, "container": file.container},
  }


def _export_name(view: str, tasks: Mapping[str, int], index: int) -> str:
  """The name of a class head where the networks of this family look for it."""
  counts = tuple(tasks.values())
  if view == types.EXO:
    return f"head_lemma.projections.{index}"
  known = {(125, 352): "headepic", (97, 300): "headepic100"}
  if len(counts) > 1:
    return f"{known.get(counts, 'head')}.projections.{index}"
  return "headcharades-ego.projection" if counts == (157,) else ("head.projection")


def export(
  weights: weight_files.Weights, views: Sequence[str]
) -> tuple[dict[str, np.ndarray], str]:
  """PySlowFast's names and layouts for our weights; undone by `convert`.

  Args:
    weights: of an encoder that has a PyTorch counterpart.
    views: which towers; the exo tower beside an ego one gets the SUM-L
      authors' suffix `_t`.

  Returns:
    Arrays by name, and the card as JSON.

  Raises:
    ValueError: no counterpart, or a view that is not there.
  """
  backbone = weights.card["backbone"]
  if backbone not in choices.MODELS.values():
    raise ValueError(
      f"{weights.source} holds a {backbone!r}, which has no PyTorch"
      f" counterpart; there is one of {sorted(choices.MODELS.values())}."
    )
  out, head_names = {}, {}
  for view in views:
    tower = weights.params.get(view, {})
    if "encoder" not in tower:
      own = sorted(v for v, t in weights.params.items() if "encoder" in t)
      raise ValueError(
        f"{weights.source} has no encoder of its own for view {view!r}; it has {own}."
      )
    family = "sum_l_exo" if view == types.EXO and len(views) > 1 else ("pyslowfast")
    for tree in (weights.params, weights.stats):
      flat = weight_files.flatten(tree[view]["encoder"])
      for ours, name in names.encoder_names(backbone, family, flat).items():
        out[name] = to_theirs(flat[ours])
    kinds = weights.card["kinds"].get(view, {})
    # As the label sets come: verb before noun.
    order = sorted(
      tower.get("heads", {}), key=lambda t: (t not in ("verb", "noun"), t != "verb", t)
    )
    sizes = {t: tower["heads"][t]["bias"].shape[0] for t in order}
    for index, task in enumerate(order):
      name = _export_name(view, sizes, index)
      head_names[name] = (view, task, kinds.get(task, types.SOFTMAX))
      out[f"{name}.weight"] = to_theirs(tower["heads"][task]["kernel"])
      out[f"{name}.bias"] = np.asarray(tower["heads"][task]["bias"])
    if "projection" in tower:
      name = f"global_con_head.{'fpv' if view == types.EGO else 'tpv'}"
      out[f"{name}_global_proj.weight"] = to_theirs(tower["projection"]["kernel"])
      out[f"{name}_global_proj.bias"] = np.asarray(tower["projection"]["bias"])
  card = {**weights.card, "head_names": head_names, "exported_views": list(views)}
  if "network" not in card:  # Trained here: as its config says.
    settings = json.loads(card["config"])
    card["network"] = {"projection_prenorm": settings["model.projection_prenorm"] == "true"}
  return out, json.dumps(card)
