"""What a benchmark is scored from: official files, clips, sentences, or scores.

Vectors come from a checkpoint, which embeds the clips of built data sets, or from
files, so that nothing of this needs a network. A file's vectors are taken as they
are, of any length, and are multiplied in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from etils import epath
import numpy as np

from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import npz_files
from sum_l_jax.system import storage

STOP, ZERO = "stop", "zero"
# What to do with a clip that has no vector.
ON_MISSING = (STOP, ZERO)


@dataclasses.dataclass(frozen=True)
class Switch:
  """A choice of a benchmark, set by --set=NAME=VALUE.

  Attributes:
    choices: what it may be; the first is the official choice.
    about: what it decides.
  """

  choices: tuple[str, ...]
  about: str


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """What the command has to know of a benchmark.

  Attributes:
    protocol: its definition.
    annotations: what --annotations must name; "" where there is nothing to name.
    views: views whose clips it embeds, among "ego" and "exo".
    score: reads what it needs and scores it.
    texts: the sentences that it embeds, or None where it embeds none.
    switches: its choices by name.
    templates: its official sentences with "{}" in place of a name, which --template
      replaces; none where names have no place in its sentences.
    matrix: whether --scores may replace clips and sentences, and which rows and
      columns it has; "" where it can't.
    heads: whether the class heads of --checkpoint score the clips, and no vectors are
      compared.
    frames: what the folder that --embeddings must name has, where vectors are of
      frames and not of clips; "" where they are of clips.
  """

  protocol: protocol.Protocol
  annotations: str
  views: tuple[str, ...]
  score: Callable[[Inputs], protocol.Outcome]
  texts: Callable[[Inputs], Sequence[str]] | None = None
  switches: Mapping[str, Switch] = dataclasses.field(default_factory=dict)
  templates: tuple[str, ...] = ()
  matrix: str = ""
  heads: bool = False
  frames: str = ""


class Inputs:
  """What the options of the command name, read when a benchmark asks for it.

  Attributes:
    annotations: the official file or folder.
    switches: the benchmark's choices by name.
    about: what `result.json` says of what was read.
    notes: sentences for `result.json`, beside those of the scorer.
  """

  def __init__(
    self,
    *,
    annotations: epath.Path | None = None,
    switches: Mapping[str, str] | None = None,
    datasets: Mapping[str, str] | None = None,
    checkpoint: str = "",
    narrations: str = "",
    embeddings: str = "",
    scores: str = "",
    templates: Sequence[str] = (),
    embedder: Mapping[str, int] | None = None,
    on_missing: str = STOP,
  ) -> None:
    """Opens nothing yet.

    Args:
      annotations: the official file or folder.
      switches: the benchmark's choices by name, all of them.
      datasets: clip data sets by view, "DIR:SPLIT,...".
      checkpoint: workdir, checkpoint folder or `.npz` file; "" for none.
      narrations: `.npz` file of sentence vectors; "" for none.
      embeddings: `.npz` files with clip_id and vector, separated by commas.
      scores: `.npy` file of a matrix of scores; "" for none.
      templates: sentences with "{}" in place of a name.
      embedder: `clips`, `crops`, `batch_size`, `num_threads` of the embedder.
      on_missing: what to do with clips without a vector, one of ON_MISSING.
    """
    self.annotations = annotations
    self.switches = dict(switches or {})
    self.templates = list(templates)
    self.about: dict[str, Any] = {}
    self.notes: list[str] = []
    self._datasets = dict(datasets or {})
    self._checkpoint = checkpoint
    self._narrations = narrations
    self._embeddings = embeddings
    self._scores = scores
    self._embedder_options = dict(embedder or {})
    self._on_missing = on_missing

  @property
  def folder(self) -> epath.Path:
    """The official files, which `check_options` has asked for."""
    if self.annotations is None:
      raise ValueError("--annotations must name the official files.")
    return self.annotations

  @property
  def frames_folder(self) -> epath.Path:
    """The folder with vectors of frames, which `check_options` has asked for."""
    if not self._embeddings:
      raise ValueError("--embeddings must name the folder with vectors of frames.")
    return addresses.path(self._embeddings)

  def sentences(self, names: Sequence[str]) -> list[list[str]]:
    """The sentences about each name, one of each template.

    Raises:
      ValueError: a template has no place for the name.
    """
    from sum_l_jax.evaluation.retrieval import zero_shot

    return zero_shot.sentences(names, self.templates)

  @property
  def from_checkpoint(self) -> bool:
    """Whether vectors of clips come from a checkpoint, which makes unit vectors."""
    return not self._embeddings

  @property
  def takes_sentences(self) -> bool:
    """Whether sentences are compared, and no matrix of scores stands in their place."""
    return not self._scores

  def scores(self, shape: tuple[int, int]) -> np.ndarray | None:
    """The matrix of --scores, float64, or None where there is none.

    Args:
      shape: numbers of rows and columns that the benchmark has.

    Raises:
      FileNotFoundError, ValueError: no such file, another shape, or a value that
        is not finite.
    """
    if not self._scores:
      return None
    path = addresses.path(self._scores)
    if not storage.is_file(path):
      raise FileNotFoundError(
        f"--scores: there is no file {self._scores!r}. Give a matrix that numpy saved as .npy, of"
        f" {shape[0]} rows and {shape[1]} columns."
      )
    try:
      with storage.open_binary(path) as file:
        found = np.load(file, allow_pickle=False)
    except npz_files.DAMAGED as error:
      raise ValueError(
        f"--scores: {self._scores!r} can't be read ({error}). Write it with numpy.save, without"
        " objects."
      ) from error
    if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype.kind not in "fiu":
      shown = getattr(found, "shape", "several arrays")
      raise ValueError(
        f"--scores must hold a matrix of numbers of shape {shape}, got {shown}"
        f" {getattr(found, 'dtype', '')} in {self._scores!r}. Write one with numpy.save, whose rows"
        " and columns are those that --list names."
      )
    if not np.isfinite(found).all():
      row, column = np.argwhere(~np.isfinite(found))[0]
      raise ValueError(
        f"--scores must be finite, got {found[row, column]} at [{row}, {column}] in"
        f" {self._scores!r}. Score each row and column, and write the file again."
      )
    self.about["scores"] = {"file": self._scores, "sha256": storage.sha256(path)}
    return found.astype(np.float64)

  def class_scores(self, ids: Sequence[str], task: str, num_classes: int) -> np.ndarray:
    """The class scores of clips, float64 `[len(ids), num_classes]`.

    They are those of the class heads of --checkpoint, or of --scores: a `.npz` file is
    one that evaluation wrote (`scores_<split>.npz`), whose rows are found by the ids
    of the clips. A `.npy` file is a matrix in the order of the ids.

    Args:
      ids: ids of the clips, as the builder derives them.
      task: label set that the scores are of.
      num_classes: number of its classes.

    Raises:
      FileNotFoundError, ValueError: there is no such file, it has other classes, or
        a clip has no score.
    """
    if not self._scores and self._checkpoint:
      found = self._head_scores.get(task, {})
      source = f"{self._checkpoint!r}"
      if not found:
        raise ValueError(
          f"The benchmark needs the scores of {task}, and {source} has no such head. Give a"
          " checkpoint that was trained for the classes of the benchmark."
        )
      names = np.array(list(found))
      return self._rows_of(ids, names, np.stack(list(found.values())), num_classes, source, task)
    if not self._scores:
      raise ValueError(
        "The benchmark needs the scores of classes: give --scores=scores_SPLIT.npz, which"
        " `python -m sum_l_jax.main --mode=eval` writes into the workdir, or a matrix of them"
        " with --scores=FILE.npy."
      )
    if not self._scores.endswith(".npz"):
      found = self.scores((len(ids), num_classes))
      assert found is not None
      return found
    key = f"scores_{task}"
    arrays = npz_files.read_npz(
      self._scores,
      ("clip_id", key),
      what="file of scores",
      command="python -m sum_l_jax.main --mode=eval",
    )
    found = self._rows_of(
      ids, arrays["clip_id"], arrays[key], num_classes, f"{self._scores!r}", key
    )
    self.about["scores"] = {
      "file": self._scores,
      "sha256": storage.sha256(addresses.path(self._scores)),
    }
    return found

  def _rows_of(
    self,
    ids: Sequence[str],
    names: np.ndarray,
    scores: np.ndarray,
    num_classes: int,
    source: str,
    key: str,
  ) -> np.ndarray:
    """The rows of scores [N, K] that are of the clips, by their ids."""
    if scores.shape != (len(names), num_classes) or scores.dtype.kind != "f":
      raise ValueError(
        f"{key} in {source} must be of {num_classes} classes,"
        f" [{len(names)}, {num_classes}], got {scores.shape} {scores.dtype}. The checkpoint must"
        " have been trained for the classes of the benchmark."
      )
    row_of = {name: row for row, name in enumerate(names.astype(str).tolist())}
    if len(row_of) < len(names):
      raise ValueError(f"{source}: {_repeated(names)} Give the scores of each clip once.")
    scored = np.all(np.isfinite(scores), axis=1)
    missing = [name for name in ids if name not in row_of or not scored[row_of[name]]]
    if missing:
      raise ValueError(
        f"{len(missing)} of the benchmark's {len(ids)} clips have no scores in"
        f" {source}: {command_line.some([repr(name) for name in missing])}. Evaluate the"
        " data set that has all of them."
      )
    return scores[[row_of[name] for name in ids]].astype(np.float64)

  def all_clips(self, view: str) -> tuple[list[str], np.ndarray]:
    """The ids and vectors, float64 `[N, D]`, of all clips that are given of a view.

    Raises:
      ValueError: nothing says where the vectors are, or there are none.
    """
    found = self._from_files(view) if self._embeddings else self._embedded(view)
    if not found:
      raise ValueError(f"There is no {view} clip among what is given. Give its vectors too.")
    return list(found), np.stack(list(found.values())).astype(np.float64)

  def clips(self, view: str, ids: Sequence[str], *, each_view: bool = False) -> np.ndarray:
    """The vectors of clips, float64 `[len(ids), D]`; zeros for --on_missing=zero.

    They have unit norm where a checkpoint made them, and any where a file has them.

    Args:
      view: "ego" or "exo".
      ids: ids of the clips, as the builder derives them; they may repeat.
      each_view: whether to keep the test views of a clip apart, `[len(ids), V, D]`.
        A file has them so, or one vector a clip.

    Raises:
      ValueError: nothing says where the vectors are, or clips are missing.
    """
    found = self._from_files(view) if self._embeddings else self._embedded(view, each_view)
    missing = sorted({name for name in ids if name not in found})
    if len(missing) == len(set(ids)):
      raise ValueError(
        f"No {view} clip of the benchmark has a vector: clips are called like {ids[0]!r}, and"
        f" {'--embeddings' if self._embeddings else f'--{view}'} has"
        f" {command_line.some([repr(name) for name in found])}."
      )
    if missing:
      self._report(view, missing, len(set(ids)))
    nothing = np.zeros_like(next(iter(found.values())))
    vectors = np.stack([found.get(name, nothing) for name in ids]).astype(np.float64)
    if each_view and vectors.ndim == 2:
      return vectors[:, None]
    if vectors.ndim == 3 and not each_view:
      raise ValueError(
        "--embeddings has vectors of each test view [N, V, D], and the benchmark takes one a"
        " clip, [N, D]."
      )
    return vectors

  def texts(self, sentences: Sequence[str]) -> np.ndarray:
    """The unit vectors of sentences, float64 `[n, D]`.

    Raises:
      ValueError: --narrations is not given, lacks a sentence, or is of another
        model than the checkpoint.
    """
    self._check_sentences(sentences)
    return self.table.lookup(sentences).astype(np.float64)

  def _check_sentences(self, sentences: Sequence[str]) -> None:
    """Refuses a table that lacks one, and notes how many are one narration to the table."""
    from sum_l_jax.data import narration_table

    table = self.table
    try:
      table.rows(sentences)
    except ValueError as error:
      raise ValueError(
        f"--narrations={self._narrations}: {str(error).partition(' Embed ')[0]} Write the"
        " sentences of the benchmark with --texts=FILE.txt and the same choices, and embed these."
      ) from error
    distinct = set(sentences)
    # The table's keys are tidied.
    shared = len(distinct) - len(set(map(narration_table.normalize_narration, distinct)))
    if shared:
      self.notes.append(
        f"{shared} of {len(distinct)} distinct sentences differ from another one in case, spaces"
        " or a final full stop alone, and have its vector."
      )

  @functools.cached_property
  def table(self) -> Any:
    """The `NarrationTable` of --narrations."""
    from sum_l_jax.data import narration_table

    if not self._narrations:
      raise ValueError(
        "The benchmark needs the vectors of its sentences: write these with --texts=FILE.txt,"
        f" embed them with `{narration_table.EMBED_COMMAND} --texts=FILE.txt --model=...`, and"
        " give --narrations=FILE.npz."
      )
    table = narration_table.NarrationTable.load(self._narrations)
    if self._checkpoint:
      from sum_l_jax.evaluation.retrieval import retrieval_run

      retrieval_run.check_text_model(self._weights, table, self._narrations)
    self.about["text_model"] = table.model
    return table

  def class_vectors(self, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """The unit vector of each class, which is the mean of its sentences' vectors.

    Args:
      texts: sentences of each class.

    Returns:
      float64 `[K, D]`.

    Raises:
      ValueError: as `texts`.
    """
    from sum_l_jax.evaluation.retrieval import zero_shot

    self._check_sentences([text for own in texts for text in own])
    return zero_shot.mean_vectors(self.table, texts).astype(np.float64)

  def similarity(self, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Products of vectors, float64 `[Q, M]`, or `[Q, V, M]` of each test view.

    Those of a checkpoint's unit vectors are rounded to 2^-20, as everywhere in this
    library, since embedding a clip in another batch moves them by less. Those of
    a file's vectors are not rounded.

    Args:
      queries: `[Q, D]`, or `[Q, V, D]`.
      keys: `[M, D]`.

    Raises:
      ValueError: the widths differ.
    """
    if queries.shape[-1] != keys.shape[-1]:
      raise ValueError(
        f"The vectors of one side have {queries.shape[-1]} numbers, of the other {keys.shape[-1]}:"
        " they are of different models."
      )
    if self._embeddings:
      return queries @ keys.T
    from sum_l_jax.evaluation.retrieval import zero_shot

    found = zero_shot.scores(queries.reshape(-1, queries.shape[-1]), keys)
    return found.reshape(*queries.shape[:-1], len(keys))

  @functools.cached_property
  def _weights(self) -> Any:
    from sum_l_jax.checkpoint import weight_files

    weights = weight_files.read_weights(self._checkpoint)
    self.about["checkpoint"] = weights.source
    return weights

  @functools.cached_property
  def _embedder(self) -> Any:
    from sum_l_jax.evaluation.retrieval import embedding

    return embedding.Embedder(self._weights, **self._embedder_options)

  def _open(self, view: str) -> Iterator[Any]:
    """Yields the data sets that are given of a view, and says that they were read.

    Raises:
      ValueError: one is of the other view.
    """
    from sum_l_jax.data import clip_selection

    for text in command_line.names(self._datasets[view]):
      dataset = clip_selection.open_dataset(text)
      if dataset.view != view:
        raise ValueError(
          f"--{view}={text}: {dataset!r} is of view {dataset.view!r}. Give it to --{dataset.view}."
        )
      self.about.setdefault("datasets", {})[repr(dataset)] = dataset.fingerprint
      self.about["views"] = [self._embedder_options.get(n, 1) for n in ("clips", "crops")]
      yield dataset

  @functools.cached_property
  def _head_scores(self) -> dict[str, dict[str, np.ndarray]]:
    """The probabilities by the checkpoint's heads, by task and id of the clip."""
    from sum_l_jax.checkpoint import weight_files
    from sum_l_jax.evaluation.labels import class_heads

    if not any(self._datasets.values()):
      raise ValueError("The benchmark needs the clips to be scored: give --ego or --exo=DIR:SPLIT.")
    found: dict[str, dict[str, np.ndarray]] = {}
    sums = self.about.setdefault("checkpoint_sha256", {})
    for view in self._datasets:
      for dataset in self._open(view):
        scores = class_heads.score_clips(self._weights, dataset, **self._embedder_options)
        ids = [clip.clip_id for clip in dataset.clips]
        for task, rows in scores.items():
          self._check_new(found.get(task, {}), ids, view)
          found.setdefault(task, {}).update(zip(ids, rows, strict=True))
        sums[view] = weight_files.weights_sha256(self._weights, view)
    return found

  def _embedded(self, view: str, each_view: bool = False) -> dict[str, np.ndarray]:
    """The vectors of the clips of a view's data sets, by id."""
    from sum_l_jax.checkpoint import weight_files

    if not (self._checkpoint and self._datasets.get(view)):
      raise ValueError(
        f"The benchmark needs vectors of {view} clips: give --checkpoint and --{view}=DIR:SPLIT,"
        " or --embeddings=FILE.npz with clip_id and vector."
      )
    found: dict[str, np.ndarray] = {}
    for dataset in self._open(view):
      made = self._embedder(dataset, each_view=each_view)
      rows = np.flatnonzero(made.readable).tolist()
      self._check_new(found, [dataset.clips[i].clip_id for i in rows], view)
      found |= {dataset.clips[i].clip_id: made.vectors[i] for i in rows}
      skipped = [c.clip_id for c, good in zip(dataset.clips, made.readable) if not good]
      if skipped:
        self.notes.append(
          f"{len(skipped)} clips of {dataset!r} can't be read: {command_line.some(skipped)}."
        )
    sums = self.about.setdefault("checkpoint_sha256", {})
    sums[view] = weight_files.weights_sha256(self._weights, view)
    return found

  def _from_files(self, view: str) -> dict[str, np.ndarray]:
    """The vectors of --embeddings by id; those of a view where a file tells views."""
    found: dict[str, np.ndarray] = {}
    for name in command_line.names(self._embeddings):
      arrays = npz_files.read_npz(
        name,
        ("clip_id", "vector"),
        what="file of embeddings",
        command="python -m sum_l_jax embed",
      )
      ids, vectors = arrays["clip_id"], arrays["vector"]
      if vectors.ndim not in (2, 3) or ids.shape != vectors.shape[:1] or vectors.dtype.kind != "f":
        raise ValueError(
          f"--embeddings: {name!r} must hold clip_id [N] and vector [N, D] or [N, V, D],"
          f" floating point, got {ids.shape} and {vectors.shape} {vectors.dtype}. Write them with"
          " numpy.savez, one vector for each id."
        )
      if not np.isfinite(vectors).all():
        row = int(np.argwhere(~np.isfinite(vectors))[0][0])
        raise ValueError(
          f"--embeddings: {name!r} has a vector that is not finite, row {row}"
          f" (clip {str(ids[row])!r}). Leave the clip out, or embed it again."
        )
      _, more = npz_files.load(addresses.path(name), ("view",))
      views = more.get("view", np.full(len(ids), view))
      if views.shape != ids.shape:
        raise ValueError(
          f"--embeddings: view in {name!r} must be [{len(ids)}], 'ego' or 'exo' for each clip_id,"
          f" got {views.shape}. Write it again, or without view."
        )
      own, rows = ids[views == view].astype(str), vectors[views == view]
      if len(set(own.tolist())) < len(own):
        raise ValueError(f"--embeddings: {name!r}: {_repeated(own)} Give each clip once.")
      again = [clip for clip in own.tolist() if clip in found]
      if again:
        raise ValueError(
          f"--embeddings: {len(again)} clips of {name!r} are in another file as well:"
          f" {command_line.some([repr(clip) for clip in again])}. Give each clip once, or an array"
          " view [N] of 'ego' and 'exo' where both views have it."
        )
      found |= dict(zip(own.tolist(), rows))
      sums = self.about.setdefault("embeddings", {})
      sums[name] = storage.sha256(addresses.path(name))
    shapes = {vector.shape for vector in found.values()}
    if len(shapes) > 1:
      raise ValueError(f"--embeddings: the files have vectors of shapes {sorted(shapes)}.")
    return found

  def _check_new(self, found: Mapping[str, Any], ids: Sequence[str], view: str) -> None:
    """Raises ValueError where a clip of a data set is in an earlier one as well."""
    again = [name for name in ids if name in found]
    if again:
      raise ValueError(
        f"{len(again)} clips are in several data sets of --{view}:"
        f" {command_line.some([repr(name) for name in again])}. Give data sets that have no clip"
        " in common."
      )

  def _report(self, view: str, missing: Sequence[str], number: int) -> None:
    shown = command_line.some([repr(name) for name in missing])
    text = f"{len(missing)} of the benchmark's {number} {view} clips have no vector: {shown}."
    if self._on_missing == STOP:
      raise ValueError(
        f"{text} Its scores are of all clips. Build those that are missing, or give"
        " --on_missing=zero, which takes zero vectors in their place and says so."
      )
    self.notes.append(f"{text} Zero vectors stand in their place.")


def _repeated(names: np.ndarray) -> str:
  """The sentence that names an id which occurs more than once."""
  ids, counts = np.unique(names.astype(str), return_counts=True)
  return f"The clip {str(ids[counts.argmax()])!r} occurs {counts.max()} times in clip_id."
