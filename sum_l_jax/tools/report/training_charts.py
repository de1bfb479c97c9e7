"""The report's sections about the training: what, how, with which settings."""

from __future__ import annotations

from collections.abc import Mapping
import datetime
import json
from typing import Any

import numpy as np

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.tools.report import charts
from sum_l_jax.tools.report import render
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


def trained_section(files: run_contents.RunFiles) -> render.Section:
  """Method, stages, data and sizes."""
  fields = files.fields
  rows = [
    ["method", str(fields.get("method"))],
    ["objective", str(fields.get("objective"))],
    ["network", str(fields.get("model.backbone"))],
    [
      "frames",
      f"{fields.get('frames.count')} at stride"
      f" {fields.get('frames.stride')}, crops of"
      f" {fields.get('frames.crop_size')} pixels",
    ],
    ["seed", str(fields.get("seed"))],
    *([f"{view} starts from", fields.get(f"init.{view}") or "random"] for view in types.VIEWS),
  ]
  if files.weights:
    for view, tower in files.weights.params.items():
      sizes = ", ".join(f"{part} {models.count_parameters(tree):,}" for part, tree in tower.items())
      rows.append([f"{view} parameters", sizes])
    model = files.weights.card.get("data", {}).get("text_model")
    if model:
      rows.append(["sentence model", model])
  blocks: list[Any] = [
    render.Table("The run", ["what", "value"], rows, wraps=(1,)),
    render.Table(
      "Stages",
      [
        "stage",
        "steps",
        "batch size",
        "optimizer",
        "learning rate",
        "steps/s",
        "first to last log, UTC",
      ],
      [_stage_row(files, s) for s in fields.get("stages", ())],
    ),
    _data_table(files),
  ]
  return render.Section("trained", "What was trained", blocks)


def _stage_row(files: run_contents.RunFiles, stage: str) -> list[str]:
  get = lambda name: str(files.fields.get(f"{stage}_stage.{name}", "-"))
  logged = files.scalars.get(stage, {})
  loss, rate = logged.get(_LOSS), logged.get("train/steps_per_second")
  row = [stage, get("total"), get("batch_size"), get("optimizer"), get("learning_rate")]
  row.append(f"{np.median(rate.values):.2f}" if rate else "-")
  if loss is None:
    return [*row, "-"]
  first, last = (
    datetime.datetime.fromtimestamp(t, datetime.UTC) for t in (loss.times[0], loss.times[-1])
  )
  return [*row, f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"]


def _data_table(files: run_contents.RunFiles) -> render.Table:
  """Sizes of the data sets that can be opened from here."""
  fields = files.fields
  wanted = [
    (types.EXO, d, fields.get("exo.train_split", "train")) for d in fields.get("exo.datasets", ())
  ]
  if fields.get("ego.dataset"):
    splits = [fields.get("ego.train_split", "train"), *fields.get("eval.splits", ())]
    wanted = [(types.EGO, fields["ego.dataset"], s) for s in dict.fromkeys(splits)] + wanted
  if fields.get("method") == "fpv_only":
    wanted = [item for item in wanted if item[0] == types.EGO]
  rows = []
  for view, folder, split in wanted:
    try:
      data = run_contents.open_dataset(folder, split)
    except (ValueError, OSError) as error:
      rows.append([folder, view, split, "-", "-", "-", str(error)])
      continue
    classes = ", ".join(f"{t.num_classes} {n}" for n, t in data.tasks.items())
    fps = f"{data.clips[0].fps:g}" if data.clips else "-"
    rows.append([folder, view, split, f"{len(data):,}", fps, classes, data.fingerprint])
  return render.Table(
    "Data",
    ["folder", "view", "split", "clips", "frames/s", "classes", "fingerprint"],
    rows,
    text=(1, 2, 5, 6),
  )


def curves_section(files: run_contents.RunFiles) -> render.Section:
  """Losses, learning rate and accuracy, from the run's own log."""
  name, title = "curves", "Curves"
  blocks: list[Any] = []
  for stage, logged in files.scalars.items():
    pictures = _stage_charts(stage, logged)
    if pictures:
      blocks.append(render.Charts(pictures))
  if not blocks:
    return render.Section(
      name, title, missing="There is no metrics.jsonl in the workdir, so there is nothing to draw."
    )
  blocks.append(
    render.Texts(
      [
        "Each point is the mean over the steps since the one before. Terms of the"
        " loss are drawn before their weights."
      ]
    )
  )
  return render.Section(name, title, blocks)


def _stage_charts(stage: str, logged: Mapping[str, metric_log.Series]) -> list[charts.Picture]:
  """The charts of one stage, those that have something to show."""
  losses = {"total": logged[_LOSS]} if _LOSS in logged else {}
  losses |= {
    _TERM_NAMES[term]: logged[f"{_LOSS}/{term}"]
    for term in types.TERMS
    if f"{_LOSS}/{term}" in logged
  }
  training = {
    tag.removeprefix("train/").removesuffix("_top1").replace("/", " "): line
    for tag, line in logged.items()
    if tag.startswith("train/") and tag.endswith("_top1")
  }
  watched = {
    tag.removeprefix("eval/").replace("/", " ").replace("_", " "): line
    for tag, line in logged.items()
    if tag.startswith("eval/")
    and "/retrieval/" not in tag
    and tag.endswith(("_top1", "_map_sklearn"))
  }
  retrieval = {
    tag.split("/")[-1].replace("_", " "): line
    for tag, line in logged.items()
    if "/retrieval/" in tag and tag.endswith("_ndcg")
  }
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


def settings_section(files: run_contents.RunFiles, defaults: Mapping[str, Any]) -> render.Section:
  """The command, and every field that differs from its default.

  Args:
    files: of the run.
    defaults: the fields that a config of the same method has without changes.
  """
  plain = lambda value: json.loads(json.dumps(value))
  rows = [
    [name, _shown(value), _shown(defaults.get(name))]
    for name, value in sorted(files.fields.items())
    if plain(value) != plain(defaults.get(name))
  ]
  blocks: list[Any] = []
  if files.command:
    blocks += [
      render.Texts(["The latest command of this workdir:"]),
      render.Code(files.command.strip()),
    ]
  else:
    blocks.append(render.Texts(["The workdir does not say which command made it."]))
  blocks.append(
    render.Table(
      f"{len(rows)} config fields that differ from the defaults; all others have them",
      ["field", "this run", "default"],
      rows,
      wraps=(1, 2),
    )
  )
  return render.Section("settings", "Settings", blocks)


def _shown(value: Any) -> str:
  return value or '""' if isinstance(value, str) else json.dumps(value)


def environment_section(files: run_contents.RunFiles) -> render.Section:
  """Library versions and device."""
  name, title = "environment", "Environment"
  trained = files.weights.card.get("versions", {}) if files.weights else {}
  evaluated = (files.result or {}).get("versions", {})
  if not trained and not evaluated:
    return render.Section(
      name, title, missing="Neither a checkpoint nor a result says which versions were used."
    )
  trained = (files.result or {}).get("trained_with", trained)
  rows = [
    [package, trained.get(package, "-"), evaluated.get(package, "-")]
    for package in sorted({*trained, *evaluated})
  ]
  blocks: list[Any] = [render.Table("Versions", ["package", "training", "evaluation"], rows)]
  if files.result:
    step = files.result.get("step")
    lines = [
      f"Evaluated on: {files.result.get('device', 'unknown')}.",
      f"Checkpoint: {files.result.get('checkpoint')}"
      + (f" at step {step}." if step is not None else "."),
    ]
    digest = files.result.get("checkpoint_sha256")
    if digest:
      lines.append(f"SHA-256 of the evaluated arrays: {digest}")
    blocks.append(render.Texts(lines))
  return render.Section(name, title, blocks)
