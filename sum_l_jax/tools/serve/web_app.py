"""The page and what it asks for, over HTTP.

What may ask: pages of this server, on this machine. A page elsewhere in the same
browser can send requests to 127.0.0.1 as well, by a form or by a name that it lets
point there, so each request must name this server as its host, and one that changes
something must not come from another page. Nothing of a request is a path: videos are
named by numbers that were drawn, windows and clips by their position, tasks by name.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from collections.abc import Collection
import contextlib
import hashlib
import re
import sys
from typing import Any
from urllib import parse

from starlette import applications
from starlette import concurrency
from starlette import requests
from starlette import responses
from starlette import routing
from starlette import types

from sum_l_jax.tools.serve import analysis
from sum_l_jax.tools.serve import jobs
from sum_l_jax.tools.serve import limits

_CLIENT_GONE = 499


def _policy(page: str) -> str:
  """Lets the page run and load what it has itself, and no more."""

  def digest(tag: str) -> str:
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

  return (
    f"default-src 'none'; script-src 'sha256-{digest('script')}';"
    f" style-src 'sha256-{digest('style')}'; img-src 'self' data:; media-src blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  )


def make_app(
  page: str, analyst: analysis.Analyst, *, limit: limits.Limits, hosts: Collection[str]
) -> types.ASGIApp:
  """Makes the application.

  Args:
    page: the HTML document, with one script and one style in it.
    analyst: the checkpoint.
    limit: what is refused.
    hosts: names and addresses of this server, lower case, without a port.
  """
  queue = jobs.Jobs(analyst, limit)
  handlers = _Handlers(page, analyst, limit, queue)

  @contextlib.asynccontextmanager
  async def lifespan(unused_app: Any) -> AsyncIterator[None]:
    yield
    queue.close()

  get = lambda path, handler: routing.Route(path, handler, methods=["GET"])
  app = applications.Starlette(
    routes=[
      get("/", handlers.page),
      get("/model", handlers.model),
      routing.Route("/videos", handlers.upload, methods=["POST"]),
      get("/videos/{name}", handlers.video),
      routing.Route("/videos/{name}", handlers.remove, methods=["DELETE"]),
      get("/videos/{name}/{window:int}/frames", handlers.frames),
      get("/videos/{name}/{window:int}/maps", handlers.maps),
      get("/clips/{row:int}", handlers.clip),
    ],
    lifespan=lifespan,
  )
  return _Guard(app, frozenset(hosts), _policy(page))


class _Guard:
  """Refuses requests that come from elsewhere, and says what browsers may do."""

  def __init__(self, app: types.ASGIApp, hosts: frozenset[str], policy: str) -> None:
    self._app, self._hosts = app, hosts
    self._headers = {
      "content-security-policy": policy,
      "cross-origin-resource-policy": "same-origin",
      "referrer-policy": "no-referrer",
      "x-content-type-options": "nosniff",
    }

  async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    request = requests.Request(scope)
    refusal = self._refusal(request)

    async def send_with_headers(message: types.Message) -> None:
      if message["type"] == "http.response.start":
        own = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        message = {**message, "headers": [*message.get("headers", ()), *own]}
      await send(message)

    app = _error(refusal, 403) if refusal else self._app
    await app(scope, receive, send_with_headers)

  def _refusal(self, request: requests.Request) -> str:
    """Why a request is refused; "" where it is not."""
    host = request.headers.get("host", "")
    name = _host_name(f"//{host}")
    # A page elsewhere can let a name lead here. An address it can't.
    own_address, _ = request.scope.get("server") or ("", None)
    if name not in self._hosts and name != own_address:
      return (
        f"This server answers to {', '.join(sorted(self._hosts))} alone, and to its address. Open"
        " what the command printed, or start it with --host=NAME."
      )
    if request.method in ("GET", "HEAD"):
      return ""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if (origin is not None and origin not in (f"http://{host}", f"https://{host}")) or (
      site not in ("same-origin", "none")
    ):
      return "This request comes from another page."
    return ""


def _host_name(address: str) -> str:
  try:
    return (parse.urlsplit(address).hostname or "").lower()
  except ValueError:
    return ""


def _error(message: str, status: int) -> responses.Response:
  return responses.JSONResponse({"error": message}, status)


class _Handlers:
  """What each address answers."""

  def __init__(
    self, page: str, analyst: analysis.Analyst, limit: limits.Limits, queue: jobs.Jobs
  ) -> None:
    self._page, self._analyst, self._limit, self._jobs = page, analyst, limit, queue

  async def page(self, unused_request: requests.Request) -> responses.Response:
    return responses.HTMLResponse(self._page, headers={"cache-control": "no-store"})

  async def model(self, unused_request: requests.Request) -> responses.Response:
    analyst, cut = self._analyst, self._analyst.cut
    clips = analyst.clips
    return responses.JSONResponse(
      {
        "checkpoint": analyst.name,
        "step": analyst.weights.step,
        "tasks": {task: len(names) for task, names in analyst.model.class_names.items()},
        "window": cut.window,
        "stride": cut.stride,
        "max_bytes": self._limit.bytes,
        "max_seconds": self._limit.seconds,
        "clips": None
        if clips is None
        else {"name": repr(clips), "count": len(clips), "view": clips.view},
        "why_no_clips": analyst.why_no_clips,
        "why_no_maps": analyst.why_no_maps,
      }
    )

  async def upload(self, request: requests.Request) -> responses.Response:
    """Takes the bytes of a file into a temporary one, and queues it."""
    too_large = _error(
      f"The file is larger than {self._limit.megabytes:g} MB. Cut the video, or start the page with"
      " a larger --max_megabytes.",
      413,
    )
    if _number(request.headers.get("content-length", "0")) > self._limit.bytes:
      return too_large
    try:
      file = self._jobs.make_upload()
    except jobs.Busy as error:
      return _error(str(error), 503)
    size, kept = 0, False
    try:
      async for chunk in request.stream():
        size += len(chunk)
        if size > self._limit.bytes:
          return too_large
        await concurrency.run_in_threadpool(file.write, chunk)
      if not size:
        return _error("The file is empty (0 bytes).", 400)
      await concurrency.run_in_threadpool(file.flush)
      kept = True
    except requests.ClientDisconnect:
      return _error("The upload was not finished.", _CLIENT_GONE)
    except OSError as error:
      return _error(f"The file can't be kept on this machine: {error.strerror}.", 507)
    finally:
      if not kept:
        file.close()
    return responses.JSONResponse({"name": self._jobs.add(file).name}, 202)

  async def video(self, request: requests.Request) -> responses.Response:
    """How far a video is, and the windows from number `from` on."""
    job = self._jobs.find(request.path_params["name"])
    if job is None:
      return _gone()
    first = _number(request.query_params.get("from", "0"))
    state = job.state  # Before the windows: after the end there come no more.
    return responses.JSONResponse(
      {
        "state": state,
        "seconds": job.seconds,
        "duration": job.duration,
        "message": job.message,
        "windows": [self._window(window) for window in job.windows[first:]],
      }
    )

  def _window(self, window: analysis.Window) -> dict[str, Any]:
    labels = {
      task: [{"name": name, "score": score} for name, score in zip(names, scores)]
      for task, (names, scores) in window.labels.items()
    }
    nearest = [
      {"row": row, "cosine": similar, **self._analyst.about_clip(row)}
      for row, similar in window.nearest
    ]
    return {"start": window.start, "stop": window.stop, "labels": labels, "nearest": nearest}

  async def remove(self, request: requests.Request) -> responses.Response:
    found = self._jobs.remove(request.path_params["name"])
    return responses.Response(status_code=204) if found else _gone()

  async def frames(self, request: requests.Request) -> responses.Response:
    """What the network saw of a window."""
    video = self._pixels(request)
    if video is None:
      return _gone()
    draw = lambda: self._analyst.frames(video, still=_still(request))
    return _picture(await concurrency.run_in_threadpool(draw))

  async def maps(self, request: requests.Request) -> responses.Response:
    """Where it looked, for each task: a picture, and the same in words."""
    if self._analyst.why_no_maps:
      return _error(self._analyst.why_no_maps, 404)
    video = self._pixels(request)
    if video is None:
      return _gone()

    def draw() -> list[dict[str, str]]:
      found = []
      for task in self._analyst.model.class_names:
        data, text = self._analyst.map(video, task, still=_still(request))
        picture = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
        found.append({"text": text, "picture": picture})
      return found

    return responses.JSONResponse(await concurrency.run_in_threadpool(draw))

  def _pixels(self, request: requests.Request) -> Any:
    """The pixels of the window that is asked for; None where it isn't kept."""
    job = self._jobs.find(request.path_params["name"])
    number = request.path_params["window"]
    return job.pixels.read(number) if job and number < len(job.windows) else None

  async def clip(self, request: requests.Request) -> responses.Response:
    row = request.path_params["row"]
    if self._analyst.clips is None or row >= len(self._analyst.clips):
      return _error("There is no such clip.", 404)
    try:
      data = await concurrency.run_in_threadpool(
        lambda: self._analyst.clip(row, still=_still(request))
      )
    except ValueError as error:
      return _error(str(error), 404)
    return _picture(data)


def _number(text: str) -> int:
  """A whole number; what is none, or longer than any here, is beyond all limits."""
  return int(text) if text.isdecimal() and len(text) < 16 else sys.maxsize


def _still(request: requests.Request) -> bool:
  return "still" in request.query_params


def _picture(data: bytes) -> responses.Response:
  return responses.Response(
    data, media_type="image/webp", headers={"cache-control": "private, max-age=3600"}
  )


def _gone() -> responses.Response:
  return _error("This video is no longer kept. Drop it again.", 404)
