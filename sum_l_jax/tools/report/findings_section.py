"""The report's first section: what made one doubt the run before its first step."""

from __future__ import annotations

from sum_l_jax.experiment import run_findings
from sum_l_jax.tools import page
from sum_l_jax.tools.report import run_contents


def findings(run: run_contents.RunContents) -> list[page.Section]:
  """The section, or none where nothing was found.

  Raises:
    ValueError: the file of what was found is damaged.
  """
  found = run_findings.read(run.workdir)
  if not found:
    return []
  about = "This was found before the first step. The numbers below mean less where it applies."
  return [page.Section("findings", "Read this first", [page.Texts([about, *found])])]
