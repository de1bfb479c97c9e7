"""Examples whose encoder ran before: stored features in the place of frames.

Labels, narrations and pairs are those of the clip data set, as for frames. Training
draws one of the stored views of a clip where it would draw a start and a crop, by the
same generator, so that an example is again a function of its position alone; at test
time all stored views of a clip are read at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sum_l_jax.data import examples
from sum_l_jax.data import feature_card
from sum_l_jax.data import narration_table
from sum_l_jax.data import shards


class StoredReader(examples.ClipReader):
  """Reads what an encoder made of the clips of one view.

  Attributes:
    features: stored features of each pool, all of one form.
  """

  def __init__(
    self,
    clips: examples.ViewClips,
    narrations: narration_table.NarrationTable | None = None,
  ) -> None:
    """Lines up the pools and their features.

    Args:
      clips: clips of one view, with features. The transform says which frames a
        stored view shows.
      narrations: see `examples.ClipReader`.

    Raises:
      ValueError: see `examples.ClipReader`; or features of other clips, or of
        several forms.
    """
    super().__init__(clips, narrations)
    self.features = tuple(clips.features)
    first = self.features[0]
    for data, store in zip(self.pools, self.features, strict=True):
      if store.card.views.drawn == feature_card.TRAIN_VIEWS and any(c.actions for c in data.clips):
        raise ValueError(
          f"The views of {store!r} were drawn, and nobody knows any more what they show of the"
          f" actions of the untrimmed {data!r}. Extract its test views ({feature_card.COMMAND})."
        )
      if store.shape != first.shape or store.dtype != first.dtype:
        raise ValueError(
          "Features of the pools of a view must have one form [views, tokens, channels]:"
          f" {str(first.directory)!r} has {first.shape} {first.dtype}, and"
          f" {str(store.directory)!r} has {store.shape} {store.dtype}. Extract all with the same"
          " encoder and views."
        )

    actions = any(clip.actions for data in self.pools for clip in data.clips)
    self._draws = first.card.views.count > 1 or actions

  @property
  def reads_ahead(self) -> bool:
    """Whether records of a bucket are worth asking for one by one, before they are read."""
    return False

  @property
  def shards(self) -> tuple[shards.Shards, ...]:
    """The files that examples are read from."""
    return tuple(store.shards for store in self.features)

  def blank(self, rows: int) -> dict[str, np.ndarray]:
    """See `examples.ClipReader.blank`: "tokens" `[rows, N, C]`."""
    _, *shape = self.features[0].shape
    return {"tokens": np.zeros((rows, *shape), self.features[0].dtype)}

  def readings(self, samples: int, crops: int) -> tuple[int, int]:
    """One reading gives all views.

    Raises:
      ValueError: they are others than those that were stored.
    """
    views = self.features[0].card.views
    if (samples, crops) != (views.samples, views.crops):
      raise ValueError(
        f"{self.features[0]!r} hold {views.samples} x {views.crops} views of a clip (temporal x"
        f" spatial), but {samples} x {crops} are asked for. Leave eval.clips and eval.crops (while"
        " training eval.during_clips and during_crops) at 0, which takes those that were stored, or"
        f" extract others ({feature_card.COMMAND})."
      )
    return 1, views.count

  def read_together(
    self, picked: Sequence[tuple[int, int, int | None]]
  ) -> tuple[list[examples.Drawn], dict[str, np.ndarray]] | None:
    """See `examples.ClipReader.read_together`: "tokens" `[n, N, C]`.

    One array is taken out of another for a whole batch, since a pooled vector is read
    in a tenth of the time that its own generator and its own call would take.

    Returns:
      None where there are several views to draw from, or where one of the clips must
      be replaced by another one.
    """
    if self._draws or any((pool, clip) in self.skipped for pool, clip, _ in picked):
      return None
    inputs = self.blank(len(picked))
    pools = np.array([pool for pool, _, _ in picked], np.int64)
    for pool in np.unique(pools).tolist():
      here = np.flatnonzero(pools == pool)
      store = self.features[pool]
      rows = [self.pools[pool].rows[picked[i][1]] for i in here.tolist()]
      if store.unreadable.intersection(rows):
        return None
      try:
        inputs["tokens"][here] = store.read(rows)[:, 0]
      except shards.ShardError:
        raise  # No other clip makes up for a lost shard.
      except examples.READ_ERRORS:
        return None  # One by one, so that the damaged one is known and replaced.
    drawn = []
    for pool, clip, _ in picked:
      data = self.pools[pool]
      drawn.append(examples.Drawn(pool, clip, data.moments.at(clip, 0, 1), data.clips[clip]))
    return drawn, inputs

  def train_example(
    self, pool: int, clip: int, rng: np.random.Generator, moment: int | None = None
  ) -> tuple[examples.Drawn, dict[str, np.ndarray]]:
    """Draws one of the stored views: "tokens" `[N, C]`.

    Args:
      pool: data set of the clip.
      clip: the clip.
      rng: generator, consumed by the draw.
      moment: what the view must show of the clip, if any view shows it; None draws
        from all of them.

    Raises:
      CorruptClipError: the features can't be read.
    """
    drawn, views = self.draw(pool, clip, rng, moment)
    return drawn, {"tokens": self._read(pool, clip)[int(views[0])]}

  def draw(
    self, pool: int, clip: int, rng: np.random.Generator, moment: int | None
  ) -> tuple[examples.Drawn, np.ndarray]:
    """Draws a stored view; returns what it shows, and its number, int64 `[1]`."""
    data, stored = self.pools[pool], self.features[pool].card.views
    samples, view = self._samples(pool, clip), 0
    if stored.count > 1:
      span = self.transform.span(data.moments.segment(clip))
      allowed = None if moment is None else data.moments.allows(moment, span)
      views = np.arange(stored.count)
      if allowed is not None:
        showing = views[allowed(samples[:, 0])[views // stored.crops]]
        views = showing if len(showing) else views
      view = int(views[rng.integers(len(views))])
    indices = samples[view // stored.crops]
    return self._shown(pool, clip, int(indices[0]), indices), np.array([view])

  def _samples(self, pool: int, clip: int) -> np.ndarray:
    """Frames of each temporal sample, int64 `[samples, T]`."""
    count = self.features[pool].card.views.samples
    if not self.pools[pool].clips[clip].actions:
      # Only what changes within a clip depends on them.
      return np.zeros((count, 1), np.int64)
    return np.stack([self.test_indices(pool, clip, n, count) for n in range(count)])

  def uses(
    self, pool: int, clip: int, rng: np.random.Generator, moment: int | None
  ) -> tuple[examples.Drawn, list[tuple[shards.Shards, int]]]:
    """See `examples.ClipReader.uses`."""
    drawn, _ = self.draw(pool, clip, rng, moment)
    return drawn, self._records(pool, clip)

  def test_example(
    self, pool: int, clip: int, sample: int, num_samples: int, num_crops: int
  ) -> dict[str, np.ndarray]:
    """All stored views of a clip: "tokens" `[V, N, C]`.

    Raises:
      CorruptClipError: the features can't be read.
    """
    del sample, num_samples, num_crops
    return {"tokens": self._read(pool, clip)}

  def test_uses(
    self, pool: int, clip: int, sample: int, num_samples: int
  ) -> list[tuple[shards.Shards, int]]:
    """See `examples.ClipReader.test_uses`."""
    del sample, num_samples
    return self._records(pool, clip)

  def _records(self, pool: int, clip: int) -> list[tuple[shards.Shards, int]]:
    return [(self.features[pool].shards, self.pools[pool].rows[clip])]

  def _read(self, pool: int, clip: int) -> np.ndarray:
    """The features of a clip, `[V, N, C]`."""
    store, row = self.features[pool], self.pools[pool].rows[clip]
    if row in store.unreadable:
      raise examples.CorruptClipError(
        f"{store!r}, clip {self.clip_id(pool, clip)!r}: it could not be decoded when the features"
        " were extracted."
      )
    try:
      return store.read_one(row)
    except shards.ShardError:
      raise  # No other clip makes up for a lost shard.
    except examples.READ_ERRORS as error:
      raise examples.CorruptClipError(
        f"{str(store.directory)!r}, clip {self.clip_id(pool, clip)!r}: {error}"
      ) from error


def make_reader(
  clips: examples.ViewClips,
  narrations: narration_table.NarrationTable | None = None,
  cache_bytes: int = 0,
) -> examples.ClipReader:
  """Makes the reader of a view: of its features if there are any, or of its frames.

  Args:
    clips: clips of the view.
    narrations: see `examples.ClipReader`.
    cache_bytes: see `examples.ClipReader`; features need no decoding, and are left to
      the system's own cache.
  """
  if clips.features:
    return StoredReader(clips, narrations)
  return examples.ClipReader(clips, narrations, cache_bytes)
