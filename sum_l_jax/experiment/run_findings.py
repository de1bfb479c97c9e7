"""What is found before the first step: mistakes end the run, doubts are told.

A split that isn't there would otherwise end a run after its training, and data from
which nothing can be learnt would train for hours without a word. What is found is
logged once and written into the workdir, so that the run's report begins with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json

from absl import logging
from etils import epath

from sum_l_jax import build_data
from sum_l_jax import build_features
from sum_l_jax import loss_options
from sum_l_jax import types
from sum_l_jax.config import durations
from sum_l_jax.config.schema import EXO_STAGE
from sum_l_jax.config.schema import JOINT_STAGE
from sum_l_jax.config.schema import Settings
from sum_l_jax.data import data_rules
from sum_l_jax.data import finding
from sum_l_jax.data import records
from sum_l_jax.data import shards
from sum_l_jax.data.finding import Finding
from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line
from sum_l_jax.system import run_files
from sum_l_jax.system import storage

_ALIGNED = (*loss_options.SELECTING_KINDS, "graded")
# The fields that name splits of the ego data set.
_SPLITS = ("eval.splits", "eval.during_split")


@dataclasses.dataclass(frozen=True)
class _File:
  findings: tuple[Finding, ...]


def examine(settings: Settings) -> list[Finding]:
  """Opens all that a training and its evaluation will read; reads no video.

  Args:
    settings: resolved settings.

  Returns:
    What makes one doubt that the training learns, or that its scores mean much.

  Raises:
    FileNotFoundError, ValueError: something is missing, or belongs to other data;
      an evaluated split isn't there.
  """
  found: list[Finding] = []
  asked, settings = settings, build_data.without_idle_stage(settings)
  if settings is not asked:
    start = repr(settings.init.exo) if settings.init.exo else "random weights"
    text = (
      "Stage one is left out, for it trains on labels, and these clips have captions alone. The"
      f" joint stage learns from the captions. The exo encoder starts from {start}."
    )
    found.append(Finding.warning("stage one", text, dataset=", ".join(settings.exo.datasets)))
  data = {stage: build_data.open_data(settings, stage) for stage in settings.stages}
  splits: dict[str, records.ClipDataset] = {}
  if JOINT_STAGE in settings.stages:
    splits = {
      split: _open_split(settings, field, split)
      for field in _SPLITS
      for split in _named(settings, field)
    }
  evaluated = [splits[split] for split in settings.eval.splits] if splits else []
  needed: list[shards.Shards] = [files for of_stage in data.values() for files in of_stage.files]
  stores = build_features.find_stores(settings, types.EGO, evaluated, training=False)
  needed += [source.shards for source in stores or evaluated]
  for files in needed:
    files.check_files()
  found += [f for stage, of_stage in data.items() for f in _of_stage(settings, stage, of_stage)]
  if JOINT_STAGE in settings.stages:
    found += _of_evaluation(settings, splits)
  else:
    found += _of_pools_evaluation(settings, data[EXO_STAGE])
  # Both stages may look at the same pools.
  return list(dict.fromkeys(f for f in found if f.severity != finding.OK))


def tell(findings: Sequence[Finding], workdir: epath.Path) -> None:
  """Logs what was found, and writes it for the report."""
  for found in findings:
    logging.warning("%s", as_text(found))
  path = workdir / run_files.FINDINGS
  rows = [{**dataclasses.asdict(f), "clips": list(f.clips[: finding.MOST_CLIPS])} for f in findings]
  text = json.dumps({"findings": rows}, indent=1, ensure_ascii=False)
  storage.write_text(path, text + "\n")


def read(workdir: epath.Path) -> list[str]:
  """The sentences that `tell` wrote; none for a run that has no such file.

  Raises:
    ValueError: the file is damaged.
  """
  path = workdir / run_files.FINDINGS
  if not storage.is_file(path):
    return []
  mend = "Run the same command again to write it again."
  content = checked_json.read(path, checked_json.Object, mend=mend)
  try:
    return list(map(as_text, checked_json.check(content, _File).findings))
  except checked_json.JsonError as error:
    raise ValueError(f"{str(path)!r} is damaged: {error}. {mend}") from error


def as_text(found: Finding) -> str:
  """What was found, as one paragraph."""
  where = ", ".join(filter(None, [found.dataset, found.split and f"split {found.split!r}"]))
  return f"{where}: {found.message}" if where else found.message


def _named(settings: Settings, field: str) -> tuple[str, ...]:
  """The splits that a field names."""
  if field == "eval.splits":
    return tuple(settings.eval.splits)
  return tuple(filter(None, [settings.eval.during_split]))


def _open_split(settings: Settings, field: str, split: str) -> records.ClipDataset:
  """Opens a split that is to be evaluated.

  Raises:
    ValueError: there is none of this name.
  """
  folder = settings.ego.dataset
  there = sorted(records.read_card(folder)["splits"])
  if split not in there:
    raise ValueError(
      f"config.{field} names {split!r}{command_line.close_match(split, there)}, but the ego data"
      f" set {folder!r} has no split {split!r}; it has {there}. Name one of these. To hold out"
      " clips, build it with --validation_share or --validation_parts; to train without evaluation,"
      ' give --config.eval.splits="()" --config.eval.during_split="".'
    )
  return records.ClipDataset(folder, split)


def _of_stage(settings: Settings, stage: str, data: build_data.StageData) -> Iterator[Finding]:
  section = settings.stage(stage)
  clock = durations.Clock(data.num_clips, section.batch_size)
  yield from data_rules.check_duration(
    stage,
    clips=data.num_clips,
    batch_size=section.batch_size,
    total=section.total,
    steps=clock.steps(section.total, f"{stage}_stage.total"),
  )
  weights = settings.loss.weights
  classified = {types.EGO: weights.ego_cls, types.EXO: stage == EXO_STAGE or weights.exo_cls}
  for view, pools in data.pools.items():
    for pool in pools if classified[view] else ():
      yield from _of(pool, data_rules.check_variety(pool))
      yield from _of(pool, data_rules.check_unlabelled_clips(pool))
      if not pool.labelled:
        text = "Its clips have no labels, so that no class is learnt from them."
        if stage == JOINT_STAGE:
          text += " Their narrations align them with others."
        yield from _of(pool, [Finding.warning("labels", text, count=len(pool), split=pool.split)])
  if stage == JOINT_STAGE:
    yield from _of_alignment(settings, data)


def _of_alignment(settings: Settings, data: build_data.StageData) -> Iterator[Finding]:
  loss = settings.loss
  if data.pairs is not None and loss.weights.ego_exo and loss.cross_view in _ALIGNED:
    cosines = data.pairs.similarity[data.pairs.ego_rows, 0]
    for found in data_rules.check_pairs(cosines, loss.threshold):
      yield dataclasses.replace(found, dataset=settings.pairs.table)
  if data.narrations is None:
    return
  for pools in data.pools.values():
    texts = [text for pool in pools for text in pool.moments.narrations]
    for found in data_rules.check_narrations_differ(texts):
      # What is masked is no negative; where all are alike, that leaves nothing.
      if not loss.mask_duplicates or found.count == len(texts):
        yield from _of(pools[0], [found])


def _of_evaluation(
  settings: Settings, splits: Mapping[str, records.ClipDataset]
) -> Iterator[Finding]:
  if not settings.eval.splits:
    yield Finding.warning(
      "evaluation",
      "config.eval.splits is empty, so that nothing says how well this run learns. Hold out clips"
      " when you build the ego data set, with --validation_share=0.1 or --validation_parts=0.2.",
      dataset=settings.ego.dataset,
    )
  for split, data in splits.items():
    if not data.labelled:
      yield from _of(
        data,
        [
          Finding.warning(
            "evaluation",
            "The clips have no labels: they are predicted, and not scored.",
            count=len(data),
            split=split,
          )
        ],
      )
      continue
    yield from _of(data, data_rules.check_unlabelled_clips(data))


def _of_pools_evaluation(settings: Settings, data: build_data.StageData) -> Iterator[Finding]:
  """Says it where stage one is all that a run does, and no pool can be evaluated."""
  split = settings.eval.during_split
  there = sorted(
    {name for pool in data.exo for name in records.read_card(pool.directory)["splits"]}
  )
  if split and split not in there:
    yield Finding.warning(
      "evaluation",
      f"config.eval.during_split names {split!r}{command_line.close_match(split, there)}, which no"
      f" exo pool has; there are {there}. So nothing says how well this run learns.",
      dataset=", ".join(settings.exo.datasets),
    )


def _of(data: records.ClipDataset, found: Iterator[Finding] | Sequence[Finding]) -> Iterator:
  """The findings, as those of a data set."""
  for one in found:
    yield dataclasses.replace(one, dataset=str(data.directory))
