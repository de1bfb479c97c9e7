"""The layout of the house, held by a walk over the syntax trees.

Each test lists every place that breaks its rule.
"""

from __future__ import annotations

import ast
import collections
from collections.abc import Iterator
import functools
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]

# Rooms of sum_l_jax from the ground up. A room imports itself and the rooms of
# lower floors, never one of its own floor or above.
FLOORS = (
  {"types", "loss_options", "system"},
  {"config", "video"},
  {"data", "losses", "models"},
  {"checkpoint", "train"},
  {"evaluation"},
  {"build_features"},
  {"build_data"},
  {"build"},
  {"build_evaluation", "prediction"},
  {"experiment"},
  {"tools"},
  {"main", "__init__", "__main__"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Only rooms from here up read settings; the others take keyword arguments.
FIRST_THAT_KNOWS_CONFIG = FLOOR_OF["build_features"]
# data_prep stands on the library's floors below this one,
ABOVE_DATA_PREP = FLOOR_OF["evaluation"]
# and on the readers of official benchmark files, which know no model.
BENCHMARK_FILES = "sum_l_jax.evaluation.benchmarks."

# Libraries and the places that may import them, by prefix.
ONLY_IN = {
  "clu": ("sum_l_jax/train/metrics.py",),
  "data_prep": ("sum_l_jax/main.py", "data_prep/"),
  "flax": ("sum_l_jax/models/", "sum_l_jax/train/state.py"),
  "grain": ("sum_l_jax/data/",),
  "ml_collections": ("sum_l_jax/config/", "sum_l_jax/main.py", "configs/"),
  "onnx": ("sum_l_jax/tools/export/",),
  "onnxruntime": ("sum_l_jax/tools/export/",),
  "orbax": ("sum_l_jax/checkpoint/",),
  "sklearn": ("sum_l_jax/evaluation/benchmarks/frame_alignment.py",),
  "starlette": ("sum_l_jax/tools/serve/",),
  "tensorflow": ("sum_l_jax/train/metrics.py", "data_prep/"),
  "torch": ("data_prep/",),
  "uvicorn": ("sum_l_jax/tools/serve/",),
  "wandb": ("sum_l_jax/train/wandb_writer.py",),
}
# (file, what it imports): why. Three at most.
EXEMPTIONS = {
  # A SavedModel is TensorFlow's own format; the command is the one that writes it.
  ("sum_l_jax/tools/export/saved_model.py", "tensorflow"): "writes TensorFlow's format",
  # A chip is compared in both frameworks where both are installed.
  ("sum_l_jax/tools/device_check/torch_peer.py", "torch"): "is PyTorch's side of a comparison",
}
ALIASES = {
  "jax.numpy": "jnp",
  "flax.nnx": "nnx",
  "matplotlib.pyplot": "plt",
  "numpy": "np",
  "orbax.checkpoint": "ocp",
  "pandas": "pd",
  "tensorflow": "tf",
  "tensorflow_datasets": "tfds",
}
# What handles files past the door, `sum_l_jax/system/storage.py`, which knows how disks
# and buckets differ. Apart from the first three, what is here never gets a path of a
# user, or only local ones.
LOCAL_FILES = {
  "sum_l_jax/system/storage.py": "the door itself",
  "sum_l_jax/system/addresses.py": "makes paths of a disk, and opens none",
  "sum_l_jax/system/buckets.py": "the side of the door that leads to buckets",
  "sum_l_jax/checkpoint/integrity.py": "sets folders of a disk aside; in a bucket otherwise",
  "sum_l_jax/data/shard_cache.py": "copies of shards on a local disk",
  "sum_l_jax/system/commands.py": "reads the package's own modules",
  "sum_l_jax/system/compile_cache.py": "asks who owns folders of a disk",
  "sum_l_jax/system/lease.py": "leases of a disk, and what /proc says of processes",
  "sum_l_jax/system/mirror.py": "the local side of files that are uploaded at a period",
  "sum_l_jax/system/multihost.py": "looks for devices of this machine",
  "sum_l_jax/system/processes.py": "asks the kernel of this machine",
  "sum_l_jax/types.py": "asks where it lies itself",
  "sum_l_jax/system/python_files.py": "runs Python files of a disk",
  "sum_l_jax/tools/device_check/part_process.py": "asks where it lies itself",
  "sum_l_jax/tools/study/runner.py": "appends to the local side of a log",
  "sum_l_jax/train/metric_log.py": "appends to the local side of a log",
  "sum_l_jax/video/fetched.py": "local copies of files of a bucket",
}
# Functions of modules that handle files of disks alone, and methods that do it or that
# `epath` has and does otherwise than its documentation says.
_OF_DISKS = {
  "glob": {"glob", "iglob"},
  "os": {
    *("access", "link", "listdir", "makedirs", "mkdir", "remove", "rename", "replace", "rmdir"),
    *("scandir", "stat", "symlink", "unlink", "walk"),
  },
  "os.path": {
    *("abspath", "exists", "getmtime", "getsize", "isdir", "isfile", "realpath", "samefile"),
  },
  "pathlib": {"Path", "PosixPath"},
  "shutil": {"copy", "copy2", "copyfile", "copytree", "disk_usage", "move", "rmtree"},
  "zipfile": set(),
}
_METHODS = {
  *("absolute", "copy", "expanduser", "glob", "hardlink_to", "lstat", "mkdir", "open"),
  *("read_bytes", "read_text", "rename", "resolve", "rglob", "rmdir", "rmtree", "samefile"),
  *("stat", "symlink_to", "touch", "unlink", "walk", "write_bytes", "write_text"),
}
# What has methods of these names and is no path, and names of local paths: what the
# door gives to be written or read is called so.
_NO_PATHS = {
  *("Trainer", "addresses", "archive", "av", "buckets", "build", "distribution", "os", "read"),
  *("storage", "tarfile"),
}
_LOCAL_NAMES = {"copy", "scratch"}

# Folders of tests that mirror no room, and tests of the project as a whole.
OTHER_TEST_FOLDERS = {"docs", "stress", "support"}
TESTS_OF_THE_WHOLE = {
  "test_architecture.py",
  "test_examples.py",
  "test_method_in_four_files.py",
  "test_packaging.py",
  "test_public_api.py",
}


class Import:
  """One imported name, as `a.b` for both `import a.b` and `from a import b`."""

  def __init__(self, name: str, alias: str | None, line: int):
    self.name = name
    self.alias = alias
    self.line = line


@functools.cache
def _files(folder: str) -> list[str]:
  """Python files below a folder of the project, relative to the project."""
  paths = (ROOT / folder).rglob("*.py")
  return sorted(path.relative_to(ROOT).as_posix() for path in paths)


@functools.cache
def _tree(file: str) -> ast.Module:
  return ast.parse((ROOT / file).read_text(encoding="utf-8"))


@functools.cache
def _imports(file: str) -> list[Import]:
  found = []
  for node in ast.walk(_tree(file)):
    if isinstance(node, ast.Import):
      found += [Import(alias.name, alias.asname, node.lineno) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{file}:{node.lineno}: relative import"
      found += [
        Import(f"{node.module}.{alias.name}", alias.asname, node.lineno) for alias in node.names
      ]
  return found


def _room(name: str) -> str:
  """Room of a module: `sum_l_jax/data/records.py` and `sum_l_jax.data.records`."""
  parts = name.removesuffix(".py").replace("/", ".").split(".")
  return parts[1] if len(parts) > 1 else "__init__"


def _wrong_directions() -> Iterator[tuple[str, str]]:
  for file in _files("sum_l_jax"):
    room = _room(file)
    for imported in _imports(file):
      if imported.name.split(".")[0] != "sum_l_jax":
        continue
      other = _room(imported.name)
      if (other != room and FLOOR_OF[other] >= FLOOR_OF[room]) or (
        room != other == "config" and FLOOR_OF[room] < FIRST_THAT_KNOWS_CONFIG
      ):
        yield file, imported.name
  for file in _files("data_prep"):
    for imported in _imports(file):
      if (
        imported.name.split(".")[0] == "sum_l_jax"
        and FLOOR_OF[_room(imported.name)] >= ABOVE_DATA_PREP
        and not imported.name.startswith(BENCHMARK_FILES)
      ):
        yield file, imported.name


def _libraries_out_of_place() -> Iterator[tuple[str, str]]:
  for folder in ("sum_l_jax", "data_prep"):
    for file in _files(folder):
      for imported in _imports(file):
        library = imported.name.split(".")[0]
        if library in ONLY_IN and not file.startswith(ONLY_IN[library]):
          yield file, imported.name


def _past_the_door() -> Iterator[tuple[str, int, str]]:
  """Files, lines and calls that handle files without `storage`."""
  for folder in ("sum_l_jax", "data_prep"):
    for file in _files(folder):
      for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Call) and _handles_files(node):
          yield file, node.lineno, ast.unparse(node)[:80]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "pathlib.Path.home":
          yield file, node.lineno, ast.unparse(node)


def _handles_files(call: ast.Call) -> bool:
  function = call.func
  if isinstance(function, ast.Name):
    return function.id == "open"
  if not isinstance(function, ast.Attribute):
    return False
  base = ast.unparse(function.value)
  if function.attr in _OF_DISKS.get(base, ()):
    return True
  if base.rpartition(".")[2] in _NO_PATHS or base in _OF_DISKS or base in _LOCAL_NAMES:
    return False
  if function.attr == "replace":  # That of texts takes two, and of dataclasses keywords.
    return len(call.args) == 1 and not call.keywords and base != "dataclasses"
  if function.attr == "copy":  # Dictionaries and arrays have it as well.
    return len(call.args) == 1
  return function.attr in _METHODS


def _is_exempt(file: str, imported: str) -> bool:
  return any(
    file == place and (imported + ".").startswith(name + ".") for place, name in EXEMPTIONS
  )


def test_every_room_has_its_floor():
  rooms = {_room(file) for file in _files("sum_l_jax")}
  assert rooms == set(FLOOR_OF)


def test_imports_go_down():
  wrong = [pair for pair in _wrong_directions() if not _is_exempt(*pair)]
  assert not wrong, "\n".join(f"{file} imports {name}" for file, name in wrong)


def test_exemptions_are_few_and_needed():
  assert len(EXEMPTIONS) <= 3
  broken = [*_wrong_directions(), *_libraries_out_of_place()]
  for place, name in EXEMPTIONS:
    assert any(
      file == place and (imported + ".").startswith(name + ".") for file, imported in broken
    ), f"{place} no longer imports {name}: its exemption can go"


def test_a_command_imports_no_other_command():
  """What several share lies beside them in `tools`, or below."""
  commands = {file.split("/")[2] for file in _files("sum_l_jax/tools") if "__main__" in file}
  wrong = []
  for file in _files("sum_l_jax/tools"):
    own = file.split("/")[2]
    for imported in _imports(file):
      parts = imported.name.split(".")
      if parts[:2] == ["sum_l_jax", "tools"] and parts[2] in commands - {own}:
        wrong.append(f"{file} imports {imported.name}")
  assert not wrong, "\n".join(wrong)


def test_the_project_does_not_import_what_measures_or_tests_it():
  wrong = []
  for folder in ("sum_l_jax", "data_prep", "configs", "benchmarks", "tests"):
    for file in _files(folder):
      for imported in _imports(file):
        top, _, rest = imported.name.partition(".")
        foreign = top in ("benchmarks", "tests") and top != folder
        if foreign and not (folder == "benchmarks" and rest.startswith("support")):
          wrong.append(f"{file} imports {imported.name}")
  assert not wrong, "\n".join(wrong)


def test_no_two_modules_share_a_name():
  places = collections.defaultdict(list)
  for file in _files("sum_l_jax"):
    stem = pathlib.PurePath(file).stem
    if stem not in ("__init__", "__main__"):
      places[stem].append(file)
  twice = {stem: files for stem, files in places.items() if len(files) > 1}
  assert not twice


def test_tests_lie_in_folders_as_the_package():
  wrong = []
  for file in _files("tests"):
    path = pathlib.PurePath(file)
    folder = path.parent.relative_to("tests")
    if not path.name.startswith("test_"):
      continue
    if not folder.parts:
      mirrored = path.name in TESTS_OF_THE_WHOLE
    elif folder.parts[0] in OTHER_TEST_FOLDERS:
      mirrored = folder.parts[0] != "support"
    else:
      mirrored = any((ROOT / top / folder).is_dir() for top in (".", "sum_l_jax"))
    if not mirrored:
      wrong.append(f"{file}: neither the package nor data_prep has a folder {folder}")
  assert not wrong, "\n".join(wrong)


def test_libraries_stay_behind_their_border():
  wrong = [pair for pair in _libraries_out_of_place() if not _is_exempt(*pair)]
  assert not wrong, "\n".join(f"{file} imports {name}" for file, name in wrong)


def test_the_only_aliases_are_those_of_the_field():
  wrong = []
  for folder in ("sum_l_jax", "data_prep", "benchmarks", "tests", "configs", "docs", "examples"):
    for file in _files(folder):
      for imported in _imports(file):
        if imported.alias and ALIASES.get(imported.name) != imported.alias:
          wrong.append(f"{file}:{imported.line}: {imported.name} as {imported.alias}")
  assert not wrong, "\n".join(wrong)


def test_helpers_of_tests_live_in_support():
  """No test file imports another one, or conftest."""
  wrong = []
  for folder in ("tests", "benchmarks"):
    for file in _files(folder):
      for imported in _imports(file):
        parts = imported.name.split(".")
        if parts[0] in ("tests", "benchmarks") and any(
          part.startswith("test_") or part == "conftest" for part in parts
        ):
          wrong.append(f"{file} imports {imported.name}")
  assert not wrong, "\n".join(wrong)


def test_files_are_handled_by_one_module():
  wrong = [
    f"{file}:{line}: {call}" for file, line, call in _past_the_door() if file not in LOCAL_FILES
  ]
  assert not wrong, "\n".join(["take sum_l_jax.system.storage", *wrong])
  unused = set(LOCAL_FILES) - {file for file, *_ in _past_the_door()}
  assert not unused


def test_nothing_unpickles():
  # The one place that may; it admits numpy arrays and plain containers alone.
  guarded = "sum_l_jax/system/safe_pickle.py"
  files = [*_files("sum_l_jax"), *_files("data_prep")]
  assert guarded in files
  for file in files:
    names = {imported.name.split(".")[0] for imported in _imports(file)}
    text = (ROOT / file).read_text(encoding="utf-8")
    if file != guarded:
      assert not names & {"pickle", "dill", "joblib"}, file
    assert "allow_pickle=True" not in text, file


def _run(code: str) -> list[str]:
  """Runs code in a Python of its own and returns the lines that it prints."""
  out = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
  )
  assert out.returncode == 0, out.stderr
  return out.stdout.splitlines()


def _module(file: str) -> str:
  return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_training_imports_no_torch_and_no_tensorflow():
  modules = ", ".join(
    _module(file)
    for file in _files("sum_l_jax")
    if not file.endswith("__main__.py") and (file, "torch") not in EXEMPTIONS
  )
  code = (
    f"import sys, {modules}\n"
    "print([m for m in ('torch', 'tensorflow', 'sentence_transformers')"
    " if m in sys.modules])"
  )
  assert _run(code) == ["[]"]


def test_official_definitions_know_no_model():
  """They are functions of arrays; what they stand on may know no model either."""
  above = {"checkpoint", "train", "models", "losses"}
  below = ("sum_l_jax.evaluation.labels.", "sum_l_jax.evaluation.retrieval.ranking")
  below += ("sum_l_jax.evaluation.retrieval.cosine", BENCHMARK_FILES)
  wrong = []
  for file in _files("sum_l_jax/evaluation/benchmarks"):
    for imported in _imports(file):
      own = imported.name.split(".")[0] == "sum_l_jax"
      out = own and _room(imported.name) == "evaluation" and not imported.name.startswith(below)
      if imported.name.split(".")[0] == "jax" or (own and _room(imported.name) in above) or out:
        wrong.append(f"{file} imports {imported.name}")
  assert not wrong, "\n".join(wrong)


def test_help_of_a_command_waits_for_no_jax():
  """JAX, TensorFlow and PyTorch are imported after the options are read."""
  commands = [
    _module(file)
    for folder in ("sum_l_jax", "data_prep")
    for file in _files(folder)
    if 'if __name__ == "__main__":' in (ROOT / file).read_text(encoding="utf-8")
  ]
  assert {"sum_l_jax.main", "sum_l_jax.tools.predict.__main__"} <= set(commands)
  code = (
    "import importlib, sys\n"
    f"for name in {commands}:\n"
    "  importlib.import_module(name)\n"
    "  print(name, [m for m in ('jax', 'torch', 'tensorflow', 'matplotlib')"
    " if m in sys.modules])"
  )
  assert _run(code) == [f"{name} []" for name in commands]


def test_importing_a_module_changes_nothing():
  """No module calls something, or sets what isn't its own, when it is imported."""
  defines = (".defvjp", "flags.mark_flags_as_required")
  found = []
  # Libraries read these variables once, when they are imported; the package comes
  # before all of them.
  variables = ("sum_l_jax/__init__.py", "os.environ.setdefault")
  for file in (*_files("sum_l_jax"), *_files("data_prep")):
    for node in _tree(file).body:
      if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = ast.unparse(node.value.func)
        wrong = not called.endswith(defines) and (file, called) != variables
      else:
        targets = node.targets if isinstance(node, ast.Assign) else []
        wrong = any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets)
      if wrong:
        found.append(f"{file}:{node.lineno}: {ast.unparse(node)}")
  assert not found
