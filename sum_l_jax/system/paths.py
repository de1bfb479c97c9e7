"""Reads and writes that are tried again, and paths that are refused.

All files of this project are read and written through the file system. A mounted
one (Cloud Storage FUSE, NFS) answers now and then with an error that passes, and
the same access works a moment later. Addresses of object stores are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import errno
import functools
import os
import pathlib
import re
from typing import TYPE_CHECKING
from typing import ParamSpec
from typing import TypeVar

from absl import logging

if TYPE_CHECKING:
  import tenacity

# Seconds of the first pause; every further one is twice as long.
FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_TRIES = 6
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Errors of a server, or on the way to it. A file that isn't there, a lack of
# permission or a full disk do not pass.
_PASSING = frozenset(
  getattr(errno, name)
  for name in (
    "EIO",
    "ESTALE",
    "ETIMEDOUT",
    "EAGAIN",
    "ECONNRESET",
    "ECONNABORTED",
    "ECONNREFUSED",
    "ENETUNREACH",
    "ENETDOWN",
    "EHOSTUNREACH",
    "EHOSTDOWN",
    "EREMOTEIO",
    "ENOTCONN",
  )
)
_WORDS = tuple(os.strerror(code) for code in sorted(_PASSING))

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def passes(error: BaseException) -> bool:
  """Whether an error of a file may be gone at the next try.

  Libraries in C++ raise a RuntimeError for everything; there the words tell.
  """
  if isinstance(error, OSError):
    return isinstance(error, TimeoutError) or error.errno in _PASSING
  return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def retried(function: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
  """Makes a function that is called again after errors that pass.

  The pauses between the tries grow. The function must do the same whenever it
  is called. Its last error is raised as it is.
  """

  @functools.wraps(function)
  def call(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
    import tenacity

    again = tenacity.Retrying(
      retry=tenacity.retry_if_exception(passes),
      # Jitter, so that the processes of a pod don't all come back at once.
      wait=tenacity.wait_exponential_jitter(FIRST_PAUSE, _LONGEST_PAUSE, jitter=FIRST_PAUSE),
      stop=tenacity.stop_after_attempt(_TRIES),
      before_sleep=_say,
      reraise=True,
    )
    return again(function, *args, **kwargs)

  return call


@retried
def read_text(path: pathlib.Path) -> str:
  """Reads the text of a file in UTF-8."""
  return path.read_text(encoding="utf-8")


def _say(state: tenacity.RetryCallState) -> None:
  """Logs what `tenacity` is about to wait for."""
  assert state.outcome is not None and state.next_action is not None
  logging.warning(
    "%s; try %d of %d in %.1f s.",
    state.outcome.exception(),
    state.attempt_number + 1,
    _TRIES,
    state.next_action.sleep,
  )


def check_local(texts: Iterable[str], what: str) -> None:
  """Refuses `gs://bucket/run` and the like, of which folders would be made.

  Args:
    texts: paths to check.
    what: option or field that gave the paths, for the message.

  Raises:
    ValueError: a path is an address.
  """
  for text in texts:
    if _ADDRESS.match(text):
      raise ValueError(
        f"{what}={text!r} is an address, and files are read and written"
        " through the file system alone. Mount the bucket (Cloud Storage"
        ' FUSE, Mountpoint for Amazon S3; docs/tpu_pods.md, "Data and'
        ' workdir"), or copy it, and give the folder.'
      )


def check_arguments(arguments: Iterable[str]) -> None:
  """Applies `check_local` to all arguments of a command line."""
  name = "argument"
  for argument in arguments:
    own, equals, value = argument.partition("=")
    if argument.startswith("-"):
      name = own
      check_local(value.split(",") if equals else (), name)
    else:
      check_local(argument.split(","), name)
