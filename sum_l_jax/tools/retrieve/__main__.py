"""Example queries and the clips they find, as a page to look at.

  python -m sum_l_jax.tools.retrieve --checkpoint=runs/demo --number=12 \\
      --queries=data/toy_kitchen/ego:test --keys=data/toy_kitchen/exo:train
  python -m sum_l_jax.tools.retrieve --checkpoint=runs/demo --text="cut tomato" \\
      --keys=data/toy_kitchen/ego:test --output=text.html

One HTML file with the middle frame of each clip, its narration, the cosine, and
whether verb and noun are the same, by name. A data set's own view picks the
encoder. Texts must be in the narration table of the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import pathlib
import sys

from sum_l_jax.system import command_line


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m sum_l_jax.tools.retrieve",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--checkpoint", required=True, help="workdir, checkpoint folder or .npz file")
  add("--keys", required=True, metavar="DIR:SPLIT", help="what is searched")
  add("--queries", default="", metavar="DIR:SPLIT", help="clips to query with")
  add("--number", type=int, default=12, help="of queries, evenly spaced (12)")
  add("--ids", default="", metavar="ID,...", help="these clips in their place")
  add(
    "--text",
    action="append",
    default=[],
    metavar="TEXT",
    help="a narration to query with; may be given several times",
  )
  add("--narrations", default="", metavar="FILE.npz", help="of --text, in place of the run's own")
  add("--top", type=int, default=5, help="keys a query (5)")
  add("--output", type=pathlib.Path, default=pathlib.Path("retrieval.html"), metavar="FILE.html")
  add("--clips", type=int, default=1, help="temporal views of a clip (1)")
  add("--crops", type=int, default=1, help="spatial views, 1 or 3 (1)")
  add("--batch_size", type=int, default=16, help="test views at a time (16)")
  add("--num_threads", type=int, default=2, help="that read and decode (2)")
  return parser


def _check(options: argparse.Namespace) -> None:
  if not options.queries and not options.text:
    raise ValueError("Give --queries=DIR:SPLIT to query with clips, --text=TEXT, or both.")
  if options.ids and not options.queries:
    raise ValueError("--ids needs --queries=DIR:SPLIT, where the clips are.")
  if options.top < 1:
    raise ValueError(f"--top must be 1 or more, got {options.top}.")
  if not options.output.parent.is_dir():
    raise ValueError(f"--output: there is no folder {str(options.output.parent)!r}.")


def _run(options: argparse.Namespace) -> str:
  from sum_l_jax.checkpoint import weight_files
  from sum_l_jax.evaluation.retrieval import embedding
  from sum_l_jax.tools.retrieve import retrieval_examples
  from sum_l_jax.tools.retrieve import retrieval_page

  _check(options)
  weights = weight_files.read_weights(options.checkpoint)
  key_clips = embedding.open_dataset(options.keys)
  if options.text:
    table, where = retrieval_examples.load_narrations(weights, options.narrations)
  if options.queries:
    dataset = embedding.open_dataset(options.queries)
    rows = retrieval_examples.choose(
      dataset, number=options.number, ids=list(filter(None, options.ids.split(",")))
    )
  embedder = embedding.Embedder(
    weights,
    clips=options.clips,
    crops=options.crops,
    batch_size=options.batch_size,
    num_threads=options.num_threads,
  )
  keys = retrieval_examples.embed_keys(embedder, key_clips)
  queries = []
  if options.text:
    queries += retrieval_examples.text_queries(options.text, table, where, keys, top=options.top)
  if options.queries:
    queries += retrieval_examples.clip_queries(embedder, dataset, rows, keys, top=options.top)
  source = " and ".join(["text"] * bool(options.text) + [options.queries] * bool(options.queries))
  page = retrieval_page.render(
    f"Retrieval: {source} to {options.keys}", _intro(options, weights, keys, queries), queries
  )
  options.output.write_text(page, encoding="utf-8")
  return f"wrote {options.output}: {len(queries)} queries, the best of {len(keys.rows)} keys"


def _intro(options, weights, keys, queries) -> list[str]:
  """What stands above the queries."""
  right = sum(bool(q.hits) and q.hits[0].all_same for q in queries)
  at = f" at step {weights.step}" if weights.step is not None else ""
  return [
    f"Checkpoint {options.checkpoint}{at}. Each query is compared with"
    f" {len(keys.rows):,} clips by the cosine of their embeddings, and the"
    f" best {options.top} are shown.",
    f"{right} of {len(queries)} queries have a first key that is the same in"
    " everything compared; such keys have a double frame. A few queries are"
    " examples, no measurement: for that, set the config field"
    " eval.retrieval.",
  ]


def main(arguments: Sequence[str] | None = None) -> int:
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
