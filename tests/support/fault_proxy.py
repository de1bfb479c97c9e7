"""A proxy in front of a storage server, which injects the faults of a network.

  proxy = fault_proxy.FaultProxy(server.url, share=0.1, seed=0)
  subprocess.run(command, env=os.environ | storage_server.environment(proxy.url))
  proxy.stop()

What the server says of its own address is replaced by the proxy's, so that
uploads in several parts, and downloads by link, come through here as well.

`python -m tests.support.fault_proxy --server=URL --share=0.1` is one in a process
of its own, which prints its address and ends when its standard input does.
`COUNTS` after its address says what it has done.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Sequence
import http.client
import http.server
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

# What a client may see, and whether the server has done what it was asked for.
KINDS = (
  "429",  # asked too often: not done
  "500",  # not done
  "503",  # not done
  "401",  # the token has run out: not done
  "cut",  # the connection ends: not done
  "lost",  # the connection ends in place of the answer: done
  "short",  # the connection ends in the middle of the answer: done
  "slow",  # the answer is late
)
# Those that come by chance, other than a token's end.
TRANSIENT = tuple(kind for kind in KINDS if kind != "401")
_MESSAGES = {
  "401": "Invalid Credentials",
  "429": "The object exceeded the rate limit for object mutation operations.",
  "500": "Backend Error",
  "503": "We encountered an internal error. Please try again.",
}
COUNTS = "/-/counts"
# Belong to one connection, not to the message.
_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


class FaultProxy:
  """A proxy on loopback in a thread of this process.

  Args:
    server: address of the server.
    share: share of requests that meet a fault.
    kinds: faults to draw from.
    seed: seed of the draws. Which request a draw meets depends on the client.
    seconds: delay of a slow answer.

  Attributes:
    url: address of the proxy.
    share: as above; may be changed at any time.
    kinds: as above; may be changed at any time.
    planned: faults of the next requests, whatever the share; "" for none.
    requests: number of requests.
    faults: number of faults by kind.
  """

  def __init__(
    self,
    server: str,
    *,
    share: float = 0.0,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    seconds: float = 0.2,
  ):
    self.share = share
    self.kinds = tuple(kinds)
    self.planned: collections.deque[str] = collections.deque()
    self.requests = 0
    self.faults: collections.Counter[str] = collections.Counter()
    self.seconds = seconds
    self.server = server
    # Answers to complete uploads in parts.
    self.uploads: dict[str, tuple] = {}
    self._draw = random.Random(seed)
    self._lock = threading.Lock()
    handler = type("Handler", (_Handler,), {"proxy": self})
    self._httpd = _Server(("127.0.0.1", 0), handler)
    self.url = f"http://127.0.0.1:{self._httpd.server_port}"
    threading.Thread(target=self._httpd.serve_forever, args=(0.05,), daemon=True).start()

  def next_fault(self) -> str:
    """Returns the kind of the fault that a request meets, or an empty text."""
    with self._lock:
      self.requests += 1
      if self.planned:
        kind = self.planned.popleft()
      else:
        # Both numbers are drawn each time: the seed's sequence stays the same.
        hit, kind = self._draw.random() < self.share, self._draw.choice(self.kinds)
        kind = kind if hit else ""
      if kind:
        self.faults[kind] += 1
      return kind

  def stop(self) -> None:
    self._httpd.shutdown()
    self._httpd.server_close()

  def __enter__(self) -> FaultProxy:
    return self

  def __exit__(self, *_) -> None:
    self.stop()


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  block_on_close = False
  request_queue_size = 128

  def handle_error(self, request, client_address):
    """Clients that are killed cut their connections; that is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
  proxy: FaultProxy
  protocol_version = "HTTP/1.1"
  # Answers go out at once: headers and body are written one after the other.
  disable_nagle_algorithm = True
  _upstream: http.client.HTTPConnection | None = None

  def log_message(self, *_):
    pass

  def _serve(self):
    body = self._read_body()
    if self.path == COUNTS:
      counts = {"requests": self.proxy.requests, "faults": self.proxy.faults}
      self._answer(200, [], json.dumps(counts).encode())
      return
    kind = self.proxy.next_fault()
    if kind in _MESSAGES:
      error = {"error": {"code": int(kind), "message": _MESSAGES[kind]}}
      self._answer(int(kind), [("Content-Type", "application/json")], json.dumps(error).encode())
      return
    if kind == "cut":
      self._cut()
      return
    if kind == "slow":
      time.sleep(self.proxy.seconds)
    status, headers, answer = self._forward(body)
    if kind == "lost" or (kind == "short" and not answer):
      self._cut()
      return
    self._answer(status, headers, answer, cut=kind == "short")

  do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = _serve

  def _read_body(self) -> bytes:
    if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
      return self.rfile.read(int(self.headers.get("Content-Length", 0)))
    parts = []
    while size := int(self.rfile.readline().split(b";")[0], 16):
      parts.append(self.rfile.read(size))
      self.rfile.readline()
    while self.rfile.readline().strip():
      pass
    return b"".join(parts)

  def _forward(self, body: bytes):
    """Asks the server; returns its status, headers and body."""
    headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP | {"expect"}}
    if self._upstream is None:
      address = urllib.parse.urlsplit(self.proxy.server).netloc
      self._upstream = http.client.HTTPConnection(address, timeout=600)
    self._upstream.request(self.command, self.path, body, headers)
    response = self._upstream.getresponse()
    data = response.read()
    theirs, ours = self.proxy.server, self.proxy.url
    kept = [
      (k, v.replace(theirs, ours))
      for k, v in response.getheaders()
      if k.lower() not in _HOP or (self.command == "HEAD" and k.lower() == "content-length")
    ]
    address = urllib.parse.urlsplit(self.path)
    upload = urllib.parse.parse_qs(address.query).get("upload_id", [""])[0]
    if upload and response.status in (200, 201):
      self.proxy.uploads[upload] = response.status, kept, data
    elif upload and response.status == 404 and upload in self.proxy.uploads:
      # Cloud Storage answers the last request of an upload again; this server
      # has forgotten a complete one.
      return self.proxy.uploads[upload]
    if address.path.startswith(("/storage/", "/upload/")) and "alt=media" not in address.query:
      data = data.replace(theirs.encode(), ours.encode())
    return response.status, kept, data

  def _answer(self, status: int, headers, body: bytes, *, cut: bool = False) -> None:
    self.send_response_only(status)
    for name, value in headers:
      self.send_header(name, value)
    if self.command != "HEAD":
      self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    if cut:
      # Ended in order, so that this half arrives.
      self.wfile.write(body[: len(body) // 2])
      self.close_connection = True
    elif self.command != "HEAD":
      self.wfile.write(body)

  def _cut(self) -> None:
    """Ends the connection as a network does that fails: with a reset."""
    self.close_connection = True
    self.wfile.flush()
    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    self.connection.close()

  def finish(self):
    if self._upstream is not None:
      self._upstream.close()
    try:
      super().finish()
    except OSError:
      pass


def start_process(
  server: str, *, share: float, seed: int, kinds: Sequence[str] = KINDS
) -> tuple[subprocess.Popen, str]:
  """Starts a proxy in a process of its own, which ends with this one.

  Args:
    server: address of the server.
    share: see `FaultProxy`.
    seed: see `FaultProxy`.
    kinds: see `FaultProxy`.

  Returns:
    The process, and the proxy's address.
  """
  process = subprocess.Popen(
    [
      sys.executable,
      "-m",
      "tests.support.fault_proxy",
      f"--server={server}",
      f"--share={share}",
      f"--seed={seed}",
      f"--kinds={','.join(kinds)}",
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  return process, process.stdout.readline().strip()


def main() -> None:
  parser = argparse.ArgumentParser(prog="python -m tests.support.fault_proxy")
  parser.add_argument("--server", required=True, metavar="URL")
  parser.add_argument("--share", type=float, default=0.1)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--kinds", default=",".join(KINDS))
  args = parser.parse_args()
  kinds = args.kinds.split(",")
  with FaultProxy(args.server, share=args.share, seed=args.seed, kinds=kinds) as proxy:
    print(proxy.url, flush=True)
    try:
      sys.stdin.read()
    except KeyboardInterrupt:
      pass


if __name__ == "__main__":
  main()
