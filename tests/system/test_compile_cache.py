"""Compiled programs, which are executed, come from nobody else."""

from __future__ import annotations

import os
import pathlib
import stat

import jax
import pytest

from sum_l_jax.system import compile_cache


@pytest.fixture(name="configured", autouse=True)
def configured_fixture():
  before = jax.config.values["jax_compilation_cache_dir"]
  yield
  jax.config.update("jax_compilation_cache_dir", before)


def _prepare(path, environ=None):
  return compile_cache.prepare(str(path), environ or {})


def test_the_default_is_the_users_cache_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  os.umask(os.umask(0o022))
  wanted = tmp_path / ".cache" / "sum_l_jax" / "jax"
  assert compile_cache.prepare("", {}) == str(wanted)
  assert stat.S_IMODE(wanted.stat().st_mode) == 0o700
  other = tmp_path / "other"
  assert compile_cache.prepare("", {"XDG_CACHE_HOME": str(other)}) == str(
    other / "sum_l_jax" / "jax"
  )
  # The standard has absolute paths alone.
  assert compile_cache.prepare("", {"XDG_CACHE_HOME": "here"}) == str(wanted)


def test_the_variable_is_respected(tmp_path):
  assert _prepare(tmp_path / "mine") == str(tmp_path / "mine")
  assert _prepare("gs://bucket/cache") == "gs://bucket/cache"
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "set"))
  assert compile_cache.use(environ={}) == ""
  assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "set")


@pytest.mark.parametrize("place", ["folder", "parent", "link"])
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o722])
def test_folders_that_are_not_trusted(tmp_path, place, mode, monkeypatch):
  monkeypatch.setattr(compile_cache, "_is_own_group", lambda number: False)
  folder = tmp_path / "parent" / "cache"
  folder.mkdir(parents=True, mode=0o700)
  _prepare(folder)
  (folder if place == "folder" else folder.parent).chmod(mode)
  if place == "link":
    (tmp_path / "link").symlink_to(folder)
    folder = tmp_path / "link"
  if mode == 0o775 or mode & 0o022:
    with pytest.raises(compile_cache.UnsafeFolderError, match="others may write to"):
      _prepare(folder)
  jax.config.update("jax_compilation_cache_dir", str(folder))
  assert "Compiled programs are not kept: others may write to" in compile_cache.use(environ={})
  assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_folder_of_somebody_else(tmp_path, monkeypatch):
  folder = tmp_path / "cache"
  folder.mkdir(mode=0o700)
  monkeypatch.setattr(os, "geteuid", lambda: 12345)
  if not folder.stat().st_uid:  # Run as root, all parents are root's.
    with pytest.raises(compile_cache.UnsafeFolderError, match="cache' belongs to somebody else"):
      compile_cache.check(folder)
  else:
    with pytest.raises(compile_cache.UnsafeFolderError, match="belongs to somebody else"):
      compile_cache.check(folder)


def test_a_sticky_parent_and_a_group_of_ones_own_are_safe(tmp_path, monkeypatch):
  folder = tmp_path / "cache"
  folder.mkdir(mode=0o700)
  tmp_path.chmod(0o1777)
  assert _prepare(folder) == str(folder)
  folder.chmod(0o770)
  monkeypatch.setattr(compile_cache, "_is_own_group", lambda number: True)
  assert _prepare(folder) == str(folder)
  folder.chmod(0o1777)  # Sticky or not, others may add programs here.
  with pytest.raises(compile_cache.UnsafeFolderError):
    _prepare(folder)


def test_a_home_that_is_read_only_costs_the_cache_alone(tmp_path, monkeypatch):
  def refuse(self, *args, **options):
    raise PermissionError(f"Permission denied: {self}")

  monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
  jax.config.update("jax_compilation_cache_dir", None)
  reason = compile_cache.use(environ={"XDG_CACHE_HOME": str(tmp_path / "home")})
  assert reason.startswith("Compiled programs are not kept: Permission denied")
  assert "JAX_COMPILATION_CACHE_DIR=DIR" in reason
