r"""Shows what a checkpoint sees in a video, on a page in the browser.

  python -m sum_l_jax.tools.serve --checkpoint=runs/demo \
      --clips=data/toy_kitchen/exo:train

Open the address that it prints and drop a video there: labels over time, the nearest
clips of --clips, and the places that speak for a class. The page is for this machine
alone, unless --host says otherwise; whoever reaches it may use it. Videos are kept
while they are read, in a temporary file. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import errno
import socket
import sys

from etils import epath

from sum_l_jax.system import command_line
from sum_l_jax.system import storage
from sum_l_jax.tools import shared_options
from sum_l_jax.tools.serve import limits

# jax, and what serves the page, are imported once the options are read.

_LOCAL = ("127.0.0.1", "localhost", "::1")
# All addresses of this machine, as from within a container.
_EVERYWHERE = ("0.0.0.0", "::")


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__package__, __doc__)
  command_line.add_run(parser)
  add = parser.add_argument
  add("--clips", default="", metavar="DIR:SPLIT", help="data set whose nearest clips are shown")
  add("--port", type=int, default=8000, help="port of the page; 0 takes a free one (8000)")
  host_help = "address or name that others reach the page by (127.0.0.1: nobody else)"
  add("--host", default="127.0.0.1", help=host_help)
  add("--window", type=float, default=limits.Cut.window, help="length of a window in seconds (2)")
  add("--stride", type=float, default=limits.Cut.stride, help="seconds to the next window (1)")
  add("--top", type=int, default=limits.Cut.top, help="classes shown for a task (5)")
  near_help = "clips shown for a window (4)"
  add("--neighbours", type=int, default=limits.Cut.neighbours, metavar="N", help=near_help)
  side_help = "larger frames are shrunk to it, as build_dataset did (320)"
  add("--short_side", type=int, default=limits.Cut.short_side, help=side_help)
  large_help = "largest file that is taken (500)"
  add("--max_megabytes", type=float, default=limits.Limits.megabytes, help=large_help)
  long_help = "longest video that is taken (600)"
  add("--max_seconds", type=float, default=limits.Limits.seconds, help=long_help)
  shared_options.add_reading(parser, "windows or clips")
  return parser


def _listen(host: str, port: int) -> socket.socket:
  """Takes the port, before the network is loaded.

  Raises:
    ValueError: the port is out of range or in use, or the host is not of this
      machine.
  """
  if not 0 <= port < 65536:
    raise ValueError(f"--port must be between 0 and 65535, got {port}.")
  try:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family)
  except socket.gaierror as error:
    raise ValueError(f"--host={host!r} is no address of this machine ({error}).") from error
  except OSError as error:
    if error.errno == errno.EADDRINUSE:
      raise ValueError(
        f"Port {port} is in use already. Give another one, or --port=0 for a free one."
      ) from error
    raise ValueError(f"--host={host!r} --port={port} can't be opened: {error.strerror}.") from error


def _run(options: argparse.Namespace) -> int:
  limit = limits.Limits(options.max_megabytes, options.max_seconds)
  cut = limits.Cut(
    options.window, options.stride, options.top, options.neighbours, options.short_side
  )
  with _listen(options.host, options.port) as listener:
    return _serve(options, limit, cut, listener)


def _serve(
  options: argparse.Namespace, limit: limits.Limits, cut: limits.Cut, listener: socket.socket
) -> int:
  """Loads the network and answers until it is stopped."""
  import uvicorn

  from sum_l_jax.checkpoint import weight_files
  from sum_l_jax.tools.serve import analysis
  from sum_l_jax.tools.serve import web_app

  also = f" and embedding the clips of {options.clips}" if options.clips else ""
  sys.stderr.write(f"loading {options.checkpoint}{also} ...\n")
  weights = weight_files.read_weights(options.checkpoint)
  weight_files.require_view(weights, "ego")
  analyst = analysis.Analyst(
    weights,
    cut=cut,
    name=str(options.checkpoint),
    clips=analysis.open_clips(options.clips),
    batch_size=options.batch_size,
    num_threads=options.num_threads,
  )
  analyst.warm_up()
  app = web_app.make_app(read_page(), analyst, limit=limit, hosts={*_LOCAL, options.host.lower()})
  port = listener.getsockname()[1]
  everywhere = options.host in _EVERYWHERE
  name = "localhost" if everywhere else options.host
  name = f"[{name}]" if ":" in name else name
  sys.stdout.write(f"Open http://{name}:{port} in a browser. Ctrl-C ends it.\n")
  if options.host not in _LOCAL:
    where = "an address of this machine" if everywhere else options.host
    sys.stdout.write(
      f"Everybody who reaches {where} may use the page, and what is sent is not encrypted.\n"
    )
  sys.stdout.flush()
  config = uvicorn.Config(app, log_level="warning", access_log=False)
  # Ctrl-C, which uvicorn raises again once it has closed everything.
  with contextlib.suppress(KeyboardInterrupt):
    uvicorn.Server(config).run(sockets=[listener])
  return 0


def read_page() -> str:
  """The HTML document."""
  return storage.read_text(epath.Path(__file__).parent / "page.html")


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  return command_line.run(_parser(), _run, arguments)


if __name__ == "__main__":
  sys.exit(main())
