"""Errors of buckets that don't pass: one line each, with a way out, and no secrets."""

from __future__ import annotations

import argparse
import http.server
import io
import json
import logging
import threading

from etils import epath
import google.api_core.exceptions
from google.auth import exceptions
import pytest
import tensorstore

from data_prep import doctor
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import clip_selection
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.system import storage_errors
from sum_l_jax.system import text_cleaning
from sum_l_jax.tools.export import exported_model
from tests.support import storage_server

# What Cloud Storage answers, and what users are told to do.
ANSWERS = {
  401: (
    "Anonymous caller does not have storage.objects.get access to the Google Cloud Storage object.",
    "gcloud auth application-default login",
  ),
  403: (
    "a@b.iam.gserviceaccount.com does not have storage.objects.create access to the Google Cloud"
    " Storage bucket. Permission 'storage.objects.create' denied on resource.",
    "add-iam-policy-binding",
  ),
  404: ("The specified bucket does not exist.", "gcloud storage buckets create"),
  400: ("User project specified in the request is invalid.", "GOOGLE_CLOUD_PROJECT=PROJECT"),
}
USES = {
  "write": lambda: storage.write_bytes("gs://tests/a", b"x"),
  "create": lambda: storage.create("gs://tests/a", b"x"),
  "read": lambda: storage.read_bytes("gs://tests/a"),
  "list": lambda: storage.files_below("gs://tests/a"),
  "TensorStore": lambda: (
    tensorstore.KvStore.open("gs://tests/a/").result().write("b", b"x").result()
  ),
}


class _Refusing(http.server.BaseHTTPRequestHandler):
  """Refuses everything with `status`, as Cloud Storage does."""

  protocol_version = "HTTP/1.1"
  status = 403

  def log_message(self, *_):
    pass

  def _answer(self):
    self.rfile.read(int(self.headers.get("Content-Length", 0)))
    error = {"code": self.status, "message": ANSWERS[self.status][0], "errors": []}
    body = json.dumps({"error": error}).encode()
    self.send_response(self.status)
    self.send_header("Content-Type", "application/json")
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  do_GET = do_POST = do_PUT = do_DELETE = _answer


@pytest.fixture(name="refusing")
def refusing_fixture(monkeypatch):
  handler = type("Handler", (_Refusing,), {})
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
  threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
  url = f"http://127.0.0.1:{server.server_port}"
  for name, value in storage_server.environment(url).items():
    monkeypatch.setenv(name, value)
  yield handler
  server.shutdown()
  server.server_close()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("status", ANSWERS)
def test_refusals_are_one_line_with_a_way_out(refusing, status, use):
  refusing.status = status
  with pytest.raises(Exception) as e:
    USES[use]()
  line = storage_errors.advice(e.value)
  assert ANSWERS[status][1] in line, repr(e.value)
  assert "\n" not in line and "http_response" not in line
  # The server's own words, which name the account and the right that is missing.
  if status != 404:
    assert ANSWERS[status][0].rstrip(".")[:60] in line


@pytest.mark.parametrize("status", (400, 401, 403, 404))
def test_a_client_that_repeats_the_whole_answer(status):
  """As google-cloud-storage does where it uploads."""
  words, way_out = ANSWERS[status]
  answer = json.dumps({"error": {"code": status, "message": words, "errors": []}})
  line = storage_errors.advice(
    google.api_core.exceptions.from_http_status(
      status,
      f"POST https://host/upload/storage/v1/b/tests/o?uploadType=multipart: {answer}:"
      f" ('Request failed with status code', {status}, 'Expected one of', <HTTPStatus.OK: 200>)",
    )
  )
  assert words.rstrip(".") in line and way_out in line
  assert '"message"' not in line and "Request failed" not in line


def test_a_misspelt_bucket_is_named_where_something_is_missing(bucket, capsys):
  def look(place):
    if not storage.is_file(place):
      raise ValueError(f"There is no file {place!r}.")

  said = {}
  for place in ("gs://misspelt/run/a", f"{bucket}/a"):
    assert command_line.run(argparse.ArgumentParser(), lambda _, place=place: look(place), []) == 2
    said[place] = capsys.readouterr().err
  missing = "There is no bucket gs://misspelt at all: see `gcloud storage ls`."
  assert said["gs://misspelt/run/a"] == (
    f"error: There is no file 'gs://misspelt/run/a'. {missing}\n"
  )
  assert said[f"{bucket}/a"] == f"error: There is no file '{bucket}/a'.\n"


def test_an_output_in_a_misspelt_bucket_is_refused_before_the_work(bucket):
  command_line.check_output(bucket / "a.npz")
  assert not storage.names_below(bucket)
  with pytest.raises(FileNotFoundError) as error:
    command_line.check_output(epath.Path("gs://misspelt/a.npz"))
  assert "gs://misspelt: there is no such bucket" in storage_errors.advice(error.value)


@pytest.mark.parametrize(
  "look",
  [
    lambda: doctor.main(["gs://tests/a"]),
    lambda: exported_model.read_card(epath.Path("gs://tests/a")),
    lambda: weight_files.read_weights("gs://tests/a.npz"),
    lambda: clip_selection.open_dataset("gs://tests/a:train"),
  ],
)
def test_no_access_is_not_taken_for_nothing_there(refusing, look, capsys):
  refusing.status = 403
  try:
    look()
    said = capsys.readouterr().err
  except OSError as error:
    said = storage_errors.advice(error)
  assert "this account has no access" in said


def test_whoever_asks_first_shows_no_stack_trace_of_the_client():
  """Also `epath`, which makes a client before this library does."""
  logger = logging.getLogger("gcsfs")
  logger.setLevel(logging.NOTSET)
  addresses.check_client.cache_clear()
  addresses.path("gs://tests/a")
  assert logger.getEffectiveLevel() > logging.ERROR


def test_nobody_is_logged_in():
  for error in (
    exceptions.DefaultCredentialsError("Your default credentials were not found."),
    exceptions.InvalidOperation("Anonymous credentials cannot be refreshed."),
  ):
    assert "gcloud auth application-default login" in storage_errors.advice(error)


def test_other_errors_speak_for_themselves():
  for error in (
    ValueError("config.seed must be of type int."),
    FileNotFoundError(2, "No such file or directory", "data/b/card.json"),
    PermissionError(13, "Permission denied"),
    RuntimeError("of a program"),
  ):
    assert not storage_errors.advice(error)


@pytest.mark.parametrize(
  "text, secret",
  [
    ("headers={'Authorization': 'Bearer ya29.c.b0AXv0zT-x'}", "ya29"),
    ("401 for https://host/o/a?access_token=abc123&alt=media", "abc123"),
    ("https://host/a?X-Goog-Signature=deadbeef01", "deadbeef01"),
    ('{"refresh_token": "1//04xyz", "client_secret": "s3cr3t"}', "1//04xyz"),
    ('{"refresh_token": "1//04xyz", "client_secret": "s3cr3t"}', "s3cr3t"),
  ],
)
def test_credentials_are_never_printed_or_logged(text, secret):
  assert secret in text and secret not in text_cleaning.without_secrets(text)
  stream = io.StringIO()
  text_cleaning.CleanStream(stream).write(text)
  with text_cleaning.installed():
    record = logging.getLogRecordFactory()("n", logging.INFO, "f", 1, "%s", (text,), None)
  assert secret not in stream.getvalue() + record.getMessage()
