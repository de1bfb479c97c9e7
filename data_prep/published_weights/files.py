"""Reads weight files of strangers without executing what is in them.

A pickle is a program: `torch.load` and `pickle.load` run whatever the file says.
Here PyTorch files go through its weights-only loader, with stand-ins for all
objects beside the tensors, and Caffe2 files through `safe_pickle`, which admits
numpy arrays and plain containers alone. Files of safetensors and `.npz` files,
which are read without pickle, hold nothing but arrays.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import io
import mmap
import re
import sys
from typing import Any
import zipfile

from etils import epath
import numpy as np

from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import command_line
from sum_l_jax.system import npz_files
from sum_l_jax.system import safe_pickle
from sum_l_jax.system import storage

# Old-style files hold the magic number, the version, the machine, the content and
# the keys of its tensors, one pickle after the other.
_PICKLES_OF_OLD_FILES = 5
# What an old-style PyTorch file begins with, pickled.
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C

_AGAIN = "Download it again."
# Where `--export` keeps a card.
_CARD = "sum_l_jax_card"

_WEIGHTS = safe_pickle.Kind(
  "weights",
  "a PyTorch file (.pyth, .pth, .pt, .ckpt), a .safetensors file, an .npz file or a Caffe2 pickle"
  " (.pkl)",
)

# Keys under which training scripts keep the arrays; the first that is there counts.
_KEYS = (
  *("model_state", "state_dict", "model_state_dict", "model", "net", "network", "module"),
  # V-JEPA evaluates the averaged encoder.
  *("ema_encoder", "target_encoder", "encoder"),
)
# Files of transformers' save_pretrained.
_INDEX, _SINGLE, _CONFIG = "model.safetensors.index.json", "model.safetensors", "config.json"
# What wrappers put before all names: DataParallel, Lightning modules and the like.
_OUTER = ("module.", "model.", "net.", "network.")
# What compiled, sharded and checkpointed modules put before names at any depth.
_INNER_NAME = re.compile(r"(?:^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_INNER = re.compile(r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


@dataclasses.dataclass(frozen=True)
class WeightFile:
  """What a file holds.

  Attributes:
    path: path of the file, for messages.
    container: "torch", "safetensors", "npz" or "caffe2".
    tensors: arrays by flat name, without what wrappers put before it.
    card: what `--export` of this library wrote beside them, as JSON; or "".
    notes: lines for a report: what was taken off the names, and what beside the
      arrays was left behind.
    config: what a config.json says that lies beside them in a folder of
      transformers; {} where there is none.
  """

  path: epath.Path
  container: str
  tensors: Mapping[str, np.ndarray]
  card: str = ""
  notes: Sequence[str] = ()
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _broken(path: epath.Path, detail: str) -> ValueError:
  return safe_pickle.damage(path, detail, _WEIGHTS)


def _inert(opened: list[object]) -> type:
  """A class that stands for any other: it takes everything and does nothing."""

  class Inert:
    def __new__(cls, *args: object, **options: object) -> Any:
      del args, options
      # Takes items and attributes where PyTorch's reader wants to put them.
      opened.append(collections.OrderedDict())
      return opened[-1]

  return Inert


class _Ignored:
  """Stands for an array, or a part of one, that is of no use as weights."""

  def __init__(self, *_: object) -> None:
    pass

  def __setstate__(self, state: object) -> None:
    """Takes what PyTorch's reader would put into the array."""


# What stands for names that training scripts save beside the weights. None of
# them is imported.
_BESIDE = {
  **safe_pickle.NUMPY,
  **dict.fromkeys(("collections.defaultdict", "builtins.dict"), lambda *_: {}),
}
# The rest of Python's own library is never left beside weights by accident.
_HARMLESS = {
  *("argparse.Namespace", "types.SimpleNamespace", "functools.partial", "copyreg._reconstructor"),
  *("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath"),
  *("pathlib._local.Path", "pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
  *("datetime.date", "datetime.datetime", "datetime.timedelta", "datetime.timezone"),
  *("collections.deque", "decimal.Decimal", "fractions.Fraction", "uuid.UUID", "enum.Enum"),
  *(f"builtins.{name}" for name in ("bool", "bytes", "float", "frozenset", "int", "list")),
  *(f"builtins.{name}" for name in ("object", "range", "slice", "str", "tuple")),
}
_MOST_NAMES = 200


def _is_harmless(name: str) -> bool:
  return name in _HARMLESS or name.partition(".")[0] not in sys.stdlib_module_names


def _load_torch(path: epath.Path) -> tuple[Any, list[str], list[object]]:
  """Reads a file through PyTorch's weights-only loader.

  Objects of classes that it doesn't know become empty dicts; nothing of theirs is
  imported or called.

  Returns:
    The content, the names of those classes, and what became of their objects.
  """
  import torch

  opened: list[object] = []
  inert = _inert(opened)
  stand_ins: dict[str, Any] = dict(_BESIDE)
  while True:
    names = [name for name, stand_in in stand_ins.items() if stand_in is inert]
    try:
      with torch.serialization.safe_globals([(s, name) for name, s in stand_ins.items()]):
        return torch.load(path, map_location="cpu", weights_only=True), names, opened
    except safe_pickle.UnpicklingError as error:
      # What PyTorch says before that advises to execute the file.
      text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
      found = re.search(r"GLOBAL ([^\s]+)", text)
      name = found.group(1) if found else ""
      name = name if "." in name or not name else f"builtins.{name}"
      if name and not _is_harmless(name):
        raise safe_pickle.refusal(path, name, _WEIGHTS) from None
      if name and name not in names and len(names) < _MOST_NAMES:
        stand_ins[name] = inert
      elif not name and stand_ins["numpy.dtype"] is not _Ignored:
        # Arrays of objects and the like, which are of no use as weights.
        stand_ins |= dict.fromkeys(safe_pickle.NUMPY, _Ignored)
      else:
        raise _more_than_weights(path, names or text.splitlines()[:1]) from error
    # PyTorch's unpickler doesn't check for damage, and stumbles over it anywhere.
    except (*npz_files.DAMAGED, AssertionError) as error:
      if names:
        raise _more_than_weights(path, names) from error
      text = str(error).strip() or type(error).__name__
      raise _broken(path, text.splitlines()[0]) from error


def _more_than_weights(path: epath.Path, names: Sequence[str]) -> ValueError:
  return ValueError(
    f"{path} holds more than weights ({command_line.some(list(names))}), and that can't be"
    " left behind. If the file is yours, write the weights alone with PyTorch, for example"
    " torch.save({'model_state': model.state_dict()}, 'weights.pyth'). If it is not, take"
    " another: PyTorch itself would run what is in it."
  )


def _load_safetensors(path: epath.Path) -> tuple[dict[str, Any], str]:
  """Reads a file of the safetensors library: its tensors, and our card in it or ""."""
  import safetensors
  import safetensors.torch

  try:
    with safetensors.safe_open(path, framework="np") as file:
      card = (file.metadata() or {}).get(_CARD, "")
    return safetensors.torch.load_file(path), card
  except (safetensors.SafetensorError, *npz_files.DAMAGED) as error:
    raise _broken(path, str(error).strip() or type(error).__name__) from error


def _load_npz(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads numpy's arrays; numpy writes bfloat16 as bytes without a type."""
  import jax.numpy as jnp

  try:
    arrays = npz_files.load(path)[1]
    return {
      name: value.view(jnp.bfloat16).astype(np.float32) if value.dtype == "V2" else value
      for name, value in arrays.items()
    }
  except npz_files.TooLargeError:
    raise
  except npz_files.DAMAGED as error:
    raise _broken(path, str(error) or type(error).__name__) from error


@dataclasses.dataclass(frozen=True)
class _ShardIndex:
  """An index of transformers: the file of each array."""

  weight_map: dict[str, checked_json.Name]


def _load_shards(path: epath.Path) -> dict[str, Any]:
  """Reads all files of an index."""
  index = checked_json.read(path, _ShardIndex, mend=_AGAIN)
  tensors: dict[str, Any] = {}
  names = sorted(set(index.weight_map.values()))
  for name in names:
    if name != epath.Path(name).name or name in (".", ".."):
      raise _broken(path, f"it names {name!r}, which is not beside it")
    if not storage.is_file(path.parent / name):
      raise FileNotFoundError(f"{path} names the file {name!r}, which is not beside it.")
  for name in names:
    shard = path.parent / name
    with storage.local_copy(shard) as copy:
      if not _is_safetensors(epath.Path(copy)):
        raise _broken(shard, "it is no .safetensors file")
      found, _ = _load_safetensors(epath.Path(copy))
    wanted = {key for key, file in index.weight_map.items() if file == name}
    if found.keys() != wanted:
      differing = command_line.some(sorted(found.keys() ^ wanted), 6)
      raise _broken(shard, f"its arrays are not those that {path.name} names: {differing}")
    tensors |= found
  return tensors


def _as_arrays(state: Any, path: epath.Path) -> dict[str, np.ndarray]:
  """Turns tensors or arrays by name into numpy; anything else is an error."""
  if not isinstance(state, Mapping) or not state:
    raise _broken(path, f"its weights are a {type(state).__name__} without arrays")
  arrays = {}
  for name, value in state.items():
    if hasattr(value, "detach"):  # A tensor.
      # numpy has no bfloat16; float32 holds it exactly.
      value = value.float() if value.dtype.is_floating_point else value
      value = value.detach().numpy()
    if not isinstance(value, np.ndarray | np.generic | float | int):
      raise _broken(path, f"{name!r} is a {type(value).__name__}, no array")
    arrays[str(name)] = np.asarray(value)
    if arrays[str(name)].dtype.kind not in "fiub":
      raise _broken(path, f"{name!r} is an array of {arrays[str(name)].dtype}, no numbers")
  return arrays


def _is_array(value: object) -> bool:
  return hasattr(value, "detach") or isinstance(value, np.ndarray)


def _choose(content: Any, opened: Sequence[object], path: epath.Path) -> tuple[str, Any]:
  """Finds the arrays in what a PyTorch file holds: the key ("" for none), and them."""
  if any(content is whole for whole in opened):
    raise _more_than_weights(path, ["a whole network, as an object"])
  if not isinstance(content, Mapping):
    raise _broken(path, f"it holds a {type(content).__name__}, no dict")
  for key in _KEYS:
    if any(content.get(key) is whole for whole in opened):
      raise _more_than_weights(path, [f"a whole network, as an object, under {key!r}"])
    if isinstance(content.get(key), Mapping):
      return key, content[key]
  if content and not any(map(_is_array, content.values())):
    raise ValueError(
      f"{path} has no weights under {', '.join(map(repr, _KEYS))}; its keys are"
      f" {command_line.some([repr(key) for key in content], 12)}. If the file is yours, write"
      " the dict of weights alone, or under one of those keys, into a new one."
    )
  return "", content


def _other_weights(content: Any, key: str) -> list[str]:
  """A line for the report where other networks lie beside the one that is taken."""
  others = [
    repr(name)
    for name, value in content.items()
    if name != key and isinstance(value, Mapping) and value
    if all(map(_is_array, value.values()))
  ]
  return [f"left behind  weights under {command_line.some(others)}"] if others else []


def _unwrap(
  arrays: Mapping[str, np.ndarray], prefix: str, path: epath.Path
) -> tuple[dict[str, np.ndarray], list[str]]:
  """Takes off what wrappers put before names, and what the user says.

  Returns:
    The arrays, and what was done, for the report.
  """
  out: dict[str, np.ndarray] = {}
  notes: list[str] = []
  taken = collections.Counter()
  for name, value in arrays.items():
    if not name.startswith(prefix):
      continue
    plain, found = _INNER.subn(r"\1", name.removeprefix(prefix))
    taken.update(_INNER_NAME.findall(name) if found else ())
    while wrapper := next((w for w in _OUTER if plain.startswith(w)), ""):
      taken[wrapper] += 1
      plain = plain.removeprefix(wrapper)
    if plain in out:
      raise ValueError(
        f"{path} has two arrays that are {plain!r} without the prefixes of wrappers; the"
        f" second is {name!r}. Choose one of them with --prefix."
      )
    out[plain] = value
  if prefix and not out:
    raise ValueError(
      f"--prefix={prefix!r}: no name in {path} begins with that; there are"
      f" {command_line.some(list(arrays), 6)}."
    )
  if prefix:
    notes.append(f"prefix       {prefix!r} taken off {len(out)} names")
    notes += [f"left behind  {len(arrays) - len(out)} without it"] * (len(out) < len(arrays))
  notes += [f"prefix       {wrapper!r} taken off {n} names" for wrapper, n in taken.items()]
  return out, notes


def read(path: addresses.PathLike, *, prefix: str = "") -> WeightFile:
  """Reads a PyTorch, safetensors, .npz or Caffe2 file, which its content tells apart.

  Args:
    path: path of the file, of an index of several .safetensors files, or of a
      folder of transformers with either. PyTorch: a dict with the arrays, or
      with a dict of them under one of `_KEYS` (`model_state` by PySlowFast and
      pytorchvideo). Caffe2: a dict with `blobs`.
    prefix: what the names of the arrays begin with. Others are left behind. What
      common wrappers put before names is taken off in any case.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file has no weights, is damaged, or would execute something.
  """
  path = addresses.path(path)
  config: Mapping[str, Any] = {}
  if storage.is_dir(path):
    path, config = _look_into(path)
  if not storage.is_file(path):
    raise FileNotFoundError(f"There is no file {str(path)!r}.")
  if path.suffix == ".json":
    tensors, notes = _unwrap(_as_arrays(_load_shards(path), path), prefix, path)
    return WeightFile(path, "safetensors", tensors, notes=tuple(notes), config=config)
  with storage.local_copy(path) as copy:
    return dataclasses.replace(_read(epath.Path(copy), prefix), path=path, config=config)


def _look_into(folder: epath.Path) -> tuple[epath.Path, Mapping[str, Any]]:
  """The file of weights in a folder of transformers, and its config."""
  found = [name for name in (_INDEX, _SINGLE) if storage.is_file(folder / name)]
  if len(found) != 1:
    raise FileNotFoundError(
      f"The folder {str(folder)!r} must hold either {_SINGLE} or {_INDEX}; it has"
      f" {' and '.join(found) or 'neither'}. Give the file itself."
    )
  config = folder / _CONFIG
  if not storage.is_file(config):
    return folder / found[0], {}
  return folder / found[0], checked_json.read(config, checked_json.Object, mend=_AGAIN)


def _read(path: epath.Path, prefix: str) -> WeightFile:
  """Reads a local file; see `read`."""
  try:
    zipped = zipfile.is_zipfile(path)
    if zipped:
      npz_files.check_size(path, of=_WEIGHTS.content)
  except npz_files.TooLargeError:
    raise
  except npz_files.DAMAGED as error:  # Some files that are no zip files give it too.
    raise _broken(path, str(error) or type(error).__name__) from error
  opened: list[object] = []
  classes: list[str] = []
  key, card = "", ""
  if zipped and _is_npz(path):
    content, container = _load_npz(path), "npz"
  elif zipped:
    _check_zipped(path)
    (content, classes, opened), container = _load_torch(path), "torch"
  elif _is_safetensors(path):
    (content, card), container = _load_safetensors(path), "safetensors"
  else:
    content, container = safe_pickle.load(path, kind=_WEIGHTS), "caffe2"
    if type(content) is int and content == _TORCH_MAGIC:
      with (
        storage.open_binary(path) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
      ):
        safe_pickle.check_nesting(data, path, kind=_WEIGHTS, pickles=_PICKLES_OF_OLD_FILES)
      (content, classes, opened), container = _load_torch(path), "torch"
  if container == "caffe2":
    if not isinstance(content, Mapping):
      raise _broken(path, f"it holds a {type(content).__name__}, no dict")
    arrays = _as_arrays(content.get("blobs", content), path)
  else:
    if container == "torch" and isinstance(content, Mapping):
      card = content.get(_CARD, "")
    key, state = _choose(content, opened, path)
    arrays = _as_arrays(state, path)
  if not isinstance(card, str):
    raise _broken(path, f"its card is a {type(card).__name__}, no text")
  tensors, notes = _unwrap(arrays, prefix, path)
  if key:
    notes.insert(0, f"weights      under {key!r}")
    notes[1:1] = _other_weights(content, key)
  if classes:
    notes.append(f"left behind  objects of {command_line.some(classes, 6)}, unopened")
  return WeightFile(path, container, tensors, card, tuple(notes))


def _is_npz(path: epath.Path) -> bool:
  """Whether a zip file holds numpy's arrays and nothing else."""
  try:
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
  except npz_files.DAMAGED as error:
    raise _broken(path, str(error) or type(error).__name__) from error
  return bool(names) and all(name.endswith(".npy") for name in names)


def _check_zipped(path: epath.Path) -> None:
  """Looks over all pickles in a file, by whatever name PyTorch may find them."""
  try:
    with zipfile.ZipFile(path) as archive:
      found = [
        io.BytesIO(archive.read(entry))
        for entry in archive.infolist()
        if entry.filename.endswith(".pkl")
      ]
  except npz_files.DAMAGED as error:
    raise _broken(path, str(error) or type(error).__name__) from error
  for data in found:
    safe_pickle.check_nesting(data, path, kind=_WEIGHTS)


def _is_safetensors(path: epath.Path) -> bool:
  """Whether a file begins with the length of a JSON header, and the header."""
  with storage.open_binary(path) as file:
    start = file.read(9)
  length = int.from_bytes(start[:8], "little")
  return start[8:] == b"{" and length + 8 <= storage.size(path)


def write_torch(path: addresses.PathLike, tensors: Mapping[str, np.ndarray], card: str) -> None:
  """Writes a `.pyth` file as PySlowFast does.

  Args:
    path: the file to write.
    tensors: arrays with PyTorch's names and layouts.
    card: JSON that is kept beside them for `read`.
  """
  import torch

  state = {name: torch.from_numpy(np.array(v)) for name, v in tensors.items()}
  with storage.replacing(path) as scratch:
    torch.save({"epoch": 0, "model_state": state, _CARD: card}, scratch)


def write_safetensors(
  path: addresses.PathLike, tensors: Mapping[str, np.ndarray], card: str, config: str = ""
) -> None:
  """Writes arrays as transformers does.

  Args:
    path: a file that ends in .safetensors, or a folder, in which the file and a
      config.json are then put.
    tensors: arrays with its names and layouts.
    card: JSON that is kept beside them for `read`.
    config: text of config.json; "" writes none.
  """
  import safetensors.numpy

  path = addresses.path(path)
  if path.suffix != ".safetensors":
    storage.make_folder(path)
    if config:
      storage.write_text(path / _CONFIG, config)
    path = path / _SINGLE
  arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
  with storage.replacing(path) as scratch:
    # "pt" is what transformers asks for.
    safetensors.numpy.save_file(arrays, scratch, metadata={"format": "pt", _CARD: card})
