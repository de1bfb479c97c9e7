"""What can be predicted on, and what is wrong with it."""

from __future__ import annotations

import tarfile

import av
from av.stream import Disposition
import numpy as np
import pytest

from sum_l_jax.prediction import best_labels
from sum_l_jax.prediction import video_sources
from sum_l_jax.video import container
from sum_l_jax.video import decode
from sum_l_jax.video import jpeg
from sum_l_jax.video import media
from tests.support import numbered_video
from tests.support import predicted_videos


@pytest.mark.parametrize(
  "frames, fps, text",
  [
    (np.zeros((4, 8, 8, 3), np.float32), 30, "uint8 RGB"),
    (np.zeros((4, 8, 8), np.uint8), 30, r"got uint8 \[4, 8, 8\]"),
    (np.zeros((0, 8, 8, 3), np.uint8), 30, "none of them 0"),
    (np.zeros((4, 8, 8, 3), np.uint8), None, "give fps"),
    (np.zeros((4, 8, 8, 3), np.uint8), 1e-9, "at least 0.001 and below 1000, got 1e-09"),
    (np.zeros((4, 8, 8, 3), np.uint8), 0, "at least 0.001"),
  ],
)
def test_arrays_that_are_no_video(model, frames, fps, text):
  with pytest.raises(ValueError, match=text):
    model.predict(frames, fps=fps)


@pytest.mark.parametrize("packed", [False, True])
def test_folders_and_tar_files_of_frames(model, tmp_path, packed):
  path = tmp_path / "frames"
  written = numbered_video.write_frames(path, range(1, 37))
  (path / "._frame_0000000001.jpg").write_bytes(b"not a picture")
  if packed:
    path = tmp_path / "frames.tar"
    with tarfile.open(path, "w") as tar:
      tar.add(tmp_path / "frames")
  cuts = predicted_videos.cut(video_sources.open_source(path, default_fps=12.0))
  # Small frames keep their bytes, as in a data set.
  assert [c.jpegs for c in cuts] == [
    [written[n] for n in range(s, s + 12)] for s in (1, 7, 13, 19, 25)
  ]
  images_ = [decode.decode_jpeg(jpeg) for jpeg in cuts[1].jpegs]
  expected = model.scores(images_)["verb"]
  found = model.predict(path, window=1.0, stride=0.5, top=3)
  assert found[3].scores == pytest.approx(sorted(expected)[::-1], rel=1e-4)
  # At half the rate the frames last twice as long.
  assert len(model.predict(path, fps=6, window=1.0, stride=1.0)) == 3 * 6


def test_frames_are_ordered_by_number_and_named_when_damaged(model, tmp_path):
  for number in range(1, 13):
    data = jpeg.encode(numbered_video.draw(number))
    (tmp_path / f"img{number}.jpg").write_bytes(data)
  (cut,) = predicted_videos.cut(video_sources.open_source(tmp_path, default_fps=12.0))
  assert [numbered_video.read(j) for j in cut.jpegs] == list(range(1, 13))
  (tmp_path / "img7.jpg").write_bytes(data[:100])
  with pytest.raises(ValueError, match="img7.jpg' is cut off"):
    model.predict(tmp_path)


def test_what_a_folder_stands_for(tmp_path):
  for name in (
    "b/2.MP4",
    "b/1.mkv",
    "a.mp4",
    "b/thumbnail.jpg",
    "._a.mp4",
    "notes.txt",
    ".cache/x.mp4",
    "c/frame_01.jpg",
  ):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
  found, left_out = video_sources.find([tmp_path, "nowhere.mp4", tmp_path / "notes.txt"])
  assert [str(path.relative_to(tmp_path)) for path in left_out] == ["b/thumbnail.jpg", "notes.txt"]
  assert [str(path.relative_to(tmp_path)) for path in found[:4]] == [
    "a.mp4",
    "b/1.mkv",
    "b/2.MP4",
    "c",
  ]
  assert [str(p) for p in found[4:]] == ["nowhere.mp4", str(tmp_path / "notes.txt")]
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match="holds no videos .*no JPEG frames"):
    video_sources.find([tmp_path / "empty"])


# --- What is wrong with a file.


def _audio(path, *, cover=False):
  """A second of silence, with a cover picture if wanted."""
  with av.open(str(path), "w", format="mp4") as container:
    stream = container.add_stream("aac", rate=16000)
    if cover:
      picture = container.add_stream("png", rate=1)
      picture.width, picture.height, picture.pix_fmt = 64, 48, "rgb24"
      picture.disposition = Disposition.attached_pic
      image = np.zeros((48, 64, 3), np.uint8)
      container.mux(picture.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
      container.mux(picture.encode(None))
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = 16000
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return path


def test_bad_files_are_named(model, video, tmp_path):
  def error(path):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
      model.predict(path)
    assert str(path) in str(caught.value)
    return str(caught.value)

  assert "There is no video" in error(tmp_path / "nowhere.mp4")
  (tmp_path / "empty.mp4").write_bytes(b"")
  assert "is empty (0 bytes)" in error(tmp_path / "empty.mp4")
  assert "holds no video, only audio" in error(_audio(tmp_path / "a.m4a"))
  song = _audio(tmp_path / "song.m4a", cover=True)
  assert "only audio and a cover picture" in error(song)
  with pytest.raises(ValueError, match="only audio and a cover picture"):
    media.VideoFile(song)
  (tmp_path / "text.mp4").write_text("not a video")
  assert "can't be opened as a video" in error(tmp_path / "text.mp4")
  data = video.read_bytes()
  (tmp_path / "half.mp4").write_bytes(data[: len(data) // 2])
  assert "can't be opened as a video" in error(tmp_path / "half.mp4")
  playlist = tmp_path / "list.m3u8"
  playlist.write_text("#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1:9/x.ts\n")
  assert "can't be opened as a video" in error(playlist)
  # The header alone, then nothing.
  start = data.index(b"mdat")
  (tmp_path / "bare.mp4").write_bytes(data[: start + 4] + bytes(len(data) - start - 4))
  assert "can't be opened" in error(tmp_path / "bare.mp4")


def test_a_video_that_is_cut_off_gives_what_it_has(model, cut_off):
  *items, failure = model.stream([cut_off], window=1.0, stride=1.0)
  assert 6 <= len(items) <= 18
  assert isinstance(failure, best_labels.Failure)
  assert "it should last 10.00 s, decoding ends at" in str(failure.error)
  with pytest.raises(ValueError, match="is cut off or damaged"):
    model.predict(cut_off)


def test_frames_of_any_size_are_not_decoded(model, video, monkeypatch):
  monkeypatch.setattr(container, "MAX_PIXELS", 1000)
  with pytest.raises(ValueError, match="64 x 48 pixels, more than"):
    model.predict(video)
  # Larger than the header says: the decoder itself refuses.
  monkeypatch.setattr(container, "check_frame_size", lambda *_: None)
  with pytest.raises(ValueError, match="no frame that can be decoded"):
    model.predict(video)
