"""The commands of the pages are run, in a folder laid out as the pages say.

A command is copied as it stands, with small data in the places that it names.
Where it needs more than any machine has, the comment above it says what
(`# needs ...`), and it is only parsed (`test_docs.py`).
"""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import shutil

from etils import epath
import numpy as np
import pytest

from sum_l_jax import main
from sum_l_jax.config import read
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.system import storage
from tests.support import numbered_video
from tests.support import pages
from tests.support import runs
from tests.support import tiny_data

ROOT = pathlib.Path(__file__).parents[2]
# The default sentence model comes from a hub; this one is a package.
MODEL = "--model=all-MiniLM-L6-v2"
SPLITS = {"train": 9, "validation": 3, "test": 6}

WALKED = [
  (code, command)
  for code, command in pages.COMMANDS
  if code.whole and not code.needs and command[0] not in pages.FOREIGN
]


def _video(path: pathlib.Path, frames: int) -> None:
  numbered_video.write_video(path, list(range(frames)))


def _manifest(folder: pathlib.Path, verbs, nouns) -> None:
  """Three videos of one class each, and the manifest that cuts them."""
  folder.mkdir(parents=True)
  lines = ["clip_id,path,start_seconds,stop_seconds,narration,verb,noun"]
  for number, (verb, noun) in enumerate(zip(verbs, nouns)):
    name = f"video{number}.mp4"
    _video(folder / name, 24)
    lines.append(f"{folder.name}{number},{name},0.0,0.8,{verb} {noun},{verb},{noun}")
  (folder / "manifest.csv").write_text("\n".join(lines) + "\n", "utf-8")


def _train(data: pathlib.Path, workdir: pathlib.Path, method: str) -> None:
  config = read.default_config()
  config.method = method
  runs.small(config, ego=data / "ego", exo=data / "exo", tables=data)
  config.eval.splits, config.eval.during_split = ("test",), "validation"
  config.joint_stage.total = "2 steps"
  main.run(config, workdir, command="python -m sum_l_jax.main ...")


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tmp_path_factory):
  """What the pages take for granted: data, two runs, videos."""
  folder = tmp_path_factory.mktemp("walk")
  data = folder / "data/toy_kitchen"
  tiny_data.write_tiny(data / "ego", "ego", SPLITS)
  tiny_data.write_tiny(data / "exo", "exo", {"train": 11})
  texts = {
    clip.narration
    for view, split in (("ego", "train"), ("ego", "validation"), ("ego", "test"), ("exo", "train"))
    for clip in records.ClipDataset(data / view, split).clips
  }
  vectors = np.random.default_rng(3).standard_normal((len(texts), 384))
  table = narration_table.NarrationTable(sorted(texts), vectors, model="all-MiniLM-L6-v2")
  runs.write_pairs(data / "ego", data / "exo", table, data)
  for path, target in (("data/epic55/ego", "ego"), ("data/lemma/exo", "exo")):
    (folder / path).parent.mkdir(parents=True)
    shutil.copytree(data / target, folder / path)
  _train(data, folder / "runs/demo", "sum_l")
  _train(data, folder / "runs/demo_fpv", "fpv_only")
  for name, target in (("epic55", "demo"), ("sum_l", "demo"), ("fpv_only", "demo_fpv")):
    (folder / "runs" / name).symlink_to(target)
  _manifest(folder / "my/ego", ("take", "put", "cut"), ("cup", "pan", "apple"))
  _manifest(folder / "my/exo", ("take", "put", "cut"), ("pan", "pan", "cup"))
  for name in ("cutting", "washing"):
    (folder / "kinetics" / name).mkdir(parents=True)
    _video(folder / "kinetics" / name / "a.mp4", 24)
  _video(folder / "video.mp4", 60)
  (folder / "videos").mkdir()
  shutil.copy(folder / "video.mp4", folder / "videos")
  shutil.copy(data / "narrations.npz", folder / "more.npz")
  (folder / "queries.txt").write_text("cut the tomato\nfill the kettle\n", encoding="utf-8")
  (folder / "configs").symlink_to(ROOT / "configs")
  return folder


def _run_main(arguments) -> int:
  """`sum_l_jax.main` without its flags, which a process parses once."""
  options = dict(
    a.removeprefix("--").split("=", 1) for a in arguments if not a.startswith("--config.")
  )
  config = read.read_file(options["config"], [a for a in arguments if a.startswith("--config.")])
  with config.unlocked():
    config.prepare.recipe = ""  # Its data is there, and is not the recipe's.
  main.run(
    config,
    options["workdir"],
    mode=options.get("mode", "train"),
    checkpoint=options.get("checkpoint", ""),
  )
  return 0


def _run(command) -> int:
  name, *arguments = command
  if name == "sum_l_jax.main":
    return _run_main(arguments)
  if name == "data_prep.embed_narrations" and MODEL not in arguments:
    arguments.append(MODEL)
  package = (ROOT / name.replace(".", "/")).is_dir()
  module = importlib.import_module(name + ".__main__" * package)
  return module.main(arguments)


# Pages are walked from top to bottom: a command uses what those above it wrote.
@pytest.mark.parametrize(
  "code, command", WALKED, ids=[f"{code}-{command[0]}" for code, command in WALKED]
)
def test_command_runs(code, command, folder, capsys):
  # Pages repeat each other: data/my is built by two of them.
  for argument in command:
    if argument.startswith("--output=data/"):
      built = folder / argument.partition("=")[2]
      if built.is_dir():
        shutil.rmtree(built)
      else:
        built.unlink(missing_ok=True)
  with contextlib.chdir(folder):
    status = _run(command)
  captured = capsys.readouterr()
  assert status in (0, None), f"{code}: {captured.err}"
  for argument in command:
    name, _, value = argument.partition("=")
    if name in ("--output", "--overlay") and value not in ("csv", "json"):
      assert list(folder.glob(f"{value}*")), f"{code}: no {value}"


# Places in the folder of which README's commands speak; `configs/` stays on the disk.
_PLACES = ("data", "my", "runs", "video.mp4", "maps.png", "retrieval.html")
_README = [
  (code, command)
  for code, command in pages.COMMANDS
  if str(code).startswith("README.md")
  and ((code, command) in WALKED or command[0] == "sum_l_jax.tools.compare")
]


def _in_bucket(argument: str, root: epath.Path) -> str:
  """The argument with gs:// in front of each path."""
  name, equals, value = argument.rpartition("=")
  paths = value.split(",")
  if name == "--config" or pathlib.PurePath(paths[0]).parts[0] not in _PLACES:
    return argument
  return name + equals + ",".join(f"{root}/{path}" for path in paths)


def test_commands_of_the_readme_run_in_a_bucket(folder, bucket, capsys):
  """All of them, one after the other, with every path in a bucket."""
  for place in ("data/toy_kitchen", "runs/demo", "runs/demo_fpv", "my"):
    storage.upload_folder(folder / place, bucket / place)
  storage.upload(folder / "video.mp4", bucket / "video.mp4")
  assert len(_README) == 8
  for code, command in _README:
    moved = [_in_bucket(argument, bucket) for argument in command]
    assert any("gs://" in argument for argument in moved)
    with contextlib.chdir(folder):
      status = _run(moved)
    assert status in (0, None), f"{code}: {capsys.readouterr().err}"
  for path in ("maps.png", "retrieval.html", "data/my/ego/card.json", "data/my/pairs.npz"):
    assert storage.size(bucket / path)


def test_which_commands_are_not_run():
  """Hours, official data, libtpu, Apache Beam, and weights of networks for GPUs."""
  run = {command[0] for _, command in WALKED}
  all_named = {
    command[0] for code, command in pages.COMMANDS if code.whole and command[0] not in pages.FOREIGN
  }
  assert all_named - run == {
    "benchmarks.tpu_layers",
    "data_prep.beam",
    "data_prep.convert_weights",
    "data_prep.mining_precision",
    "sum_l_jax.tools.aot",
    "sum_l_jax.tools.device_check",
    "sum_l_jax.tools.profile_input",
    "sum_l_jax.tools.study",
    "sum_l_jax.tools.submit",
  }
