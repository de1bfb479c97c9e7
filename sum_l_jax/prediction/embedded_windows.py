"""Vectors of videos and of texts, in the space that a run's projections share."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import json
from typing import Any

from absl import logging
import jax
import numpy as np

from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.evaluation.retrieval import retrieval_run
from sum_l_jax.prediction import feature_network
from sum_l_jax.prediction import new_texts
from sum_l_jax.prediction import score_network
from sum_l_jax.prediction import video_sources
from sum_l_jax.prediction import window_batches
from sum_l_jax.prediction import window_reader
from sum_l_jax.prediction.best_labels import Failure
from sum_l_jax.system import addresses

# Maps n texts to vectors [n, D], as `SentenceTransformer.encode` does.
TextEncoder = Callable[[Sequence[str]], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Embedded:
  """The vectors of the windows of a video.

  Attributes:
    video: path of the video, or "array".
    starts: start of each window in seconds, float64 `[W]`.
    stops: end of each window in seconds, float64 `[W]`.
    vectors: float32 `[W, C]`; of unit norm where they are the projection's.
  """

  video: str
  starts: np.ndarray
  stops: np.ndarray
  vectors: np.ndarray

  def __len__(self) -> int:
    return len(self.vectors)


class VideoEmbedder:
  """The encoder of one view of a checkpoint, ready for videos."""

  def __init__(self, weights: weight_files.Weights, view: str, feature: str) -> None:
    """Puts the encoder on the devices; errors are those of `FeatureNetwork`."""
    self._network = feature_network.FeatureNetwork(weights, view=view, feature=feature)
    self.recipe = score_network.make_recipe({}, {}, self._network.frames)
    self._reader = window_reader.WindowReader(self.recipe)

  def __call__(
    self,
    video: window_reader.Video,
    cut: window_reader.Windows,
    *,
    fps: float | None,
    batch_size: int,
  ) -> Embedded:
    """Embeds the windows of a video, see `Predictor.embed`."""
    cut.check(self.recipe)
    starts, stops, vectors, waiting = [], [], [], None
    # A video that is damaged is an error, and the windows before that are of no use.
    read = self._reader.read([video], cut, fps=fps)
    for batch, rows in window_batches.in_batches(read, batch_size, lambda item: True):
      pixels = np.zeros((self._network.rows(rows), *self._network.video_shape), np.uint8)
      for row, item in enumerate(batch):
        if isinstance(item, Failure):
          raise item.error
        pixels[row] = item.pixels
        starts.append(item.start)
        stops.append(item.stop)
      found = self._network(pixels)
      # While the devices compute, the next batch is read.
      if waiting:
        vectors.append(np.asarray(jax.device_get(waiting[0]))[: waiting[1]])
      waiting = found, len(batch)
    if waiting:
      vectors.append(np.asarray(jax.device_get(waiting[0]))[: waiting[1]])
    name = video_sources.name_of(video)
    embedded = Embedded(name, np.array(starts), np.array(stops), np.concatenate(vectors))
    if not np.isfinite(embedded.vectors).all():
      raise ValueError(
        "A vector is not finite: the weights hold NaN or infinity. Give an earlier checkpoint."
      )
    return embedded


def embed_texts(
  weights: weight_files.Weights,
  texts: Sequence[str],
  *,
  narrations: addresses.PathLike | narration_table.NarrationTable | None = None,
  encode: TextEncoder | None = None,
) -> np.ndarray:
  """Finds or computes the vectors of texts; see `Predictor.embed_text`."""
  reasons = {view: embedding.why_not(weights, view) for view in weights.params}
  if all(reasons.values()):
    view, reason = next(iter(reasons.items()))
    raise ValueError(
      f"{weights.source} has no space that texts are in: {reason}. Give a checkpoint of the joint"
      f" stage of a method with text, such as 'sum_l'; its {view} features are there without:"
      " embed(video, feature='pooled')."
    )
  normal = narration_table.normalize_narration
  sentences = [] if texts is None or isinstance(texts, str) else list(texts)
  wrong = [text for text in sentences if not isinstance(text, str) or not normal(text)]
  if wrong or not sentences:
    found = f"with {wrong[0]!r} in it" if wrong else repr(texts)
    raise ValueError(f"texts must be a list of sentences, at least one, got {found}.")
  texts = sentences
  table, where = _table(weights, narrations)
  known = set(table.narrations) if table else set()
  missing = [text for text in dict.fromkeys(texts) if normal(text) not in known]
  if table and len(missing) < len(texts):
    retrieval_run.check_text_model(weights, table, where)
  if table is not None and not missing:
    return table.lookup(texts)
  if encode is None:
    new = _by_the_model_of(weights, table, missing, where)
  else:
    vectors = np.asarray(encode([normal(text) for text in missing]))
    new = narration_table.NarrationTable(missing, vectors, "encode")
  width = next(
    tower["projection"]["kernel"].shape[1]
    for tower in weights.params.values()
    if "projection" in tower
  )
  if new.dim != width:
    raise ValueError(
      f"{new.model!r} gave vectors of {new.dim} numbers, but {weights.source} was trained with"
      f" {width}. Take the sentence model of the run's narration table."
    )
  vectors = dict(zip(new.narrations, new.vectors, strict=True))
  if table is not None:
    vectors |= {normal(t): table.lookup([t])[0] for t in texts if normal(t) not in vectors}
  return np.stack([vectors[normal(text)] for text in texts])


def _by_the_model_of(
  weights: weight_files.Weights,
  table: narration_table.NarrationTable | None,
  missing: Sequence[str],
  where: str,
) -> narration_table.NarrationTable:
  """Embeds texts with the sentence model that the run was trained with, if it is there."""
  model = weights.card.get("data", {}).get("text_model") or (table.model if table else "")
  reason = "nothing says which sentence model it was trained with"
  if model:
    try:
      return new_texts.embed(missing, model)
    except new_texts.NoModelError as error:
      reason = f"its sentence model {model!r} can't be run here: {error}"
  raise ValueError(
    f"{missing[0]!r} ({len(missing)} texts in all) is not in {where or 'a narration table'}, and"
    f" {reason}\nGive encode=..., a function from texts to vectors of that model, or"
    " narrations=..., a table that has the texts, made by"
    f" `{narration_table.EMBED_COMMAND} --texts=FILE.txt`."
  )


def _table(
  weights: weight_files.Weights,
  given: addresses.PathLike | narration_table.NarrationTable | None,
) -> tuple[narration_table.NarrationTable | None, str]:
  """The table of sentence vectors, and what it is called; None where there is none."""
  if isinstance(given, narration_table.NarrationTable):
    return given, "the table that was given"
  if given is not None:
    return narration_table.NarrationTable.load(given), str(given)
  path = json.loads(weights.card.get("config") or "{}").get("narrations")
  if not path:
    return None, ""
  try:
    return narration_table.NarrationTable.load(path), str(path)
  except FileNotFoundError:
    logging.info("The narration table of the run, %s, is not there.", path)
    return None, f"{str(path)!r}, the narration table of the run, which is not there,"


def view_of(view: str) -> str:
  """A view that may be embedded.

  Raises:
    ValueError: there is no such view.
  """
  if view not in types.VIEWS:
    raise ValueError(f"view must be one of {types.VIEWS}, got {view!r}.")
  return view
