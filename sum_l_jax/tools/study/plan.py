"""From a study to the commands that run it.

Every cell of the table is one run of `sum_l_jax.main`, which anyone can repeat
by hand. Stage one is run once a seed and shared by all rows that start from it.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib

from sum_l_jax.config.schema import Settings
from sum_l_jax.tools.study import study_rows

STAGE_ONE = "stage_one"
# A table of many runs is the report; a user's own field comes later and wins.
_NO_REPORT = ("--config.report=false",)


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run.

  Attributes:
    name: "seed_3/sum_l".
    command: arguments after `python`.
    needs: names of cells that must have ended.
    reused: the folder of the same run in another study's workdir.
  """

  name: str
  command: tuple[str, ...]
  needs: tuple[str, ...] = ()
  reused: pathlib.Path | None = None

  @property
  def seed(self) -> int:
    return int(self.name.partition("/")[0].removeprefix("seed_"))

  @property
  def row(self) -> str:
    return self.name.partition("/")[2]

  def folder(self, workdir: pathlib.Path) -> pathlib.Path:
    """Where the run is, or will be."""
    return self.reused or workdir / self.name


def _read_settings(path: str, overrides: Sequence[str]) -> Settings:
  from sum_l_jax import build  # Imports JAX, for which --help does not wait.

  return build.read_settings(path, overrides)


@dataclasses.dataclass(frozen=True)
class Planner:
  """Makes the cells of a study.

  Attributes:
    study: the rows.
    config: config file with its arguments, as for `sum_l_jax.main`.
    overrides: of the user, "--config.x=y", for all runs.
    workdir: of the study.
    find: where a run with this config (as JSON) and seed is already, or None.
  """

  study: study_rows.Study
  config: str
  overrides: tuple[str, ...]
  workdir: pathlib.Path
  find: Callable[[str, int], pathlib.Path | None] = lambda config, seed: None

  def cells(self, seeds: Sequence[int]) -> list[Cell]:
    """All runs, seed by seed, checked against the config file.

    Raises:
      ValueError: a row's arguments or fields are not the config's, one is set
        twice, or a row starts from an exo encoder that there is none of.
    """
    cells = []
    for seed in seeds:
      cells += self._seed(seed)
    return cells

  def _seed(self, seed: int) -> list[Cell]:
    plain = _read_settings(self._path({}), self._fields({"seed": seed}))
    own_stage_one = "exo" in plain.stages and "joint" in plain.stages
    world = {}
    if plain.prepare.recipe:
      # Another seed also sees other clips: else it measures training noise.
      world = {"world": str(seed)}
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
            f"The row {row.name!r} starts from a trained exo encoder: give"
            " one by --config.init.exo=RUN, or a config whose stages begin"
            " with 'exo'."
          )
        fields["init.ego"] = exo
      # What stage one rendered or trained must be there first; a run that
      # needs neither waits too where it would render the same data.
      needs = (first.name,) if own_stage_one and (world or exo in fields.values()) else ()
      cells.append(self._cell(f"seed_{seed}/{row.name}", arguments, fields, dropped, needs))
    return cells

  def _path(self, arguments: Mapping[str, str]) -> str:
    file, _, given = self.config.partition(":")
    own = dict(item.partition("=")[::2] for item in given.split(",") if item)
    twice = sorted(k for k in own.keys() & arguments.keys() if own[k] != arguments[k])
    if twice:
      raise ValueError(
        f"The study sets the config argument(s) {twice} itself; leave them"
        f" out of --config={self.config}."
      )
    text = ",".join(f"{k}={v}" for k, v in {**own, **arguments}.items())
    return f"{file}:{text}" if text else file

  def _fields(self, fields: Mapping[str, object], dropped=()) -> list[str]:
    given = {o.partition("=")[0].removeprefix("--config.") for o in self.overrides}
    twice = sorted(given & fields.keys())
    if set(twice) - {"init.exo", "init.ego"}:
      raise ValueError(
        f"The study sets config field(s) {twice} itself; leave out"
        f" {', '.join('--config.' + name for name in twice)}."
      )
    kept = [
      o
      for o in self.overrides
      if o.partition("=")[0].removeprefix("--config.") not in {*fields, *dropped}
    ]
    return kept + [f"--config.{k}={v}" for k, v in fields.items()]

  def _cell(self, name: str, arguments, fields, dropped=(), needs=()) -> Cell:
    path, overrides = self._path(arguments), self._fields(fields, dropped)
    # Read once here, so that a mistake shows before the first run.
    config = _read_settings(path, overrides)
    command = (
      "-m",
      "sum_l_jax.main",
      f"--config={path}",
      f"--workdir={self.workdir / name}",
      *_NO_REPORT,
      *overrides,
    )
    found = self.find(config.to_json(), fields["seed"])
    return Cell(name, command, needs, found)
