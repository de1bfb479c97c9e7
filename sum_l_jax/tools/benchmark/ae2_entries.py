"""AE2's frame measures, from what the command is given."""

from __future__ import annotations

from sum_l_jax.evaluation.benchmarks import frame_alignment
from sum_l_jax.evaluation.benchmarks import frame_alignment_files
from sum_l_jax.evaluation.benchmarks import protocol
from sum_l_jax.system import storage
from sum_l_jax.tools.benchmark import benchmark_inputs

# The set whose regression gets a time column in the released evaluation.
_TIMED = "pour_liquid"
_BY_SET, _ALWAYS, _NEVER = "by_set", "always", "never"


def _score(inputs: benchmark_inputs.Inputs) -> protocol.Outcome:
  folder, split = inputs.folder, inputs.switches["split"]
  path = folder / frame_alignment_files.LABELS_FILE
  labels = frame_alignment_files.read_labels(path)
  vectors = frame_alignment_files.FrameVectors(inputs.frames_folder)
  read = lambda part: frame_alignment_files.read_videos(folder, part, labels, vectors)
  train, test = read(frame_alignment_files.TRAIN), read(split)
  inputs.about["labels"] = {"file": str(path), "sha256": storage.sha256(path)}
  inputs.about["vectors"] = vectors.about
  wanted = inputs.switches["time_column"]
  timed = wanted == _ALWAYS or (wanted == _BY_SET and folder.name == _TIMED)
  if timed:
    inputs.notes.append("Progression has a time column, 1e-3 times the number of the frame.")
  misread = [v.name for v in (*train, *test) if v.view == "exo" and "ego" in v.name]
  if misread:
    inputs.notes.append(
      f"{len(misread)} exo videos have 'ego' in their name, such as {misread[0]!r}. Here the folder"
      " says the view; the released retrieval takes them for ego."
    )
  return frame_alignment.score(train, test, time_column=timed)


ENTRIES = (
  benchmark_inputs.Benchmark(
    frame_alignment.PROTOCOL,
    annotations="folder of one of AE2's sets, with label.pickle and the lists or folders of videos",
    views=(),
    score=_score,
    frames="folder with a vector for each frame, NAME.npy [frames, D] of each video, in folders"
    " ego and exo or in one",
    switches={
      "split": benchmark_inputs.Switch(
        frame_alignment_files.SPLITS, "the split that is scored; both fit on train"
      ),
      "time_column": benchmark_inputs.Switch(
        (_BY_SET, _ALWAYS, _NEVER),
        "whether progression also gets the number of the frame; by_set: in pour_liquid alone, which"
        " the folder's name says",
      ),
    },
  ),
)
