"""A reader of annotations in a format of your own, for `build_dataset`.

  python -m data_prep build_dataset --dataset=examples/own_reader.py --view=ego \
      --annotations=my/segments.json --media=my/videos --output=data/mine

It says which clips there are and where they lie. The command cuts them side by side, goes
on after an interruption, divides them into splits, and lists what is missing. This format
is one JSON file of sentences with times, by video:

  {"kitchen1.mp4": [[3.0, 5.5, "cut the onion", "cut"], [7.1, 9.0, "wash a pan", "wash"]]}
"""

from __future__ import annotations

from collections.abc import Sequence
import json

from etils import epath

from data_prep.sources import clip_specs
from data_prep.sources import source_table
from sum_l_jax import types


def read_segments(
  path: epath.Path, *, media_roots: Sequence[epath.Path], problems: clip_specs.Problems
) -> clip_specs.Annotations:
  """Reads the file: a clip for each sentence, with the verb as its label."""
  videos = json.loads(path.read_text(encoding="utf-8"))
  verbs = tuple(sorted({verb for rows in videos.values() for *_, verb in rows}))
  clips = []
  for name, rows in videos.items():
    for number, (start, stop, sentence, verb) in enumerate(rows):
      clip_id, where = f"{name}_{number}", f"{path.name}, {name}, segment {number}"
      with problems.of(clip_id, where):  # Stops here, or notes it with --on_error=skip.
        file = clip_specs.check_inside(name, "the video's name", where)
        found = [root / file for root in media_roots if (root / file).exists()]
        if not found:
          raise clip_specs.missing(name, where, f"no {name}.", media_roots, "Give its folder with")
        clips.append(
          clip_specs.ClipSpec(
            clip_id=clip_id,
            video_id=name,
            media=found[0],
            start_seconds=start,
            stop_seconds=stop,
            narration=sentence,
            labels={"verb": (verbs.index(verb),)},
            where=where,
          )
        )
  tasks = {"verb": types.Task("verb", types.SOFTMAX, verbs)}
  return clip_specs.Annotations(clips, tasks, files=(path,))


SOURCE = source_table.Source(read=read_segments, view=None, defaults={})
