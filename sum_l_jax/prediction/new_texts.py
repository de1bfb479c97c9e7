"""Sentence vectors of texts that no table has, made when they are asked for.

The sentence models belong to `data_prep`, which runs them in a process of its own;
this package neither imports it nor PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
import subprocess
import sys
import tempfile

from etils import epath

from sum_l_jax.data import narration_table
from sum_l_jax.system import storage
from sum_l_jax.system import text_cleaning

_COMMAND = ("data_prep", "embed_narrations")


class NoModelError(ValueError):
  """The sentence model can't be run on this machine."""


def embed(texts: Sequence[str], model: str) -> narration_table.NarrationTable:
  """Embeds texts with a sentence model.

  Args:
    texts: the texts.
    model: name or folder of the model, as `data_prep embed_narrations` takes it.

  Raises:
    NoModelError: the model, or what runs it, is not installed; says why.
  """
  with tempfile.TemporaryDirectory(prefix="sum_l_") as folder:
    lines, output = (epath.Path(folder) / name for name in ("texts.txt", "vectors.npz"))
    # One text a line.
    storage.write_text(lines, "".join(f"{' '.join(text.split())}\n" for text in texts))
    code, said = _call([f"--texts={lines}", f"--model={model}", f"--output={output}"])
    if code or not storage.is_file(output):
      raise NoModelError(_reason(said) or f"the command ended with status {code}")
    return narration_table.NarrationTable.load(output)


def _call(arguments: Sequence[str]) -> tuple[int, str]:
  """Runs the command; returns its exit status and what it said of errors."""
  done = subprocess.run(
    [sys.executable, "-m", *_COMMAND, *arguments],
    capture_output=True,
    check=False,
    encoding="utf-8",
    errors="replace",
  )
  return done.returncode, done.stderr


def _reason(said: str) -> str:
  """The error of a command, without what libraries print before it."""
  lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
  starts = [i for i, line in enumerate(lines) if line.startswith(("error:", "ModuleNotFound"))]
  kept = lines[starts[-1] :] if starts else lines[-1:]
  return text_cleaning.visible("\n  ".join(kept).removeprefix("error: "))
