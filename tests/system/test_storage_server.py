"""Each client of Cloud Storage reads and writes through the server of the tests."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
import urllib.request

from array_record.python import array_record_module
from google.cloud import storage
import numpy as np
import pytest
import tensorstore

from tests.support import environments
from tests.support import storage_server

pytestmark = pytest.mark.slow


def test_epath_writes_what_the_next_one_lists(bucket):
  assert not bucket.exists()
  (bucket / "a" / "b.txt").write_text("first")
  assert [path.name for path in bucket.iterdir()] == ["a"]
  # Through another client, so that no cache can know of it.
  client = storage.Client()
  name = str(bucket / "a" / "c.txt").removeprefix("gs://tests/")
  client.bucket("tests").blob(name).upload_from_string("second")
  assert sorted(path.name for path in (bucket / "a").iterdir()) == ["b.txt", "c.txt"]
  assert (bucket / "a" / "c.txt").read_text() == "second"
  (bucket / "a" / "b.txt").unlink()
  assert client.bucket("tests").get_blob(name.replace("c.txt", "b.txt")) is None


def test_google_cloud_storage_keeps_checksums_and_generations(bucket):
  name = str(bucket / "object").removeprefix("gs://tests/")
  blob = storage.Client().bucket("tests").blob(name)
  blob.upload_from_string("first", if_generation_match=0)
  # What Cloud Storage keeps for every object.
  assert blob.crc32c == _crc32c(b"first")
  with pytest.raises(Exception, match="412"):
    blob.upload_from_string("second", if_generation_match=0)
  assert (bucket / "object").read_text() == "first"


def test_tensorstore_writes_a_database_of_arrays(bucket):
  spec = {
    "driver": "zarr",
    "kvstore": {"driver": "ocdbt", "base": f"{bucket}/arrays/", "path": "x/"},
  }
  wanted = np.arange(12, dtype=np.float32).reshape(3, 4)
  array = tensorstore.open(spec, create=True, dtype=wanted.dtype, shape=wanted.shape).result()
  array.write(wanted).result()
  # Not from a cache: with a context of its own.
  again = tensorstore.open(spec, context=tensorstore.Context()).result()
  np.testing.assert_array_equal(again.read().result(), wanted)
  assert (bucket / "arrays" / "manifest.ocdbt").exists()


def test_array_record_reads_a_shard(bucket, tmp_path):
  records = [os.urandom(100) for _ in range(10)]
  local = tmp_path / "shard.array_record"
  writer = array_record_module.ArrayRecordWriter(str(local), "group_size:1")
  for record in records:
    writer.write(record)
  writer.close()
  shard = bucket / local.name
  shard.write_bytes(local.read_bytes())
  reader = array_record_module.ArrayRecordReader(str(shard))
  assert reader.num_records() == 10
  assert reader.read([7, 2]) == [records[7], records[2]]
  reader.close()


def test_each_test_has_an_empty_folder(bucket):
  assert not bucket.exists()


def test_it_ends_with_the_process_that_started_it():
  """Also when that is killed, and cannot stop it."""
  program = (
    "from tests.support import storage_server; import time\n"
    "print(storage_server.StorageServer().url, flush=True); time.sleep(600)"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", program],
    cwd=environments.ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  url = process.stdout.readline().strip()
  with urllib.request.urlopen(url + "/storage/v1/b"):
    pass
  process.send_signal(signal.SIGKILL)
  process.wait()
  end = time.monotonic() + 60
  while time.monotonic() < end:
    try:
      urllib.request.urlopen(url + "/storage/v1/b", timeout=5).close()
    except OSError:
      return
    time.sleep(0.05)
  raise AssertionError("the server goes on")


def test_the_command_prints_what_a_shell_needs(storage_url):
  """`make storage`, as a reader of the documents starts it."""
  process = subprocess.Popen(
    [
      sys.executable,
      "-m",
      "tests.support.storage_server",
      "--port=0",
      "--bucket=trial",
    ],
    cwd=environments.ROOT,
    stdout=subprocess.PIPE,
    text=True,
    env={k: v for k, v in os.environ.items() if k not in storage_server.environment("")},
  )
  lines = []
  while len(lines) < 1 + len(storage_server.environment("")):
    lines.append(process.stdout.readline())
  assert "gs://trial" in lines[0]
  shell = "\n".join([*lines, "exec env"])
  shown = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True, env={})
  exported = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
  url = exported["STORAGE_EMULATOR_HOST"]
  assert url != storage_url
  assert {k: exported[k] for k in storage_server.environment(url)} == storage_server.environment(
    url
  )
  with urllib.request.urlopen(f"{url}/storage/v1/b/trial"):
    pass
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=60) == 0


def _crc32c(data: bytes) -> str:
  """CRC-32C as Cloud Storage writes it, bit by bit."""
  value = 0xFFFFFFFF
  for byte in data:
    value ^= byte
    for _ in range(8):
      value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
  return base64.b64encode((value ^ 0xFFFFFFFF).to_bytes(4, "big")).decode()
