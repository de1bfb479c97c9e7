"""Where there is no Beam, and what the pipeline gives to each part by itself.

`check_pipeline.py` beside this file runs pipelines, with `make beam`.
"""

from __future__ import annotations

import sys

import pytest

from data_prep.beam.__main__ import main

BUILD = ["build_dataset", "--dataset=manifest", "--output=out"]


def test_beam_that_is_not_there(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  monkeypatch.delitem(sys.modules, "data_prep.beam.pipeline", raising=False)
  assert main(["--parts=4", "--runner=DirectRunner", *BUILD]) == 2
  error = capsys.readouterr().err
  assert "Apache Beam is needed" in error and "make beam" in error


@pytest.mark.parametrize("option", ["--part=0/4", "--merge=4"])
def test_parts_are_given_by_the_pipeline(option, capsys):
  assert main(["--parts=4", "--runner=DirectRunner", *BUILD, option]) == 2
  assert f"{option} is given by the pipeline" in capsys.readouterr().err


def test_no_parts(capsys):
  assert main(["--parts=0", "--runner=DirectRunner", *BUILD]) == 2
  assert "--parts must be 1 or more, got 0" in capsys.readouterr().err
