"""Studies: what they run, that they go on, and the statistics they print."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
import re
import shutil
import time

import jax
import numpy as np
import pytest
from scipy import stats

from sum_l_jax import build
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.system import storage
from sum_l_jax.tools.study import plan
from sum_l_jax.tools.study import reuse
from sum_l_jax.tools.study import runner
from sum_l_jax.tools.study import study_rows
from sum_l_jax.tools.study import study_table
from sum_l_jax.tools.study.__main__ import _register
from sum_l_jax.tools.study.__main__ import main
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[3]
DEMO = str(ROOT / "configs/demo.py")
CHARADES = str(ROOT / "configs/charades_ego.py")


def _options(cell: plan.Cell) -> dict[str, str]:
  return dict(
    part.removeprefix("--").split("=", 1) for part in cell.command if part.startswith("--")
  )


def _cells(study, config=DEMO, overrides=(), seeds=(0,)):
  planner = plan.Planner(study_rows.read(study), config, overrides, pathlib.Path("w"))
  return {cell.name: cell for cell in planner.cells(seeds)}


def test_table_1_on_the_embedded_data():
  cells = _cells("table1", seeds=(0, 7))
  assert len(cells) == 2 * (1 + 7)
  stage_one = _options(cells["seed_7/stage_one"])
  assert stage_one["config"] == f"{DEMO}:world=7"
  assert stage_one["config.stages"] == "('exo',)"
  for name, cell in cells.items():
    assert _options(cell)["config.seed"] == name[5]
    if not name.endswith("stage_one"):
      assert cell.needs == (f"seed_{name[5]}/stage_one",)
  sum_l = _options(cells["seed_7/sum_l"])
  assert sum_l["config"] == f"{DEMO}:world=7,method=sum_l"
  assert sum_l["config.init.exo"] == "w/seed_7/stage_one"
  assert "config.init.ego" not in sum_l
  start = _options(cells["seed_7/fpv_only_exo_start"])
  assert start["config.init.ego"] == "w/seed_7/stage_one"


def test_stage_one_is_trained_also_where_the_files_own_terms_take_nothing_from_it():
  """The rows start from it all the same."""
  zero = [f"--config.loss.weights.{term}=0" for term in ("exo_cls", "ego_exo", "exo_text")]
  assert build.read_settings(DEMO, zero).stages == ("joint",)
  study = dataclasses.replace(
    study_rows.read("exo_start").with_rows(["fpv_only", "m"]), rows=_EGO_ROWS
  )
  planner = plan.Planner(study, DEMO, tuple(zero), pathlib.Path("w"))
  cells = {cell.name: cell for cell in planner.cells([0])}
  assert _options(cells["seed_0/stage_one"])["config.stages"] == "('exo',)"
  for name in ("seed_0/fpv_only", "seed_0/m"):
    assert cells[name].needs == ("seed_0/stage_one",)
    assert _options(cells[name])["config.init.ego"] == "w/seed_0/stage_one"


_EGO_ROWS = (
  study_rows.Row("fpv_only", "FPV only", exo_start=True),
  study_rows.Row("m", "seen twice", fields={"loss.sigma": 0.2}, exo_start=True),
)


def test_another_seed_renders_another_world():
  def world(cell):
    options = _options(cell)
    return build.read_settings(options["config"], [])

  cells = _cells("table5", seeds=(0, 3))
  a, b = (world(cells[f"seed_{s}/aw"]) for s in (0, 3))
  assert (a.prepare.seed, b.prepare.seed) == (0, 3)
  assert a.ego.dataset != b.ego.dataset
  assert b.ego.dataset.startswith(b.prepare.directory)


def test_stage_one_from_elsewhere():
  cells = _cells("table6", CHARADES, ("--config.init.exo=runs/lemma",))
  assert set(cells) == {
    f"seed_0/{n}" for n in ("fpv_only", "frozen", "shared", "same_init", "original")
  }
  given = {n: _options(c).get("config.init.exo") for n, c in cells.items()}
  assert given["seed_0/original"] == given["seed_0/frozen"] == "runs/lemma"
  assert given["seed_0/shared"] is given["seed_0/same_init"] is None
  assert all(cell.needs == () for cell in cells.values())


def test_rows_are_the_papers():
  # Reference facts, section 7.
  by_name = {row.name: row for row in study_rows.STUDIES["table1"].rows}
  assert by_name["sum_l"].paper == {
    "action_map_sklearn": 26.3,
    "verb_top1": 62.3,
    "verb_top5": 87.2,
    "noun_top1": 47.3,
    "noun_top5": 70.9,
  }
  assert [r.paper["action_map_sklearn"] for r in study_rows.STUDIES["table6"].rows] == [
    24.7,
    25.8,
    25.3,
    26.1,
    26.3,
  ]
  table5 = {r.name: r for r in study_rows.STUDIES["table5"].rows}
  assert table5["a_m"].paper == {"action_map_sklearn": 26.1}
  assert not table5["m"].paper and not table5["none"].paper


@pytest.mark.parametrize("name", study_rows.STUDIES)
def test_every_study_fits_the_configs(name):
  for config in ("demo", "epic55", "epic100", "charades_ego"):
    path = str(ROOT / f"configs/{config}.py")
    overrides = () if config == "demo" else ("--config.init.exo=runs/lemma",)
    assert len(_cells(name, path, overrides)) >= len(study_rows.STUDIES[name].rows)


@pytest.mark.parametrize(
  "study, config, overrides, text",
  [
    ("table1", DEMO + ":method=sum_l", (), r"\(s\) \['method'\] itself"),
    ("table1", DEMO, ("--config.seed=3",), r"field\(s\) \['seed'\] itself"),
    ("table1", DEMO, ("--config.sed=3",), "no config field 'sed'"),
    ("table1", "absent.py", (), "no config file 'absent.py'"),
    ("table1", CHARADES, (), "'fpv_only_exo_start' starts from a trained exo"),
    ("table9", DEMO, (), "table1, table2, .* or a .json file, got 'table9'"),
  ],
)
def test_refuses(study, config, overrides, text):
  with pytest.raises(ValueError, match=text):
    _cells(study, config, overrides)


def test_own_study(tmp_path):
  path = tmp_path / "sigma.json"
  path.write_text(
    json.dumps(
      {
        "primary": ["soft", "plain"],
        "rows": [
          {"name": "plain", "label": "plain"},
          {"name": "soft", "label": "soft", "fields": {"loss.sigma": 0.2}},
        ],
      }
    )
  )
  cells = _cells(str(path))
  assert _options(cells["seed_0/soft"])["config.loss.sigma"] == "0.2"
  for content in ("[]", "{", '{"rows": [{"nam": "x"}], "primary": []}'):
    path.write_text(content)
    with pytest.raises(ValueError, match="doesn't describe a study"):
      study_rows.read(str(path))
  # A misspelt key would train the baseline under the row's name.
  for row, words in (
    (
      {"field": {"loss.sigma": 0.2}},
      r"unknown key 'field' \(did you mean 'fields'\?\) in rows\[1\]",
    ),
    ({"exo_starts": True}, r"unknown key 'exo_starts' \(did you mean 'exo_start'\?\)"),
  ):
    rows = [{"name": "a", "label": "a"}, {"name": "b", "label": "b", **row}]
    path.write_text(json.dumps({"primary": ["a", "b"], "rows": rows}))
    with pytest.raises(ValueError, match=words):
      study_rows.read(str(path))
  path.write_text(
    json.dumps(
      {"primary": ["a", "b"], "rows": [{"name": "a", "label": "a"}, {"name": "c", "label": "c"}]}
    )
  )
  with pytest.raises(ValueError, match="must name two of the rows"):
    study_rows.read(str(path))


# The runner.


def _script(name, text, needs=()):
  return plan.Cell(name, ("-c", text), needs)


def test_runs_side_by_side_after_what_they_need(tmp_path):
  wait = (
    "import pathlib, time\n"
    "start = time.time()\n"
    "open({own!r}, 'w')\n"
    "while not pathlib.Path({other!r}).exists():\n"
    "  assert time.time() < start + 60\n"
    "  time.sleep(0.01)\n"
  )
  a, b, first = (str(tmp_path / n) for n in ("a", "b", "first"))
  cells = [
    _script("x/first", f"open({first!r}, 'w')"),
    # Each waits for the other: neither would end alone.
    _script("x/a", wait.format(own=a, other=b), ("x/first",)),
    _script(
      "x/b", wait.format(own=b, other=a) + f"assert pathlib.Path({first!r}).exists()", ("x/first",)
    ),
  ]
  said = []
  assert runner.run(cells, tmp_path / "w", parallel=2, say=said.append) == []
  assert len(said) == 3 and said[0].startswith("1/3 x/first")


def test_goes_on_after_a_failure(tmp_path):
  good, switch = tmp_path / "counted", tmp_path / "switch"
  count = f"open({str(good)!r}, 'a').write('1')"
  bad = f"import os; assert os.path.exists({str(switch)!r}), 'told why'"
  cells = [_script("a", count), _script("b", bad), _script("c", "", ("b",))]
  said = []
  failed = runner.run(cells, tmp_path / "w", say=said.append)
  assert [cell.name for cell in failed] == ["b", "c"]
  assert any("b FAILED" in s and "told why" in s for s in said)
  assert any("c not run: b failed" in s for s in said)
  switch.touch()
  assert runner.run(cells, tmp_path / "w", say=said.append) == []
  assert good.read_text() == "1"
  other = [_script("a", "pass"), *cells[1:]]
  with pytest.raises(ValueError, match="run with another command"):
    runner.run(other, tmp_path / "w", say=said.append)


def test_a_run_without_its_result_is_not_done(tmp_path):
  """As one that config.stop_at ends."""
  folder = tmp_path / "w" / "seed_0" / "a"
  cell = plan.Cell("seed_0/a", ("-c", "print('stopped here')"), evaluated=True)
  said = []
  assert runner.run([cell], tmp_path / "w", say=said.append) == [cell]
  assert "seed_0/a FAILED: it ended without result.json" in said[0] and "stopped here" in said[0]
  text = f"open({str(folder / 'result.json')!r}, 'w').write('{{}}')"
  cell = dataclasses.replace(cell, command=("-c", text))
  assert runner.run([cell], tmp_path / "w", say=said.append) == []
  assert runner.is_done(cell, tmp_path / "w")
  (folder / "result.json").unlink()
  assert not runner.is_done(cell, tmp_path / "w")


def test_runs_in_a_bucket_keep_their_logs(bucket, tmp_path):
  switch = tmp_path / "switch"
  bad = f"import os; assert os.path.exists({str(switch)!r}), 'told why'; print('went well')"
  cells = [_script("a", "print('of a')"), _script("b", bad)]
  said = []
  assert [cell.name for cell in runner.run(cells, bucket, say=said.append)] == ["b"]
  assert any("b FAILED" in line and "told why" in line for line in said)
  assert storage.read_text(bucket / "a" / "log.txt") == "of a\n"
  switch.touch()
  assert runner.run(cells, bucket, say=said.append) == []
  # What was there is gone on with.
  log = storage.read_text(bucket / "b" / "log.txt")
  assert "told why" in log and log.endswith("went well\n")
  assert runner.is_done(cells[1], bucket)


def test_an_interrupt_ends_the_runs(tmp_path):
  note = tmp_path / "pid"
  sleeper = (
    f"import os, time; note = open({str(note)!r}, 'w');"
    " print(os.getpid(), file=note, flush=True); time.sleep(600)"
  )

  def interrupt(_):
    start = time.monotonic()
    while not note.exists() or not note.read_text():
      assert time.monotonic() < start + 60
      time.sleep(0.01)
    raise KeyboardInterrupt

  cells = [_script("a", ""), _script("b", sleeper)]
  with pytest.raises(KeyboardInterrupt):
    runner.run(cells, tmp_path / "w", parallel=2, say=interrupt)
  assert not pathlib.Path(f"/proc/{note.read_text().strip()}").exists()
  assert not runner.is_done(cells[1], tmp_path / "w")


def test_runs_share_the_cores(tmp_path):
  out = tmp_path / "out"
  # Let the parent set the cores first.
  report = (
    "import os, json, time; time.sleep(0.5);"
    f" out = open({str(out)!r} + str(os.getpid()), 'w');"
    " json.dump(sorted(os.sched_getaffinity(0)), out)"
  )
  runner.run(
    [_script("a", report), _script("b", report)], tmp_path / "w", parallel=2, say=lambda text: None
  )
  seen = [json.loads(p.read_text()) for p in tmp_path.glob("out*")]
  cores = [set(c) for c in seen]
  if len(runner.os.sched_getaffinity(0)) > 1:
    assert not cores[0] & cores[1]


def _leave(folder, fields, finished, inits=None):
  """What a finished run leaves, with what its card says of starting weights."""
  folder.mkdir(parents=True)
  (folder / runner.MARK).write_text("{}")
  (folder / "config.json").write_text(json.dumps(fields))
  for stage in ("exo", "joint"):
    shutil.copytree(finished / stage, folder / stage)
    if inits is not None:
      (step,) = (folder / stage / "checkpoints").glob("[0-9]*")
      (path,) = (step / "meta").glob("metadata*")
      card = json.loads(path.read_text())
      path.write_text(json.dumps(card | {"data": {**card["data"], "init": inits(stage)}}))
  result = json.loads((finished / "result.json").read_text())
  weights = f"{folder}/joint/checkpoints/{result['step']}"
  result |= {"config": fields, "checkpoint": weights}
  (folder / "result.json").write_text(json.dumps(result))


def test_the_same_run_of_another_study_is_taken(finished, tmp_path):
  def planned(study, folder, **kwargs):
    return plan.Planner(
      study_rows.read(study),
      "configs/demo.py",
      (f"--config.init.ego={pretrained}",),
      tmp_path / folder,
      **kwargs,
    ).cells([3])

  # Not among the data, which are not rendered yet.
  pretrained = tmp_path / "pretrained.npz"
  pretrained.write_bytes(b"weights")
  # What a study and its runs leave: Table 1's stage one and two of its rows.
  (tmp_path / "one").mkdir()
  (tmp_path / "one" / runner.STUDY_FILE).write_text("{}")
  digest = weight_files.file_digest
  for cell in planned("table1", "one"):
    if cell.row in ("stage_one", "fpv_only", "sum_l", "triplet"):
      path = cell.folder(tmp_path / "one")
      overrides = [a for a in cell.command if a.startswith("--config.")]
      file = cell.command[2].removeprefix("--config=")
      text = build.read_settings(file, overrides).to_json()
      # What does not change a result may differ.
      fields = {**json.loads(text), "report": True, "input.num_threads": 7}
      if cell.row == "triplet":  # Other settings under a name that fits.
        fields["loss.threshold"] = 0.4
      exo = digest(fields["init.exo"])
      _leave(path, fields, finished[0], lambda _, exo=exo: {"ego": digest(pretrained), "exo": exo})

  # It lies elsewhere now.
  (tmp_path / "one").rename(tmp_path / "moved")
  found = lambda settings, seed: reuse.find(settings, seed, [tmp_path / "moved"])
  cells = {c.row: c for c in planned("table5", "five", find=found)}
  assert {row: c.reused.name for row, c in cells.items() if c.reused} == {
    "stage_one": "stage_one",
    "fpv_only": "fpv_only",
    "aw_m": "sum_l",
  }
  assert cells["aw_m"].seed == 3
  # What starts from the exo encoder takes that of the other study.
  start = f"--config.init.exo={tmp_path / 'moved' / 'seed_3' / 'stage_one'}"
  assert start in cells["a_m"].command
  cells = {c.row: c for c in planned("table1", "again", find=found)}
  assert cells["sum_l"].reused and not cells["triplet"].reused
  # Other weights under the same path.
  pretrained.write_bytes(b"other weights")
  assert not any(c.reused for c in planned("table5", "five", find=found))
  with pytest.raises(FileNotFoundError, match="not the workdir of a study"):
    planned("table5", "five", find=lambda settings, seed: reuse.find(settings, seed, [tmp_path]))


@pytest.fixture(name="trained")
def trained_fixture(finished, tiny_ego, tiny_exo, tiny_tables, tmp_path):
  """A study with one run, and the settings of that run with data in a place of their own."""
  study = tmp_path / "study"
  study.mkdir()
  (study / runner.STUDY_FILE).write_text("{}")
  fields = json.loads((finished[0] / "config.json").read_text())
  _leave(study / "seed_0" / "sum_l", fields, finished[0])
  data = tmp_path / "data"
  for source, name in ((tiny_ego, "ego"), (tiny_exo, "exo"), (tiny_tables, "tables")):
    shutil.copytree(source, data / name)
  config = read.default_config()
  config.stages = ("exo", "joint")
  runs.small(config, ego=data / "ego", exo=data / "exo", tables=data / "tables")
  return study, data, config


def test_a_run_is_found_where_its_data_have_moved(trained):
  study, _, config = trained
  assert reuse.find(build.resolve(config), 0, [study]) == study / "seed_0" / "sum_l"
  assert reuse.find(build.resolve(config), 1, [study]) is None


@pytest.mark.parametrize("what", ["ego", "val", "exo", "pairs", "narrations"])
def test_a_run_with_other_data_under_equal_paths_is_not_taken(trained, what):
  study, data, config = trained
  if what in ("ego", "val", "exo"):
    # As another footage of the same annotations: other pixels in one clip.
    path = data / what.replace("val", "ego") / f"clips_{'val' if what == 'val' else 'train'}.jsonl"
    lines = path.read_text().splitlines()
    clip = json.loads(lines[0])
    lines[0] = json.dumps(clip | {"digest": "0" * len(clip["digest"])})
    path.write_text("\n".join(lines) + "\n")
  elif what == "pairs":
    path = data / "tables" / "pairs.npz"
    table = pairing.PairTable.load(path)
    dataclasses.replace(table, similarity=table.similarity * 0.5).save(path)
  else:
    path = data / "tables" / "narrations.npz"
    table = narration_table.NarrationTable.load(path)
    vectors = np.random.default_rng(5).standard_normal(table.vectors.shape)
    narrations = narration_table.NarrationTable(table.narrations, vectors, model=table.model)
    runs.write_pairs(data / "ego", data / "exo", narrations, data / "tables")
  settings = build.resolve(config)
  assert reuse.find(settings, 0, [study]) is None
  # The run itself may lie where the data were taken from: the path says nothing.
  saved = study / "seed_0" / "sum_l" / "config.json"
  saved.write_text(settings.to_json())
  assert reuse.find(settings, 0, [study]) is None


def test_the_clips_of_retrieval_count_too(trained):
  study, data, config = trained
  folder, settings = study / "seed_0" / "sum_l", build.resolve(config)
  result = json.loads((folder / "result.json").read_text())

  def found(*fingerprints):
    result["splits"]["val"]["retrieval_of"] = {"exo_fingerprints": fingerprints}
    (folder / "result.json").write_text(json.dumps(result))
    return reuse.find(settings, 0, [study])

  assert found(records.ClipDataset(data / "exo", "train").fingerprint) == folder
  assert found("0123456789abcdef") is None


@pytest.mark.parametrize(
  "field, value, taken",
  [
    ("checkpoint.keep", 5, True),
    ("checkpoint.every", "3 steps", True),
    ("checkpoint.best", "eval/val/verb_top1", False),
    ("checkpoint.patience", 3, False),
  ],
)
def test_what_may_end_a_run_early_or_choose_its_weights_counts(trained, field, value, taken):
  study, _, config = trained
  path = study / "seed_0" / "sum_l" / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
  result = path.with_name("result.json")
  content = json.loads(result.read_text())
  content["config"][field] = value
  result.write_text(json.dumps(content))
  assert (reuse.find(build.resolve(config), 0, [study]) is not None) == taken


@pytest.mark.parametrize(
  "change, words",
  [
    ({"config": {"eval.clips": 1}}, r"config\.eval\.clips was 1, where the run has \d+"),
    ({"checkpoint": "elsewhere/best.npz"}, "'elsewhere/best.npz', which is no checkpoint"),
    ({"checkpoint": "w/seed_1/sum_l/joint/checkpoints/6"}, "is no checkpoint of this run"),
  ],
)
def test_another_evaluation_of_a_run_is_no_row_of_a_table(trained, change, words):
  """Somebody looked into the run by --mode=eval, with fewer views or other weights."""
  study, _, config = trained
  path = study / "seed_0" / "sum_l" / "result.json"
  content = json.loads(path.read_text())
  content |= {**change, "config": content["config"] | change.get("config", {})}
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=f"--reuse: .*{words}.*or leave the study out"):
    reuse.find(build.resolve(config), 0, [study])
  rows = (study_rows.Row("sum_l", "SUM-L"), study_rows.Row("m", "L_m"))
  table = study_rows.Study("t", "T", rows, None)
  cell = plan.Cell("seed_0/sum_l", ("-m", "sum_l_jax.main", "--config=x.py"))
  with pytest.raises(ValueError, match=f"{words}.*python -m .* --config=x.py --mode=eval"):
    study_table.read_results(table, [cell], study, "val")


def test_a_run_whose_data_are_gone_is_not_taken(trained):
  study, data, config = trained
  shutil.rmtree(data / "exo")
  assert reuse.find(build.resolve(config), 0, [study]) is None


# The table.


STUDY = study_rows.Study(
  "t",
  "T",
  (
    study_rows.Row("base", "Base"),
    study_rows.Row("new", "New", paper={"verb_top1": 62.3}),
    study_rows.Row("late", "Late"),
  ),
  ("new", "base"),
  (("late", "new"),),
)


def _fill(workdir, seeds=6, sd=0.01, gain=0.05):
  rng = np.random.default_rng(0)
  values = {}
  for seed in range(seeds):
    base = rng.normal(0.6, 0.05)
    for row, mean in (("base", base), ("new", base + gain), ("late", base)):
      if row == "late" and seed == 0:
        continue  # Still running.
      value = float(mean + rng.normal(0, sd))
      values[row, seed] = value
      folder = workdir / f"seed_{seed}" / row
      folder.mkdir(parents=True)
      (folder / "config.json").write_text("{}")
      (folder / "result.json").write_text(
        json.dumps(
          {
            "checkpoint": f"elsewhere/seed_{seed}/{row}/joint/checkpoints/6",
            "splits": {
              "test": {
                "metrics": {"verb_top1": value, "action_top1": value / 2},
                "retrieval": {"ego_to_exo": {"recall_at_1": value / 4}},
              }
            },
          }
        )
      )
  return values


def _table(workdir, seeds=6):
  cells = [plan.Cell(f"seed_{seed}/{row.name}", ()) for seed in range(seeds) for row in STUDY.rows]
  results = study_table.read_results(STUDY, cells, workdir, "test")
  return study_table.build(
    STUDY, results, about={"split": "test", "primary_metric": "verb_top1", "command": "python x"}
  )


def test_differences_are_paired_t_intervals(tmp_path):
  values = _fill(tmp_path)
  table = _table(tmp_path)
  first = table["comparisons"][0]
  assert (first["row"], first["against"], first["primary"]) == ("new", "base", True)
  a = [values["new", s] for s in range(6)]
  b = [values["base", s] for s in range(6)]
  got = first["metrics"]["verb_top1"]
  expected = stats.ttest_rel(a, b).confidence_interval(0.95)
  assert (got["low"], got["high"]) == pytest.approx(tuple(expected))
  assert got["mean"] == pytest.approx(np.mean(a) - np.mean(b))
  row = table["rows"][1]["metrics"]["verb_top1"]
  assert (row["mean"], row["sd"]) == pytest.approx((np.mean(a), np.std(a, ddof=1)))
  # Only seeds that both have.
  late = {(c["row"], c["against"]): c for c in table["comparisons"]}
  assert late["late", "new"]["metrics"]["verb_top1"]["count"] == 5


def test_some_of_the_rows_have_the_primary_comparison_or_none(tmp_path):
  """The last row with the first was called primary, which nobody had chosen."""
  _fill(tmp_path)
  results = study_table.read_results(
    STUDY,
    [plan.Cell(f"seed_{seed}/{row.name}", ()) for seed in range(6) for row in STUDY.rows],
    tmp_path,
    "test",
  )
  about = {"split": "test", "primary_metric": "verb_top1"}
  texts = {}
  for rows in (["base", "new"], ["new", "late"]):
    study = STUDY.with_rows(rows)
    table = study_table.build(study, {name: results[name] for name in rows}, about=about)
    texts[rows[0]] = study_table.as_markdown(table)
    assert sum(item["primary"] for item in table["comparisons"]) == (rows[0] == "base")
  assert "The primary comparison, set before the first run, is in verb top-1." in texts["base"]
  assert "(primary)" not in texts["new"]
  assert "None of them is the study's primary comparison" in texts["new"]


def test_what_is_written_agrees(tmp_path):
  _fill(tmp_path)
  table = _table(tmp_path)
  study_table.write(table, tmp_path)
  assert json.loads((tmp_path / "table.json").read_text()) == table
  lines = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
  for line in lines:
    if line["kind"] == "row":
      row = next(r for r in table["rows"] if r["name"] == line["row"])
      value = row["metrics"][line["metric"]]
    else:
      pair = (line["row"], line["against"])
      value = next(c for c in table["comparisons"] if pair == (c["row"], c["against"]))["metrics"][
        line["metric"]
      ]
    assert float(line["mean"]) == pytest.approx(value["mean"], abs=1e-6)
  text = (tmp_path / "table.md").read_text()
  mean = table["rows"][1]["metrics"]["verb_top1"]["mean"]
  assert re.search(rf"\| New \| 6 \| {100 * mean:.1f} ± .*\| 62.3 \|", text)
  assert "| Late | 5 |" in text
  assert "ego to exo" in text and "python x" in text


def test_every_number_of_a_table_comes_from_those_of_the_seeds(tmp_path):
  values = _fill(tmp_path)
  table = _table(tmp_path)
  study_table.write(table, tmp_path)
  results = study_table.read_csv_by_seed((tmp_path / "table_by_seed.csv").read_text())
  found = {
    (row, seed): v["verb_top1"] for row, seeds in results.items() for seed, v in seeds.items()
  }
  assert found == values
  again = study_table.build(
    STUDY, results, about={"split": "test", "primary_metric": "verb_top1", "command": "python x"}
  )
  assert again == table


def test_bold_only_where_the_interval_leaves_out_zero(tmp_path):
  _fill(tmp_path)
  line = next(
    text
    for text in study_table.as_markdown(_table(tmp_path)).splitlines()
    if text.startswith("| New - Base")
  )
  assert re.search(r"\*\*\+\d\.\d\*\* \[\+", line)
  _fill(tmp_path / "b", gain=0.0)
  text = study_table.as_markdown(_table(tmp_path / "b"))
  assert "**" not in text and "+0." in text


def test_one_seed_has_no_interval(tmp_path):
  _fill(tmp_path, seeds=1)
  table = _table(tmp_path, seeds=1)
  assert table["rows"][0]["metrics"]["verb_top1"]["sd"] is None
  text = study_table.as_markdown(table)
  assert "[" not in text and "nan" not in text and "| Late | 0 |" in text


# The command.


def test_registers_before_the_first_run_and_keeps_to_it(tmp_path):
  path = tmp_path / "study.json"
  content = {"split": "test", "primary_metric": "action_top1", "seeds": [0, 1]}
  _register(path, content)
  first = json.loads(path.read_text())
  _register(path, content)
  assert json.loads(path.read_text()) == first
  _register(path, {**content, "seeds": [0, 1, 2]})
  later = json.loads(path.read_text())
  assert (later["seeds"], later["seeds_at_first"]) == ([0, 1, 2], [0, 1])
  assert later["begun"] == first["begun"]
  with pytest.raises(ValueError, match="split was test, now validation"):
    _register(path, {**content, "split": "validation"})


def test_dry_run_and_errors(tmp_path, capsys):
  ask = ["--study=table1", f"--config={DEMO}", f"--workdir={tmp_path / 'w'}"]
  assert main([*ask, "--dry_run", "--seeds=2", "--rows=fpv_only,sum_l"]) == 0
  out = capsys.readouterr().out.splitlines()
  assert len(out) == 6 and all(line.startswith("python -m sum_l_jax.main") for line in out)
  assert not (tmp_path / "w").exists()
  assert main([*ask, "--rows=nobody"]) == 2
  assert "['nobody'] are not among the rows" in capsys.readouterr().err
  assert main([*ask, "--seeds=0"]) == 2
  assert main([*ask, "--config.model.depth=3"]) == 2
  assert "no config field 'model.depth'" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    main([*ask, "--sead=3"])


def test_a_wrong_split_or_metric_is_found_before_the_first_run(
  tiny_ego, tiny_exo, tiny_tables, tmp_path, capsys
):
  config = runs.write_config(tmp_path / "small.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  ask = ["--study=table1", f"--config={config}", f"--workdir={tmp_path / 'w'}"]
  for option, words in (
    ("--split=vla", "--split=vla (did you mean 'val'?) is not evaluated. Choose one of val"),
    ("--primary_metric=verb_top", "The primary metric 'verb_top' (did you mean 'verb_top"),
    ("--config.eval.splits=()", "config.eval.splits is empty, so that there is nothing to compare"),
  ):
    assert main([*ask, option]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
  # Nothing is registered: the mended command may begin.
  assert not (tmp_path / "w" / "study.json").exists()


def test_whole_study(tiny_ego, tiny_exo, tiny_tables, finished, tmp_path, capsys, monkeypatch):
  config = runs.write_config(tmp_path / "small.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  ask = [
    "--study=table1",
    f"--config={config}",
    "--rows=fpv_only,sum_l",
    f"--workdir={tmp_path / 'w'}",
    "--seeds=1",
    "--primary_metric=verb_top1",
  ]
  assert main(ask) == 0
  out = capsys.readouterr().out
  assert "3/3" in out and "| SUM-L | 1 |" in out
  # Stage one apart and then shared is the run of both stages, bit for bit on
  # as many cores.
  one, two = (
    weight_files.read_weights(folder)
    for folder in (finished[0], tmp_path / "w" / "seed_0" / "sum_l")
  )
  jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
  results = [
    json.loads((folder / "result.json").read_text())["splits"]["val"]
    for folder in (finished[0], tmp_path / "w" / "seed_0" / "sum_l")
  ]
  assert results[0]["metrics"] == results[1]["metrics"]
  # Again: nothing runs.
  monkeypatch.setattr(runner, "_start", None)
  assert main(ask) == 0
  assert "3 of 3 runs are there already" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["objectives", "objectives_validation", "shared_encoder"])
def test_the_plans_of_the_benchmarks_are_runs_of_the_demo(name):
  """Each row resolves, so that no night is lost to a wrong field."""
  study = study_rows.read(str(ROOT / f"benchmarks/{name}.json"))
  cells = plan.Planner(study, DEMO, (), pathlib.Path("w")).cells([3])
  assert [cell.row for cell in cells] == ["stage_one", *(row.name for row in study.rows)]
  assert all("world=3" in cell.command[2] for cell in cells)
