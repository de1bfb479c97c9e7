"""One line, with a way out, for errors of buckets that don't pass.

The clients of buckets raise errors of their own, which name an address of an
interface that users have never seen, or what a server said, in several lines.
"""

from __future__ import annotations

import json
import re

from sum_l_jax.system import buckets
from sum_l_jax.system import retries
from sum_l_jax.system import text_cleaning

_BUCKET = re.compile(r"(?:^|/)b/([^/?\s]+)(?:/o|\?|$|\s)")
_CODE = re.compile(r"http_response_code='(\d{3})'")
# What the clients add to the words of the server: addresses, and its whole answer.
_ADDED = re.compile(
  r"\s*\[http_response_\w+=.*|\A(?:Forbidden|Bad Request): [^\n]*\n|\A\d+ [A-Z]+ https?://\S+: "
  r"|\A[A-Z_]+: ",
  re.DOTALL,
)
_ADDRESS = re.compile(r"https?://\S+")
_LOG_IN = (
  "On a machine of your own: `gcloud auth application-default login`. On Google Cloud: give the"
  " machine or pod a service account. GOOGLE_APPLICATION_CREDENTIALS=FILE names a key."
)


def advice(error: BaseException) -> str:
  """Says what is wrong between this process and a bucket, and the way out.

  Returns:
    One line, or "" where the error is about something else, or says it itself.
  """
  status, text = _status(error), str(error)
  said = _message(_ADDED.sub("", text))
  if _ADDRESS.fullmatch(said):
    said = f"HTTP {status}"
  words = text_cleaning.without_secrets(" ".join(said.split()))[:500].rstrip(". ")
  bucket = _BUCKET.search(text)
  place = f"gs://{bucket[1]}" if bucket else "the bucket"
  if status == 401:
    return (
      f"{place}: nobody is logged in, or the login has run out (the server says: {words})."
      f" {_LOG_IN}"
    )
  if status in (400, 403) and re.search(r"[Pp]roject|requester pays|[Bb]illing", words):
    return (
      f"{place}: the project is not the right one, or may not be used ({words}). Set"
      " GOOGLE_CLOUD_PROJECT=PROJECT, or `gcloud config set project PROJECT`, to a project with"
      " billing that may use the bucket; buckets for which the requester pays are not supported."
    )
  if status == 403:
    return (
      f"{place}: this account has no access ({words}). Grant it: `gcloud storage buckets"
      " add-iam-policy-binding gs://BUCKET --member=serviceAccount:ACCOUNT"
      " --role=roles/storage.objectUser` (reading alone: roles/storage.objectViewer), and for"
      " checkpoints roles/storage.legacyBucketReader. A machine also needs the access scope"
      " cloud-platform."
    )
  if status == 404:
    return (
      f"{place}: there is no such bucket, or what is looked for isn't in it ({words}). See"
      " `gcloud storage ls`; `gcloud storage buckets create gs://BUCKET --location=REGION` makes"
      " one."
    )
  if _is_login(error):
    return f"The login for buckets doesn't work ({words}). {_LOG_IN}"
  if not isinstance(error, (OSError, ValueError, RuntimeError)) and retries.passes(error):
    kind = type(error).__name__
    return (
      f"A bucket could not be reached for {retries.patience():.0f} s ({kind}: {words}). See whether"
      f" it can be reached from this machine. {retries.PATIENCE_VARIABLE}=SECONDS, or in a training"
      " --config.storage.patience_seconds=SECONDS, waits longer; the same command goes on."
    )
  return ""


def bucket_hint(error: BaseException) -> str:
  """Says so if something is missing because its whole bucket is; else "".

  What isn't there is not there in a bucket with a misspelt name either.
  """
  missing = "" if retries.passes(error) else buckets.missing_bucket(str(error))
  return f" There is no bucket {missing} at all: see `gcloud storage ls`." if missing else ""


def _message(text: str) -> str:
  """The words of a server in its whole answer, with which some clients begin."""
  try:
    answer, _ = json.JSONDecoder().raw_decode(text)
    return str(answer["error"]["message"])
  except (ValueError, TypeError, KeyError):
    return text


def _kinds(error: BaseException) -> set[tuple[str, str]]:
  return {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}


def _is_login(error: BaseException) -> bool:
  kinds = _kinds(error)
  return ("google", "GoogleAuthError") in kinds or ("gcsfs", "NonRetryableError") in kinds


def _status(error: BaseException) -> int:
  """The status of HTTP with which a server refused; 0 if it is none of these."""
  kinds, text = _kinds(error), str(error)
  if ("gcsfs", "HttpError") in kinds or ("google", "GoogleAPICallError") in kinds:
    code = str(getattr(error, "code", ""))
    return int(code) if code.isdecimal() else 0
  # gcsfs raises Python's own errors for these, with the address that it asked.
  if isinstance(error, FileNotFoundError):
    return 404 if re.match(r"(?:https?://\S+/)?b/[^/]+(?:/o|$)", text) else 0
  if isinstance(error, OSError):
    return 403 if text.startswith("Forbidden: ") else 0
  if type(error) is ValueError and text.startswith("Bad Request: "):
    return 400
  # TensorStore and array_record; other errors that repeat their words say more.
  if type(error) in (ValueError, RuntimeError) and (code := _CODE.search(text)):
    return int(code[1])
  return 0
