"""Data sets built in a bucket: what is uploaded when, and after interruptions."""

from __future__ import annotations

import csv
import functools
import pathlib

import pytest

from data_prep import build_dataset
from data_prep import merge_datasets
from data_prep.clips import clip_dataset
from data_prep.clips import clip_shards
from sum_l_jax.data import records
from sum_l_jax.system import storage
from tests.support import numbered_video

pytestmark = pytest.mark.slow

_CLIPS = 6


class _Stopped(BaseException):
  """The end of a process, as far as it can be had without ending this one."""


@pytest.fixture
def media(tmp_path, monkeypatch) -> pathlib.Path:
  """A folder with two videos, of which a shard holds two clips."""
  monkeypatch.setattr(clip_shards, "SHARD_BYTES", 15_000)
  folder = tmp_path / "media"
  folder.mkdir()
  for name in "ab":
    numbered_video.write_video(folder / f"{name}.mp4", list(range(90)))
  return folder


def _manifest(folder: pathlib.Path, clips: int = _CLIPS, name: str = "all") -> pathlib.Path:
  path = folder / f"{name}.csv"
  with path.open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["clip_id", "path", "start_seconds", "stop_seconds", "narration", "verb"])
    for number in range(clips):
      half, place = divmod(number, _CLIPS // 2)
      video = "ab"[half % 2]
      writer.writerow(
        [f"{name}{number}", f"{video}.mp4", 0.7 * place, 0.7 * place + 0.5, "cut", "x"]
      )
  return path


def _build(manifest, media, output, *options, status: int = 0) -> None:
  arguments = [
    *("--dataset=manifest", "--view=exo", "--processes=1", "--split=train", "--name=clips"),
    *(f"--annotations={manifest}", f"--media={media}", f"--output={output}", *options),
  ]
  assert build_dataset.main(arguments) == status


def _contents(folder) -> dict[str, bytes]:
  return {name: path.read_bytes() for name, path in storage.files_below(folder).items()}


def _counted(monkeypatch, name: str, stop_at: int = 0) -> list[str]:
  """The names of files for which a function of the door is called; the last one fails."""
  called = []
  original = getattr(storage, name)

  @functools.wraps(original)
  def count(source, target):
    called.append(pathlib.PurePosixPath(str(target)).name)
    if len(called) == stop_at:
      raise _Stopped
    return original(source, target)

  monkeypatch.setattr(storage, name, count)
  return called


def test_it_is_what_a_disk_gets(media, bucket, tmp_path, monkeypatch, capsys):
  for name in "ab":
    storage.upload(media / f"{name}.mp4", bucket / "media" / f"{name}.mp4")
  manifest = _manifest(tmp_path)
  storage.upload(manifest, bucket / "all.csv")
  _build(manifest, media, tmp_path / "local")
  scratch = tmp_path / "scratch"
  scratch.mkdir()
  monkeypatch.setattr("tempfile.tempdir", None)
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  downloads = _counted(monkeypatch, "download")
  uploads = _counted(monkeypatch, "upload")
  output = bucket / "set"
  _build(bucket / "all.csv", bucket / "media", output, f"--scratch={scratch}")
  assert _contents(output) == _contents(tmp_path / "local")
  assert sorted(downloads) == ["a.mp4", "b.mp4"]
  shards = [name for name in uploads if "array_record" in name]
  assert len(shards) == len(set(shards)) > 2
  assert uploads[-2:] == ["dataset_info.json", "card.json"]
  assert not list(scratch.iterdir())
  assert not storage.exists(clip_dataset.parts_folder(output))
  capsys.readouterr()
  _build(bucket / "all.csv", bucket / "media", output, "--list")
  assert "2 videos there (6 clips), 2 built (6 clips), 0 missing" in capsys.readouterr().out


@pytest.mark.parametrize("stop_at", [2, 4, 6])
def test_after_an_interruption_nothing_is_uploaded_twice(
  stop_at, media, bucket, tmp_path, monkeypatch
):
  """The uploads: three or more shards, the index, two descriptions, the card."""
  manifest, output = _manifest(tmp_path), bucket / "set"
  with monkeypatch.context() as patch:
    _counted(patch, "upload", stop_at)
    with pytest.raises(_Stopped):
      _build(manifest, media, output)
  with pytest.raises(FileNotFoundError, match="No clip data set"):
    records.read_card(output)
  there = set(storage.names(output))
  uploads = _counted(monkeypatch, "upload")
  _build(manifest, media, output)
  assert not {name for name in uploads if "array_record" in name} & there
  _build(manifest, media, tmp_path / "local")
  assert _contents(output) == _contents(tmp_path / "local")


def test_a_shard_that_was_changed_is_made_again(media, bucket, tmp_path, monkeypatch):
  manifest, output = _manifest(tmp_path), bucket / "set"
  with monkeypatch.context() as patch:
    _counted(patch, "upload", 4)
    with pytest.raises(_Stopped):
      _build(manifest, media, output)
  changed = next(name for name in storage.names(output) if "array_record" in name)
  storage.write_bytes(output / changed, b"x" * storage.size(output / changed))
  _build(manifest, media, output)
  _build(manifest, media, tmp_path / "local")
  assert _contents(output) == _contents(tmp_path / "local")


def test_it_grows_and_is_readable_all_the_time(media, bucket, tmp_path, monkeypatch):
  manifest, output = _manifest(tmp_path, 3), bucket / "set"
  _build(manifest, media, output)
  before = records.ClipDataset(output, "train")
  frames = before.read_frames(2, [0, 5])
  versions = {p: storage.version(output / p) for p in storage.names(output) if "array_record" in p}
  _manifest(tmp_path)
  # The index and the descriptions are there by the last upload, and the card is not.
  count = 1
  while True:
    with monkeypatch.context() as patch:
      uploads = _counted(patch, "upload", count)
      try:
        _build(manifest, media, output)
      except _Stopped:
        pass
      else:
        break
    now = records.ClipDataset(output, "train")
    assert (len(now), now.fingerprint) == (3, before.fingerprint)
    assert now.read_frames(2, [0, 5]) == frames
    count = len(uploads) + 1
    if count > 4:  # Straight to the card, the last one.
      count = 4
      with monkeypatch.context() as patch:
        original = storage.upload
        patch.setattr(storage, "upload", functools.partial(_not_the_card, original))
        with pytest.raises(_Stopped):
          _build(manifest, media, output)
      now = records.ClipDataset(output, "train")
      assert (len(now), now.fingerprint) == (3, before.fingerprint)
      _build(manifest, media, output)
      break
  after = records.ClipDataset(output, "train")
  assert len(after) == _CLIPS and after.read_frames(2, [0, 5]) == frames
  assert {p: storage.version(output / p) for p in versions} == versions
  for part in (3, _CLIPS):
    _manifest(tmp_path, part)
    _build(manifest, media, tmp_path / "local")
  assert _contents(output) == _contents(tmp_path / "local")


def _not_the_card(upload, source, target) -> None:
  if pathlib.PurePosixPath(str(target)).name == "card.json":
    raise _Stopped
  upload(source, target)


def test_merging_copies_inside_the_bucket(media, bucket, tmp_path, monkeypatch):
  for name in ("first", "second"):
    _build(_manifest(tmp_path, name=name), media, bucket / name)
  places = [bucket / "first", bucket / "second"]
  downloads = _counted(monkeypatch, "download")
  uploads = _counted(monkeypatch, "upload")
  merge_datasets.merge_datasets(places, bucket / "both")
  assert not downloads and not [name for name in uploads if "array_record" in name]
  merged = records.ClipDataset(bucket / "both", "train")
  parts = [records.ClipDataset(place, "train") for place in places]
  assert [c.clip_id for c in merged.clips] == [c.clip_id for part in parts for c in part.clips]
  assert merged.read_frames(_CLIPS, [1]) == parts[1].read_frames(0, [1])
  with pytest.raises(ValueError, match="exists. Give a new folder"):
    merge_datasets.merge_datasets(places, bucket / "both")
  with pytest.raises(ValueError, match="occur in another"):
    merge_datasets.merge_datasets([places[0], places[0]], bucket / "twice")
  assert not storage.names_below(bucket / "twice")


def test_a_folder_of_something_else_is_refused(media, bucket, tmp_path, capsys):
  storage.write_text(bucket / "set" / "notes.txt", "mine")
  _build(_manifest(tmp_path), media, bucket / "set", status=2)
  assert "is no clip data set" in capsys.readouterr().err
  assert storage.names(bucket / "set") == ["notes.txt"]
