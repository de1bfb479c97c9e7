"""Damaged and made-up inputs, and what readers of files do with them.

Real files, as this project writes them, with bits flipped, pieces cut out,
doubled, swapped or put to extremes. Each reader must answer with a result, or
with a `ValueError` or `FileNotFoundError` that says something.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import io
import json
import pathlib
import pickle
import sys
import tempfile
import zipfile

import numpy as np
import safetensors.numpy

from data_prep.published_weights import files
from data_prep.sources import lemma_narration
from data_prep.sources import manifest
from data_prep.sources import safe_pickle
from sum_l_jax import build
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.video import decode
from sum_l_jax.video import jpeg
from sum_l_jax.video import media
from tests.support import numbered_video
from tests.support import opcode_streams
from tests.support import tiny_data

ALLOWED = (ValueError, FileNotFoundError)
_EXTREMES = (
  b"\0",
  b"\xff" * 4,
  b"-1",
  b"1e309",
  b"nan",
  b"../",
  b'"',
  b"\n",
  b",",
  b"9" * 40,
  b"$",
  b":",
  b"[]",
  b"null",
  "é".encode("latin1"),
)


class CrashError(Exception):
  """A reader answered with something else."""


@dataclasses.dataclass(frozen=True)
class Target:
  """One kind of input.

  Attributes:
    name: name of the kind.
    make: valid content, as bytes.
    read: reads a file with such content.
    change: what makes an input of the valid content; None for random damage.
  """

  name: str
  make: Callable[[], bytes]
  read: Callable[[pathlib.Path], object]
  change: Callable[[bytes, np.random.Generator], bytes] | None = None

  def input(self, valid: bytes, number: int, seed: int) -> bytes:
    """The input of a number: always the same."""
    rng = np.random.default_rng([seed, number])
    if self.change is not None:
      return self.change(valid, rng)
    inside = self.name.endswith(".npz") and number % 2
    return (mutate_inside if inside else mutate)(valid, rng)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
  """One to four changes at random places."""
  out = bytearray(data)
  for _ in range(int(rng.integers(1, 5))):
    place = int(rng.integers(len(out) + 1))
    length = int(rng.integers(1, 1 + min(64, len(out) + 1)))
    kind = int(rng.integers(6))
    if kind == 0 and place < len(out):
      out[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
      del out[place : place + length]
    elif kind == 2:
      out[place:place] = out[place : place + length]
    elif kind == 3:
      extreme = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
      out[place : place + int(rng.integers(2)) * len(extreme)] = extreme
    elif kind == 4:
      out[place : place + length] = rng.bytes(length)
    elif rng.random() < 0.3:
      del out[place:]
  return bytes(out)


def mutate_inside(data: bytes, rng: np.random.Generator) -> bytes:
  """Changes one array of an `.npz` and packs it again, with right sums."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    parts = {name: archive.read(name) for name in archive.namelist()}
  name = sorted(parts)[int(rng.integers(len(parts)))]
  if rng.random() < 0.3:  # The content of another one.
    parts[name] = parts[sorted(parts)[int(rng.integers(len(parts)))]]
  else:
    parts[name] = mutate(parts[name][:256], rng) + parts[name][256:]
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w") as archive:
    for key, value in parts.items():
      archive.writestr(key, value)
  return out.getvalue()


def _saved(save: Callable[[pathlib.Path], None], name: str) -> bytes:
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / name
    save(path)
    return path.read_bytes()


def _narrations() -> narration_table.NarrationTable:
  vectors = np.random.default_rng(0).standard_normal((3, 4))
  return narration_table.NarrationTable(["cut it", "open", "wash"], vectors, "m")


def _pairs() -> pairing.PairTable:
  return pairing.PairTable(
    ego_rows=[0, 1],
    neighbours=[[0, 1], [1, 0]],
    similarity=[[0.9, 0.5], [0.8, 0.1]],
    clip_offsets=[0, 1, 2],
    clip_pool=[0, 0],
    clip_index=[0, 1],
    ego_fingerprint="a",
    exo_fingerprints=("b",),
    text_model="m",
    text_fingerprint="c",
  )


def _weights() -> weight_files.Weights:
  tree = {"ego": {"encoder": {"kernel": np.ones((2, 3), np.float32)}}}
  return weight_files.Weights(tree, tree, {"stage": "joint"}, "made up")


_MANIFEST = (
  "clip_id,path,start_seconds,stop_seconds,narration,verb,fps\n"
  "a,v.mp4,0.0,0.5,cut it,cut,\nb,v.mp4,0:01,00:00:02.5,open,open,\n"
  "c,frames,,,look,cut,10\n"
)
_CLIPS = "".join(
  records.ClipInfo(f"c{i}", "cut it", {"verb": (0,)}, 9, 12.0, "v", 0.0, i, "").to_json() + "\n"
  for i in range(2)
)
_CARD = json.dumps(
  {
    "format": records.FORMAT,
    "name": "x",
    "view": "ego",
    "metadata": {},
    "tasks": {"verb": {"kind": "softmax", "class_names": ["cut"]}},
    "splits": {"train": 2},
  }
)


def _read_manifest(path: pathlib.Path) -> object:
  folder = path.parent
  (folder / "v.mp4").touch()
  (folder / "frames").mkdir(exist_ok=True)
  (folder / "frames" / "1.jpg").touch()
  return manifest.read_annotations(path, media_roots=[folder])


def _read_clips(path: pathlib.Path) -> object:
  (path.parent / "clips_train.jsonl").write_bytes(path.read_bytes())
  (path.parent / "card.json").write_text(_CARD, encoding="utf-8")
  return records.ClipDataset(path.parent, "train").fingerprint


def _read_card(path: pathlib.Path) -> object:
  (path.parent / "clips_train.jsonl").write_text(_CLIPS, encoding="utf-8")
  (path.parent / "card.json").write_bytes(path.read_bytes())
  return records.ClipDataset(path.parent, "train").fingerprint


def _read_hoi(path: pathlib.Path) -> object:
  text = path.read_bytes().decode("utf-8", "replace")
  return lemma_narration.narrate(text, lemma_narration.TEMPLATES)


def _read_override(path: pathlib.Path) -> object:
  """`field=value`, as text that a command line or config file gives."""
  text = path.read_bytes().decode("utf-8", "replace")
  name, _, value = text.partition("=")
  read.check_field_name(name)
  config = read.default_config()
  fields = schema.Settings().flatten()
  if name not in fields or not isinstance(fields[name], str):
    return None  # Other types are the flags library's work.
  config.update_from_flattened_dict({name: value})
  return build.resolve(config)


def _read_video(path: pathlib.Path) -> object:
  with media.VideoFile(path) as video:
    return len(video.read_clip(0.1, 0.6, short_side=32))


def _jpeg() -> bytes:
  return tiny_data.noise_clips("x", 1, seed=0)[0].frames[0]


def _pickle() -> bytes:
  arrays = {"blobs": {"w": np.ones((2, 3), np.float32), "s": np.float64(1), "t": ["a", (1, None)]}}
  return pickle.dumps(arrays, protocol=2)


def _nothing_imported(read: Callable[[pathlib.Path], object], path: pathlib.Path) -> object:
  """Reads a file, after which the trap must not have sprung."""
  try:
    return read(path)
  finally:
    if opcode_streams.TRAP in sys.modules or len(list(path.parent.iterdir())) != 1:
      raise CrashError("executed")


def _read_opcodes(path: pathlib.Path) -> object:
  return _nothing_imported(safe_pickle.load, path)


def _read_opcodes_of_torch(path: pathlib.Path) -> object:
  return _nothing_imported(files.read, path)


def _with_opcodes(valid: bytes, rng: np.random.Generator) -> bytes:
  """A PyTorch file whose pickle is made up, beside tensors that are whole."""
  out = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(valid)) as archive, zipfile.ZipFile(out, "w") as made:
    for name in archive.namelist():
      whole = archive.read(name)
      if name.endswith("data.pkl"):
        stream = opcode_streams.make(rng)
        whole = stream if rng.random() < 0.7 else b"\x80\x02" + whole[2:-1] + b"0" + stream[2:]
      made.writestr(name, whole)
  return out.getvalue()


def _safetensors() -> bytes:
  return safetensors.numpy.save({"a.weight": np.ones((2, 3), np.float32)})


def _torch() -> bytes:
  return _saved(
    lambda path: files.write_torch(path, {"a.weight": np.ones((2, 3), np.float32)}, "{}"), "w.pyth"
  )


TARGETS = {
  target.name: target
  for target in (
    Target("manifest", _MANIFEST.encode, _read_manifest),
    Target("clips", _CLIPS.encode, _read_clips),
    Target("card", _CARD.encode, _read_card),
    Target("hoi", lambda: b"put${s0}@cup|bowl:{m1}@table:{s2}@hand", _read_hoi),
    Target("override", lambda: b"joint_stage.total=30 epochs", _read_override),
    Target("pairs.npz", lambda: _saved(_pairs().save, "p.npz"), pairing.PairTable.load),
    Target(
      "narrations.npz",
      lambda: _saved(_narrations().save, "n.npz"),
      narration_table.NarrationTable.load,
    ),
    Target(
      "weights.npz",
      lambda: _saved(lambda path: weight_files.write_weights(path, _weights()), "w.npz"),
      weight_files.read_weights,
    ),
    Target("jpeg", _jpeg, lambda path: decode.decode_jpeg(path.read_bytes())),
    Target("frame.jpg", _jpeg, lambda path: jpeg.shrink_jpeg(path.read_bytes(), 16, str(path))),
    Target(
      "video.mp4",
      lambda: _saved(lambda path: numbered_video.write_video(path, list(range(30))), "v.mp4"),
      _read_video,
    ),
    Target("weights.pyth", _torch, files.read),
    Target("weights.safetensors", _safetensors, files.read),
    Target("pickle.p", _pickle, safe_pickle.load),
    Target("opcodes.p", _pickle, _read_opcodes, lambda valid, rng: opcode_streams.make(rng)),
    Target("opcodes.pyth", _torch, _read_opcodes_of_torch, _with_opcodes),
  )
}


def attempt(target: Target, data: bytes, folder: pathlib.Path) -> str:
  """Reads one input.

  Args:
    target: its kind.
    data: the input.
    folder: empty, for its file.

  Returns:
    "result", or the name of the error.

  Raises:
    CrashError: another error than `ALLOWED`, or one that says nothing.
  """
  suffix = pathlib.PurePath(target.name).suffix
  path = folder / f"input{suffix}"
  path.write_bytes(data)
  try:
    target.read(path)
  except ALLOWED as error:
    if len(str(error)) < 10:
      raise CrashError(f"{target.name}: {error!r} says nothing") from error
    return type(error).__name__
  except BaseException as error:
    raise CrashError(
      f"{target.name}: {type(error).__name__}: {error}; input {data[:200]!r} ({len(data)} bytes)"
    ) from error
  return "result"


def run(name: str, inputs: int, seed: int) -> dict[str, int]:
  """Reads a number of inputs of one kind.

  Returns:
    How many ended how.

  Raises:
    CrashError: see `attempt`.
  """
  target = TARGETS[name]
  valid = target.make()
  found = {}
  for number in range(inputs):
    data = target.input(valid, number, seed)
    with tempfile.TemporaryDirectory() as folder:
      end = attempt(target, data, pathlib.Path(folder))
    found[end] = found.get(end, 0) + 1
  return found
