"""Builds what evaluation needs from the settings: evaluators and retrieval.

Beside `build.py`, which builds training, the only module through which settings
reach `evaluation/`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools

from absl import logging
import jax

from sum_l_jax import build
from sum_l_jax import build_data
from sum_l_jax import build_features
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import stored_features
from sum_l_jax.config.schema import Settings
from sum_l_jax.data import eval_loader
from sum_l_jax.data import feature_store
from sum_l_jax.data import label_union
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.evaluation.retrieval import retrieval_run
from sum_l_jax.evaluation.retrieval import retrieval_source
from sum_l_jax.models import backbones
from sum_l_jax.system import devices


@dataclasses.dataclass(frozen=True)
class Views:
  """Numbers of test views that a config asks for; 0 is as many as were stored.

  Attributes:
    clips: temporal samples of a clip.
    crops: spatial crops of a temporal sample.
  """

  clips: int
  crops: int

  def of(
    self, settings: Settings, view: str, features: feature_store.FeatureStore | None
  ) -> eval_loader.TestViews:
    """The test views of a data set.

    Args:
      settings: resolved settings.
      view: view of the data set.
      features: its features, where the view reads them.
    """
    if features is None:
      return eval_loader.TestViews(self.clips, self.crops)
    stored = features.card.views
    if stored_features.framed(settings):  # The numbers are those of frames.
      return eval_loader.TestViews(stored.samples, stored.crops)
    return eval_loader.TestViews(self.clips or stored.samples, self.crops or stored.crops)


def during_views(settings: Settings) -> Views:
  """The test views that are scored while a stage trains."""
  return Views(settings.eval.during_clips, settings.eval.during_crops)


def final_views(settings: Settings) -> Views:
  """The test views that are scored at the end."""
  return Views(settings.eval.clips, settings.eval.crops)


def _stream_opener(
  settings: Settings, view: str, views: Views, mesh: jax.sharding.Mesh
) -> Callable[[records.ClipDataset], eval_loader.EvalStream]:
  """Returns what makes the test views of a data set of this view."""

  def open_stream(dataset: records.ClipDataset) -> eval_loader.EvalStream:
    stores = build_features.find_stores(settings, view, [dataset], training=False)
    features = stores[0] if stores else None
    return eval_loader.EvalStream(
      dataset,
      build.eval_transform(settings, view),
      features=features,
      views=views.of(settings, view, features),
      # The last batches are padded in any case.
      batch_size=devices.padded(settings.eval.batch_size, mesh),
      options=build.input_options_of(settings),
      host=build.this_host(),
    )

  return open_stream


def pool_window(settings: Settings, view: str, card: towers.Card | None = None) -> int:
  """Side of the windows that evaluation pools; 0 is the whole map.

  Args:
    settings: resolved settings.
    view: view that is scored.
    card: card of the checkpoint that is scored; None for that of a training.
  """
  if settings.model.head != types.LINEAR_HEAD or settings.stored(view):
    return 0  # Of tokens there are no windows.
  window = settings.eval.pool_window
  if card is not None and "pool_window" in card.get("network", {}):
    saved = towers.pool_window(card, view)
    if window not in (-1, saved):
      logging.warning(
        "config.eval.pool_window=%d, but these weights are scored with pool_window=%d by those who"
        " trained them. Leave it at -1 to do as they do.",
        window,
        saved,
      )
    return saved if window < 0 else window
  clip = settings.clip(view)
  return backbones.find(settings.backbone(view)).pool_window(
    window, train_crop=clip.crop_size, test_crop=clip.eval_crop_size
  )


def build_evaluator(
  settings: Settings,
  dataset: records.ClipDataset,
  *,
  view: str,
  mesh: jax.sharding.Mesh,
  views: Views,
  train: records.ClipDataset | None = None,
  card: towers.Card | None = None,
  tasks: Mapping[str, types.Task] | None = None,
  heads: Mapping[str, evaluate.Head] | None = None,
  pool: str = "",
  probes: Sequence[str] = (),
) -> evaluators.Evaluator:
  """Builds an evaluator of a split.

  Args:
    settings: resolved settings.
    dataset: the split to score.
    view: "ego", or "exo" to watch stage one.
    mesh: the devices.
    views: test views of a clip.
    train: the training split, for the groups of clips that are also scored
      apart; None scores no groups.
    card: card of the checkpoint that is scored, which says how to pool where
      the settings don't; None for the weights of a training.
    tasks: label sets of the network's heads; None takes the data set's.
    heads: where the data set's tasks lie in these heads, see
      `evaluate.make_score`.
    pool: name of the data set among several of its view, or "".
    probes: names of the probes that are scored at once; empty is one network.

  Raises:
    ValueError: a batch size that the devices can't share.
  """
  network = build.build_network(
    settings,
    {view: dataset.tasks if tasks is None else tasks},
    embedding_dim=None,
    pool_window=pool_window(settings, view, card),
    lora=card is None,
  )
  return evaluators.Evaluator(
    dataset=dataset,
    view=view,
    stream=_stream_opener(settings, view, views, mesh)(dataset),
    score=evaluate.make_score_step(
      network,
      view=view,
      kinds={n: t.kind for n, t in dataset.tasks.items()},
      mesh=mesh,
      heads=heads,
      probes=bool(probes),
    ),
    mesh=mesh,
    rule=settings.eval.ensemble,
    groups=evaluators.clip_groups(train, dataset) if train and dataset.labelled else {},
    pool=pool,
    probes=tuple(probes),
  )


def build_stage_evaluators(
  settings: Settings,
  data: build_data.StageData,
  mesh: jax.sharding.Mesh,
  *,
  probes: Sequence[str] = (),
) -> list[evaluators.Evaluator]:
  """Builds the evaluators that a stage watches while it trains, if any.

  The exo stage watches each of its pools that has the split, with labels.

  Args:
    settings: resolved settings.
    data: data of the stage.
    mesh: the devices.
    probes: names of the probes that a joint stage trains at once, if any.
  """
  split = settings.eval.during_split
  if not split:
    return []
  views = during_views(settings)
  if data.ego:
    dataset = records.ClipDataset(data.ego.directory, split)
    if probes and not dataset.labelled:
      raise ValueError(
        f"config.eval.during_split={split!r} has no labels, by which the best of {len(probes)}"
        " probes could be chosen. Name a split that has."
      )
    return [
      build_evaluator(settings, dataset, view=types.EGO, mesh=mesh, views=views, probes=probes)
    ]
  found = []
  union, several = data.labels[types.EXO], len(data.exo) > 1
  names = label_union.pool_names(data.exo)
  for train, own, name in zip(data.exo, union.pools, names, strict=True):
    if split not in records.read_card(train.directory)["splits"]:
      continue
    dataset = records.ClipDataset(train.directory, split)
    if several and not dataset.labelled:
      continue
    heads = {part.task.name: evaluate.Head(head, part.columns) for head, part in own.items()}
    found.append(
      build_evaluator(
        settings,
        dataset,
        view=types.EXO,
        mesh=mesh,
        views=views,
        tasks=union.tasks,
        heads=heads if several else None,
        pool=name if several else "",
      )
    )
  return found


def build_stage_retrieval(
  settings: Settings, data: build_data.StageData, mesh: jax.sharding.Mesh
) -> retrieval_run.StageRetrieval | None:
  """Builds the retrieval that the joint stage watches while it trains, if any.

  Only a joint stage with both views and text has any. The narrations of
  `eval.splits` are looked up here too, so that one without a vector is found
  before training and not in the evaluation at its end.

  Args:
    settings: resolved settings.
    data: data of the stage.
    mesh: the devices.

  Raises:
    FileNotFoundError, ValueError: no such pool or split, or a narration without
      a vector.
  """
  ego = data.ego
  if not settings.eval.retrieval or ego is None:
    return None
  if data.narrations is None:
    logging.info(
      "config.eval.retrieval: method %r trains no projections, so retrieval is left out.",
      settings.method,
    )
    return None
  for split in settings.eval.splits:
    dataset = records.ClipDataset(ego.directory, split)
    if dataset.labelled:
      data.narrations.rows([clip.narration for clip in dataset.clips])
  if not settings.eval.during_split:
    return None
  dataset = records.ClipDataset(ego.directory, settings.eval.during_split)
  source = functools.partial(
    _source, settings, data.narrations, mesh, views=during_views(settings), lora=True
  )
  pools = _exo_pools(settings)
  if not pools or not retrieval_source.is_labelled(dataset):
    return None
  return retrieval_run.StageRetrieval(
    dataset, ego=source(types.EGO, [dataset]), exo=source(types.EXO, pools)
  )


def build_checkpoint_retrieval(
  settings: Settings, weights: weight_files.Weights, mesh: jax.sharding.Mesh
) -> retrieval_run.CheckpointRetrieval | None:
  """Builds the retrieval that is measured of a checkpoint, if any.

  There is none where `eval.retrieval` is off, and none where the checkpoint has
  no projections or the exo clips have no labels, which the log then says.

  Args:
    settings: resolved settings.
    weights: weights whose ego side was already checked against the settings.
    mesh: the devices.

  Raises:
    FileNotFoundError, ValueError: no such pool, split or narration, or settings
      that are not those of the checkpoint.
  """
  if not settings.eval.retrieval:
    return None
  for view in types.VIEWS:
    reason = embedding.why_not(weights, view)
    if reason:
      logging.info("Retrieval is left out: of %s, %s.", weights.source, reason)
      return None
  table = _load_table(settings, weights)
  _check_exo(settings, weights)
  pools = _exo_pools(settings)
  if not pools:
    return None
  source = functools.partial(
    _source, settings, table, mesh, views=final_views(settings), lora=False
  )
  exo = source(types.EXO, pools)
  return retrieval_run.CheckpointRetrieval(
    trees=build.make_layout(settings, mesh).put((weights.params, weights.stats)),
    exo=exo,
    ego_source=lambda dataset: source(types.EGO, [dataset]),
    about={
      "exo_split": settings.eval.retrieval_exo_split,
      "exo_fingerprints": [pool.fingerprint for pool in pools],
      "views": exo.streams[0].num_views if exo.streams else 0,
      "text_model": table.model,
    },
  )


def _source(
  settings: Settings,
  table: narration_table.NarrationTable,
  mesh: jax.sharding.Mesh,
  view: str,
  datasets: Sequence[records.ClipDataset],
  *,
  views: Views,
  lora: bool,
) -> retrieval_source.Source:
  network = build.build_network(settings, {view: {}}, embedding_dim=table.dim, lora=lora)
  return retrieval_source.make_source(
    view,
    datasets,
    table,
    embedding.make_embed_step(network, view=view, mesh=mesh),
    open_stream=_stream_opener(settings, view, views, mesh),
    mesh=mesh,
    at_most=settings.eval.retrieval_clips,
  )


def _exo_pools(settings: Settings) -> list[records.ClipDataset]:
  """Opens the pools' split `eval.retrieval_exo_split`.

  The list is empty, and the log says so, where clips have no narrations.

  Raises:
    FileNotFoundError, ValueError: no pool, or no such split.
  """
  if not settings.exo.datasets:
    raise ValueError(
      "config.eval.retrieval=True needs exo clips, but config.exo.datasets"
      " is empty. Give the pools' folders, or turn it off."
    )
  pools = [
    records.ClipDataset(folder, settings.eval.retrieval_exo_split)
    for folder in settings.exo.datasets
  ]
  return pools if all(map(retrieval_source.is_narrated, pools)) else []


def _load_table(
  settings: Settings, weights: weight_files.Weights
) -> narration_table.NarrationTable:
  if not settings.narrations:
    raise ValueError(
      "config.eval.retrieval=True needs sentence vectors, but"
      " config.narrations is empty. Give the file of"
      f" `{narration_table.EMBED_COMMAND}`, or turn it off."
    )
  table = narration_table.NarrationTable.load(settings.narrations)
  retrieval_run.check_text_model(weights, table, settings.narrations)
  return table


def _check_exo(settings: Settings, weights: weight_files.Weights) -> None:
  """Checks what class scores don't depend on, and `final` leaves unchecked."""
  prenorm = settings.model.projection_prenorm == "true"
  weight_files.check_trained_with(
    weights, ("model.projection_prenorm", towers.prenorm(weights.card), prenorm)
  )
  if settings.stored(types.EXO):
    build_features.check_trained_on(settings, weights, types.EXO)
    return
  weight_files.require_encoder(weights, types.EXO)
  given = dataclasses.asdict(build.pixel_specs(settings, (types.EXO,))[types.EXO])
  saved = dataclasses.asdict(models.PixelSpec.from_json(weights.card["pixels"][types.EXO]))
  weight_files.check_trained_with(
    weights,
    ("exo.channel_order", saved.pop("channel_order"), given.pop("channel_order")),
    ("exo.normalization", saved, given),
  )
