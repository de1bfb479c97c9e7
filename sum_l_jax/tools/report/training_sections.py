"""The report's sections about the training: what, how, with which settings."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import datetime
import json
import math
from typing import Any

import numpy as np

from sum_l_jax import models
from sum_l_jax import types
from sum_l_jax.config import schema
from sum_l_jax.evaluation.labels import metric_words
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.experiment import goodput
from sum_l_jax.experiment import run_starts
from sum_l_jax.system import run_files
from sum_l_jax.system import text_tables
from sum_l_jax.tools import page
from sum_l_jax.tools.report import charts
from sum_l_jax.tools.report import run_contents
from sum_l_jax.train import metric_log

_LOSS = "train/loss"
_TERM_NAMES = {
  "ego_cls": "ego classes",
  "exo_cls": "exo classes",
  "ego_exo": "ego and exo clips",
  "ego_text": "ego and text",
  "exo_text": "exo and text",
}


# Kinds of the cross-view term that are no logarithms.
_OF_DISTANCES = ("triplet", "max_margin", "adaptive_margin")


def _of_both(values: Mapping[str, str]) -> str:
  """One text where the views have the same, else each with its view."""
  if len(set(values.values())) == 1:
    return next(iter(values.values()))
  return "; ".join(f"{view}: {value}" for view, value in values.items())


def trained(run: run_contents.RunContents) -> list[page.Block]:
  """Shows method, stages, data and sizes, and those of a baseline beside them."""
  runs = [run, *([run.baseline] if run.baseline else [])]
  described = [dict(_described(one)) for one in runs]
  names = dict.fromkeys(name for one in described for name in one)
  rows = [[name, *(one.get(name, "-") for one in described)] for name in names]
  head = ["what", run.name if run.baseline else "value"]
  head += [run.baseline_name] if run.baseline else []
  stage_rows = []
  for one, name in zip(runs, (run.name, run.baseline_name)):
    for stage in one.fields.get("stages", ()):
      label = f"{stage}, {name}" if run.baseline else stage
      stage_rows.append([label, *_stage_row(one, stage)])
  stage_head = ["stage", "length", "clips a batch", "optimizer", "learning rate", "steps/s"]
  return [
    page.Table("The run", head, rows, wraps=tuple(range(1, len(head)))),
    page.Table("Stages", [*stage_head, "first to last log, UTC"], stage_rows),
    *_probe_tables(run),
    _data_table(runs),
    _time_table(run),
  ]


def _described(run: run_contents.RunContents) -> list[tuple[str, str]]:
  """What a run is, by name."""
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
    ("method", get("method")),
    ("objective", get("objective")),
    ("network", _of_both(networks)),
    ("frames", _of_both(frames)),
    ("seed", get("seed")),
    *((f"{view} starts from", run.fields.get(f"init.{view}") or "random") for view in types.VIEWS),
  ]
  if run.weights:
    for view, tower in run.weights.params.items():
      sizes = ", ".join(f"{part} {models.count_parameters(tree):,}" for part, tree in tower.items())
      rows.append((f"{view} parameters", sizes))
    model = run.weights.card.get("data", {}).get("text_model")
    if model:
      rows.append(("sentence model", model))
  return rows


def _time_table(run: run_contents.RunContents) -> page.Block:
  """Where the time went, over all restarts."""
  if run.status is None:
    return page.Missing(f"There is no {run_files.STATUS}, which says where the time went.")
  begun = datetime.datetime.fromtimestamp(run.status.began, datetime.UTC)
  starts = f"{run.status.starts} start{'s' if run.status.starts > 1 else ''}"
  caption = f"Where the time went since {begun:%Y-%m-%d %H:%M} UTC, in {starts}"
  rows, head = goodput.rows(run.status.seconds), ["time", "h:m:s", "%"]
  if run.baseline and run.baseline.status:
    head += [f"{run.baseline_name}, h:m:s", "%"]
    theirs = goodput.rows(run.baseline.status.seconds)
    rows = [[*row, *other[1:]] for row, other in zip(rows, theirs)]
  return page.Table(caption, head, rows)


def _stage_row(run: run_contents.RunContents, stage: str) -> list[str]:
  get = lambda name: str(run.fields.get(f"{stage}_stage.{name}", "-"))
  logged = run.scalars.get(stage, {})
  loss, rate = logged.get(_LOSS), logged.get("train/steps_per_second")
  row = [get("total"), get("batch_size"), get("optimizer"), get("learning_rate")]
  row.append(f"{np.median(rate.values):.2f}" if rate else "-")
  if loss is None:
    return [*row, "-"]
  first, last = (
    datetime.datetime.fromtimestamp(loss.times[place], datetime.UTC) for place in (0, -1)
  )
  return [*row, f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"]


def _probe_tables(run: run_contents.RunContents) -> list[page.Block]:
  """The probes of a grid, with their scores; the chosen one is marked."""
  blocks = []
  for stage, found in run.probes.items():
    probes = found.get("probes", ())
    if not probes:
      continue
    tags = dict.fromkeys(name for probe in probes for name in probe.get("metrics", {}))
    tags = [name for name in tags if name.endswith(("_top1", "_map_sklearn"))]
    head = ["probe", "learning rate", "weight decay", "score, %"]
    head += [f"{metric_words.words(name)}, %" for name in tags]
    rows = []
    for number, probe in enumerate(probes):
      row = [f"{number}, chosen" if number == found.get("chosen") else str(number)]
      row += [f"{probe.get(name, math.nan):g}" for name in ("learning_rate", "weight_decay")]
      row.append(text_tables.percent(probe.get("score")))
      rows.append(row + [text_tables.percent(probe.get("metrics", {}).get(name)) for name in tags])
    caption = (
      f"{stage}: {len(probes)} probes trained at once, scored on split {found.get('split')};"
      f" chosen by: {found.get('chosen_by')}"
    )
    blocks.append(page.Table(caption, head, rows))
  return blocks


def _data_table(runs: Sequence[run_contents.RunContents]) -> page.Table:
  """Sizes of the data sets that can be opened from here."""
  wanted: dict[tuple[str, str, str], None] = {}
  for run in runs:
    fields = run.fields
    if fields.get("ego.dataset"):
      splits = [fields.get("ego.train_split", "train"), *fields.get("eval.splits", ())]
      wanted |= {(types.EGO, fields["ego.dataset"], split): None for split in splits}
    if fields.get("method", "fpv_only") != "fpv_only":
      split = fields.get("exo.train_split", "train")
      wanted |= {(types.EXO, folder, split): None for folder in fields.get("exo.datasets", ())}
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
  caption = "Data of both runs" if len(runs) > 1 else "Data"
  return page.Table(caption, head, rows, text=(1, 2, 5, 6))


def curves(run: run_contents.RunContents) -> list[page.Block]:
  """Shows losses, learning rate and accuracy, from the run's own log."""
  blocks: list[page.Block] = []
  for stage in run.scalars:
    pictures = _stage_charts(run, stage)
    if pictures:
      blocks.append(page.Charts(pictures))
  if not blocks:
    return [
      page.Missing(f"There is no {run_files.METRICS} in the workdir, so there is nothing to draw.")
    ]
  lines = [
    "Each point is the mean over the steps since the one before. The first chart of a stage has the"
    " terms of the loss before their weights, which their names give; the total is the sum of the"
    " terms times their weights. A contrastive term that leaves the partner itself out of its"
    " denominator may fall below 0."
  ]
  if run.baseline:
    lines.append(f"Thin, pale lines in the same colours are those of {run.baseline_name}.")
  return [*blocks, page.Texts(lines)]


_Lines = dict[str, metric_log.Series]


def _loss_lines(
  run: run_contents.RunContents, stage: str, logged: Mapping[str, metric_log.Series]
) -> _Lines:
  """The loss and its terms, each named with its weight; stage one has but one term."""
  found = {"total": logged[_LOSS]} if _LOSS in logged else {}
  for term in types.TERMS:
    if f"{_LOSS}/{term}" in logged:
      weight = run.fields.get(f"loss.weights.{term}") if stage == schema.JOINT_STAGE else 1
      times = f" x {weight:g}" if isinstance(weight, int | float) and weight != 1 else ""
      found[f"{_TERM_NAMES[term]}{times}"] = logged[f"{_LOSS}/{term}"]
  own = zip(run.fields.get("loss.own_terms", ()), run.fields.get("loss.own_weights", ()))
  for term, weight in own:
    if f"{_LOSS}/{term}" in logged:
      found[f"{term} x {weight:g}"] = logged[f"{_LOSS}/{term}"]
  return found


def _weighted_lines(logged: Mapping[str, metric_log.Series]) -> _Lines:
  """What each term adds to the loss; {} where one term is all of it."""
  tags = {_TERM_NAMES[term]: f"train/weighted/{term}" for term in types.TERMS}
  found = {name: logged[tag] for name, tag in tags.items() if tag in logged}
  return {"total": logged[_LOSS], **found} if len(found) > 1 and _LOSS in logged else {}


def _chart_of(tag: str) -> tuple[str, str] | None:
  """The chart that a number belongs to, and its name there; None for no chart."""
  place, _, name = tag.rpartition("/")
  if "/probe_" in tag:  # Of many probes the charts show the mean, and the best one's scores.
    return None
  if "/retrieval" in place:
    return ("retrieval", name.removesuffix("_ndcg").replace("_", " ")) if "_ndcg" in tag else None
  if place.startswith("train") and name.endswith("_top1"):
    return "training", f"{place[len('train/') :]} {name.removesuffix('_top1')}".strip()
  if place.startswith("eval/") and name.endswith(("_top1", "_map_sklearn")):
    return "watched", f"{metric_words.words(name)} ({place.removeprefix('eval/')})"
  return None


def _of_chart(logged: Mapping[str, metric_log.Series], chart: str) -> _Lines:
  """The lines of a chart, by the names that it shows."""
  placed = ((_chart_of(tag), line) for tag, line in logged.items())
  return {found[1]: line for found, line in placed if found and found[0] == chart}


def _stage_charts(run: run_contents.RunContents, stage: str) -> list[page.Picture]:
  """The charts of one stage that have something to show."""
  logged = run.scalars[stage]
  other = run.baseline.scalars.get(stage, {}) if run.baseline else {}
  one = lambda tag, name: lambda of: {name: of[tag]} if tag in of else {}
  better = "%, higher is better"
  # Margins are distances; all other losses are negative logarithms of probabilities.
  unit = "" if run.fields.get("loss.cross_view") in _OF_DISTANCES else " in nats"
  drawn: list[tuple[str, Callable[[Mapping[str, metric_log.Series]], _Lines], str, bool]] = [
    # The same term may have another weight there, and is the same line.
    ("losses", lambda of: _loss_lines(run, stage, of), f"loss{unit}, lower is better", False),
    ("what each term adds to the loss", _weighted_lines, f"share of the loss{unit}", False),
    ("top-1 on training clips", lambda of: _of_chart(of, "training"), better, True),
    ("scores on held-out clips", lambda of: _of_chart(of, "watched"), better, True),
    ("retrieval, nDCG", lambda of: _of_chart(of, "retrieval"), better, True),
    ("learning rate", one("train/learning_rate", "learning rate"), "learning rate", False),
    ("gradient norm", one("train/grad_norm", "gradient norm"), "norm of the gradient", False),
  ]
  return [
    charts.curves(
      f"Stage {stage}: {what}",
      series,
      label=label,
      percent=in_percent,
      baseline=find(other),
      baseline_name=run.baseline_name,
    )
    for what, find, label, in_percent in drawn
    if (series := find(logged))
  ]


def settings(run: run_contents.RunContents, defaults: Mapping[str, Any]) -> list[page.Block]:
  """Shows the command, and every field that differs from its default.

  Args:
    run: what the run left.
    defaults: fields that a config of the same method has without changes.
  """
  blocks: list[page.Block] = []
  if run.command:
    blocks += [page.Texts(["The latest command of this workdir:"]), page.Code(run.command.strip())]
  else:
    blocks.append(page.Texts(["The workdir does not say which command made it."]))
  plain = lambda value: json.loads(json.dumps(value))
  if run.baseline:
    if run.baseline.command:
      blocks.append(page.Texts([f"The latest command of {run.baseline_name}:"]))
      blocks.append(page.Code(run.baseline.command.strip()))
    own, theirs = run.fields, run.baseline.fields
    rows = [
      [name, _shown(own.get(name)), _shown(theirs.get(name))]
      for name in sorted({*own, *theirs})
      if plain(own.get(name)) != plain(theirs.get(name))
    ]
    caption = f"{len(rows)} config fields that differ between the two runs"
    head = ["field", run.name, run.baseline_name]
    blocks.append(page.Table(caption, head, rows, wraps=(1, 2)))
  rows = [
    [name, _shown(value), _shown(defaults.get(name))]
    for name, value in sorted(run.fields.items())
    if plain(value) != plain(defaults.get(name))
  ]
  caption = f"{len(rows)} config fields that differ from the defaults; all others have them"
  return [*blocks, page.Table(caption, ["field", "this run", "default"], rows, wraps=(1, 2))]


def _shown(value: Any) -> str:
  return value or '""' if isinstance(value, str) else json.dumps(value)


def environment(run: run_contents.RunContents) -> list[page.Block]:
  """Shows on what and by which code the run was trained and evaluated."""
  blocks: list[page.Block] = []
  if run.starts:
    blocks.append(_starts_table(run))
  else:
    blocks.append(
      page.Missing(
        f"There is no {run_files.STARTS}, in which a run records its commit and its machine."
      )
    )
  return [*blocks, *_versions(run)]


def _moment(seconds: float) -> str:
  return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S}"


def _commit(start: run_starts.Start) -> str:
  if not start.commit:
    return f"not known; digest of the code {start.code or '-'}"
  changed = f" with uncommitted changes; digest of the code {start.code}" if start.changed else ""
  return f"{start.commit[:12]}{changed}"


def _starts_table(run: run_contents.RunContents) -> page.Table:
  """Each start of the run, and of the baseline."""
  rows = []
  runs = [(run.name, run), (run.baseline_name, run.baseline)]
  for name, one in runs if run.baseline else runs[:1]:
    for number, start in enumerate(one.starts if one else (), start=1):
      machine = f"{start.processor}, {start.cores} cores, {start.memory_gib:g} GiB"
      hosts = f" and {start.hosts - 1} more" if start.hosts > 1 else ""
      label = f"{name}, start {number}" if run.baseline else f"start {number}"
      devices = start.devices
      if start.driver and start.driver.lower() not in devices.lower():
        devices += f", {start.driver.splitlines()[0]}"
      rows.append(
        [label, _moment(start.time), _commit(start), devices, f"{machine} ({start.host}{hosts})"]
      )
  head = ["", "UTC", "commit", "devices", "machine"]
  return page.Table("Starts of the training", head, rows, text=(1,), wraps=(2, 3, 4))


def _versions(run: run_contents.RunContents) -> list[page.Block]:
  """Versions of libraries by who used them, and what was evaluated."""
  result = run.result or {}
  # Those of the start come first: they are the most, and those of the last training.
  columns = {
    "training": {
      **(
        result.get("trained_with") or (run.weights.card.get("versions", {}) if run.weights else {})
      ),
      **(run.starts[-1].versions if run.starts else {}),
    },
    "evaluation": result.get("versions", {}),
  }
  if not any(columns.values()):
    return [page.Missing("Neither a checkpoint nor a result says which versions were used.")]
  if run.baseline:
    other = run.baseline
    columns[f"training of {run.baseline_name}"] = {
      **(other.result or {}).get("trained_with", {}),
      **(other.starts[-1].versions if other.starts else {}),
    }
  packages = sorted({name for versions in columns.values() for name in versions})
  rows = [[name, *(one.get(name, "-") for one in columns.values())] for name in packages]
  blocks: list[page.Block] = [page.Table("Versions", ["package", *columns], rows)]
  if result:
    step = result.get("step")
    at = f" at step {step:,}" if step is not None else ""
    at += result_files.which_words(result.get("which", {}), " ({})")
    lines = [
      f"Evaluated on: {result.get('device', 'unknown')}.",
      f"Checkpoint: {result.get('checkpoint')}{at}.",
    ]
    digest = result.get("checkpoint_sha256")
    if digest:
      lines.append(f"SHA-256 of the evaluated arrays: {digest}")
    blocks.append(page.Texts(lines))
  return blocks
