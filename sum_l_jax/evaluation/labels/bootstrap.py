"""Bootstrap over clips: how far a number would move with other clips.

A sample draws as many clips as there are, with replacement, and computes the
metric of them; the 2.5th and 97.5th percentile over the samples bound its 95 %
interval (Efron's percentile method). Samples depend on nothing but the seed and
the number of clips, so that runs on the same clips share them and their
difference is paired: clips that are hard for both cancel. Nothing here says how
far another training seed would move the number.

Drawing clips twice biases mAP, since copies of a positive stand side by side in
the ranking. Its samples are therefore shifted by that bias, their mean minus
the value; otherwise the interval need not contain its own number.

`scipy.stats.bootstrap` draws new samples for every metric, so neither metrics
nor runs would share them; the tests compare intervals with it.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools

import numpy as np

from sum_l_jax.evaluation.labels import label_metrics

SAMPLES = 2000
# The samples of mAP, which takes longer.
MAP_SAMPLES = 200
_PERCENTILES = (2.5, 97.5)
# Clips drawn at a time, to bound memory.
_CHUNK = 1 << 22

Scores = Mapping[str, np.ndarray]
# Rows of clips [S, N] -> the metric over each of the S samples.
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Interval:
  """A number with its 95 % interval."""

  value: float
  low: float
  high: float

  def __str__(self) -> str:
    return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclasses.dataclass(frozen=True)
class Resampled:
  """A metric over all clips, and over each sample of them.

  Attributes:
    value: metric over all clips.
    samples: metric over each sample, [S], for mAP without the bias; NaN where a
      sample leaves the metric undefined.
  """

  value: float
  samples: np.ndarray

  def __sub__(self, other: Resampled) -> Resampled:
    """The paired difference; both must have the same samples."""
    return Resampled(self.value - other.value, self.samples - other.samples)

  @property
  def interval(self) -> Interval:
    """The 95 % interval."""
    low, high = np.nanpercentile(self.samples, _PERCENTILES)
    return Interval(float(self.value), float(low), float(high))


def per_clip(scores: Scores, labels: Scores) -> dict[str, np.ndarray]:
  """Whether each clip is right, for the metrics that are means over clips.

  Args:
    scores: probabilities by task, [N, K] without NaN.
    labels: labels by task, [N]; multi-hot tasks are passed over.

  Returns:
    1 or 0, float64 [N], by metric, named as in `evaluate.summarise`: top-1 and
    top-5 of verb, noun and other softmax tasks, and of the action by the product of
    the probabilities. NaN for a clip without the label; a metric for which no clip
    has one is left out.
  """

  def over_labelled(good: np.ndarray, hits: Callable[[], np.ndarray]) -> np.ndarray:
    values = np.full(len(good), np.nan)
    values[good] = hits()
    return values

  out = {}
  softmax = [t for t, y in labels.items() if y.ndim == 1]
  for task in sorted(softmax, key=lambda t: (t != "verb", t != "noun", t)):
    good = label_metrics.has_label(labels[task])
    s, y = scores[task][good], labels[task][good]
    for k in (1, 5) if good.any() else ():
      if s.shape[1] > k:
        out[f"{task}_top{k}"] = over_labelled(
          good, functools.partial(label_metrics.top_k_hits, s, y, k)
        )
  if "verb" in softmax and "noun" in softmax:
    good = label_metrics.has_label(labels["verb"], labels["noun"])
    pair = [{t: of[t][good] for t in ("verb", "noun")} for of in (scores, labels)]
    for k in (1, 5) if good.any() else ():
      if k <= min(scores["verb"].shape[1], scores["noun"].shape[1]):
        out[f"action_top{k}"] = over_labelled(
          good, functools.partial(label_metrics.action_hits, *pair, k, definition="product")
        )
  return out


def _mean(values: np.ndarray) -> Statistic:
  """The mean of each sample of clips; NaN where none of a sample counts."""
  counted = ~np.isnan(values)
  if counted.all():
    return lambda rows: values[rows].mean(axis=1)
  filled = np.where(counted, values, 0.0)

  def statistic(rows: np.ndarray) -> np.ndarray:
    number = counted[rows].sum(axis=1)
    return np.where(number > 0, filled[rows].sum(axis=1) / np.maximum(number, 1), np.nan)

  return statistic


def drawn_means(values: np.ndarray, *, samples: int, rng: np.random.Generator) -> np.ndarray:
  """The mean of each sample of values, float64 `[samples]`.

  Args:
    values: float `[N]`, one of each clip or query.
    samples: number of samples.
    rng: generator of the samples.
  """
  mean = _mean(values)
  step = max(1, _CHUNK // len(values))
  sizes = [min(step, samples - first) for first in range(0, samples, step)]
  return np.concatenate([mean(rng.integers(len(values), size=(n, len(values)))) for n in sizes])


def _class_mean(right: np.ndarray, labels: np.ndarray) -> Statistic:
  """Mean class accuracy over the classes that a sample holds."""
  # The last class is that of clips without a label, and is not counted.
  classes = int(labels.max()) + 2
  right, labels = np.nan_to_num(right), np.where(labels < 0, classes - 1, labels)

  def statistic(rows: np.ndarray) -> np.ndarray:
    cells = labels[rows] + classes * np.arange(len(rows))[:, None]
    size = (len(rows), classes)
    count = lambda weights: np.bincount(
      cells.ravel(), weights, minlength=size[0] * size[1]
    ).reshape(size)
    clips, hits = (n[:, :-1] for n in (count(None), count(right[rows].ravel())))
    shares = np.where(clips > 0, hits / np.maximum(clips, 1), 0)
    present = (clips > 0).sum(axis=1)
    return np.where(present > 0, shares.sum(axis=1) / np.maximum(present, 1), np.nan)

  return statistic


def _map(scores: np.ndarray, targets: np.ndarray, definition: str) -> Statistic:
  """Mean average precision; NaN where a sample has no positive at all."""
  ranked = label_metrics.RankedClips(scores, targets, definition)

  def of_sample(row: np.ndarray) -> float:
    values = ranked.average_precisions(np.bincount(row, minlength=len(scores)))
    present = ~np.isnan(values)
    return float(np.mean(values[present])) if present.any() else np.nan

  return lambda rows: np.array([of_sample(row) for row in rows])


def _statistics(
  scores: Scores, labels: Scores
) -> tuple[dict[str, Statistic], dict[str, Statistic]]:
  """Quick statistics and slow ones (those of multi-hot tasks), by metric."""
  right = per_clip(scores, labels)
  quick = {name: _mean(values) for name, values in right.items()}
  slow = {}
  for task, y in labels.items():
    if y.ndim == 1 and f"{task}_top1" in right:
      quick[f"{task}_class_mean"] = _class_mean(right[f"{task}_top1"], y)
    elif y.ndim == 2:
      for definition in label_metrics.MAP_DEFINITIONS:
        slow[f"{task}_map_{definition}"] = _map(scores[task], y, definition)
  return quick, slow


def resample(
  scores: Scores,
  labels: Scores,
  *,
  samples: int = SAMPLES,
  map_samples: int = MAP_SAMPLES,
  seed: int = 0,
) -> dict[str, Resampled]:
  """Metrics over all clips and over samples of them.

  Args:
    scores: probabilities by task, [N, K] without NaN.
    labels: labels by task, [N] with -1 for a clip without one, or multi-hot [N, K].
    samples: number of samples for accuracies and mean class accuracies.
    map_samples: number of samples for mAP, which takes longer.
    seed: seed of the samples. The same seed and N give the same samples.

  Returns:
    Metrics by name as in `evaluate.summarise`.

  Raises:
    ValueError: there are no clips, or no samples.
  """
  count = len(next(iter(scores.values())))
  if count < 1 or min(samples, map_samples) < 1:
    raise ValueError(
      "A bootstrap needs at least one clip and one sample, got"
      f" {count} clips, samples={samples} and map_samples={map_samples}."
    )
  out = {}
  quick, slow = _statistics(scores, labels)
  for statistics, number in ((quick, samples), (slow, map_samples)):
    rng = np.random.default_rng(seed)
    parts = {name: [] for name in statistics}
    step = max(1, _CHUNK // count)
    for start in range(0, number if statistics else 0, step):
      rows = rng.integers(count, size=(min(step, number - start), count))
      for name, statistic in statistics.items():
        parts[name].append(statistic(rows))
    everything = np.arange(count)[None]
    for name, statistic in statistics.items():
      value, drawn = statistic(everything)[0], np.concatenate(parts[name])
      if name in slow:
        drawn = drawn - (np.nanmean(drawn) - value)
      out[name] = Resampled(float(value), drawn)
  return out


def intervals(scores: Scores, labels: Scores, **options: int) -> dict[str, Interval]:
  """The 95 % intervals of `resample`, which has the same arguments."""
  return {name: drawn.interval for name, drawn in resample(scores, labels, **options).items()}
