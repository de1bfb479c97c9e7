"""Reads EGTEA Gaze+: trimmed clips of kitchen actions, one action each.

A line of a split names a clip and the number of its action; the clip is a video
file of its own. The name of the action, in lower case with spaces, is its
narration. `sum_l_jax/evaluation/benchmarks/egtea_accuracy.py` reads the files.
"""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from data_prep.sources import clip_specs
from data_prep.sources import split_rules
from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import egtea_accuracy
from sum_l_jax.system import progress
from sum_l_jax.system import storage

TASK = "action"
# Official files of the first split, on which zero-shot scores are published.
FILES = {split_rules.TRAIN: "train_split1.txt", "test": "test_split1.txt"}

# The official archive unpacks to this folder, which may be the folder of --media.
_MEDIA = ("", "cropped_clips/")


def read_annotations(
  path: epath.Path,
  *,
  media_roots: Sequence[epath.Path],
  problems: clip_specs.Problems | None = None,
) -> clip_specs.Annotations:
  """Reads the official action annotations.

  Args:
    path: folder of the official files, of which the first split is read, or the file
      of one split (`test_split2.txt`), beside which `action_idx.txt` lies.
    media_roots: folders with `<video>/<clip>.mp4`, or with cropped_clips in them.
    problems: what to do with a clip whose file is missing; None raises.

  Returns:
    One clip a line, in the order of the files, with one softmax task, "action".

  Raises:
    FileNotFoundError: an official file or a clip is missing.
    ValueError: a file is damaged, or a clip is in both splits.
  """
  problems = problems or clip_specs.Problems()
  folder = path if storage.is_dir(path) else path.parent
  actions = egtea_accuracy.read_actions(folder)
  names = tuple(name.lower() for name in actions.values())
  files = _files(path)
  seen: dict[str, str] = {}
  clips = []
  for split, file in files.items():
    lines = egtea_accuracy.read_split(file, list(actions))
    for clip in progress.Progress(f"{file.name}: lines read", lines, unit="line"):
      first = seen.setdefault(clip.clip_id, clip.where)
      if first != clip.where:
        raise ValueError(
          f"{clip.where}: clip {clip.clip_id!r} is in {first} as well. Take the official files."
        )
      with problems.of(clip.clip_id, clip.where):
        clips.append(
          clip_specs.ClipSpec(
            clip_id=clip.clip_id,
            video_id=clip.video_id,
            media=_find(clip, media_roots),
            start_seconds=0.0,
            stop_seconds=None,
            narration=names[clip.label],
            labels={TASK: (clip.label,)},
            where=clip.where,
            split=split,
          )
        )
  task = types.Task(TASK, types.SOFTMAX, names)
  return clip_specs.Annotations(clips, {TASK: task}, tuple(files.values()))


def _files(path: epath.Path) -> dict[str, epath.Path]:
  """The file of each split."""
  if storage.is_dir(path):
    return {split: path / name for split, name in FILES.items()}
  split = next((s for s, name in FILES.items() if path.name.startswith(name.partition("_")[0])), "")
  return {split: path}


def _find(clip: egtea_accuracy.ActionClip, roots: Sequence[epath.Path]) -> epath.Path:
  """The file of a clip."""
  name = clip_specs.check_inside(clip.clip_id, "the clip", clip.where)
  places = [f"{folder}{clip.video_id}/{name}" for folder in _MEDIA]
  videos = {place: [place] for place in places}
  return clip_specs.find_media(name, roots, clip.where, frames={}, videos=videos)
