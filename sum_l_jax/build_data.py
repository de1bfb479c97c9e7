"""Opens the training data that settings name, for one stage.

Indices are read, no video. What is missing or belongs to other data is an error that
names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
from typing import Any

from sum_l_jax import build_features
from sum_l_jax import types
from sum_l_jax.config.schema import EXO_STAGE
from sum_l_jax.config.schema import JOINT_STAGE
from sum_l_jax.config.schema import Settings
from sum_l_jax.data import feature_store
from sum_l_jax.data import label_union
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.data import shards
from sum_l_jax.data import transferred_labels
from sum_l_jax.system import addresses
from sum_l_jax.system import storage


@dataclasses.dataclass(frozen=True)
class StageData:
  """The data sets of one stage; a side that the stage does not use is empty.

  Attributes:
    ego: first-person clips, or None.
    exo: pools of third-person clips.
    pairs: which exo clips belong to an ego clip, or None.
    narrations: sentence vectors, or None.
    skip: ids of the clips that are never shown, by view, of the views that have
      a list.
    features: what an encoder made of each data set, by view, of the views that read
      it in the place of frames.
  """

  ego: records.ClipDataset | None
  exo: tuple[records.ClipDataset, ...]
  pairs: pairing.PairTable | None
  narrations: narration_table.NarrationTable | None
  skip: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
  features: Mapping[str, tuple[feature_store.FeatureStore, ...]] = dataclasses.field(
    default_factory=dict
  )

  @property
  def files(self) -> tuple[shards.Shards, ...]:
    """The files that are read: those of features in the place of frames."""
    sources = (self.features.get(view) or pools for view, pools in self.pools.items())
    return tuple(source.shards for of_view in sources for source in of_view)

  @property
  def pools(self) -> dict[str, tuple[records.ClipDataset, ...]]:
    """Data sets by view, of the views that the stage has."""
    views = {types.EGO: (self.ego,) if self.ego else (), types.EXO: self.exo}
    return {view: pools for view, pools in views.items() if pools}

  @property
  def tasks(self) -> dict[str, dict[str, types.Task]]:
    """Label sets by view, of the views that the stage has."""
    return {view: dict(union.tasks) for view, union in self.labels.items()}

  @functools.cached_property
  def labels(self) -> dict[str, label_union.LabelUnion]:
    """How the pools' label sets lie in the heads, by view."""
    return {view: label_union.unite(pools) for view, pools in self.pools.items()}

  @property
  def leading(self) -> records.ClipDataset:
    """The data set whose clips an epoch counts, and that is evaluated."""
    return self.ego or self.exo[0]

  @functools.cached_property
  def fingerprints(self) -> dict[str, Any]:
    """Digests of all that is trained on, as JSON values; paths don't count.

    Those of the clips cover pixels, narrations, labels and classes.
    """
    table = self.narrations
    return {
      "ego": self.ego.fingerprint if self.ego else None,
      "exo": [pool.fingerprint for pool in self.exo],
      "narrations": table.fingerprint if table else None,
      "text_model": table.model if table else None,
      "pairs": self.pairs.fingerprint if self.pairs else None,
      **{
        f"{view}_skip_list": hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]
        for view, ids in self.skip.items()
      },
      **{
        f"{view}_labels": pools[0].relabelled
        for view, pools in self.pools.items()
        if pools[0].relabelled
      },
      **{
        f"{view}_features": list(map(build_features.digest, stores))
        for view, stores in self.features.items()
      },
    }

  @property
  def num_clips(self) -> int:
    """Clips of one epoch."""
    return len(self.ego) if self.ego else sum(map(len, self.exo))


def _required(value: Any, field: str, what: str) -> Any:
  if not value or (isinstance(value, tuple) and "" in value):
    empty = "empty" if not any(value) else f"{value!r}, with an empty name in it"
    raise ValueError(
      f"config.{field} is {empty}: give {what}, as"
      f" --config.{field}=... on the command line or in the config file."
    )
  return value


def _open_ego(settings: Settings) -> records.ClipDataset:
  folder = _required(settings.ego.dataset, "ego.dataset", "the first-person data set's folder")
  split = settings.ego.train_split
  (dataset,) = _relabelled(settings, types.EGO, [records.ClipDataset(folder, split)])
  if not dataset.labelled:
    raise ValueError(
      f"The split {split!r} of {folder!r} has no labels to train on: they were not published, or"
      " the data set was built without any. Build it with a label column, such as verb, that is"
      " filled in for some clips at least; transfer labels by `python -m data_prep pseudo_labels`"
      " and give config.ego.pseudo_labels; or choose another train_split."
    )
  return dataset


def _open_exo(settings: Settings, stage: str) -> tuple[records.ClipDataset, ...]:
  """Opens the pools that have something to say in a stage.

  Stage one trains on labels, so that pools without any are left out. In the
  joint stage they are aligned by their narrations.
  """
  folders = _required(settings.exo.datasets, "exo.datasets", "the third-person data sets' folders")
  split = settings.exo.train_split
  pools = [records.ClipDataset(folder, split) for folder in folders]
  pools = _relabelled(settings, types.EXO, pools)
  labelled = tuple(pool for pool in pools if pool.labelled)
  bare = [str(pool.directory) for pool in pools if not pool.labelled]
  if stage == EXO_STAGE:
    if not labelled:
      raise ValueError(
        f"The exo stage trains on labels, but the split {split!r} of {bare} has none. Take 'exo'"
        " out of config.stages, choose another exo.train_split, or add a pool with labels."
      )
    return labelled
  for pool in pools:
    if not pool.labelled and not pool.narrated:
      raise ValueError(
        f"The split {split!r} of {str(pool.directory)!r} has neither labels nor narrations, so"
        " that there is nothing to align. Choose another exo.train_split, or leave it out of"
        " exo.datasets."
      )
  weights = settings.loss.weights
  if not labelled and weights.exo_cls and not (weights.ego_exo or weights.exo_text):
    raise ValueError(
      "The only exo term of the loss is exo_cls, the classification of exo clips, but the split"
      f" {split!r} of {bare} has no labels. Give loss.weights.ego_exo or exo_text a weight, or"
      " use data with labels."
    )
  return pools


def without_idle_stage(settings: Settings) -> Settings:
  """The settings without stage one where it would have nothing to train.

  Stage one is the classification of exo clips (paper, section 3, step 2), so that it
  needs labels. Exo clips with captions alone are for the joint stage, whose L_m
  trains the exo encoder on them.

  Raises:
    FileNotFoundError, ValueError: an exo data set can't be opened; or the ego
      encoder was to start from stage one.
  """
  if settings.stages != (EXO_STAGE, JOINT_STAGE):
    return settings
  split, folders = settings.exo.train_split, settings.exo.datasets
  if not folders or settings.exo.pseudo_labels:
    return settings
  if any(records.has_labels(records.read_card(folder), split) for folder in folders):
    return settings
  if settings.init.ego == "exo_stage":
    raise ValueError(
      "config.init.ego='exo_stage' starts the ego encoder from stage one, which trains on labels,"
      f" but the exo clips of {', '.join(settings.exo.datasets)} have none. Give other weights."
    )
  return dataclasses.replace(settings, stages=(JOINT_STAGE,))


def _relabelled(
  settings: Settings, view: str, pools: Sequence[records.ClipDataset]
) -> tuple[records.ClipDataset, ...]:
  """The data sets of a view with the labels that were transferred to them, if any."""
  path = settings.view(view).pseudo_labels
  if not path:
    return tuple(pools)
  labels = transferred_labels.TransferredLabels.load(addresses.path(path))
  try:
    return labels.relabel(pools)
  except ValueError as error:
    raise ValueError(f"config.{view}.pseudo_labels={path!r}: {error}") from error


def _skip_lists(settings: Settings, *views: str) -> dict[str, frozenset[str]]:
  """Ids of the clips that are never shown, of the views that have a list."""
  lists = {}
  for view in views:
    path = settings.view(view).skip_list
    if not path:
      continue
    try:
      text = storage.read_text(addresses.path(path), encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
      raise ValueError(
        f"config.{view}.skip_list={path!r} can't be read ({error}). Give the"
        " file that `python -m data_prep.doctor DIR --deep --skip_list=FILE`"
        " wrote (one clip id a line), or leave the field empty."
      ) from error
    lists[view] = frozenset(filter(None, map(str.strip, text.splitlines())))
  return lists


def open_data(settings: Settings, stage: str) -> StageData:
  """Opens the training data of a stage; reads indices, no video.

  Raises:
    FileNotFoundError, ValueError: a path is empty, missing, or belongs to other
      data; names the field.
  """
  if stage == EXO_STAGE:
    exo = _open_exo(settings, stage)
    skip = _skip_lists(settings, types.EXO)
    return StageData(None, exo, None, None, skip, _open_features(settings, None, exo))
  ego = _open_ego(settings)
  if not settings.uses_exo:
    skip = _skip_lists(settings, types.EGO)
    return StageData(ego, (), None, None, skip, _open_features(settings, ego, ()))
  exo = _open_exo(settings, stage)
  narrations = narration_table.NarrationTable.load(
    _required(settings.narrations, "narrations", "the narrations' embeddings")
  )
  pairs = pairing.PairTable.load(_required(settings.pairs.table, "pairs.table", "the mined pairs"))
  pairs.check(ego, exo, narrations)
  skip, features = _skip_lists(settings, *types.VIEWS), _open_features(settings, ego, exo)
  return StageData(ego, exo, pairs, narrations, skip, features)


def _open_features(
  settings: Settings, ego: records.ClipDataset | None, exo: Sequence[records.ClipDataset]
) -> dict[str, tuple[feature_store.FeatureStore, ...]]:
  """Features of the training data by view, of the views that read them."""
  pools = {types.EGO: (ego,) if ego else (), types.EXO: exo}
  found = {
    view: build_features.find_stores(settings, view, own, training=True)
    for view, own in pools.items()
  }
  return {view: stores for view, stores in found.items() if stores}
