"""Files and annotations of strangers: where they may lead, what they may cost.

Random damage is in `test_fuzz.py`.
"""

from __future__ import annotations

import ast
import pathlib
import struct

import av
import numpy as np
import pytest
import simplejpeg

from data_prep import build_dataset
from data_prep.sources import charades_ego
from data_prep.sources import clip_specs
from data_prep.sources import epic_kitchens
from data_prep.sources import lemma
from data_prep.sources import manifest
from sum_l_jax.video import container
from sum_l_jax.video import cutting
from sum_l_jax.video import decode
from sum_l_jax.video import frame_files
from sum_l_jax.video import jpeg
from sum_l_jax.video import media
from sum_l_jax.video import video_stream
from tests.support import annotation_files
from tests.support import numbered_video

ROOT = pathlib.Path(__file__).parents[2]

_OUTSIDE = ["../secret", "a/../../secret", "/etc", "..", "", "a\0b", "x" * 300]


@pytest.mark.parametrize("name", _OUTSIDE)
def test_names_that_lead_out_of_the_media(name):
  with pytest.raises(ValueError, match="line 7: video_id must") as error:
    clip_specs.check_inside(name, "video_id", "a.csv, line 7")
  assert repr(name[:200]) in str(error.value)
  assert len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["P01_01", "a/b.mp4", "a b", "..a", "ü/x.."])
def test_names_that_stay(name):
  assert clip_specs.check_inside(name, "path", "here") == name


@pytest.fixture(name="places")
def places_fixture(tmp_path):
  """A media folder, and a video beside it that no annotation may reach."""
  (tmp_path / "media").mkdir()
  numbered_video.write_video(tmp_path / "secret.mp4", list(range(30)))
  numbered_video.write_frames(tmp_path / "secret", range(1, 20))
  return tmp_path


def _manifest(folder, path):
  file = folder / "manifest.csv"
  file.write_text(
    f"clip_id,path,start_seconds,stop_seconds,narration,verb\na,{path},0,0.5,cut it,cut\n",
    encoding="utf-8",
  )
  return file


@pytest.mark.parametrize("path", ["../secret.mp4", "x/../../secret.mp4"])
def test_a_manifest_stays_in_its_folders(path, places):
  with pytest.raises(ValueError, match="line 2: path must name something"):
    manifest.read_annotations(_manifest(places, path), media_roots=[places / "media"])


def test_a_manifest_with_absolute_paths(places):
  inside = places / "media" / "v.mp4"
  (places / "secret.mp4").rename(inside)
  read = lambda path: (
    manifest.read_annotations(_manifest(places, path), media_roots=[places / "media"])
    .clips[0]
    .media
  )
  assert read(inside) == inside
  with pytest.raises(ValueError, match="not starting with '/'"):
    read("/etc/passwd")
  # A link in the folder is its owner's choice.
  (places / "elsewhere.mp4").write_bytes(inside.read_bytes())
  (places / "media" / "link.mp4").symlink_to(places / "elsewhere.mp4")
  assert read("link.mp4") == places / "media" / "link.mp4"


@pytest.mark.parametrize("column", ["video_id", "participant_id"])
def test_epic_stays_in_its_folders(column, places):
  annotation_files.write_rows(
    places / "labels.csv", [{**annotation_files.EPIC_ROW, column: "../secret"}]
  )
  with pytest.raises(ValueError, match=f"{column} must name something"):
    epic_kitchens.read_annotations(
      places / "labels.csv", release=epic_kitchens.EPIC55, media_roots=[places / "media"]
    )


def test_charades_and_lemma_stay_in_their_folders(places):
  row = dict.fromkeys(charades_ego.COLUMNS, "")
  row |= {"id": "../secret", "actions": "c000 0.0 2.0", "length": "4.0", "script": "x"}
  with pytest.raises(ValueError, match="id must name something"):
    charades_ego._make_clips(
      row,
      "here",
      "train",
      ("tidy",),
      [places / "media"],
      "classes",
      charades_ego.WINDOW_SECONDS,
    )
  finder = lemma._FrameFinder([places / "media"])
  with pytest.raises(ValueError, match="the frame's path must name"):
    finder.find(["../secret/frame_0000000001.jpg"], "here")


def _bomb(height: int, width: int) -> bytes:
  """A small JPEG whose header says it is large."""
  data = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
  start = data.index(b"\xff\xc0")
  return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]


@pytest.mark.parametrize("size", [(65500, 65500), (9000, 8), (8, 8193)])
def test_jpeg_bombs_are_refused_before_they_are_decoded(size, monkeypatch):
  def decoded(*args, **options):
    raise AssertionError("decoded")

  monkeypatch.setattr(simplejpeg, "decode_jpeg", decoded)
  bomb = _bomb(*size)
  assert len(bomb) < 2000
  for read in (
    decode.decode_jpeg,
    lambda data: jpeg.jpeg_size(data, "frame 3"),
    lambda data: jpeg.shrink_jpeg(data, 64, "frame 3"),
  ):
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels"):
      read(bomb)


def test_clips_without_end():
  with pytest.raises(ValueError, match="1000000000001 frames, more than the 108000"):
    frame_files._wanted_numbers(0, 10**12, 60.0, 60.0)


def test_a_clip_of_a_video_without_end(tmp_path, monkeypatch):
  path = tmp_path / "v.mp4"
  numbered_video.write_video(path, [*range(30), 60_000])
  monkeypatch.setattr(cutting, "MOST_FRAMES", 1000)
  with media.VideoFile(path) as video:
    assert len(video.read_clip(0.0, 0.5, short_side=32)) == 15
    with pytest.raises(ValueError, match="has .* frames or more.*1000"):
      video.read_clip(0.0, None, fps=30.0, short_side=32)
    with pytest.raises(ValueError, match="has .* frames or more.*1000"):
      video.read_clip(0.0, 1e12, short_side=32)


def test_a_video_of_huge_frames(tmp_path, monkeypatch):
  path = tmp_path / "v.mp4"
  numbered_video.write_video(path, list(range(5)))
  monkeypatch.setattr(container, "MAX_PIXELS", 64 * 48 - 1)
  with pytest.raises(ValueError, match="frames of 64 x 48 pixels"):
    media.VideoFile(path)


def test_a_playlist_reads_no_other_file(tmp_path):
  """A text file called a video can name addresses and other files."""
  path = tmp_path / "v.mp4"
  path.write_text("#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
  with pytest.raises(ValueError, match="can't be opened|no frame"):
    media.VideoFile(path)


def test_the_command_refuses_in_one_block(places, capsys):
  status = build_dataset.main(
    [
      "--dataset=manifest",
      "--view=exo",
      "--split=train",
      f"--annotations={_manifest(places, '../secret.mp4')}",
      f"--media={places / 'media'}",
      f"--output={places / 'out'}",
    ]
  )
  assert status == 2
  assert "path must name" in capsys.readouterr().err.replace("\n      ", "")
  assert not (places / "out").exists()


# What executes text or unpickles: the call, and where it is meant to be.
_ADMITTED = {
  # Both loaders are restricted; see their docstrings.
  ("sum_l_jax/system/safe_pickle.py", "pickle._Unpickler"),
  ("data_prep/published_weights/files.py", "torch.load"),
}
_DANGEROUS = {
  "eval",
  "exec",
  "compile",
  "__import__",
  "pickle.load",
  "pickle.loads",
  "pickle.Unpickler",
  "pickle._Unpickler",
  "dill.load",
  "joblib.load",
  "marshal.loads",
  "yaml.load",
  "yaml.unsafe_load",
  "torch.load",
  "os.system",
  "os.popen",
  "shelve.open",
}


def _dotted(node: ast.AST) -> str:
  if isinstance(node, ast.Attribute):
    return f"{_dotted(node.value)}.{node.attr}"
  return node.id if isinstance(node, ast.Name) else ""


def _sources():
  for folder in ("sum_l_jax", "data_prep", "configs", "docs", "benchmarks"):
    yield from sorted((ROOT / folder).rglob("*.py"))
  yield ROOT / "setup.py"


def _findings(path: pathlib.Path):
  """Dangerous calls and bases of a file, with their lines."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Call):
      name = _dotted(node.func)
      if name in _DANGEROUS:
        yield name, node
      for word in node.keywords:
        value = getattr(word.value, "value", None)
        if word.arg in ("allow_pickle", "shell") and value is not False:
          yield f"{word.arg}=", node
      if name in ("np.load", "numpy.load") and not any(
        word.arg == "allow_pickle" for word in node.keywords
      ):
        # Not the default of every version.
        yield "np.load without allow_pickle=False", node
    elif isinstance(node, ast.ClassDef):
      for base in map(_dotted, node.bases):
        if base in _DANGEROUS:
          yield base, node


def test_nothing_executes_what_it_reads():
  seen, wrong = set(), []
  for path in _sources():
    name = path.relative_to(ROOT).as_posix()
    for found, node in _findings(path):
      if (name, found) in _ADMITTED:
        seen.add((name, found))
      else:
        wrong.append(f"{name}:{node.lineno}: {found}")
  assert not wrong, "\n".join(wrong)
  assert seen == _ADMITTED  # The list has nothing that isn't there.


def test_torch_loads_weights_only():
  path = ROOT / "data_prep/published_weights/files.py"
  calls = [
    n
    for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(n, ast.Call) and _dotted(n.func) == "torch.load"
  ]
  assert len(calls) == 1
  words = {w.arg: getattr(w.value, "value", None) for w in calls[0].keywords}
  assert words["weights_only"] is True


@pytest.mark.parametrize("reader", [media.VideoFile, video_stream.VideoStream])
def test_a_title_in_another_encoding_is_no_hindrance(reader, tmp_path):
  path = tmp_path / "a.mp4"
  with av.open(str(path), "w") as container:
    container.metadata["title"] = "a cafe at noon"
    stream = container.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(6):
      image = numbered_video.draw(number)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
    container.mux(stream.encode(None))
  data = path.read_bytes()
  assert data.count(b"a cafe at noon") == 1
  path.write_bytes(data.replace(b"a cafe at noon", b"a caf\xe9 at noon"))
  with pytest.raises(UnicodeDecodeError):
    av.open(str(path)).close()
  reader(path).close()
