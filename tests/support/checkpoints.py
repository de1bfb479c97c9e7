"""All arrays of a checkpoint, the optimizer's too, read without the library."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp


def read_arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of one step's folder by `a/b/c` names."""
  handler = ocp.PyTreeCheckpointHandler()
  tree = handler.metadata(folder / "state").tree
  restore = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
  restored = handler.restore(
    folder / "state", args=ocp.args.PyTreeRestore(item=tree, restore_args=restore)
  )
  leaves, _ = jax.tree_util.tree_flatten_with_path(restored)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  return {name(path): leaf for path, leaf in leaves}
