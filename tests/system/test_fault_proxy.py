"""The proxy that injects faults does what its kinds say."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request

from google.cloud import storage
import pytest

from tests.support import fault_proxy
from tests.support import storage_server


@pytest.fixture(name="proxy")
def proxy_fixture(storage_url, monkeypatch):
  with fault_proxy.FaultProxy(storage_url, seconds=0.0) as proxy:
    for name, value in storage_server.environment(proxy.url).items():
      monkeypatch.setenv(name, value)
    yield proxy


def _upload(url: str, name: str, data: bytes) -> None:
  address = f"{url}/upload/storage/v1/b/tests/o?uploadType=media&name={name}"
  request = urllib.request.Request(
    address, data, {"Content-Type": "application/octet-stream"}, method="POST"
  )
  with urllib.request.urlopen(request) as answer:
    answer.read()


def _download(url: str, name: str) -> bytes:
  name = urllib.parse.quote(name, safe="")
  with urllib.request.urlopen(f"{url}/storage/v1/b/tests/o/{name}?alt=media") as answer:
    return answer.read()


@pytest.mark.parametrize(
  "kind, is_done", [(k, k in ("lost", "short", "slow")) for k in fault_proxy.KINDS]
)
def test_a_fault_comes_before_or_after_the_work(kind, is_done, bucket, proxy, storage_url):
  name = f"{bucket.name}/{kind}"
  proxy.planned.append(kind)
  if kind == "slow":
    _upload(proxy.url, name, b"x" * 100)
  else:
    with pytest.raises((OSError, http.client.HTTPException)) as error:
      _upload(proxy.url, name, b"x" * 100)
      _download(proxy.url, name)
    if kind.isdecimal():
      assert isinstance(error.value, urllib.error.HTTPError) and error.value.code == int(kind)
  assert proxy.faults == {kind: 1}
  assert (bucket / kind).exists() == is_done
  # The next request meets nothing.
  _upload(proxy.url, name, b"y" * 100)
  assert _download(storage_url, name) == _download(proxy.url, name) == b"y" * 100


def test_half_of_an_answer_is_no_answer(bucket, proxy):
  _upload(proxy.url, f"{bucket.name}/a", b"x" * 100)
  proxy.planned.append("short")
  with pytest.raises((http.client.IncompleteRead, ConnectionError)):
    _download(proxy.url, f"{bucket.name}/a")


def test_bytes_stay_as_they_are_and_addresses_are_the_proxys(bucket, proxy, storage_url):
  data = json.dumps({"server": storage_url}).encode() * 20_000
  blob = storage.Client().bucket("tests").blob(f"{bucket.name}/a.json")
  # In parts: their address is in the server's first answer.
  with blob.open("wb", chunk_size=256 * 1024, content_type="application/json") as file:
    file.write(data)
  assert proxy.requests >= 1 + len(data) // (256 * 1024)
  again = storage.Client().bucket("tests").get_blob(blob.name)
  assert again.media_link.startswith(proxy.url)
  assert again.download_as_bytes() == data == _download(storage_url, blob.name)


def test_the_end_of_an_upload_may_be_asked_for_twice(bucket, proxy):
  """As Cloud Storage allows it, for whom the first answer was lost."""
  address = f"{proxy.url}/upload/storage/v1/b/tests/o?uploadType=resumable&name={bucket.name}/a"
  request = urllib.request.Request(address, b"{}", {"Content-Type": "application/json"})
  with urllib.request.urlopen(request) as answer:
    session = answer.headers["Location"]
  last = urllib.request.Request(session, b"abc", {"Content-Range": "bytes 0-2/3"}, method="PUT")
  proxy.planned.append("lost")
  with pytest.raises((OSError, http.client.HTTPException)):
    urllib.request.urlopen(last)
  with urllib.request.urlopen(last) as answer:
    assert json.load(answer)["size"] == "3"
  assert _download(proxy.url, f"{bucket.name}/a") == b"abc"


def test_the_share_is_met(bucket, storage_url):
  with fault_proxy.FaultProxy(storage_url, share=0.3, seed=3, kinds=("503",)) as proxy:
    failed = 0
    for _ in range(300):
      try:
        _upload(proxy.url, f"{bucket.name}/a", b"x")
      except urllib.error.HTTPError:
        failed += 1
    assert failed == proxy.faults["503"] and proxy.requests == 300
    # Five standard deviations.
    assert abs(failed - 90) < 40


def test_in_a_process_of_its_own(bucket, storage_url):
  process, url = fault_proxy.start_process(storage_url, share=1.0, seed=0)
  for _ in range(20):
    try:
      _upload(url, f"{bucket.name}/a", b"x")
    except (OSError, http.client.HTTPException):
      pass
  with urllib.request.urlopen(url + fault_proxy.COUNTS) as answer:
    counts = json.load(answer)
  assert counts["requests"] == sum(counts["faults"].values()) == 20
  assert len(counts["faults"]) > 3
  process.stdin.close()
  assert process.wait(timeout=60) == 0
