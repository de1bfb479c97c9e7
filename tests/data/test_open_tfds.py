"""Folders in TFDS's layout, whose description could name any module."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from sum_l_jax.data import open_tfds
from sum_l_jax.data import records


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_names_of_other_modules_are_refused(tiny_ego, tmp_path, key):
  folder = tmp_path / "data"
  shutil.copytree(tiny_ego, folder)
  assert open_tfds.open_builder(folder).info.features is not None
  path = folder / "features.json"
  features = json.loads(path.read_text())
  top = features.pop("pythonClassName")
  assert top.startswith("tensorflow_datasets.core.features.")
  path.write_text(json.dumps({key: "antigravity.Feature", **features}))
  with pytest.raises(ValueError, match="would import 'antigravity.Feature'"):
    open_tfds.open_builder(folder)
  # Training and evaluation go by the card, and don't open it at all.
  assert records.ClipDataset(folder, "train").read_frames(0, [0])
  assert "antigravity" not in sys.modules
  path.write_text("[" * 10**6)
  with pytest.raises(ValueError, match="features.json' is damaged"):
    open_tfds.open_builder(folder)
