"""Weights in files, and networks that start from them.

There are three sources: a run's workdir, one stage's checkpoint folder, and an
`.npz` file (flat names, no pickle). Each has parameters and BatchNorm
statistics by view, and a card that says what they are for. Of a workdir or folder
the last checkpoint is meant, and `<folder>/best` means the best one (`best`).
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import json
from typing import Any
from typing import Literal
from typing import get_type_hints

from absl import logging
from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp

from sum_l_jax import types
from sum_l_jax.checkpoint import best
from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import low_rank
from sum_l_jax.checkpoint import tensorstore_retries
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import npz_files
from sum_l_jax.system import sharding
from sum_l_jax.system import storage

Tree = dict[str, Any]
CHECKPOINT_FOLDER = "checkpoints"
# After a workdir or folder, as in "runs/demo/best".
BEST = "best"
# Stages whose weights a workdir may have; the last one is looked for first.
_STAGES = ("joint", "exo")


@dataclasses.dataclass(frozen=True)
class Weights:
  """Parameters, statistics and card of a source.

  Attributes:
    params: parameters by view, nested dicts of numpy arrays.
    stats: BatchNorm statistics by view, likewise.
    card: tasks with class names, pixels, frames and config, see `build`.
    source: where they came from, for messages.
    step: step of the checkpoint; None for a file of weights.
  """

  params: Tree
  stats: Tree
  card: dict[str, Any]
  source: str
  step: int | None = None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Lists the leaves of nested mappings by `a/b/c` names.

  Flax has this, but only `models/` and `train/state.py` know Flax. JAX's trees
  can be flattened with names, but there is no way back from the names.
  """
  out = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      out.update(flatten(value, f"{prefix}{key}/"))
    else:
      out[prefix + key] = value
  return out


def unflatten(flat: Mapping[str, Any]) -> Tree:
  """The inverse of `flatten`."""
  tree: Tree = {}
  for name, value in flat.items():
    *parents, last = name.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = value
  return tree


def _without(tree: Mapping[str, Any], other: Mapping[str, Any]) -> Tree:
  """The leaves of a tree that another one has not."""
  left: Tree = {}
  for name, node in tree.items():
    if name not in other:
      left[name] = node
    elif isinstance(node, Mapping) and (part := _without(node, other[name])):
      left[name] = part
  return left


def _with(tree: Mapping[str, Any], other: Mapping[str, Any]) -> Tree:
  """A tree with the leaves of another one in it."""
  added = {
    name: _with(tree.get(name, {}), node) if isinstance(node, Mapping) else node
    for name, node in other.items()
  }
  return {**tree, **added}


def _steps(folder: epath.Path) -> list[int]:
  """Steps of the checkpoints in a folder; a number may also name a run."""
  return [step for step in integrity.steps(folder) if integrity.is_checkpoint(folder / str(step))]


@dataclasses.dataclass(frozen=True)
class _Pixels:
  """The fields of `models.PixelSpec`."""

  channel_order: Literal["RGB", "BGR"] = "RGB"
  mean: tuple[checked_json.Finite, checked_json.Finite, checked_json.Finite] = (0.45, 0.45, 0.45)
  std: tuple[checked_json.Positive, checked_json.Positive, checked_json.Positive] = (1.0, 1.0, 1.0)


# The literals of `types.FRAME_SAMPLING`.
_Sampling = Literal["stride", "parts"]


@dataclasses.dataclass(frozen=True)
class _ViewFrames:
  count: checked_json.Count
  stride: checked_json.Count
  crop_size: checked_json.Count
  sampling: _Sampling = types.BY_STRIDE


@dataclasses.dataclass(frozen=True)
class Frames:
  """What a card says of the frames that the network takes.

  Attributes:
    count: number of frames, T.
    stride: stored frames between two of them.
    crop_size: pixels of a side.
    fps: stored frames a second; with two views, that of ego.
    sampling: whether frames are a stride apart, or one of each of equal parts.
    rates: rates of the clips that a run was trained on.
    fps_by_view: rate of each view, where they differ.
    by_view: number, distance and pixels of a view's frames, where they are others.
  """

  count: checked_json.Count
  stride: checked_json.Count
  crop_size: checked_json.Count
  fps: checked_json.Positive
  sampling: _Sampling = types.BY_STRIDE
  rates: tuple[checked_json.Positive, ...] = ()
  fps_by_view: dict[Literal["ego", "exo"], checked_json.Positive] = dataclasses.field(
    default_factory=dict
  )
  by_view: dict[Literal["ego", "exo"], _ViewFrames] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Network:
  """What converted weights say of their network."""

  projection_prenorm: bool = False
  head: Literal["linear", "attentive", "pooler"] = "linear"
  probe_depth: checked_json.Count = 4
  probe_heads: checked_json.Count = 16
  pool_window: checked_json.Index = 0


@dataclasses.dataclass(frozen=True)
class _FeatureEncoder:
  name: checked_json.Name
  weights: str
  source: str = ""


@dataclasses.dataclass(frozen=True)
class _Features:
  """What a card says of features that a view was trained on."""

  encoder: _FeatureEncoder


@dataclasses.dataclass(frozen=True)
class _Card:
  """The fields of a card that other modules read."""

  backbone: checked_json.Name
  tasks: dict[str, dict[str, list[str]]]
  kinds: dict[str, dict[str, Literal["softmax", "multi_label"]]]
  pixels: dict[str, _Pixels]
  frames: Frames
  backbones: dict[Literal["ego", "exo"], checked_json.Name] = dataclasses.field(
    default_factory=dict
  )
  stage: str = ""
  embedding_dim: checked_json.Count | None = None
  lora_alpha: checked_json.Positive | None = None
  features: dict[Literal["ego", "exo"], _Features] = dataclasses.field(default_factory=dict)
  network: _Network = _Network()
  data: checked_json.Object = dataclasses.field(default_factory=dict)
  versions: checked_json.Object = dataclasses.field(default_factory=dict)
  config: str = "{}"


# The parts of a probe that belong to single readers.
_QUERIES = ("queries", "projection_query")

_NO_CARD = "Copy the weights again, or make them again with the command that wrote them."
_LAST = (
  "For the last checkpoint give the folder without '/best', or --config.eval.checkpoint=last for"
  " the evaluation of a run"
)


def _check_types(card: Mapping[str, Any], source: str) -> None:
  """Raises ValueError where a field of a card has a wrong type."""
  hints = get_type_hints(_Card, include_extras=True)
  for name in card.keys() & hints.keys():
    try:
      checked_json.check(card[name], hints[name])
    except checked_json.JsonError as error:
      raise ValueError(f"The card of {source} is damaged: {name}: {error}. {_NO_CARD}") from error


def check_card(card: Mapping[str, Any], source: str = "the weights", view: str = "") -> None:
  """Makes sure that a card says all that a network is made of.

  Args:
    card: card of a checkpoint.
    source: where it comes from, for the error text.
    view: view that is to be scored; "" for none.

  Raises:
    ValueError: a field is missing or of another kind; names it.
  """
  try:
    checked_json.check(dict(card), _Card)
  except checked_json.JsonError as error:
    raise ValueError(f"The card of {source} is damaged: {error}. {_NO_CARD}") from error
  tasks = card["tasks"].get(view, {})
  known = view in card["tasks"] and view in card["pixels"]
  if view and (not known or tasks.keys() - card["kinds"].get(view, {}).keys()):
    raise ValueError(
      f"The card of {source} is damaged: it has the tasks {sorted(tasks)} of view {view!r}"
      f" without their kinds or pixels, or none. {_NO_CARD}"
    )


def backbone_of(card: Mapping[str, Any], view: str) -> str:
  """Name of a view's encoder; a card has names by view where they differ."""
  return card.get("backbones", {}).get(view, card["backbone"])


def frames_of(card: Mapping[str, Any], view: str) -> dict[str, Any]:
  """The fields of `Frames` for one view: what a card says of all, and of the view."""
  said = dict(card["frames"])
  rates, own = said.pop("fps_by_view", {}), said.pop("by_view", {})
  if view in rates:
    said["fps"] = rates[view]
  return said | own.get(view, {})


def find_checkpoint(path: addresses.PathLike) -> epath.Path:
  """Finds the step folder that a workdir, stage or checkpoint path means.

  It is the last one, or the best one where the path ends in "best" and there is no
  folder of that name.

  Raises:
    FileNotFoundError: there is no checkpoint.
  """
  path = addresses.absolute(path)
  if path.name.isdigit() and integrity.is_checkpoint(path):
    return path
  for folder in _folders(path):
    steps = _steps(folder)
    if steps:
      return folder / str(steps[-1])
  if path.name == BEST:
    return _find_best(path.parent)
  raise FileNotFoundError(
    f"No checkpoint in {str(path)!r}. Give a workdir, its"
    " <stage>/checkpoints folder, one step folder, or an .npz file."
  )


def _folders(path: epath.Path) -> list[epath.Path]:
  """Folders in which the checkpoints of a path may be, in this order."""
  stages = [path / stage / CHECKPOINT_FOLDER for stage in _STAGES]
  return [path, path / CHECKPOINT_FOLDER, *stages]


def _find_best(path: epath.Path) -> epath.Path:
  """The best checkpoint of a workdir, stage or folder of checkpoints.

  Raises:
    FileNotFoundError: there is none, or it is not there any more.
    ValueError: what says which it is is damaged.
  """
  for folder in _folders(path):
    found = best.read(folder)
    if found is None or found.step is None:
      continue
    if not integrity.is_checkpoint(folder / str(found.step)):
      raise FileNotFoundError(
        f"{folder / best.FILE} says that step {found.step} is the best, but there is no such"
        f" checkpoint beside it. There are those of the steps {_steps(folder)}. {_LAST}, or copy"
        f" the folder {found.step} back."
      )
    return folder / str(found.step)
  raise FileNotFoundError(
    f"{str(path)!r} has no best checkpoint: its training has judged no evaluation by a metric,"
    f" which --config.checkpoint.best=eval/validation/verb_top1 would name. {_LAST}."
  )


def which(folder: epath.Path) -> dict[str, Any]:
  """Says which checkpoint of its stage a step folder is.

  Args:
    folder: what `find_checkpoint` found.

  Returns:
    `last` and `best`, whether it is that one; and `best_metric`, `best_value` and
    `best_step` of the best one, where a metric was to choose it.
  """
  steps, known = _steps(folder.parent), best.read(folder.parent)
  said: dict[str, Any] = {"last": bool(steps) and folder.name == str(steps[-1])}
  if known is not None and known.step is not None:
    said |= {"best": folder.name == str(known.step), "best_metric": known.metric}
    said |= {"best_value": known.value, "best_step": known.step}
  return said


def file_digest(path: addresses.PathLike) -> str:
  """Digest of a source's contents, wherever it lies; "" if it isn't there.

  Args:
    path: workdir, stage or checkpoint folder, or `.npz` file.
  """
  path = addresses.path(path)
  try:
    file = path if storage.is_file(path) else find_checkpoint(path) / integrity.MANIFEST
    return storage.sha256(file)[:16]
  except FileNotFoundError:
    return ""


def _read_npz(path: epath.Path) -> Weights:
  try:
    _, flat = npz_files.load(path)
    card = flat.pop("card", None)
    card = None if card is None else checked_json.decode(str(card), checked_json.Object)
    tree = unflatten(flat)
  except npz_files.TooLargeError:
    raise
  except npz_files.DAMAGED as error:
    raise ValueError(
      f"{path} can't be read as a weights file ({error}). Copy it again, or"
      " make it again with `python -m data_prep.export_weights`."
    ) from error
  if not isinstance(card, dict) or not all(
    isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in flat.values()
  ):
    card = None
  if card is None or set(tree) - {"params", "stats"} or "params" not in tree:
    raise ValueError(
      f"{path} is not a weights file: it must hold 'card', 'params/...' and"
      f" 'stats/...', has {sorted(flat)[:5]}. Files come from"
      " `python -m data_prep.export_weights`."
    )
  _check_types(card, str(path))
  as_float32 = lambda part: jax.tree.map(lambda x: x.astype(np.float32), part)
  return Weights(as_float32(tree["params"]), as_float32(tree.get("stats", {})), card, str(path))


def read_card(path: addresses.PathLike) -> dict[str, Any]:
  """Reads the card of a checkpoint, without its arrays.

  Args:
    path: workdir, stage or checkpoint folder.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: its card is damaged.
  """
  return _read_meta(find_checkpoint(path))


def _read_meta(folder: epath.Path) -> dict[str, Any]:
  handler: Any = ocp.JsonCheckpointHandler()
  try:
    meta = handler.restore(folder / "meta")
    meta = checked_json.decode(json.dumps(meta), checked_json.Object)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"The card of {folder} is damaged: {error}. {_NO_CARD}") from error
  _check_types(meta, str(folder))
  return meta


def read_weights(
  path: addresses.PathLike, *, views: Collection[str] = types.VIEWS, averaged: bool = True
) -> Weights:
  """Reads parameters and statistics to the host, without the optimizer.

  Low-rank updates are added to the kernels that they belong to, see `low_rank`.

  Args:
    path: workdir, stage or checkpoint folder, or `.npz` file.
    views: views that are needed; of a checkpoint the others aren't read. One that
      has none of them is read whole.
    averaged: whether moving averages stand in the place of parameters where a
      checkpoint has them.

  Raises:
    FileNotFoundError: there are no weights.
    ValueError: the file isn't one of weights, or the checkpoint is damaged.
  """
  path = addresses.path(path)
  if path.suffix == ".npz":
    if not storage.is_file(path):
      raise FileNotFoundError(f"No weights file {str(path)!r}.")
    return _read_npz(path)
  folder = find_checkpoint(path)
  integrity.check(folder)
  meta = _read_meta(folder)
  if "probes" in meta:
    raise ValueError(
      f"{folder} holds the states of {len(meta['probes'])} probes at once. The best of them is in"
      f" {folder.parents[2]} once the run is complete; give that."
    )
  tensorstore_retries.limit()
  # The handlers are used directly: a Checkpointer around them warns that the
  # item has no metadata of its own, which a manager's items never have. They are
  # Any, since they take paths of pathlib, whatever their types say.
  handler: Any = ocp.PyTreeCheckpointHandler()
  tree = handler.metadata(folder / "state").tree
  left_out = set(types.VIEWS) - set(views)
  if not tree["params"].keys() - left_out:
    left_out = set()
  wanted = {
    name: {view: part for view, part in tree[name].items() if view not in left_out}
    for name in ("params", "stats", *(["ema"] if averaged else []))
    if name in tree
  }
  if "ema" in wanted:  # What is averaged would be read twice.
    wanted["params"] = _without(wanted["params"], wanted["ema"])
    wanted = {name: tree for name, tree in wanted.items() if tree}
  restored = handler.restore(
    folder / "state",
    args=ocp.args.PyTreeRestore(
      item=wanted,
      restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted),
      partial_restore=True,
    ),
  )
  params = _with(restored.get("params", {}), restored.get("ema", {}))
  params, meta = low_rank.merge(params, meta, str(folder))
  return Weights(params, restored.get("stats", {}), meta, str(folder), step=int(folder.name))


def weights_sha256(weights: Weights, view: str) -> str:
  """Hashes one view's arrays, alike for every file that holds them.

  It is the SHA-256 over the parameters and statistics of the view, projection
  included, in the order of their names `params/<view>/...` and
  `stats/<view>/...`. Each contributes a line of JSON, `[name, dtype, shape]`,
  and its bytes, little-endian in C order. The optimizer, the step and the card
  do not count, so a checkpoint and the `.npz` exported from it agree; one
  exported with --encoder_only does not.

  Args:
    weights: the weights.
    view: "ego" or "exo".

  Returns:
    64 hexadecimal digits.

  Raises:
    ValueError: there are no arrays of this view.
  """
  trees = {"params": weights.params, "stats": weights.stats}
  flat = flatten({part: {view: tree[view]} for part, tree in trees.items() if view in tree})
  if not flat:
    raise ValueError(
      f"{weights.source} has no arrays of view {view!r}; it has {sorted(weights.params)}."
    )
  digest = hashlib.sha256()
  for name in sorted(flat):
    array = np.asarray(flat[name])
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    head = [name, array.dtype.name, list(array.shape)]
    digest.update(json.dumps(head).encode() + b"\n")
    digest.update(array.tobytes(order="C"))
  return digest.hexdigest()


def features_of(weights: Weights, view: str) -> dict[str, Any] | None:
  """What the card says of the stored features that a view was trained on, if it was."""
  return weights.card.get("features", {}).get(view)


def require_encoder(weights: Weights, view: str) -> None:
  """Makes sure that a view reads frames.

  Raises:
    ValueError: it was trained on stored features, and its encoder isn't there.
  """
  features = features_of(weights, view)
  if features is None:
    return
  encoder = features["encoder"]
  source = f", which came from {encoder['source']!r}" if encoder.get("source") else ""
  raise ValueError(
    f"The {view} view of {weights.source} was trained on stored features and has no encoder. Put"
    f" {encoder['name']!r} in front of it, whose weights have the fingerprint"
    f" {encoder['weights']!r}{source}: `python -m data_prep export_weights --checkpoint=RUN"
    f" --{view}_encoder=WEIGHTS --output=FILE.npz`, and give FILE.npz."
  )


def require_view(weights: Weights, view: str, *, stored: bool = False) -> None:
  """Makes sure that a view can be scored.

  Args:
    weights: the weights.
    view: "ego" or "exo".
    stored: whether it is scored on stored features, which need no encoder.

  Raises:
    ValueError: no encoder of this view, its own or a shared one, or no trained
      head on it.
  """
  if not stored:
    require_encoder(weights, view)
  tower = weights.params.get(view, {})
  # An exo tower may share the ego encoder.
  shared = bool(tower) and "encoder" in weights.params.get("ego", {})
  if "encoder" not in tower and not shared and not (stored and tower):
    advice = "Give a checkpoint of the joint stage."
    if view != types.EGO:  # The joint stage of a method without exo clips lacks it too.
      advice = f"Give a checkpoint that was trained on {view} clips, or clips of another view."
    raise ValueError(
      f"{weights.source} has no {view} encoder: it is of stage"
      f" {weights.card['stage']!r} and has {sorted(weights.params)}. {advice}"
    )
  if not tower.get("heads"):
    raise ValueError(
      f"{weights.source} has an {view} encoder but no class head, so there"
      " is nothing to predict with. Train from it with"
      f" --config.init.{view}, or convert the weights again with"
      " --head=keep."
    )


def check_trained_with(weights: Weights, *facts: tuple[str, Any, Any]) -> None:
  """Makes sure that a config is the one that weights were trained with.

  Args:
    weights: the weights.
    *facts: name of a setting, what the card says, and what the config says.

  Raises:
    ValueError: the two differ.
  """
  for name, saved, given in facts:
    if saved != given:
      raise ValueError(
        f"{weights.source} was trained with {name} = {saved}, the config"
        f" says {given}. Use the config it was trained with."
      )


def write_weights(path: addresses.PathLike, weights: Weights) -> None:
  """Writes an `.npz` file that `read_weights` reads, whole or not at all."""
  flat = flatten({"params": weights.params, "stats": weights.stats})
  arrays = {name: np.asarray(value) for name, value in flat.items()}
  npz_files.write_npz(path, card=np.array(json.dumps(weights.card)), **arrays)


def _graft_part(target: Tree, source: Tree, where: str) -> Tree:
  """Returns the arrays of `source` in the place of those of `target`.

  Low-rank updates (LoRA) that the source does not have keep their values.

  Raises:
    ValueError: names or shapes differ.
  """
  have, want = flatten(source), flatten(target)
  new = {name for name in want.keys() - have.keys() if low_rank.is_update(name)}
  have |= {name: want[name] for name in new}
  missing = sorted(want.keys() - have.keys())
  left_over = sorted(have.keys() - want.keys())
  shapes = [
    f"{name}: {have[name].shape} in the file, {want[name].shape} in the network"
    for name in sorted(want.keys() & have.keys())
    if have[name].shape != want[name].shape
  ]
  if missing or left_over or shapes:
    raise ValueError(
      f"Starting weights do not fit {where}: {len(missing)} missing"
      f" {missing[:4]}, {len(left_over)} left over {left_over[:4]},"
      f" {len(shapes)} of another shape {shapes[:4]}. The file belongs to"
      " another architecture: check config.model.backbone."
    )
  return unflatten({name: np.asarray(have[name], np.float32) for name in want})


def _compare_pixels(weights: Weights, origin: str, view: str, pixels: Mapping[str, str]) -> None:
  saved = dict(weights.card.get("pixels", {}).get(origin, {}))
  statistics = [tuple(saved[name]) for name in ("mean", "std") if name in saved]
  for name, known in types.NORMALIZATIONS.items():
    if statistics == list(known):
      saved["normalization"] = name
  for name, given in pixels.items():
    if saved.get(name, given) != given:
      logging.warning(
        "%s was trained on %s pixels, and %s will be trained on %s. Set"
        " --config.%s.%s=%s to give it the pixels that it knows.",
        weights.source,
        saved[name],
        view,
        given,
        view,
        name,
        saved[name],
      )


def _find_head(weights: Weights, view: str, task: str, kind: str) -> str | None:
  """Finds the saved head whose classes are most like those of a task.

  Its name is the task's, with or without the kind: where pools have both kinds
  of a task, the heads are called after them.
  """
  names = weights.card.get("tasks", {}).get(view, {})
  kinds = weights.card.get("kinds", {}).get(view, {})
  saved = weights.params[view].get("heads", {})
  bare = lambda name: name.removesuffix(f"_{kind}")
  found = [n for n in saved if n in names and kinds.get(n) == kind and bare(n) == bare(task)]
  return min(found, key=lambda name: (name != task, name), default=None)


def _graft_columns(target: Tree, source: Tree, columns: Sequence[tuple[int, int]]) -> Tree:
  """Puts single classes of a source's head into a head: pairs of (own, source's)."""
  own, other = (np.array(side, np.int64) for side in zip(*columns)) if columns else ([], [])

  def put(mine: Any, theirs: Any) -> np.ndarray:
    mine = np.array(sharding.fetch(mine), np.float32)
    mine[..., own] = np.asarray(theirs, np.float32)[..., other]
    return mine

  return jax.tree.map(put, target, source) if columns else target


def _graft_probe(target: Tree, source: Tree) -> Tree:
  """A probe with the source's arrays, but for the queries, which go with what reads them."""
  shared = lambda probe: {n: x for n, x in probe.items() if n not in _QUERIES}
  return {**target, **_graft_part(shared(target), shared(source), "the probe")}


def _graft_encoder(
  params: Tree, stats: Tree, weights: Weights, view: str, pixels: Mapping[str, str]
) -> str:
  """Puts the source's encoder into copied trees; returns the view that it is of there."""
  has_encoder = [v for v in types.VIEWS if "encoder" in weights.params.get(v, {})]
  if not has_encoder:
    require_encoder(weights, view)
    raise ValueError(f"{weights.source} has no encoder.")
  origin = view if view in has_encoder else has_encoder[0]
  _compare_pixels(weights, origin, view, pixels)
  params[view]["encoder"] = _graft_part(
    params[view]["encoder"], weights.params[origin]["encoder"], f"{view}/encoder"
  )
  # There is no tree of statistics for an encoder without BatchNorm.
  own = stats.get(view, {}).get("encoder", {})
  saved = weights.stats.get(origin, {}).get("encoder", {})
  if own or saved:
    saved = _graft_part(own, saved, f"the statistics of {view}/encoder")
    stats[view] = {**stats.get(view, {}), "encoder": saved}
  return origin


def graft(
  params: Tree,
  stats: Tree,
  weights: Weights,
  *,
  view: str,
  tasks: Mapping[str, tuple[str, ...]],
  pixels: Mapping[str, str] | None = None,
  kinds: Mapping[str, str] | None = None,
  same_probe: bool = True,
) -> tuple[Tree, Tree]:
  """Starts one view of a network from other weights.

  The encoder comes from the same view of the source, or from its other view if
  that is all it has; every encoder array must be used and filled. A network on
  stored features has none, and takes heads and probe alone. A head is
  taken only from the same view and for the same class names; with `kinds`, also
  class by class from a head of the same task and kind, for the classes that both
  have by name. A probe comes with them, with the queries of these heads. The
  rest keeps its initialisation. The log says what was taken.

  Args:
    params: parameters of the network.
    stats: BatchNorm statistics of the network.
    weights: the source.
    view: tower to fill.
    tasks: class names by task of this view.
    pixels: channel_order and normalization of the pixels that this view will be
      trained on. They may differ from the source's, which the log warns about.
    kinds: kind of each task, where heads may have the classes of several pools
      of clips, here or in the source.
    same_probe: whether the source's heads read what this network's do: the
      pooled feature, or a probe of the same form. Otherwise none is taken.

  Returns:
    Copies of the parameters and statistics, with the source's arrays in them.

  Raises:
    ValueError: the source has no encoder, or one of another architecture; or
      nothing for a network without one.
  """
  params = jax.tree.map(lambda x: x, params)
  stats = jax.tree.map(lambda x: x, stats)
  origin = view
  if "encoder" in params[view]:
    origin = _graft_encoder(params, stats, weights, view, pixels or {})
  elif not {"heads", "probe"} & {*weights.params.get(view, {})}:
    raise ValueError(
      f"{weights.source} has neither heads nor a probe of the {view} view, which is all that a"
      f" tower on stored features could take: leave config.init.{view} empty."
    )
  kept, heads = [], []
  readable = origin == view and same_probe
  probe = weights.params[origin].get("probe", {}) if readable else {}
  queries = probe.get("queries", {})
  if "probe" in params[view] and probe:
    params[view]["probe"] = _graft_probe(params[view]["probe"], probe)
  elif "probe" in params[view]:
    kept.append("probe")
  names = weights.card.get("tasks", {}).get(origin, {})
  for task in params[view].get("heads", {}):
    saved = weights.params[origin].get("heads", {}).get(task)
    same = readable and tuple(names.get(task, ())) == tuple(tasks[task])
    if saved is not None and same:
      params[view]["heads"][task] = _graft_part(
        params[view]["heads"][task], saved, f"{view}/heads/{task}"
      )
      heads.append(task)
      if task in queries:
        params[view]["probe"]["queries"][task] = np.asarray(queries[task], np.float32)
      continue
    kind = kinds.get(task, "") if kinds and readable else ""
    source = _find_head(weights, view, task, kind) if kind else None
    if source is None:
      kept.append(f"heads/{task}")
      continue
    places = {name: place for place, name in enumerate(names[source])}
    columns = [(i, places[name]) for i, name in enumerate(tasks[task]) if name in places]
    params[view]["heads"][task] = _graft_columns(
      params[view]["heads"][task], weights.params[view]["heads"][source], columns
    )
    if source in queries:
      params[view]["probe"]["queries"][task] = np.asarray(queries[source], np.float32)
    heads.append(f"{task} ({len(columns)} of {len(tasks[task])} classes, from {source!r})")
  if "projection" in params[view]:
    kept.append("projection")
  taken = {
    *(["encoder"] if "encoder" in params[view] else []),
    *(["heads"] if heads else []),
    *(["probe"] if probe else []),
  }
  logging.info(
    "%s starts from %s (%s): encoder %d arrays, heads %s; initialised afresh: %s; not taken: %s",
    view,
    weights.source,
    origin,
    len(flatten(params[view].get("encoder", {}))),
    heads or "none",
    kept or "none",
    sorted(weights.params[origin].keys() - taken) or "none",
  )
  return params, stats
