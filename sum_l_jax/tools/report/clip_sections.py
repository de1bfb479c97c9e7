"""The report's sections with pictures of clips: pairs, and class maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sum_l_jax import loss_options
from sum_l_jax import types
from sum_l_jax.config import schema
from sum_l_jax.data import clip_selection
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.evaluation import towers
from sum_l_jax.tools import clip_pictures
from sum_l_jax.tools import page
from sum_l_jax.tools.class_maps import clip_choice
from sum_l_jax.tools.class_maps import explain
from sum_l_jax.tools.class_maps import map_overlay
from sum_l_jax.tools.report import charts
from sum_l_jax.tools.report import mined_pairs
from sum_l_jax.tools.report import run_contents
from sum_l_jax.video import canvas

# The cross-view terms that leave out pairs below the threshold.
_FILTERING = ("weighted", "filtered", "graded")
_SELECTED = "train/loss/selected_pairs"
_SIDE = 96
# Gray of the gaps between frames, which fits a light page and a dark one.
_BETWEEN = 128
_FRAME_HEIGHT = 120
_LEGEND = (
  "Colours: the gray frame alone says nothing for the class; purple, orange and bright yellow say"
  " more and more. Yellow is the most within one clip and row, so rows can't be compared by"
  " brightness."
)


def _jpeg(picture: np.ndarray, alt: str) -> page.Picture:
  return page.Picture(canvas.encoded(picture), alt)


def pairs(run: run_contents.RunContents) -> list[page.Block]:
  """Shows how similar the mined pairs are, examples, and how many were used."""
  if run.fields.get("method") == "fpv_only":
    return [page.Missing("Method 'fpv_only' has no exo clips, so no pairs.")]
  if "joint" not in run.fields.get("stages", ("joint",)):
    return [page.Missing("This run is of the exo stage alone, which has no pairs.")]
  threshold = _threshold(run)
  selected = _selected_chart(run, threshold)
  try:
    table = pairing.PairTable.load(run.fields.get("pairs.table", ""))
    ego = run.open_ego(run.fields.get("ego.train_split", "train"))
    exo = run.open_exo()
    _check_same(table, ego, exo)
  except (ValueError, OSError) as error:
    missing = page.Missing(f"The mined pairs can't be shown: {error}")
    return [missing, page.Charts(selected)] if selected else [missing]
  cosines = mined_pairs.best_cosines(table)
  edges, counts = mined_pairs.histogram(cosines)
  title, label = "the best partner of each ego clip", "cosine of the narrations"
  histogram = charts.histogram(title, edges, counts, label=label, threshold=threshold)
  return [
    page.Texts(_pair_facts(table, cosines, threshold)),
    page.Charts([histogram, *selected]),
    page.Gallery([_pair(found, ego, exo) for found in mined_pairs.find_examples(table)]),
  ]


def _threshold(run: run_contents.RunContents) -> float | None:
  """Threshold of the similarity filter, or None where this run has none."""
  fields = run.fields
  kind = fields.get("loss.cross_view")
  by_narrations = (
    kind in loss_options.MANY_POSITIVES and fields.get("loss.positives") == "narrations"
  )
  if not (kind in _FILTERING or by_narrations) or not fields.get("loss.weights.ego_exo"):
    return None
  return fields.get("loss.threshold")


def _check_same(
  table: pairing.PairTable, ego: records.ClipDataset, exo: Sequence[records.ClipDataset]
) -> None:
  """Refuses a table of other data, whose rows would name wrong clips."""
  fingerprints = tuple(data.annotation_fingerprint for data in exo)
  if (table.ego_fingerprint, table.exo_fingerprints) != (ego.annotation_fingerprint, fingerprints):
    raise ValueError("the pair table was mined for other data.")


def _pair_facts(
  table: pairing.PairTable, cosines: np.ndarray, threshold: float | None
) -> list[str]:
  facts = (
    f"{len(cosines):,} ego clips with {len(table.neighbours):,} narrations, compared by"
    f" {table.text_model}; median cosine of the best partner {np.median(cosines):.3f}."
  )
  if threshold is None:
    return [facts, "This run's loss does not filter pairs by similarity."]
  return [
    facts,
    f"{np.mean(cosines > threshold):.1%} of the clips have a partner above the filter's threshold"
    f" of {threshold:g}, and take part in the cross-view term.",
  ]


def _selected_chart(run: run_contents.RunContents, threshold: float | None) -> list[page.Picture]:
  """Pairs in the cross-view term, per step."""
  line = run.scalars.get("joint", {}).get(_SELECTED)
  if line is None:
    return []
  what = "pairs that pass the filter" if threshold is not None else "pairs used"
  title = f"{what}, of a batch of {run.fields.get('joint_stage.batch_size')}"
  other = run.baseline.scalars.get("joint", {}).get(_SELECTED) if run.baseline else None
  picture = charts.curves(
    title,
    {what: line},
    label="pairs a step",
    from_zero=True,
    baseline={what: other} if other else {},
    baseline_name=run.baseline_name,
  )
  return [picture]


def _pair(
  found: mined_pairs.Example, ego: records.ClipDataset, exo: Sequence[records.ClipDataset]
) -> tuple[str, list[page.Card]]:
  """An example as a group of two cards."""
  clips = f", {found.clips} ego clip{'s' if found.clips > 1 else ''}"
  cards = []
  for dataset, row in ((ego, found.ego_row), (exo[found.pool], found.exo_row)):
    clip = int(dataset.moments.clip[row])
    picture = clip_pictures.moving(dataset, clip, height=_FRAME_HEIGHT)
    lines = [("what", dataset.view), ("text", dataset.moments.clips[row].narration)]
    cards.append(page.Card(lines, picture))
  return f"{found.group}, cosine {found.cosine:.3f}{clips}", cards


def maps(run: run_contents.RunContents, number: int) -> list[page.Block]:
  """Shows class maps of a few test clips, of the run and a baseline.

  Args:
    run: what the run left; with a baseline's scores they choose the clips.
    number: number of clips; 0 leaves the section out.
  """
  if not number:
    return [page.Missing("No maps were asked for (--number=0).")]
  if run.weights is None:
    return [page.Missing(f"There is no checkpoint to look into: {run.no_weights}")]
  if types.EGO not in run.weights.params:
    if schema.JOINT_STAGE in run.fields.get("stages", ()):
      return [page.Missing("The joint stage, which has the ego encoder, has no checkpoint yet.")]
    return [page.Missing("This run has no ego encoder, the only one to be evaluated.")]
  try:
    dataset = run.open_ego(run.split or run.fields.get("eval.during_split", ""))
    explainers = [explain.Explainer(run.weights, view=types.EGO)]
    names, note = (run.method,), ""
    if run.baseline:
      other, note = _baseline_explainer(run.baseline, explainers[0].task)
      if other:
        explainers.insert(0, other)
        methods = [towers.read_config(e.weights.card).get("method", "") for e in explainers]
        names = clip_choice.network_names(methods, [run.baseline.workdir, run.workdir])
    rows, how = _choose(dataset, explainers, run.scores, number)
    show = "label" if len(explainers) > 1 else "predicted"
    blocks = clip_choice.blocks(explainers, names, dataset, rows, show=show)
  except (ValueError, OSError) as error:
    return [page.Missing(f"The clips can't be shown: {error}")]
  about = [how, _map_text(blocks[0], explainers[-1]), *filter(None, [note]), _LEGEND]
  return [
    page.Texts(about),
    page.Charts([_jpeg(map_overlay.bar(480), "The colours of the maps.")]),
    *(_strips(block) for block in blocks),
  ]


def _baseline_explainer(
  baseline: run_contents.RunContents, task: str
) -> tuple[explain.Explainer | None, str]:
  """The baseline's network, or None and why."""
  if baseline.weights is None:
    return None, f"The baseline's network can't be shown: {baseline.no_weights}"
  try:
    return explain.Explainer(baseline.weights, view=types.EGO, task=task), ""
  except ValueError as error:
    return None, f"The baseline's network can't be shown: {error}"


def _choose(
  dataset: records.ClipDataset,
  explainers: Sequence[explain.Explainer],
  scores: run_contents.Scores | None,
  number: int,
) -> tuple[Sequence[int], str]:
  """Rows of clips, and how they were chosen."""
  task = explainers[-1].task
  if len(explainers) > 1 and scores and scores.baseline:
    own, labels = scores.own.scores[task], scores.own.labels[task]
    # The row of -1 is that of a clip without a label.
    classes = own.shape[1]
    hot = np.eye(classes + 1, classes)[labels] if labels.ndim == 1 else labels
    # NaN, so never chosen, for a clip without labels.
    share = hot / np.where(hot.sum(1) > 0, hot.sum(1), np.nan)[:, None]
    change = ((own - scores.baseline.scores[task]) * share).sum(axis=1)
    place = {clip.clip_id: row for row, clip in enumerate(dataset.clips)}
    ids = [scores.own.clip_ids[i] for i in clip_choice.most_changed(change, number)]
    if ids and all(clip in place for clip in ids):
      return [place[clip] for clip in ids], (
        f"The {len(ids)} clips of split {dataset.split!r} whose probability of the right {task}"
        " changes most from the baseline to this run, in either direction; maps are of that class."
      )
  rows = clip_selection.spaced(len(dataset), number)
  return rows.tolist(), (
    f"{len(rows)} clips of split {dataset.split!r}, evenly spaced; maps are of the class that is"
    " shown."
  )


def _map_text(block: map_overlay.Block, explainer: explain.Explainer) -> str:
  item = block.seen[-1]
  time, height, width = item.grid
  pixels = item.frames.shape[2]
  return (
    f"Class activation maps of the {explainer.task} head (Zhou et al., CVPR 2016), of the slow"
    f" pathway where there are two. The maps are coarse: the last stage has {time} time steps over"
    f" {len(item.frames)} frames and {height} x {width} positions in a frame, so that a cell is"
    f" {pixels // width} of {pixels} pixels wide. They are enlarged smoothly, and nothing finer can"
    " be seen. Times are from the start of the clip. There is one test view a clip, so scores can"
    " differ from those of the evaluation. For earlier stages and films:"
    " python -m sum_l_jax visualize"
  )


def _strips(block: map_overlay.Block) -> page.Strips:
  own, *maps_of_networks = map_overlay.strips(block, side=_SIDE, between=_BETWEEN)
  first = block.seen[0]
  when = ", ".join(f"{second:.2f}" for second in first.seconds)
  rows = [
    ("the clip", _jpeg(own, f"Frames of the clip {first.clip_id}, at {when} s: {first.narration}"))
  ]
  for number, (item, picture) in enumerate(zip(block.seen, maps_of_networks)):
    alt = f"Map of {item.shown}: {map_overlay.where(item.strength)}."
    rows.append((block.caption(number), _jpeg(picture, alt)))
  return page.Strips(block.heading, rows)
