r"""Reports how similar the narrations of two sets are: the paper's Figure 2.

  python -m data_prep.similarity_report --ego=data/epic55 \
      --exo=data/exo[,data/exo2] --narrations=data/narrations.npz \
      --output=report.png

The report tells before any training whether the sets have something to learn
from each other. It counts twice. Over action classes (distinct narrations): the
best cosine of each, beside the cosines of all pairs. Over clips, where a
frequent narration weighs more: how many have a partner how similar, and what
labels they share with it. The command writes a picture and, beside it, the
numbers as JSON. The line in the picture is the threshold of the losses, below which a
pair is left out: config.loss.threshold, or --threshold.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Sequence
import importlib
import json
import sys
from typing import TYPE_CHECKING

from etils import epath
import numpy as np

from data_prep.mining import pair_options
from data_prep.mining import pair_summary
from data_prep.mining import pseudo_pairs
from sum_l_jax import loss_options
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.system import command_line
from sum_l_jax.system import progress
from sum_l_jax.system import storage

if TYPE_CHECKING:
  from matplotlib.axes import Axes

# The name and the lowest cosine of each band, from the most similar. A cosine on
# the border belongs to the higher band, except for the first: more than 0.999.
BANDS = (
  ("identical", 0.999),
  ("0.9 - 1", 0.9),
  ("0.7 - 0.9", 0.7),
  ("0.5 - 0.7", 0.5),
  ("0.3 - 0.5", 0.3),
  ("below 0.3", -1.0),
)
NUM_EXAMPLES = 3

_BIN = 0.05
_BINS = round(2 / _BIN)
_BLOCK = 2048

_THRESHOLD = "#c04a00"
# From dark to light as the labels agree less.
_COLORS = {
  "verb and noun": "#08306b",
  "verb": "#3787c0",
  "noun": "#94c4df",
  "neither": "#d9d9d9",
  "unlabelled": "#f4efe6",
  "clips": "#3787c0",
}


def similarity_report(
  ego: records.ClipDataset,
  exo: Sequence[records.ClipDataset],
  table: narration_table.NarrationTable,
  *,
  threshold: float = loss_options.THRESHOLD,
) -> dict:
  """Computes all numbers of the report.

  Args:
    ego: first-person clips.
    exo: pools of third-person clips, together one set.
    table: narration table of both sides.
    threshold: cosine above which the losses take a pair.

  Returns:
    What the JSON file holds:
      sets: names of the two sides and of the sentence model.
      classes: numbers of distinct narrations, of both sides and in common;
        `bin_edges` with the counts of the `best` cosines and of `all_pairs`; and
        percentiles of the best.
      clips: number of ego clips and a list of `bands`, each with its name, count,
        share, counts by shared labels (or None) and examples.
      threshold: its `cosine`, and how many ego `clips` and `classes` have a partner
        above it.

  Raises:
    ValueError: a narration is not in `table`, or nothing to compare.
  """
  pairs = pseudo_pairs.mine(ego, exo, table, top_k=1)
  ego_rows = np.unique(pseudo_pairs.rows([ego], table))
  exo_rows = np.unique(pseudo_pairs.rows(exo, table))
  best = pairs.similarity[:, 0]
  return {
    "sets": {"ego": _title([ego]), "exo": _title(exo), "sentence_model": table.model},
    "classes": {
      "ego": len(ego_rows),
      "exo": len(exo_rows),
      "in_common": len(np.intersect1d(ego_rows, exo_rows)),
      "bin_edges": np.linspace(-1, 1, _BINS + 1).round(6).tolist(),
      "best": _histogram(best).tolist(),
      "all_pairs": _all_pairs(table.vectors, ego_rows, exo_rows).tolist(),
      "best_percentiles": {
        str(percent): round(float(np.percentile(best, percent)), 6)
        for percent in pair_summary.PERCENTILES
      },
    },
    "clips": {"number": len(ego.moments), "bands": _bands(pairs, ego, exo)},
    "threshold": {
      "cosine": threshold,
      "clips": int(np.sum(pairs.similarity[pairs.ego_rows, 0] > np.float32(threshold))),
      "classes": int(np.sum(best > np.float32(threshold))),
    },
  }


def _title(sets: Sequence[records.ClipDataset]) -> str:
  return " + ".join(f"{data.name} ({data.split})" for data in sets)


def _histogram(cosines: np.ndarray) -> np.ndarray:
  """Counts cosines in bins of 0.05; a bin includes its lower edge."""
  # The float32 of a round number may be a hair below it.
  bins = np.floor((cosines + (1.0 + 1e-6)) / _BIN).astype(np.int64)
  return np.bincount(np.clip(bins, 0, _BINS - 1).ravel(), minlength=_BINS)


def _all_pairs(vectors: np.ndarray, ego_rows: np.ndarray, exo_rows: np.ndarray) -> np.ndarray:
  """The histogram of all cosines, one block at a time."""
  counts = np.zeros(_BINS, np.int64)
  with progress.Progress("narrations compared", total=len(ego_rows)) as bar:
    for first in range(0, len(ego_rows), _BLOCK):
      some = vectors[ego_rows[first : first + _BLOCK]]
      for start in range(0, len(exo_rows), _BLOCK):
        part = vectors[exo_rows[start : start + _BLOCK]]
        counts += _histogram(some @ part.T)
      bar.update(len(some))
  return counts


def _bands(
  pairs: pairing.PairTable, ego: records.ClipDataset, exo: Sequence[records.ClipDataset]
) -> list[dict]:
  """What `similarity_report` says of each band, counted over clips."""
  partners = pair_summary.best_partners(pairs, exo)
  shared = pair_summary.shared_labels(ego, exo, partners)
  cosines = pairs.similarity[pairs.ego_rows, 0]
  band_of_clip = band(cosines)
  described = []
  for number, (name, _) in enumerate(BANDS):
    clips = np.flatnonzero(band_of_clip == number)
    labels = None
    if shared is not None:
      counts = collections.Counter(shared[clip] for clip in clips)
      labels = {what: counts[what] for what in pair_summary.count_shared(shared)}
    described.append(
      {
        "name": name,
        "clips": len(clips),
        "share": len(clips) / len(ego.moments),
        "shared_labels": labels,
        "examples": [
          {
            "cosine": round(float(cosines[clip]), 6),
            "ego": ego.moments.clips[clip].narration,
            "exo": partners[clip].narration,
            "clips": count,
          }
          for clip, count in _frequent(pairs.ego_rows, clips)
        ],
      }
    )
  return described


def band(cosines: np.ndarray) -> np.ndarray:
  """The position in `BANDS` of each cosine."""
  # Mined cosines are multiples of 1e-6, in float32.
  cosines = np.asarray(cosines, np.float64).round(6)
  identical, *others = (lowest for _, lowest in BANDS[:-1])
  return (cosines <= identical) + sum(cosines < lowest for lowest in others)


def _frequent(rows: np.ndarray, clips: np.ndarray) -> list[tuple[int, int]]:
  """The first clip and the number of clips of each of the commonest narrations."""
  _, first, counts = np.unique(rows[clips], return_index=True, return_counts=True)
  order = np.argsort(-counts, kind="stable")[:NUM_EXAMPLES]
  return [(int(clips[first[i]]), int(counts[i])) for i in order]


def as_text(report: dict) -> str:
  """The report as a table for the terminal.

  Args:
    report: numbers of `similarity_report`.
  """
  classes, clips = report["classes"], report["clips"]
  percentiles = ", ".join(
    f"{percent} %: {value:.3f}" for percent, value in classes["best_percentiles"].items()
  )
  lines = [
    f"ego {report['sets']['ego']}, exo {report['sets']['exo']}, sentences by"
    f" {report['sets']['sentence_model']}",
    f"action classes: {classes['ego']} ego, {classes['exo']} exo, {classes['in_common']} in common",
    f"best cosine of an ego class, percentiles: {percentiles}",
    f"above the threshold of {report['threshold']['cosine']:g}: {_above(report)}",
    f"best cosine of the {clips['number']} ego clips:",
  ]
  labelled = clips["bands"][0]["shared_labels"] is not None
  columns = tuple(clips["bands"][0]["shared_labels"] or ())
  lines.append(
    f"  {'cosine':<10} {'clips':>8} {'share':>7}" + "".join(f" {name:>14}" for name in columns)
  )
  for row in clips["bands"]:
    lines.append(
      f"  {row['name']:<10} {row['clips']:>8} {row['share']:>7.1%}"
      + "".join(f" {row['shared_labels'][name]:>14}" for name in columns)
    )
    lines += [
      f"    {pair['cosine']:.3f}  {pair['ego']}  ->  {pair['exo']}  ({pair['clips']} clips)"
      for pair in row["examples"]
    ]
  if not labelled:
    lines.append("labels: no verb and noun with common class names")
  return "\n".join(lines)


def _above(report: dict) -> str:
  """How many clips and classes have a partner above the threshold."""
  over, clips, classes = report["threshold"], report["clips"]["number"], report["classes"]["ego"]
  return (
    f"{over['clips']:,} of {clips:,} ego clips ({100 * over['clips'] / clips:.1f} %),"
    f" {over['classes']:,} of {classes:,} ego classes ({100 * over['classes'] / classes:.1f} %)"
  )


def draw(report: dict, path: epath.Path) -> None:
  """Writes the picture, 1200 x 700 pixels.

  Args:
    report: numbers of `similarity_report`.
    path: a `.png` file; its folder is made when missing.
  """
  from matplotlib.figure import Figure  # Not pyplot, which chooses a backend for others.

  figure = Figure(figsize=(12, 7), dpi=100, facecolor="white")
  grid = figure.add_gridspec(1, 2, left=0.075, right=0.965, bottom=0.11, top=0.71, wspace=0.28)
  sets = report["sets"]
  title = "How similar are the narrations?"
  figure.text(0.075, 0.935, title, fontsize=19, weight="bold")
  names = _shortened(f"ego: {sets['ego']}     exo: {sets['exo']}", 110)
  figure.text(0.075, 0.893, names, fontsize=12, color="#555555")
  threshold = report["threshold"]["cosine"]
  above = f"above the threshold of {threshold:g}: {_above(report)}"
  figure.text(0.075, 0.858, _shortened(above, 110), fontsize=12, color=_THRESHOLD)
  _draw_classes(figure.add_subplot(grid[0]), report["classes"], threshold)
  _draw_clips(figure.add_subplot(grid[1]), report["clips"], threshold)
  storage.make_folder(path.parent)
  with storage.replacing(path) as scratch:
    figure.savefig(scratch)


def _shortened(text: str, length: int) -> str:
  return text if len(text) <= length else text[: length - 3] + "..."


def _plain(axes: Axes, title: str) -> None:
  """Takes away what a chart doesn't need."""
  axes.set_title(title, loc="left", fontsize=13, pad=38)
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(labelsize=12)


def _legend(axes: Axes) -> None:
  """Puts the legend between the title and the axes, where it can't hide a bar."""
  axes.legend(
    loc="lower left",
    bbox_to_anchor=(0.0, 1.01),
    ncols=4,
    frameon=False,
    fontsize=12,
    handlelength=1.0,
    handletextpad=0.5,
    columnspacing=1.4,
    borderaxespad=0.0,
    borderpad=0.2,
  )


def _draw_classes(axes: Axes, classes: dict, threshold: float) -> None:
  """Draws two histograms, each as shares, since their sums differ greatly."""
  _plain(
    axes,
    f"{classes['ego']:,} ego and {classes['exo']:,} exo action classes,"
    f" {classes['in_common']:,} shared",
  )
  edges = np.array(classes["bin_edges"])
  for name, color, label in (
    ("all_pairs", "#b0b0b0", "all ego-exo pairs"),
    ("best", _COLORS["verb"], "best exo class of each ego class"),
  ):
    shares = 100 * np.array(classes[name]) / sum(classes[name])
    axes.stairs(shares, edges, fill=True, color=color, alpha=0.75, label=label)
  used = np.flatnonzero(np.array(classes["all_pairs"]))
  axes.set_xlim(min(0.0, np.floor(edges[used[0]] * 10) / 10), 1.0)
  axes.set_ylim(bottom=0)
  axes.locator_params(axis="y", nbins=6)
  axes.set_xlabel("cosine of the sentence vectors", fontsize=13)
  axes.set_ylabel(f"share in bins of {_BIN} (%)", fontsize=13)
  axes.axvline(threshold, color=_THRESHOLD, linewidth=1.8, linestyle="--")
  axes.annotate(
    f"threshold {threshold:g}",
    (threshold, 1.0),
    xycoords=("data", "axes fraction"),
    xytext=(5, -4),
    textcoords="offset points",
    va="top",
    fontsize=12,
    color=_THRESHOLD,
    # Bars may reach up to it.
    bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
  )
  _legend(axes)


def place_of(threshold: float) -> float:
  """Where a cosine lies among the bars of the bands, which are at 0, 1, 2 ...

  A cosine between two borders lies in the bar of their band, in proportion.

  >>> place_of(0.5), place_of(0.6), place_of(1.0)
  (3.5, 3.0, -0.5)
  """
  borders = [1.0, *(lowest for _, lowest in BANDS)]
  edges = np.arange(len(borders)) - 0.5
  # Ascending, as interpolation wants it.
  return float(np.interp(threshold, borders[::-1], edges[::-1]))


def _draw_clips(axes: Axes, clips: dict, threshold: float) -> None:
  """Draws one bar a band, made up of what the pairs' labels share."""
  bands = clips["bands"]
  labelled = bands[0]["shared_labels"] is not None
  title = f"Best partners of {clips['number']:,} ego clips"
  _plain(axes, title + (", labels shared" if labelled else ""))
  left = np.zeros(len(bands))
  for name in tuple(bands[0]["shared_labels"] or ("clips",)):
    counts = [(row["shared_labels"] or row)[name] for row in bands]
    widths = 100 * np.array(counts) / clips["number"]
    axes.barh(range(len(bands)), widths, left=left, color=_COLORS[name], height=0.68, label=name)
    left += widths
  for position, width in enumerate(left):
    axes.text(width + 0.012 * left.max(), position, f"{width:.1f} %", va="center", fontsize=12)
  axes.set_yticks(range(len(bands)), [row["name"] for row in bands])
  axes.invert_yaxis()
  axes.set_xlim(0, left.max() * 1.16)
  axes.set_xlabel("share of ego clips (%)", fontsize=13)
  axes.set_ylabel("cosine of the best partner", fontsize=13)
  place = place_of(threshold)
  axes.axhline(place, color=_THRESHOLD, linewidth=1.8, linestyle="--")
  axes.annotate(
    f"threshold {threshold:g}",
    (1.0, place),
    xycoords=("axes fraction", "data"),
    # Below the line, where the bar of less similar pairs is the shorter one as a rule.
    xytext=(0, -4),
    textcoords="offset points",
    va="top",
    ha="right",
    fontsize=12,
    color=_THRESHOLD,
  )
  if labelled:
    _legend(axes)


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.similarity_report", __doc__)
  pair_options.add(parser)
  parser.add_argument(
    "--threshold",
    type=float,
    default=loss_options.THRESHOLD,
    help=f"cosine above which the losses take a pair ({loss_options.THRESHOLD})",
  )
  parser.add_argument(
    "--output",
    required=True,
    type=epath.Path,
    metavar="FILE.png",
    help="the picture; the numbers go to the same name with .json",
  )
  return parser


def report(args: argparse.Namespace) -> None:
  """Runs the command; errors as in `similarity_report` and `draw`."""
  if args.output.suffix.lower() != ".png":
    raise ValueError(
      f"--output must name a .png file, got {str(args.output)!r}; the"
      " numbers are written beside it, as .json."
    )
  if not -1 <= args.threshold <= 1:
    raise ValueError(f"--threshold must be a cosine, from -1 to 1, got {args.threshold}.")
  importlib.import_module("matplotlib")  # If it is missing, the work need not begin.
  numbers = similarity_report(*pair_options.read(args), threshold=args.threshold)
  draw(numbers, args.output)
  numbers_file = args.output.with_suffix(".json")
  storage.write_text(numbers_file, json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
  print(f"wrote {args.output} and {numbers_file}")
  print(as_text(numbers))


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(make_parser(), report, argv)


if __name__ == "__main__":
  sys.exit(main())
