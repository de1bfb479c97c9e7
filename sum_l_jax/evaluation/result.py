"""What an evaluation leaves behind: `result.json` and a table to read."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
from typing import Any

import numpy as np

# Columns of the table, in this order, where the metric exists.
_COLUMNS = ("verb_top1", "verb_top5", "noun_top1", "noun_top5", "action_top1",
            "action_top5")
# Clips scored apart, and how the table calls them.
_GROUPS = {
    "seen": "seen label combinations",
    "unseen": "unseen label combinations",
    "unseen_participants": "unseen participants",
    "tail": "tail classes",
}
_MULTI_LABEL_SUFFIXES = ("_map_sklearn", "_map_charades")


def _columns(metrics: Mapping[str, float]) -> list[str]:
  known = [name for name in _COLUMNS if name in metrics]
  others = [
      name for name in metrics
      if name.endswith(_MULTI_LABEL_SUFFIXES)
      or (name.endswith("_top1") and name not in known)
  ]
  return known + others


def _row(name: str, metrics: Mapping[str, float], columns: Sequence[str],
         suffix: str = "") -> list[str]:
  cells = [metrics.get(column + suffix) for column in columns]
  return [name] + ["-" if v is None else f"{100 * v:.1f}" for v in cells]


def format_table(result: Mapping[str, Any]) -> str:
  """The scores of every split in percent, beside a constant guess.

  Args:
    result: as `write_result` takes it.
  """
  blocks = []
  for split, entry in result["splits"].items():
    metrics = entry["metrics"]
    if not metrics:
      blocks.append(
          f"{entry['dataset']}, {split}: {entry['clips']} clips without labels"
          f" scored, see scores_{split}.npz"
      )
      continue
    columns = _columns(metrics)
    rows = [["top-1, top-5, mAP in %"] + [c.replace("_", " ") for c in columns]]
    rows.append(_row("constant guess", entry["constant_guess"], columns))
    rows.append(_row(result["method"], metrics, columns))
    for group, text in _GROUPS.items():
      if any(name.endswith(f"_{group}") for name in metrics):
        rows.append(_row(f"  {text}", metrics, columns, f"_{group}"))
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    skipped = len(entry["skipped"])
    head = (f"{entry['dataset']}, {split}: {entry['clips']} clips"
            f" ({skipped} skipped), {entry['views']} test views a clip,"
            f" checkpoint at step {result['step']}")
    blocks.append("\n".join([head, "-" * len(lines[0]), *lines]))
  return "\n\n".join(blocks)


def write_result(workdir: pathlib.Path, result: Mapping[str, Any]) -> None:
  """Writes `result.json`, whole or not at all.

  Args:
    workdir: where to.
    result: `method`, `step`, `splits` (per split `metrics`, `constant_guess`,
      `clips`, `skipped`, `views`, ...), config and versions.
  """
  path = workdir / "result.json"
  scratch = path.with_suffix(".tmp")
  scratch.write_text(json.dumps(result, indent=1), encoding="utf-8")
  scratch.replace(path)


def write_scores(workdir: pathlib.Path, split: str, *, clip_ids: Sequence[str],
                 scores: Mapping[str, np.ndarray],
                 labels: Mapping[str, np.ndarray]) -> None:
  """Writes `scores_<split>.npz`, so that others can recompute the metrics.

  Args:
    workdir: where to.
    split: name.
    clip_ids: N ids.
    scores: task -> [N, K] ensembled probabilities; NaN for skipped clips.
    labels: task -> [N] or [N, K].
  """
  np.savez_compressed(
      workdir / f"scores_{split}.npz",
      clip_id=np.array(clip_ids),
      **{f"scores_{t}": s.astype(np.float32) for t, s in scores.items()},
      **{f"labels_{t}": y for t, y in labels.items()},
  )
