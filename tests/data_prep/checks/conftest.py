"""A data set to damage, and the command that examines it."""

from __future__ import annotations

import json
import shutil

import pytest

from data_prep import doctor


@pytest.fixture(name="ego")
def ego_fixture(tiny_ego, tmp_path):
  """A copy of tiny_ego to damage."""
  return shutil.copytree(tiny_ego, tmp_path / "ego")


@pytest.fixture(name="examine")
def examine_fixture(capsys, tmp_path):
  """Runs the command: exit status, text without line breaks, JSON report."""

  def run(*options):
    report = tmp_path / "reports" / "report.json"
    status = doctor.main([*map(str, options), f"--report={report}"])
    captured = capsys.readouterr()
    text = " ".join((captured.out + captured.err).split())
    found = json.loads(report.read_text()) if report.exists() else None
    report.unlink(missing_ok=True)
    return status, text, found

  return run
