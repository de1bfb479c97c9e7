"""Charts of the report: SVG pictures with a text that says the same.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), which
colour-blind readers can tell apart; lines differ in their dashes too, so that a
print in gray is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import io
from typing import Any

import matplotlib
from matplotlib import axes
from matplotlib import figure
from matplotlib import ticker
from matplotlib.backends import backend_svg
import numpy as np

from sum_l_jax.tools import page
from sum_l_jax.train import metric_log

BLUE, VERMILION = "#0072b2", "#d55e00"
_COLORS = (BLUE, VERMILION, "#009e73", "#cc79a7", "#000000", "#56b4e9", "#8c6d00")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)))
_INK, _SOFT = "#222222", "#d9d9d9"
# A column of the page: text of 9 points is 9 pixels or more on a phone.
_WIDTH = 5.2
_STYLE: dict[Any, Any] = {
  "font.size": 9,
  "font.family": "DejaVu Sans",
  "axes.edgecolor": "#888888",
  "axes.labelcolor": _INK,
  "xtick.color": _INK,
  "ytick.color": _INK,
  # Class names may hold "$".
  "text.parse_math": False,
  # The same numbers make the same file.
  "svg.hashsalt": "sum_l_jax",
}


def _draw(
  title: str, height: float, alt: str, plot: Callable[[axes.Axes], None], *, framed: bool = False
) -> page.Picture:
  """Runs `plot` on new axes and keeps the picture as SVG."""
  with matplotlib.rc_context(_STYLE):
    drawing = figure.Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="white")
    backend_svg.FigureCanvasSVG(drawing)
    ax = drawing.add_subplot()
    ax.set_title(title, loc="left", fontsize=10, weight="bold", color=_INK)
    if not framed:
      ax.spines[["top", "right"]].set_visible(False)
    plot(ax)
    out = io.BytesIO()
    drawing.savefig(out, format="svg", metadata={"Date": None})
  return page.Picture(out.getvalue(), alt, "image/svg+xml")


def _short(text: str, limit: int) -> str:
  return text if len(text) <= limit else text[: limit - 1] + "…"


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
) -> page.Picture:
  """Draws lines over the steps of training.

  Args:
    title: title of the chart.
    series: lines by name.
    unit: unit of the values, on the axis.
    percent: whether values in [0, 1] are shown as percentages.
    from_zero: whether the vertical axis starts at 0.
  """
  longest = max(map(len, series))
  columns = 3 if longest <= 16 else 2 if longest <= 30 else 1

  def plot(ax: axes.Axes) -> None:
    for number, (name, line) in enumerate(series.items()):
      ax.plot(
        line.steps,
        100 * line.values if percent else line.values,
        label=name,
        color=_COLORS[number % len(_COLORS)],
        linestyle=_DASHES[number % len(_DASHES)],
        linewidth=1.6,
        marker="o" if len(line.steps) < 12 else None,
        markersize=3,
      )
    ax.set_xlabel("step")
    ax.set_ylabel("%" if percent else unit)
    ax.grid(axis="y", color=_SOFT, linewidth=0.6)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    if len(series) > 1:
      # Below the axes, where it can't hide a line.
      ax.figure.legend(loc="outside lower left", ncols=columns, frameon=False, handlelength=2.6)
    if from_zero:
      # With room above: a level line would lie on the frame's edge.
      ax.set_ylim(0, 1.1 * ax.get_ylim()[1])

  ends = "; ".join(_ends(name, line.values) for name, line in series.items())
  rows = -(-len(series) // columns) if len(series) > 1 else 0
  return _draw(title, 2.5 + 0.2 * rows, f"Line chart, {title} by step: {ends}.", plot)


def histogram(
  title: str, edges: np.ndarray, counts: np.ndarray, *, label: str, threshold: float | None = None
) -> page.Picture:
  """Draws counts in bins, with a line at a threshold.

  Args:
    title: title of the chart.
    edges: edges of the bins, `[n + 1]`.
    counts: counts, `[n]`.
    label: label of the horizontal axis.
    threshold: place of the line.
  """

  def plot(ax: axes.Axes) -> None:
    ax.stairs(counts, edges, fill=True, color=BLUE)
    ax.set_xlabel(label)
    ax.set_ylabel("ego clips")
    ax.set_ylim(bottom=0)
    if threshold is not None:
      ax.axvline(threshold, color=VERMILION, linewidth=1.6, linestyle="--")
      ax.annotate(
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
  return _draw(title, 2.5, alt, plot)


def confusion(title: str, shares: np.ndarray, names: Sequence[str], alt: str) -> page.Picture:
  """Draws a confusion matrix, each row's shares in colour and as numbers.

  Args:
    title: title of the chart.
    shares: shares, `[M, M + 1]`, see `class_numbers.Confusion`.
    names: M names.
    alt: what the chart shows.
  """
  columns = [_short(name, 14) for name in (*names, "other")]

  def plot(ax: axes.Axes) -> None:
    ax.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), columns[:-1])
    ax.set_xlabel("predicted")
    ax.set_ylabel("label")
    for (row, column), share in np.ndenumerate(shares):
      if share >= 0.005:
        color = "white" if share < 0.55 else "black"
        text = f"{100 * share:.0f}"
        ax.text(column, row, text, ha="center", va="center", fontsize=7, color=color)

  return _draw(title, 1.6 + 0.27 * len(names), alt, plot, framed=True)


def bars(title: str, names: Sequence[str], values: np.ndarray, *, label: str) -> page.Picture:
  """Draws horizontal bars to both sides of 0, the first one at the top.

  Args:
    title: title of the chart.
    names: n names.
    values: values, `[n]`.
    label: label of the horizontal axis.
  """
  values = np.asarray(values, np.float64)

  def plot(ax: axes.Axes) -> None:
    colors = [BLUE if value >= 0 else VERMILION for value in values]
    ax.barh(range(len(names)), values, height=0.7, color=colors)
    ax.set_yticks(range(len(names)), [_short(name, 18) for name in names])
    ax.invert_yaxis()
    ax.axvline(0, color=_INK, linewidth=0.8)
    ax.set_xlabel(label)
    ax.grid(axis="x", color=_SOFT, linewidth=0.6)
    ax.set_axisbelow(True)

  shown = ", ".join(f"{n} {v:+.1f}" for n, v in zip(names, values))
  return _draw(title, 1.1 + 0.22 * len(names), f"Bar chart, {title}: {shown}.", plot)
