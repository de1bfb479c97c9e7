"""Data sets that are built in parts: checks what may be added to an existing one."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from etils import epath

from data_prep.clips import clip_dataset
from data_prep.sources import clip_specs
from sum_l_jax.data import records
from sum_l_jax.system import command_line
from sum_l_jax.system import storage

_HASH = "annotations_sha256"
# What may differ between two builds into one folder.
_FREE = (_HASH, "annotations")

Specs = Mapping[str, Sequence[clip_specs.ClipSpec]]


@dataclasses.dataclass(frozen=True)
class Existing:
  """A data set that exists already.

  Attributes:
    directory: its folder.
    card: its card.
    clips: split and line of the index of each clip, by id.
  """

  directory: epath.Path
  card: Mapping[str, Any]
  clips: Mapping[str, tuple[str, records.ClipInfo]]

  @classmethod
  def read(cls, directory: epath.Path) -> Existing:
    """Reads it, or says that there is none yet, by a card without splits."""
    if not storage.exists(directory) or clip_dataset.is_unfinished(directory):
      return cls(directory, {}, {})
    return cls(directory, records.read_card(directory), clip_dataset.built_clips(directory))

  @property
  def video_splits(self) -> dict[str, str]:
    """Split of each video."""
    return {clip.video_id: split for split, clip in self.clips.values()}

  def num_shards(self, split: str) -> int:
    """Number of shards of a split that is there; 0 where it isn't."""
    return len(self.card.get("shards", {}).get(split, ()))

  def fingerprints(self) -> dict[str, str]:
    """Fingerprint of each split."""
    return {
      split: records.ClipDataset(self.directory, split).fingerprint
      for split in self.card.get("splits", ())
    }

  def grown_card(
    self, card: Mapping[str, Any], specs: Specs, free: Collection[str] = ()
  ) -> dict[str, Any]:
    """The card of this data set together with more clips of the same source.

    Args:
      card: card of the clips that the command asks for.
      specs: those clips, by split.
      free: keys of the metadata that may differ; the new ones are taken.

    Raises:
      ValueError: the folder holds another data set, or a clip in it is another
        one now.
    """
    if not self.card:
      return dict(card)
    old = self.card
    free = {*_FREE, *free}
    fixed = lambda c: {k: v for k, v in c["metadata"].items() if k not in free}
    differing = [k for k in ("format", "name", "view", "tasks") if old[k] != card[k]]
    differing += [
      f"metadata.{k}"
      for k in sorted({*fixed(old), *fixed(card)})
      if old["metadata"].get(k) != card["metadata"].get(k)
      if k not in free
    ]
    if not differing and old["metadata"].get(_HASH) != card["metadata"].get(_HASH):
      differing = self._changed(specs)
    if differing:
      raise ValueError(
        f"{str(self.directory)!r} already holds another data set ({old['name']}/{old['view']},"
        f" splits {sorted(old['splits'])}, {old['metadata']}) than the one asked for"
        f" ({card['name']}/{card['view']}, {card['metadata']}); they differ in"
        f" {command_line.some(differing)}. Give another output folder, or remove this one. To put"
        " two data sets together, run `python -m data_prep merge_datasets`."
      )
    unlabelled = sorted({*old.get("unlabelled", ()), *card.get("unlabelled", ())})
    splits = dict.fromkeys([*old["splits"], *card["splits"]], 0)
    grown = {**card, "splits": splits}
    return {**grown, "unlabelled": unlabelled} if unlabelled else grown

  def _changed(self, specs: Specs) -> list[str]:
    """The clips that other annotations don't have, or say something else of."""
    told = {spec.clip_id: (split, spec) for split, chosen in specs.items() for spec in chosen}
    changed = []
    for clip_id, (split, clip) in self.clips.items():
      there, spec = told.get(clip_id, ("", None))
      if spec is None:
        changed.append(f"clip {clip_id!r}, which the annotations no longer have")
        continue
      now = (there, spec.narration, spec.video_id, float(spec.start_seconds))
      labels = {task: tuple(ids) for task, ids in spec.labels.items()}
      before = (split, clip.narration, clip.video_id, clip.start_seconds)
      if now != before or any(labels.get(t, ()) != ids for t, ids in clip.labels.items()):
        changed.append(f"clip {clip_id!r}, of which the annotations say something else now")
    return changed
