"""The commit that a package is of, where something says it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess

from etils import epath

from sum_l_jax.system import source_version


def _git(folder, *arguments):
  name = ("-c", "user.name=n", "-c", "user.email=e@example.org")
  done = subprocess.run(
    ["git", "-C", str(folder), *name, *arguments], check=True, capture_output=True, text=True
  )
  return done.stdout.strip()


def test_a_clone(tmp_path):
  folder = epath.Path(tmp_path)
  assert source_version.find("no_such_package", folder) == source_version.Source()
  _git(tmp_path, "init", "--quiet")
  # No commit yet.
  assert source_version.find("no_such_package", folder) == source_version.Source()
  (tmp_path / "code.py").write_text("1")
  _git(tmp_path, "add", "code.py")
  _git(tmp_path, "commit", "--quiet", "--message=one")
  commit = _git(tmp_path, "rev-parse", "HEAD")
  assert source_version.find("no_such_package", folder) == source_version.Source(commit)
  # Results that lie in the clone are no change of its source.
  (tmp_path / "result.json").write_text("{}")
  assert not source_version.find("no_such_package", folder).changed
  (tmp_path / "code.py").write_text("2")
  assert source_version.find("no_such_package", folder) == source_version.Source(commit, True)
  # A package that lies in a clone of something else is not of its commit.
  (tmp_path / "site-packages").mkdir()
  assert not source_version.find("no_such_package", folder / "site-packages").commit


def test_what_pip_noted(tmp_path, monkeypatch):
  notes = {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}}

  class Distribution:
    def __init__(self, text):
      self.read_text = lambda name: text

  for text, commit in ((json.dumps(notes), "0a1b"), (None, ""), ("[", ""), ('{"url": "x"}', "")):
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _, t=text: Distribution(t))
    assert source_version.find("p", epath.Path(tmp_path)).commit == commit
