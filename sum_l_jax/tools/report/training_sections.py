"""The report's sections about the training: what, how, with which settings."""

from __future__ import annotations

from collections.abc import Mapping
import datetime
import json
from typing import Any

import numpy as np

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.experiment import goodput
from sum_l_jax.system import run_files
from sum_l_jax.tools import page
from sum_l_jax.tools.report import charts
from sum_l_jax.tools.report import run_contents
from sum_l_jax.train import metric_log

_LOSS = "train/loss"
_TERM_NAMES = {
  "ego_cls": "ego classes",
  "exo_cls": "exo classes",
  "ego_exo": "ego and exo",
  "ego_text": "ego and text",
  "exo_text": "exo and text",
}


def _of_both(values: Mapping[str, str]) -> str:
  """One text where the views have the same, else each with its view."""
  if len(set(values.values())) == 1:
    return next(iter(values.values()))
  return "; ".join(f"{view}: {value}" for view, value in values.items())


def trained(run: run_contents.RunContents) -> list[page.Block]:
  """Shows method, stages, data and sizes."""
  get = lambda name: str(run.fields.get(name))
  networks, frames = {}, {}
  for view in types.VIEWS:
    # A view has its own where it differs from what both share.
    own = lambda name: run.fields.get(f"{view}.{name}") or run.fields.get(name)  # noqa: B023
    networks[view] = str(run.fields.get(f"{view}.backbone") or get("model.backbone"))
    apart = f"at stride {own('frames.stride')}"
    if own("frames.sampling") == types.IN_PARTS:
      apart = "of equal parts"
    frames[view] = f"{own('frames.count')} {apart}, crops of {own('frames.crop_size')} pixels"
  rows = [
    ["method", get("method")],
    ["objective", get("objective")],
    ["network", _of_both(networks)],
    ["frames", _of_both(frames)],
    ["seed", get("seed")],
    *([f"{view} starts from", run.fields.get(f"init.{view}") or "random"] for view in types.VIEWS),
  ]
  if run.weights:
    for view, tower in run.weights.params.items():
      sizes = ", ".join(f"{part} {models.count_parameters(tree):,}" for part, tree in tower.items())
      rows.append([f"{view} parameters", sizes])
    model = run.weights.card.get("data", {}).get("text_model")
    if model:
      rows.append(["sentence model", model])
  head = ["stage", "steps", "batch size", "optimizer", "learning rate", "steps/s"]
  stages = [_stage_row(run, stage) for stage in run.fields.get("stages", ())]
  return [
    page.Table("The run", ["what", "value"], rows, wraps=(1,)),
    page.Table("Stages", [*head, "first to last log, UTC"], stages),
    _data_table(run),
    _time_table(run),
  ]


def _time_table(run: run_contents.RunContents) -> page.Block:
  """Where the time went, over all restarts."""
  if run.status is None:
    return page.Missing(f"There is no {run_files.STATUS}, which says where the time went.")
  begun = datetime.datetime.fromtimestamp(run.status.began, datetime.UTC)
  starts = f"{run.status.starts} start{'s' if run.status.starts > 1 else ''}"
  caption = f"Where the time went since {begun:%Y-%m-%d %H:%M} UTC, in {starts}"
  return page.Table(caption, ["time", "h:m:s", "%"], goodput.rows(run.status.seconds))


def _stage_row(run: run_contents.RunContents, stage: str) -> list[str]:
  get = lambda name: str(run.fields.get(f"{stage}_stage.{name}", "-"))
  logged = run.scalars.get(stage, {})
  loss, rate = logged.get(_LOSS), logged.get("train/steps_per_second")
  row = [stage, get("total"), get("batch_size"), get("optimizer"), get("learning_rate")]
  row.append(f"{np.median(rate.values):.2f}" if rate else "-")
  if loss is None:
    return [*row, "-"]
  first, last = (
    datetime.datetime.fromtimestamp(loss.times[place], datetime.UTC) for place in (0, -1)
  )
  return [*row, f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"]


def _data_table(run: run_contents.RunContents) -> page.Table:
  """Sizes of the data sets that can be opened from here."""
  fields = run.fields
  wanted = []
  if fields.get("ego.dataset"):
    splits = [fields.get("ego.train_split", "train"), *fields.get("eval.splits", ())]
    wanted += [(types.EGO, fields["ego.dataset"], split) for split in dict.fromkeys(splits)]
  if fields.get("method") != "fpv_only":
    split = fields.get("exo.train_split", "train")
    wanted += [(types.EXO, folder, split) for folder in fields.get("exo.datasets", ())]
  rows = []
  for view, folder, split in wanted:
    try:
      data = run_contents.open_dataset(folder, split)
    except (ValueError, OSError) as error:
      rows.append([folder, view, split, "-", "-", "-", str(error)])
      continue
    classes = ", ".join(f"{task.num_classes} {name}" for name, task in data.tasks.items())
    fps = f"{data.clips[0].fps:g}" if data.clips else "-"
    rows.append([folder, view, split, f"{len(data):,}", fps, classes, data.fingerprint])
  head = ["folder", "view", "split", "clips", "frames/s", "classes", "fingerprint"]
  return page.Table("Data", head, rows, text=(1, 2, 5, 6))


def curves(run: run_contents.RunContents) -> list[page.Block]:
  """Shows losses, learning rate and accuracy, from the run's own log."""
  blocks: list[page.Block] = []
  for stage, logged in run.scalars.items():
    pictures = _stage_charts(stage, logged)
    if pictures:
      blocks.append(page.Charts(pictures))
  if not blocks:
    return [
      page.Missing(f"There is no {run_files.METRICS} in the workdir, so there is nothing to draw.")
    ]
  about = (
    "Each point is the mean over the steps since the one before. Terms of the loss are drawn before"
    " their weights."
  )
  return [*blocks, page.Texts([about])]


def _stage_charts(stage: str, logged: Mapping[str, metric_log.Series]) -> list[page.Picture]:
  """The charts of one stage that have something to show."""
  losses = {"total": logged[_LOSS]} if _LOSS in logged else {}
  losses |= {
    _TERM_NAMES[term]: logged[f"{_LOSS}/{term}"]
    for term in types.TERMS
    if f"{_LOSS}/{term}" in logged
  }
  training, watched, retrieval = {}, {}, {}
  for tag, line in logged.items():
    if "/probe_" in tag:  # Of many probes the charts show the mean, and the best one's scores.
      continue
    if "/retrieval/" in tag:
      if tag.endswith("_ndcg"):
        retrieval[tag.split("/")[-1].replace("_", " ")] = line
    elif tag.startswith("train/") and tag.endswith("_top1"):
      training[tag.removeprefix("train/").removesuffix("_top1").replace("/", " ")] = line
    elif tag.startswith("eval/") and tag.endswith(("_top1", "_map_sklearn")):
      watched[tag.removeprefix("eval/").replace("/", " ").replace("_", " ")] = line
  one = lambda tag: {tag.split("/")[-1]: logged[tag]} if tag in logged else {}
  drawn = [
    ("losses", losses, "", False),
    ("accuracy on training clips", training, "", True),
    ("accuracy while training, on held-out clips", watched, "", True),
    ("retrieval while training, nDCG", retrieval, "", True),
    ("learning rate", one("train/learning_rate"), "learning rate", False),
    ("gradient norm", one("train/grad_norm"), "norm", False),
  ]
  return [
    charts.curves(f"{stage}: {what}", series, unit=unit, percent=in_percent)
    for what, series, unit, in_percent in drawn
    if series
  ]


def settings(run: run_contents.RunContents, defaults: Mapping[str, Any]) -> list[page.Block]:
  """Shows the command, and every field that differs from its default.

  Args:
    run: what the run left.
    defaults: fields that a config of the same method has without changes.
  """
  plain = lambda value: json.loads(json.dumps(value))
  rows = [
    [name, _shown(value), _shown(defaults.get(name))]
    for name, value in sorted(run.fields.items())
    if plain(value) != plain(defaults.get(name))
  ]
  if run.command:
    text = page.Texts(["The latest command of this workdir:"])
    blocks: list[page.Block] = [text, page.Code(run.command.strip())]
  else:
    blocks = [page.Texts(["The workdir does not say which command made it."])]
  caption = f"{len(rows)} config fields that differ from the defaults; all others have them"
  return [*blocks, page.Table(caption, ["field", "this run", "default"], rows, wraps=(1, 2))]


def _shown(value: Any) -> str:
  return value or '""' if isinstance(value, str) else json.dumps(value)


def environment(run: run_contents.RunContents) -> list[page.Block]:
  """Shows library versions and device."""
  result = run.result or {}
  trained_with = run.weights.card.get("versions", {}) if run.weights else {}
  evaluated = result.get("versions", {})
  if not trained_with and not evaluated:
    return [page.Missing("Neither a checkpoint nor a result says which versions were used.")]
  trained_with = result.get("trained_with", trained_with)
  rows = [
    [package, trained_with.get(package, "-"), evaluated.get(package, "-")]
    for package in sorted({*trained_with, *evaluated})
  ]
  blocks: list[page.Block] = [page.Table("Versions", ["package", "training", "evaluation"], rows)]
  if result:
    step = result.get("step")
    at = f" at step {step}" if step is not None else ""
    lines = [
      f"Evaluated on: {result.get('device', 'unknown')}.",
      f"Checkpoint: {result.get('checkpoint')}{at}.",
    ]
    digest = result.get("checkpoint_sha256")
    if digest:
      lines.append(f"SHA-256 of the evaluated arrays: {digest}")
    blocks.append(page.Texts(lines))
  return blocks
