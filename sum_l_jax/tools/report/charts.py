"""Charts of the report: SVG pictures with a text that says the same.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), which
colour-blind readers can tell apart; lines differ in their dashes too, so that a
print in gray is enough.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import io

import matplotlib
from matplotlib import figure
from matplotlib import ticker
from matplotlib.backends import backend_svg
import numpy as np

from sum_l_jax.train import metric_log

BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"
_COLORS = (BLUE, VERMILION, GREEN, "#cc79a7", "#000000", "#56b4e9", "#8c6d00")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)))
_INK, _SOFT = "#222222", "#d9d9d9"
# A column of the page: text of 9 points is 9 pixels or more on a phone.
_WIDTH = 5.2
_STYLE = {
  "font.size": 9,
  "font.family": "DejaVu Sans",
  "axes.edgecolor": "#888888",
  "axes.labelcolor": _INK,
  "xtick.color": _INK,
  "ytick.color": _INK,
  # Class names may hold "$".
  "text.parse_math": False,
  # The same file from the same numbers.
  "svg.hashsalt": "sum_l_jax",
}


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture inside a page.

  Attributes:
    source: a data URI.
    alt: what it shows, for those who can't see it.
  """

  source: str
  alt: str


def data_uri(data: bytes, kind: str) -> str:
  """A file as a URI, so that the page needs nothing beside it."""
  return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _draw(height: float, alt: str, plot) -> Picture:
  """Runs `plot(axes)` on new axes and keeps the picture as SVG."""
  with matplotlib.rc_context(_STYLE):
    drawing = figure.Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="white")
    backend_svg.FigureCanvasSVG(drawing)
    axes = drawing.add_subplot()
    plot(axes)
    out = io.BytesIO()
    drawing.savefig(out, format="svg", metadata={"Date": None})
  return Picture(data_uri(out.getvalue(), "image/svg+xml"), alt)


def _plain(axes, title: str) -> None:
  axes.set_title(title, loc="left", fontsize=10, weight="bold", color=_INK)
  axes.spines[["top", "right"]].set_visible(False)


def _ends(name: str, values: np.ndarray) -> str:
  if len(values) == 1:
    return f"{name} {values[0]:.3g}"
  return f"{name} from {values[0]:.3g} to {values[-1]:.3g}"


def curves(
  title: str,
  series: Mapping[str, metric_log.Series],
  *,
  unit: str = "",
  percent: bool = False,
  from_zero: bool = False,
) -> Picture:
  """Lines over the steps of training.

  Args:
    title: of the chart.
    series: by name.
    unit: of the values, on the axis.
    percent: values in [0, 1] are shown as percentages.
    from_zero: the vertical axis starts at 0.
  """
  longest = max(map(len, series))
  columns = 3 if longest <= 16 else 2 if longest <= 30 else 1

  def plot(axes):
    _plain(axes, title)
    for number, (name, line) in enumerate(series.items()):
      axes.plot(
        line.steps,
        100 * line.values if percent else line.values,
        label=name,
        color=_COLORS[number % len(_COLORS)],
        linestyle=_DASHES[number % len(_DASHES)],
        linewidth=1.6,
        marker="o" if len(line.steps) < 12 else None,
        markersize=3,
      )
    axes.set_xlabel("step")
    axes.set_ylabel("%" if percent else unit)
    axes.grid(axis="y", color=_SOFT, linewidth=0.6)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    if len(series) > 1:
      # Below the axes, where it can't hide a line.
      axes.figure.legend(loc="outside lower left", ncols=columns, frameon=False, handlelength=2.6)
    if from_zero:
      # With room above: a level line would lie on the frame's edge.
      axes.set_ylim(0, 1.1 * axes.get_ylim()[1])

  alt = (
    f"Line chart, {title} by step: "
    + "; ".join(_ends(name, line.values) for name, line in series.items())
    + "."
  )
  rows = -(-len(series) // columns) if len(series) > 1 else 0
  return _draw(2.5 + 0.2 * rows, alt, plot)


def histogram(
  title: str, edges: np.ndarray, counts: np.ndarray, *, label: str, threshold: float | None = None
) -> Picture:
  """Counts in bins, with a line at a threshold.

  Args:
    title: of the chart.
    edges: `[n + 1]`.
    counts: `[n]`.
    label: of the horizontal axis.
    threshold: where the line is.
  """

  def plot(axes):
    _plain(axes, title)
    axes.stairs(counts, edges, fill=True, color=BLUE)
    axes.set_xlabel(label)
    axes.set_ylabel("ego clips")
    axes.set_ylim(bottom=0)
    if threshold is not None:
      axes.axvline(threshold, color=VERMILION, linewidth=1.6, linestyle="--")
      axes.annotate(
        f"filter {threshold:g}",
        (threshold, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        color=VERMILION,
      )

  highest = int(np.argmax(counts))
  alt = (
    f"Histogram, {title}: {int(np.sum(counts))} clips, most of them"
    f" between {edges[highest]:.2f} and {edges[highest + 1]:.2f}."
  )
  return _draw(2.5, alt, plot)


def confusion(title: str, shares: np.ndarray, names: Sequence[str], alt: str) -> Picture:
  """A confusion matrix, the share of each row in colour and as a number.

  Args:
    title: of the chart.
    shares: `[M, M + 1]`, see `class_numbers.Confusion`.
    names: M names.
    alt: what it shows.
  """
  columns = [*names, "other"]
  short = lambda text: text if len(text) <= 14 else text[:13] + "…"

  def plot(axes):
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axes.set_title(title, loc="left", fontsize=10, weight="bold", color=_INK)
    axes.set_xticks(
      range(len(columns)),
      [short(n) for n in columns],
      rotation=60,
      ha="right",
      rotation_mode="anchor",
    )
    axes.set_yticks(range(len(names)), [short(n) for n in names])
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    for (row, column), share in np.ndenumerate(shares):
      if share >= 0.005:
        axes.text(
          column,
          row,
          f"{100 * share:.0f}",
          ha="center",
          va="center",
          fontsize=7,
          color="white" if share < 0.55 else "black",
        )

  return _draw(1.6 + 0.27 * len(names), alt, plot)


def bars(title: str, names: Sequence[str], values: np.ndarray, *, label: str) -> Picture:
  """Horizontal bars to both sides of 0, the first at the top.

  Args:
    title: of the chart.
    names: n names.
    values: `[n]`.
    label: of the horizontal axis.
  """
  values = np.asarray(values, np.float64)
  short = lambda text: text if len(text) <= 18 else text[:17] + "…"

  def plot(axes):
    _plain(axes, title)
    axes.barh(
      range(len(names)), values, height=0.7, color=[BLUE if v >= 0 else VERMILION for v in values]
    )
    axes.set_yticks(range(len(names)), [short(n) for n in names])
    axes.invert_yaxis()
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=_SOFT, linewidth=0.6)
    axes.set_axisbelow(True)

  shown = ", ".join(f"{n} {v:+.1f}" for n, v in zip(names, values))
  return _draw(1.1 + 0.22 * len(names), f"Bar chart, {title}: {shown}.", plot)
