"""Weights as training scripts of all kinds leave them (C10 of the field cases)."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import pathlib
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from data_prep import convert_weights
from data_prep.published_weights import files
from sum_l_jax.checkpoint import weight_files
from tests.support import reference_networks

TENSORS = {"s1.w": torch.arange(6.0).reshape(2, 3), "head.bias": torch.ones(2)}


def _read(path, content, zipped=True, **options):
  torch.save(content, path, _use_new_zipfile_serialization=zipped)
  return files.read(path, **options)


def _same(file):
  assert sorted(file.tensors) == sorted(TENSORS)
  for name, value in TENSORS.items():
    np.testing.assert_array_equal(file.tensors[name], value.numpy())


@dataclasses.dataclass
class Meter:
  """What a training script leaves beside the weights."""

  values: list


class Config(dict):
  """A config like those of yacs and mmengine: a dict with attributes."""


def _config():
  config = Config(lr=0.1)
  config.frozen = True
  return config


_BESIDE = {
  "Namespace": argparse.Namespace(lr=0.1),
  "defaultdict": collections.defaultdict(list, a=[1]),
  "array": np.arange(3),
  "array of objects": np.array([{}, None], dtype=object),
  "scalar": np.float64(0.5),
  "path": pathlib.PurePosixPath("a/b"),
  "class of paths": pathlib.Path,
  "own class": Meter([1.0]),
  "own dict": _config(),
  "classes": [Meter, collections.deque([1])][:1],
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", _BESIDE)
def test_what_lies_beside_the_weights(tmp_path, kind, zipped, monkeypatch):
  # To find the classes would import them.
  content = {"model_state": TENSORS, "beside": _BESIDE[kind], "epoch": 3}
  path = tmp_path / "w.pth"
  torch.save(content, path, _use_new_zipfile_serialization=zipped)
  monkeypatch.setattr(Meter, "__reduce_ex__", None)
  file = files.read(path)
  _same(file)
  assert file.notes[0] == "weights      under 'model_state'"
  named = {"Namespace": "argparse.Namespace", "own class": "Meter", "own dict": "Config"}
  assert named.get(kind, "") in "".join(file.notes)


def test_modules_that_lie_beside_are_not_imported(tmp_path):
  """The class is gone when the file is read, as in another project."""
  module = types.ModuleType("their_project")
  exec("class Logger:\n  def __init__(self):\n    self.lines = ['x']", module.__dict__)
  sys.modules["their_project"] = module
  module.Logger.__module__ = "their_project"
  path = tmp_path / "w.pth"
  torch.save({"model": TENSORS, "log": module.Logger()}, path)
  del sys.modules["their_project"]
  file = files.read(path)
  _same(file)
  assert file.notes[-1] == "left behind  objects of their_project.Logger, unopened"
  assert "their_project" not in sys.modules


def test_dtypes_get_no_state_through_pytorch(tmp_path):
  """Flags of a dtype would turn bytes into pointers, as in a plain pickle."""
  path = tmp_path / "w.pth"
  with zipfile.ZipFile(path, "w") as archive:
    dtype = b"cnumpy\ndtype\nX\x02\0\0\0O8K\0K\1\x87R(K\x03X\1\0\0\0|NNNJ\xff\xff\xff\xff"
    dtype += b"J\xff\xff\xff\xffK\0tb"
    scalar = b"cnumpy.core.multiarray\nscalar\n" + dtype + b"c_codecs\nencode\nX\x08\0\0\0AAAAAAAA"
    archive.writestr("w/data.pkl", b"\x80\x02" + scalar + b"X\x06\0\0\0latin1\x86R\x86R.")
    archive.writestr("w/version", "3\n")
    archive.writestr("w/byteorder", "little")
  with pytest.raises(ValueError, match="w.pth"):
    files.read(path)


@pytest.mark.parametrize("key", ["model_state", "state_dict", "model", "net", "model_state_dict"])
def test_keys_of_the_weights(tmp_path, key):
  file = _read(tmp_path / "w.pth", {"epoch": 1, key: TENSORS})
  _same(file)
  assert file.notes == (f"weights      under {key!r}",)


def test_keys_that_are_not_known_are_listed(tmp_path):
  with pytest.raises(ValueError, match="no weights under 'model_state', .* keys are 'a', 'epoch'"):
    _read(tmp_path / "w.pth", {"a": TENSORS, "epoch": 1})


def test_a_whole_network_is_no_dict_of_weights(tmp_path):
  for content in (torch.nn.Linear(2, 3), {"model": torch.nn.Linear(2, 3)}):
    with pytest.raises(ValueError, match=r"a whole network.*model.state_dict\(\)"):
      _read(tmp_path / "w.pth", content)


@pytest.mark.parametrize(
  "names, said",
  [
    ("module.{}", "'module.' taken off 2 names"),
    ("_orig_mod.{}", "'_orig_mod' taken off 2 names"),
    ("model.{}", "'model.' taken off 2 names"),
    ("module._orig_mod.{}", "'_orig_mod' taken off 2 names"),
    ("_fsdp_wrapped_module.model.{}", "'model.' taken off 2 names"),
  ],
)
def test_wrappers(tmp_path, names, said):
  wrapped = {names.format(name): value for name, value in TENSORS.items()}
  file = _read(tmp_path / "w.pth", {"state_dict": wrapped})
  _same(file)
  assert f"prefix       {said}" in file.notes


def test_wrappers_within_names(tmp_path):
  file = _read(tmp_path / "w.pth", {"s1._orig_mod.w": torch.ones(1), "head.bias": torch.ones(2)})
  assert sorted(file.tensors) == ["head.bias", "s1.w"]


def test_a_prefix_of_ones_own(tmp_path):
  both = {f"{who}.{name}": value for name, value in TENSORS.items() for who in ("ema", "student")}
  file = _read(tmp_path / "w.pth", both, prefix="student.")
  _same(file)
  assert file.notes == (
    "prefix       'student.' taken off 2 names",
    "left behind  2 without it",
  )
  with pytest.raises(
    ValueError, match="--prefix='teacher.': no name in .* begins with that.*ema.s1.w"
  ):
    files.read(tmp_path / "w.pth", prefix="teacher.")
  twice = {**TENSORS, **{f"module.{name}": value for name, value in TENSORS.items()}}
  with pytest.raises(ValueError, match="two arrays that are 's1.w'"):
    _read(tmp_path / "w.pth", twice)


def test_safetensors(tmp_path):
  path = tmp_path / "w.safetensors"
  safetensors.torch.save_file({"module." + k: v for k, v in TENSORS.items()}, path)
  file = files.read(path)
  _same(file)
  assert file.container == "safetensors"
  safetensors.torch.save_file({"a": torch.full((2,), 1.5, dtype=torch.bfloat16)}, path)
  np.testing.assert_array_equal(files.read(path).tensors["a"], np.float32([1.5, 1.5]))
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match=r"w.safetensors can't be read as weights \("):
    files.read(path)


def test_small_files_that_would_fill_the_memory(tmp_path):
  path = tmp_path / "w.pth"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    with archive.open("w/data/0", "w") as file:
      for _ in range(257):
        file.write(bytes(2**20))
  with pytest.raises(ValueError, match="would become 269,484,032 bytes of weights"):
    files.read(path)


def test_the_command_says_what_it_took_off(tmp_path, capsys):
  network = reference_networks.build("slow_r50_8x8")
  state = {f"_orig_mod.{k}": v for k, v in reference_networks.pyslowfast_state(network).items()}
  path = tmp_path / "w.pth"
  torch.save({"net": state, "args": argparse.Namespace(lr=1)}, path)
  command = [f"--input={path}", f"--output={tmp_path / 'out'}", "--model=slow_r50_8x8"]
  assert convert_weights.main(command) == 0
  out = capsys.readouterr().out
  assert "weights      under 'net'" in out
  assert f"prefix       '_orig_mod' taken off {len(state)} names" in out
  assert "left behind  objects of argparse.Namespace, unopened" in out
  kernel = weight_files.read_weights(tmp_path / "out").params["ego"]["heads"]["action"]["kernel"]
  (weight,) = (v for k, v in state.items() if k.endswith("projection.weight"))
  np.testing.assert_array_equal(kernel, weight.reshape(len(weight), -1).T)

  del state["_orig_mod.head.projection.bias"]
  torch.save({"net": state}, path)
  command[1] = f"--output={tmp_path / 'second'}"
  assert convert_weights.main(command) == 2
  error = " ".join(capsys.readouterr().err.split())
  assert "1 missing in the file: head.projection.bias." in error
  assert r"--skip='head\.projection\.weight'" in error
  assert convert_weights.main([*command, r"--skip=head\.projection\.weight"]) == 0


@pytest.mark.parametrize("use", [b"Ns.", b"cbuiltins\nset\n"], ids=["key", "set"])
@pytest.mark.parametrize("zipped", [True, False])
def test_nesting_that_would_end_the_process(tmp_path, use, zipped):
  """PyTorch hashes a deep tuple, as a key or in a set: a stack overflow in C."""
  deep = b")" + b"\x85" * 400_000
  stream = b"\x80\x02}" + deep + use
  if use != b"Ns.":
    stream = b"\x80\x02" + use + b"]" + deep + b"a\x85R."
  path = tmp_path / "w.pth"
  if zipped:
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("w/data.pkl", stream)
      archive.writestr("w/version", "3\n")
      archive.writestr("w/byteorder", "little")
  else:
    torch.save({}, path, _use_new_zipfile_serialization=False)
    content = pickle.dumps({}, protocol=2)
    assert path.read_bytes().count(content) == 1
    path.write_bytes(path.read_bytes().replace(content, stream))
  with pytest.raises(ValueError, match="tuples within tuples, deeper than 100 levels"):
    files.read(path)
