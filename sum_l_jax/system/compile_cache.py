"""The folder in which JAX keeps compiled programs between runs.

What lies there is executed. It is therefore never taken from a workdir, which
may come from somebody else, but from the user's own cache folder, from what the
settings name or from `JAX_COMPILATION_CACHE_DIR`, and only where nobody else can
write. The owner of a bucket decides who can write into it.
"""

from __future__ import annotations

from collections.abc import Mapping
import grp
import os
import pathlib
import pwd
import stat

from sum_l_jax.system import addresses

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_ROOT = 0


class UnsafeFolderError(ValueError):
  """Somebody else could put programs into the folder."""


def default_folder(environ: Mapping[str, str]) -> pathlib.Path:
  """The cache's folder unless the variable names another: in the user's cache.

  Raises:
    UnsafeFolderError: the user has no home folder.
  """
  base = environ.get("XDG_CACHE_HOME", "")
  if os.path.isabs(base):  # The XDG standard ignores relative paths.
    return pathlib.Path(base) / "sum_l_jax" / "jax"
  try:
    return pathlib.Path.home() / ".cache" / "sum_l_jax" / "jax"
  except RuntimeError as error:
    raise UnsafeFolderError("the user has no home folder") from error


def check(folder: pathlib.Path) -> None:
  """Makes sure that only this user, or root, can put something into a folder.

  Args:
    folder: the folder, which exists.

  Raises:
    UnsafeFolderError: the folder is somebody else's, or others may write to it or
      may replace it.
  """
  folder = folder.resolve()
  for place in (folder, *folder.parents):
    status = place.stat()
    trusted = (os.geteuid(),) if place == folder else (os.geteuid(), _ROOT)
    if status.st_uid not in trusted:
      raise UnsafeFolderError(f"{str(place)!r} belongs to somebody else")
    # Where the sticky bit is set, as in /tmp, others can't rename what is ours.
    if place != folder and status.st_mode & stat.S_ISVTX:
      continue
    group = status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid)
    if group or status.st_mode & stat.S_IWOTH:
      raise UnsafeFolderError(f"others may write to {str(place)!r} (chmod go-w mends that)")


def _is_own_group(number: int) -> bool:
  """Whether a group is the one that many systems make for each user alone."""
  try:
    group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid())
  except KeyError:
    return False
  return group.gr_name == user.pw_name and not set(group.gr_mem) - {user.pw_name}


def prepare(wanted: str, environ: Mapping[str, str]) -> str:
  """Chooses the folder, and makes it where it is missing.

  Args:
    wanted: what the user has said; "" for the default.
    environ: environment variables.

  Returns:
    The folder, or an address that JAX itself understands.

  Raises:
    UnsafeFolderError: somebody else could write there.
    OSError: the folder can't be made, or can't be written to.
  """
  if "://" in wanted:  # A bucket: its owner decides who may write to it.
    return wanted
  folder = pathlib.Path(wanted).absolute() if wanted else default_folder(environ)
  for place in (*reversed(folder.parents), folder):
    if not place.exists():
      place.mkdir(mode=0o700, exist_ok=True)
  check(folder)
  if not os.access(folder, os.W_OK):
    raise PermissionError(f"{str(folder)!r} can't be written to")
  return str(folder.resolve())


def use(wanted: str = "", environ: Mapping[str, str] = os.environ) -> str:
  """Tells JAX which cache to use, or to use none where no folder is safe.

  What the variable or the program itself has told JAX is checked as well.

  Args:
    wanted: folder or address that the settings name; "" for none.
    environ: environment variables.

  Returns:
    Why there is no cache, as a sentence; or "".

  Raises:
    ValueError: an address that can't be used, see `addresses.path`.
  """
  import jax

  addresses.check(wanted, what="config.storage.compilation_cache")
  wanted = wanted or jax.config.values["jax_compilation_cache_dir"] or ""
  try:
    folder, reason = prepare(wanted, environ), ""
  except (UnsafeFolderError, OSError) as error:
    folder = None
    reason = (
      f"Compiled programs are not kept: {error}. {VARIABLE}=DIR names another folder of your own."
    )
  jax.config.update("jax_compilation_cache_dir", folder)
  if folder and addresses.is_remote(folder):
    # XLA's own cache for GPUs can't lie there: its path would be a local "gs:/...".
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
  return reason
