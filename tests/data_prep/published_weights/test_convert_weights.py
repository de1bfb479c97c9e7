"""Published weights of every family come in whole, safely, and go out again."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import pickle

import numpy as np
import pytest
import torch

from data_prep import convert_weights
from data_prep.published_weights import files
import sum_l_jax
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.main import run
from sum_l_jax.tools.predict.__main__ import main
from tests.support import reference_networks
from tests.support import runs

SLOW, SLOWFAST = "slow_r50_8x8", "slowfast_r50_8x8"


@pytest.fixture(scope="module", name="networks")
def networks_fixture():
  return {model: reference_networks.build(model) for model in (SLOW, SLOWFAST)}


def convert(path, output, *options, model=SLOWFAST):
  arguments = [f"--input={path}", f"--output={output}", *options]
  if model:
    arguments.append(f"--model={model}")
  return convert_weights.main(arguments)


@pytest.fixture(name="error")
def error_fixture(capsys, tmp_path):
  """Converts what must fail; the message, on one line."""

  def run(path, *options, model=SLOWFAST):
    output = tmp_path / "refused"
    assert convert(path, output, *options, model=model) == 2
    assert not output.exists()
    return " ".join(capsys.readouterr().err.split())

  return run


def save(path, tensors, key="model_state", **more):
  torch.save({key: tensors, "epoch": 3, "cfg": "TRAIN: {}", **more}, path)
  return path


def numbered(module_states, view):
  """A tower's tensors plus a number, so that no two views hold the same."""
  return {
    k: v + (0.25 if view == "exo" else 0.0) if v.is_floating_point() else v
    for k, v in module_states.items()
  }


def assert_encoder(weights, view, network, shift=0.0):
  """The encoder equals the network's tensors, looked up by their own names.

  Our names are spelled out here a second time, from pytorchvideo's.
  """
  two = reference_networks.has_two(network)
  params = weight_files.flatten(weights.params[view]["encoder"])
  stats = weight_files.flatten(weights.stats[view]["encoder"])
  leaves = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
  seen = set()
  for name, value in reference_networks.state(network).items():
    if ".proj." in name or name.endswith("num_batches_tracked"):
      continue
    words = name.split(".")
    stage, rest, leaf = int(words[1]), words[2:-1], words[-1]
    path = "slow"
    if two and rest[0] == "multipathway_blocks":
      path, rest = ("slow", "fast")[int(rest[1])], rest[2:]
    norm = "norm" in rest[-1]
    if rest[0] == "multipathway_fusion":
      place = f"fusion/{stage}"
    elif rest[0] == "res_blocks":
      part = "shortcut" if "branch1" in rest[-1] else rest[-1][-1]
      place = f"{path}/s{stage + 1}/{rest[1]}/{part}"
    else:
      place = f"{path}/stem"
    leaf = {**leaves, "weight": "scale" if norm else "kernel"}[leaf]
    ours = f"{place}/{'norm' if norm else 'conv'}/{leaf}"
    found = {**params, **stats}[ours]
    value = value.numpy() + np.float32(shift)
    if value.ndim == 5:
      value = np.moveaxis(value, (0, 1), (4, 3))
    np.testing.assert_array_equal(found, value, err_msg=ours)
    seen.add(ours)
  assert seen == set(params) | set(stats)


def test_pytorchvideo(networks, tmp_path, capsys):
  for model, network in networks.items():
    path = save(tmp_path / f"{model}.pyth", reference_networks.state(network))
    assert convert(path, tmp_path / model, model=model) == 0
    weights = weight_files.read_weights(tmp_path / model)
    assert_encoder(weights, "ego", network)
    head = weights.params["ego"]["heads"]["action"]
    linear = network.blocks[-1].proj
    np.testing.assert_array_equal(head["kernel"], linear.weight.detach().T)
    np.testing.assert_array_equal(head["bias"], linear.bias.detach())
  out = capsys.readouterr().out
  # 662 entries: 110 counters, 2 of the head, and the encoder's.
  assert "loaded       ego/encoder: 550 arrays" in out
  assert "left behind  110 batch counters" in out
  assert "needs        ego: RGB, mean 0.45, std 0.225, 32 frames at stride 2" in out
  assert weights.card["network"] == {
    "alpha": 4,
    "fusion_kernel": 7,
    "bn_epsilon": 1e-5,
    "projection_prenorm": False,
    "fusion_norm": True,
    "pool_window": 7,
  }
  assert "scores       windows of 7 x 7" in out


def test_pyslowfast_in_all_wrappings(networks, tmp_path):
  """DDP prefix, sub-batch normalisation, either pickle format of PyTorch."""
  network = networks[SLOWFAST]
  plain = reference_networks.pyslowfast_state(network)
  wrapped = {}
  for name, value in plain.items():
    for suffix in ("running_mean", "running_var", "num_batches_tracked"):
      if name.endswith("bn." + suffix):
        start = name.removesuffix(suffix)
        wrapped[f"{start}split_bn.{suffix}"] = torch.zeros(8 * value.numel())
        name = f"{start}bn.{suffix}"
    if name.endswith(("bn.weight", "bn.bias")):
      value = value.reshape(-1, 1, 1, 1)
    wrapped[f"module.{name}"] = value
  for number, (tensors, zipped) in enumerate([(plain, True), (wrapped, True), (plain, False)]):
    path = tmp_path / f"{number}.pyth"
    torch.save(
      {"model_state": tensors, "optimizer_state": {"lr": [0.1]}},
      path,
      _use_new_zipfile_serialization=zipped,
    )
    output = tmp_path / str(number)
    assert convert(path, output, "--view=exo") == 0
    weights = weight_files.read_weights(output)
    assert weights.card["stage"] == "exo"
    assert_encoder(weights, "exo", network)


def caffe2_blobs(network):
  last = {2: 2, 3: 3, 4: 5, 5: 2}
  blobs = {
    reference_networks.caffe2_name(k, last): v.numpy()
    for k, v in reference_networks.pyslowfast_state(network).items()
    if not k.endswith("num_batches_tracked")
  }
  blobs["conv1_w_momentum"] = np.zeros(3, np.float32)
  blobs["lr"] = np.float32(0.1)
  blobs["model_iter"] = np.int64(7)
  return blobs


@pytest.mark.parametrize("model", [SLOW, SLOWFAST])
def test_caffe2(networks, tmp_path, model):
  blobs = caffe2_blobs(networks[model])
  assert len(blobs) == {SLOW: 267, SLOWFAST: 552}[model] + 3
  path = tmp_path / "zoo.pkl"
  path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
  assert convert(path, tmp_path / "out", "--view=both", model=model) == 0
  weights = weight_files.read_weights(tmp_path / "out")
  for view in ("ego", "exo"):
    assert_encoder(weights, view, networks[model])
    assert weights.params[view]["heads"]["action"]["bias"].shape == (400,)


def joint_state(network):
  """One network's arrays for two towers, named as the SUM-L authors name them."""
  ego = {
    k: v
    for k, v in reference_networks.pyslowfast_state(network).items()
    if not k.startswith("head")
  }
  exo = {}
  for name, value in numbered(ego, "exo").items():
    stage, rest = name.split(".", 1)
    exo[f"{stage}_t.{rest}"] = value
  rng = torch.Generator().manual_seed(5)
  draw = lambda *shape: torch.randn(*shape, generator=rng)
  heads = {}
  for name, count in (
    ("headepic100.projections.0", 97),
    ("headepic100.projections.1", 300),
    ("head_lemma.projections.0", 25),
    ("head_lemma.projections.1", 64),
    ("global_con_head.fpv_global_proj", 384),
    ("global_con_head.tpv_global_proj", 384),
  ):
    heads[f"{name}.weight"], heads[f"{name}.bias"] = (draw(count, 2304), draw(count))
  auxiliary = {"handobjhead.fc.weight": draw(3, 4)}
  return {**ego, **exo, **heads, **auxiliary}


def test_joint_checkpoint_of_the_authors(networks, tmp_path, capsys):
  state = joint_state(networks[SLOWFAST])
  path = save(tmp_path / "joint.pyth", state)
  assert convert(path, tmp_path / "out") == 0
  weights = weight_files.read_weights(tmp_path / "out")
  assert_encoder(weights, "ego", networks[SLOWFAST])
  assert_encoder(weights, "exo", networks[SLOWFAST], shift=0.25)
  for view, task, name in (
    ("ego", "verb", "headepic100.projections.0"),
    ("ego", "noun", "headepic100.projections.1"),
    ("exo", "verb", "head_lemma.projections.0"),
    ("exo", "noun", "head_lemma.projections.1"),
  ):
    head = weights.params[view]["heads"][task]
    np.testing.assert_array_equal(head["kernel"], state[f"{name}.weight"].T)
    np.testing.assert_array_equal(head["bias"], state[f"{name}.bias"])
  for view, word in (("ego", "fpv"), ("exo", "tpv")):
    np.testing.assert_array_equal(
      weights.params[view]["projection"]["kernel"],
      state[f"global_con_head.{word}_global_proj.weight"].T,
    )
  card = weights.card
  # OpenCV's order for the ego tower, RGB for LEMMA (reference facts, 5).
  assert card["pixels"]["ego"]["channel_order"] == "BGR"
  assert card["pixels"]["exo"]["channel_order"] == "RGB"
  assert card["kinds"]["exo"] == dict.fromkeys(["verb", "noun"], "multi_label")
  assert card["kinds"]["ego"] == dict.fromkeys(["verb", "noun"], "softmax")
  assert card["network"]["projection_prenorm"]
  # Of all multi-task networks this one alone pools the whole map.
  assert card["network"]["pool_window"] == 0
  assert (card["embedding_dim"], card["frames"]["fps"]) == (384, 60.0)
  # Each tower's own rate: the stride of 2 counts in it.
  assert card["frames"]["fps_by_view"] == {"ego": 60.0, "exo": 24.0}
  out = " ".join(capsys.readouterr().out.split())
  assert "exo: RGB, mean 0.45, std 0.225, 32 frames at stride 2 of 24 a second" in out
  assert "ego: BGR, mean 0.45, std 0.225, 32 frames at stride 2 of 60 a second" in out
  assert "auxiliary heads for hands and objects: handobjhead.fc.weight" in out
  # One view of it, the other left behind by name.
  assert convert(path, tmp_path / "exo", "--view=exo") == 0
  one = weight_files.read_weights(tmp_path / "exo")
  assert set(one.params) == {"exo"}
  assert one.card["frames"]["fps"] == 24.0
  assert_encoder(one, "exo", networks[SLOWFAST], shift=0.25)
  # The encoder, two heads and a projection.
  assert "left behind  556 of the other view" in capsys.readouterr().out


def kinetics_of_ego_exo(network, sizes=(400, 2, 1000)):
  """Kinetics weights as Ego-Exo's training class saves them."""
  state = {
    k: v
    for k, v in reference_networks.pyslowfast_state(network).items()
    if not k.startswith("head")
  }
  rng = torch.Generator().manual_seed(6)
  width = network.blocks[-1].proj.in_features
  for index, count in enumerate(sizes):
    state[f"head.projections.{index}.weight"] = torch.randn(count, width, generator=rng)
    state[f"head.projections.{index}.bias"] = torch.randn(count, generator=rng)
  hands = {"handobjhead.pathway0_conv_fcn0.weight": torch.ones(2, 2, 1, 3, 3)}
  return {**state, **hands, "handobjhead.score_projection.bias": torch.ones(2)}


@pytest.mark.parametrize("model", [SLOW, SLOWFAST])
def test_kinetics_checkpoint_of_ego_exo(networks, tmp_path, capsys, model):
  state = kinetics_of_ego_exo(networks[model])
  path = save(tmp_path / "Ego_Exo.pyth", state)
  assert convert(path, tmp_path / "out", model=model) == 0
  weights = weight_files.read_weights(tmp_path / "out")
  assert_encoder(weights, "ego", networks[model])
  heads = weights.params["ego"]["heads"]
  assert set(heads) == {"action"}
  np.testing.assert_array_equal(heads["action"]["kernel"], state["head.projections.0.weight"].T)
  np.testing.assert_array_equal(heads["action"]["bias"], state["head.projections.0.bias"])
  out = capsys.readouterr().out
  assert "left behind  4 distillation heads: head.projections.1.bias" in out
  assert "left behind  2 auxiliary heads for hands and objects" in out


def test_heads_of_the_same_names_but_of_other_tasks_are_not_guessed(networks, tmp_path, error):
  path = save(tmp_path / "two.pyth", kinetics_of_ego_exo(networks[SLOW], (97, 300)))
  text = error(path, model=SLOW)
  assert "4 in the file without a place: head.projections.0.bias" in text


def test_stage_one_checkpoint_of_the_authors(networks, tmp_path):
  state = {
    k: v
    for k, v in reference_networks.pyslowfast_state(networks[SLOWFAST]).items()
    if not k.startswith("head")
  }
  for index, count in enumerate((25, 64)):
    state[f"readout.projections.{index}.weight"] = torch.ones(count, 2304)
    state[f"readout.projections.{index}.bias"] = torch.ones(count)
  path = save(tmp_path / "lemma.pyth", state)
  assert convert(path, tmp_path / "out") == 0
  weights = weight_files.read_weights(tmp_path / "out")
  assert (set(weights.params), weights.card["stage"]) == ({"exo"}, "exo")
  assert_encoder(weights, "exo", networks[SLOWFAST])
  assert weights.params["exo"]["heads"]["noun"]["bias"].shape == (64,)
  assert weights.card["network"]["pool_window"] == 7


def test_image_weights_are_inflated(networks, tmp_path, capsys):
  """A still video gets from the inflated kernels what its frame gets in 2-D."""
  state = reference_networks.pyslowfast_state(networks[SLOW])
  flat = {k: v[:, :, 0] if v.ndim == 5 else v for k, v in state.items()}
  path = save(tmp_path / "image.pyth", flat)
  assert convert(path, tmp_path / "out", model=SLOW) == 0
  encoder = weight_files.read_weights(tmp_path / "out").params["ego"]["encoder"]
  for ours, theirs, frames in (
    ("slow/stem/conv/kernel", "s1.pathway0_stem.conv.weight", 1),
    ("slow/s4/0/a/conv/kernel", "s4.pathway0_res0.branch2.a.weight", 3),
  ):
    kernel = weight_files.flatten(encoder)[ours]
    assert kernel.shape[0] == frames
    np.testing.assert_allclose(kernel.sum(axis=0), flat[theirs].permute(2, 3, 1, 0), rtol=1e-6)
    np.testing.assert_array_equal(kernel[0], kernel[-1])
  assert "inflated     53 2-D kernels" in capsys.readouterr().out


def test_everything_must_fit(networks, tmp_path, error):
  state = reference_networks.pyslowfast_state(networks[SLOWFAST])
  less = dict(state)
  del less["s3.pathway1_res2.branch2.b_bn.running_var"]
  text = error(save(tmp_path / "less.pyth", less))
  assert "1 missing in the file: s3.pathway1_res2.branch2.b_bn.running_var" in text
  more = {**state, "s6.pathway0_res0.branch1.weight": torch.ones(2)}
  text = error(save(tmp_path / "more.pyth", more))
  assert "1 in the file without a place: s6.pathway0_res0.branch1.weight" in text
  assert "--skip=PATTERN" in text
  skip = r"--skip=s6\..*"
  assert convert(tmp_path / "more.pyth", tmp_path / "out", skip) == 0
  text = error(tmp_path / "less.pyth", model=SLOW)
  assert "does not fit 'slow_r50'" in text and "without a place" in text
  # The kernel tells which of two networks of equal depth it is.
  short = {k: v[:, :, 1:6] if k.endswith("conv_f2s.weight") else v for k, v in state.items()}
  text = error(save(tmp_path / "short.pyth", short))
  assert "4 of another shape: s1_fuse.conv_f2s.weight (16, 8, 5, 1, 1)" in text
  assert "wanted (16, 8, 7, 1, 1)" in text
  assert "choose --model=slowfast_r50_4x16" in text
  assert convert(tmp_path / "short.pyth", tmp_path / "4x16", model="slowfast_r50_4x16") == 0
  card = weight_files.read_weights(tmp_path / "4x16").card
  assert (card["network"]["alpha"], card["network"]["fusion_kernel"]) == (8, 5)
  text = error(save(tmp_path / "other.pyth", {"layer1.weight": torch.ones(2)}))
  assert "names of no known network: layer1.weight" in text


class Program:
  """A pickle that runs a command when it is opened."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return (os.mkdir, (self.path,))


@pytest.mark.parametrize("kind", ["torch", "old torch", "caffe2"])
def test_a_file_that_executes_is_refused(tmp_path, error, kind):
  trap = tmp_path / "executed"
  path = tmp_path / "weights.pyth"
  if kind == "caffe2":
    path.write_bytes(pickle.dumps({"blobs": {"conv1_w": Program(trap)}}))
  else:
    torch.save({"model_state": Program(trap)}, path, _use_new_zipfile_serialization=kind == "torch")
  text = error(path)
  assert "is refused: opening it would call posix.mkdir" in text
  assert "from their original source" in text
  assert not trap.exists()
  pickle.loads(pickle.dumps(Program(trap)))  # It would have.
  assert trap.exists()


def test_damaged_files(tmp_path, error):
  assert "There is no file" in error(tmp_path / "nowhere.pyth")
  whole = save(tmp_path / "whole.pyth", {"a": torch.ones(1000)})
  for name, data in (
    ("half.pyth", whole.read_bytes()[:2000]),
    ("empty.pyth", b""),
    ("text.pkl", b"<html>Not found</html>"),
    ("half.pkl", pickle.dumps({"blobs": {"a": np.ones(99)}})[:200]),
    ("list.pkl", pickle.dumps([1, 2])),
  ):
    (tmp_path / name).write_bytes(data)
    text = error(tmp_path / name)
    assert f"{name} can't be read as weights" in text, name
    assert "download it again" in text
  text = error(save(tmp_path / "none.pyth", {}))
  assert "can't be read as weights" in text
  assert "names of no known network" in error(whole, model="")
  named = save(tmp_path / "named.pyth", {"s1.pathway0_stem.conv.weight": torch.ones(1)})
  assert "--model is needed: one of slow_r50_8x8" in error(named, model="")


def test_output_that_exists_is_not_touched(tmp_path, capsys):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "mine.txt").write_text("kept")
  path = save(tmp_path / "w.pyth", {"a": torch.ones(1)})
  assert convert(path, tmp_path / "out") == 2
  assert "is not an empty folder" in capsys.readouterr().err
  assert (tmp_path / "out" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("model", [SLOW, SLOWFAST])
def test_out_to_pytorch_and_back_bit_for_bit(networks, tmp_path, model):
  network = networks[model]
  first = save(tmp_path / "first.pyth", reference_networks.pyslowfast_state(network))
  assert convert(first, tmp_path / "one", model=model) == 0
  second = tmp_path / "second.pyth"
  assert convert(tmp_path / "one", second, "--export=pyth", model="") == 0
  ours = torch.load(second, weights_only=True)["model_state"]
  theirs = {
    k: v
    for k, v in reference_networks.pyslowfast_state(network).items()
    if not k.endswith("num_batches_tracked")
  }
  assert ours.keys() == theirs.keys()
  for name, value in theirs.items():
    assert value.numpy().tobytes() == ours[name].numpy().tobytes(), name
  assert convert(second, tmp_path / "two", model=model) == 0
  a, b = (weight_files.read_weights(tmp_path / d) for d in ("one", "two"))
  for one, other in ((a.params, b.params), (a.stats, b.stats)):
    one, other = weight_files.flatten(one), weight_files.flatten(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
      assert value.tobytes() == other[name].tobytes(), name
  without_source = lambda card: {k: v for k, v in card.items() if k != "versions"}
  assert without_source(a.card) == without_source(b.card)


def test_joint_round_trip(networks, tmp_path):
  state = joint_state(networks[SLOWFAST])
  first = save(tmp_path / "joint.pyth", state)
  assert convert(first, tmp_path / "one") == 0
  second = tmp_path / "again.pyth"
  assert convert(tmp_path / "one", second, "--export=pyth", model="") == 0
  read = files.read(second)
  expected = {
    k: v
    for k, v in state.items()
    if not k.endswith("num_batches_tracked") and not k.startswith("handobj")
  }
  assert read.tensors.keys() == expected.keys()
  for name, value in expected.items():
    assert value.numpy().tobytes() == read.tensors[name].tobytes(), name


@pytest.mark.parametrize("view", ["ego", "exo"])
def test_one_tower_of_a_run_of_ours_comes_back_as_what_it_was(networks, tmp_path, view):
  """Its view, and a projection that was trained as the paper has it."""
  first = save(tmp_path / "joint.pyth", joint_state(networks[SLOWFAST]))
  assert convert(first, tmp_path / "one") == 0
  weights = weight_files.read_weights(tmp_path / "one")
  card = {k: v for k, v in weights.card.items() if k != "network"}
  card["frames"] = {**card["frames"], "rates": [59.94, 60.0]}
  card["config"] = json.dumps(
    {
      "model.projection_prenorm": "false",
      "eval.pool_window": 5,
      "frames.crop_size": 224,
    }
  )
  run = tmp_path / "run.npz"
  weight_files.write_weights(run, dataclasses.replace(weights, card=card))
  out = tmp_path / "out.pyth"
  assert convert(run, out, "--export=pyth", f"--view={view}", model="") == 0
  assert convert(out, tmp_path / "two") == 0
  again = weight_files.read_weights(tmp_path / "two")
  assert set(again.params) == {view}
  assert not again.card["network"]["projection_prenorm"]
  assert again.card["network"]["pool_window"] == 5
  assert again.card["frames"]["fps"] == {"ego": 60.0, "exo": 24.0}[view]
  assert again.card["frames"]["rates"] == [59.94, 60.0]
  flat = weight_files.flatten(again.params[view])
  assert flat.keys() == weight_files.flatten(weights.params[view]).keys()


def test_tiny_has_no_counterpart(finished, tmp_path, capsys):
  arguments = [f"--input={finished[0]}", f"--output={tmp_path / 'x.pyth'}", "--export=pyth"]
  assert convert_weights.main(arguments) == 2
  error = " ".join(capsys.readouterr().err.split())
  assert "holds a 'tiny', which has no PyTorch counterpart" in error


@pytest.fixture(scope="module", name="kitchen")
def kitchen_fixture(networks, tmp_path_factory):
  """SLOW R50 with heads of 3 verbs and 4 nouns, as tiny_ego has."""
  folder = tmp_path_factory.mktemp("kitchen")
  state = {
    k: v
    for k, v in reference_networks.pyslowfast_state(networks[SLOW]).items()
    if not k.startswith("head")
  }
  rng = torch.Generator().manual_seed(2)
  for index, count in enumerate((3, 4)):
    name = f"headepic.projections.{index}"
    state[f"{name}.weight"] = torch.randn(count, 2048, generator=rng)
    state[f"{name}.bias"] = torch.randn(count, generator=rng)
  return save(folder / "kitchen.pyth", state)


def test_evaluates_and_refuses_wrong_pixels(kitchen, tiny_ego, tiny_exo, tiny_tables, tmp_path):
  checkpoint = tmp_path / "kitchen"
  assert convert(kitchen, checkpoint, f"--dataset={tiny_ego}", model=SLOW) == 0
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables, backbone="slow_r50")
  config.frames.count, config.frames.stride = 8, 8
  config.eval.batch_size, config.eval.pool_window = 2, 0
  evaluate = lambda c: run(c, tmp_path / "run", mode="eval", checkpoint=str(checkpoint))
  with pytest.raises(ValueError, match="ego.channel_order.*BGR.*RGB"):
    evaluate(config)
  config.ego.channel_order = "BGR"
  assert "converted weights " in evaluate(config)
  result = json.loads((tmp_path / "run" / "result.json").read_text())
  assert result["splits"]["val"]["clips"] == 5
  config.frames.stride = 4
  with pytest.raises(ValueError, match="frames.stride = 8, the config says 4"):
    evaluate(config)


@pytest.mark.parametrize("window", [7, 0])
def test_scores_at_crop_256_are_those_of_the_authors_pooling(networks, kitchen, tmp_path, window):
  """Ego-Exo's and SUM-L's multi-task networks average windows of 7 x 7."""
  option = [] if window else ["--pool_window=0"]
  assert convert(kitchen, tmp_path / "out", *option, model=SLOW) == 0
  loaded = sum_l_jax.load(tmp_path / "out")
  video = np.random.default_rng(1).integers(0, 256, (1, 8, 256, 256, 3), np.uint8)
  pixels = ((video[..., ::-1] / 255 - 0.45) / 0.225).astype(np.float32)
  heads = torch.load(kitchen, weights_only=True)["model_state"]
  with torch.no_grad():
    features = reference_networks.run(networks[SLOW], pixels, window=window)["features"]
    for index, task in enumerate(("verb", "noun")):
      name = f"headepic.projections.{index}"
      logits = features @ heads[f"{name}.weight"].T + heads[f"{name}.bias"]
      expected = logits.softmax(dim=-1).reshape(-1, logits.shape[-1]).mean(dim=0)
      np.testing.assert_allclose(loaded.score_batch(video)[task][0], expected, atol=1e-5)


def test_head_choices(kitchen, tiny_ego, tmp_path, error, capsys):
  for head in ("keep", "reinit", "error"):
    assert (
      convert(kitchen, tmp_path / head, f"--dataset={tiny_ego}", f"--head={head}", model=SLOW) == 0
    )
    weights = weight_files.read_weights(tmp_path / head)
    assert weights.card["tasks"]["ego"] == {
      "verb": ["take", "put", "cut"],
      "noun": ["cup", "pan", "apple", "knife"],
    }
  # Without a data set that fits: numbers for names, no head, or an error.
  assert convert(kitchen, tmp_path / "unnamed", model=SLOW) == 0
  unnamed = weight_files.read_weights(tmp_path / "unnamed")
  assert unnamed.card["tasks"]["ego"]["verb"] == ["class 0", "class 1", "class 2"]
  assert "2 classes" not in capsys.readouterr().out
  text = error(kitchen, "--head=error", model=SLOW)
  assert "headepic.projections.0.weight has 3 classes without names" in text
  assert convert(kitchen, tmp_path / "none", "--head=reinit", model=SLOW) == 0
  out = capsys.readouterr().out
  assert "to be initialised by training: ego/heads" in out
  bare = weight_files.read_weights(tmp_path / "none")
  assert set(bare.params["ego"]) == {"encoder"}
  assert main([f"--checkpoint={tmp_path / 'none'}", "x.mp4"]) == 2
  text = capsys.readouterr().err
  assert "no class head" in text and "--config.init.ego" in text


def test_head_of_another_size_is_never_taken_silently(kitchen, tiny_ego, tmp_path, error):
  content = torch.load(kitchen, weights_only=True)["model_state"]
  content["headepic.projections.0.weight"] = torch.ones(5, 2048)
  content["headepic.projections.0.bias"] = torch.ones(5)
  path = save(tmp_path / "five.pyth", content)
  text = error(path, f"--dataset={tiny_ego}", "--head=error", model=SLOW)
  assert "has 5 classes, the data set 3" in text and "--head=reinit" in text
  assert convert(path, tmp_path / "out", f"--dataset={tiny_ego}", "--head=reinit", model=SLOW) == 0
  weights = weight_files.read_weights(tmp_path / "out")
  assert set(weights.params["ego"]["heads"]) == {"noun"}


def test_training_starts_from_it_and_warns_of_other_pixels(
  kitchen, tiny_ego, tiny_exo, tiny_tables, tmp_path, caplog
):
  checkpoint = tmp_path / "kitchen"
  assert convert(kitchen, checkpoint, f"--dataset={tiny_ego}", model=SLOW) == 0
  weights = weight_files.read_weights(checkpoint)
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables, backbone="slow_r50")
  config.method = "fpv_only"
  config.frames.count, config.frames.stride = 8, 8
  config.joint_stage.total = "1 steps"
  config.joint_stage.batch_size = 2
  config.joint_stage.learning_rate = 0.0
  config.init.ego = str(checkpoint)
  config.eval.splits, config.eval.during_split = (), ""
  logger = logging.getLogger("absl")
  propagate, logger.propagate = logger.propagate, True
  try:
    run(config, tmp_path / "run")
  finally:
    logger.propagate = propagate
  assert "was trained on BGR pixels, and ego will be trained on RGB" in (caplog.text)
  assert "--config.ego.channel_order=BGR" in caplog.text
  trained = weight_files.read_weights(tmp_path / "run")
  for part in ("encoder", "heads"):
    a = weight_files.flatten(trained.params["ego"][part])
    b = weight_files.flatten(weights.params["ego"][part])
    for name, value in b.items():
      np.testing.assert_array_equal(a[name], value, err_msg=name)
  assert pathlib.Path(tmp_path / "run" / "joint").is_dir()
