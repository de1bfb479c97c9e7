"""Pieces of work that are killed and started again: see `tests.stress.soak`.

Each is small, and as a command does it: its data is made once, a run goes into
a folder of its own, and what came out is described by hashes, which are equal
exactly where the work is.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import sys

import numpy as np
import pytest

from data_prep import build_dataset
from data_prep import embed_narrations
from data_prep.clips import clip_dataset
from data_prep.mining import pseudo_pairs
from sum_l_jax import main
from sum_l_jax import types
from sum_l_jax.checkpoint import integrity
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from tests.support import checkpoints
from tests.support import numbered_video
from tests.support import runs
from tests.support import tiny_data

_TEXTS = 600
_WORDS = ("cut", "wash", "open", "take", "onion", "tap", "door", "pan", "red")


@dataclasses.dataclass(frozen=True)
class Victim:
  """One piece of work.

  Attributes:
    name: name of the work.
    prepare: makes its data in a folder.
    run: does it, from the data's folder into another one; the same call again
      goes on.
    describe: hashes of what the second folder holds, by name.
  """

  name: str
  prepare: Callable[[pathlib.Path], None]
  run: Callable[[pathlib.Path, pathlib.Path], None]
  describe: Callable[[pathlib.Path], dict[str, str]]


def train(data: pathlib.Path, output: pathlib.Path) -> None:
  """Both stages, six steps each, a checkpoint after every second."""
  config = read.default_config()
  config.stages = ("exo", "joint")
  runs.small(config, ego=data / "ego", exo=data / "exo", tables=data)
  config.checkpoint.every = "2 steps"
  main.run(config, output)


def describe_training(output: pathlib.Path) -> dict[str, str]:
  """All arrays of both stages' last checkpoints, and the scores."""
  found = {}
  for stage in ("exo", "joint"):
    folder = weight_files.find_checkpoint(output / stage)
    integrity.check(folder)
    found[f"{stage} step"] = folder.name
    for name, value in checkpoints.read_arrays(folder).items():
      found[f"{stage} {name}"] = _sha256(np.asarray(value).tobytes())
  result = json.loads((output / "result.json").read_text(encoding="utf-8"))
  metrics = {name: split["metrics"] for name, split in result["splits"].items()}
  return found | {"metrics": json.dumps(metrics, sort_keys=True)}


def _prepare_build(data: pathlib.Path) -> None:
  """Two videos and a manifest of 40 clips: three groups."""
  data.mkdir(parents=True, exist_ok=True)
  rows = ["clip_id,path,start_seconds,stop_seconds,narration,verb"]
  for video in ("a", "b"):
    numbered_video.write_video(data / f"{video}.mp4", list(range(150)))
    rows += [
      f"{video}{k},{video}.mp4,{k * 0.2:.1f},{k * 0.2 + 0.5:.1f},cut it,cut" for k in range(20)
    ]
  (data / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _build(data: pathlib.Path, output: pathlib.Path) -> None:
  _command(
    build_dataset.main,
    [
      "--dataset=manifest",
      "--view=exo",
      "--name=clips",
      "--split=train",
      f"--annotations={data / 'manifest.csv'}",
      "--processes=1",
      f"--output={output / 'clips'}",
    ],
  )


def _prepare_mining(data: pathlib.Path) -> None:
  """Two data sets of a few hundred narrations, one small clip each."""
  frame = tiny_data.noise_clips("x", 1, seed=0)[0]
  rng = np.random.default_rng(3)
  texts = _texts()
  for view in ("ego", "exo"):
    clips = [
      dataclasses.replace(frame, clip_id=f"{view}{i}", frames=frame.frames[:1], narration=text)
      for i, text in enumerate(rng.permutation(texts)[:400].tolist())
    ]
    clip_dataset.write_clip_dataset(
      data / view,
      name=view,
      view=view,
      tasks=tiny_data.SOFTMAX_TASKS,
      splits={"train": lambda clips=clips: clips},
    )
  narration_table.NarrationTable(texts, _hash_encoder(texts), "hash").save(data / "narrations.npz")


def _mine(data: pathlib.Path, output: pathlib.Path) -> None:
  """Mines as the command does, in blocks of 64 in place of 4096."""
  ego, exo = (records.ClipDataset(data / view, "train") for view in types.VIEWS)
  pseudo_pairs.mine_into(
    output / "pairs.npz",
    ego,
    [exo],
    narration_table.NarrationTable.load(data / "narrations.npz"),
    top_k=5,
    block=64,
  )


def _describe_mining(output: pathlib.Path) -> dict[str, str]:
  table = pairing.PairTable.load(output / "pairs.npz")
  return {name: _sha256(np.asarray(value).tobytes()) for name, value in vars(table).items()}


def _prepare_embedding(data: pathlib.Path) -> None:
  data.mkdir(parents=True, exist_ok=True)
  (data / "texts.txt").write_text("\n".join(_texts()), encoding="utf-8")


def _embed(data: pathlib.Path, output: pathlib.Path) -> None:
  """Embeds as the command does with --append, twice; the model is a hash."""
  texts = embed_narrations.read_texts(data / "texts.txt")
  path = output / "narrations.npz"
  # Undone at the end, since a test runs this in its own process. `mock.patch.dict`
  # would also forget every module that is imported meanwhile.
  with pytest.MonkeyPatch.context() as patch:
    # Its import takes seconds, and is not what gets killed.
    patch.setitem(sys.modules, "tensorflow_text", None)
    patch.setattr(embed_narrations, "CHUNK", 64)
    for part in (texts[:200], texts):
      existing = None
      if path.exists():
        existing = narration_table.NarrationTable.load(path)
      table = embed_narrations.embed_narrations(
        part, model="hash", existing=existing, encoder=_hash_encoder
      )
      table.save(path, command="soak")


def _describe_embedding(output: pathlib.Path) -> dict[str, str]:
  table = narration_table.NarrationTable.load(output / "narrations.npz")
  return {"table": table.fingerprint, "rows": str(len(table))}


def _texts() -> list[str]:
  rng = np.random.default_rng(5)
  return sorted({" ".join(rng.choice(_WORDS, 4)) for _ in range(_TEXTS)})


def _hash_encoder(texts: Sequence[str]) -> np.ndarray:
  """Vectors that depend on the text alone, float32 [len(texts), 16]."""
  digests = [hashlib.sha256(text.encode()).digest()[:16] for text in texts]
  raw = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
  return raw.astype(np.float32) - 127.5


def _command(command: Callable[[list[str]], int], arguments: list[str]) -> None:
  said = io.StringIO()
  with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    status = command(arguments)
  if status:
    raise ValueError(said.getvalue())


def _describe_files(output: pathlib.Path) -> dict[str, str]:
  """Every file, hidden ones too."""
  return {
    path.relative_to(output).as_posix(): _sha256(path.read_bytes())
    for path in sorted(output.rglob("*"))
    if path.is_file()
  }


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


VICTIMS = {
  victim.name: victim
  for victim in (
    Victim("training", runs.prepare_training, train, describe_training),
    Victim("build", _prepare_build, _build, _describe_files),
    Victim("mining", _prepare_mining, _mine, _describe_mining),
    Victim("embedding", _prepare_embedding, _embed, _describe_embedding),
  )
}
