"""Clips out of JPEG frames: the right files, their bytes kept."""

from __future__ import annotations

import math
import tarfile

import pytest
import simplejpeg

from sum_l_jax.video import frame_files
from tests.support import numbered_video


def _read(folder, first, last, **options):
  options = {"frames_fps": 60.0, "fps": 60.0, "short_side": 256, **options}
  return frame_files.read_clip(folder, first, last, **options)


def test_bytes_pass_unchanged(tmp_path):
  written = numbered_video.write_frames(tmp_path, range(1, 40))
  got = _read(tmp_path, 5, 12)
  assert got == [written[n] for n in range(5, 13)]
  assert [numbered_video.read(jpeg) for jpeg in got] == list(range(5, 13))


@pytest.mark.parametrize(
  "fps, numbers",
  [
    (30.0, [3, 5, 7, 9, 11]),
    (20.0, [3, 6, 9, 12]),
    (25.0, [3, 5, 8, 10, 12]),
    (120.0, [n for n in range(3, 13) for _ in range(2)]),
  ],
)
def test_other_rates(tmp_path, fps, numbers):
  written = numbered_video.write_frames(tmp_path, range(1, 30))
  got = _read(tmp_path, 3, 12, fps=fps)
  assert got[: len(numbers)] == [written[n] for n in numbers]
  # Ten files last a sixth of a second.
  assert len(got) == math.ceil(fps / 6)


def test_large_frames_shrink(tmp_path):
  written = numbered_video.write_frames(tmp_path, range(1, 6), cell=40)
  got = _read(tmp_path, 2, 4, short_side=64)
  assert simplejpeg.decode_jpeg_header(got[0])[:2] == (64, 86)
  assert [numbered_video.read(jpeg) for jpeg in got] == [2, 3, 4]
  kept = _read(tmp_path, 2, 4, short_side=120)
  assert kept == [written[n] for n in (2, 3, 4)]


def test_end_of_the_folder(tmp_path):
  numbered_video.write_frames(tmp_path, range(1, 101))
  assert len(_read(tmp_path, 91, 130)) == 10  # Up to half a second is missing.
  for first, last in ((91, 131), (101, 110)):
    with pytest.raises(FileNotFoundError) as error:
      _read(tmp_path, first, last)
    assert "frame_0000000101.jpg" in str(error.value)
    assert "100 frames, numbers 1 to 100" in str(error.value)
    assert "--on_error=skip" in str(error.value)


def test_missing_frame(tmp_path):
  numbered_video.write_frames(tmp_path, range(1, 31))
  (tmp_path / "frame_0000000007.jpg").unlink()
  with pytest.raises(FileNotFoundError, match="1 of 10 .*frame_0000000007.jpg"):
    _read(tmp_path, 1, 10)


def test_misnamed_frames(tmp_path):
  (tmp_path / "img_00001.jpg").write_bytes(b"")
  with pytest.raises(FileNotFoundError) as error:
    _read(tmp_path, 1, 10)
  assert "frame_0000000001.jpg" in str(error.value)
  assert "it holds img_00001.jpg" in str(error.value)


@pytest.mark.parametrize(
  "damage, message",
  [
    (lambda data: data[: len(data) // 2], "is cut off: .* no end marker"),
    (lambda data: data[:300] + bytes(len(data) - 300), "is cut off"),
    (lambda data: b"", "is empty"),
    (lambda data: b"<html>" + data, "is not a JPEG"),
    (lambda data: data[:2] + bytes(500) + data[502:], "is damaged"),
  ],
  ids=["half", "zeros", "empty", "other", "header"],
)
def test_damaged_frame(tmp_path, damage, message):
  numbered_video.write_frames(tmp_path, range(1, 11))
  path = tmp_path / "frame_0000000004.jpg"
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=f"frame_0000000004.jpg.*{message}") as e:
    _read(tmp_path, 1, 10)
  assert "Copy or extract it again" in str(e.value)


def test_padding_after_the_end_is_fine(tmp_path):
  numbered_video.write_frames(tmp_path, range(1, 4))
  path = tmp_path / "frame_0000000002.jpg"
  padded = path.read_bytes() + bytes(9)
  path.write_bytes(padded)
  assert _read(tmp_path, 1, 3)[1] == padded


def test_sizes_must_agree(tmp_path):
  numbered_video.write_frames(tmp_path, range(1, 4))
  numbered_video.write_frames(tmp_path, range(4, 5), cell=20)
  with pytest.raises(ValueError, match="frame_0000000004.jpg.*another size"):
    _read(tmp_path, 1, 4)


def _pack(folder, path, *, prefix="./", mode="w"):
  with tarfile.open(path, mode) as tar:
    tar.add(folder, arcname=prefix)


@pytest.mark.parametrize("prefix", ["./", "P01_01"])
def test_tar_gives_what_the_folder_gives(tmp_path, prefix):
  folder = tmp_path / "P01_01"
  numbered_video.write_frames(folder, range(1, 40))
  _pack(folder, tmp_path / "P01_01.tar", prefix=prefix)
  for fps in (60.0, 25.0):
    expected = _read(folder, 5, 12, fps=fps)
    assert _read(tmp_path / "P01_01.tar", 5, 12, fps=fps) == expected
  with pytest.raises(FileNotFoundError) as error:
    _read(tmp_path / "P01_01.tar", 90, 99)
  assert "'frame_0000000090.jpg' in " in str(error.value)
  assert "P01_01.tar' holds 39 frames, numbers 1 to 39" in str(error.value)


def test_damaged_tar(tmp_path):
  folder = tmp_path / "frames"
  numbered_video.write_frames(folder, range(1, 40))
  _pack(folder, tmp_path / "packed.tar", mode="w:gz")
  _pack(folder, tmp_path / "whole.tar")
  (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:20_000])
  (tmp_path / "page.tar").write_bytes(b"<html>not found</html>" * 99)
  for name in ("packed", "cut", "page"):
    with pytest.raises(ValueError, match=rf"{name}\.tar.*(tar file|is cut off)"):
      _read(tmp_path / f"{name}.tar", 1, 39)


def test_files_by_name(tmp_path):
  written = numbered_video.write_frames(tmp_path / "a" / "b", range(1, 13))
  files = [f"a/b/frame_{n:010d}.jpg" for n in range(1, 13)]
  options = dict(frames_fps=24.0, short_side=256)
  got = frame_files.read_files(tmp_path, files, fps=24.0, **options)
  assert got == [written[n] for n in range(1, 13)]
  got = frame_files.read_files(tmp_path, files, fps=12.0, **options)
  assert got == [written[n] for n in range(1, 13, 2)]
  (tmp_path / files[4]).unlink()
  with pytest.raises(FileNotFoundError, match="1 of 12 .*frame_0000000005"):
    frame_files.read_files(tmp_path, files, fps=24.0, **options)


_MIXED = [
  (["a_1.jpg", "b_1.jpg", "a_2.jpg", "b_2.jpg"], "a_1.jpg .2 files., b_1.jpg .2 files."),
  (["cam1_1.jpg", "cam1_2.jpg", "cam2_1.jpg", "cam2_2.jpg"], "cam1_1.jpg .2.*cam2_1.jpg .2"),
]


@pytest.mark.parametrize("names, text", _MIXED)
def test_several_series(names, text):
  with pytest.raises(ValueError, match=f"'v' holds 2 series of JPEG frames.*{text}"):
    frame_files.in_order(names, "v")


@pytest.mark.parametrize(
  "names, expected",
  [
    (["img_10.jpg", "img_9.JPG", "flow_x_1.jpg", "flow_x_2.jpg"], ["img_9.JPG", "img_10.jpg"]),
    (["thumbnail.jpg", "2.jpeg", "1.jpeg", "cover_1.jpg"], ["1.jpeg", "2.jpeg"]),
    (["flow_x_2.jpg", "flow_x_1.jpg"], ["flow_x_1.jpg", "flow_x_2.jpg"]),
    (["11.000.jpg", "10.000.jpg", "10.500.jpg"], ["10.000.jpg", "10.500.jpg", "11.000.jpg"]),
    (["s1_0001.jpg", "s2_0002.jpg", "._s2_0003.jpg"], ["s1_0001.jpg", "s2_0002.jpg"]),
    (["only_7.jpg", "notes.txt"], ["only_7.jpg"]),
  ],
)
def test_one_series(names, expected):
  assert frame_files.in_order(names, "v") == expected


@pytest.mark.parametrize(
  "start, stop, fps", [(0.0, 1.0, 30.0), (0.15, 0.95, 7.3), (0.31, 1.3, 25.0)]
)
def test_frames_by_time(tmp_path, start, stop, fps):
  """A clip of a folder is that of a video with the same frames."""
  numbered_video.write_frames(tmp_path / "f", range(1, 13))
  series = frame_files.FrameSeries(tmp_path / "f", 10.0)
  got = [numbered_video.read(j) for j in series.read_clip(start, stop, fps=fps, short_side=256)]
  wanted = [start + k / fps for k in range(math.ceil((stop - start) * fps - 1e-6))]
  # The earlier of two that are equally near; the last one ends at 1.2 s.
  nearest = [min(range(12), key=lambda n: (round(abs(n / 10 - t), 2), n)) + 1 for t in wanted]
  assert got == [n for n, t in zip(nearest, wanted) if t < 1.2 - 1e-3]
