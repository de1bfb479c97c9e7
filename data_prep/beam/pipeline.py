"""The pipeline: its elements are the numbers of parts."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import subprocess
import sys

import apache_beam
from apache_beam.options import pipeline_options

# Exit status of an error that the user can mend, see `command_line.run`.
_USERS = 2


@dataclasses.dataclass(frozen=True)
class Work:
  """A command that knows `--part` and `--merge`.

  Attributes:
    module: module that is run.
    arguments: its other options.
    of: number of parts.
  """

  module: str
  arguments: tuple[str, ...]
  of: int

  def make(self, number: int) -> None:
    """Makes a part, in a process of its own: what kills it kills nothing else.

    An error that the user can mend is not tried again: it is told beside the part,
    and when the parts are put together.

    Raises:
      RuntimeError: the process ended otherwise; the runner may try again.
    """
    status = self._run(f"--part={number}/{self.of}")
    if status not in (0, _USERS):
      raise RuntimeError(f"{self.module}: part {number}/{self.of} ended with status {status}")

  def merge(self) -> int:
    """Puts the parts together, in this process's place; returns the exit status."""
    return self._run(f"--merge={self.of}")

  def _run(self, option: str) -> int:
    command = [sys.executable, "-m", self.module, *self.arguments, option]
    return subprocess.run(command, check=False).returncode


def run(work: Work, options: Sequence[str]) -> None:
  """Makes all parts, as a pipeline with these options."""
  with apache_beam.Pipeline(options=pipeline_options.PipelineOptions(list(options))) as pipeline:
    _ = (
      pipeline
      | "Parts" >> apache_beam.Create(range(work.of))
      | "Spread" >> apache_beam.Reshuffle()
      | "Make" >> apache_beam.Map(work.make)
    )
