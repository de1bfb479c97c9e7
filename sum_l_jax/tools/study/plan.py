"""From a study to the commands that run it.

Every cell of the table is one run of `sum_l_jax.main`, which anyone can repeat
by hand. Stage one is run once per seed and shared by all rows that start from
it.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from etils import epath

from sum_l_jax.config.schema import JOINT_STAGE
from sum_l_jax.config.schema import Settings
from sum_l_jax.tools.study import study_rows

STAGE_ONE = "stage_one"
# A table of many runs is the report; a user's own field comes later and wins.
_NO_REPORT = ("--config.report=false",)


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run.

  Attributes:
    name: such as "seed_3/sum_l".
    command: arguments after `python`.
    needs: names of cells that must have ended.
    reused: folder of the same run in another study's workdir, or None.
    evaluated: whether it leaves a `result.json`.
  """

  name: str
  command: tuple[str, ...]
  needs: tuple[str, ...] = ()
  reused: epath.Path | None = None
  evaluated: bool = False

  @property
  def seed(self) -> int:
    """Seed of the run."""
    return int(self.name.partition("/")[0].removeprefix("seed_"))

  @property
  def row(self) -> str:
    """Name of the row that the run belongs to."""
    return self.name.partition("/")[2]

  def folder(self, workdir: epath.Path) -> epath.Path:
    """Where the run is, or will be."""
    return self.reused or workdir / self.name


def read_stages(path: str, overrides: Sequence[str]) -> tuple[str, ...]:
  """The stages that a config names, also one that its own terms take nothing from."""
  from sum_l_jax.config import read

  return tuple(read.flatten(read.read_file(path, overrides))["stages"])


def read_settings(path: str, overrides: Sequence[str]) -> Settings:
  """Reads settings as `build.read_settings` does."""
  from sum_l_jax import build  # Imports JAX, for which --help does not wait.

  return build.read_settings(path, overrides)


@dataclasses.dataclass(frozen=True)
class Planner:
  """Makes the cells of a study.

  Attributes:
    study: the rows.
    config: config file with its arguments, as for `sum_l_jax.main`.
    overrides: the user's fields for all runs, "--config.x=y".
    workdir: workdir of the study.
    find: function that finds an existing run with such settings and a seed.
  """

  study: study_rows.Study
  config: str
  overrides: tuple[str, ...]
  workdir: epath.Path
  find: Callable[[Settings, int], epath.Path | None] = lambda settings, seed: None

  def cells(self, seeds: Sequence[int]) -> list[Cell]:
    """Plans all runs, seed by seed, checked against the config file.

    Raises:
      ValueError: a row's arguments or fields are not the config's, one is set
        twice, or a row starts from an exo encoder that does not exist.
    """
    return [cell for seed in seeds for cell in self._seed(seed)]

  def _seed(self, seed: int) -> list[Cell]:
    path, fields = self._path({}), self._fields({"seed": seed})
    plain = read_settings(path, fields)
    # Rows choose the terms: the file's own may need no stage one.
    own_stage_one = {"exo", "joint"} <= set(read_stages(path, fields))
    # Another seed also sees other clips: else it measures training noise.
    world = {"world": str(seed)} if plain.prepare.recipe else {}
    first = self._cell(f"seed_{seed}/{STAGE_ONE}", world, {"seed": seed, "stages": ("exo",)})
    cells = [first] if own_stage_one else []
    for row in self.study.rows:
      fields = {"seed": seed, **row.fields}
      exo = str(first.folder(self.workdir)) if own_stage_one else plain.init.exo
      arguments = {**world, **row.arguments}
      dropped = () if row.exo_from_stage_one else ("init.exo",)
      if own_stage_one:
        fields["stages"] = ("joint",)
        if row.exo_from_stage_one:
          fields["init.exo"] = exo
      if row.exo_start:
        if not exo:
          raise ValueError(
            f"The row {row.name!r} starts from a trained exo encoder: give one by"
            " --config.init.exo=RUN, or a config whose stages begin with 'exo'."
          )
        fields["init.ego"] = exo
      # What stage one rendered or trained must be there first; a run that
      # needs neither waits too where it would render the same data.
      needs = (first.name,) if own_stage_one and (world or exo in fields.values()) else ()
      cells.append(self._cell(f"seed_{seed}/{row.name}", arguments, fields, dropped, needs))
    return cells

  def _path(self, arguments: Mapping[str, str]) -> str:
    file, _, given = self.config.partition(":")
    own = {k: v for k, _, v in (item.partition("=") for item in given.split(",")) if k}
    twice = sorted(k for k in own.keys() & arguments.keys() if own[k] != arguments[k])
    if twice:
      raise ValueError(
        f"The study sets the config argument(s) {twice} itself; leave them out of"
        f" --config={self.config}."
      )
    text = ",".join(f"{k}={v}" for k, v in {**own, **arguments}.items())
    return f"{file}:{text}" if text else file

  def _fields(self, fields: Mapping[str, object], dropped: Sequence[str] = ()) -> list[str]:
    given = {o.partition("=")[0].removeprefix("--config."): o for o in self.overrides}
    twice = sorted(given.keys() & fields.keys())
    if set(twice) - {"init.exo", "init.ego"}:
      raise ValueError(
        f"The study sets config field(s) {twice} itself; leave out"
        f" {', '.join('--config.' + name for name in twice)}."
      )
    kept = [text for name, text in given.items() if name not in {*fields, *dropped}]
    return kept + [f"--config.{k}={v}" for k, v in fields.items()]

  def _cell(
    self,
    name: str,
    arguments: Mapping[str, str],
    fields: Mapping[str, Any],
    dropped: Sequence[str] = (),
    needs: tuple[str, ...] = (),
  ) -> Cell:
    path, overrides = self._path(arguments), self._fields(fields, dropped)
    # Read once here, so that a mistake shows before the first run.
    config = read_settings(path, overrides)
    main = ("-m", "sum_l_jax.main", f"--config={path}", f"--workdir={self.workdir / name}")
    command = (*main, *_NO_REPORT, *overrides)
    found = self.find(config, fields["seed"])
    return Cell(name, command, needs, found, evaluated=JOINT_STAGE in config.stages)
