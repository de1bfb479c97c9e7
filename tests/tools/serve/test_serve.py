"""The page that shows what a checkpoint sees in a video, over HTTP and in a browser."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
import re
import socket
import tempfile
import threading
import time

import numpy as np
from PIL import Image
import pytest
from selenium.webdriver.common import by
from starlette import testclient
import uvicorn

import sum_l_jax
from sum_l_jax import types
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import clip_selection
from sum_l_jax.evaluation.retrieval import embedding
from sum_l_jax.prediction import feature_network
from sum_l_jax.tools.serve import analysis
from sum_l_jax.tools.serve import jobs
from sum_l_jax.tools.serve import limits
from sum_l_jax.tools.serve import web_app
from sum_l_jax.tools.serve.__main__ import main
from sum_l_jax.tools.serve.__main__ import read_page
from tests.support import browsers
from tests.support import predicted_videos

CUT = limits.Cut(window=1.0, stride=0.5, top=3, neighbours=2)
LIMIT = limits.Limits(megabytes=0.2, seconds=6.0, videos=2)
HERE = "http://127.0.0.1:8000"


@pytest.fixture(name="analyst", scope="module")
def analyst_fixture(finished, tiny_exo):
  weights = weight_files.read_weights(finished[0])
  clips = clip_selection.open_dataset(f"{tiny_exo}:train")
  return analysis.Analyst(weights, cut=CUT, clips=clips, batch_size=4)


@pytest.fixture(name="video", scope="module")
def video_fixture(tmp_path_factory):
  return predicted_videos.write_clip(tmp_path_factory.mktemp("videos") / "clip.mp4")


@pytest.fixture(name="client")
def client_fixture(analyst):
  app = web_app.make_app(read_page(), analyst, limit=LIMIT, hosts={"127.0.0.1", "localhost"})
  with testclient.TestClient(app, base_url=HERE) as client:
    yield client


def _uploads():
  return set(pathlib.Path(tempfile.gettempdir()).glob("sum_l_upload_*"))


def _send(client, data, **headers):
  return client.post("/videos", content=data, headers=headers)


def _wait(client, name):
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline:
    found = client.get(f"/videos/{name}").json()
    if found["state"] in (jobs.DONE, jobs.FAILED):
      return found
    time.sleep(0.05)
  raise AssertionError("The video was not read.")


def test_windows_are_those_of_predict_and_of_retrieval(client, analyst, finished, video):
  before = _uploads()
  sent = _send(client, video.read_bytes())
  assert sent.status_code == 202
  name = sent.json()["name"]
  found = _wait(client, name)
  assert (found["state"], found["message"]) == (jobs.DONE, "")
  assert _uploads() == before  # The upload is gone.
  model = sum_l_jax.load(finished[0])
  predicted = model.predict(video, window=1.0, stride=0.5, top=3)
  got = [
    (item["start"], item["stop"], task, [best["name"] for best in own])
    for item in found["windows"]
    for task, own in item["labels"].items()
  ]
  assert got == [(p.start, p.stop, p.task, list(p.classes)) for p in predicted]
  scores = [
    [best["score"] for best in own] for item in found["windows"] for own in item["labels"].values()
  ]
  np.testing.assert_allclose(scores, [p.scores for p in predicted], atol=1e-5)
  # Neighbours: the largest products with the clips' own embeddings.
  keys = embedding.Embedder(analyst.weights)(analyst.clips).vectors
  network = feature_network.FeatureNetwork(analyst.weights, view="ego", feature="projection")
  vectors = np.asarray(network(_pixels(analyst, video)))
  for item, cosines in zip(found["windows"], vectors @ keys.T, strict=True):
    order = np.argsort(-cosines, kind="stable")[:2]
    assert [near["row"] for near in item["nearest"]] == order.tolist()
    np.testing.assert_allclose([n["cosine"] for n in item["nearest"]], cosines[order], atol=1e-5)
    clip = analyst.clips.clips[order[0]]
    assert item["nearest"][0]["narration"] == clip.narration
  assert client.get(f"/videos/{name}?from=2").json()["windows"] == found["windows"][2:]
  assert client.delete(f"/videos/{name}").status_code == 204
  assert client.get(f"/videos/{name}").status_code == 404


def _pixels(analyst, video):
  """The windows' pixels, cut by the tests' own reader."""
  recipe = analyst.model.recipe
  whole = []
  cuts = predicted_videos.cut_file(video, fps=recipe.fps, window=1.0, stride=0.5, short_side=320)
  for cut in cuts:
    frames = [np.asarray(Image.open(io.BytesIO(data))) for data in cut.jpegs]
    indices = recipe.transform.test_indices(len(frames), 0, 1)
    whole.append(recipe.transform.test([frames[i] for i in indices], 1)[0])
  return np.stack(whole)


def test_pictures_of_windows_and_clips(client, analyst, video):
  name = _send(client, video.read_bytes()).json()["name"]
  _wait(client, name)
  frames, side = analyst.model.recipe.num_frames, analyst.model.recipe.crop_size
  moving = Image.open(io.BytesIO(client.get(f"/videos/{name}/0/frames").content))
  assert (moving.format, moving.size) == ("WEBP", (side, side))
  assert 1 < moving.n_frames <= frames  # Frames that are alike are one.
  still = Image.open(io.BytesIO(client.get(f"/videos/{name}/0/frames?still").content))
  assert getattr(still, "n_frames", 1) == 1
  maps = client.get(f"/videos/{name}/1/maps?still").json()
  assert len(maps) == len(analyst.model.class_names)
  for found, task in zip(maps, analyst.model.class_names, strict=True):
    best = client.get(f"/videos/{name}?from=1").json()["windows"][0]["labels"][task][0]
    assert found["text"].startswith(f"{task}: {best['name']}, score {best['score']:.2f}; ")
    assert found["picture"].startswith("data:image/webp;base64,")
  clip = client.get("/clips/3")
  assert Image.open(io.BytesIO(clip.content)).format == "WEBP"
  for wrong in (
    "/clips/11",
    "/clips/-1",
    "/clips/..%2f..%2fetc%2fpasswd",
    f"/videos/{name}/99/maps",
    f"/videos/{name}/{2**63}/frames",
  ):
    assert client.get(wrong).status_code == 404, wrong


@pytest.mark.parametrize(
  "data, status, message",
  [
    (b"", 400, "The file is empty"),
    (b"x" * 300_000, 413, r"larger than 0.2 MB. Cut the video, or .* larger --max_megabytes"),
  ],
)
def test_what_is_refused_at_once(client, data, status, message):
  before = _uploads()
  answer = _send(client, data)
  assert answer.status_code == status
  assert re.search(message, answer.json()["error"])
  assert _uploads() == before


def test_an_upload_without_a_length_is_counted(client):
  for length in ("9" * 5000, "-1", "many"):
    assert _send(client, b"x", **{"content-length": length}).status_code == 413
  answer = _send(client, (b"x" * 50_000 for _ in range(6)))
  assert answer.status_code == 413


def test_what_is_no_video(client):
  before = _uploads()
  for data, message in (
    (b"This is a letter, and no video.\n" * 30, "The video"),
    (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "The video"),
    (b"ffconcat version 1.0\nfile /etc/passwd\n", "The video"),
  ):
    found = _wait(client, _send(client, data).json()["name"])
    assert found["state"] == jobs.FAILED
    assert found["message"].startswith(message)
    assert "sum_l_upload" not in found["message"] and "passwd" not in found["message"]
    assert found["windows"] == []
  assert _uploads() == before


def test_a_video_that_is_cut_off_shows_what_was_read(analyst, tmp_path):
  data = predicted_videos.write_cut_off(tmp_path / "cut.mp4").read_bytes()
  app = web_app.make_app(
    read_page(), analyst, limit=limits.Limits(seconds=60.0), hosts={"127.0.0.1"}
  )
  with testclient.TestClient(app, base_url=HERE) as client:
    found = _wait(client, _send(client, data).json()["name"])
  assert found["state"] == jobs.FAILED
  assert "The video is cut off or damaged" in found["message"]
  assert len(found["windows"]) > 2


def test_a_video_that_is_too_long_is_not_read(analyst, video):
  app = web_app.make_app(
    read_page(), analyst, limit=limits.Limits(seconds=2.0), hosts={"127.0.0.1"}
  )
  with testclient.TestClient(app, base_url=HERE) as client:
    found = _wait(client, _send(client, video.read_bytes()).json()["name"])
  assert found["state"] == jobs.FAILED and not found["windows"]
  assert found["message"].startswith("It lasts 3 seconds, and at most 2 are taken.")


def test_videos_wait_and_old_ones_go(client, analyst, video, monkeypatch):
  begin = threading.Event()
  read = analyst.read

  def slow(*arguments, **options):
    assert begin.wait(60)
    yield from read(*arguments, **options)

  monkeypatch.setattr(analyst, "read", slow)
  data = video.read_bytes()
  names = [_send(client, data).json()["name"] for _ in range(2)]
  assert client.get(f"/videos/{names[1]}").json()["state"] == jobs.WAITING
  busy = _send(client, data)
  assert busy.status_code == 503 and "2 videos are waiting" in busy.json()["error"]
  assert client.delete(f"/videos/{names[0]}").status_code == 204  # It ends where it is.
  begin.set()
  assert _wait(client, names[1])["state"] == jobs.DONE
  assert client.get(f"/videos/{names[0]}").status_code == 404
  third, fourth = (_send(client, data).json()["name"] for _ in range(2))
  assert _wait(client, fourth)["state"] == jobs.DONE
  assert client.get(f"/videos/{names[1]}").status_code == 404  # Two are kept.
  assert client.get(f"/videos/{third}").status_code == 200


def test_only_this_server_is_answered(client, video):
  """A name that leads here, or a page elsewhere, gets nothing and changes nothing."""
  data = video.read_bytes()
  for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1"):
    answer = client.get("/model", headers={"host": host})
    assert answer.status_code == 403, host
    assert "answers to 127.0.0.1, localhost alone" in answer.json()["error"]
  # By its address, which the system says, not by another one.
  other = testclient.TestClient(client.app, base_url="http://10.1.2.3:8000")
  assert other.get("/model").status_code == 200
  assert other.get("/model", headers={"host": "10.1.2.4:8000"}).status_code == 403
  assert client.get("/model", headers={"host": "LOCALHOST:8000"}).status_code == 200
  for header, value in (
    ("origin", "http://evil.example"),
    ("origin", "null"),
    ("origin", "http://127.0.0.1:9999"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-site", "same-site"),
  ):
    assert _send(client, data, **{header: value}).status_code == 403, value
    assert client.delete("/videos/x", headers={header: value}).status_code == 403
  assert _send(client, data, origin=HERE).status_code == 202


def test_the_page_loads_nothing_from_elsewhere(client):
  answer = client.get("/")
  policy = answer.headers["content-security-policy"]
  assert policy.startswith("default-src 'none'; script-src 'sha256-")
  assert "unsafe" not in policy and "http" not in policy
  assert not re.search(r"https?://|url\(|@import|<link rel=.stylesheet|src=\"http", answer.text)
  assert not re.search(r"innerHTML|eval\(|document\.write", answer.text)
  assert answer.headers["x-content-type-options"] == "nosniff"
  model = client.get("/model").json()
  assert model["clips"]["count"] == 11 and not model["why_no_maps"]


def test_a_checkpoint_without_that_space_has_labels_alone(finished):
  """No clips, no maps where neither is to be had; both say why."""
  weights = weight_files.read_weights(finished[0])
  card = {**weights.card, "stage": "joint"}
  ego = {k: v for k, v in weights.params[types.EGO].items() if k != "projection"}
  plain = dataclasses.replace(weights, params={types.EGO: ego}, card=card)
  analyst = analysis.Analyst(plain, cut=CUT)
  assert "no projection into the text space" in analyst.why_no_clips
  assert not analyst.why_no_maps


def test_the_command_says_what_is_wrong(finished, tiny_exo, capsys):
  def error(*arguments):
    assert main([f"--checkpoint={finished[0]}", "--port=0", *arguments]) == 2
    return capsys.readouterr().err

  with socket.create_server(("127.0.0.1", 0)) as taken:
    port = taken.getsockname()[1]
    assert f"Port {port} is in use already" in error(f"--port={port}")
  assert "--port must be between 0 and 65535" in error("--port=70000")
  assert "no address of this machine" in error("--host=no.such.host.invalid")
  assert "--max_megabytes and --max_seconds must be positive" in error("--max_seconds=0")
  assert "names no split" in error(f"--clips={tiny_exo}")
  assert "--top and --neighbours must be 1 or more" in error("--top=0")
  assert "window and stride must be positive" in error("--window=0")


@contextlib.contextmanager
def _running(analyst, limit):
  """The server in a thread; its address."""
  listener = socket.create_server(("127.0.0.1", 0))
  app = web_app.make_app(read_page(), analyst, limit=limit, hosts={"127.0.0.1"})
  server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
  thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
  thread.start()
  try:
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
  finally:
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(name="driver", scope="module")
def driver_fixture():
  with browsers.open_browser() as driver:
    yield driver


_LOADED = "return [...document.images].every(i => i.complete && i.naturalWidth > 10)"


@browsers.needed
def test_in_a_browser(driver, analyst, video, tmp_path):
  """Somebody drops a letter, then a large file, then a video, and moves through it."""
  one = lambda selector: driver.find_element(by.By.CSS_SELECTOR, selector)
  every = lambda selector: driver.find_elements(by.By.CSS_SELECTOR, selector)

  def wait(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
      assert time.monotonic() < deadline, what
      time.sleep(0.05)

  def drop(path):
    one("#file").send_keys(str(path))

  letter, large = tmp_path / "letter.mp4", tmp_path / "large.mp4"
  letter.write_text("no video\n" * 30)
  large.write_bytes(bytes(300_000))
  with _running(analyst, LIMIT) as address:
    for scheme, channel in (("dark", 21), ("light", 255)):
      media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
      driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
      driver.get(address)
      color = "return getComputedStyle(document.body).backgroundColor"
      assert f"({channel}," in driver.execute_script(color)
    wait(lambda: "verb" in one("#about").text, "the network is named")
    drop(letter)
    wait(lambda: one("#error").text.startswith("letter.mp4: The video"), "an error for a letter")
    assert not one("#results").is_displayed()
    drop(large)
    wait(
      lambda: "has 0.3 MB, and at most 0.2 MB" in one("#error").text, "an error for a large file"
    )
    drop(video)
    wait(lambda: one("#results").is_displayed(), "results")
    wait(lambda: not one("#work").is_displayed(), "an end")
    assert not one("#error").is_displayed()
    lanes = [lane.text.split("\n")[0] for lane in every(".lane > span:first-child")]
    assert lanes[:3] == ["verb", "noun", "action"]
    windows = int(one("#window").get_attribute("max")) + 1
    assert windows == 5
    for number in (0, windows - 1):
      move = "const e = document.getElementById('window'); e.value = arguments[0];"
      driver.execute_script(move + "e.dispatchEvent(new Event('input'))", number)
      own = f'#maps img[src*="/{number}/frames"]'
      # The pictures of this window, not those of the one before.
      wait(lambda own=own: every(own) and len(every("#maps img")) == 3, "pictures")
      assert len(every("#clips img")) == 2
      wait(lambda: driver.execute_script(_LOADED), "pictures that are loaded")
      start = number * CUT.stride
      assert one("#window-title").text == f"0:{start:04.1f} to 0:{start + 1:04.1f}"
      assert all(len(image.get_attribute("alt")) > 10 for image in every("img"))
    # Each name of a window's best class is in its lane.
    assert {part.text for part in every(".part")} >= {
      score.find_element(by.By.CSS_SELECTOR, "span").text
      for score in every("#scores > div > .score:nth-child(2)")
    }
    assert driver.get_log("browser") == []
    sources = "return performance.getEntriesByType('resource').map(e => e.name)"
    names = driver.execute_script(sources)
    assert all(name.startswith((address, "data:", f"blob:{address}")) for name in names)
    for width in (390, 1200):
      size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == 390}
      driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
      widths = "return [document.documentElement.scrollWidth, window.innerWidth]"
      wide, inner = driver.execute_script(widths)
      assert wide <= inner == width
