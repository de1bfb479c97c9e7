r"""Cuts annotated clips out of videos or frames into one clip data set.

  # EPIC-KITCHENS-55, from the official CSV and frames (or videos):
  python -m data_prep.build_dataset --dataset=epic55 \
      --annotations=EPIC_train_action_labels.csv --media=EPIC_KITCHENS_2018 \
      --output=data/epic55

  # your own third-person videos, listed in a manifest:
  python -m data_prep.build_dataset --dataset=manifest --view=exo \
      --annotations=videos/manifest.csv --output=data/exo

  # a small extract: all clips train, or one video validates
  ... --split=train          ... --validation_videos=P02_01

  # annotations in a format of your own, read by a Python file (docs/library.md)
  python -m data_prep.build_dataset --dataset=examples/own_reader.py --view=ego \
      --annotations=my/segments.json --media=my/videos --output=data/mine

  # the clips of a prepared TFDS data set
  python -m data_prep.build_dataset --dataset=tfds:ucf101/2.0.0@tensorflow_datasets \
      --view=exo --fps=25 --output=data/ucf101

  # before cutting: what is there and what is missing, and the space it takes
  ... --list

  # download in parts: what is there now; the same command later adds the rest
  ... --on_error=skip

  # on many machines: each does a part, then one puts the parts together
  ... --part=3/40          ... --merge=40

The output appears complete or not at all. What is built already is kept: the
same command after an interruption goes on where it stopped, and with more media
it adds clips.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import os
import sys
import tempfile
from typing import Any

from etils import epath

from data_prep.clips import bucket_build
from data_prep.clips import clip_dataset
from data_prep.clips import clip_parts
from data_prep.clips import clip_reader
from data_prep.clips import clip_shards
from data_prep.clips import cut_clips
from data_prep.clips import growing
from data_prep.clips import stock
from data_prep.sources import charades_ego
from data_prep.sources import clip_specs
from data_prep.sources import ego_exo4d
from data_prep.sources import egoexolearn_source
from data_prep.sources import lemma_narration
from data_prep.sources import source_table
from data_prep.sources import split_rules
from data_prep.sources import take_cameras
from data_prep.sources import tfds_source
from sum_l_jax import types
from sum_l_jax.data import frame_rates
from sum_l_jax.data import records
from sum_l_jax.system import addresses
from sum_l_jax.system import buckets
from sum_l_jax.system import command_line
from sum_l_jax.system import lease
from sum_l_jax.system import processes
from sum_l_jax.system import storage
from sum_l_jax.system import work_parts
from sum_l_jax.video import jpeg

SKIPPED_FILE = "skipped.csv"
# The annotations of one's own videos, by which a folder may stand for them.
MANIFEST = "manifest.csv"
_TFDS = ("video", "narration", "labels", "id")
# A TFDS data set is decoded in its order, by one process.
_NOT_FOR_TFDS = (
  *("annotations", "media", "split", "class_lists", "narration", "window", "list"),
  *("examples", "window_rule", "cameras", "subjects", "unpaired", "part", "merge"),
  *("hold_out", "span", "cut_seconds", "validation_parts"),
)


@dataclasses.dataclass(frozen=True)
class Result:
  """What a build did.

  Attributes:
    added: new clips, by split; empty where the data set was complete.
    videos: number of videos that they are of.
    before: fingerprint of each split before; empty for a new data set.
  """

  added: Mapping[str, int]
  videos: int
  before: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Request:
  """What a data set is to be.

  Attributes:
    name: name of the data set.
    view: view of the data set.
    source: the clips.
    rule: rule by which they are divided into splits.
    output: how they are stored.
    problems: what to do with a clip that can't be used; those left out are
      listed in `skipped.csv`.
    metadata: JSON values that identify the sources; options are added here.
    about: what TFDS shows of the source.
    processes: number of processes that cut side by side.
  """

  name: str
  view: str
  source: clip_specs.Annotations
  rule: split_rules.SplitRule
  output: clip_reader.Output
  problems: clip_specs.Problems
  metadata: Mapping[str, Any]
  about: clip_dataset.About = dataclasses.field(default_factory=clip_dataset.About)
  processes: int = 1

  def alone(self, directory: epath.Path) -> contextlib.AbstractContextManager[None]:
    """Holds the lease on a folder; see `clip_dataset.alone`."""
    return clip_dataset.alone(directory, what=f"build_dataset, {self.name} ({self.view})")


@dataclasses.dataclass(frozen=True)
class _Plan:
  """What is there, and what is to be cut.

  Attributes:
    existing: the data set that is there.
    card: card of the data set that will be there.
    wanted: clips to cut, by split.
  """

  existing: growing.Existing
  card: Mapping[str, Any]
  wanted: Mapping[str, Sequence[clip_specs.ClipSpec]]

  @classmethod
  def make(cls, directory: epath.Path, request: Request) -> _Plan:
    """Compares the data set that is there with what it is to be; see `build_dataset`."""
    source, output = request.source, request.output
    existing = growing.Existing.read(directory)
    divided: split_rules.Splits = {}
    if source.clips or not any(source.unlabelled.values()):
      divided = split_rules.split_clips(
        source.clips,
        request.rule,
        missing=request.problems.missing,
        built=existing.video_splits,
      )
    divided |= {split: list(c) for split, c in source.unlabelled.items()}
    card = clip_dataset.make_card(
      name=request.name,
      view=request.view,
      tasks=source.tasks,
      splits=divided,
      metadata={
        **request.metadata,
        **source.metadata,
        **dataclasses.asdict(output),
        "jpeg_quality": jpeg.JPEG_QUALITY,
        "split": dataclasses.asdict(request.rule),
      },
      unlabelled=tuple(source.unlabelled),
    )
    card = existing.grown_card(card, divided, free=tuple(source.metadata))
    wanted = {
      split: [spec for spec in specs if spec.clip_id not in existing.clips]
      for split, specs in divided.items()
    }
    return cls(existing, card, wanted)


def build_dataset(directory: epath.Path, request: Request) -> Result:
  """Divides the clips into splits, cuts them, and writes or adds them.

  What a data set of the same source and options has already is kept: clips,
  their order, and the split of their videos. New clips follow.

  Args:
    directory: the folder to write.
    request: what it is to hold.

  Raises:
    FileNotFoundError: see `cut_clips.read_clips`.
    ValueError: see `cut_clips.read_clips`, `split_rules.split_clips` and
      `growing.Existing.grown_card`; or another process builds the data set.
  """
  with request.alone(directory):
    _check_free(directory)
    clip_dataset.recover(directory)
    plan = _Plan.make(directory, request)
    # Finished groups lie beside the result; an interrupted build goes on from them.
    finished = clip_dataset.parts_folder(directory)
    new: dict[str, list[clip_shards.Packed]] = {}
    uploaded: dict[str, clip_shards.Written] = {}
    if addresses.is_remote(directory):
      uploaded = _cut_into_bucket(directory, plan, request)
    else:
      new = _cut(directory, plan.wanted, finished, request, request.problems)
    added = {split: len(clips) for split, clips in new.items() if clips}
    added |= {split: len(done.clips) for split, done in uploaded.items() if done.clips}
    before = plan.existing.fingerprints() if added else {}
    if added or not plan.existing.card:
      clip_dataset.put_together(
        directory,
        plan.card,
        [directory] if plan.existing.card else [],
        {split: lambda clips=clips: clips for split, clips in new.items()},
        request.about,
        request.processes,
        uploaded=uploaded,
      )
    lease.clear(finished)
    _write_skipped(directory, request.problems)
    videos = {clip.info.video_id for clips in new.values() for clip in clips}
    videos |= {clip.video_id for done in uploaded.values() for clip in done.clips}
    return Result(added, len(videos), before)


def _cut(
  directory: epath.Path,
  wanted: Mapping[str, Sequence[clip_specs.ClipSpec]],
  finished: epath.Path,
  request: Request,
  problems: clip_specs.Problems,
) -> dict[str, list[clip_shards.Packed]]:
  """Cuts clips into files of the folder `finished`, for a data set in `directory`."""
  _print_estimate(directory, [spec for specs in wanted.values() for spec in specs], request.output)
  return {
    split: list(
      cut_clips.read_clips(
        specs,
        request.output,
        problems,
        tasks=tuple(request.source.tasks),
        label=split,
        folder=finished,
        processes=request.processes,
      )
    )
    for split, specs in wanted.items()
    if specs
  }


def _cut_into_bucket(
  directory: epath.Path, plan: _Plan, request: Request
) -> dict[str, clip_shards.Written]:
  """Cuts clips into shards of a data set in a bucket, by split."""
  wanted, existing = plan.wanted, plan.existing
  _print_estimate(directory, [spec for specs in wanted.values() for spec in specs], request.output)
  build = bucket_build.Build(
    directory,
    request.name,
    tuple(request.source.tasks),
    request.output,
    request.problems,
    request.processes,
  )
  return {
    split: build.cut(split, specs, before=existing.num_shards(split))
    for split, specs in wanted.items()
    if specs
  }


def _write_skipped(directory: epath.Path, problems: clip_specs.Problems) -> None:
  if problems.number:
    problems.write(directory / SKIPPED_FILE)
  else:
    storage.remove(directory / SKIPPED_FILE)


def build_part(directory: epath.Path, request: Request, part: work_parts.Part) -> str:
  """Cuts one part of the clips, beside the data set; says what was done.

  Errors are those of `build_dataset`.
  """
  _check_free(directory)
  plan = _Plan.make(clip_dataset.standing(directory), request)
  work = clip_parts.make_parts(
    directory, plan.card, plan.wanted, request.output, plan.existing.fingerprints()
  )

  def make(items: range, folder: epath.Path) -> dict[str, Any]:
    place = work.place(part)
    problems = clip_specs.Problems(skip=request.problems.skip)
    with clip_parts.finished_groups(place) as finished:
      chosen = clip_parts.choose(plan.wanted, items)
      cut_from = clip_parts.footage(chosen)
      new = _cut(place, chosen, finished, request, problems)
      clip_parts.write(folder, plan.card, new, request.about, request.processes)
    return clip_parts.state(new, problems, cut_from)

  def outdated(made: work_parts.Made) -> bool:
    chosen = clip_parts.choose(plan.wanted, made.items)
    return clip_parts.is_outdated(made, clip_parts.footage(chosen))

  with request.alone(work.place(part)):
    return work.make(part, make, outdated=outdated)


def merge_parts(directory: epath.Path, request: Request, of: int, command: str) -> Result:
  """Puts the parts of a data set together, or adds them to the one that is there.

  Args:
    directory: the folder to write.
    request: what it is to hold; the parts were made with the same.
    of: number of parts.
    command: the command, as it was typed.

  Raises:
    MissingPartsError: see `work_parts.Parts.collect`.
    ValueError: see `build_dataset`.
  """
  with request.alone(directory):
    _check_free(directory)
    clip_dataset.recover(directory)
    plan = _Plan.make(directory, request)
    existing = plan.existing
    before = existing.fingerprints()
    work = clip_parts.make_parts(directory, plan.card, plan.wanted, request.output, before)
    added: Mapping[str, int] = {}
    videos = 0
    if any(plan.wanted.values()):
      made = clip_parts.Cut.read(work.collect(of, command))
      made.report(request.problems)
      added, videos = made.clips, len(made.videos)
      if added or not existing.card:
        folders = ([directory] if existing.card else []) + made.folders
        clip_dataset.put_together(
          directory, plan.card, folders, {}, request.about, request.processes
        )
    work.clear()
    _write_skipped(directory, request.problems)
    return Result(added, videos, before if added else {})


def _print_estimate(
  directory: epath.Path, specs: Sequence[clip_specs.ClipSpec], output: clip_reader.Output
) -> None:
  """Says how much will be cut, before it takes hours and fills a disk."""
  estimate = stock.estimate(specs, output) if specs else None
  if estimate is not None:
    print(estimate.describe(directory), file=sys.stderr)


def _check_free(directory: epath.Path) -> None:
  """Raises ValueError where the folder holds something else."""
  if not storage.exists(directory) or storage.is_file(directory / records.CARD_FILE):
    return
  if clip_dataset.is_unfinished(directory):
    return
  if not storage.is_dir(directory) or storage.names(directory):
    raise ValueError(
      f"--output {str(directory)!r} exists and is no clip data set. Give"
      " another folder, or remove this one."
    )
  storage.remove_tree(directory)


def _dataset(text: str) -> str:
  """Checks the name of a data set."""
  known = text in source_table.SOURCES or source_table.is_own(text)
  if not known and not text.startswith(tfds_source.PREFIX):
    close = command_line.close_match(text, source_table.SOURCES)
    raise argparse.ArgumentTypeError(
      f"invalid choice: {text!r}{close} (choose from {', '.join(source_table.SOURCES)},"
      " tfds:NAME/VERSION@DIR, or a reader of your own, FILE.py)"
    )
  return text


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.build_dataset", __doc__)
  add = parser.add_argument
  add(
    "--dataset",
    required=True,
    type=_dataset,
    metavar="DATASET",
    help=f"{', '.join(source_table.SOURCES)}; tfds:NAME/VERSION@DIR, a prepared TFDS"
    " data set with a video feature; or FILE.py, a reader of your own",
  )
  add(
    "--annotations",
    type=epath.Path,
    metavar="PATH",
    help="the CSV file, or the folder of the official files",
  )
  add(
    "--media",
    metavar="DIR[,DIR...]",
    default="",
    help="folders with frames or videos (default: that of the annotations)",
  )
  add("--output", required=True, type=epath.Path, metavar="DIR")
  add(
    "--view",
    choices=types.VIEWS,
    help="default: that of the data set; a manifest and egoexolearn need it",
  )
  add("--name", help="default: that of --dataset; for a manifest the output folder's")
  add(
    "--split",
    choices=split_rules.RULES,
    help="tbn: the 14 validation videos of EPIC-KITCHENS-55 (its default);"
    " column: as the manifest's column split says (default where it has one);"
    " train: every clip trains; videos, share, parts: see the next options",
  )
  add(
    "--test_sets",
    action="store_true",
    help="epic55, epic100, egoexo4d_keysteps: add the official test sets, whose labels are"
    " not published, to be predicted; --annotations must be the folder",
  )
  add(
    "--validation_videos",
    metavar="ID[,ID...]",
    default="",
    help="these videos validate, all others train",
  )
  add(
    "--validation_share",
    type=float,
    metavar="SHARE",
    help="whole videos, drawn at random, validate until they hold this share of the clips",
  )
  add(
    "--validation_parts",
    type=float,
    metavar="SHARE",
    help="of the clips of a video that have the same labels and narration, the last ones"
    " validate, this share. It says whether a network learns from few videos at all, and nothing"
    " about new ones",
  )
  add("--seed", type=int, default=0, help="seed of --validation_share")
  add(
    "--cut_seconds",
    type=float,
    metavar="SECONDS",
    help="manifest: cut longer clips into equal ones of about this length",
  )
  add(
    "--processes",
    type=int,
    default=processes.cores(),
    help="processes that cut side by side (default: one for each core that may be used)",
  )
  work_parts.add_options(parser)
  add(
    "--scratch",
    type=epath.Path,
    metavar="DIR",
    help="local folder for shards on their way into a bucket, and for videos on their way"
    " out of one (default: that of temporary files, TMPDIR)",
  )
  add(
    "--short_side",
    type=int,
    default=jpeg.SHORT_SIDE,
    metavar="PIXELS",
    help="larger frames are shrunk to it (default: %(default)s, the largest that"
    " training asks for)",
  )
  add(
    "--fps",
    type=float,
    help="frames a second to store (default: that of the official frames, 60"
    " for EPIC-KITCHENS-55; for a manifest each video's own)",
  )
  add(
    "--class_lists",
    type=epath.Path,
    metavar="DIR",
    help="epic55: folder of EPIC_verb_classes.csv and EPIC_noun_classes.csv"
    " (default: beside the annotations); manifest: folder of <label column>.txt,"
    " one class name a line (default: the names that occur, sorted); egoexolearn: folder of"
    " the taxonomies (default: annotations, beside the folders above)",
  )
  add(
    "--multi_label",
    metavar="TASK[,TASK...]",
    default="",
    help="manifest: label columns with any number of labels a clip (a column is"
    " one of them anyway where a cell holds several, separated by ; or |)",
  )
  add(
    "--narration",
    choices=tuple(
      dict.fromkeys(
        (*charades_ego.NARRATIONS, *lemma_narration.RULES, *egoexolearn_source.NARRATIONS)
      )
    ),
    help="charades_ego: the phrases of a clip's classes (default), or the"
    " video's description; lemma: sentences by per-verb templates (default),"
    " or the rule of the authors' release; egoexo4d: what the annotator wrote of a"
    " segment (description, default), or the name of its keystep (classes); egoexolearn: the"
    " sentence (default), the same hand by hand (hands), without the hands (no_hands), in"
    " Chinese, or the names of the classes",
  )
  add(
    "--window",
    type=float,
    metavar="SECONDS",
    help="charades_ego: length of the windows that are narrated (default: 2.625, what"
    " 32 frames at stride 2 span); egoexo4d: length of the clip around the point of"
    " a description (default: 2.1, likewise at 30 frames a second)",
  )
  add(
    "--examples",
    choices=(*charades_ego.EXAMPLES, *ego_exo4d.EXAMPLES),
    help="charades_ego: an epoch of training shows a random span of each video"
    " (videos, default, as the reference), or each window (windows), which are"
    " about ten a video; egoexo4d: keystep segments (default), or atomic descriptions",
  )
  add(
    "--window_rule",
    choices=ego_exo4d.WINDOW_RULES,
    help="egoexo4d: clips of descriptions are as long as --window says (fixed, default), or"
    " longer where their annotator wrote seldom (gap, EgoVLP's rule)",
  )
  add(
    "--cameras",
    choices=take_cameras.CAMERAS,
    help="egoexo4d, egoexo4d_keysteps, of the third person: the camera that shows the moment"
    " best (default), or all",
  )
  add(
    "--subjects",
    choices=ego_exo4d.SUBJECTS,
    help="egoexo4d: descriptions of what anybody does (default), or only the wearer of the camera",
  )
  add(
    "--unpaired",
    action="store_true",
    help="egoexo4d, egoexo4d_keysteps: give each capture to the ego or to the exo data set, by a"
    " hash of its id, so that no moment is seen from both",
  )
  add(
    "--hold_out",
    choices=egoexolearn_source.HOLD_OUTS,
    help="egoexolearn: the official splits, which divide segments (default), or splits of"
    " whole videos (videos) by a rule of ours",
  )
  add(
    "--span",
    choices=egoexolearn_source.SPANS,
    help="egoexolearn: cut the annotated segments (action, default), or the 2 s that end"
    " 1 s before each, from which it is to be anticipated (context)",
  )
  add(
    "--on_error",
    choices=("stop", "skip"),
    default="stop",
    help="skip leaves unusable clips and missing videos out, and lists them in"
    " skipped.csv; the same command adds them once they can be used",
  )
  tfds_fields = {
    "video": "the video feature (default: the only one)",
    "narration": "the feature of the text (default: the class names)",
    "labels": "features of classes, separated by commas (default: all)",
    "id": "the feature of the clips' ids (default: they are counted)",
  }
  for name, text in tfds_fields.items():
    add(f"--tfds_{name}", default="", metavar="FEATURE", help=f"tfds: {text}")
  add(
    "--list",
    action="store_true",
    help="only say what is there, built and missing, per participant or folder",
  )
  return parser


def _split_rule(args: argparse.Namespace, has_column: bool) -> split_rules.SplitRule:
  """Reads the options of the split; those that contradict each other are errors."""
  videos = tuple(command_line.names(args.validation_videos))
  shares = {
    split_rules.SHARE: args.validation_share,
    split_rules.PARTS: args.validation_parts,
  }
  given = [split_rules.VIDEOS] * bool(videos) + [k for k, v in shares.items() if v is not None]
  if len(given) > 1:
    raise ValueError(f"Give --validation_{given[0]} or --validation_{given[1]}, not both.")
  implied = given[0] if given else None
  if implied and args.split not in (None, implied):
    raise ValueError(
      f"--split={args.split} and --validation_{implied} contradict each other. Leave --split out."
    )
  if args.split in (split_rules.VIDEOS, *shares) and not implied:
    raise ValueError(f"--split={args.split} needs --validation_{args.split}=...")
  if args.split == split_rules.COLUMN and not has_column:
    raise ValueError(
      "--split=column needs a column split in the annotations. Add it, or"
      " take --split=train, --validation_videos or --validation_share."
    )
  if implied != split_rules.SHARE:
    command_line.refuse_unread(make_parser(), args, {"seed": "with --validation_share"})
  default = split_rules.COLUMN if has_column else split_rules.TRAIN_ONLY
  if args.dataset == source_table.EPIC55:
    default = split_rules.TBN
  return split_rules.SplitRule(
    implied or args.split or default,
    validation_videos=videos,
    validation_share=shares.get(implied or "") or 0.0,
    seed=args.seed if implied == split_rules.SHARE else 0,
  )


def _use_scratch(folder: epath.Path | None) -> None:
  """Sets where this process, and those that it starts, put temporary files.

  Raises:
    ValueError: the folder is in a bucket.
  """
  if folder is not None:
    place = addresses.local(addresses.absolute(folder))
    storage.make_folder(place)
    os.environ["TMPDIR"] = tempfile.tempdir = str(place)


def build(args: argparse.Namespace) -> None:
  """Runs the command; errors as in `build_dataset`."""
  _use_scratch(args.scratch)
  if args.dataset.startswith(tfds_source.PREFIX):
    _build_from_tfds(args)
    return
  if args.annotations is None:
    raise ValueError(f"--dataset={args.dataset} needs --annotations=PATH.")
  if args.dataset == "manifest":
    args.annotations = storage.file_in(args.annotations, MANIFEST, what="manifest")
  if given := [n for n in _TFDS if getattr(args, f"tfds_{n}")]:
    raise ValueError(f"--tfds_{given[0]} is for --dataset=tfds:NAME/VERSION@DIR. Leave it out.")
  view = source_table.view(args)
  problems = clip_specs.Problems(skip=args.on_error == "skip" or args.list)
  with buckets.listings_kept():
    source = source_table.read(args, problems)
  for text in source.warnings:
    print(f"warning: {text}", file=sys.stderr)
  for text in source.notes:
    print(f"note: {text}", file=sys.stderr)
  output = clip_reader.Output(args.fps, args.short_side)
  if args.list:
    _list(args, source, problems, output)
    return
  if not source.clips and not any(source.unlabelled.values()):
    raise ValueError(
      f"No clip is usable; {problems.number} were skipped. The first"
      f" reason: {problems.first_reason()}"
    )
  rule = _split_rule(args, any(clip.split for clip in source.clips))
  if rule.kind == split_rules.PARTS:
    for text in split_rules.parts_warnings(split_rules.split_clips(source.clips, rule)):
      print(f"warning: {text}", file=sys.stderr)
  request = Request(
    name=args.name or _default_name(args),
    view=view,
    source=source,
    rule=rule,
    output=output,
    problems=problems,
    about=source_table.find(args.dataset).about or clip_dataset.About(),
    processes=args.processes,
    metadata={
      "source": source_table.name_of(args.dataset),
      "annotations": args.annotations.name,
      "annotations_sha256": clip_specs.sha256(source.files),
      **source_table.metadata(args),
    },
  )
  if args.part:
    print(build_part(args.output, request, args.part))
    return
  if args.merge:
    result = merge_parts(args.output, request, args.merge, args.typed)
  else:
    result = build_dataset(args.output, request)
  _print_result(args.output, result, problems)


def _default_name(args: argparse.Namespace) -> str:
  """Name of the data set where none is given."""
  manifest = args.dataset == source_table.MANIFEST
  return args.output.name if manifest else source_table.name_of(args.dataset)


def _build_from_tfds(args: argparse.Namespace) -> None:
  """Writes the clips of a prepared TFDS data set."""
  for name in _NOT_FOR_TFDS:
    if source_table.is_given(args, name):
      raise ValueError(f"--{name} is not for --dataset=tfds:... Leave it out.")
  if args.view is None:
    raise ValueError(
      f"--dataset={args.dataset} needs --view=ego (first person) or --view=exo (third person)."
    )
  if args.fps is None:
    raise ValueError("--dataset=tfds:... needs --fps, the frames a second of its videos.")
  output = clip_reader.Output(args.fps, args.short_side)
  fields = tfds_source.Fields(
    args.tfds_video,
    args.tfds_narration,
    tuple(command_line.names(args.tfds_labels)),
    args.tfds_id,
  )
  source = tfds_source.Source(
    tfds_source.find(args.dataset), fields, fps=args.fps, short_side=output.short_side
  )
  _check_free(args.output)
  existed = storage.is_file(args.output / records.CARD_FILE)
  clip_dataset.write_clip_dataset(
    args.output,
    name=args.name or source.name,
    view=args.view,
    tasks=source.tasks,
    splits=source.splits,
    metadata=source.identity,
    about=source.about,
  )
  added = {} if existed else records.read_card(args.output)["splits"]
  _print_result(args.output, Result(added, 0, {}), clip_specs.Problems())


def _list(
  args: argparse.Namespace,
  source: clip_specs.Annotations,
  problems: clip_specs.Problems,
  output: clip_reader.Output,
) -> None:
  """Says what is there, built and missing."""
  # Another build may be going on: nothing is changed here.
  existing = growing.Existing.read(clip_dataset.standing(args.output))
  group = source_table.find(args.dataset).group
  for line in stock.list_videos(source, problems, existing.clips, group):
    print(line)
  specs = [*source.clips, *(spec for part in source.unlabelled.values() for spec in part)]
  left = [spec for spec in specs if spec.clip_id not in existing.clips]
  estimate = stock.estimate(left, output) if left else None
  count = f"{len(left)} clip{'s' * (len(left) != 1)} to cut"
  print(estimate.describe(args.output) if estimate else count)


def _print_result(directory: epath.Path, result: Result, problems: clip_specs.Problems) -> None:
  card = records.read_card(directory)
  parts = ", ".join(f"{n} {split}" for split, n in card["splits"].items())
  tasks = ", ".join(
    f"{task} ({len(entry['class_names'])} classes)" for task, entry in card["tasks"].items()
  )
  tasks = tasks or "narrations without labels"
  if not result.added:
    done = "kept, nothing to add:" if problems.number else "kept, it is complete:"
  elif result.before:
    done = f"added {sum(result.added.values())} clips of {result.videos} videos to"
  else:
    done = "wrote"
  print(f"{done} {directory}: {parts} clips; {tasks}")
  if result.before:
    for split in result.added:
      now = records.ClipDataset(directory, split).fingerprint
      print(f"  fingerprint of {split}: {result.before.get(split, 'new')} -> {now}")
    print(
      "  Embed the new narrations and mine the pairs again; a run that was"
      " trained on the smaller set does not resume with this one."
    )
  splits = [records.ClipDataset(directory, split) for split in card["splits"]]
  if text := frame_rates.describe(splits):
    print(f"warning: {text}", file=sys.stderr)
  if problems.number:
    rows = problems.number - len(problems.skipped)
    what = [f"{len(problems.missing)} missing videos ({rows} rows)"] * bool(rows)
    what += [f"{len(problems.skipped)} unusable clips"] * bool(problems.skipped)
    print(
      f"skipped {' and '.join(what)}, see {directory / SKIPPED_FILE}. The same command"
      " adds them once they can be used.",
      file=sys.stderr,
    )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  return command_line.run(make_parser(), build, argv)


if __name__ == "__main__":
  sys.exit(main())
