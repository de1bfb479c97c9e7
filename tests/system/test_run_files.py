"""What is said of a workdir whose training was killed before its first step."""

from __future__ import annotations

import pytest

from sum_l_jax.config import typed_arguments
from sum_l_jax.system import run_files
from sum_l_jax.tools.report import run_contents

_SAID = "its first step hasn't been taken"


def test_a_training_that_took_no_step_is_not_called_nothing(tmp_path):
  """Rendering and reading weights take minutes, in which a kill leaves no config."""
  (tmp_path / run_files.STATUS).write_text("{}")
  for read in (
    run_contents.read_run,
    lambda folder: typed_arguments.complete([f"--workdir={folder}"]),
  ):
    with pytest.raises((ValueError, FileNotFoundError), match=f"{_SAID}.*give its command again"):
      read(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
      read(tmp_path / "elsewhere")
    assert _SAID not in str(error.value)
  (tmp_path / run_files.CONFIG).write_text("{}")
  assert run_files.unbegun(tmp_path) == ""
