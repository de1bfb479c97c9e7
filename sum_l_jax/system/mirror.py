"""A local folder whose files appear in a bucket: for files that grow.

An object of a bucket can't be appended to. So what grows, such as a log, is written
on the local disk, and a thread uploads the files that have changed: at a period, and
at the end. A kill costs what was written since the last upload.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import pathlib
import shutil
import tempfile
import threading

from etils import epath

from sum_l_jax.system import storage


class Mirror:
  """A local folder and its copy in a bucket.

  Attributes:
    folder: the local folder to write into; `close` removes it.
  """

  def __init__(
    self,
    target: epath.Path,
    *,
    seconds: float,
    begin_with: Sequence[str] = (),
    flush: Callable[[], object] = lambda: None,
  ) -> None:
    """Makes the local folder, and starts the thread.

    Args:
      target: folder in the bucket.
      seconds: pause between two uploads.
      begin_with: names of files that are downloaded first, if they are there: what
        an earlier process wrote and this one goes on with.
      flush: called before each upload, from the thread; it makes sure that the
        files hold all that was written.
    """
    self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sum_l_"))
    self._target, self._seconds, self._flush = target, seconds, flush
    for name in begin_with:
      if storage.is_file(target / name):
        (self.folder / name).write_bytes(storage.read_bytes(target / name))
    self._known: dict[str, tuple[int, int]] = {}
    self._error: Exception | None = None
    self._closing, self._wake = threading.Event(), threading.Event()
    self._thread = threading.Thread(target=self._keep, daemon=True)
    self._thread.start()

  def check(self) -> None:
    """Raises the error of an upload, if one has failed for good."""
    if self._error is not None:
      error, self._error = self._error, None
      raise error

  def soon(self) -> None:
    """Uploads now in place of at the end of the period; doesn't wait for it."""
    self._wake.set()

  def close(self) -> None:
    """Uploads what is left, and removes the local folder.

    Raises:
      Exception: an upload failed for good; the last one is tried all the same.
    """
    if self._closing.is_set():
      return
    self._closing.set()
    self._wake.set()
    self._thread.join()
    shutil.rmtree(self.folder, ignore_errors=True)
    self.check()

  def _keep(self) -> None:
    while True:
      self._wake.wait(self._seconds)
      self._wake.clear()
      last = self._closing.is_set()
      try:
        self._upload()
      except Exception as error:
        self._error = error
      if last:
        return

  def _upload(self) -> None:
    self._flush()
    for path in sorted(self.folder.rglob("*")):
      if path.name.startswith(".") or not path.is_file():  # Half written, or a folder.
        continue
      status = path.stat()
      version = status.st_mtime_ns, status.st_size
      name = path.relative_to(self.folder).as_posix()
      if self._known.get(name) == version:
        continue
      # A copy, which doesn't grow while it is uploaded.
      with tempfile.NamedTemporaryFile(prefix="sum_l_") as copy:
        shutil.copyfile(path, copy.name)
        storage.upload(copy.name, self._target / name)
      self._known[name] = version
