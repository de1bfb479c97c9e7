"""The commands of a page are run one after the other, in a folder of its own.

The folder holds what a reader of that page has, and no more: what `make demo` makes
where the page says so, what an unwalked command above would have written, and
files of the reader's own that the text names. So a command that needs a run which
the page never says how to make fails here, as it does for the reader.

Commands are copied as they stand, with small data in the places that they name.
Where one needs more than any machine has, the comment above it says what
(`# needs ...`), and it is only parsed (`test_docs.py`).
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
import contextlib
import importlib
import pathlib
import re
import shutil
import subprocess

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

# What `make demo` leaves behind, and the tutorial after it.
_DEMO = ("data/toy_kitchen", "runs/demo")
_TUTORIAL = (*_DEMO, "runs/demo_fpv")
# Files of the reader's own; the text of a page says what they are.
_OWN = ("video.mp4", "videos", "my", "kinetics")
# Commands of the shell that a page may give beside its own.
_SHELL = ("cp", "mkdir", "printf")


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


@pytest.fixture(name="made", scope="module")
def made_fixture(tmp_path_factory):
  """Everything that pages start from, made once; each page gets its part of it."""
  folder = tmp_path_factory.mktemp("made")
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
  for name in ("narrations.npz", "pairs.npz"):
    shutil.copy(data / name, folder / "data/epic55")
  _train(data, folder / "runs/demo", "sum_l")
  _train(data, folder / "runs/demo_fpv", "fpv_only")
  (folder / "runs/epic55").symlink_to("demo")
  _manifest(folder / "my/ego", ("take", "put", "cut"), ("cup", "pan", "apple"))
  _manifest(folder / "my/exo", ("take", "put", "cut"), ("pan", "pan", "cup"))
  for name in ("cutting", "washing"):
    (folder / "kinetics" / name).mkdir(parents=True)
    _video(folder / "kinetics" / name / "a.mp4", 24)
  _video(folder / "video.mp4", 60)
  (folder / "videos").mkdir()
  shutil.copy(folder / "video.mp4", folder / "videos")
  return folder


def _is_walked(code: pages.Code, command: list[str]) -> bool:
  return code.whole and not code.needs and command[0] not in pages.FOREIGN


def _written(command: list[str]) -> list[str]:
  """The paths that a command writes, by its options."""
  given = [argument.partition("=") for argument in command]
  # Without a config it goes on with a run that is there.
  begins = command[0] == "sum_l_jax.main" and any(name == "--config" for name, _, _ in given)
  options = ["--output", "--overlay"] + ["--workdir"] * begins
  return [value for name, _, value in given if name in options]


PAGES = {
  page: [(code, command) for code, command in pages.COMMANDS if code.page == page]
  for page in pages.PAGES
  if any(code.page == page and _is_walked(code, command) for code, command in pages.COMMANDS)
}


def _beginning(page: pathlib.Path) -> set[str]:
  """What a reader of a page has before its first command, by what the page says."""
  text = page.read_text(encoding="utf-8")
  prose = pages.without_blocks(text)
  there = {path for path in _OWN if re.search(rf"`{re.escape(path)}[`/]", prose)}
  if "make demo" in text:
    there.update(_DEMO)
  if "(tutorial.md" in text:
    there.update(_TUTORIAL)
  return there


def _lay_out(page: pathlib.Path, made: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Makes the folder of a page's reader."""
  there, written = _beginning(page), set[str]()
  for code, command in PAGES[page]:
    if code.whole:
      (written if _is_walked(code, command) else there).update(_written(command))
  for path in sorted(there - written):
    if (made / path).exists():
      (folder / path).parent.mkdir(parents=True, exist_ok=True)
      copy = shutil.copytree if (made / path).is_dir() else shutil.copy
      copy(made / path, folder / path)
  (folder / "configs").symlink_to(ROOT / "configs")
  return folder


def _run_main(arguments) -> int:
  """`sum_l_jax.main` without its flags, which a process parses once; trainings are short."""
  options = dict(
    a.removeprefix("--").split("=", 1) for a in arguments if not a.startswith("--config.")
  )
  # A workdir alone has the settings of its run.
  source = options.get("config", options["workdir"])
  config = read.read_file(source, [a for a in arguments if a.startswith("--config.")])
  with config.unlocked():
    config.prepare.recipe = ""  # Its data is there, and is not the recipe's.
  mode = options.get("mode", "train")
  if mode == "train" and "config" in options:
    splits, tables = config.eval.splits, pathlib.Path(config.narrations).parent
    runs.small(config, ego=config.ego.dataset, exo=config.exo.datasets[0], tables=tables)
    config.eval.splits, config.eval.during_split = splits, "validation"
    config.exo_stage.total = config.joint_stage.total = "2 steps"
  main.run(config, options["workdir"], mode=mode, checkpoint=options.get("checkpoint", ""))
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


def _steps(page: pathlib.Path) -> Iterator[tuple[pages.Code, list[list[str]]]]:
  """The lines of a page to be typed, with the commands of ours in each."""
  commands = collections.defaultdict(list)
  for code, command in PAGES[page]:
    commands[code].append(command)
  for code in pages.CODE:
    if code.page != page or not code.whole:
      continue
    if code.text.split(" ")[0] in _SHELL or any(_is_walked(code, c) for c in commands[code]):
      yield code, commands[code]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_of_a_page_run_one_after_the_other(page, made, tmp_path, capsys):
  folder = _lay_out(page, made, tmp_path)
  with contextlib.chdir(folder):
    for code, commands in _steps(page):
      if not commands:
        subprocess.run(["sh", "-ec", code.text], check=True)
      for command in commands:
        status = _run(command)
        captured = capsys.readouterr()
        assert status in (0, None), f"{code}: {captured.err}"
        for path in _written(command):
          assert list(folder.glob(f"{path}*")), f"{code}: no {path}"


def test_a_page_that_never_says_how_to_make_its_run_is_found(made, tmp_path):
  page = ROOT / "docs/evaluation.md"
  assert "runs/demo_fpv" in _beginning(page), "It links to the tutorial."
  assert not _beginning(ROOT / "docs/mining.md") & {"runs/demo_fpv", "runs/epic55"}


def test_the_readme_activates_the_environment_before_it_uses_it():
  """`make demo` installs into .venv, so a plain `python` does not know the library."""
  lines = [code.text for code in pages.CODE if code.page == ROOT / "README.md" and code.whole]
  first = next(number for number, line in enumerate(lines) if line.startswith("python -m"))
  assert ". .venv/bin/activate" in lines[:first]


# Places in the folder of which README's commands speak; `configs/` stays on the disk.
_PLACES = ("data", "my", "runs", "video.mp4", "maps.png", "retrieval.html")


def _in_bucket(argument: str, root: epath.Path) -> str:
  """The argument with gs:// in front of each path."""
  name, equals, value = argument.rpartition("=")
  paths = value.split(",")
  if name == "--config" or pathlib.PurePath(paths[0]).parts[0] not in _PLACES:
    return argument
  return name + equals + ",".join(f"{root}/{path}" for path in paths)


def test_commands_of_the_first_pages_run_in_a_bucket(made, bucket, tmp_path, capsys):
  """README's and the tutorial's but trainings, one after the other, every path in a bucket."""
  for place in ("data/toy_kitchen", "runs/demo", "runs/demo_fpv", "my"):
    storage.upload_folder(made / place, bucket / place)
  storage.upload_folder(made / "runs/demo", bucket / "runs/demo_text")
  storage.upload(made / "video.mp4", bucket / "video.mp4")
  done = set[str]()
  for code, command in PAGES[ROOT / "README.md"] + PAGES[ROOT / "docs/tutorial.md"]:
    if not _is_walked(code, command) or command[0] == "sum_l_jax.main" or str(command) in done:
      continue
    done.add(str(command))
    moved = [_in_bucket(argument, bucket) for argument in command]
    assert any("gs://" in argument for argument in moved)
    with contextlib.chdir(tmp_path):
      status = _run(moved)
    assert status in (0, None), f"{code}: {capsys.readouterr().err}"
  assert len(done) >= 8
  for path in ("maps.png", "retrieval.html", "data/my/ego/card.json", "data/my/pairs.npz"):
    assert storage.size(bucket / path)


def test_which_commands_are_not_run():
  """Hours, official data, libtpu, Apache Beam, a browser, and weights of networks for GPUs."""
  run = {command[0] for code, command in pages.COMMANDS if _is_walked(code, command)}
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
    "sum_l_jax.tools.serve",
    "sum_l_jax.tools.study",
    "sum_l_jax.tools.submit",
  }
