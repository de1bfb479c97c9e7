"""Exo pools with different labels, from their real builders to a whole run."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from data_prep import doctor
from data_prep import embed_narrations
from data_prep import mine_pairs
from sum_l_jax import build
from sum_l_jax import build_data
from sum_l_jax import main
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.experiment import hand_over
from sum_l_jax.system import devices
from sum_l_jax.tools.report.__main__ import write_report
from sum_l_jax.train import metric_log
from tests.support import exo_pools
from tests.support import runs
from tests.support import tiny_data

# Head -> pool and the pool's task.
HEADS = {
  "verb": ("lemma", "verb", 25, "multi_label"),
  "noun": ("lemma", "noun", 64, "multi_label"),
  "action_multi_label": ("charades", "action", 157, "multi_label"),
  "action_softmax": ("kinetics", "action", 3, "softmax"),
}


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tmp_path_factory):
  """The four pools, an ego data set, and the tables of all."""
  folder = tmp_path_factory.mktemp("pools") / "data"
  pools = exo_pools.build(folder)
  ego = tiny_data.write_tiny(folder / "ego", "ego", {"train": 9, "validation": 4})
  texts = embed_narrations.read_narrations([ego, *pools.values()])
  assert "a woman opens a tap" in texts  # Captions without labels are embedded too.
  vectors = np.random.default_rng(7).standard_normal((len(texts), 16))
  table = narration_table.NarrationTable(texts, vectors, model="random-16")
  table.save(folder / "narrations.npz", command="tests")
  mined = mine_pairs.main(
    [
      f"--ego={ego}",
      f"--exo={','.join(map(str, pools.values()))}",
      f"--narrations={folder / 'narrations.npz'}",
      "--top_k=8",
      f"--output={folder / 'pairs.npz'}",
    ]
  )
  assert mined == 0
  return folder


@pytest.fixture(name="config")
def config_fixture(folder):
  config = read.default_config()
  config.stages = ("exo", "joint")
  runs.small(config, ego=folder / "ego", exo="", tables=folder)
  config.exo.datasets = tuple(str(folder / name) for name in exo_pools.NAMES)
  config.exo.pool_sampling = "equal"
  config.pairs.top_k = 8
  config.eval.splits, config.eval.during_split = ("validation",), "validation"
  config.log_every_steps = 1
  return config


@pytest.fixture(name="finished_pools", scope="module")
def finished_pools_fixture(folder, tmp_path_factory):
  config = config_fixture.__wrapped__(folder)
  workdir = tmp_path_factory.mktemp("pools_run")
  return workdir, main.run(config, workdir)


def test_the_doctor_agrees(folder, capsys):
  sets = [str(folder / name) for name in ("ego", *exo_pools.NAMES)]
  tables = [f"--narrations={folder / 'narrations.npz'}", f"--pairs={folder / 'pairs.npz'}"]
  assert doctor.main([*sets, *tables]) == 0
  assert "0 error(s)" in capsys.readouterr().out


@pytest.mark.parametrize("stop_at", ["exo:3", "joint:3"])
def test_a_resumed_run_equals_an_uninterrupted_one(stop_at, config, finished_pools, tmp_path):
  config.stop_at = stop_at
  assert main.run(config, tmp_path) == ""
  config.stop_at = ""
  table = main.run(config, tmp_path)
  workdir, expected = finished_pools
  assert table == expected
  for stage in ("exo", "joint"):
    runs.assert_same_weights(tmp_path / stage, workdir / stage)


def test_cards_know_the_union(folder, finished_pools):
  workdir, _ = finished_pools
  for stage, names in (("exo", exo_pools.NAMES[:3]), ("joint", exo_pools.NAMES)):
    card = weight_files.read_weights(workdir / stage).card
    pools = {name: records.ClipDataset(folder / name, "train") for name in names}
    assert {h: (len(c), card["kinds"]["exo"][h]) for h, c in card["tasks"]["exo"].items()} == {
      head: (count, kind) for head, (_, _, count, kind) in HEADS.items()
    }
    for head, (pool, task, _, _) in HEADS.items():
      assert tuple(card["tasks"]["exo"][head]) == pools[pool].tasks[task].class_names
    assert [pool["fingerprint"] for pool in card["pools"]] == [
      pool.fingerprint for pool in pools.values()
    ]
    assert [sorted(pool["heads"]) for pool in card["pools"]] == [
      sorted(head for head, (owner, *_) in HEADS.items() if owner == name) for name in names
    ]


def test_each_pool_is_watched_by_its_own_classes(finished_pools):
  logged = metric_log.read(finished_pools[0] / "exo")
  watched = {name for name in logged if name.startswith("eval/")}
  # Charades-Ego calls its split "test"; the captions have nothing to score.
  assert watched == {
    *(
      f"eval/exo_validation/lemma/{task}_map_{by}"
      for task in ("verb", "noun")
      for by in ("sklearn", "charades")
    ),
    "eval/exo_validation/kinetics/action_top1",
    "eval/exo_validation/kinetics/action_class_mean",
  }
  assert set(logged) >= {f"train/exo/{head}_top1" for head in HEADS}
  assert np.all(np.isfinite(logged["train/loss"].values))


def separate_heads(logits, batch, pools):
  """L_t with a head for each pool, from the data sets' own labels; plain numpy."""
  total = 0.0
  for head, (owner, task, _, kind) in HEADS.items():
    values = []
    for row, (pool, index) in enumerate(zip(batch["pool"], batch["clip"])):
      data = pools[pool]
      if data.directory.name != owner:
        continue
      x, ids = logits[head][row].astype(np.float64), list(data.clips[index].labels[task])
      if kind == "softmax":
        values.append(np.log(np.sum(np.exp(x))) - x[ids[0]])
      else:
        hot = np.isin(np.arange(len(x)), ids)
        values.append(np.mean(np.where(hot, np.log1p(np.exp(-x)), np.log1p(np.exp(x)))))
    total += np.mean(values) if values else 0.0
  return total


@pytest.mark.parametrize("stage", ["exo", "joint"])
def test_the_loss_is_that_of_separate_heads(stage, config):
  settings = build.resolve(config)
  trainer = build.Trainer.open(settings, stage, devices.make_mesh())
  names = [pool.directory.name for pool in trainer.opened.exo]
  # Stage one trains on labels; the captions join when there is something to align.
  assert names == list(exo_pools.NAMES[: 3 if stage == "exo" else 4])
  params, stats = trainer.network.init()
  met = set()
  with trainer.stream(start_step=0) as batches:
    for _ in range(2):
      batch = next(batches)
      outputs, _ = trainer.network.apply(params, stats, batch, train=False)
      _, terms = trainer.objective(outputs, batch)
      logits = jax.device_get(outputs["exo"]["logits"])
      expected = separate_heads(logits, batch["exo"], trainer.opened.exo)
      np.testing.assert_allclose(terms["exo_cls"], expected, rtol=1e-5)
      met |= {names[pool] for pool in batch["exo"]["pool"]}
      if stage == "joint":
        assert {"ego_exo", "exo_text"} <= terms.keys()
        assert batch["exo"]["narration"].shape == (4, 16)
  assert len(met) > 1


def test_the_joint_stage_takes_the_heads_of_stage_one(config, finished_pools, tmp_path):
  workdir, _ = finished_pools
  trainer = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh())
  params, _ = hand_over.starting_weights(trainer, workdir)
  saved = weight_files.read_weights(workdir / "exo").params["exo"]["heads"]
  assert saved.keys() == HEADS.keys()
  jax.tree.map(np.testing.assert_array_equal, params["exo"]["heads"], saved)
  # With other pools, what they have in common: the task of one kind has its bare
  # name now, and there are classes that stage one did not know.
  config.stages = ("joint",)
  config.init.exo = str(workdir / "exo")
  config.exo.datasets = config.exo.datasets[2:3]
  settings = build.resolve(config)
  pool = records.ClipDataset(config.exo.datasets[0], "train")
  data = build_data.StageData(records.ClipDataset(config.ego.dataset, "train"), (pool,), None, None)
  trainer = build.Trainer(settings, "joint", devices.make_mesh(), data.tasks, 16, 9, data)
  params, _ = hand_over.starting_weights(trainer, tmp_path)
  assert list(params["exo"]["heads"]) == ["action"]
  jax.tree.map(
    np.testing.assert_array_equal, params["exo"]["heads"]["action"], saved["action_softmax"]
  )


def test_captions_alone_need_no_labels(folder, config, tmp_path, caplog):
  config.exo.datasets = (str(folder / "captions"),)
  config.joint_stage.total = "2 steps"
  config.pairs.table = str(tmp_path / "pairs.npz")
  config.pairs.top_k = 1
  mined = mine_pairs.main(
    [
      f"--ego={config.ego.dataset}",
      f"--exo={config.exo.datasets[0]}",
      f"--narrations={config.narrations}",
      f"--output={config.pairs.table}",
    ]
  )
  assert mined == 0
  config.eval.retrieval = True
  main.run(config, tmp_path / "run")
  # Stage one has nothing to train; both is said once.
  assert caplog.text.count("Stage one is left out, for it trains on labels") == 1
  assert caplog.text.count("Its clips have no labels, so that no class is learnt from them.") == 1
  assert not (tmp_path / "run" / "exo").exists()
  logged = metric_log.read(tmp_path / "run" / "joint")
  assert {"train/loss/ego_exo", "train/loss/exo_text"} <= logged.keys()
  assert "train/loss/exo_cls" not in logged
  weights = weight_files.read_weights(tmp_path / "run")
  assert weights.card["tasks"]["exo"] == {}
  assert "heads" not in weights.params["exo"] or not weights.params["exo"]["heads"]
  result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
  found = result["splits"]["validation"]["retrieval"]["ego_to_exo"]
  assert "text_ndcg" in found and "ndcg" not in found  # There are no labels to compare.
  page = write_report(tmp_path / "run").read_text(encoding="utf-8")
  assert "Read this first" in page and "no class is learnt from them" in page
  # The same command goes on, and has nothing to do.
  main.run(config, tmp_path / "run")


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"stages": ("exo",)}, "The exo stage trains on labels, but .* has none. Take 'exo' out of"),
    (
      {"loss.weights.ego_exo": 0.0, "loss.weights.ego_text": 0.0, "loss.weights.exo_text": 0.0},
      "The only exo term of the loss is exo_cls",
    ),
  ],
)
def test_what_captions_can_not_do(folder, config, tmp_path, changes, words):
  config.exo.datasets = (str(folder / "captions"),)
  config.stages = ("joint",)
  config.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=words):
    main.run(config, tmp_path)
