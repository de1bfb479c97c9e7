"""The report's sections with pictures of clips: pairs, and activation maps."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.tools.class_maps import clip_choice
from sum_l_jax.tools.class_maps import explain
from sum_l_jax.tools.class_maps import map_overlay
from sum_l_jax.tools.report import charts
from sum_l_jax.tools.report import mined_pairs
from sum_l_jax.tools.report import render
from sum_l_jax.tools.report import result_charts
from sum_l_jax.tools.report import run_contents
from sum_l_jax.video import canvas

# The cross-view terms that leave out pairs below the threshold.
_FILTERING = ("weighted", "filtered", "graded")
_SELECTED = "train/loss/selected_pairs"
_SIDE = 96
_LEGEND = (
  "Colours: the gray frame alone says nothing for the class; purple, orange"
  " and bright yellow say more and more. Yellow is the most within one clip"
  " and row, so rows can't be compared by brightness."
)


def _jpeg(picture: np.ndarray, alt: str) -> charts.Picture:
  return charts.Picture(charts.data_uri(canvas.encoded(picture), "image/jpeg"), alt)


def pairs_section(files: run_contents.RunFiles) -> render.Section:
  """How similar the mined pairs are, examples, and how many were used."""
  name, title = "pairs", "Pairs"
  if files.fields.get("method") == "fpv_only":
    return render.Section(name, title, missing="Method 'fpv_only' has no exo clips, so no pairs.")
  if "joint" not in files.fields.get("stages", ("joint",)):
    return render.Section(
      name, title, missing="This run is of the exo stage alone, which has no pairs."
    )
  threshold = _threshold(files)
  selected = _selected_chart(files, threshold)
  try:
    pairs = pairing.PairTable.load(files.fields.get("pairs.table", ""))
    ego = files.open_ego(files.fields.get("ego.train_split", "train"))
    exo = files.open_exo()
    _check_same(pairs, ego, exo)
  except (ValueError, OSError) as error:
    return render.Section(
      name,
      title,
      [render.Charts(selected)] if selected else [],
      missing=f"The mined pairs can't be shown: {error}",
    )
  cosines = mined_pairs.best_cosines(pairs)
  edges, counts = mined_pairs.histogram(cosines)
  pictures = [
    charts.histogram(
      "the best partner of each ego clip",
      edges,
      counts,
      label="cosine of the narrations",
      threshold=threshold,
    ),
    *selected,
  ]
  return render.Section(
    name,
    title,
    [
      render.Texts(_pair_facts(pairs, cosines, threshold)),
      render.Charts(pictures),
      render.Pairs([_pair(found) for found in mined_pairs.find_examples(pairs, ego, exo)]),
    ],
  )


def _threshold(files: run_contents.RunFiles) -> float | None:
  """Of the similarity filter, or None where this run has none."""
  fields = files.fields
  if fields.get("loss.cross_view") not in _FILTERING or not fields.get("loss.weights.ego_exo"):
    return None
  return fields.get("loss.threshold")


def _check_same(
  pairs: pairing.PairTable, ego: records.ClipDataset, exo: Sequence[records.ClipDataset]
) -> None:
  """Refuses a table of other data, whose rows would name wrong clips."""
  fingerprints = tuple(data.fingerprint for data in exo)
  if (pairs.ego_fingerprint, pairs.exo_fingerprints) != (ego.fingerprint, fingerprints):
    raise ValueError("the pair table was mined for other data.")


def _pair_facts(pairs, cosines, threshold) -> list[str]:
  lines = [
    f"{len(cosines):,} ego clips with {len(pairs.neighbours):,} narrations,"
    f" compared by {pairs.text_model}; median cosine of the best partner"
    f" {np.median(cosines):.3f}."
  ]
  if threshold is None:
    lines.append("This run's loss does not filter pairs by similarity.")
  else:
    lines.append(
      f"{np.mean(cosines > threshold):.1%} of the clips have a partner above"
      f" the filter's threshold of {threshold:g}, and take part in the"
      " cross-view term."
    )
  return lines


def _selected_chart(files, threshold) -> list[charts.Picture]:
  """Pairs in the cross-view term, a step."""
  line = files.scalars.get("joint", {}).get(_SELECTED)
  if line is None:
    return []
  batch = files.fields.get("joint_stage.batch_size")
  what = "pairs that pass the filter" if threshold is not None else "pairs used"
  return [
    charts.curves(
      f"{what}, of a batch of {batch}", {what: line}, unit="pairs a step", from_zero=True
    )
  ]


def _pair(found: mined_pairs.Example) -> render.Pair:
  clips = f", {found.clips} ego clip{'s' if found.clips > 1 else ''}"
  sides = []
  for view, text, image in (
    (types.EGO, found.ego, found.ego_image),
    (types.EXO, found.exo, found.exo_image),
  ):
    picture = image and charts.Picture(
      charts.data_uri(image, "image/jpeg"), f"Middle frame of an {view} clip: {text}"
    )
    sides.append((view, text, picture))
  return render.Pair(f"{found.group}, cosine {found.cosine:.3f}{clips}", sides)


def maps_section(
  files: run_contents.RunFiles,
  *,
  number: int,
  scores: result_charts.Scores | None = None,
  baseline: pathlib.Path | None = None,
) -> render.Section:
  """Class activation maps of a few test clips, of the run and a baseline.

  Args:
    files: of the run.
    number: of clips; 0 leaves the section out.
    scores: of `files.split`; with a baseline's they choose the clips.
    baseline: its workdir.
  """
  name, title = "maps", "Where the network looks"
  missing = lambda why: render.Section(name, title, missing=why)
  if not number:
    return missing("No maps were asked for (--number=0).")
  if files.weights is None:
    return missing(f"There is no checkpoint to look into: {files.no_weights}")
  if types.EGO not in files.weights.params:
    return missing("This run has no ego encoder, the only one to be evaluated.")
  split = files.split or files.fields.get("eval.during_split", "")
  try:
    dataset = files.open_ego(split)
    explainers = [explain.Explainer(files.weights, view=types.EGO)]
    names = (files.method,)
    note = ""
    if baseline:
      other, note = _baseline_explainer(baseline, explainers[0].task)
      if other:
        explainers.insert(0, other)
        names = clip_choice.network_names(
          [towers.read_config(e.weights.card).get("method", "") for e in explainers],
          [baseline, files.workdir],
        )
    rows, how = _chosen(dataset, explainers, scores, number)
    blocks = clip_choice.blocks(
      explainers, names, dataset, rows, show="label" if len(explainers) > 1 else "predicted"
    )
  except (ValueError, OSError) as error:
    return missing(f"The clips can't be shown: {error}")
  shown: list[Any] = [
    render.Texts(filter(None, [how, _map_text(blocks[0], explainers[-1]), note, _LEGEND])),
    render.Charts([_jpeg(map_overlay.bar(480), "The colours of the maps.")]),
    render.Clips([_clip(block) for block in blocks]),
  ]
  return render.Section(name, title, shown)


def _baseline_explainer(baseline, task):
  """The baseline's network, or None and why."""
  try:
    weights = weight_files.read_weights(baseline)
    return explain.Explainer(weights, view=types.EGO, task=task), ""
  except (ValueError, OSError) as error:
    return None, f"The baseline's network can't be shown: {error}"


def _chosen(dataset, explainers, scores, number):
  """Rows of clips, and how they were chosen."""
  task = explainers[-1].task
  if len(explainers) > 1 and scores and scores.baseline:
    labels = scores.labels[task]
    hot = np.eye(scores.own[task].shape[1])[labels] if labels.ndim == 1 else labels
    # NaN, so never chosen, for a clip without labels.
    share = hot / np.where(hot.sum(1) > 0, hot.sum(1), np.nan)[:, None]
    change = ((scores.own[task] - scores.baseline[task]) * share).sum(axis=1)
    found = clip_choice.most_changed(change, number)
    place = {clip.clip_id: row for row, clip in enumerate(dataset.clips)}
    ids = [scores.clip_ids[i] for i in found]
    if ids and all(clip in place for clip in ids):
      return [place[clip] for clip in ids], (
        f"The {len(ids)} clips of split {dataset.split!r} whose probability"
        f" of the right {task} changes most from the baseline to this run, in"
        " either direction; maps are of that class."
      )
  rows = embedding.spaced(len(dataset), number)
  return rows, (
    f"{len(rows)} clips of split {dataset.split!r}, evenly spaced;"
    " maps are of the class that is shown."
  )


def _map_text(block: map_overlay.Block, explainer: explain.Explainer) -> str:
  time, height, width = block.seen[-1].grid
  return (
    f"Class activation maps of the {explainer.task} head (Zhou et al., CVPR"
    " 2016), of the slow pathway where there are two. The last stage has"
    f" {height} x {width} positions a frame and {time} time steps: nothing"
    " finer can be seen. One test view a clip, so probabilities can differ"
    " from those of the evaluation. For earlier stages and films: python -m"
    " sum_l_jax.tools.visualize"
  )


def _clip(block: map_overlay.Block) -> render.Clip:
  own, *maps = map_overlay.strips(block, side=_SIDE)
  first = block.seen[0]
  rows = [("the clip", _jpeg(own, f"Frames of the clip {first.clip_id}: {first.narration}"))]
  for number, picture in enumerate(maps):
    item = block.seen[number]
    rows.append(
      (
        block.caption(number),
        _jpeg(picture, f"Map of {item.shown}: {map_overlay.where(item.strength)}."),
      )
    )
  return render.Clip(block.heading, rows)
