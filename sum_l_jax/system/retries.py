"""Reads and writes that are tried again after errors that pass.

A mounted disk (NFS) or a bucket answers now and then with an error, and the same
access works a moment later. The clients of buckets try again for themselves; this
is the layer around them, for what they leave, and it is the only one that knows
when to give up.
"""

from __future__ import annotations

from collections.abc import Callable
import errno
import functools
import os
from typing import TYPE_CHECKING
from typing import ParamSpec
from typing import TypeVar

from absl import logging

if TYPE_CHECKING:
  import tenacity

# Seconds of the first pause; every further one is twice as long.
FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# Seconds that a fault may last, counted from the first error; processes that this
# one starts read the same variable.
PATIENCE_VARIABLE = "SUM_L_STORAGE_SECONDS"
_PATIENCE = 120.0
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
# Codes with which a bucket's server says that it will answer later.
_PASSING_STATUS = frozenset((408, 429, 500, 502, 503, 504))
# Errors of the clients, by module and name: naming them imports none of them.
_PASSING_ERRORS = frozenset(
  (
    ("aiohttp", "ClientError"),
    ("gcsfs", "ChecksumError"),
    ("google", "RetryError"),
    ("google", "ServerError"),
    ("google", "TooManyRequests"),
    # A token that can't be renewed now; that nobody is logged in is another error.
    ("google", "RefreshError"),
    ("google", "TransportError"),
    ("requests", "ChunkedEncodingError"),
    ("requests", "ConnectionError"),
    ("requests", "Timeout"),
    ("urllib3", "HTTPError"),
  )
)
# What a server answers to a token that has run out on the way; the next try takes a
# new one. Clients in C++ leave it to whoever calls them.
_EXPIRED = "Invalid Credentials"
# What these clients write into the error, where the status is all they say.
_PASSING_WORDS = (
  "UNAVAILABLE",
  "DEADLINE_EXCEEDED",
  "RESOURCE_EXHAUSTED",
  "Service Unavailable",
  _EXPIRED,
)
# Attribute of errors for which the patience was already spent.
_GIVEN_UP = "_sum_l_given_up"

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def patience() -> float:
  """Seconds that a fault of a disk or bucket may last before a run gives up."""
  text = os.environ.get(PATIENCE_VARIABLE, "")
  try:
    return max(0.0, float(text or _PATIENCE))
  except ValueError as error:
    raise ValueError(
      f"The environment variable {PATIENCE_VARIABLE} must be a number of seconds, such as 600, got"
      f" {text!r}."
    ) from error


def set_patience(seconds: float) -> None:
  """Sets `patience` for this process and those that it starts."""
  os.environ[PATIENCE_VARIABLE] = f"{seconds:g}"


def passes(error: BaseException) -> bool:
  """Whether an error of a file may be gone at the next try.

  Libraries in C++ raise a RuntimeError or ValueError for everything; there the
  words tell.
  """
  kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
  if kinds & _PASSING_ERRORS or isinstance(error, TimeoutError):
    return True
  if ("gcsfs", "HttpError") in kinds:
    return _status(error) in _PASSING_STATUS or _is_expired(error)
  if isinstance(error, OSError):
    return error.errno in _PASSING
  words = (*_WORDS, *_PASSING_WORDS)
  return isinstance(error, (RuntimeError, ValueError)) and any(w in str(error) for w in words)


def _status(error: BaseException) -> int:
  code = str(getattr(error, "code", ""))
  return int(code) if code.isdecimal() else 0


def _is_expired(error: BaseException) -> bool:
  """Whether a token ran out on the way; the client takes a new one."""
  return _status(error) == 401 and _EXPIRED in str(error)


def _is_worth_a_try(error: BaseException) -> bool:
  return passes(error) and not hasattr(error, _GIVEN_UP)


def retried(function: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
  """Makes a function that is called again after errors that pass.

  The pauses between the tries grow; `patience` bounds them all together, from the
  first error on: a transfer may have gone well for longer before. The function must
  do the same whenever it is called. Its last error is raised as it is, and a retried
  function that has called this one doesn't begin again.
  """

  @functools.wraps(function)
  def call(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
    import tenacity

    first: float | None = None

    def is_over(state: tenacity.RetryCallState) -> bool:
      nonlocal first
      assert state.outcome is not None and state.outcome_timestamp is not None
      first = state.outcome_timestamp if first is None else first
      over = state.outcome_timestamp - first + state.upcoming_sleep >= patience()
      if over and (error := state.outcome.exception()) is not None:
        setattr(error, _GIVEN_UP, True)
      return over

    again = tenacity.Retrying(
      retry=tenacity.retry_if_exception(_is_worth_a_try),
      # Jitter, so that the processes of a pod don't all come back at once.
      wait=tenacity.wait_exponential_jitter(FIRST_PAUSE, _LONGEST_PAUSE, jitter=FIRST_PAUSE),
      stop=is_over,
      before_sleep=_say,
      reraise=True,
    )
    return again(function, *args, **kwargs)

  return call


def _say(state: tenacity.RetryCallState) -> None:
  """Logs what `tenacity` is about to wait for."""
  assert state.outcome is not None and state.next_action is not None
  error = state.outcome.exception()
  logging.warning(
    "%s; try %d failed, and the next one follows in %.1f s (until %.0f s have passed).",
    str(error) or type(error).__name__,
    state.attempt_number,
    state.next_action.sleep,
    patience(),
  )
