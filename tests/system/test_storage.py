"""The door to files: on a disk and in a bucket, the same promises."""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
import time
import zlib

from etils import epath
import google_crc32c
import pytest

import sum_l_jax
from sum_l_jax.data import records
from sum_l_jax.system import addresses
from sum_l_jax.system import buckets
from sum_l_jax.system import storage
from tests.support import environments

pytestmark = pytest.mark.slow


@pytest.fixture(params=["disk", "bucket"])
def place(request) -> epath.Path:
  """An empty folder of a disk, and one of a bucket."""
  if request.param == "bucket":
    return request.getfixturevalue("bucket")
  return epath.Path(request.getfixturevalue("tmp_path"))


def _start(code: str) -> subprocess.Popen:
  """A process of its own, which sees the same files."""
  return subprocess.Popen(
    [sys.executable, "-c", f"from sum_l_jax.system import storage\n{code}"],
    cwd=environments.ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


def _run(code: str) -> str:
  with _start(code) as process:
    out, _ = process.communicate()
  assert process.returncode == 0
  return out.strip()


def test_a_file_is_written_read_and_replaced(place):
  path = place / "a.txt"
  for text in ("first\n", "für\nzwei\n"):
    storage.write_text(path, text)
    assert storage.read_text(path) == text
    assert storage.read_bytes(path) == text.encode()
    assert storage.size(path) == len(text.encode())
    assert storage.is_file(path) and not storage.is_dir(path)
    with storage.open_binary(path) as file:
      file.seek(2)
      assert file.read(2) == text.encode()[2:4]
  assert storage.names(place) == ["a.txt"]
  assert storage.is_dir(place) and not storage.is_file(place)
  storage.remove(path)
  storage.remove(path)
  assert not storage.exists(path)
  with pytest.raises(FileNotFoundError):
    storage.read_bytes(path)
  with pytest.raises(FileNotFoundError):
    storage.size(path)


def test_a_file_is_replaced_at_the_end(place):
  path = place / "film.mp4"
  storage.write_text(path, "old")
  with storage.replacing(path) as scratch:
    assert scratch.suffix == ".mp4"
    scratch.write_text("new")
    assert storage.read_text(path) == "old"
  assert storage.read_text(path) == "new"
  assert storage.names(place) == ["film.mp4"]


@pytest.mark.parametrize("there", [False, True])
def test_an_error_leaves_what_was_there(there, place):
  path = place / "a.json"
  if there:
    storage.write_text(path, "old")

  def half():
    with storage.replacing(path) as scratch:
      scratch.write_text("ne")
      raise RuntimeError("half way")

  with pytest.raises(RuntimeError, match="half way"):
    half()
  with pytest.raises(UnicodeEncodeError):
    storage.write_text(path, "a\ud800")
  assert {n: storage.read_text(p) for n, p in storage.files_below(place).items()} == (
    {"a.json": "old"} if there else {}
  )


def test_one_of_several_processes_creates(place):
  code = (
    "import sys; from concurrent import futures\n"
    "sys.stdin.readline()\n"
    f"create = lambda data: storage.create({str(place / 'one')!r}, data)\n"
    "print(*futures.ThreadPoolExecutor(2).map(create, (b'%d', b'%d')))"
  )
  processes = [_start(code % (number, number + 1)) for number in range(0, 8, 2)]
  for process in processes:
    process.stdin.write("\n")
    process.stdin.flush()
  said = [word for process in processes for word in process.communicate()[0].split()]
  assert sorted(said) == ["False"] * 7 + ["True"]
  assert storage.read_bytes(place / "one") == b"%d" % said.index("True")
  # The answer to the first try was lost: its own data is there.
  assert storage.create(place / "one", b"%d" % said.index("True"))


def test_what_another_process_does_is_seen_at_once(place):
  storage.write_text(place / "a", "1")
  before = storage.version(place / "a")
  assert storage.names(place) == ["a"]
  _run(
    f"storage.write_text({str(place / 'b')!r}, 'x')\nstorage.write_text({str(place / 'a')!r}, '22')"
  )
  assert storage.names(place) == ["a", "b"]
  assert storage.version(place / "a") != before
  assert (storage.size(place / "a"), storage.read_text(place / "a")) == (2, "22")
  _run(f"storage.remove({str(place / 'b')!r})")
  assert storage.names(place) == ["a"] and not storage.exists(place / "b")


NAMES = ["a~", "b [1].txt", "c*?.txt", "d#{x}%20.txt", "e ü.txt"]


def test_names_are_taken_as_they_are(place):
  folder = place / "f [x]*"
  if not addresses.is_remote(place):
    folder.mkdir()
    (folder / "below").mkdir()
  for name in NAMES:
    storage.write_text(folder / name, name)
  storage.write_text(folder / "below" / "g.txt", "g")
  assert storage.names(folder) == sorted([*NAMES, "below"])
  assert list(storage.files_below(folder)) == sorted([*NAMES, "below/g.txt"])
  assert [storage.read_text(folder / name) for name in NAMES] == NAMES
  assert [p.name for p in storage.matching(folder, "*.txt")] == sorted(NAMES[1:])
  assert [p.name for p in storage.matching(folder, "*/*.txt")] == ["g.txt"]
  storage.remove(folder / NAMES[2])
  storage.remove_tree(folder / "below")
  assert storage.names(folder) == sorted(set(NAMES) - {NAMES[2]})
  storage.remove_tree(folder)
  assert not storage.exists(folder)
  storage.remove_tree(folder)


def test_a_folder_appears_with_its_last_file(place, monkeypatch):
  uploads = []
  original = storage.upload
  monkeypatch.setattr(
    storage, "upload", lambda source, to: (uploads.append(to.name), original(source, to))
  )
  with storage.new_folder(place / "new", last="card") as folder:
    storage.write_text(folder / "card", "c")
    storage.write_text(folder / "zzz", "z")
    assert not storage.exists(place / "new")
  assert storage.names(place / "new") == ["card", "zzz"]
  assert storage.names(place) == ["new"]
  assert uploads == (["zzz", "card"] if addresses.is_remote(place) else [])
  with (
    pytest.raises(FileExistsError, match="another process"),
    storage.new_folder(place / "new", last="card") as folder,
  ):
    storage.write_text(folder / "card", "other")
  assert storage.read_text(place / "new" / "card") == "c"
  with (
    pytest.raises(RuntimeError),
    storage.new_folder(place / "half", last="card") as folder,
  ):
    storage.write_text(folder / "zzz", "z")
    raise RuntimeError
  assert not storage.exists(place / "half")


def test_no_bucket_is_made(bucket):
  """As its client would where the name of one is misspelt."""
  storage.make_folder("gs://misspelt/runs/a")
  with pytest.raises(FileNotFoundError):
    storage.names("gs://misspelt")


@pytest.mark.parametrize("option", sorted(addresses.LOCAL_OPTIONS))
def test_what_must_be_local_says_so(option):
  for arguments in ([f"{option}=gs://tests/x"], [option, "gs://tests/x"]):
    with pytest.raises(ValueError, match=f"^{option}='gs://tests/x' must be on a local.*disk"):
      addresses.check_arguments(arguments)


def test_local_copies_and_their_errors(place):
  storage.write_text(place / "a.mp4", "film")
  with storage.local_copy(place / "a.mp4") as copy:
    assert copy.read_text() == "film" and copy.name == "a.mp4"
  assert copy.exists() != addresses.is_remote(place)
  with (
    pytest.raises(ValueError, match=f"^{place}/a.mp4 is bad$"),
    storage.local_copy(place / "a.mp4") as copy,
  ):
    raise ValueError(f"{copy} is bad")
  with pytest.raises(FileNotFoundError), storage.local_copy(place / "b.mp4"):
    pass
  with storage.local_folder(place) as folder:
    assert [path.name for path in folder.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("to", ["disk", "bucket"])
def test_copies(to, place, bucket, tmp_path):
  target = (bucket if to == "bucket" else epath.Path(tmp_path)) / "target"
  data = bytes(range(256)) * 10
  storage.write_bytes(place / "source", data)
  storage.copy(place / "source", target)
  assert storage.read_bytes(target) == data
  if to == "bucket":
    before = storage.version(target)
    storage.copy(place / "source", target)
    assert storage.version(target) == before  # It is there already.
    checksum = google_crc32c.Checksum(data).digest()
    assert storage.crc32c(target) == base64.b64encode(checksum).decode()
    storage.write_bytes(place / "source", data[::-1])
    storage.copy(place / "source", target)
    assert storage.read_bytes(target) == data[::-1]


def test_listings_are_kept_where_asked_for(place, monkeypatch):
  for name in ("a/x.mp4", "a/y.mp4", "b.mp4"):
    if not addresses.is_remote(place):
      (place / name).parent.mkdir(exist_ok=True)
    storage.write_text(place / name, name)
  version = storage.version(place / "a")
  asked = []
  for name in ("ask", "listed"):
    original = getattr(buckets, name)
    monkeypatch.setattr(buckets, name, lambda p, f=original: (asked.append(p), f(p))[1])
  with buckets.listings_kept():
    for _ in range(3):
      assert storage.is_dir(place / "a") and not storage.is_dir(place / "a" / "x.mp4")
      assert storage.is_file(place / "a" / "x.mp4") and not storage.is_file(place / "c")
      assert storage.names(place / "a") == ["x.mp4", "y.mp4"]
      assert storage.size(place / "a" / "y.mp4") == 7
      assert storage.exists(place / "b.mp4") and not storage.exists(place / "a" / "z")
  assert len(asked) == (2 if addresses.is_remote(place) else 0)
  storage.write_text(place / "a" / "z.mp4", "new")
  assert storage.exists(place / "a" / "z.mp4") and storage.version(place / "a") != version


def test_a_kill_while_uploading_leaves_the_old_object(bucket, tmp_path):
  """Whether the request was begun or not, the object is the old or the new one."""
  path = bucket / "big"
  storage.write_bytes(path, b"old")
  size = 120 << 20
  for wait in (0.0, 0.15, 0.4):
    with _start(
      "import pathlib\n"
      f"pathlib.Path({str(tmp_path / 'big')!r}).write_bytes(b'n' * {size})\n"
      "print('ready', flush=True)\n"
      f"storage.upload({str(tmp_path / 'big')!r}, {str(path)!r})\n"
    ) as process:
      process.stdout.readline()
      time.sleep(wait)
      process.send_signal(signal.SIGKILL)
    data = storage.read_bytes(path)
    assert data == b"old" or (len(data), zlib.crc32(data)) == (size, zlib.crc32(b"n" * size))
    storage.write_bytes(path, b"old")
  assert storage.names(bucket) == ["big"]


_OTHER = "s3://mine/set"


@pytest.mark.parametrize(
  "enter",
  [
    addresses.path,
    addresses.absolute,
    addresses.resolved,
    addresses.local,
    sum_l_jax.load,
    sum_l_jax.load_exported,
    records.read_card,
  ],
)
def test_other_kinds_of_addresses_are_refused(enter, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match=r"kind s3:.*Mount the bucket \(Mountpoint"):
    enter("s3://mine/set")
  assert not list(tmp_path.iterdir())
