"""AE2's four measures of frame embeddings, as its released evaluation computes them.

Xue and Grauman, "Learning Fine-grained View-Invariant Representations from Unpaired
Ego-Exo Videos via Temporal Alignment" (NeurIPS 2023); evaluation/*.py of
zihuixue/AlignEgoExo, whose four sets show one action each, seen by the first and the
third person in videos that are not synchronised. Each frame has a phase of the action
and a vector, which is taken as it is, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

import numpy as np
import scipy.spatial.distance
import scipy.stats

from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.labels import bootstrap

# Neighbours that count in retrieval.
AT = 10
# Kendall's tau takes one of so many frames.
TAU_STRIDE = 5
# What a frame adds to the time column.
TIME_STEP = 1e-3

PROTOCOL = protocol.Protocol(
  name="ae2",
  title="AE2, phases of an action in frames of ego and exo videos",
  source="Xue and Grauman, NeurIPS 2023; evaluation/classification.py, frame_retrieval.py,"
  " event_completion.py and kendalls_tau.py of zihuixue/AlignEgoExo",
  definition="phase_f1: weighted F1 of test frames, by scikit-learn's SVC with its defaults, fit"
  " on the training frames; chance is the most frequent training phase for all frames. ego_to_exo"
  " is fit on ego frames and scored on exo frames. map_at_10: for each test frame, the 10 nearest"
  " frames of other test videos (ego_to_exo: an ego frame among exo frames) by Euclidean distance,"
  " of equal ones the first; average precision is the sum of the precision at each match over the"
  " number of matches among the 10, or 0. progression: for each phase, linear regression of (t -"
  " last frame of the phase) / length, fit on the training videos that have the phase; the mean of"
  " R^2 over the phases, 0 to max(label) of the training frames. kendalls_tau: every 5th frame of"
  " a video, its nearest of every 5th frame of another one, tau-b of their order; the mean over"
  " ordered pairs of test videos, without those that have none because all neighbours are the same."
  " Intervals are over test videos, with the training videos as they are.",
)

# Weights of the test videos [S, V] -> the metric of each sample [S].
_Statistic = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Video:
  """One video, frame by frame.

  Attributes:
    name: name of the file without suffix.
    view: "ego" or "exo".
    vectors: `[n, D]`, finite, of any length.
    labels: int `[n]`, phase of each frame from 0.
  """

  name: str
  view: str
  vectors: np.ndarray
  labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Measure:
  """A metric of the test videos, by how often each of them counts."""

  statistic: _Statistic
  videos: int
  chance: float | None = None

  @property
  def value(self) -> float:
    """The metric where each video counts once."""
    return float(self.statistic(np.ones((1, self.videos)))[0])

  def score(self, *, samples: int = bootstrap.SAMPLES, seed: int = 0) -> protocol.Score:
    """The metric and its interval, for which videos are drawn; one video has none."""
    value, rng = self.value, np.random.default_rng(seed)
    weights = rng.multinomial(self.videos, np.full(self.videos, 1 / self.videos), size=samples)
    drawn = self.statistic(weights.astype(np.float64))
    if self.videos < 2 or np.isnan(value) or np.isnan(drawn).all():
      return protocol.Score(value, self.chance)
    bounds = bootstrap.Resampled(value, drawn).interval
    return protocol.Score(value, self.chance, interval=(bounds.low, bounds.high))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
  """Quotients; NaN where nothing is below."""
  return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def score(
  train: Sequence[Video], test: Sequence[Video], *, time_column: bool = False
) -> protocol.Outcome:
  """Computes the four measures.

  Args:
    train: videos that the classifier and the regression are fit on.
    test: videos that are scored, in the order in which equal distances count.
    time_column: whether progression gets the frame's number times 1e-3 as one more
      number of each vector, as officially for the set pour_liquid.

  Returns:
    `phase_f1`, `map_at_10`, each also for `_ego_to_exo` and `_exo_to_ego`,
    `progression` and `kendalls_tau`. R^2 has no lower bound and tau lies in [-1, 1].

  Raises:
    ImportError: scikit-learn is missing.
    ValueError: videos are not as they must be, or a measure is not defined by them.
  """
  _check(train, "train")
  _check(test, "test")
  widths = {video.vectors.shape[1] for video in (*train, *test)}
  if len(widths) > 1:
    raise ValueError(f"All vectors must have one width, got {sorted(widths)} numbers a frame.")
  metrics, notes = {}, []
  sides = {"": (None, None), "_ego_to_exo": ("ego", "exo"), "_exo_to_ego": ("exo", "ego")}
  for name, (fit_on, scored_on) in sides.items():
    fit, scored = _of_view(train, fit_on), _of_view(test, scored_on)
    if fit and scored:
      metrics[f"phase_f1{name}"] = phase_f1(fit, scored).score()
    else:
      metrics[f"phase_f1{name}"] = protocol.Score(np.nan)
      missing = f"{fit_on} video in training" if not fit else f"{scored_on} video in the test"
      notes.append(f"phase_f1{name} has no number: there is no {missing}.")
  for name, (asks, answers) in sides.items():
    if _of_view(test, asks) and _of_view(test, answers):
      metrics[f"map_at_10{name}"] = retrieval(test, asks).score()
    else:
      metrics[f"map_at_10{name}"] = protocol.Score(np.nan)
      notes.append(f"map_at_10{name} has no number: one view has no video in the test.")
  metrics["progression"] = progression(train, test, time_column=time_column).score()
  taus = pair_taus(test)
  metrics["kendalls_tau"] = _mean_tau(taus).score()
  pairs = len(test) * (len(test) - 1)
  dropped = pairs - int(np.isfinite(taus).sum())
  if dropped:
    notes.append(
      f"{dropped} of {pairs} ordered pairs of videos have no tau, since a video has one sampled"
      " frame or all its neighbours are the same frame. As officially, they are left out"
      f"{', so that kendalls_tau has no number' if dropped == pairs else ''}."
    )
  extra = set(_phases(test)) - set(_phases(train))
  if extra:
    notes.append(
      f"Phases {sorted(extra)} are in the test and not in training. Their frames are wrong in"
      " phase_f1, and progression has no regression for them."
    )
  counts = {
    "train_videos": len(train),
    "test_videos": len(test),
    "train_frames": sum(len(video.labels) for video in train),
    "test_ego_frames": sum(len(video.labels) for video in _of_view(test, "ego")),
    "test_exo_frames": sum(len(video.labels) for video in _of_view(test, "exo")),
    "phases": len(_phases([*train, *test])),
    "pairs_with_tau": pairs - dropped,
  }
  return protocol.Outcome(metrics, counts, notes)


def phase_f1(train: Sequence[Video], test: Sequence[Video]) -> _Measure:
  """Weighted F1 of a support vector classifier.

  Raises:
    ImportError: scikit-learn is missing.
    ValueError: the training frames have one phase alone.
  """
  import sklearn.svm

  vectors, labels = _frames(train)
  known, counts = np.unique(labels, return_counts=True)
  if len(known) < 2:
    views = sorted({video.view for video in train})
    raise ValueError(
      f"A classifier needs training frames of two phases or more; those of {' and '.join(views)}"
      f" are all of phase {known[0]}. Give all videos of the split."
    )
  classifier = sklearn.svm.SVC().fit(vectors, labels)
  phases = _phases([*train, *test])
  most = int(known[counts.argmax()])
  cells, constant = [], []
  for video in test:
    answers = classifier.predict(np.asarray(video.vectors, np.float64))
    cells.append(_confusion(video.labels, answers, phases))
    constant.append(_confusion(video.labels, np.full(len(answers), most), phases))
  chance = float(_weighted_f1(np.sum(constant, axis=0)[None])[0])
  tables = np.stack(cells)
  return _Measure(lambda w: _weighted_f1(np.tensordot(w, tables, axes=1)), len(test), chance)


def _confusion(labels: np.ndarray, answers: np.ndarray, phases: np.ndarray) -> np.ndarray:
  """Frames by label and answer, float64 `[C, C]`."""
  table = np.zeros((len(phases), len(phases)))
  np.add.at(table, (np.searchsorted(phases, labels), np.searchsorted(phases, answers)), 1)
  return table


def _weighted_f1(tables: np.ndarray) -> np.ndarray:
  """The mean of F1 by label, weighted by frames, of confusions `[S, C, C]`; `[S]`."""
  right = np.diagonal(tables, axis1=1, axis2=2)
  frames, answers = tables.sum(axis=2), tables.sum(axis=1)
  # A phase that is neither label nor answer has no weight.
  f1 = np.nan_to_num(_ratio(2 * right, frames + answers))
  return _ratio((f1 * frames).sum(axis=1), frames.sum(axis=1))


def retrieval(videos: Sequence[Video], asks: str | None = None) -> _Measure:
  """MAP of the nearest frames of other videos.

  Args:
    videos: the videos, whose frames are both queries and keys.
    asks: view of the queries, whose keys are of the other view; None takes the frames
      of all other videos as keys of each frame.

  Raises:
    ValueError: a frame has fewer than 10 keys.
  """
  sums, frames, chances = np.zeros((3, len(videos)))
  for i, video in enumerate(videos):
    if asks is not None and video.view != asks:
      continue
    keys = [
      other
      for j, other in enumerate(videos)
      if j != i and (asks is None or other.view != video.view)
    ]
    number = sum(len(other.labels) for other in keys)
    if number < AT:
      raise ValueError(
        f"Retrieval looks for the {AT} nearest frames in other videos"
        f"{'' if asks is None else ' of the other view'}, and for video {video.name!r} there are"
        f" only {number}. Give all videos of the split."
      )
    vectors, labels = _frames(keys)
    sums[i] = _average_precisions(video, vectors, labels).sum()
    frames[i] = len(video.labels)
    for label, queries in zip(*np.unique(video.labels, return_counts=True)):
      chances[i] += queries * _chance(number, int((labels == label).sum()))
  chance = float(chances.sum() / frames.sum()) if frames.any() else None
  asked = frames > 0
  sums, frames = sums[asked], frames[asked]
  return _Measure(lambda w: _ratio(w @ sums, w @ frames), len(frames), chance)


def _average_precisions(video: Video, keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Average precision at 10 of each frame, float64 `[n]`."""
  out = []
  for first in range(0, len(video.labels), 256):
    rows = slice(first, first + 256)
    queries = np.asarray(video.vectors[rows], np.float64)
    distances = scipy.spatial.distance.cdist(queries, keys, "sqeuclidean")
    match = np.zeros((len(queries), AT), bool)
    for rank in range(AT):
      nearest = distances.argmin(axis=1)  # The first of equal ones.
      match[:, rank] = labels[nearest] == video.labels[rows]
      distances[np.arange(len(queries)), nearest] = np.inf
    precision = match.cumsum(axis=1) / np.arange(1, AT + 1)
    out.append((precision * match).sum(axis=1) / np.maximum(match.sum(axis=1), 1))
  return np.concatenate(out)


def _chance(number: int, matches: int) -> float:
  """The expectation of average precision at 10 where keys are in random order.

  Given h matches among the 10, each rank is one with probability h / 10, and a pair
  of ranks are two with h (h - 1) / 90.
  """
  found = np.arange(1, AT + 1)
  ranks = np.arange(1, AT + 1)[:, None]
  given = ((1 / AT + (ranks - 1) * (found - 1) / (AT * (AT - 1))) / ranks).sum(axis=0)
  return float(scipy.stats.hypergeom.pmf(found, number, matches, AT) @ given)


def targets(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """How far each frame is from the end of each phase, in lengths of the video.

  Args:
    labels: int `[n]`.
    num_classes: number of phases, C.

  Returns:
    float64 `[n, C]`, (t - last frame of the phase) / n; NaN for a phase that the
    video doesn't have.
  """
  out = np.full((len(labels), num_classes), np.nan)
  for phase in range(num_classes):
    held = np.flatnonzero(labels == phase)
    if held.size:
      out[:, phase] = (np.arange(len(labels)) - held[-1]) / len(labels)
  return out


def progression(
  train: Sequence[Video], test: Sequence[Video], *, time_column: bool = False
) -> _Measure:
  """The mean over phases of the R^2 of linear regression.

  Args:
    train: videos that it is fit on.
    test: videos that it is scored on.
    time_column: see `score`.

  Raises:
    ImportError: scikit-learn is missing.
    ValueError: a phase below the highest one is in no training or no test video.
  """
  import sklearn.linear_model

  count = int(_phases(train)[-1]) + 1
  parts = []
  for name, videos in (("training", train), ("test", test)):
    vectors = [_with_time(video) if time_column else video.vectors for video in videos]
    aims = [targets(video.labels, count) for video in videos]
    absent = np.isnan(np.concatenate(aims)).all(axis=0)
    if absent.any():
      raise ValueError(
        f"Progression is over phases 0 to {count - 1}, the highest of training, and phase"
        f" {int(absent.argmax())} is in no {name} video. Give all videos of the split, and number"
        " the phases without gaps."
      )
    parts.append((vectors, aims))
  (fit_vectors, fit_aims), (vectors, aims) = parts
  # Of each video and phase: frames, sums of the target and its square, squared errors.
  sums = np.zeros((len(test), count, 4))
  known, wanted = np.concatenate(fit_vectors).astype(np.float64), np.concatenate(fit_aims)
  for phase in range(count):
    held = ~np.isnan(wanted[:, phase])
    model = sklearn.linear_model.LinearRegression().fit(known[held], wanted[held, phase])
    for i, (own, aim) in enumerate(zip(vectors, aims)):
      if not np.isnan(aim[0, phase]):
        goal = aim[:, phase]
        error = goal - model.predict(np.asarray(own, np.float64))
        sums[i, phase] = len(goal), goal.sum(), (goal**2).sum(), (error**2).sum()

  def statistic(weights: np.ndarray) -> np.ndarray:
    frames, total, squares, errors = np.moveaxis(np.tensordot(weights, sums, axes=1), 2, 0)
    spread = squares - _ratio(total**2, frames)
    # A sample may lack a phase, and then has no number.
    return (1 - _ratio(errors, spread)).mean(axis=1)

  return _Measure(statistic, len(test), chance=0.0)


def _with_time(video: Video) -> np.ndarray:
  """The vectors and a column of time."""
  column = TIME_STEP * np.arange(len(video.labels))[:, None]
  return np.concatenate([np.asarray(video.vectors, np.float64), column], axis=1)


def pair_taus(videos: Sequence[Video]) -> np.ndarray:
  """Kendall's tau-b of each ordered pair of videos.

  Args:
    videos: the videos, V of them.

  Returns:
    float64 `[V, V]`, of the nearest frame in the second video to each frame of the
    first; NaN on the diagonal and where there is none.
  """
  sampled = [np.asarray(video.vectors[::TAU_STRIDE], np.float64) for video in videos]
  taus = np.full((len(videos), len(videos)), np.nan)
  for i, queries in enumerate(sampled):
    for j, keys in enumerate(sampled):
      if i != j:
        distances = scipy.spatial.distance.cdist(queries, keys, "sqeuclidean")
        nearest = distances.argmin(axis=1)
        if len(np.unique(nearest)) > 1:
          taus[i, j] = scipy.stats.kendalltau(np.arange(len(nearest)), nearest)[0]
  return taus


def _mean_tau(taus: np.ndarray) -> _Measure:
  valid, values = np.isfinite(taus).astype(np.float64), np.nan_to_num(taus)
  mean = lambda w: _ratio(((w @ values) * w).sum(axis=1), ((w @ valid) * w).sum(axis=1))
  return _Measure(mean, len(taus), chance=0.0)


def _of_view(videos: Sequence[Video], view: str | None) -> list[Video]:
  return [video for video in videos if view is None or video.view == view]


def _frames(videos: Sequence[Video]) -> tuple[np.ndarray, np.ndarray]:
  """The vectors and labels of all frames, float64 `[N, D]` and int `[N]`."""
  vectors = np.concatenate([video.vectors for video in videos]).astype(np.float64)
  return vectors, np.concatenate([video.labels for video in videos])


def _phases(videos: Sequence[Video]) -> np.ndarray:
  """The phases that occur, in order."""
  return np.unique(np.concatenate([video.labels for video in videos]))


def _check(videos: Sequence[Video], split: str) -> None:
  """Raises ValueError for videos that are not as `Video` says."""
  if not videos:
    raise ValueError(f"There is no {split} video.")
  for video in videos:
    vectors, labels = np.asarray(video.vectors), np.asarray(video.labels)
    where = f"{split} video {video.name!r}"
    if video.view not in ("ego", "exo"):
      raise ValueError(f"view must be 'ego' or 'exo', got {video.view!r} of {where}.")
    if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iu" or labels.min() < 0:
      raise ValueError(f"Labels must be phases [frames] from 0, at least one, those of {where}.")
    if vectors.ndim != 2 or len(vectors) != len(labels) or not vectors.shape[1]:
      raise ValueError(
        f"Vectors must be [{len(labels)}, D], one for each label of {where}, got {vectors.shape}."
      )
    if not np.isfinite(vectors).all():
      row = int(np.argwhere(~np.isfinite(vectors))[0][0])
      raise ValueError(f"Vectors must be finite; that of frame {row} of {where} is not.")
