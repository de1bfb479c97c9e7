r"""Shows example queries and the clips that they find, on a page to look at.

  python -m sum_l_jax.tools.retrieve --checkpoint=runs/demo --number=12 \
      --queries=data/toy_kitchen/ego:test --keys=data/toy_kitchen/exo:train
  python -m sum_l_jax.tools.retrieve --checkpoint=runs/demo --text="cut tomato" \
      --keys=data/toy_kitchen/ego:test --output=text.html
  python -m sum_l_jax.tools.retrieve --workdir=runs/demo

Writes one HTML file in which each clip plays beside its narration, the cosine, and
whether verb and noun are the same, by name. A data set's own view picks the encoder.
Any sentence can be searched with: those that the narration table of the run lacks are
embedded with its sentence model, which needs the extra data-prep.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import sys

from etils import epath

from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.tools import shared_options


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  command_line.add_run(parser)
  add = parser.add_argument
  keys_help = "data set that is searched (the run's first exo data set)"
  add("--keys", default="", metavar="DIR:SPLIT", help=keys_help)
  queries_help = "data set of clips to query with (without --text, the run's evaluated ego clips)"
  add("--queries", default="", metavar="DIR:SPLIT", help=queries_help)
  add("--number", type=int, default=12, help="number of query clips, evenly spaced (12)")
  add("--ids", default="", metavar="ID,...", help="query clips to take in their place")
  text_help = "a sentence to query with; may be given several times"
  add("--text", action="append", default=[], metavar="TEXT", help=text_help)
  narrations_help = "vectors of --text, in place of the run's own"
  add("--narrations", default="", metavar="FILE.npz", help=narrations_help)
  model_help = "sentence model of new texts, its folder where it was one (that of the table)"
  add("--text_model", default="", metavar="PATH_OR_NAME", help=model_help)
  frames_help = "frames of each clip that play; 1 shows its middle frame"
  add("--frames", type=int, default=12, help=f"{frames_help} (12)")
  add("--top", type=int, default=5, help="number of keys shown for a query (5)")
  add("--output", type=epath.Path, default=epath.Path("retrieval.html"), metavar="FILE.html")
  shared_options.add_embedder(parser)
  return parser


def _run(options: argparse.Namespace) -> str:
  from sum_l_jax.checkpoint import weight_files
  from sum_l_jax.data import clip_selection
  from sum_l_jax.evaluation.retrieval import embedding
  from sum_l_jax.tools import page
  from sum_l_jax.tools.retrieve import retrieval_examples

  if options.ids and options.text and not options.queries:
    raise ValueError("--ids needs --queries=DIR:SPLIT, where the clips are.")
  if options.top < 1:
    raise ValueError(f"--top must be 1 or more, got {options.top}.")
  command_line.check_output(options.output)
  pictures = retrieval_examples.Pictures(frames=options.frames)
  weights = weight_files.read_weights(options.checkpoint)
  if not options.keys:
    options.keys = shared_options.pools(weights.card)[0]
  if not (options.queries or options.text):
    options.queries = shared_options.evaluated_clips(weights.card)
  key_clips = clip_selection.open_dataset(options.keys)
  vectors, clips = None, None
  if options.text:
    vectors = retrieval_examples.text_vectors(
      weights, options.text, options.narrations, options.text_model
    )
  if options.queries:
    dataset = clip_selection.open_dataset(options.queries)
    ids = command_line.names(options.ids)
    rows = clip_selection.choose(dataset, number=options.number, ids=ids)
    clips = clip_selection.subset(dataset, rows)
  embedder = embedding.Embedder(weights, **shared_options.embedder_options(options))
  keys = retrieval_examples.embed_keys(embedder, key_clips, pictures)
  queries = []
  if vectors is not None:
    queries += retrieval_examples.text_queries(options.text, vectors, keys, top=options.top)
  if clips is not None:
    queries += retrieval_examples.clip_queries(embedder, clips, keys, top=options.top)
  source = " and ".join(["text"] * bool(options.text) + [options.queries] * bool(options.queries))
  sections = [
    page.Section(f"query-{number}", f"Query {number}: {query.title}", [query.gallery])
    for number, query in enumerate(queries, start=1)
  ]
  at = f" at step {weights.step}" if weights.step is not None else ""
  compared = [query for query in queries if query.compared]
  right = sum(query.first_is_same for query in compared)
  intro = [
    f"Checkpoint {options.checkpoint}{at}. Each query is compared with {len(keys.rows):,} clips by"
    f" the cosine of their embeddings, and the best {options.top} are shown."
  ]
  if compared:
    intro.append(
      f"{right} of {len(compared)} queries that have labels or a narration of the data set find a"
      " key first that is the same in everything compared; such keys have a double frame."
    )
  intro.append(
    "A few queries are examples, no measurement: for that, set the config field eval.retrieval."
  )
  if options.frames > 1:
    intro.append(
      f"Clips play by themselves, with {options.frames} frames each; where your device asks for"
      f" less motion, they stand still. They take {_size(4 * pictures.num_bytes / 3)} of this page."
    )
  text = page.render(f"Retrieval: {source} to {options.keys}", intro, sections)
  storage.write_text(options.output, text)
  return (
    f"wrote {options.output}: {len(queries)} queries, the best of {len(keys.rows)} keys,"
    f" {_size(len(text.encode()))}"
  )


def _size(count: float) -> str:
  """A number of bytes in words."""
  return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
