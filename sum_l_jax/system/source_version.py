"""Which version of its source a package is run from."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess

from etils import epath

from sum_l_jax.system import checked_json
from sum_l_jax.system import storage

_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Source:
  """A state of the source.

  Attributes:
    commit: hash of the commit; "" where nothing says it.
    changed: whether files that git follows differ from the commit.
  """

  commit: str = ""
  changed: bool = False


def find(package: str, folder: epath.Path) -> Source:
  """Finds the commit that a package is of.

  A clone is asked through git; of a package that pip took from a repository, pip
  has noted it.

  Args:
    package: name of the installed package.
    folder: folder in which the package lies, the root of a clone.
  """
  # A package inside the clone of another project is not of that project's commit.
  if storage.exists(folder / ".git"):
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
      changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
      return Source(commit, changed is None or bool(changed))
  return Source(_noted(package))


def _git(folder: epath.Path, *arguments: str) -> str | None:
  """What git says; None where it is not there, or says no."""
  try:
    done = subprocess.run(
      ["git", "-C", str(folder), "--no-optional-locks", *arguments],
      capture_output=True,
      check=False,
      timeout=_SECONDS,
      encoding="utf-8",
      errors="replace",
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return done.stdout.strip() if done.returncode == 0 else None


def _noted(package: str) -> str:
  try:
    distribution = importlib.metadata.distribution(package)
    text = distribution.read_text("direct_url.json")
    origin = checked_json.decode(text or "{}", checked_json.Object).get("vcs_info", {})
    return str(origin.get("commit_id", ""))
  except (importlib.metadata.PackageNotFoundError, AttributeError, ValueError):
    return ""
