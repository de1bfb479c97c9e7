"""The videos that were dropped: each waits for its turn, is read, and is kept a while."""

from __future__ import annotations

import collections
from concurrent import futures
import dataclasses
import secrets
import tempfile
import threading
from typing import Any

from absl import logging
from etils import epath

from sum_l_jax.tools.serve import analysis
from sum_l_jax.tools.serve import limits

WAITING, READING, DONE, FAILED = "waiting", "reading", "done", "failed"


class Busy(RuntimeError):
  """As many videos wait as may."""


class _Cancelled(Exception):
  """Somebody has taken the video back."""


@dataclasses.dataclass(eq=False)
class Job:
  """One video.

  Attributes:
    name: what it is called in addresses, which nobody can guess.
    upload: its temporary file, which is gone once it has been read.
    pixels: what the network saw.
    state: one of "waiting", "reading", "done", "failed".
    seconds: how far it has been read.
    duration: how long it says it lasts, or None.
    windows: what was found so far.
    message: what went wrong, "" for nothing.
    cancelled: whether it was taken back.
  """

  name: str
  upload: Any
  pixels: analysis.Pixels
  state: str = WAITING
  seconds: float = 0.0
  duration: float | None = None
  windows: list[analysis.Window] = dataclasses.field(default_factory=list)
  message: str = ""
  cancelled: bool = False

  @property
  def finished(self) -> bool:
    """Whether nothing more happens to it."""
    return self.state in (DONE, FAILED)


class Jobs:
  """Reads videos one after the other, in a thread of their own."""

  def __init__(self, analyst: analysis.Analyst, limit: limits.Limits) -> None:
    """Starts with none.

    Args:
      analyst: the checkpoint that describes the videos.
      limit: what is refused.
    """
    self._analyst, self._limit = analyst, limit
    self._jobs: collections.OrderedDict[str, Job] = collections.OrderedDict()
    self._lock = threading.Lock()
    # One at a time: a device is not faster with two.
    self._worker = futures.ThreadPoolExecutor(1, "videos")

  def make_upload(self) -> Any:
    """A temporary file for an upload; it goes when it is closed.

    Raises:
      Busy: as many videos wait as may.
    """
    with self._lock:
      waiting = sum(not job.finished for job in self._jobs.values())
    if waiting >= self._limit.videos:
      raise Busy(f"{waiting} videos are waiting already. Try again when one of them is done.")
    return tempfile.NamedTemporaryFile(prefix="sum_l_upload_")

  def add(self, upload: Any) -> Job:
    """Queues an upload, whose file is closed when it was read."""
    pixels = analysis.Pixels(self._analyst.model.recipe.video_shape)
    job = Job(secrets.token_urlsafe(16), upload, pixels)
    with self._lock:
      self._jobs[job.name] = job
      done = [other for other in self._jobs.values() if other.finished]
      for old in done[: max(0, len(self._jobs) - self._limit.videos)]:
        self._drop(old)
    self._worker.submit(self._run, job)
    return job

  def find(self, name: str) -> Job | None:
    """The video of that name, or None."""
    with self._lock:
      return self._jobs.get(name)

  def remove(self, name: str) -> bool:
    """Ends and forgets a video; says whether there was one."""
    with self._lock:
      job = self._jobs.get(name)
      if job is None:
        return False
      job.cancelled = True
      if job.finished:
        self._drop(job)
    return True

  def close(self) -> None:
    """Ends all work and removes all files."""
    with self._lock:
      for job in self._jobs.values():
        job.cancelled = True
    self._worker.shutdown(wait=True, cancel_futures=True)
    with self._lock:
      for job in list(self._jobs.values()):
        self._drop(job)

  def _drop(self, job: Job) -> None:
    self._jobs.pop(job.name, None)
    job.upload.close()
    job.pixels.close()

  def _run(self, job: Job) -> None:
    """Reads one video."""
    job.state = READING

    def progress(seconds: float, duration: float | None) -> None:
      if job.cancelled:
        raise _Cancelled
      job.seconds, job.duration = seconds, duration

    path = job.upload.name
    end, message = DONE, ""
    try:
      found = self._analyst.read(
        epath.Path(path), job.pixels, longest=self._limit.seconds, progress=progress
      )
      for window in found:
        job.windows.append(window)
    except _Cancelled:
      end = FAILED
    except (ValueError, OSError) as error:
      # The name of a temporary file says nothing to anybody.
      text = str(error).replace(repr(path), "The video")
      end, message = FAILED, text.replace(f"file:{path}", "the upload").replace(path, "the upload")
    except Exception:
      logging.exception("A video could not be described.")
      end, message = FAILED, "The program made a mistake; its log says which."
    with self._lock:
      # Last: whoever sees the state must find the message.
      job.message = message
      job.state = end
      job.upload.close()
      if job.cancelled:
        self._drop(job)
