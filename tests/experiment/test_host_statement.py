"""What processes compare: code, libraries, settings and data, but no paths."""

from __future__ import annotations

import shutil

import pytest

from sum_l_jax import build
from sum_l_jax.config import read
from sum_l_jax.experiment import host_statement
from tests.support import runs


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  config = runs.small(read.default_config(), ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.stages = ("exo", "joint")
  return config


def state(config):
  return host_statement.make(build.resolve(config), mode="train", checkpoint="")


def test_equal_data_elsewhere_are_stated_alike(config, tiny_ego, tmp_path):
  before = state(config)
  shutil.copytree(tiny_ego, tmp_path / "ego")
  config.ego.dataset = str(tmp_path / "ego")
  assert state(config) == before
  assert before["data: joint pairs"] and before["data: split val"] and before["data: exo exo"]
  config.seed = 1
  after = state(config)
  assert [name for name in after if after[name] != before[name]] == ["config.seed"]


def test_a_version_of_a_library_counts(config, monkeypatch):
  before = state(config)
  version = host_statement.importlib.metadata.version
  other = lambda name: "0.0" if name == "grain" else version(name)
  monkeypatch.setattr(host_statement.importlib.metadata, "version", other)
  after = state(config)
  assert [name for name in after if after[name] != before[name]] == ["grain"]


def test_every_file_of_the_code_counts(tmp_path, monkeypatch):
  """Also under one version: who changes a line on one machine is found out."""
  (tmp_path / "losses").mkdir()
  (tmp_path / "losses" / "a.py").write_text("x = 1")
  monkeypatch.setattr(host_statement, "__file__", str(tmp_path / "experiment" / "it.py"))
  digest = host_statement.code_digest.__wrapped__
  seen = [digest(), digest()]
  (tmp_path / "losses" / "a.py").write_text("x = 2")
  seen.append(digest())
  (tmp_path / "losses" / "a.py").rename(tmp_path / "losses" / "b.py")
  seen.append(digest())
  assert seen[0] == seen[1] and len(set(seen)) == 3
