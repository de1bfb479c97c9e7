"""A table of the data sets that `build_dataset` reads.

A data set in a format of its own is read by a Python file, `--dataset=my_reader.py`, that
has a `Source` called SOURCE (docs/library.md has an example).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from etils import epath

from data_prep.clips import clip_dataset
from data_prep.sources import charades_ego
from data_prep.sources import clip_specs
from data_prep.sources import ego2exo
from data_prep.sources import ego_exo4d
from data_prep.sources import egoexolearn_source
from data_prep.sources import egtea
from data_prep.sources import epic_kitchens
from data_prep.sources import keystep_clips
from data_prep.sources import lemma
from data_prep.sources import lemma_narration
from data_prep.sources import manifest
from data_prep.sources import question_clips
from data_prep.sources import source_pages
from data_prep.sources import take_cameras
from data_prep.sources import youcook2
from sum_l_jax import types
from sum_l_jax.evaluation.benchmarks import caption_files
from sum_l_jax.evaluation.benchmarks import egomcq
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import python_files
from sum_l_jax.system import storage

EPIC55 = epic_kitchens.EPIC55.name
MANIFEST = "manifest"


def _folder(video_id: str) -> str:
  """The folder that a video lies in."""
  return video_id.rpartition("/")[0]


def _participant(video_id: str) -> str:
  """The participant of a video of EPIC-KITCHENS: P01 of P01_01."""
  return video_id.partition("_")[0]


@dataclasses.dataclass(frozen=True)
class Source:
  """How one data set is read.

  Attributes:
    read: reader of its annotations, called with their path, `media_roots`,
      `problems` and the options below.
    view: "ego" or "exo"; None where the user must say.
    about: what TFDS shows of it.
    group: participant or folder of a video, by its id.
    defaults: options of the command beyond those that every data set has, with
      the value of one that isn't given.
    views: whether the reader is told the view.
    identifies: options that change what is built, and are kept in its metadata.
  """

  read: Callable[..., clip_specs.Annotations]
  view: str | None
  defaults: Mapping[str, Any]
  about: clip_dataset.About | None = None
  group: Callable[[str], str] = _folder
  views: bool = False
  identifies: tuple[str, ...] = ()


def _epic(release: epic_kitchens.Release) -> Source:
  read = functools.partial(epic_kitchens.read_annotations, release=release)
  return Source(
    read,
    types.EGO,
    {"class_lists": None, "test_sets": False},
    about=source_pages.PAGES[release.name],
    group=_participant,
  )


def _captions(name: str, view: str) -> Source:
  read = functools.partial(youcook2.read_annotations, dataset=name)
  return Source(read, view, {}, about=source_pages.PAGES[name], group=lambda video_id: "")


SOURCES: Mapping[str, Source] = {
  **{name: _epic(r) for name, r in epic_kitchens.RELEASES.items()},
  "charades_ego": Source(
    charades_ego.read_annotations,
    types.EGO,
    {
      "class_lists": None,
      "narration": charades_ego.NARRATIONS[0],
      "window": charades_ego.WINDOW_SECONDS,
      "examples": charades_ego.VIDEOS,
    },
    about=source_pages.PAGES["charades_ego"],
    group=lambda video_id: "",
    views=True,
    identifies=("narration", "window", "examples"),
  ),
  "lemma": Source(
    lemma.read_annotations,
    types.EXO,
    {"narration": lemma_narration.TEMPLATES},
    about=source_pages.PAGES["lemma"],
    identifies=("narration",),
  ),
  "egtea": Source(
    egtea.read_annotations,
    types.EGO,
    {},
    about=source_pages.PAGES["egtea"],
    group=lambda video_id: video_id.partition("-")[0],
  ),
  **{name: _captions(name, view) for name, view in caption_files.VIEWS.items()},
  "egoexo4d": Source(
    ego_exo4d.read_annotations,
    types.EGO,
    {
      "examples": ego_exo4d.KEYSTEPS,
      "narration": ego_exo4d.NARRATIONS[0],
      "cameras": take_cameras.BEST,
      "subjects": ego_exo4d.SUBJECTS[0],
      "window": ego_exo4d.WINDOW_SECONDS,
      "window_rule": ego_exo4d.FIXED,
      "unpaired": False,
    },
    about=source_pages.PAGES["egoexo4d"],
    group=lambda video_id: "",
    views=True,
    identifies=(
      *("examples", "narration", "cameras", "subjects", "window", "window_rule", "unpaired"),
    ),
  ),
  "egoexo4d_keysteps": Source(
    keystep_clips.read_annotations,
    types.EGO,
    {"cameras": take_cameras.BEST, "test_sets": False, "unpaired": False},
    about=source_pages.PAGES["egoexo4d"],
    group=lambda video_id: "",
    views=True,
    identifies=("cameras", "unpaired"),
  ),
  "ego2exo": Source(
    ego2exo.read_annotations,
    types.EGO,
    {},
    about=source_pages.PAGES["egoexo4d"],
    group=lambda video_id: "",
    views=True,
  ),
  egoexolearn_source.NAME: Source(
    egoexolearn_source.read_annotations,
    None,
    {
      "class_lists": None,
      "narration": egoexolearn_source.SENTENCE,
      "hold_out": egoexolearn_source.SEGMENTS,
      "span": egoexolearn_source.ACTION,
    },
    about=source_pages.PAGES[egoexolearn_source.NAME],
    group=lambda video_id: "",
    views=True,
    identifies=("narration", "hold_out", "span"),
  ),
  egomcq.PROTOCOL.name: Source(
    question_clips.read_egomcq,
    types.EGO,
    {},
    about=source_pages.PAGES[egomcq.PROTOCOL.name],
    group=lambda video_id: "",
  ),
  MANIFEST: Source(
    manifest.read_annotations,
    None,
    {"class_lists": None, "multi_label": "", "cut_seconds": None},
    identifies=("cut_seconds",),
  ),
}
# Name of the source in a Python file.
_OWN = "SOURCE"
# Arguments of the readers that have another name than the option.
_KEYWORDS = {"window": "window_seconds"}


def is_own(dataset: str) -> bool:
  """Whether --dataset names a Python file with a reader."""
  return dataset.endswith(".py")


def name_of(dataset: str) -> str:
  """What a data set is called: the table's name, or that of the reader's file."""
  return epath.Path(dataset).stem if is_own(dataset) else dataset


def find(dataset: str) -> Source:
  """The source of that name, or in that Python file.

  Raises:
    ValueError: there is no such file, or no source in it.
  """
  return _read_own(dataset) if is_own(dataset) else SOURCES[dataset]


@functools.cache
def _read_own(dataset: str) -> Source:
  module = python_files.load(dataset, "--dataset")
  source = getattr(module, _OWN, None)
  if not isinstance(source, Source):
    raise ValueError(
      f"{dataset} must define {_OWN} = source_table.Source(read=..., view=..., defaults={{}}), got"
      f" {source!r}. examples/own_reader.py is such a file."
    )
  return source


def is_given(args: argparse.Namespace, name: str) -> bool:
  """Whether an option was typed; a number that is 0 was."""
  value = getattr(args, name)
  return value is not None and value is not False and value != ""


def options(args: argparse.Namespace) -> dict[str, Any]:
  """The options of the chosen data set, as given or by default.

  Raises:
    ValueError: an option of another data set is given.
  """
  source = find(args.dataset)
  every = sorted({name for s in SOURCES.values() for name in s.defaults})
  for name in every:
    if name not in source.defaults and is_given(args, name):
      fitting = [n for n, s in SOURCES.items() if name in s.defaults]
      raise ValueError(
        f"--{name} is for --dataset={' or '.join(fitting)}, not for {args.dataset}. Leave it out."
      )
  return {
    name: getattr(args, name) if is_given(args, name) else default
    for name, default in source.defaults.items()
  }


def view(args: argparse.Namespace) -> str:
  """The view of the clips: the one given, or that of the data set.

  Raises:
    ValueError: none is given, and the data set has none of its own; or the data set
      has one view alone, and it is the other one.
  """
  source = find(args.dataset)
  chosen = args.view or source.view
  if source.view is not None and not source.views and chosen != source.view:
    raise ValueError(
      f"--dataset={args.dataset} has clips of the view {source.view} alone, and --view={chosen}."
      " Leave --view out."
    )
  if chosen is None:
    raise ValueError(
      f"--dataset={args.dataset} needs --view=ego (first person) or --view=exo (third person)."
    )
  return chosen


def read(args: argparse.Namespace, problems: clip_specs.Problems) -> clip_specs.Annotations:
  """Reads the annotations that the command names.

  Args:
    args: options of `build_dataset`.
    problems: what to do with a row that can't be used.

  Raises:
    FileNotFoundError: a folder of --media isn't there.
    ValueError: an option of another data set is given; or as the reader says.
  """
  roots = [addresses.path(root, what="--media") for root in command_line.names(args.media)]
  for root in roots:
    if not storage.is_dir(root):
      raise FileNotFoundError(f"--media names {str(root)!r}, which is no folder.")
  given = args.annotations
  source = find(args.dataset)
  keywords = {_KEYWORDS.get(k, k): v for k, v in options(args).items()}
  if "multi_label" in keywords:
    keywords["multi_label"] = command_line.names(keywords["multi_label"])
  if source.views:
    keywords["view"] = view(args)
  return source.read(
    given,
    media_roots=roots or [given if storage.is_dir(given) else given.parent],
    problems=problems,
    **keywords,
  )


def metadata(args: argparse.Namespace) -> dict[str, object]:
  """Options that tell two builds of the same files apart."""
  chosen = options(args)
  return {name: chosen[name] for name in find(args.dataset).identifies}
