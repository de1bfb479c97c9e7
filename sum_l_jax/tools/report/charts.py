"""Charts of the report: SVG pictures with a text that says the same.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), which
colour-blind readers can tell apart; lines differ in their dashes too, so that a
print in gray is enough. Nothing is painted behind them: the page is the paper, and
turns the colours round where it is dark.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import io
import textwrap
from typing import Any

import matplotlib
from matplotlib import axes
from matplotlib import colormaps
from matplotlib import figure
from matplotlib import lines
from matplotlib import ticker
from matplotlib.backends import backend_svg
import numpy as np

from sum_l_jax.tools import page
from sum_l_jax.train import metric_log

BLUE, VERMILION = "#0072b2", "#d55e00"
_COLORS = (BLUE, VERMILION, "#009e73", "#cc79a7", "#000000", "#56b4e9", "#8c6d00")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)))
_INK, _SOFT, _GRAY = "#222222", "#d9d9d9", "#8a8a8a"
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


@dataclasses.dataclass(frozen=True)
class Bar:
  """A number to be drawn as a bar, in percent, beside those it is compared with.

  Attributes:
    name: what was measured.
    value: the number.
    bounds: ends of its interval, or None.
    baseline: the same number of another run, or None.
    baseline_bounds: ends of its interval, or None.
    guess: what a guess scores, or None.
  """

  name: str
  value: float
  bounds: Sequence[float] | None = None
  baseline: float | None = None
  baseline_bounds: Sequence[float] | None = None
  guess: float | None = None


def _draw(
  title: str, height: float, alt: str, plot: Callable[[axes.Axes], None], *, framed: bool = False
) -> page.Picture:
  """Runs `plot` on new axes and keeps the picture as SVG."""
  with matplotlib.rc_context(_STYLE):
    drawing = figure.Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="none")
    backend_svg.FigureCanvasSVG(drawing)
    ax = drawing.add_subplot(facecolor="none")
    # To the left edge of the picture: a long title has more room there.
    drawing.suptitle(_folded(title), x=0.01, ha="left", fontsize=10, weight="bold", color=_INK)
    if not framed:
      ax.spines[["top", "right"]].set_visible(False)
    plot(ax)
    out = io.BytesIO()
    drawing.savefig(out, format="svg", metadata={"Date": None})
  return page.Picture(out.getvalue(), alt, page.DRAWING)


def _folded(text: str) -> str:
  """A title in lines that fit the picture."""
  return "\n".join(textwrap.wrap(text, 62)) or text


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
  label: str = "",
  percent: bool = False,
  from_zero: bool = False,
  baseline: Mapping[str, metric_log.Series] | None = None,
  baseline_name: str = "baseline",
) -> page.Picture:
  """Draws lines over the steps of training.

  Args:
    title: title of the chart.
    series: lines by name.
    label: what the vertical axis shows, with its unit.
    percent: whether values in [0, 1] are shown as percentages.
    from_zero: whether the vertical axis starts at 0.
    baseline: lines of another run; those whose name is in `series` are drawn thin
      and pale, in the same colour.
    baseline_name: name of that run.
  """
  theirs = {name: line for name, line in (baseline or {}).items() if name in series}
  longest = max(map(len, series))
  columns = 3 if longest <= 16 else 2 if longest <= 30 else 1
  entries = len(series) + bool(theirs)

  def plot(ax: axes.Axes) -> None:
    handles = []
    for number, (name, line) in enumerate(series.items()):
      style: dict[str, Any] = {
        "color": _COLORS[number % len(_COLORS)],
        "linestyle": _DASHES[number % len(_DASHES)],
      }
      scale = 100 if percent else 1
      if name in theirs:
        other = theirs[name]
        ax.plot(other.steps, scale * other.values, linewidth=0.9, alpha=0.6, **style)
      handles += ax.plot(
        line.steps,
        scale * line.values,
        linewidth=1.8,
        marker="o" if len(line.steps) < 12 else None,
        markersize=3,
        **style,
      )
    names = list(series)
    if theirs:
      handles.append(lines.Line2D([], [], color=_GRAY, linewidth=0.9))
      names.append(f"thin: {_short(baseline_name, 24)}")
    ax.set_xlabel("training step")
    ax.set_ylabel(label)
    ax.grid(axis="y", color=_SOFT, linewidth=0.6)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    if entries > 1:
      # Below the axes, where it can't hide a line.
      ax.figure.legend(
        handles, names, loc="outside lower left", ncols=columns, frameon=False, handlelength=2.6
      )
    if from_zero:
      # With room above: a level line would lie on the frame's edge.
      ax.set_ylim(0, 1.1 * ax.get_ylim()[1])

  ends = "; ".join(_ends(name, line.values) for name, line in series.items())
  if theirs:
    ends += f"; of {baseline_name}: " + "; ".join(_ends(n, x.values) for n, x in theirs.items())
  rows = -(-entries // columns) if entries > 1 else 0
  return _draw(title, 2.6 + 0.2 * rows, f"Line chart, {title} by step: {ends}.", plot)


# Colour, place beside the middle of a row, and numbers with their intervals.
_Bars = tuple[str, float, list[tuple[float | None, Sequence[float] | None]]]


def results(title: str, rows: Sequence[Bar], *, name: str, baseline_name: str = "") -> page.Picture:
  """Draws numbers in percent as bars, with their intervals and what a guess scores.

  Args:
    title: title of the chart.
    rows: numbers, the first one at the top.
    name: name of the run.
    baseline_name: name of the run that it is compared with.
  """
  compared = any(row.baseline is not None for row in rows)
  guessed = any(row.guess is not None for row in rows)
  height = 0.36 if compared else 0.62

  def plot(ax: axes.Axes) -> None:
    handles: list[Any] = []
    names = [name]
    drawn: list[_Bars] = [(BLUE, -0.19 if compared else 0.0, [(r.value, r.bounds) for r in rows])]
    if compared:
      names.append(baseline_name)
      drawn.append((_GRAY, 0.19, [(r.baseline, r.baseline_bounds) for r in rows]))
    for color, shift, numbers in drawn:
      for place, (value, bounds) in enumerate(numbers):
        if value is None:
          continue
        bar = ax.barh(place + shift, 100 * value, height=height, color=color)
        end = 100 * (bounds[1] if bounds else value)
        if bounds:
          low, high = (100 * bound for bound in bounds)
          ax.plot([low, high], [place + shift] * 2, color=_INK, linewidth=1.0)
        ax.annotate(
          f"{100 * value:.1f}",
          (end, place + shift),
          xytext=(3, 0),
          textcoords="offset points",
          va="center",
          fontsize=7.5,
        )
        if place == 0:
          handles.append(bar)
    for place, row in enumerate(rows):
      if row.guess is not None:
        guess = ax.vlines(100 * row.guess, place - 0.42, place + 0.42, color=VERMILION, linewidth=2)
        if "constant guess" not in names:
          names.append("constant guess")
          handles.append(guess)
    if any(row.bounds for row in rows):
      names.append("95 % interval")
      handles.append(lines.Line2D([], [], color=_INK, linewidth=1.0))
    ax.set_yticks(range(len(rows)), [_short(row.name, 34) for row in rows])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, min(112.0, 1.14 * max(ax.get_xlim()[1], 1.0)))
    ax.set_xlabel("% (higher is better)")
    ax.grid(axis="x", color=_SOFT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.figure.legend(
      handles,
      [_short(text, 24) for text in names],
      loc="outside lower left",
      ncols=2 if guessed and compared else 3,
      frameon=False,
      handlelength=1.4,
    )

  said = []
  for row in rows:
    text = f"{row.name} {100 * row.value:.1f}"
    if row.baseline is not None:
      text += f", {baseline_name} {100 * row.baseline:.1f}"
    if row.guess is not None:
      text += f", constant guess {100 * row.guess:.1f}"
    said.append(text)
  legend = 0.4 if guessed and compared else 0.2
  return _draw(
    title,
    1.0 + legend + (0.42 if compared else 0.3) * len(rows),
    f"Bar chart in percent, {title}: {'; '.join(said)}.",
    plot,
  )


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
    ax.set_ylabel("number of ego clips")
    ax.set_ylim(bottom=0)
    if threshold is not None:
      ax.axvline(threshold, color=VERMILION, linewidth=1.6, linestyle="--")
      ax.annotate(
        f"threshold {threshold:g}",
        (threshold, 1.0),
        xycoords=("data", "axes fraction"),
        # Above the axes, where no bar is.
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        color=VERMILION,
      )

  highest = int(np.argmax(counts))
  alt = (
    f"Histogram, {title}: {int(np.sum(counts))} clips, most of them"
    f" between {edges[highest]:.2f} and {edges[highest + 1]:.2f}."
  )
  return _draw(title, 2.5, alt, plot)


def confusion(
  title: str, shares: np.ndarray, clips: np.ndarray, names: Sequence[str], alt: str
) -> page.Picture:
  """Draws a confusion matrix, each row's shares in colour and as numbers.

  Args:
    title: title of the chart.
    shares: shares, `[M, M + 1]`, see `class_numbers.Confusion`.
    clips: numbers of clips with the label, `[M]`.
    names: M names.
    alt: what the chart shows.
  """
  columns = [_short(name, 14) for name in (*names, "other")]
  rows = [f"{name} ({count:,})" for name, count in zip(columns, clips.tolist())]

  def plot(ax: axes.Axes) -> None:
    # What is not shown as a number is not coloured either: the page is its colour.
    seen = np.ma.masked_less(shares, 0.005)
    ax.imshow(seen, cmap=colormaps["Blues"], vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), rows)
    ax.set_xlabel("predicted")
    ax.set_ylabel("label (number of clips)")
    for (row, column), share in np.ndenumerate(shares):
      if share >= 0.005:
        color = "white" if share > 0.55 else _INK
        text = f"{100 * share:.0f}"
        ax.text(column, row, text, ha="center", va="center", fontsize=7, color=color)

  return _draw(title, 1.7 + 0.27 * len(names), alt, plot, framed=True)


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
