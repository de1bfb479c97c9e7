"""Converts published arrays to our parameter trees, and back.

Nothing is guessed: every array of the encoder must come from the file, and
every array of the file must have been used or left behind for a stated reason.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Any
from typing import Literal

from etils import epath
import numpy as np

from data_prep.published_weights import choices
from data_prep.published_weights import files
from data_prep.published_weights import names
from data_prep.published_weights import vit_arrays
from data_prep.published_weights import vit_names
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.models import backbones
from sum_l_jax.models.layers import norm
from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line
from sum_l_jax.train.state import Network


@dataclasses.dataclass(frozen=True)
class Options:
  """What the user may decide.

  Attributes:
    backbone: name of our backbone, see `choices.MODELS`; "" where the file says
      it, as those of vision transformers do.
    view: "ego", "exo" or "both"; "" for what the file has.
    head: "keep": the class heads come along, with the names of `classes`
      where the numbers agree, else with numbers for names. "reinit": heads
      that do not fit `classes` stay behind. "error": they are an error.
    classes: class names of a built data set, by view and task.
    channel_order: "RGB" or "BGR"; "" for what networks of this kind saw.
    fps: rate of the frames that the network saw; 0 for what is known.
    pool_window: side of the windows that the network's authors pool at test
      time, 0 for the whole map; -1 for what is known.
    skip: patterns of names to leave behind.
  """

  backbone: str = ""
  view: str = ""
  head: str = "keep"
  classes: Mapping[str, Mapping[str, Sequence[str]]] = dataclasses.field(default_factory=dict)
  channel_order: str = ""
  fps: float = 0.0
  pool_window: int = -1
  skip: Sequence[str] = ()


@dataclasses.dataclass
class Report:
  """What happened to every array.

  Attributes:
    loaded: number of arrays of each part, such as "ego/encoder".
    skipped: names of the arrays left behind, by reason.
    backbone: our name of the network.
    inflated: names of 2-D kernels that were repeated along time.
    resized: tables of positions that were brought to another length.
    new: arrays of the encoder that the file lacks, and what they start with.
    notes: lines of their own.
    initialised: parts that training will initialise.
  """

  loaded: dict[str, int] = dataclasses.field(default_factory=dict)
  skipped: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  backbone: str = ""
  inflated: list[str] = dataclasses.field(default_factory=list)
  resized: list[str] = dataclasses.field(default_factory=list)
  new: dict[str, str] = dataclasses.field(default_factory=dict)
  notes: list[str] = dataclasses.field(default_factory=list)
  initialised: list[str] = dataclasses.field(default_factory=list)

  def skip(self, reason: str, name: str) -> None:
    """Notes an array that is left behind."""
    self.skipped.setdefault(reason, []).append(name)

  def lines(self) -> list[str]:
    """The report for the terminal."""
    out = [f"backbone     {self.backbone}", *self.notes]
    out += [f"loaded       {part}: {n} arrays" for part, n in self.loaded.items()]
    out += [f"resized      {text}" for text in self.resized]
    out += [f"not in file  {name}, which starts as {kind}" for name, kind in self.new.items()]
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
    # Sub-batch normalisation holds the real one inside, [C, 1, 1, 1].
    name = re.sub(r"(_bn|\.bn)\.bn\.", r"\1.", name)
    if value.ndim == 4 and value.shape[1:] == (1, 1, 1) and "bn." in name:
      value = value.reshape(-1)
    out[name] = value
  return out


def _canonical(
  form: vit_names.Format, tensors: Mapping[str, np.ndarray], path: epath.Path
) -> dict[str, np.ndarray]:
  """The arrays by the names of the format's table."""
  out: dict[str, np.ndarray] = {}
  for name, value in tensors.items():
    plain = form.canonical(name)
    if plain in out:
      raise ValueError(f"{path} has two arrays that are {plain!r} of {form.title}.")
    out[plain] = value
  return out


def _towers(tensors: Mapping[str, np.ndarray], file: files.WeightFile) -> dict[str, str]:
  """The family that names the arrays of each view; view "" may be either."""
  if "conv1_w" in tensors:
    return {"": "caffe2"}
  if any(name.startswith("blocks.0.") for name in tensors):
    return {"": "pytorchvideo"}
  if any(re.match(r"backbone\.(slow_path\.)?conv1\.", name) for name in tensors):
    return {"": "mmaction2"}
  if any(name.startswith("s1_t.") for name in tensors):
    return {types.EGO: "pyslowfast", types.EXO: "sum_l_exo"}
  if any(name.startswith("s1.pathway0_stem.") for name in tensors):
    stage_one = any(name.startswith("readout.") for name in tensors)
    return {types.EXO if stage_one else "": "pyslowfast"}
  raise ValueError(
    f"{file.path} has names of no known network: {_some(list(tensors))}."
    " Known are PySlowFast and Ego-Exo (s1.pathway0_stem...), the joint"
    " SUM-L checkpoint (s1_t...), Caffe2 (conv1_w ...), pytorchvideo"
    " (blocks.0...), mmaction2 (backbone.conv1..., backbone.slow_path...), and"
    f" {'; '.join(form.title for form in vit_names.FORMATS.values())}."
  )


def _choose_views(towers: Mapping[str, str], view: str) -> dict[str, str]:
  """The view in the file ("" where it has one tower) that each of our views comes from."""
  if "" in towers:
    return dict.fromkeys(types.VIEWS if view == "both" else (view or types.EGO,), "")
  if view in ("", "both"):
    if view == "both" and len(towers) == 1:
      return dict.fromkeys(types.VIEWS, next(iter(towers)))
    return {v: v for v in towers}
  # A file of the other view alone starts this one, as Table 6 does.
  return {view: view if view in towers else next(iter(towers))}


def encoder_shapes(backbone: str) -> dict[str, tuple[int, ...]]:
  """The shape of each parameter of a backbone's encoder, by flat name."""
  return _expected(backbone)[0]


def _probe_shapes(backbone: str, depth: int) -> dict[str, tuple[int, ...]]:
  """The shape of each parameter of an attentive probe, by flat name."""
  network = Network(
    lambda: models.make_model(
      backbone=backbone,
      tasks={types.EGO: {vit_names.PROBE_TASK: 1}},
      embedding_dim=None,
      probe=models.ProbeOptions(depth=depth),
    )
  )
  tree = network.shapes[0][types.EGO]["probe"]
  return {name: leaf.shape for name, leaf in weight_files.flatten(tree).items()}


def _expected(backbone: str) -> list[dict[str, tuple[int, ...]]]:
  """The shapes of an encoder's parameters and of its statistics, flat."""
  network = Network(
    lambda: models.make_model(backbone=backbone, tasks={types.EGO: {}}, embedding_dim=None)
  )
  params, stats = network.shapes
  return [
    {
      k: v.shape
      for k, v in weight_files.flatten(tree.get(types.EGO, {}).get("encoder", {})).items()
    }
    for tree in (params, stats)
  ]


def to_ours(value: np.ndarray, ndim: int) -> np.ndarray:
  """Turns PyTorch's OIDHW and [out, in] into DHWIO and [in, out]."""
  value = value.astype(np.float32)
  if ndim == 5:
    return np.ascontiguousarray(value.transpose(2, 3, 4, 1, 0))
  return np.ascontiguousarray(value.T) if ndim == 2 else value


def to_theirs(value: np.ndarray) -> np.ndarray:
  """Turns DHWIO and [in, out] into PyTorch's OIDHW and [out, in]."""
  value = np.asarray(value)
  if value.ndim == 5:
    return np.ascontiguousarray(value.transpose(4, 3, 0, 1, 2))
  return np.ascontiguousarray(value.T) if value.ndim == 2 else value


def _inflated(value: np.ndarray, frames: int) -> np.ndarray:
  """Repeats a 2-D kernel OIHW along time, without a change of the sum over time."""
  return np.repeat(value[:, :, None] / frames, frames, axis=2)


class _Conversion:
  """Takes one file's arrays apart.

  Attributes:
    report: what happened to every array.
  """

  def __init__(self, file: files.WeightFile, options: Options) -> None:
    self._file, self._options = file, options
    self._tensors = _clean(file.tensors)
    # The format of a vision transformer, or None.
    self._form = vit_names.FORMATS.get(vit_names.detect(self._tensors))
    if self._form:
      self._tensors = _canonical(self._form, self._tensors, file.path)
    # What `export` wrote beside the arrays, and what transformers did.
    self._card = _read_card(file)
    self._config = _read_config(file)
    self._heads = _known_heads(self._card, self._form)
    self._used: set[str] = set()
    self._wrong: dict[str, list[str]] = collections.defaultdict(list)
    self._hint = ""
    self.report = Report()

  def weights(self) -> weight_files.Weights:
    """Finds a place for every array; ValueError where one is lacking."""
    if self._form:
      self._check_network(self._form)
    self._backbone = self.report.backbone = self._choose_backbone()
    self._leave_behind()
    towers = {"": self._form.title} if self._form else _towers(self._tensors, self._file)
    # A single tower that we exported knows whose it is.
    exported = self._card.get("exported_views", ())
    known = exported[0] if len(exported) == 1 else ""
    views = _choose_views(towers, self._options.view or known)
    params, stats, heads = {}, {}, {}
    network: dict[str, Any] = {}
    if not self._form:
      self._check_family(towers.values())
    for view, origin in views.items():
      if self._form:
        params[view] = {"encoder": self._transformer(self._form)}
        loaded = weight_files.flatten(params[view]).keys() - self.report.new.keys()
        self.report.loaded[f"{view}/encoder"] = len(loaded)
        self._take_projection(self._form, view, params[view])
      else:
        encoder, statistics = self._encoder(towers[origin])
        params[view], stats[view] = {"encoder": encoder}, {"encoder": statistics}
        self.report.loaded[f"{view}/encoder"] = sum(
          len(weight_files.flatten(tree)) for tree in (encoder, statistics)
        )
      heads[view] = self._take_heads(view, origin, params[view])
      if self._form and self._form.probe:
        network |= self._take_probe(self._form, view, params[view])
    # The towers and heads of a view that was not asked for.
    other = next(iter({view for view in towers if view} - set(views.values())), "")
    for name in sorted(self._tensors.keys() - self._used):
      if other and self._belongs_to(name, other):
        self.report.skip("of the other view", name)
      else:
        self._wrong["in the file without a place"].append(name)
    self._check()
    entry = models.BACKBONES[self._backbone]
    if self._form:
      normalization, crop = entry.normalization, entry.crop_size
    else:
      network = _network_facts(self._backbone, towers.values())
      normalization, crop = names.normalization(towers.values()), 256
    card = self._make_card(params, heads, network, normalization, crop)
    return weight_files.Weights(params, stats, card, str(self._file.path))

  def _check_network(self, form: vit_names.Format) -> None:
    """Raises ValueError where there are arrays of a network that is none of ours."""
    for pattern, what in form.refused.items():
      other = [name for name in self._tensors if re.fullmatch(pattern, name)]
      if other:
        raise ValueError(
          f"{self._file.path} holds a network that is none of ours, {what}: it has"
          f" {_some(other)}, which {form.title} has not."
        )

  def _choose_backbone(self) -> str:
    """The backbone that the user names or the arrays fit."""
    name, form = self._options.backbone, self._form
    if form is None:
      if name and backbones.find(name).spec is None:
        _towers(self._tensors, self._file)  # Raises where the names are unknown too.
        raise ValueError(
          f"{self._file.path} holds no vision transformer, which {name!r} is; choose --model from"
          f" {', '.join(choices.MODELS)}."
        )
      if not name:
        _towers(self._tensors, self._file)
        raise ValueError(
          f"{self._file.path} holds no vision transformer, and does not say which network it holds."
          f" --model is needed: one of {', '.join(choices.MODELS)}."
        )
      return name
    self.report.notes.append(f"format       {form.title}")
    if name:
      if backbones.find(name).vit is None:
        raise ValueError(
          f"{self._file.path} holds a vision transformer, {form.title}, and {name!r} is none: leave"
          " --model out."
        )
      return name
    name, notes = vit_arrays.choose(
      form,
      self._tensors,
      encoder_shapes,
      source=str(self._file.path),
      side=self._config.crop_size,
    )
    self.report.notes += notes
    return name

  def _check_family(self, families: Iterable[str]) -> None:
    """Raises ValueError where the networks of a file and of --model differ in kind."""
    spec = names.network_spec(self._backbone)
    theirs = "mmaction2" in families
    if spec.fast is None or theirs == (not spec.fusion_norm):
      return
    wanted = [
      model
      for model, name in choices.MODELS.items()
      if names.network_spec(name).fast and names.network_spec(name).fusion_norm != spec.fusion_norm
    ]
    raise ValueError(
      f"{self._file.path} does not fit {self._backbone!r}: mmaction2's SlowFast has no"
      " BatchNorm and ReLU after the convolutions between its pathways and feeds its slow pathway"
      f" other frames, so that its networks are models of their own. Choose --model from"
      f" {', '.join(wanted)}."
    )

  def _leave_behind(self) -> None:
    """Drops what is of no use, and what the user doesn't want."""
    skip = {**names.SKIPPED, **dict.fromkeys(self._options.skip, "as --skip says")}
    if self._form:
      skip |= self._form.skipped
    own = {head.weight for head in self._heads if head not in names.HEADS}
    distilled = names.ego_exo_distilled(
      {
        name.removesuffix(".weight"): len(value)
        for name, value in self._tensors.items()
        if name.endswith(".weight") and name not in own
      }
    )
    if distilled:
      self._heads.append(names.EGO_EXO_ACTION)
      skip |= {rf"{re.escape(name)}\.(weight|bias)": "distillation heads" for name in distilled}
    for name in list(self._tensors):
      reason = next((r for pattern, r in skip.items() if re.fullmatch(pattern, name)), None)
      if reason:
        self.report.skip(reason, name)
        del self._tensors[name]

  def _check(self) -> None:
    """Raises ValueError with everything that is wrong."""
    wrong = {what: sorted(set(items)) for what, items in self._wrong.items() if items}
    if wrong:
      found = [f"{len(items)} {what}: {_some(items)}." for what, items in wrong.items()]
      hint = self._hint or (
        "Choose another --model; what is known to be of no use can be left behind with"
        " --skip=PATTERN."
      )
      head = f"{self._file.path} does not fit {self._backbone!r}."
      raise ValueError(" ".join([head, *found, hint]))

  def _transformer(self, form: vit_names.Format) -> dict[str, Any]:
    """The parameters of a vision transformer, nested."""
    spec = models.BACKBONES[self._backbone].vit
    assert spec is not None
    found = vit_arrays.read(form, spec, encoder_shapes(self._backbone), self._tensors)
    self._used |= found.used
    self._wrong["missing in the file"] += found.missing
    self._wrong["of another shape"] += found.other_shapes
    self.report.new = {f"encoder/{name}": kind for name, kind in found.new.items()}
    self.report.resized = found.resized
    if not found.fits:
      self._hint = (
        "Leave --backbone out, and the network is chosen by the shapes; what is known to be of no"
        " use can be left behind with --skip=PATTERN."
      )
    return weight_files.unflatten(found.arrays)

  def _take_projection(self, form: vit_names.Format, view: str, tower: dict[str, Any]) -> None:
    """Puts a projection without bias into `tower`, where it reads the encoder's feature."""
    spec = models.BACKBONES[self._backbone].vit
    assert spec is not None
    kernel = self._tensors.get(form.projection)
    if kernel is None:
      if spec.pooling in ("pooler", "map"):
        # The feature of VideoPrism's video-text networks and of SigLIP lies in the
        # space of their texts as it is.
        identity, bias = np.eye(spec.width, dtype=np.float32), np.zeros(spec.width, np.float32)
        tower["projection"] = {"kernel": identity, "bias": bias}
        self.report.new["projection"] = "the identity"
      return
    self._used.add(form.projection)
    if kernel.ndim != 2 or len(kernel) != spec.width:
      self.report.skip(f"projection of {kernel.shape}, not of {spec.width} rows", form.projection)
      return
    bias = np.zeros(kernel.shape[1], np.float32)
    tower["projection"] = {"kernel": kernel.astype(np.float32), "bias": bias}
    self.report.loaded[f"{view}/projection"] = 1

  def _take_probe(self, form: vit_names.Format, view: str, tower: dict[str, Any]) -> dict[str, Any]:
    """Puts a probe into `tower`, with what reads it.

    Returns:
      What the card says of it; {} where there is none.
    """
    form = dataclasses.replace(form, arrays=form.probe)
    query = vit_names.find(form, f"queries/{vit_names.PROBE_TASK}")
    assert query is not None
    if query.name not in self._tensors:
      return {}
    start = query.name.partition(".")[0]
    own = {name for name in self._tensors if name.startswith(f"{start}.")}
    if vit_names.PROBE_TASK not in tower.get("heads", {}):
      self._used |= own
      for name in own:
        self.report.skip("of a probe whose classifier is left behind", name)
      return {}
    spec = models.BACKBONES[self._backbone].vit
    assert spec is not None
    depth = 1 + vit_arrays.blocks(form, self._tensors)[0]
    shapes = _probe_shapes(self._backbone, depth)
    found = vit_arrays.read(form, spec, shapes, self._tensors)
    self._used |= found.used
    self._wrong["missing in the file"] += found.missing
    self._wrong["of another shape"] += found.other_shapes
    tower["probe"] = weight_files.unflatten(found.arrays)
    self.report.loaded[f"{view}/probe"] = len(found.arrays)
    return {"head": "attentive", "probe_depth": depth, "probe_heads": models.ProbeOptions.heads}

  def _encoder(self, family: str) -> list[dict]:
    """The encoder's parameters and statistics, nested."""
    trees = []
    for expected in _expected(self._backbone):
      filled = {}
      theirs = names.encoder_names(self._backbone, family, expected)
      for ours, shape in expected.items():
        name = theirs[ours]
        if name not in self._tensors:
          self._wrong["missing in the file"].append(name)
          continue
        self._used.add(name)
        value = self._tensors[name]
        if len(shape) == 5 and value.ndim == 4:
          self.report.inflated.append(name)
          value = _inflated(value, shape[0])
        value = to_ours(value, len(shape))
        if value.shape != shape:
          wanted = to_theirs(np.empty(shape)).shape
          text = f"{name} {self._tensors[name].shape}, wanted {wanted}"
          self._wrong["of another shape"].append(text)
          self._hint = self._hint or _kernel_hint(ours, value, self._backbone)
          continue
        filled[ours] = value
      trees.append(weight_files.unflatten(filled))
    return trees

  def _belongs_to(self, name: str, view: str) -> bool:
    """Whether an array is of this view's tower or heads."""
    if re.match(r"s\d(_fuse)?_t\." if view == types.EXO else r"s\d(_fuse)?\.", name):
      return True
    return any(name in (h.weight, h.bias) and h.view == view for h in self._heads)

  def _take_heads(
    self, view: str, origin: str, tower: dict[str, Any]
  ) -> dict[names.Head, list[str]]:
    """Puts class heads and projection into `tower`.

    Returns:
      The class heads that came along, with the names of their classes.
    """
    taken: dict[names.Head, list[str]] = {}
    tower["heads"] = {}
    for head in self._heads:
      if head.weight not in self._tensors or head.view not in ("", origin or view):
        continue
      self._used.update((head.weight, head.bias))
      if head.bias not in self._tensors:
        self._wrong["missing in the file"].append(head.bias)
        self._hint = (
          f"{head.weight} comes without its bias. Leave the head behind with"
          f" --skip='{re.escape(head.weight)}'."
        )
        continue
      if head.task and head.task in tower["heads"]:
        raise ValueError(
          f"The file has two heads for {view}/{head.task}, the second is"
          f" {head.weight!r}; leave one behind with --skip=PATTERN."
        )
      weight, bias = self._tensors[head.weight], self._tensors[head.bias]
      # Caffe2 keeps linear layers as they are; PyTorch's fully convolutional
      # ones have trailing ones.
      weight = weight.reshape(weight.shape[0], -1)
      fast = head.fast_first and names.network_spec(self._backbone).fast
      if fast:
        weight = np.roll(weight, -fast.widths[-1], axis=1)
      layer = {"kernel": to_ours(weight, 2), "bias": to_ours(bias, 1)}
      if not head.task:
        tower["projection"] = layer
        self.report.loaded[f"{view}/projection"] = 2
        continue
      class_names, problem = self._class_names(head, view, len(bias))
      if problem and self._options.head == "error":
        raise ValueError(
          f"{problem}, and --head=error asks for a fit. Give the data set that"
          " has these classes, or --head=reinit to train a new head."
        )
      if problem and self._options.head == "reinit":
        for name in (head.weight, head.bias):
          self.report.skip(f"head of other classes ({problem})", name)
        continue
      tower["heads"][head.task] = layer
      taken[head] = class_names
      self.report.loaded[f"{view}/heads/{head.task}"] = 2
    if not tower["heads"]:
      del tower["heads"]
      self.report.initialised.append(f"{view}/heads")
    return taken

  def _class_names(self, head: names.Head, view: str, count: int) -> tuple[list[str], str]:
    """The names of a head's classes, and what is wrong with it, if anything."""
    wanted = self._options.classes.get(view, {}).get(head.task)
    if wanted is not None and len(wanted) == count:
      return list(wanted), ""
    saved = self._card.get("tasks", {}).get(head.view, {}).get(head.task)
    if wanted is None and saved is not None:
      return list(saved), ""
    labels = [self._config.id2label.get(str(i), "LABEL_") for i in range(count)]
    named = len(set(labels)) == count and not any(x.startswith("LABEL_") for x in labels)
    if wanted is None and named:
      return labels, ""
    reason = "classes without names" if wanted is None else f"classes, the data set {len(wanted)}"
    return [f"class {i}" for i in range(count)], f"{head.weight} has {count} {reason}"

  def _frame_count(self, entry: models.Backbone) -> int:
    """Frames of a clip; without a table of positions, what the network was tuned with."""
    given = self._config.frames_per_clip
    if entry.vit and entry.vit.positions.startswith("rotary") and given:
      return given - given % entry.frames_multiple or entry.num_frames
    return entry.num_frames

  def _make_card(
    self,
    params: Mapping[str, Any],
    heads: Mapping[str, Mapping[names.Head, list[str]]],
    network: Mapping[str, Any],
    normalization: str,
    crop_size: int,
  ) -> dict[str, Any]:
    """What `build.Trainer.card` says of a trained checkpoint, and more."""
    options, old = self._options, self._card
    if options.pool_window >= 0:
      window = options.pool_window
    else:
      window = old.get("network", {}).get("pool_window", network.get("pool_window", 0))
    entry = models.BACKBONES[self._backbone]
    order = {
      view: options.channel_order
      or old.get("pixels", {}).get(view, {}).get("channel_order")
      or next((head.channel_order for head in own), "RGB")
      for view, own in heads.items()
    }
    mean, std = types.NORMALIZATIONS[normalization]
    frames = old.get("frames", {})
    known_fps = next((head.fps for own in heads.values() for head in own), 30.0)
    rates = {
      view: options.fps
      or frames.get("fps_by_view", {}).get(view)
      or frames.get("fps")
      or next((head.fps for head in own), known_fps)
      for view, own in heads.items()
    }
    biases = [tower["projection"]["bias"] for tower in params.values() if "projection" in tower]
    dim = len(biases[0]) if biases else None
    return {
      "stage": "joint" if types.EGO in params else "exo",
      "backbone": self._backbone,
      "embedding_dim": dim,
      "tasks": {v: {head.task: own[head] for head in own} for v, own in heads.items()},
      "kinds": {v: {head.task: head.kind for head in own} for v, own in heads.items()},
      "pixels": {
        view: dataclasses.asdict(
          models.PixelSpec.from_json(
            {
              "mean": mean,
              "std": std,
              **old.get("pixels", {}).get(view, {}),
              "channel_order": order[view],
            }
          )
        )
        for view in params
      },
      "frames": {
        "count": self._frame_count(entry),
        "stride": frames.get("stride", entry.stride),
        **({"sampling": frames["sampling"]} if frames.get("sampling") else {}),
        "crop_size": frames.get("crop_size", crop_size),
        "fps": rates.get(types.EGO) or next(iter(rates.values()), known_fps),
        # The towers of one file may have seen other rates: 60 for EPIC, 24 for LEMMA.
        **({"fps_by_view": rates} if len(set(rates.values())) > 1 else {}),
        # Those of the clips that a run of ours was trained on.
        **({"rates": frames["rates"]} if frames.get("rates") else {}),
      },
      "network": {
        **network,
        # The released projections of SUM-L were trained on unit features.
        "projection_prenorm": old.get("network", {}).get(
          "projection_prenorm", dim is not None and self._form is None
        ),
        "pool_window": window,
      },
      "data": {"ego": None, "exo": [], "narrations": None, "text_model": None},
      "config": old.get("config", "{}"),
      "versions": {"converted_from": self._file.path.name, "container": self._file.container},
    }


def _network_facts(backbone: str, families: Iterable[str]) -> dict[str, Any]:
  """What a card says of a network of one or two pathways."""
  spec = names.network_spec(backbone)
  return {
    "alpha": spec.alpha,
    "fusion_kernel": spec.fusion_kernel,
    "fusion_norm": spec.fusion_norm,
    "bn_epsilon": norm.EPSILON,
    "pool_window": names.pool_window(backbone, families),
  }


def _kernel_hint(ours: str, value: np.ndarray, backbone: str) -> str:
  """The fusion kernel tells 8x8 (7 frames at depth 50) from 4x16 (5)."""
  if not ours.startswith("fusion/") or value.ndim != 5:
    return ""
  own = names.network_spec(backbone)
  for model, name in choices.MODELS.items():
    spec = names.network_spec(name)
    same_kind = spec.fast and (spec.slow, spec.fusion_norm) == (own.slow, own.fusion_norm)
    if same_kind and spec.fusion_kernel == value.shape[0]:
      return f"Its fusion kernels span {value.shape[0]} frames: choose --model={model}."
  return ""


@dataclasses.dataclass(frozen=True)
class _ExportedFrames:
  count: checked_json.Count | None = None
  stride: checked_json.Count | None = None
  sampling: Literal["", "stride", "parts"] = ""
  crop_size: checked_json.Count | None = None
  fps: checked_json.Positive | None = None
  fps_by_view: dict[str, checked_json.Positive] = dataclasses.field(default_factory=dict)
  rates: list[checked_json.Positive] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Exported:
  """What a card holds that `export` wrote, as far as it is read again."""

  tasks: dict[str, dict[str, list[str]]] = dataclasses.field(default_factory=dict)
  pixels: dict[str, checked_json.Object] = dataclasses.field(default_factory=dict)
  frames: _ExportedFrames = _ExportedFrames()
  network: checked_json.Object = dataclasses.field(default_factory=dict)
  head_names: dict[str, tuple[str, str, str]] = dataclasses.field(default_factory=dict)
  exported_views: list[str] = dataclasses.field(default_factory=list)
  config: str = "{}"


@dataclasses.dataclass(frozen=True)
class _TheirConfig:
  """What a config of transformers says, as far as it is read."""

  crop_size: checked_json.Index = 0
  frames_per_clip: checked_json.Index = 0
  id2label: dict[str, str] = dataclasses.field(default_factory=dict)


def _read_config(file: files.WeightFile) -> _TheirConfig:
  """The config of transformers beside the arrays; empty where there is none."""
  try:
    return checked_json.check(dict(file.config), _TheirConfig)
  except checked_json.JsonError as error:
    raise ValueError(
      f"The config.json beside {file.path} is damaged: {error}. Download it again, or give the file"
      " of weights itself."
    ) from error


def _read_card(file: files.WeightFile) -> dict[str, Any]:
  """The card beside the arrays; empty where somebody else wrote the file."""
  if not file.card:
    return {}
  try:
    card = checked_json.decode(file.card, checked_json.Object)
    checked_json.check(card, _Exported)
    return card
  except checked_json.JsonError as error:
    raise ValueError(
      f"The card in {file.path} is damaged: {error}. Export the weights again."
    ) from error


def _known_heads(card: Mapping[str, Any], form: vit_names.Format | None) -> list[names.Head]:
  """The heads of published files, and those that a card of ours names."""
  own = [
    names.Head.of(view, task, name, kind=kind)
    for name, (view, task, kind) in card.get("head_names", {}).items()
  ]
  taken = {head.weight for head in own}
  known = names.HEADS if form is None else names.TRANSFORMER_HEADS if form.heads else ()
  return own + [head for head in known if head.weight not in taken]


def convert(file: files.WeightFile, options: Options) -> tuple[weight_files.Weights, Report]:
  """Turns a file's arrays into weights that a run can start from.

  Args:
    file: the published weights.
    options: what the user decides.

  Returns:
    The weights, with a card that says what pixels and frames they need, and
    what happened to every array.

  Raises:
    ValueError: anything is missing, left over or of another shape; the error
      names all of it.
  """
  conversion = _Conversion(file, options)
  return conversion.weights(), conversion.report


def _export_name(view: str, tasks: Mapping[str, int], index: int) -> str:
  """The name of a class head where the networks of this family look for it."""
  counts: tuple[int, ...] = tuple(tasks.values())
  if view == types.EXO:
    return f"head_lemma.projections.{index}"
  known: dict[tuple[int, ...], str] = {(125, 352): "headepic", (97, 300): "headepic100"}
  if len(counts) > 1:
    return f"{known.get(counts, 'head')}.projections.{index}"
  return "headcharades-ego.projection" if counts == (157,) else "head.projection"


def export(
  weights: weight_files.Weights, views: Sequence[str]
) -> tuple[dict[str, np.ndarray], str]:
  """Gives our weights PySlowFast's names and layouts; `convert` undoes it.

  Args:
    weights: weights of an encoder that has a PyTorch counterpart.
    views: views whose towers are written; the exo tower beside an ego one gets
      the SUM-L authors' suffix `_t`.

  Returns:
    The arrays by name, and the card as JSON.

  Raises:
    ValueError: there is no counterpart, or a view is not there.
  """
  of_views = {view: weight_files.backbone_of(weights.card, view) for view in views}
  if len(set(of_views.values())) > 1:
    raise ValueError(
      f"{weights.source} has an encoder of its own kind in each view ({of_views}), and a file of"
      " PySlowFast is for one network: choose a view with --view."
    )
  backbone = next(iter(of_views.values()))
  theirs = [name for name in choices.MODELS.values() if names.network_spec(name).fusion_norm]
  if backbone not in theirs:
    raise ValueError(
      f"{weights.source} holds a {backbone!r}, which has no PyTorch"
      f" counterpart in PySlowFast; there is one of {sorted(theirs)}."
    )
  if any("probe" in weights.params.get(view, {}) for view in views):
    raise ValueError(
      f"The class heads of {weights.source} read a probe (config.model.head), which PySlowFast's"
      " networks lack. Export the encoder alone: `python -m data_prep export_weights"
      " --encoder_only` first."
    )
  out, head_names = {}, {}
  for view in views:
    tower = weights.params.get(view, {})
    if "encoder" not in tower:
      own = sorted(v for v, t in weights.params.items() if "encoder" in t)
      raise ValueError(
        f"{weights.source} has no encoder of its own for view {view!r}; it has {own}."
      )
    family = "sum_l_exo" if view == types.EXO and len(views) > 1 else "pyslowfast"
    for tree in (weights.params, weights.stats):
      flat = weight_files.flatten(tree[view]["encoder"])
      for ours, name in names.encoder_names(backbone, family, flat).items():
        out[name] = to_theirs(flat[ours])
    kinds = weights.card["kinds"].get(view, {})
    # In the order of the label sets: verb before noun.
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
  if "network" not in card:  # It was trained here, so that its config knows.
    settings = json.loads(card["config"])
    card["network"] = {
      "projection_prenorm": settings["model.projection_prenorm"] == "true",
      "pool_window": models.BACKBONES[backbone].pool_window(
        settings["eval.pool_window"],
        train_crop=settings.get(f"{views[0]}.frames.crop_size") or settings["frames.crop_size"],
        test_crop=weight_files.frames_of(card, views[0])["crop_size"],
      ),
    }
  return out, json.dumps(card)
