"""Pickles of strangers: the same values as pickle gives, and nothing else."""

from __future__ import annotations

import collections
import pickle
import sys
import tracemalloc

import numpy as np
import pytest

from sum_l_jax.system import safe_pickle
from tests.stress import hostile_inputs
from tests.support import opcode_streams

_CONTENT = {
  "plain": [1, (2.5, "x", None), b"\xff\0", b"", 2**70, True, {"a": {}}, -3],
  "ordered": collections.OrderedDict(b=1, a=[2]),
  3: "a number as key",
  ("a", 1): "a tuple as key",
  "int16": np.arange(6, dtype=np.int16).reshape(2, 3),
  "other order": np.arange(6, dtype=">f8").reshape(3, 2),
  "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
  "bool": np.array([True, False]),
  "empty": np.zeros((0, 3), np.float32),
  "no axes": np.array(3, np.uint8),
  "texts": np.array(["one", "zwölf"]),
  "bytes": np.array([b"a", b"bcd"]),
  "scalars": [np.float32(3), np.int64(-1), np.bool_(True)],
}


@pytest.mark.parametrize("protocol", range(5))
def test_gives_what_pickle_gives(tmp_path, protocol):
  path = tmp_path / "x.p"
  path.write_bytes(pickle.dumps({**_CONTENT, "again": _CONTENT["fortran"]}, protocol))
  expected = pickle.loads(path.read_bytes())
  loaded = safe_pickle.load(path)
  assert list(loaded) == list(expected)
  for key, value in expected.items():
    if isinstance(value, np.ndarray):
      np.testing.assert_array_equal(loaded[key], value, strict=False)
      assert (loaded[key].dtype, loaded[key].shape) == (value.dtype, value.shape)
    else:
      assert loaded[key] == value
  assert loaded["again"] is loaded["fortran"]
  loaded["int16"][0, 0] = 7  # Arrays own their bytes.


def test_what_python_2_wrote(tmp_path):
  path = tmp_path / "x.p"
  path.write_bytes(
    b"(dp0\nS'name'\np1\nS'\\xe9t\\xe9'\np2\nsccollections\nOrderedDict\n((lp3\n"[:33] + b"."
  )
  assert safe_pickle.load(path) == {"name": "\xe9t\xe9"}


def _refusal(path, data: bytes) -> str:
  path.write_bytes(data)
  with pytest.raises(ValueError) as error:
    safe_pickle.load(path)
  return str(error.value)


def test_names_that_are_refused(tmp_path):
  text = _refusal(tmp_path / "x.p", pickle.dumps([eval]))
  assert "would call builtins.eval, and a file of data needs" in text
  for damaged in (b"", b"hello", pickle.dumps(_CONTENT)[:30], b"\x80\x04.", b"\x80\x02X\1."):
    assert "x.p can't be read as data " in _refusal(tmp_path / "x.p", damaged)
  with pytest.raises(FileNotFoundError):
    safe_pickle.load(tmp_path / "nowhere.p")


_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
_OBJECTS = b"(I1\n(I1\nt" + b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"


@pytest.mark.parametrize("kind", [b"O8", b"V8", b"M8", b"f16", b"f8,O", b"U99999"])
def test_bytes_do_not_become_pointers(tmp_path, kind):
  """A state without the flags of objects made numpy follow the file's bytes."""
  data = _ARRAY + _OBJECTS % kind + b"I00\nS'AAAAAAAA'\ntb."
  assert len(data) < 200
  text = _refusal(tmp_path / "x.p", data)
  assert f"it holds an array of {kind.decode()!r}" in text


def test_states_and_shapes_that_do_not_fit(tmp_path):
  path = tmp_path / "x.p"
  order = (_OBJECTS % b"f8").replace(b"'|'", b"'\xff'")
  assert "unknown byte order" in _refusal(path, _ARRAY + order + b"I00\nS'AAAAAAAA'\ntb.")
  good = (_OBJECTS % b"f8").replace(b"'|'", b"'<'")
  path.write_bytes(_ARRAY + good + b"I00\nS'AAAAAAAA'\ntb.")
  assert safe_pickle.load(path).tobytes() == b"AAAAAAAA"
  for shape in (b"I2\n", b"I-1\n", b"I-1\nI-1\n", b"I9999999999999999\n", b"N"):
    data = _ARRAY + good.replace(b"(I1\nt", b"(" + shape + b"t") + b"I00\nS'AAAAAAAA'\ntb."
    assert "it holds an array" in _refusal(path, data)
  assert "a state for a dict" in _refusal(path, b"}}b.")
  assert "a call of a int" in _refusal(path, b"I1\n)R.")
  assert "a dict with a list for a key" in _refusal(path, b"}(]Nu.")


def test_nesting_ends_in_an_error_or_a_value(tmp_path):
  """To hash a deep tuple, as the key of a dict, ends the process."""
  path = tmp_path / "x.p"
  deep = b")" + b"\x85" * 200_000
  path.write_bytes(deep + b".")
  assert len(safe_pickle.load(path)) == 1
  assert "a dict with a tuple for a key" in _refusal(path, b"}" + deep + b"Ns.")
  assert "unknown code" in _refusal(path, b"\x80\x04\x8f(" + deep + b"\x90.")


def test_a_large_number_costs_nothing(tmp_path):
  """The reader in C keeps a table as long as the largest number in the file."""
  path = tmp_path / "x.p"
  tracemalloc.start()
  path.write_bytes(b"Nr\xff\xff\xff\x0f.")
  assert safe_pickle.load(path) is None
  for data in (
    b"\x8e" + b"\xff" * 7 + b"\0.",
    b"B\xff\xff\xff\x7f.",
    b"\x95" + b"\xff" * 6 + b"\0\0.",
  ):
    assert "can't be read" in _refusal(path, b"\x80\x04" + data)
  assert tracemalloc.get_traced_memory()[1] < 2**20
  tracemalloc.stop()


@pytest.mark.parametrize(
  "code", [b"\x82\x01", b"Pid\n", b"NQ", b"(ios\nmkdir\n", b"(cos\nmkdir\no"]
)
def test_other_ways_to_an_object(tmp_path, code):
  text = _refusal(tmp_path / "x.p", b"\x80\x02" + code + b".")
  assert "unknown code" in text or "would call os.mkdir" in text


def test_streams_of_opcodes(tmp_path):
  ends = set()
  for number in range(400):
    data = opcode_streams.make(np.random.default_rng([7, number]))
    folder = tmp_path / str(number)
    folder.mkdir()
    ends.add(hostile_inputs.attempt(hostile_inputs.TARGETS["opcodes.p"], data, folder))
  assert ends == {"result", "ValueError"}
  assert opcode_streams.TRAP not in sys.modules
