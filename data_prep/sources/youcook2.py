"""Reads EgoYC2 and YouCook2: steps of recipes, from both sides of the camera.

The sentence of a step is its narration, its span is the clip, and the type of the
dish is its only label (`recipe`, 89 classes in both views), so that first-person
clips can be trained. The official training files train, the official evaluation
files validate. `sum_l_jax/evaluation/benchmarks/caption_files.py` reads the files
and says what they hold.
"""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from data_prep.sources import clip_specs
from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import caption_files
from sum_l_jax.system import progress

TASK = "recipe"

# Folders of the downloader of YouCook2, whose splits are others than those of EgoYC2.
_DOWNLOADED = ("training", "validation", "testing")


def read_annotations(
  path: epath.Path,
  *,
  dataset: str,
  media_roots: Sequence[epath.Path],
  problems: clip_specs.Problems | None = None,
) -> clip_specs.Annotations:
  """Reads the caption files.

  Args:
    path: their folder, or the file of one split; see `caption_files.find_files`.
    dataset: "egoyc2" or "youcook2".
    media_roots: folders with `<video id>.mp4` (or another kind of video); those of
      YouCook2 may lie in `<split>/<recipe type>/`, as its downloader puts them.
    problems: what to do with a step whose video is missing; None raises.

  Returns:
    One clip a step, in the order of the files.

  Raises:
    FileNotFoundError: a caption file or a video is missing.
    ValueError: a caption file is damaged, or a video is in both splits.
  """
  problems = problems or clip_specs.Problems()
  task = types.Task(TASK, types.SOFTMAX, caption_files.RECIPES)
  classes = {name: number for number, name in enumerate(task.class_names)}
  files = caption_files.find_files(path, dataset)
  split_of: dict[str, str] = {}
  places: dict[str, epath.Path] = {}
  clips = []
  for split, file in files.items():
    steps = caption_files.read_steps(file)
    for step in progress.Progress(f"{file.name}: steps read", steps, unit="step"):
      if split_of.setdefault(step.video_id, split) != split:
        raise ValueError(
          f"{step.where}: the video is in {files[split_of[step.video_id]].name} as well. Take both"
          f" files as they were released ({caption_files.RELEASE})."
        )
      with problems.of(step.clip_id, step.where):
        if step.video_id not in places:
          places[step.video_id] = _find(step, dataset, media_roots)
        clips.append(
          clip_specs.ClipSpec(
            clip_id=step.clip_id,
            video_id=step.video_id,
            media=places[step.video_id],
            start_seconds=step.start_seconds,
            stop_seconds=step.stop_seconds,
            narration=step.sentence,
            labels={TASK: (classes[step.recipe],)},
            where=step.where,
            split=split,
          )
        )
  return clip_specs.Annotations(clips, {TASK: task}, tuple(files.values()))


def _find(step: caption_files.Step, dataset: str, roots: Sequence[epath.Path]) -> epath.Path:
  """The video of a step."""
  video = clip_specs.check_inside(step.video_id, "the video's id", step.where)
  layouts = [video]
  if dataset == "youcook2":
    layouts += [f"{split}/{step.recipe}/{video}" for split in _DOWNLOADED]
  places = {layout: [layout] for layout in layouts}
  return clip_specs.find_media(video, roots, step.where, frames={}, videos=places)
