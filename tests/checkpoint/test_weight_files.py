"""Weights as files, and starting a network from them."""

from __future__ import annotations

import dataclasses
import logging
import pathlib

import numpy as np
import pytest

from data_prep import export_weights
from sum_l_jax.checkpoint import manager
from sum_l_jax.checkpoint import weight_files

VERBS, NOUNS = ("take", "put", "cut"), ("cup", "pan")


def tower(seed: int, *, verbs: int = 3, width: int = 4, nouns: int = 2):
  """(params, stats) of a made-up tower: encoder, two heads, projection."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  params = {
    "encoder": {
      "stem": {"kernel": draw(1, 3, 3, 3, width)},
      "stages": {"0": {"scale": draw(width), "bias": draw(width)}},
    },
    "heads": {
      "verb": {"kernel": draw(width, verbs), "bias": draw(verbs)},
      "noun": {"kernel": draw(width, nouns), "bias": draw(nouns)},
    },
    "projection": {"kernel": draw(width, 5), "bias": draw(5)},
  }
  stats = {"encoder": {"stages": {"0": {"mean": draw(width)}}}}
  return params, stats


def make_weights(**views: int) -> weight_files.Weights:
  """Weights with a tower a view, from its seed."""
  towers = {view: tower(seed) for view, seed in views.items()}
  names = {"verb": list(VERBS), "noun": list(NOUNS)}
  return weight_files.Weights(
    params={view: t[0] for view, t in towers.items()},
    stats={view: t[1] for view, t in towers.items()},
    card={"tasks": dict.fromkeys(views, names), "backbone": "tiny"},
    source="made up",
  )


def same(a, b) -> bool:
  a, b = weight_files.flatten(a), weight_files.flatten(b)
  return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_flat_names():
  nested = {"ego": {"heads": {"verb": 1, "noun": 2}}, "exo": {"stem": 3}}
  flat = {"ego/heads/verb": 1, "ego/heads/noun": 2, "exo/stem": 3}
  assert weight_files.flatten(nested) == flat
  assert weight_files.unflatten(flat) == nested


def test_npz_round_trip(tmp_path):
  weights = make_weights(ego=1, exo=2)
  weight_files.write_weights(tmp_path / "w.npz", weights)
  again = weight_files.read_weights(tmp_path / "w.npz")
  assert same(again.params, weights.params)
  assert same(again.stats, weights.stats)
  assert again.card == weights.card
  assert again.source == str(tmp_path / "w.npz")


def test_what_is_not_a_weights_file(tmp_path):
  with pytest.raises(FileNotFoundError, match="No weights file.*nowhere.npz"):
    weight_files.read_weights(tmp_path / "nowhere.npz")
  with pytest.raises(FileNotFoundError, match="No checkpoint in.*an .npz file"):
    weight_files.read_weights(tmp_path)
  np.savez(tmp_path / "vectors.npz", vectors=np.zeros(3))
  with pytest.raises(ValueError, match="must hold 'card'.*export_weights"):
    weight_files.read_weights(tmp_path / "vectors.npz")


class Trap:
  """Says so when it is unpickled."""

  opened = False

  def __reduce__(self):
    return (setattr, (Trap, "opened", True))


def test_pickled_objects_are_refused(tmp_path):
  path = tmp_path / "trap.npz"
  np.savez(path, card=np.array([Trap()], dtype=object))
  with pytest.raises(ValueError, match="allow_pickle=False"):
    weight_files.read_weights(path)
  assert not Trap.opened


@pytest.fixture(name="report")
def report_fixture(caplog):
  logger = logging.getLogger("absl")
  propagate, logger.propagate = logger.propagate, True
  with caplog.at_level(logging.INFO, logger="absl"):
    yield caplog
  logger.propagate = propagate


def graft(params, stats, weights, *, view="ego", verbs=VERBS):
  return weight_files.graft(
    {view: params}, {view: stats}, weights, view=view, tasks={"verb": verbs, "noun": NOUNS}
  )


def test_same_view_gives_encoder_and_heads(report):
  weights = make_weights(ego=1, exo=2)
  params, stats = tower(9)
  new_params, new_stats = graft(params, stats, weights)
  ego = weights.params["ego"]
  assert same(new_params["ego"]["encoder"], ego["encoder"])
  assert same(new_params["ego"]["heads"], ego["heads"])
  assert same(new_stats["ego"], weights.stats["ego"])
  # The projection starts afresh, and the caller's trees are as they were.
  assert same(new_params["ego"]["projection"], tower(9)[0]["projection"])
  assert same(params, tower(9)[0])
  assert "encoder 3 arrays, heads ['noun', 'verb']" in report.text
  assert "initialised afresh: ['projection']" in report.text


def _probed(seed: int, *tasks: str):
  """(params, stats) of a tower whose heads read a probe, with a query each."""
  params, stats = tower(seed)
  draw = lambda number: np.random.default_rng([seed, number]).standard_normal((1, 4))
  queries = {task: np.float32(draw(number)) for number, task in enumerate(tasks)}
  params["probe"] = {"cross": {"norm": {"scale": np.float32(draw(7)[0])}}, "queries": queries}
  return {**params, "probe": {**params["probe"], "projection_query": np.float32(draw(8))}}, stats


def test_a_probe_comes_with_the_queries_of_its_heads(report):
  params, stats = _probed(2, "verb", "noun")
  weights = dataclasses.replace(make_weights(ego=1), params={"ego": params}, stats={"ego": stats})
  before = _probed(9, "verb", "noun")
  new_params, _ = graft(*before, weights, verbs=("put", "take", "cut"))
  own, theirs, found = before[0]["probe"], params["probe"], new_params["ego"]["probe"]
  assert same(found["cross"], theirs["cross"])
  # The verbs are others, so that their head and query start afresh.
  np.testing.assert_array_equal(found["queries"]["noun"], theirs["queries"]["noun"])
  np.testing.assert_array_equal(found["queries"]["verb"], own["queries"]["verb"])
  np.testing.assert_array_equal(found["projection_query"], own["projection_query"])
  assert same(before[0], _probed(9, "verb", "noun")[0])
  assert "heads ['noun']; initialised afresh: ['heads/verb', 'projection']" in report.text


@pytest.mark.parametrize("saved, wanted", [(_probed, _probed), (_probed, tower), (tower, _probed)])
def test_heads_that_read_something_else_stay_behind(saved, wanted, report):
  """Another probe, one where there is none, or none where there is one."""
  make = lambda kind, seed: kind(seed, "verb", "noun") if kind is _probed else kind(seed)
  params, stats = make(saved, 2)
  weights = dataclasses.replace(make_weights(ego=1), params={"ego": params}, stats={"ego": stats})
  before = make(wanted, 9)[0]
  given = {"view": "ego", "tasks": {"verb": VERBS, "noun": NOUNS}, "same_probe": False}
  found, _ = weight_files.graft({"ego": before}, {"ego": stats}, weights, **given)
  assert same(found["ego"]["encoder"], params["encoder"])
  assert same({**found["ego"], "encoder": {}}, {**before, "encoder": {}})
  assert "heads none" in report.text
  assert ("'probe'" in report.text.split("not taken")[0]) == (wanted is _probed)


def test_other_view_gives_the_encoder_alone(report):
  weights = make_weights(exo=2)
  new_params, _ = graft(*tower(9), weights)
  assert same(new_params["ego"]["encoder"], weights.params["exo"]["encoder"])
  assert same(new_params["ego"]["heads"], tower(9)[0]["heads"])
  assert "(exo): encoder 3 arrays, heads none" in report.text
  assert "initialised afresh: ['heads/noun', 'heads/verb', 'projection']" in report.text


def test_head_of_other_classes_stays_behind(report):
  """Even of the same number: row 0 would mean another verb."""
  weights = make_weights(ego=1)
  new_params, _ = graft(*tower(9), weights, verbs=("put", "take", "cut"))
  heads = new_params["ego"]["heads"]
  assert same(heads["verb"], tower(9)[0]["heads"]["verb"])
  assert same(heads["noun"], weights.params["ego"]["heads"]["noun"])
  assert "heads ['noun']; initialised afresh: ['heads/verb'" in report.text


def test_heads_of_several_pools_are_taken_class_by_class(report):
  """By name and kind, wherever the class was and is; the rest starts afresh."""
  weights = make_weights(ego=1)
  weights.card["kinds"] = {"ego": {"verb": "multi_label", "noun": "softmax"}}
  verbs = ("new", VERBS[2], VERBS[0])
  params, stats = tower(9)
  given = {"view": "ego", "tasks": {"verb": verbs, "noun": NOUNS}}
  kinds = {"verb": "multi_label", "noun": "softmax"}
  found, _ = weight_files.graft({"ego": params}, {"ego": stats}, weights, **given, kinds=kinds)
  for name, saved in weights.params["ego"]["heads"]["verb"].items():
    now, fresh = found["ego"]["heads"]["verb"][name], params["heads"]["verb"][name]
    np.testing.assert_array_equal(now[..., 1], saved[..., 2])
    np.testing.assert_array_equal(now[..., 2], saved[..., 0])
    np.testing.assert_array_equal(now[..., 0], fresh[..., 0])
  assert "verb (2 of 3 classes, from 'verb')" in report.text
  # The weights of a softmax are no sigmoids'.
  kinds["verb"] = "softmax"
  found, _ = weight_files.graft({"ego": params}, {"ego": stats}, weights, **given, kinds=kinds)
  assert same(found["ego"]["heads"]["verb"], params["heads"]["verb"])


def test_an_encoder_without_statistics():
  """A vision transformer has none, in the network and in the source."""
  params, _ = tower(9)
  for stats in ({}, {"ego": {}}):
    weights = dataclasses.replace(make_weights(ego=1), stats=stats)
    found, statistics = weight_files.graft(
      {"ego": params}, stats, weights, view="ego", tasks={"verb": VERBS, "noun": NOUNS}
    )
    assert same(found["ego"]["encoder"], weights.params["ego"]["encoder"])
    assert not weight_files.flatten(statistics)
  with pytest.raises(ValueError, match="the statistics of ego/encoder: 1 missing"):
    graft(*tower(9), weights)


def test_low_rank_updates_of_the_network_stay():
  params, stats = tower(9)
  low = {"lora_a": np.ones((4, 2), np.float32), "lora_b": np.zeros((2, 4), np.float32)}
  params["encoder"]["stages"]["0"] |= low
  weights = make_weights(ego=1)
  new_params, _ = graft(params, stats, weights)
  stage = weights.params["ego"]["encoder"]["stages"]["0"]
  assert same(new_params["ego"]["encoder"]["stages"]["0"], {**stage, **low})


def test_other_architectures_are_refused():
  weights = make_weights(ego=1)
  wide, stats = tower(9, width=6)
  with pytest.raises(ValueError, match="3 of another shape.*model.backbone"):
    graft(wide, stats, weights)
  deep, stats = tower(9)
  deep["encoder"]["stages"]["1"] = {"scale": np.zeros(4, np.float32)}
  with pytest.raises(ValueError, match=r"1 missing \['stages/1/scale'\]"):
    graft(deep, stats, weights)
  short, stats = tower(9)
  del short["encoder"]["stages"]["0"]["bias"]
  with pytest.raises(ValueError, match=r"1 left over \['stages/0/bias'\]"):
    graft(short, stats, weights)


def test_weights_without_an_encoder():
  weights = make_weights(ego=1)
  del weights.params["ego"]["encoder"]
  with pytest.raises(ValueError, match="made up has no encoder"):
    graft(*tower(9), weights)


META = {"tasks": {"exo": {"verb": list(VERBS)}}, "stage": "exo"}


@pytest.fixture(name="saved")
def saved_fixture(tmp_path) -> tuple[pathlib.Path, dict]:
  """A workdir whose exo stage has checkpoints at steps 3 and 5."""
  state = {
    "step": np.int32(5),
    "params": {"exo": tower(1)[0]},
    "stats": {"exo": tower(1)[1]},
    "opt_state": {"trace": np.ones(4)},
  }
  with manager.Checkpoints(tmp_path / "exo" / "checkpoints") as checkpoints:
    for step in (3, 5):
      checkpoints.save(step, state, META)
  return tmp_path, state


@pytest.mark.parametrize("where", [".", "exo", "exo/checkpoints", "exo/checkpoints/5"])
def test_a_checkpoint_is_found_from_every_folder(saved, where):
  workdir, state = saved
  weights = weight_files.read_weights(workdir / where)
  assert (weights.step, weights.card) == (5, META)
  assert same(weights.params, state["params"])
  assert same(weights.stats, state["stats"])


def test_unfinished_and_older_checkpoints_are_passed_over(saved):
  workdir, _ = saved
  folder = workdir / "exo" / "checkpoints"
  (folder / "9.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
  (folder / "7").mkdir()  # Without a state: not a checkpoint.
  assert weight_files.find_checkpoint(workdir).name == "5"
  assert weight_files.read_weights(folder / "3").step == 3


@pytest.mark.parametrize("encoder_only", [True, False])
def test_export_command(saved, tmp_path, capsys, encoder_only):
  workdir, state = saved
  output = tmp_path / "small.npz"
  arguments = [f"--checkpoint={workdir}", f"--output={output}"]
  if encoder_only:
    arguments.append("--encoder_only")
  assert export_weights.main(arguments) == 0
  weights = weight_files.read_weights(output)
  want = state["params"]["exo"]
  if encoder_only:
    want = {"encoder": want["encoder"]}
  assert same(weights.params["exo"], want)
  assert same(weights.stats, state["stats"])
  assert weights.card == META
  count = sum(x.size for x in weight_files.flatten(want).values())
  assert f"{count:,} parameters, of ['exo']" in capsys.readouterr().out
  # No optimizer in it.
  with np.load(output, allow_pickle=False) as file:
    assert {n.split("/")[0] for n in file.files} == {"card", "params", "stats"}


def test_export_of_nothing(tmp_path, capsys):
  arguments = [f"--checkpoint={tmp_path / 'nowhere'}", "--output=w.npz"]
  assert export_weights.main(arguments) == 2
  assert "No checkpoint in" in capsys.readouterr().err


def as_shapes(tree):
  return weight_files.unflatten({k: np.asarray(v) for k, v in weight_files.flatten(tree).items()})


def test_restoring_into_another_state_is_refused(saved):
  workdir, state = saved
  with manager.Checkpoints(workdir / "exo" / "checkpoints") as checkpoints:
    assert checkpoints.latest_step == 5
    assert checkpoints.meta(3) == META
    like = as_shapes(state)
    like["opt_state"] = {"mu": np.ones(4), "nu": np.ones(4)}
    with pytest.raises(ValueError) as error:
      checkpoints.restore(5, like)
    text = str(error.value)
    assert "2 missing in the checkpoint: opt_state/mu, opt_state/nu" in text
    assert "1 left over in the checkpoint: opt_state/trace" in text
    assert "Use the config it was trained with" in text
    like = as_shapes(state)
    like["params"]["exo"]["heads"]["verb"]["bias"] = np.ones(7, np.float32)
    words = r"heads/verb/bias is \(3,\) float32, wanted \(7,\) float32"
    with pytest.raises(ValueError, match=words):
      checkpoints.restore(5, like)


def test_only_the_latest_are_kept(tmp_path):
  with manager.Checkpoints(tmp_path, keep=2) as checkpoints:
    for step in (1, 2, 3, 4):
      checkpoints.save(step, {"step": np.int32(step)}, {})
    checkpoints.wait()
    assert checkpoints.latest_step == 4
  assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "4"]


def test_the_hash_is_of_the_arrays_alone(saved, tmp_path):
  workdir, _ = saved
  weights = weight_files.read_weights(workdir)
  found = weight_files.weights_sha256(weights, "exo")
  assert len(found) == 64
  path = tmp_path / "exported.npz"
  arguments = [f"--checkpoint={workdir}", f"--output={path}"]
  assert export_weights.main(arguments) == 0
  exported = weight_files.read_weights(path)
  assert weight_files.weights_sha256(exported, "exo") == found
  # Order of the entries, memory order, card and step do not count.
  stem = exported.params["exo"]["encoder"]["stem"]
  stem["kernel"] = np.asfortranarray(stem["kernel"])
  exported.params["exo"] = dict(reversed(exported.params["exo"].items()))
  exported.card["step"] = 9
  assert weight_files.weights_sha256(exported, "exo") == found
  # The other view does not count either.
  both = make_weights(ego=3, exo=1)
  assert weight_files.weights_sha256(both, "exo") == found
  assert weight_files.weights_sha256(both, "ego") != found


@pytest.mark.parametrize("part", ["params", "stats"])
def test_one_flipped_bit_changes_the_hash(part):
  weights = make_weights(ego=1)
  found = weight_files.weights_sha256(weights, "ego")
  tree = getattr(weights, part)["ego"]["encoder"]["stages"]["0"]
  name = "bias" if part == "params" else "mean"
  tree[name].view(np.uint32)[2] ^= 1
  assert weight_files.weights_sha256(weights, "ego") != found
  tree[name].view(np.uint32)[2] ^= 1
  assert weight_files.weights_sha256(weights, "ego") == found
  # Names, shapes and types count, not only bytes.
  for change in (lambda x: x.reshape(-1, 1), lambda x: x.view(np.int32)):
    tree[name], kept = change(tree[name]), tree[name]
    assert weight_files.weights_sha256(weights, "ego") != found
    tree[name] = kept
  tree["other"] = tree.pop(name)
  assert weight_files.weights_sha256(weights, "ego") != found


def test_hash_of_a_view_that_is_not_there():
  with pytest.raises(ValueError, match=r"no arrays of view 'exo'; it has \['e"):
    weight_files.weights_sha256(make_weights(ego=1), "exo")


def test_a_view_that_can_not_be_scored_is_named():
  weights = make_weights(ego=1)
  weights.card["stage"] = "joint"  # Of a method without exo clips.
  text = r"no exo encoder: it is of stage 'joint' and has \['ego'\]\. .* trained on exo clips"
  with pytest.raises(ValueError, match=text):
    weight_files.require_view(weights, "exo")


@pytest.mark.parametrize("window", ["7", -1, 1.5, None])
def test_a_pooling_that_no_network_has_is_damage(window):
  card = {
    "backbone": "tiny",
    "tasks": {},
    "kinds": {},
    "pixels": {},
    "frames": {"count": 8, "stride": 2, "crop_size": 64, "fps": 24.0},
    "network": {"projection_prenorm": False, "pool_window": 7, "fusion_norm": True},
  }
  weight_files.check_card(card)
  card["network"] = {"pool_window": window}
  with pytest.raises(ValueError, match="card of the weights is damaged: .*network.pool_window"):
    weight_files.check_card(card)
