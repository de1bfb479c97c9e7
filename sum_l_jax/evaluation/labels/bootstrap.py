"""Bootstrap over clips: how far a number would move with other clips.

As many clips as there are get drawn with replacement, and the metric is taken
of them anew; the 2.5th and 97.5th percentile over the samples bound its 95 %
interval (Efron's percentile method). Samples depend on the seed and on the
number of clips alone, so that runs on the same clips share them and their
difference is paired: clips that are hard for both cancel. Nothing here says
how far another training seed would move the number.

Drawing clips twice biases mAP, since copies of a positive stand side by side in
the ranking. Its samples are therefore shifted by that bias, their mean minus
the value: without, the interval need not hold its own number.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses

import numpy as np

from sum_l_jax.evaluation.labels import label_metrics

SAMPLES = 2000
# Of mAP, which takes longer.
MAP_SAMPLES = 200
_PERCENTILES = (2.5, 97.5)
# Drawn clips at a time, to bound memory.
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
    value: over all clips.
    samples: [S], of mAP without the bias; NaN where a sample leaves the metric
      undefined.
  """

  value: float
  samples: np.ndarray

  def __sub__(self, other: Resampled) -> Resampled:
    """The paired difference; both must be of the same samples."""
    return Resampled(self.value - other.value, self.samples - other.samples)

  @property
  def interval(self) -> Interval:
    low, high = np.nanpercentile(self.samples, _PERCENTILES)
    return Interval(float(self.value), float(low), float(high))


def per_clip(scores: Scores, labels: Scores) -> dict[str, np.ndarray]:
  """Metrics that are means over clips, as their summands.

  Args:
    scores: task -> probabilities [N, K], without NaN.
    labels: task -> [N]; multi-hot tasks are passed over.

  Returns:
    By name as in `evaluate.summarise`, bool [N]: top-1 and top-5 of verb, noun
    and other softmax tasks; of the action by the product of the probabilities.
  """
  out = {}
  softmax = [t for t, y in labels.items() if y.ndim == 1]
  for task in sorted(softmax, key=lambda t: (t != "verb", t != "noun", t)):
    for k in (1, 5):
      if scores[task].shape[1] > k:
        out[f"{task}_top{k}"] = _right(scores[task], labels[task], k)
  if "verb" in softmax and "noun" in softmax:
    for k in (1, 5):
      if k <= min(scores["verb"].shape[1], scores["noun"].shape[1]):
        out[f"action_top{k}"] = _pair_right(scores, labels, k)
  return out


def _best(scores: np.ndarray, k: int) -> np.ndarray:
  """[N, k] classes; ties as in `metrics`: the lower class first."""
  return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def _right(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
  return (_best(scores, k) == labels[:, None]).any(axis=1)


def _pair_right(scores: Scores, labels: Scores, k: int) -> np.ndarray:
  """Whether the labelled pair is among the k best products, [N].

  Enough to look at the k best verbs and nouns: a pair with the k + 1st verb
  has k pairs with the same noun before it. Ties as in `metrics`.
  """
  best, values = {}, {}
  for task in ("verb", "noun"):
    best[task] = _best(scores[task], k)
    values[task] = np.take_along_axis(scores[task], best[task], axis=1).astype(np.float64)
  products = values["verb"][:, :, None] * values["noun"][:, None, :]
  first = _best(products.reshape(len(products), -1), k)
  verbs, nouns = (
    np.take_along_axis(best[task], place, axis=1)
    for task, place in zip(("verb", "noun"), np.divmod(first, k))
  )
  return ((verbs == labels["verb"][:, None]) & (nouns == labels["noun"][:, None])).any(axis=1)


def _mean(values: np.ndarray) -> Statistic:
  return lambda rows: values[rows].mean(axis=1)


def _class_mean(right: np.ndarray, labels: np.ndarray) -> Statistic:
  """Mean class accuracy over the classes that a sample holds."""
  classes = int(labels.max()) + 1

  def statistic(rows: np.ndarray) -> np.ndarray:
    cells = labels[rows] + classes * np.arange(len(rows))[:, None]
    size = (len(rows), classes)
    count = lambda weights: np.bincount(
      cells.ravel(), weights, minlength=size[0] * size[1]
    ).reshape(size)
    clips, hits = count(None), count(right[rows].ravel())
    shares = np.where(clips > 0, hits / np.maximum(clips, 1), 0)
    return shares.sum(axis=1) / (clips > 0).sum(axis=1)

  return statistic


class _AveragePrecision:
  """`metrics.mean_average_precision` of drawn clips, sorted only once.

  A clip drawn w times counts as w clips of one score. Where different clips
  tie, the Charades definition takes them in the order of the data set.
  """

  def __init__(self, scores: np.ndarray, targets: np.ndarray, definition: str):
    self._definition = definition
    positives = targets.astype(bool)
    if definition == "charades":
      unlabelled = ~positives.any(axis=1, keepdims=True)
      scores = np.where(unlabelled, -np.inf, scores)
    self._order = np.ascontiguousarray(np.argsort(-scores, axis=0, kind="stable").T)
    ranked = np.take_along_axis(scores.T, self._order, axis=1)
    self._positives = np.take_along_axis(positives.T, self._order, axis=1)
    self._where = np.nonzero(self._positives)
    # Of every place the last one with the same score: one threshold.
    last = np.ones(ranked.shape, bool)
    last[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    places = np.where(last, np.arange(ranked.shape[1]), ranked.shape[1])
    ends = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
    self._ends = self._where[0], ends[self._where]

  def __call__(self, rows: np.ndarray) -> np.ndarray:
    """[S, N] -> [S]; NaN where a sample has no positive at all."""
    return np.array([self._of(row) for row in rows])

  def _of(self, row: np.ndarray) -> float:
    drawn = np.bincount(row, minlength=self._order.shape[1])[self._order]
    clips = np.cumsum(drawn, axis=1)
    hits = np.cumsum(drawn * self._positives, axis=1)
    times = drawn[self._where]
    if self._definition == "sklearn":
      # Nothing drawn down to there: the term counts zero times.
      parts = times * hits[self._ends] / np.maximum(clips[self._ends], 1)
    else:
      parts = np.zeros(len(times))
      before = (values[self._where] - times for values in (hits, clips))
      hits_before, clips_before = before
      for copy in range(1, int(times.max(initial=0)) + 1):
        parts += np.where(times >= copy, (hits_before + copy) / (clips_before + copy), 0)
    total = hits[:, -1]
    sums = np.bincount(self._where[0], parts, minlength=len(total))
    present = total > 0
    if not present.any():
      return np.nan
    return float(np.mean(sums[present] / total[present]))


def _statistics(
  scores: Scores, labels: Scores
) -> tuple[dict[str, Statistic], dict[str, Statistic]]:
  """The quick ones and, of multi-hot tasks, the slow ones, by metric name."""
  right = per_clip(scores, labels)
  quick = {name: _mean(values) for name, values in right.items()}
  slow = {}
  for task, y in labels.items():
    if y.ndim == 1 and f"{task}_top1" in right:
      quick[f"{task}_class_mean"] = _class_mean(right[f"{task}_top1"], y)
    elif y.ndim == 2:
      for definition in label_metrics.MAP_DEFINITIONS:
        slow[f"{task}_map_{definition}"] = _AveragePrecision(scores[task], y, definition)
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
    scores: task -> probabilities [N, K], without NaN.
    labels: task -> [N], or multi-hot [N, K].
    samples: how many, of accuracies and mean class accuracies.
    map_samples: of mAP, which takes longer.
    seed: of the samples. The same seed and N give the same ones.

  Returns:
    By metric name as in `evaluate.summarise`.

  Raises:
    ValueError: no clips, or no samples.
  """
  count = len(next(iter(scores.values())))
  if count < 1 or min(samples, map_samples) < 1:
    raise ValueError(
      "A bootstrap needs at least one clip and one sample, got"
      f" {count} clips, samples={samples} and map_samples={map_samples}."
    )
  out = {}
  for statistics, number in zip(_statistics(scores, labels), (samples, map_samples)):
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
      if isinstance(statistic, _AveragePrecision):
        drawn = drawn - (np.nanmean(drawn) - value)
      out[name] = Resampled(float(value), drawn)
  return out


def intervals(scores: Scores, labels: Scores, **options) -> dict[str, Interval]:
  """The 95 % intervals of `resample`, which takes the same arguments."""
  return {name: drawn.interval for name, drawn in resample(scores, labels, **options).items()}
