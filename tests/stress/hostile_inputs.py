"""Damaged and made-up inputs, and what readers of files do with them.

Real files, as this project writes them, with bits flipped, pieces cut out,
doubled, swapped or put to extremes. Each reader must answer with a result, or
with a `ValueError` or `FileNotFoundError` that says something.
"""

from __future__ import annotations

from collections.abc import Callable
import copy
import csv
import dataclasses
import functools
import io
import json
import pathlib
import pickle
import sys
import tempfile
import unicodedata
import zipfile

import numpy as np
import safetensors.numpy

from data_prep.published_weights import files
from data_prep.sources import lemma_narration
from data_prep.sources import manifest
from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import field_names
from sum_l_jax.config import read
from sum_l_jax.config import schema
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.data import transferred_labels
from sum_l_jax.evaluation import towers
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.system import checked_json
from sum_l_jax.system import run_files
from sum_l_jax.system import safe_pickle
from sum_l_jax.system import text_cleaning
from sum_l_jax.tools import page
from sum_l_jax.tools.export import export_format
from sum_l_jax.tools.export import exported_model
from sum_l_jax.tools.study import study_rows
from sum_l_jax.train import metric_log
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


_NODES = (
  *(
    None,
    True,
    -1,
    0,
    2**53,
    2**70,
    1.5,
    -1.0,
    float("nan"),
    float("inf"),
    "",
    "\ud800",
    "a" * 9999,
  ),
  *([], {}, [[]], {"": None}, ["../../etc/passwd"], "../x", "\x1b[2J", "\ud800", "a" * 9999),
)


def change_json(data: bytes, rng: np.random.Generator) -> bytes:
  """Changes one to three values of JSON lines: other types, missing keys, bombs."""
  lines = [json.loads(line) for line in data.decode("utf-8").splitlines()]
  for _ in range(int(rng.integers(1, 4))):
    holder, key = lines, int(rng.integers(len(lines)))
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
      holder = holder[key]
      keys = list(holder) if isinstance(holder, dict) else range(len(holder))
      key = keys[int(rng.integers(len(keys)))]
    if rng.random() < 0.2 and holder is not lines:
      holder.pop(key)
    else:
      holder[key] = copy.deepcopy(_NODES[int(rng.integers(len(_NODES)))])
    if not all(isinstance(line, dict | list) for line in lines):
      break
  out = "\n".join(json.dumps(line) for line in lines)
  if rng.random() < 0.1:  # A bomb in the place of a value.
    out = out.replace("null", "[" * 10**5, 1)
  return out.encode("utf-8")


def change_array(data: bytes, rng: np.random.Generator) -> bytes:
  """Changes values of one array of an `.npz`: indices out of range, NaN, other types."""
  with np.load(io.BytesIO(data), allow_pickle=False) as file:
    arrays = dict(file.items())
  name = sorted(arrays)[int(rng.integers(len(arrays)))]
  array = arrays[name].copy()
  if array.dtype.kind in "if" and array.size and rng.random() < 0.8:
    extremes = [-1, 2**31 - 1, -(2**31), 7] if array.dtype.kind == "i" else [np.nan, np.inf, 5, -9]
    place = int(rng.integers(array.size))
    array.reshape(-1)[place] = extremes[int(rng.integers(len(extremes)))]
  else:
    other = (np.float64, np.int64, "U5", bool)[int(rng.integers(4))]
    array = np.zeros(array.shape, other)
  out = io.BytesIO()
  np.savez(out, **{**arrays, name: array})
  return out.getvalue()


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


def _labels() -> transferred_labels.TransferredLabels:
  names = ("cut", "open", "wash")
  kinds = {"verb": types.SOFTMAX, "noun": types.MULTI_LABEL}
  return transferred_labels.TransferredLabels(
    {name: types.Task(name, kind, names) for name, kind in kinds.items()},
    {"verb": np.array([0, 2], np.int32), "noun": np.array([[0, 1, 1], [0, 0, 0]], np.uint8)},
    ("a",),
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
    "shards": {"train": [{"name": "x-0", "records": 2, "size": 65536, "crc32c": "AAAAAA=="}]},
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
  field_names.check(name)
  config = read.default_config()
  fields = schema.Settings().flatten()
  if name not in fields or not isinstance(fields[name], str):
    return None  # Other types are the flags library's work.
  config.update_from_flattened_dict({name: value})
  return build.resolve(config)


def _read_video(path: pathlib.Path) -> object:
  with media.VideoFile(path) as video:
    return len(video.read_clip(0.1, 0.6, short_side=32))


# Texts that FFmpeg takes for lists of other files; the secret is a film beside.
_LISTS = (
  "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
  "ffconcat version 1.0\nfile secret.mp4\n",
  "ffconcat version 1.0\nfile 'subfile,,start,0,end,9999,,:secret.mp4'\n",
  "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
  '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>secret.mp4</BaseURL>'
  "</Representation></AdaptationSet></Period></MPD>",
  '<?xml version="1.0"?><CompositionPlaylist><ContentTitle>secret.mp4</ContentTitle>'
  "<EditRate>30 1</EditRate></CompositionPlaylist>",
  "[playlist]\nFile1=secret.mp4\n",
)
_SECRET = 4000


def _with_list(valid: bytes, rng: np.random.Generator) -> bytes:
  """A list, whole or a little damaged; now and then after the start of a film."""
  text = _LISTS[int(rng.integers(len(_LISTS)))].encode()
  text = mutate(text, rng) if rng.random() < 0.5 else text
  return valid[: int(rng.integers(1, 64))] + text if rng.random() < 0.2 else text


def _film() -> bytes:
  return _saved(lambda path: numbered_video.write_video(path, list(range(30))), "v.mp4")


@functools.cache
def _secret() -> bytes:
  return _saved(lambda path: numbered_video.write_secret(path, _SECRET), "s.mp4")


def _read_list(path: pathlib.Path) -> object:
  """Reads what calls itself a film; raises CrashError where it shows the secret."""
  (path.parent / "secret.mp4").write_bytes(_secret())
  with media.VideoFile(path) as video:
    frames = video.read_clip(0.0, 0.3)
  for frame in frames:
    if numbered_video.read(decode.decode_jpeg(frame)) == _SECRET:
      raise CrashError("a list opened the film beside it")
  return len(frames)


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


def _published_npz() -> bytes:
  """Arrays of VideoPrism's kind, one of them in bfloat16 as numpy writes it."""
  arrays = {"params/a/w": np.ones((2, 3), np.float32), "b": np.ones(3, np.uint16).view("V2")}
  return _saved(lambda path: np.savez(path, **arrays), "p.npz")


def _shard_index() -> bytes:
  return json.dumps({"weight_map": {"a.weight": "one.safetensors"}, "metadata": {}}).encode()


def _read_shards(path: pathlib.Path) -> object:
  folder = _beside(path, "model.safetensors.index.json")
  (folder / "one.safetensors").write_bytes(_safetensors())
  return files.read(folder)


def _torch() -> bytes:
  return _saved(
    lambda path: files.write_torch(path, {"a.weight": np.ones((2, 3), np.float32)}, "{}"), "w.pyth"
  )


_SETTINGS = json.loads(schema.Settings().to_json())
_RESULT = {
  "method": "sum_l",
  "step": 6,
  "splits": {
    "val": {
      "dataset": "x",
      "clips": 5,
      "skipped": ["a"],
      "views": 2,
      "metrics": {"verb_top1": 0.5},
      "constant_guess": {"verb_top1": 0.25},
      "intervals": {"verb_top1": [0.1, 0.9]},
      "seconds": 1.0,
    }
  },
}
_WEIGHTS_CARD = {
  "stage": "joint",
  "backbone": "tiny",
  "embedding_dim": 8,
  "tasks": {"ego": {"verb": ["cut", "open"]}},
  "kinds": {"ego": {"verb": "softmax"}},
  "pixels": {"ego": {"channel_order": "RGB", "mean": [0.45] * 3, "std": [0.225] * 3}},
  "frames": {"count": 8, "stride": 1, "crop_size": 24, "fps": 12.0},
  "network": {"pool_window": 0, "projection_prenorm": False},
  "config": "{}",
}
_STUDY = {
  "primary": ["b", "a"],
  "contrasts": [["b", "a"]],
  "rows": [
    {"name": "a", "label": "A", "arguments": {"method": "fpv_only"}},
    {"name": "b", "label": "B", "fields": {"loss.sigma": 0.2}, "paper": {"action_top1": 1.0}},
  ],
}
_EXPORTED = {
  "format": "jax",
  "input": {"shape": ["batch", 8, 24, 24, 3]},
  "outputs": {"verb": {"kind": "softmax"}},
  "class_names": {"verb": ["cut", "open"]},
  "frames": {"count": 8, "stride": 1, "crop_size": 24, "fps": 12.0},
  "sha256": {"model.jax_export": "0" * 64, "weights.npz": "0" * 64},
}
_METRICS = (
  '{"step": 1, "time": 1.5, "train/loss": 2.0}\n{"step": 2, "time": 2.5, "train/loss": null}\n'
)
# The CRC32C of b"abc".
_CHECKSUMS = {"files": {"state/a": [3, "Nks/tw=="]}}


def _json(value: object) -> Callable[[], bytes]:
  return lambda: json.dumps(value).encode()


def _beside(path: pathlib.Path, name: str) -> pathlib.Path:
  """The input under the name that its reader looks for, in a folder of its own."""
  folder = path.parent / "read"
  folder.mkdir(exist_ok=True)
  (folder / name).write_bytes(path.read_bytes())
  return folder


def _read_checksums(path: pathlib.Path) -> object:
  folder = _beside(path, integrity.MANIFEST)
  (folder / "state").mkdir()
  (folder / "state" / "a").write_bytes(b"abc")
  return integrity.check(folder)


def _read_result(path: pathlib.Path) -> object:
  result = result_files.load_result(path, shown=True)
  return result_files.format_table(result)


def _read_labels(path: pathlib.Path) -> object:
  """Labels that are read name classes that exist, of each clip."""
  found = transferred_labels.TransferredLabels.load(path)
  for row in range(min(map(len, found.labels.values()), default=0)):
    for name, classes in found._of_clip(row).items():
      if not all(0 <= k < found.tasks[name].num_classes for k in classes):
        raise CrashError(f"a class that is none: {name}, {classes}")
  return found.fingerprint


def _read_pairs(path: pathlib.Path) -> object:
  """A table that is read draws partners that exist."""
  table = pairing.PairTable.load(path)
  sizes = 1 + max(1, int(table.clip_index.max()))
  rng = np.random.default_rng(0)
  for row in range(min(9, len(table.ego_rows))):
    pool, clip, cosine = table.draw(row, rng)
    if not (0 <= pool < 9 and 0 <= clip < sizes and -1.01 < cosine < 1.01):
      raise CrashError(f"a partner that is none: {pool}, {clip}, {cosine}")
  return table


_TEXTS = (
  "\x1b]0;x\x07",
  "\r",
  "\x9b2J",
  "\u202e",
  "\ud800",
  "=1+1",
  "-1",
  "@a",
  "'=",
  "\n",
  "|",
  "<b>",
  "\0",
)


def _texts(valid: bytes, rng: np.random.Generator) -> bytes:
  """Pieces that terminals, spreadsheets and browsers obey, and random characters."""
  pieces = [_TEXTS[i] for i in rng.integers(len(_TEXTS), size=5)]
  pieces += map(chr, rng.integers(0x110000, size=5))
  text = "".join(rng.permutation(np.array([*pieces, valid.decode()], object)))
  return text.encode("utf-8", "surrogatepass")


def _read_text(path: pathlib.Path) -> object:
  """Lets a text leave in every way; raises CrashError where something obeys it."""
  text = path.read_bytes().decode("utf-8", "surrogatepass")
  out = io.StringIO()
  text_cleaning.CsvWriter(out).writerow([text])
  ((cell,),) = csv.reader(io.StringIO(out.getvalue()))
  stream = io.StringIO()
  text_cleaning.CleanStream(stream).write(text)
  html = page.render(text, [text], [])
  controls = {
    c for c in out.getvalue() + stream.getvalue() + html if unicodedata.category(c) == "Cc"
  }
  if controls - set("\n\t\r") or "\r" in stream.getvalue() or "<b>" in html:
    raise CrashError(f"let through {controls}")
  if cell[:1] in tuple("=+-@\t\n") and not text_cleaning.is_number(cell):
    raise CrashError(f"a formula: {cell[:9]!r}")
  return text_cleaning.uncell(cell)


TARGETS = {
  target.name: target
  for target in (
    Target("manifest", _MANIFEST.encode, _read_manifest),
    Target("clips", _CLIPS.encode, _read_clips),
    Target("card", _CARD.encode, _read_card),
    Target("hoi", lambda: b"put${s0}@cup|bowl:{m1}@table:{s2}@hand", _read_hoi),
    Target("override", lambda: b"joint_stage.total=30 epochs", _read_override),
    Target("pairs.npz", lambda: _saved(_pairs().save, "p.npz"), pairing.PairTable.load),
    Target("labels.npz", lambda: _saved(_labels().save, "l.npz"), _read_labels),
    Target(
      "labels.npz, by value", lambda: _saved(_labels().save, "l.npz"), _read_labels, change_array
    ),
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
      _film,
      _read_video,
    ),
    Target("list.mp4", _film, _read_list, _with_list),
    Target("list.m3u8", _film, _read_list, _with_list),
    Target("weights.pyth", _torch, files.read),
    Target("weights.safetensors", _safetensors, files.read),
    Target("published.npz", _published_npz, files.read),
    Target("model.safetensors.index.json", _shard_index, _read_shards),
    Target("index, by value", _shard_index, _read_shards, change_json),
    Target("pickle.p", _pickle, safe_pickle.load),
    Target("card, by value", _CARD.encode, _read_card, change_json),
    Target("clips, by value", _CLIPS.encode, _read_clips, change_json),
    Target("checksums", _json(_CHECKSUMS), _read_checksums, change_json),
    Target("result", _json(_RESULT), _read_result, change_json),
    Target(
      "metrics",
      _METRICS.encode,
      lambda path: metric_log.read(_beside(path, run_files.METRICS)),
      change_json,
    ),
    Target(
      "weights' card",
      _json(_WEIGHTS_CARD),
      lambda path: towers.class_model(checked_json.read(path, dict, mend="Mend it."), types.EGO),
      change_json,
    ),
    Target("study.json", _json(_STUDY), lambda path: study_rows.read(str(path)), change_json),
    Target(
      "exported",
      _json(_EXPORTED),
      lambda path: exported_model.read_card(_beside(path, export_format.CARD)),
      change_json,
    ),
    Target(
      "config",
      _json(_SETTINGS),
      lambda path: read.differences(path.read_text("utf-8"), json.dumps(_SETTINGS)),
      change_json,
    ),
    Target(
      "pairs.npz, by value", lambda: _saved(_pairs().save, "p.npz"), _read_pairs, change_array
    ),
    Target(
      "narrations.npz, by value",
      lambda: _saved(_narrations().save, "n.npz"),
      narration_table.NarrationTable.load,
      change_array,
    ),
    Target("texts", lambda: b"cut it", _read_text, _texts),
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
