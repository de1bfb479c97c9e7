"""Feature sets of given values, for a built data set."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any
from typing import Literal

import numpy as np

from data_prep.clips import feature_records
from sum_l_jax.data import feature_card
from sum_l_jax.data import records


def write(
  folder: pathlib.Path,
  dataset: pathlib.Path,
  values: Mapping[str, np.ndarray],
  *,
  dtype: Literal["bfloat16", "float32"] = "bfloat16",
  shape: Sequence[int] | None = None,
  **about: Any,
) -> feature_card.FeatureCard:
  """Writes values `[clips, views, tokens, channels]` by split; returns the card.

  Args:
    folder: folder of the feature set.
    dataset: folder of the data set that they belong to.
    values: one row a clip.
    dtype: "bfloat16" or "float32".
    shape: what the card says; that of the values where absent.
    **about: other fields of the card.
  """
  views, tokens, channels = shape or next(iter(values.values())).shape[1:]
  splits = {
    split: records.ClipDataset(dataset, split)
    for split in ("train", "val")
    if split in records.read_card(dataset)["splits"]
  }
  first = next(iter(splits.values()))
  card = feature_card.FeatureCard(
    kind=feature_card.POOLED if tokens == 1 else feature_card.TOKENS,
    dtype=dtype,
    shape=(views, tokens, channels),
    encoder=feature_card.FeatureEncoder("vit_tiny", weights="0123456789abcdef"),
    frames=feature_card.FeatureFrames(8, 2, 32),
    views=feature_card.FeatureViews(samples=views),
    dataset=feature_card.FeatureSource(
      first.name, first.view, {split: data.fingerprint for split, data in splits.items()}
    ),
    splits={},
    shards={},
  )
  card = dataclasses.replace(card, **about)
  return feature_records.write_features(folder, card, {s: [v] for s, v in values.items()})
