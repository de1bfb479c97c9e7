"""Ports for jobs of several processes on this machine."""

from __future__ import annotations

import socket


def free_port() -> int:
  """Returns the lower one of two neighbouring ports that are both free."""
  while True:
    with socket.create_server(("127.0.0.1", 0)) as first:
      port = first.getsockname()[1]
      try:
        with socket.create_server(("127.0.0.1", port + 1)):
          return port
      except OSError:
        continue
