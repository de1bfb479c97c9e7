r"""Measures how often a mined partner is right, on texts whose answers are known.

  python -m data_prep.mining_precision --egoyc2=Exo2EgoDVC/data \
      --egoexolearn=EgoExoLearn/association_benchmark/annotations/exo_train.csv \
      --models=all-MiniLM-L6-v2 --output=mining_precision.json

  # vectors of other models: write the sentences, embed them anywhere
  python -m data_prep.mining_precision --egoyc2=Exo2EgoDVC/data --texts=sentences.txt
  ... --narrations=other_model.npz

Only annotations are read, and no video. Word overlap and TF-IDF, which need no
weights, are always measured as well: a sentence model should do better. Each number
has its 95 % interval over the queries, and chance beside it. What is measured, and
why just this, is in `sum_l_jax/evaluation/benchmarks/mined_partners.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import sys
from typing import Any

from etils import epath
import numpy as np

from data_prep import embed_narrations
from data_prep import similarity_report
from data_prep.mining import pair_summary
from data_prep.mining import word_overlap
from sum_l_jax.data import narration_table
from sum_l_jax.evaluation.benchmarks import caption_files
from sum_l_jax.evaluation.benchmarks import egoexolearn_tables
from sum_l_jax.evaluation.benchmarks import gallery
from sum_l_jax.evaluation.benchmarks import mined_partners
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.evaluation.benchmarks import step_retrieval
from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.system import text_tables

WORD_OVERLAP, TF_IDF = "word overlap", "TF-IDF"
# Cosines of `gallery.cosines` are in units of this.
_UNIT = 2.0**-20

Steps = Mapping[str, step_retrieval.Steps]


def read_egoyc2(path: epath.Path) -> tuple[Steps, Steps, list[epath.Path]]:
  """The steps of both views by split, and the files that were read.

  Args:
    path: folder with the four caption files; see `caption_files.find_files`.

  Raises:
    FileNotFoundError, ValueError: see `caption_files`.
  """
  found, files = {}, []
  for name, view in caption_files.VIEWS.items():
    of_splits = caption_files.find_files(path, name)
    files += of_splits.values()
    found[view] = {
      split: step_retrieval.Steps.of(caption_files.read_steps(file), ego=view == "ego")
      for split, file in of_splits.items()
    }
  for view, splits in found.items():
    if len(splits) < 2:
      raise ValueError(
        f"--egoyc2 must name a folder with all four caption files; of {view} there is only"
        f" {', '.join(splits)} in {str(path)!r}."
      )
  return found["ego"], found["exo"], files


def read_egoexolearn(path: epath.Path) -> mined_partners.Narrated:
  """The clips of `exo_train.csv`, with normalised narrations.

  Raises:
    FileNotFoundError, ValueError: see `egoexolearn_tables.read_association_train`.
  """
  rows = egoexolearn_tables.read_association_train(path)
  keys = {
    name: np.array([narration_table.normalize_narration(row.narrations[name]) for row in rows])
    for name in ("sentence", "hands", "chinese")
  }
  labels = {}
  for task, number in egoexolearn_tables.NUM_CLASSES.items():
    labels[task] = np.zeros((len(rows), number), bool)
    for place, row in enumerate(rows):
      labels[task][place, list((row.labels or {})[task])] = True
  return mined_partners.Narrated(
    sentences=keys["sentence"],
    reworded=keys["hands"],
    originals=keys["chinese"],
    videos=np.array([row.video_id for row in rows]),
    verbs=labels["verb"],
    nouns=labels["noun"],
  )


@dataclasses.dataclass(frozen=True)
class Texts:
  """What is measured on, of one data set.

  Attributes:
    definition: what is measured.
    files: files that were read.
    sentences: all normalised sentences that are compared.
    measure: makes the outcome for a similarity; the second one is by word overlap.
    closest: ego and exo sentences [Q] and [M], and which exo ones each may find.
  """

  definition: protocol.Protocol
  files: Sequence[epath.Path]
  sentences: frozenset[str]
  measure: Callable[[mined_partners.Similarity, mined_partners.Similarity], protocol.Outcome]
  closest: tuple[np.ndarray, np.ndarray, np.ndarray]


def egoyc2_texts(path: epath.Path) -> Texts:
  """What is measured on EgoYC2 and YouCook2; see `read_egoyc2`."""
  ego, exo, files = read_egoyc2(path)
  sentences = (steps.sentences.tolist() for side in (ego, exo) for steps in side.values())
  return Texts(
    mined_partners.EGOYC2,
    files,
    frozenset(text for some in sentences for text in some),
    lambda similarity, overlap: mined_partners.egoyc2(similarity, overlap, dict(ego), dict(exo)),
    (
      ego["train"].sentences,
      exo["train"].sentences,
      ego["train"].videos[:, None] != exo["train"].videos[None],
    ),
  )


def egoexolearn_texts(path: epath.Path) -> Texts:
  """What is measured on EgoExoLearn; see `read_egoexolearn`."""
  clips = read_egoexolearn(path)
  return Texts(
    mined_partners.EGOEXOLEARN,
    [path],
    frozenset([*clips.sentences.tolist(), *clips.reworded.tolist()]),
    lambda similarity, overlap: mined_partners.egoexolearn(similarity, clips),
    (clips.sentences, clips.sentences, clips.videos[:, None] != clips.videos[None]),
  )


def by_table(table: narration_table.NarrationTable) -> mined_partners.Similarity:
  """The exact cosines of a table's vectors."""
  return lambda queries, keys: gallery.cosines(
    table.lookup(queries.tolist()), table.lookup(keys.tolist())
  )


def closest(similarity: mined_partners.Similarity, texts: Texts) -> dict[str, Any]:
  """How similar the best partners in other videos are, as the paper's Figure 2 shows.

  Args:
    similarity: cosines in units of 2^-20.
    texts: the ego and exo sentences.

  Returns:
    `best_percentiles` of the best cosine of each ego clip, `bands` with the share of
    ego clips in each band of `similarity_report.BANDS`, and `median_of_all_pairs`.
  """
  queries, keys, allowed = texts.closest
  cosines = similarity(queries, keys) * _UNIT
  best = np.where(allowed, cosines, -1.0).max(axis=1)
  counts = np.bincount(similarity_report.band(best), minlength=len(similarity_report.BANDS))
  return {
    "clips": len(queries),
    "best_percentiles": {
      str(percent): round(float(np.percentile(best, percent)), 4)
      for percent in pair_summary.PERCENTILES
    },
    "bands": {
      name: float(count / len(best))
      for (name, _), count in zip(similarity_report.BANDS, counts, strict=True)
    },
    "median_of_all_pairs": round(float(np.median(cosines[allowed])), 4),
  }


def measure(texts: Texts, tables: Sequence[narration_table.NarrationTable]) -> dict[str, Any]:
  """Measures all similarities on one data set.

  Args:
    texts: the data set.
    tables: tables with the vectors of all its sentences, one a model.

  Returns:
    What the JSON file holds of it: `protocol`, `files` with their digests, `models`
    (metrics, counts and notes by similarity), and `closest` by model.

  Raises:
    ValueError: a table lacks a sentence.
  """
  words = word_overlap.Words(texts.sentences)
  similarities: dict[str, mined_partners.Similarity] = {
    WORD_OVERLAP: words.jaccard,
    TF_IDF: words.tf_idf,
    **{table.model: by_table(table) for table in tables},
  }
  models = {}
  for name, similarity in similarities.items():
    entry = protocol.entry(texts.definition, texts.measure(similarity, words.jaccard))
    models[name] = {key: entry[key] for key in ("metrics", "counts", "notes")}
  return {
    "protocol": dataclasses.asdict(texts.definition),
    "files": {file.name: storage.sha256(file) for file in texts.files},
    "models": models,
    "closest": {table.model: closest(similarities[table.model], texts) for table in tables},
  }


def _tables(args: argparse.Namespace, every: Sequence[str]) -> Iterator[Any]:
  for path in command_line.names(args.narrations):
    yield narration_table.NarrationTable.load(path)
  for model in command_line.names(args.models):
    yield embed_narrations.embed_narrations(every, model=model, device=args.device)


def _read(args: argparse.Namespace) -> dict[str, Texts]:
  found = {}
  for name, reader in (("egoyc2", egoyc2_texts), ("egoexolearn", egoexolearn_texts)):
    if getattr(args, name) is not None:
      found[name] = reader(getattr(args, name))
  if not found:
    raise ValueError("Give --egoyc2=DIR, --egoexolearn=FILE.csv, or both.")
  return found


def run(args: argparse.Namespace) -> str:
  """Runs the command, and returns what it prints.

  Raises:
    FileNotFoundError, ValueError: see `read_egoyc2`, `read_egoexolearn`, `measure` and
      `embed_narrations.load_encoder`; or options that don't fit.
  """
  data = _read(args)
  every = sorted(frozenset().union(*(texts.sentences for texts in data.values())))
  if args.texts is not None:
    storage.write_text(args.texts, "\n".join(every) + "\n")
    return f"wrote {args.texts}: {len(every)} sentences"
  if args.output is None:
    raise ValueError("Give --output=FILE.json, or --texts=FILE.txt to write the sentences.")
  command_line.check_output(args.output, suffixes=(".json",))
  tables = list(_tables(args, every))
  names = [WORD_OVERLAP, TF_IDF, *(table.model for table in tables)]
  if len(set(names)) < len(names):
    raise ValueError(f"Each model must be given once, got {', '.join(names[2:])}.")
  found = {name: measure(texts, tables) for name, texts in data.items()}
  storage.write_text(args.output, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
  lines = [line for name, one in found.items() for line in [name, *as_lines(one)]]
  return "\n".join([*lines, f"wrote {args.output}"])


def as_lines(result: Mapping[str, Any]) -> list[str]:
  """The numbers of `measure` in percent, a line for each metric."""
  models = result["models"]
  rows = [["", *models, "chance"]]
  percent = lambda value: "-" if value is None else f"{100 * value:.1f}"
  for metric, first in next(iter(models.values()))["metrics"].items():
    cells = []
    for model in models.values():
      number = model["metrics"][metric]
      low, high = number["interval"] or (None, None)
      cells.append(f"{percent(number['value'])} [{percent(low)}, {percent(high)}]")
    rows.append([metric, *cells, percent(first["chance"])])
  return text_tables.aligned(rows)


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.mining_precision", __doc__)
  add = parser.add_argument
  add("--egoyc2", type=epath.Path, metavar="DIR", help="folder with the four caption files")
  add("--egoexolearn", type=epath.Path, metavar="FILE.csv", help="exo_train.csv")
  add(
    "--models",
    default="",
    metavar="PATH_OR_NAME[,...]",
    help="sentence models, as for data_prep.embed_narrations --model",
  )
  add("--narrations", default="", metavar="FILE.npz[,...]", help="tables of other models")
  add("--texts", type=epath.Path, metavar="FILE.txt", help="write the sentences, and stop")
  add("--output", type=epath.Path, metavar="FILE.json")
  add("--device", default="cpu", metavar="NAME", help="PyTorch's name: cpu (default) or cuda")
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(make_parser(), run, argv)


if __name__ == "__main__":
  sys.exit(main())
