"""Whole runs through `main.run`: resuming, evaluating, refusing bad input."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

from etils import epath
import gcsfs.retry
import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from data_prep import mine_pairs
from data_prep.clips import clip_dataset
from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import narration_table
from sum_l_jax.data import pairing
from tests.support import checkpoints
from tests.support import environments
from tests.support import runs
from tests.support import tiny_data

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables):
  """Both stages, 6 steps of 4 clips each: an epoch is 4.25 (ego) steps."""
  config = read.default_config()
  config.stages = ("exo", "joint")
  return runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)


@pytest.mark.parametrize("stop_at", ["exo:3", "joint:3"])
def test_a_resumed_run_equals_an_uninterrupted_one(stop_at, config, finished, tmp_path):
  config.stop_at = stop_at
  assert main.run(config, tmp_path) == ""
  stage, step = stop_at.split(":")
  assert weight_files.find_checkpoint(tmp_path / stage).name == step
  config.stop_at = ""
  table = main.run(config, tmp_path)
  workdir, expected_table = finished
  assert table == expected_table
  for stage in ("exo", "joint"):
    runs.assert_same_weights(tmp_path / stage, workdir / stage)


def test_a_resumed_run_is_the_same_as_users_compile_it(config, tmp_path, optimized):
  """The other tests compile quickly, without most of XLA's optimizations."""
  config.stages = ("joint",)
  config.joint_stage.total = "4 steps"
  config.eval.splits, config.eval.during_split = (), ""
  for workdir, stop_at in (("whole", ""), ("stopped", "joint:2"), ("stopped", "")):
    config.stop_at = stop_at
    main.run(config, tmp_path / workdir)
  stopped, whole = (
    checkpoints.read_arrays(weight_files.find_checkpoint(tmp_path / workdir / "joint"))
    for workdir in ("stopped", "whole")
  )
  assert stopped.keys() == whole.keys()
  assert {name.partition("/")[0] for name in whole} >= {"opt_state", "params", "stats"}
  for name, value in whole.items():
    assert stopped[name].tobytes() == value.tobytes(), name


def test_result(finished):
  workdir, table = finished
  result = json.loads((workdir / "result.json").read_text())
  assert (result["method"], result["step"]) == ("sum_l", 6)
  split = result["splits"]["val"]
  assert (split["clips"], split["skipped"], split["views"]) == (5, [], 2)
  with np.load(workdir / "scores_val.npz", allow_pickle=False) as scores:
    for task in ("verb", "noun"):
      probabilities = scores[f"scores_{task}"]
      np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
      best = probabilities.argmax(axis=1) == scores[f"labels_{task}"]
      assert split["metrics"][f"{task}_top1"] == pytest.approx(best.mean())
      assert f"{100 * best.mean():.1f}" in table
  assert json.loads((workdir / "config.json").read_text())["seed"] == 0
  assert list((workdir / "joint").glob("events.out.tfevents*"))


def test_a_run_ends_with_its_report(config, finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / "run")
  config.report = True
  main.run(config, tmp_path / "run", command="python -m this 'and that'")
  page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
  assert "python -m this &#39;and that&#39;" in page
  accuracy = json.loads((tmp_path / "run" / "result.json").read_text())["splits"]["val"]["metrics"][
    "verb_top1"
  ]
  assert f"{100 * accuracy:.1f}" in page


def test_a_bucket_that_stays_away_from_the_report_costs_no_run(tmp_path, monkeypatch, caplog):
  def refuse(workdir):
    raise gcsfs.retry.HttpError({"code": 503, "message": "away"})

  monkeypatch.setattr("sum_l_jax.tools.report.__main__.write_report", refuse)
  with caplog.at_level("WARNING"):
    main._report(epath.Path(tmp_path))
  assert "There is no report" in caplog.text and "away" in caplog.text
  monkeypatch.setattr("sum_l_jax.tools.report.__main__.write_report", lambda workdir: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    main._report(epath.Path(tmp_path))


def test_the_first_input_pairs_are_shown(finished):
  accumulator = event_accumulator.EventAccumulator(
    str(finished[0] / "joint"), size_guidance={"tensors": 0, "images": 0}
  )
  accumulator.Reload()
  tags = accumulator.Tags()
  if "train/inputs" in tags["images"]:
    count = len(accumulator.Images("train/inputs"))
  else:  # A tensor: width, height, then a PNG a picture.
    (event,) = accumulator.Tensors("train/inputs")
    count = len(event.tensor_proto.string_val) - 2
  assert count >= 1


def test_the_similarities_of_all_pairs_are_a_histogram(finished, tiny_tables):
  table = pairing.PairTable.load(tiny_tables / "pairs.npz")
  best = table.similarity[table.ego_rows, 0]
  accumulator = event_accumulator.EventAccumulator(
    str(finished[0] / "joint"), size_guidance={"tensors": 0}
  )
  accumulator.Reload()
  (event,) = accumulator.Tensors("train/pair_similarity")
  left, right, count = tensor_util.make_ndarray(event.tensor_proto).T
  assert count.sum() == len(best) == 17
  np.testing.assert_allclose([left.min(), right.max()], [best.min(), best.max()], atol=1e-6)


def test_training_moves_every_part(finished):
  """Every tower, its statistics and its projection, away from the start."""
  workdir, _ = finished
  exo = weight_files.read_weights(workdir / "exo")
  joint = weight_files.read_weights(workdir / "joint")
  assert set(exo.params) == {"exo"} and set(joint.params) == {"ego", "exo"}
  old = weight_files.flatten(exo.params["exo"])
  new = weight_files.flatten(joint.params["exo"])
  # Stage one has no projection into the text space; the joint stage has.
  added = {"projection/kernel", "projection/bias"}
  assert set(new) - set(old) == added
  same = [n for n in old if np.array_equal(old[n], new[n])]
  assert not same
  # Handed over, not started afresh: six small steps leave it near.
  close = [
    np.linalg.norm(old[n] - new[n]) < 0.5 * np.linalg.norm(old[n])
    for n in old
    if n.endswith("kernel") and "encoder" in n
  ]
  assert all(close)


def test_evaluating_again_gives_the_same_numbers(config, finished, tmp_path):
  workdir, table = finished
  for batch_size in (4, 12):
    config.eval.batch_size = batch_size
    again = main.run(config, tmp_path, mode="eval", checkpoint=str(workdir))
    assert again == table


def test_evaluation_pads_its_batches_to_the_devices(
  finished, tiny_ego, tiny_exo, tiny_tables, tmp_path
):
  """Three devices share a batch of four; retrieval too."""
  config = runs.write_config(tmp_path / "small.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  done = subprocess.run(
    [
      *(sys.executable, "-m", "sum_l_jax.main", f"--config={config}", "--mode=eval"),
      *(f"--workdir={tmp_path / 'run'}", f"--checkpoint={finished[0]}"),
      "--config.eval.retrieval=true",
    ],
    cwd=ROOT,
    env=environments.training(devices=3),
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  found, expected = (
    json.loads((folder / "result.json").read_text())["splits"]["val"]["metrics"]
    for folder in (tmp_path / "run", finished[0])
  )
  assert {name: found[name] for name in expected} == expected


def test_a_data_set_with_a_test_split_alone_is_evaluated(config, finished, tiny_ego, tmp_path):
  shutil.copytree(tiny_ego, tmp_path / "ego")
  card = json.loads((tmp_path / "ego" / "card.json").read_text())
  del card["splits"]["train"]
  (tmp_path / "ego" / "card.json").write_text(json.dumps(card))
  (tmp_path / "ego" / "clips_train.jsonl").unlink()
  config.ego.dataset = str(tmp_path / "ego")
  config.method = "fpv_only"  # By which the weights weren't trained.
  table = main.run(config, tmp_path / "run", mode="eval", checkpoint=str(finished[0]))
  assert "constant guess" not in table and "fpv_only" not in table and "\nsum_l " in table
  found, expected = (
    json.loads((folder / "result.json").read_text())["splits"]["val"]["metrics"]
    for folder in (tmp_path / "run", finished[0])
  )
  whole = {n: v for n, v in expected.items() if not n.endswith(("_seen", "_unseen"))}
  assert found == whole and "verb_top1" in found


@pytest.mark.parametrize("method", ["fpv_only", "typical_cl", "triplet"])
def test_methods_run(method, config, tmp_path):
  config.method = method
  config.stages = ("joint",)
  config.joint_stage.total = "2 steps"
  assert f"{method} " in main.run(config, tmp_path)
  views = {"ego"} if method == "fpv_only" else {"ego", "exo"}
  assert set(weight_files.read_weights(tmp_path).params) == views


def test_first_person_steps_do_not_depend_on_the_method(config, tmp_path):
  """With the auxiliary weights at 0+ the ego encoder is that of FPV only."""
  config.stages = ("joint",)
  config.joint_stage.total = "3 steps"
  config.method = "fpv_only"
  main.run(config, tmp_path / "fpv")
  config.method = "sum_l"
  config.loss.weights.update({"ego_exo": 0.0, "ego_text": 0.0, "exo_text": 0.0})
  main.run(config, tmp_path / "labels")
  alone, joint = (
    weight_files.flatten(weight_files.read_weights(tmp_path / d).params["ego"])
    for d in ("fpv", "labels")
  )
  for name, value in alone.items():
    np.testing.assert_allclose(joint[name], value, rtol=1e-5, atol=1e-6)


def test_ego_can_start_from_stage_one(config, tmp_path):
  config.init.ego = "exo_stage"
  config.joint_stage.learning_rate = 0.0
  config.joint_stage.total = "1 steps"
  main.run(config, tmp_path)
  exo = weight_files.read_weights(tmp_path / "exo").params["exo"]["encoder"]
  ego = weight_files.read_weights(tmp_path / "joint").params["ego"]["encoder"]
  jax.tree.map(np.testing.assert_array_equal, ego, exo)


def test_another_config_in_the_workdir(config, finished):
  workdir, _ = finished
  config.loss.temperature = 0.2
  with pytest.raises(ValueError, match="loss.temperature: 0.06 -> 0.2") as e:
    main.run(config, workdir)
  assert "Give another --workdir" in str(e.value)


def test_checkpoint_of_another_architecture(config, finished, tmp_path):
  workdir, _ = finished
  config.model.backbone = "slow_r50"
  with pytest.raises(ValueError, match="holds a 'tiny'.*'slow_r50'"):
    main.run(config, tmp_path, mode="eval", checkpoint=str(workdir))
  config.init.ego = str(workdir)
  config.stages = ("joint",)
  config.method = "fpv_only"
  with pytest.raises(ValueError, match="do not fit ego/encoder.*missing"):
    main.run(config, tmp_path / "train")


def test_checkpoint_with_other_frames(config, finished, tmp_path):
  workdir, _ = finished
  config.frames.stride = 3
  with pytest.raises(ValueError, match="frames.stride = 2, the config says 3"):
    main.run(config, tmp_path, mode="eval", checkpoint=str(workdir))


def test_changed_data_under_a_checkpoint(config, tiny_ego, finished, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(finished[0], workdir)
  ego = tmp_path / "ego"
  shutil.copytree(tiny_ego, ego)
  index = ego / "clips_train.jsonl"
  index.write_text(index.read_text().replace("ego_train_000", "renamed_000"))
  config.ego.dataset = str(ego)
  saved = json.loads((workdir / "config.json").read_text())
  saved["ego.dataset"] = str(ego)
  (workdir / "config.json").write_text(json.dumps(saved))
  # The pair table notices first, and says how to mend it.
  with pytest.raises(ValueError, match="data_prep.mine_pairs"):
    main.run(config, workdir)
  config.method = "fpv_only"
  config.stages = ("joint",)
  (workdir / "config.json").unlink()
  with pytest.raises(ValueError, match="trained on other data: the ego clips"):
    main.run(config, workdir)


@pytest.fixture(name="begun")
def begun_fixture(config, tiny_ego, tiny_exo, tiny_tables, tmp_path):
  """A joint stage at step 1 of 2, and its config; the data then move."""
  config.stages = ("joint",)
  config.joint_stage.total = "2 steps"
  config.eval.splits, config.eval.during_split = (), ""
  config.stop_at = "joint:1"
  main.run(config, tmp_path / "run")
  config.stop_at = ""
  for folder in (tiny_ego, tiny_exo, tiny_tables):
    shutil.copytree(folder, tmp_path / "moved" / folder.name, dirs_exist_ok=True)
  moved = tmp_path / "moved"
  config.ego.dataset, config.exo.datasets = str(moved / "ego"), (str(moved / "exo"),)
  tables = moved / tiny_tables.name
  config.narrations, config.pairs.table = str(tables / "narrations.npz"), str(tables / "pairs.npz")
  return config


def test_moved_data_go_on(begun, tmp_path):
  main.run(begun, tmp_path / "run")
  assert weight_files.read_weights(tmp_path / "run").step == 2
  saved = json.loads((tmp_path / "run" / "config.json").read_text())
  assert saved["ego.dataset"] == str(tmp_path / "moved" / "ego")


def test_other_pixels_under_equal_ids_do_not(begun, tmp_path):
  index = tmp_path / "moved" / "ego" / "clips_train.jsonl"
  lines = [json.loads(line) for line in index.read_text().splitlines()]
  lines[3]["digest"] = "0" * len(lines[3]["digest"])
  index.write_text("".join(json.dumps(line) + "\n" for line in lines))
  with pytest.raises(ValueError, match=r"the ego clips \(pixels, .*was .*now"):
    main.run(begun, tmp_path / "run")


def test_another_pair_table_does_not(begun, tmp_path):
  """One that was mined from the same data, in another way."""
  table = pairing.PairTable.load(begun.pairs.table)
  other = {name: getattr(table, name)[:, :1] for name in ("neighbours", "similarity")}
  dataclasses.replace(table, **other).save(begun.pairs.table)
  with pytest.raises(ValueError, match=r"the pair table \(pairs\) was .*now"):
    main.run(begun, tmp_path / "run")


def test_other_starting_weights_do_not(config, finished, tmp_path):
  config.stages, config.method = ("joint",), "fpv_only"
  config.joint_stage.total = "2 steps"
  config.eval.splits, config.eval.during_split = (), ""
  shutil.copytree(finished[0] / "joint", tmp_path / "start")
  config.init.ego, config.stop_at = str(tmp_path / "start"), "joint:1"
  main.run(config, tmp_path / "run")
  config.stop_at = ""
  config.init.ego = str(finished[0] / "exo")
  with pytest.raises(ValueError, match=r"the starting weights init.ego were"):
    main.run(config, tmp_path / "run")
  # The same elsewhere, or gone since: they were needed at the start alone.
  shutil.rmtree(tmp_path / "start")
  config.init.ego = str(tmp_path / "start")
  main.run(config, tmp_path / "run")
  assert weight_files.read_weights(tmp_path / "run").step == 2


def test_missing_paths_are_named(config, tmp_path):
  config.stages = ("joint",)
  for field, value, words in (
    ("ego.dataset", "", "config.ego.dataset is empty"),
    ("ego.dataset", "nowhere", "No clip data set in 'nowhere'"),
    ("exo.datasets", (), "config.exo.datasets is empty"),
    ("exo.datasets", ("",), "config.exo.datasets is empty"),
    ("exo.datasets", ("nowhere", ""), "config.exo.datasets is .*, with an empty name in it"),
    ("narrations", "", "config.narrations is empty"),
    ("narrations", "nowhere.npz", "nowhere.npz"),
    ("pairs.table", "nowhere.npz", "nowhere.npz"),
    ("ego.train_split", "tests", r"no split 'tests'; it has \['train'"),
  ):
    wrong = config.copy_and_resolve_references()
    wrong.update_from_flattened_dict({field: value})
    # The same workdir each time: a wrong path must not spoil it.
    with pytest.raises((ValueError, FileNotFoundError), match=words):
      main.run(wrong, tmp_path)


def test_what_a_later_stage_lacks_is_said_before_the_first(config, tiny_ego, tmp_path):
  """It would cost all of stage one, which may be hours."""
  config.stages = ("exo", "joint")
  whole = config.pairs.table
  table = pairing.PairTable.load(whole)
  config.pairs.table = str(tmp_path / "pairs.npz")
  dataclasses.replace(table, ego_fingerprint="of another").save(config.pairs.table)
  with pytest.raises(ValueError, match="The pair table does not match"):
    main.run(config, tmp_path / "run")
  config.pairs.table = whole
  config.ego.dataset = str(shutil.copytree(tiny_ego, tmp_path / "ego"))
  next((tmp_path / "ego").glob("*-train.array_record*")).unlink()
  with pytest.raises(ValueError, match="The shard .* is gone"):
    main.run(config, tmp_path / "run")
  config.ego.dataset, config.eval.splits = str(tiny_ego), ("vaildation",)
  with pytest.raises(ValueError, match="has no split 'vaildation'"):
    main.run(config, tmp_path / "run")
  assert not (tmp_path / "run" / "exo").exists()


def test_narration_without_embedding(config, tiny_narrations, tmp_path, capsys):
  rows = slice(1, None)
  narration_table.NarrationTable(
    tiny_narrations.narrations[rows], tiny_narrations.vectors[rows], "random-16"
  ).save(tmp_path / "fewer.npz", command="tests")
  config.narrations = str(tmp_path / "fewer.npz")
  config.stages = ("joint",)
  # The pair table was mined with the whole table and notices first; told so,
  # the user mines again, and that names the narration.
  words = "the narration table has fingerprint"
  with pytest.raises(ValueError, match=words) as e:
    main.run(config, tmp_path / "run")
  assert "data_prep.mine_pairs" in str(e.value)
  assert (
    mine_pairs.main(
      [
        f"--ego={config.ego.dataset}",
        f"--exo={config.exo.datasets[0]}",
        f"--narrations={config.narrations}",
        f"--output={tmp_path / 'p.npz'}",
      ]
    )
    == 2
  )
  error = " ".join(capsys.readouterr().err.split())
  assert repr(tiny_narrations.narrations[0]) in error
  assert "data_prep.embed_narrations" in error


def test_a_corrupt_clip_is_replaced_and_too_many_stop_the_run(config, tmp_path):
  good = tiny_data.noise_clips("c", 12, seed=5)

  def write(name, broken):
    def clips():
      for number, clip in enumerate(good):
        if number < broken:
          frames = [frame[: len(frame) // 2] for frame in clip.frames]
          clip = type(clip)(**{**vars(clip), "frames": frames})
        yield clip

    clip_dataset.write_clip_dataset(
      tmp_path / name,
      name="broken",
      view="ego",
      tasks=tiny_data.SOFTMAX_TASKS,
      splits={"train": clips, "val": clips},
    )
    return str(tmp_path / name)

  config.method = "fpv_only"
  config.stages = ("joint",)
  config.joint_stage.total = "3 steps"
  config.input.max_corrupt_share = 0.5
  config.ego.dataset = write("one", 1)
  table = main.run(config, tmp_path / "run")
  assert "11 clips (1 skipped)" in table
  result = json.loads((tmp_path / "run" / "result.json").read_text())
  assert result["splits"]["val"]["skipped"] == ["c000"]

  config.ego.dataset = write("many", 12)
  with pytest.raises(ValueError, match="can't be read") as e:
    main.run(config, tmp_path / "stopped")
  assert str(tmp_path / "many") in str(e.value)
  assert "raise input.max_corrupt_share" in str(e.value)


def test_a_split_without_labels_is_predicted_alone(config, finished, tmp_path):
  clips = tiny_data.noise_clips("secret_", 3, seed=9)
  bare = [type(c)(**{**vars(c), "labels": {}, "narration": ""}) for c in clips]
  labelled = tiny_data.noise_clips("known_", 4, seed=8)
  clip_dataset.write_clip_dataset(
    tmp_path / "ego",
    name="tiny",
    view="ego",
    tasks=tiny_data.SOFTMAX_TASKS,
    splits={"train": lambda: labelled, "test": lambda: bare},
    unlabelled=("test",),
  )
  config.ego.dataset = str(tmp_path / "ego")
  config.eval.splits = ("test",)
  table = main.run(config, tmp_path / "run", mode="eval", checkpoint=str(finished[0]))
  assert table == ("tiny, test: 3 clips without labels scored, see scores_test.npz")
  result = json.loads((tmp_path / "run" / "result.json").read_text())
  assert result["splits"]["test"]["metrics"] == {}
  with np.load(tmp_path / "run" / "scores_test.npz") as scores:
    assert scores["clip_id"].tolist() == [c.clip_id for c in clips]
    np.testing.assert_allclose(scores["scores_verb"].sum(axis=1), 1, rtol=1e-5)
    assert (scores["labels_noun"] == -1).all()
  config.ego.train_split = "test"
  config.method = "fpv_only"
  config.stages = ("joint",)
  with pytest.raises(ValueError, match="'test' of .* has no labels to train"):
    main.run(config, tmp_path / "train")


def test_divergence_stops_the_run_and_names_the_last_checkpoint(config, tmp_path):
  config.method = "fpv_only"
  config.stages = ("joint",)
  config.joint_stage.total = "8 steps"
  config.joint_stage.learning_rate = 1e15
  config.log_every_steps = 1
  config.checkpoint.every = "1 steps"
  with pytest.raises(ValueError, match="The last good checkpoint is step"):
    main.run(config, tmp_path)
  kept = weight_files.read_weights(tmp_path)
  assert kept.step < 8


def command(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "sum_l_jax.main", *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.mark.parametrize(
  "arguments, words",
  [
    (["--config=configs/demo.py", "--workdir=x", "--config.lr=1"], "no config field 'lr'"),
    (["--config=configs/demo.py:methods=1", "--workdir=x"], "expected key=value with a key out of"),
    (["--config=configs/nowhere.py", "--workdir=x"], "configs/nowhere.py"),
    (["--config=configs/demo.py"], "--workdir"),
    (["--config=configs/demo.py", "--workdir=x", "--mode=test"], "must be train or eval"),
    (["--config=configs/demo.py", "--workdir=x", "--mode=eval"], "there is no workdir 'x'"),
    (
      ["--config=configs/demo.py", "--workdir=x", "--config.seed=abc"],
      "must be a whole number, got",
    ),
    (["--workdir=x"], "--workdir=x holds no run"),
  ],
)
def test_command_line_errors_are_one_block(arguments, words):
  done = command(*arguments)
  assert done.returncode == 2, done.stderr
  assert words in done.stderr
  assert "Traceback" not in done.stderr
  assert not (ROOT / "x").exists()
