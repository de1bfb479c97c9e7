"""Names of the files that a run leaves in its workdir."""

from __future__ import annotations

from sum_l_jax.system import addresses
from sum_l_jax.system import storage

CONFIG = "config.json"
COMMAND = "command.txt"
RESULT = "result.json"
REPORT = "report.html"
STATUS = "status.json"
STARTS = "starts.json"
FINDINGS = "findings.json"
# In the folder of each stage.
METRICS = "metrics.jsonl"
TABLE = "metrics.csv"
PROBES = "probes.json"
_SCORES, _NPZ = "scores_", ".npz"


def scores(split: str) -> str:
  """Name of the file with a split's scores by clip."""
  return f"{_SCORES}{split}{_NPZ}"


def split_of(name: str) -> str:
  """The split of such a file's name."""
  return name.removeprefix(_SCORES).removesuffix(_NPZ)


ANY_SCORES = scores("*")


def unbegun(workdir: addresses.PathLike) -> str:
  """A sentence about a workdir whose training has taken no step; "" for others.

  Data may be rendered and weights read for minutes before the config is written.
  """
  folder = addresses.path(workdir)
  if storage.is_file(folder / CONFIG) or not storage.is_file(folder / STATUS):
    return ""
  return (
    f"A training was begun there, and its first step hasn't been taken, before which no {CONFIG} is"
    " written. If it isn't running any more, give its command again."
  )
