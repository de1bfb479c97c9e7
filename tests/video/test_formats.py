"""Whatever a file is called, no other file is read: containers by an allow-list."""

from __future__ import annotations

import os
import pathlib

import av
from av.format import ContainerFormat
import numpy as np
import pytest

from sum_l_jax.prediction import video_sources
from sum_l_jax.video import container
from sum_l_jax.video import film
from sum_l_jax.video import media
from tests.support import numbered_video

_NUMBER = 2741

# Texts that make FFmpeg read other files, if it may.
_PLAYLISTS = {
  "concat": "ffconcat version 1.0\nfile secret.ts\n",
  "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
  "dash": (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
    ' mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="0" bandwidth="1">'
    "<BaseURL>secret.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>"
  ),
  "imf": (
    '<?xml version="1.0"?><CompositionPlaylist'
    ' xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>urn:uuid:0</Id>'
    "<ContentTitle>secret.mxf</ContentTitle><EditRate>30 1</EditRate></CompositionPlaylist>"
  ),
  "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
  "vobsub": "# VobSub index file, v7 (do not modify this line!)\ntimestamp: 00:00:00:000\n",
  "tty": "secret secret secret\n" * 40,
  "webm_dash_manifest": "secret.mkv",
  "svg_pipe": '<svg xmlns="http://www.w3.org/2000/svg"><image href="secret.jpg"/></svg>',
}


@pytest.fixture(scope="module", name="folder")
def folder_fixture(tmp_path_factory):
  """A folder with a file that must not be read, in several forms."""
  folder = tmp_path_factory.mktemp("formats")
  for name in ("secret.mp4", "secret.ts"):
    numbered_video.write_secret(folder / name, _NUMBER)
  return folder


def _demuxers():
  for name in sorted(av.formats_available):
    try:
      kind = ContainerFormat(name, "r")
    except ValueError:
      continue
    yield name, sorted(kind.extensions) or name.split(",")


def _is_allowed(name):
  return not container.FORMATS.keys().isdisjoint(name.split(","))


def _opened(path):
  """The format in which a file is opened, None where it is refused."""
  try:
    file = container.Container(path)
  except ValueError as error:
    assert "What is read: " in str(error) or "holds no video" in str(error)
    return None
  file.close()
  return file.file.format.name


def _written(folder, name):
  """A file of that format, if FFmpeg has a muxer of that name."""
  path = folder / "muxed"
  path.unlink(missing_ok=True)
  try:
    kind = ContainerFormat(name.split(",")[0], "w")
    if kind.flags & 1:
      return None  # Devices, and what writes several files.
    with av.open(str(path), "w", format=kind.name) as file:
      stream = file.add_stream(file.default_video_codec, rate=25)
      stream.width, stream.height = 64, 48
      for number in range(40):
        image = av.VideoFrame.from_ndarray(numbered_video.draw(number), "rgb24")
        file.mux(stream.encode(image.reformat(format=stream.pix_fmt)))
      file.mux(stream.encode(None))
  except (ValueError, OSError, av.error.FFmpegError):
    return None
  return path.read_bytes() if path.is_file() else None


def test_each_demuxer_under_its_own_suffix_and_as_mp4(folder):
  refused, read = set(), set()
  for name, suffixes in _demuxers():
    contents = [text.encode() for text in _PLAYLISTS.values()]
    own = _written(folder, name)
    for content in [*contents, own] if own else contents:
      for suffix in (suffixes[0], "mp4"):
        path = folder / f"x.{suffix}"
        path.write_bytes(content)
        kind = _opened(path)
        path.unlink()
        assert kind is None or _is_allowed(kind)
        if content is own:
          (read if kind else refused).add(name)
  # The containers of films are read, and others that FFmpeg can write are not.
  assert {"avi", "flv", "mpegts", "asf", "mxf"} <= read
  assert len(refused) >= 10 and not any(map(_is_allowed, refused))


@pytest.mark.parametrize("kind, suffix", [("concat", "mp4"), ("hls", "m3u8")])
def test_a_playlist_does_not_open_its_files(folder, kind, suffix):
  path = folder / f"list.{suffix}"
  path.write_text(_PLAYLISTS[kind])
  # FFmpeg itself would, with local files alone as well.
  with av.open(str(path), options={"protocol_whitelist": "file"}) as file:
    image = next(file.decode(video=0)).to_ndarray(format="rgb24")
  assert numbered_video.read(image) == _NUMBER
  with pytest.raises(ValueError, match=r"list.*can't be opened.*no playlists"):
    media.VideoFile(path)
  with pytest.raises(ValueError, match=r"list.*can't be opened.*no playlists"):
    video_sources.open_source(path, default_fps=30.0)


@pytest.mark.parametrize(
  "name", ["subfile,,start,0,end,9999,,:secret.mp4", "concat:secret.ts", "img%02d.mp4", "cache:x"]
)
def test_a_name_is_a_name(folder, monkeypatch, name):
  monkeypatch.chdir(folder)
  numbered_video.write_secret(folder / "img01.mp4", _NUMBER + 1)
  # There is no such file; what FFmpeg would make of the name doesn't matter.
  with pytest.raises(FileNotFoundError, match="There is no video"):
    media.VideoFile(pathlib.Path(name))
  # A video may be called so.
  os.link("secret.mp4", name)
  with media.VideoFile(pathlib.Path(name)) as video:
    assert numbered_video.read(video.read_clip(0.0, None)[0]) == _NUMBER
  os.unlink(name)


def test_mov_with_pictures_elsewhere(folder):
  # The place of the pictures is told by an alias instead of "in this file".
  data = bytearray((folder / "secret.mp4").read_bytes())
  at = data.index(b"url \0\0\0\1")
  data[at : at + 8] = b"alis\0\0\0\0"
  path = folder / "alias.mov"
  path.write_bytes(data)
  with media.VideoFile(path) as video:
    assert numbered_video.read(video.read_clip(0.0, None)[0]) == _NUMBER


def test_noise_is_refused(folder):
  path = folder / "noise.mp4"
  path.write_bytes(np.random.default_rng(0).bytes(20_000))
  assert _opened(path) is None


def test_a_film_may_have_a_colon_in_its_name(folder, monkeypatch):
  monkeypatch.chdir(folder)
  path = pathlib.Path("12:30:00.mp4")
  assert film.write(path, [(n / 10, numbered_video.draw(n)) for n in range(5)], fps=10.0) == 5
  with media.VideoFile(path) as video:
    assert [numbered_video.read(data) for data in video.read_clip(0.0, None)] == list(range(5))
