"""Frame rates of clips that train together.

A stride counts stored frames, so clips of 60 frames a second span half the time
of clips of 30.
"""

from __future__ import annotations

from collections.abc import Sequence

from sum_l_jax.data import records

# Rates that differ by less are called one: 29.97 and 30, and a phone's 29.8.
_TOLERANCE = 1.02
_SHOWN = 4
# Key of a data set's metadata: the rates at which its publishers give frames.
OFFICIAL = "official_rates"


def describe(datasets: Sequence[records.ClipDataset]) -> str:
  """Says in which rates clips of one view are stored, if there are several.

  Args:
    datasets: splits or pools that train together.

  Returns:
    Two sentences, the second of which says how to mend it; "" for clips of one
    rate, and for the rates that a data set was published with.
  """
  rates: dict[float, int] = {}
  for dataset in datasets:
    for clip in dataset.clips:
      rates[clip.fps] = rates.get(clip.fps, 0) + 1
  groups = _group(rates)
  if len(groups) < 2 or _are_official(datasets, rates):
    return ""
  shown = sorted(groups, key=lambda group: -group[1])[:_SHOWN]
  text = " and ".join(f"{rate:g} ({count} clip{'s' * (count > 1)})" for rate, count in shown)
  more = f" and {len(groups) - _SHOWN} other rates" if len(groups) > _SHOWN else ""
  lowest, highest = min(rates), max(rates)
  return (
    f"Clips are stored at {text}{more} frames a second. A stride counts stored frames, so"
    f" the times that clips span differ by a factor of up to {highest / lowest:.3g}. Build"
    f" with one rate, such as --fps={round(lowest, 2):g}, to make them equal."
  )


def _group(rates: dict[float, int]) -> list[tuple[float, int]]:
  """Rates that are nearly equal as one: the most frequent one, and all their clips."""
  groups: list[list[float]] = []
  for rate in sorted(rates):
    if groups and rate <= groups[-1][0] * _TOLERANCE:
      groups[-1].append(rate)
    else:
      groups.append([rate])
  return [(max(group, key=lambda r: rates[r]), sum(rates[r] for r in group)) for group in groups]


def _are_official(datasets: Sequence[records.ClipDataset], rates: dict[float, int]) -> bool:
  """Whether all data sets were published with these same rates."""
  lists = [dataset.metadata.get(OFFICIAL) for dataset in datasets]
  return all(isinstance(one, list) and all(rate in one for rate in rates) for one in lists)
