"""Names of the files that a run leaves in its workdir."""

from __future__ import annotations

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
