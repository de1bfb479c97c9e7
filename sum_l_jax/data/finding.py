"""What a check of data finds, before or at the start of a training."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from sum_l_jax.system import command_line

OK, WARNING, ERROR = "ok", "warning", "error"
# As many ids of a finding are written into files.
MOST_CLIPS = 1000


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing that is wrong, or a check that found nothing.

  Attributes:
    check: name of the check.
    severity: "error" (training would stop, or its result mean nothing),
      "warning" or "ok".
    message: what is wrong, where, and how to mend it.
    count: number of clips, classes, narrations or pairs concerned.
    clips: ids of all clips concerned.
    split: split of the data set, "" for all of it.
    dataset: the folder or file.
  """

  check: str
  severity: str
  message: str = ""
  count: int = 1
  clips: tuple[str, ...] = ()
  split: str = ""
  dataset: str = ""

  @classmethod
  def ok(cls, check: str, message: str = "") -> Finding:
    """A check that found nothing."""
    return cls(check, OK, message)

  @classmethod
  def error(
    cls, check: str, message: str, clips: Sequence[str] = (), *, count: int = 0, split: str = ""
  ) -> Finding:
    """An error; in a message about clips `{n}` and `{clips}` are filled in."""
    return cls._about(ERROR, check, message, clips, count, split)

  @classmethod
  def warning(
    cls,
    check: str,
    message: str,
    clips: Sequence[str] = (),
    *,
    count: int = 0,
    split: str = "",
    dataset: str = "",
  ) -> Finding:
    """A warning; in a message about clips `{n}` and `{clips}` are filled in."""
    found = cls._about(WARNING, check, message, clips, count, split)
    return dataclasses.replace(found, dataset=dataset)

  @classmethod
  def _about(
    cls, severity: str, check: str, message: str, clips: Sequence[str], count: int, split: str
  ) -> Finding:
    # Not str.format: what libraries say may hold braces of its own.
    message = message.replace("{n}", str(len(clips))).replace("{clips}", some(clips))
    return cls(check, severity, message, count or len(clips) or 1, tuple(clips), split)


def some(names: Sequence[str]) -> str:
  """The first names, quoted, and how many more there are."""
  return command_line.some([repr(name) for name in names])
