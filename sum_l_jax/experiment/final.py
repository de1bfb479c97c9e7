"""Evaluates a checkpoint on the splits of the settings: numbers, files, table."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform

from absl import logging
from etils import epath
import jax

from sum_l_jax import build
from sum_l_jax import build_evaluation
from sum_l_jax import build_features
from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config.schema import Settings
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.labels import bootstrap
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.evaluation.labels import evaluators
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.evaluation.retrieval import retrieval_run
from sum_l_jax.experiment import memory_advice
from sum_l_jax.system import addresses
from sum_l_jax.system import run_files

# What scores can depend on; `trained_with` is of the training's environment.
_VERSIONS = ("jax", "jaxlib", "flax", "numpy", "simplejpeg")
_SEED = 0


def _check_card(
  settings: Settings, weights: weight_files.Weights, dataset: records.ClipDataset
) -> None:
  """Refuses right weights with wrong classes, frames or pixels."""
  card = weights.card
  weight_files.check_card(card, weights.source)
  stored = settings.stored(types.EGO)
  weight_files.require_view(weights, types.EGO, stored=stored)
  weight_files.check_card(card, weights.source, types.EGO)
  names = {t: tuple(n) for t, n in card["tasks"][types.EGO].items()}
  wanted = {n: t.class_names for n, t in dataset.tasks.items()}
  if names != wanted:
    sizes = lambda x: {t: len(n) for t, n in x.items()}
    raise ValueError(
      f"{weights.source} predicts classes {sizes(names)}, the data set"
      f" {str(dataset.directory)!r} has {sizes(wanted)}, or others by name."
      " Evaluate on data with the classes it was trained for."
    )
  weight_files.check_trained_with(
    weights,
    ("model.head and its size", towers.probe_options(card), build.probe_options(settings)),
  )
  if stored:
    build_features.check_trained_on(settings, weights, types.EGO)
    return
  saved_backbone, backbone = weight_files.backbone_of(card, types.EGO), settings.backbone(types.EGO)
  if saved_backbone != backbone:
    raise ValueError(
      f"{weights.source} holds a {saved_backbone!r}, but config.model.backbone={backbone!r}."
    )
  pixels = dataclasses.asdict(build.pixel_specs(settings, (types.EGO,))[types.EGO])
  frames, clip = weight_files.frames_of(card, types.EGO), settings.clip(types.EGO)
  saved_pixels = dataclasses.asdict(models.PixelSpec.from_json(card["pixels"][types.EGO]))
  # Converted weights don't say how frames were sampled. In parts there is no stride.
  sampling = frames.get("sampling", clip.sampling)
  in_parts = types.IN_PARTS in (sampling, clip.sampling)
  weight_files.check_trained_with(
    weights,
    ("frames.count", frames["count"], clip.count),
    ("frames.sampling", sampling, clip.sampling),
    ("frames.stride", frames["stride"], frames["stride"] if in_parts else clip.stride),
    ("ego.channel_order and normalization", saved_pixels, pixels),
  )


def _versions() -> dict[str, str]:
  return {
    "python": platform.python_version(),
    **{p: importlib.metadata.version(p) for p in _VERSIONS},
  }


def _intervals(scored: evaluate.Evaluation) -> dict[str, list[float]]:
  """Metric -> [low, high], of the clips that could be scored."""
  good = scored.evaluated
  found = bootstrap.intervals(
    {t: s[good] for t, s in scored.scores.items()},
    {t: y[good] for t, y in scored.labels.items()},
    seed=_SEED,
  )
  return {name: [i.low, i.high] for name, i in found.items()}


def _trained_by(settings: Settings, weights: weight_files.Weights) -> dict[str, str]:
  """Method and objective of the training, which needn't be those of the command."""
  trained = towers.read_config(weights.card)
  names = ("method", "objective")
  found = {name: str(trained.get(name, "converted weights")) for name in names}
  for name, value in found.items():
    if trained and value != getattr(settings, name):
      logging.info(
        "%s was trained with config.%s=%r, by which the result is called; the command has %r.",
        weights.source,
        name,
        value,
        getattr(settings, name),
      )
  return found


def evaluate_checkpoint(
  settings: Settings, source: addresses.PathLike, *, workdir: epath.Path, mesh: jax.sharding.Mesh
) -> str:
  """Scores the ego encoder of a checkpoint on `config.eval.splits`.

  Writes `result.json` and `scores_<split>.npz` into the workdir.

  Args:
    settings: resolved settings.
    source: workdir, checkpoint folder or `.npz` file.
    workdir: where the result goes.
    mesh: all devices.

  Returns:
    The table.

  Raises:
    FileNotFoundError, ValueError: no such checkpoint or split, or one that
      does not fit the data or the config.
  """
  views = types.VIEWS if settings.eval.retrieval else (types.EGO,)
  averaged = settings.eval.parameters == "ema"
  weights = weight_files.read_weights(source, views=views, averaged=averaged)
  which = weight_files.which(epath.Path(weights.source)) if weights.step is not None else {}
  logging.info("Evaluates %s%s", weights.source, result_files.which_words(which, " ({})"))
  folder = settings.ego.dataset
  # Clips to evaluate may come without those to train on.
  there = settings.ego.train_split in records.read_card(folder)["splits"]
  train = records.ClipDataset(folder, settings.ego.train_split) if there else None
  if train is None:
    logging.info(
      "%s has no split %r, so there is no constant guess, and no score of seen and unseen labels.",
      folder,
      settings.ego.train_split,
    )
    if not settings.eval.splits:
      raise ValueError("config.eval.splits is empty: name a split to evaluate.")
  known = train or records.ClipDataset(folder, settings.eval.splits[0])
  _check_card(settings, weights, known)
  network = build.build_network(settings, {types.EGO: known.tasks}, embedding_dim=None, lora=False)
  trees = towers.arrays(weights, types.EGO, network)
  params, stats = build.make_layout(settings, mesh).put(trees)
  retrieval = build_evaluation.build_checkpoint_retrieval(settings, weights, mesh)
  entries = {}
  for split in settings.eval.splits:
    dataset = records.ClipDataset(folder, split)
    evaluator = build_evaluation.build_evaluator(
      settings,
      dataset,
      view=types.EGO,
      mesh=mesh,
      views=build_evaluation.final_views(settings),
      train=train,
      card=weights.card,
    )
    features = evaluator.stream.features
    with jax.transfer_guard("disallow"), memory_advice.for_evaluation(settings, mesh):
      scored = evaluator(params, stats)
    entries[split] = {
      "dataset": dataset.name,
      "fingerprint": dataset.fingerprint,
      **({"features": build_features.digest(features)} if features else {}),
      "clips": int(scored.evaluated.sum()),
      "skipped": [clip.clip_id for clip, good in zip(dataset.clips, scored.evaluated) if not good],
      "views": evaluator.stream.num_views,
      "ensemble": settings.eval.ensemble,
      "pool_window": build_evaluation.pool_window(settings, types.EGO, weights.card),
      "seconds": round(scored.seconds, 1),
      "metrics": scored.metrics,
      "intervals": _intervals(scored) if dataset.labelled else {},
      "constant_guess": evaluate.constant_guess(
        evaluators.all_labels(train), scored.labels, dataset.tasks
      )
      if train and dataset.labelled
      else {},
      **(retrieval.entry(dataset) if retrieval else {}),
    }
    if jax.process_index() == 0:
      result_files.write_scores(
        workdir,
        split,
        clip_ids=[c.clip_id for c in dataset.clips],
        scores=scored.scores,
        labels=scored.labels,
      )
  result = {
    **_trained_by(settings, weights),
    "checkpoint": weights.source,
    "checkpoint_sha256": weight_files.weights_sha256(weights, types.EGO),
    "step": weights.step,
    "which": which,
    "splits": entries,
    "bootstrap": {
      "samples": bootstrap.SAMPLES,
      "map_samples": bootstrap.MAP_SAMPLES,
      "seed": _SEED,
    },
    "definitions": result_files.definitions(
      name for entry in entries.values() for name in entry["metrics"]
    )
    | retrieval_run.definitions(entries),
    "config": settings.flatten(),
    "trained_with": weights.card["versions"],
    "versions": _versions(),
    "device": mesh.devices.flat[0].device_kind,
  }
  if jax.process_index() == 0:
    result_files.write_result(workdir, result)
  return result_files.format_table(result)


def numbers(workdir: epath.Path) -> dict[str, float]:
  """The metrics of the workdir's result, "final/<split>/<metric>"."""
  result = result_files.load_result(workdir / run_files.RESULT)
  return {
    f"final/{split}/{name}": value
    for split, entry in result["splits"].items()
    for name, value in entry["metrics"].items()
    if value is not None
  }
