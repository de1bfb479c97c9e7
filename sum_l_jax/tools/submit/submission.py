"""Submissions to the EPIC-KITCHENS action recognition challenges.

A submission is a flat zip of JSON files: a score for every class of every clip.
`challenges.py` says which files, classes and declarations.

The official scorers apply softmax to what they read. Log-probabilities are
therefore written, from which softmax makes the probabilities again; from the
probabilities it would rank actions by the sum of verb and noun, not the
product. They have 6 decimals: two probabilities 0.0001 % apart can come out
equal.

Both formats also admit 100 scores of actions per clip. None are written, and
the reader refuses them: the scorers form them as `label_metrics.action_hits`
does.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import json
from typing import IO
from typing import Any
from typing import NoReturn
import zipfile
import zlib

from etils import epath
import numpy as np

from sum_l_jax.system import addresses
from sum_l_jax.system import storage
from sum_l_jax.tools.submit import challenges

# With 6 decimals, test.json of 13,092 clips has 93 MB.
MAX_BYTES = 1 << 29
_TASK = "action_recognition"
_DECIMALS = 6
# In place of a probability that float32 rounded to 0, which has no logarithm.
_FLOOR = float(np.finfo(np.float32).smallest_subnormal)
_MOST_CLASSES = 1000
_SHOWN = challenges.SHOWN


@dataclasses.dataclass(frozen=True)
class Predictions:
  """Scores of the clips of one file.

  Attributes:
    ids: N ids of entries.
    scores: task -> `[N, K]`; probabilities for the writer, log-probabilities
      from the reader.
  """

  ids: tuple[str, ...]
  scores: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Submission:
  """What a zip file holds.

  Attributes:
    challenge: its format.
    supervision: level by name, empty where the format has none.
    members: predictions by name of a file in the zip.
  """

  challenge: challenges.Challenge
  supervision: Mapping[str, int]
  members: Mapping[str, Predictions]


def log_scores(probabilities: np.ndarray) -> np.ndarray:
  """Turns `[N, K]` probabilities into what is written: logarithms, 6 decimals.

  Rows are divided by their sum; a probability below 1.4e-45 counts as that.
  """
  total = probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
  logs = np.log(np.maximum(probabilities / total, _FLOOR))
  return np.round(logs, _DECIMALS) + 0.0  # No "-0.0".


def _check_predictions(
  member: str, predictions: Predictions, challenge: challenges.Challenge
) -> None:
  if set(predictions.scores) != set(challenge.classes):
    raise ValueError(
      f"{member} must have scores of {sorted(challenge.classes)}, got those of"
      f" {sorted(predictions.scores)}."
    )
  count, different = len(predictions.ids), len(set(predictions.ids))
  if not count or different != count:
    raise ValueError(
      f"{member} must have entries of different ids, got {count} with {different} different ones."
    )
  for task, classes in challenge.classes.items():
    scores = predictions.scores[task]
    if scores.shape != (count, classes):
      raise ValueError(
        f"{member}: {challenge.name} has {classes} {task} classes, so the scores of {count} clips"
        f" must be [{count}, {classes}], got {list(scores.shape)}."
      )
    # Written so that NaN fails too.
    if not (np.all(scores >= 0) and np.all(scores.sum(axis=1) > 0) and np.isfinite(scores).all()):
      raise ValueError(
        f"{member}: scores of {task} must be probabilities, finite, not negative and not all 0."
        " Fill clips that were skipped."
      )


def write_submission(
  path: addresses.PathLike,
  members: Mapping[str, Predictions],
  *,
  challenge: challenges.Challenge,
  supervision: Mapping[str, int | None],
) -> None:
  """Writes a submission, whole or not at all; the same input, the same bytes.

  Args:
    path: the zip file; its folder is made where missing.
    members: probabilities by name of a file in the zip.
    challenge: the format.
    supervision: level of `sls_pt`, `sls_tl`, `sls_td`; empty for epic55.

  Raises:
    ValueError: files, classes, probabilities or levels that the format does not
      allow.
  """
  levels = challenges.check_supervision(challenge, supervision)
  if set(members) != set(challenge.members):
    raise ValueError(
      f"A submission to {challenge.name} must consist of {sorted(challenge.members)}, got"
      f" {sorted(members)}."
    )
  for member, predictions in members.items():
    _check_predictions(member, predictions, challenge)
  path = addresses.path(path)
  storage.make_folder(path.parent)
  head = {"version": challenge.version, "challenge": _TASK, **levels}
  with storage.replacing(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
    for member in challenge.members:
      info = zipfile.ZipInfo(member)  # Of 1980: no time of writing.
      info.compress_type = zipfile.ZIP_DEFLATED
      with archive.open(info, "w") as file:
        _write_json(file, head, members[member])


def _write_json(file: IO[bytes], head: Mapping[str, Any], predictions: Predictions) -> None:
  """Writes clip by clip: the whole text would take 10 times the memory."""
  file.write(f'{json.dumps(head)[:-1]}, "results": {{'.encode())
  logs = {t: log_scores(s) for t, s in predictions.scores.items()}
  for row, entry in enumerate(predictions.ids):
    scores = {
      task: dict(zip(_class_keys(values.shape[1]), values[row].tolist()))
      for task, values in logs.items()
    }
    text = f"{json.dumps(entry)}: {json.dumps(scores, allow_nan=False)}"
    file.write(f"{', ' if row else ''}{text}".encode())
  file.write(b"}}")


@functools.lru_cache
def _class_keys(classes: int) -> tuple[str, ...]:
  return tuple(map(str, range(classes)))


def read_submission(
  path: addresses.PathLike,
  *,
  challenge: challenges.Challenge = challenges.EPIC100,
  ids: Mapping[str, Sequence[str]] | None = None,
) -> Submission:
  """Reads a submission, refusing whatever its format does not allow.

  Args:
    path: the zip file.
    challenge: format that it must have.
    ids: entries that it must have, by name of a file in the zip.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not a flat zip of exactly the files; a file larger than
      MAX_BYTES; not JSON; a key twice; another version or challenge; a level
      outside 0..5; a clip that lacks a class or has another one; a score that
      is not a finite number; other entries than `ids`.
  """
  path = addresses.path(path)
  members, supervision = {}, {}
  for member, text in _read_members(path, challenge).items():
    where = f"{path}, {member}"
    try:
      content = json.loads(
        text, object_pairs_hook=_object, parse_int=_whole, parse_constant=_refuse_constant
      )
      supervision = _check_head(content, challenge)
      members[member] = _check_results(content["results"], challenge)
    except (ValueError, RecursionError) as error:
      raise ValueError(f"{where}: {error}") from error
    if ids and member in ids:
      challenges.check_ids(members[member].ids, ids[member], where)
  return Submission(challenge, supervision, members)


def _read_members(path: epath.Path, challenge: challenges.Challenge) -> dict[str, bytes]:
  if not storage.is_file(path):
    raise FileNotFoundError(f"There is no submission {str(path)!r}.")
  if storage.size(path) > MAX_BYTES:
    raise ValueError(f"{path} is larger than {MAX_BYTES:,} bytes.")
  try:
    with storage.open_binary(path) as stored, zipfile.ZipFile(stored) as archive:
      found = archive.infolist()
      names = sorted(info.filename for info in found)
      if names != sorted(challenge.members):
        raise ValueError(
          f"{path} must hold exactly {sorted(challenge.members)}, in no folder, for"
          f" {challenge.name}; it holds {len(names)} files: {names[:_SHOWN]}."
        )
      for info in found:
        if info.file_size > MAX_BYTES:
          raise ValueError(
            f"{path}: {info.filename} would unpack to {info.file_size:,} bytes, more than"
            f" {MAX_BYTES:,}. No test set needs that many."
          )
      # No more than file_size is unpacked, whatever the stream holds.
      return {name: archive.read(name) for name in challenge.members}
  except (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
  ) as error:
    raise ValueError(f"{path} can't be read as a zip file ({error}).") from error


def _object(pairs: list[tuple[str, Any]]) -> Any:
  """Makes a dict, or of scores of the classes 0..n-1 an array `[n]`, to save memory."""
  content = dict(pairs)
  if len(content) < len(pairs):
    seen: set[str] = set()
    twice = next(n for n, _ in pairs if n in seen or seen.add(n))
    raise ValueError(f"the key {twice!r} occurs twice in one object")
  if not 0 < len(content) <= _MOST_CLASSES:
    return content
  keys = _class_keys(len(content))
  if content.keys() == set(keys) and all(type(value) in (int, float) for value in content.values()):
    return np.array([content[key] for key in keys], np.float64)
  return content


def _whole(text: str) -> int | float:
  # Python refuses to convert thousands of digits.
  return int(text) if len(text) < 18 else float(text)


def _refuse_constant(text: str) -> NoReturn:
  raise ValueError(f"{text} is not a finite number")


def _check_head(content: Any, challenge: challenges.Challenge) -> dict[str, int]:
  """Checks everything but the results; returns the supervision levels."""
  wanted = {"version", "challenge", "results"}
  wanted |= set(challenges.SUPERVISION) if challenge.supervised else set()
  if not isinstance(content, dict) or set(content) != wanted:
    found = sorted(content) if isinstance(content, dict) else type(content)
    raise ValueError(f"it must be an object of {sorted(wanted)}, got {found}.")
  for name, value in (("version", challenge.version), ("challenge", _TASK)):
    if content[name] != value:
      raise ValueError(f"{name} must be {value!r} for {challenge.name}, got {content[name]!r}.")
  levels = {n: content[n] for n in challenges.SUPERVISION if n in content}
  return challenges.check_supervision(challenge, levels)


def _check_results(results: Any, challenge: challenges.Challenge) -> Predictions:
  if not isinstance(results, dict) or not results:
    raise ValueError("results must be an object with an entry for each clip.")
  scores = {task: [] for task in challenge.classes}
  for clip, entry in results.items():
    if not isinstance(entry, dict) or set(entry) != set(scores):
      found = sorted(entry) if isinstance(entry, dict) else "no object"
      raise ValueError(
        f"clip {clip!r} must have scores of {sorted(scores)}, got {found}. Scores of actions are"
        " left to the scorer."
      )
    for task, classes in challenge.classes.items():
      values = entry[task]
      if not isinstance(values, np.ndarray) or len(values) != classes:
        raise ValueError(_class_problem(clip, task, values, classes))
      if not np.isfinite(values).all():
        raise ValueError(f"clip {clip!r} has a {task} score that is infinite.")
      scores[task].append(values)
  return Predictions(tuple(results), {t: np.stack(values) for t, values in scores.items()})


def _class_problem(clip: str, task: str, values: Any, classes: int) -> str:
  must = f'clip {clip!r} must have a number for each {task} class "0" to "{classes - 1}"'
  if isinstance(values, np.ndarray):
    return f"{must}, got {len(values)} classes."
  if not isinstance(values, dict):
    return f"{must}, got {values!r:.40}."
  keys = set(_class_keys(classes))
  wrong = [
    f"{k!r}: {v!r:.40}" for k, v in values.items() if k in keys and type(v) not in (int, float)
  ]
  return (
    f"{must}; missing are {sorted(keys - set(values))[:_SHOWN]}, unknown are"
    f" {sorted(set(values) - keys)[:_SHOWN]}, no numbers are {wrong[:_SHOWN]}."
  )
