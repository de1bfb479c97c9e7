"""Class activation maps: they add up to the logit, and pictures show them."""

from __future__ import annotations

import av
import jax
import numpy as np
from PIL import Image
import pytest

from sum_l_jax import build
from sum_l_jax import models
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.config import read
from sum_l_jax.data import records
from sum_l_jax.experiment import input_pictures
from sum_l_jax.models import backbones
from sum_l_jax.models import network_spec
from sum_l_jax.system import devices
from sum_l_jax.tools.class_maps import cam
from sum_l_jax.tools.class_maps import clip_choice
from sum_l_jax.tools.class_maps import explain
from sum_l_jax.tools.class_maps import map_overlay
from sum_l_jax.tools.class_maps import tail
from sum_l_jax.tools.visualize.__main__ import main
from sum_l_jax.train.state import Network
from sum_l_jax.video import canvas
from tests.support import runs

TASKS = {"ego": {"verb": 5, "noun": 3}}
CLASSES = np.array([4, 0, 2], np.int32)


def _thin(width, kernel):
  return network_spec.PathwaySpec(
    stem=network_spec.StemSpec(features=width, kernel=kernel),
    stages=(
      network_spec.StageSpec(1, width, 2 * width, 3, stride=1),
      network_spec.StageSpec(1, width, 2 * width, 3),
    ),
  )


# SlowFast, as small as it compiles quickly.
THIN = network_spec.NetworkSpec(
  slow=_thin(8, (1, 3, 3)), fast=_thin(4, (3, 3, 3)), alpha=4, fusion_kernel=5
)


@pytest.fixture(name="scored", scope="module", params=["tiny", "thin"])
def _scored(request):
  """A network with random weights and what it says of three noise clips."""
  backbone = request.param
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(backbones.BACKBONES, "thin", backbones.from_tables(THIN, num_frames=8, stride=1))
    make = lambda: models.make_model(backbone=backbone, tasks=TASKS, embedding_dim=None)
    network = Network(make)
    rng = np.random.default_rng(3)
    # The initial scale of a block's last norm is 0, which would hide mistakes.
    params, stats = jax.tree.map(
      lambda x: np.asarray(x) + 0.3 * rng.standard_normal(x.shape).astype(np.float32),
      jax.device_get(network.init()),
    )
    stats = jax.tree.map(np.abs, stats)
    video = rng.integers(0, 256, (3, 8, 32, 32, 3), np.uint8)
    outputs, _ = jax.jit(lambda p, s, v: network.apply(p, s, {"ego": {"video": v}}, train=False))(
      params, stats, video
    )
    yield make, params, stats, jax.device_get(outputs["ego"])


@pytest.mark.parametrize("task", ["verb", "noun"])
def test_a_map_adds_up_to_the_logit(scored, task):
  _, params, _, outputs = scored
  classes = CLASSES % TASKS["ego"][task]
  head = params["ego"]["heads"][task]
  *_, last = outputs["stages"].values()
  maps = cam.class_activation_maps(last, head["kernel"], classes)
  assert {k: v.shape for k, v in maps.items()} == {k: v.shape[:-1] for k, v in last.items()}
  total = sum(np.asarray(m, np.float64).mean(axis=(1, 2, 3)) for m in maps.values())
  logits = outputs["logits"][task][np.arange(3), classes]
  np.testing.assert_allclose(total + head["bias"][classes], logits, rtol=2e-5, atol=1e-5)
  # The slow pathway has the head's first rows.
  width = last["slow"].shape[-1]
  expected = np.einsum(
    "thwc,c->thw",
    last["slow"][1].astype(np.float64),
    head["kernel"][:width, classes[1]].astype(np.float64),
  )
  np.testing.assert_allclose(maps["slow"][1], expected, rtol=1e-4, atol=1e-4)


def test_maps_need_the_last_stage(scored):
  _, params, _, outputs = scored
  with pytest.raises(ValueError, match="a row for each channel"):
    cam.class_activation_maps(
      outputs["stages"]["s1"], params["ego"]["heads"]["verb"]["kernel"], CLASSES
    )


def _tail(scored, stage):
  """Logits of the verb, as a function of the stage's slow activations."""
  make, params, stats, outputs = scored
  network = Network(lambda: tail.Tail(make(), stage))
  activations = dict(outputs["stages"][stage])

  def logits(slow):
    inputs = {"ego": {**activations, "slow": slow}}
    found, _ = network.apply(params, stats, inputs, train=False)
    return found["ego"]["logits"]["verb"]

  return logits, activations["slow"]


def _chosen(logits):
  return lambda slow: logits(slow)[np.arange(3), CLASSES].sum()


def test_the_tail_is_the_network(scored):
  for stage in scored[3]["stages"]:
    logits, slow = _tail(scored, stage)
    np.testing.assert_allclose(
      jax.jit(logits)(slow), scored[3]["logits"]["verb"], rtol=1e-4, atol=1e-4
    )


def test_the_gradient_of_an_earlier_stage(scored):
  """Against a finite difference, along one direction."""
  logits, slow = _tail(scored, "s2")
  value, gradient = (jax.jit(f) for f in (_chosen(logits), jax.grad(_chosen(logits))))
  gradient = np.asarray(gradient(slow))
  direction = gradient / np.linalg.norm(gradient)
  step = 1e-2 * np.abs(slow).mean()
  change = value(slow + step * direction) - value(slow - step * direction)
  np.testing.assert_allclose(change / (2 * step), np.sum(gradient * direction), rtol=2e-2)


def test_grad_cam_of_the_last_stage_is_cam(scored):
  """Up to the number of positions; rectified it leaves out the negative."""
  _, params, _, outputs = scored
  stage, last = list(outputs["stages"].items())[-1]
  logits, slow = _tail(scored, stage)
  gradient = jax.jit(jax.grad(_chosen(logits)))(slow)
  maps = cam.class_activation_maps(last, params["ego"]["heads"]["verb"]["kernel"], CLASSES)["slow"]
  positions = np.prod(maps.shape[1:])
  plain = cam.grad_cam(last["slow"], gradient, rectify=False)
  scale = np.abs(maps).max()
  np.testing.assert_allclose(positions * plain, maps, rtol=1e-4, atol=1e-5 * scale)
  np.testing.assert_allclose(
    positions * cam.grad_cam(last["slow"], gradient),
    np.maximum(maps, 0),
    rtol=1e-4,
    atol=1e-5 * scale,
  )
  with pytest.raises(ValueError, match="shape of the activation"):
    cam.grad_cam(last["slow"], gradient[:, :1])


def test_strength():
  maps = np.array([[[-3.0, 1.0]], [[4.0, 0.0]]])
  np.testing.assert_array_equal(cam.strength(maps), [[[0.0, 0.25]], [[1.0, 0.0]]])
  np.testing.assert_array_equal(cam.strength(-maps[:1]), [[[1.0, 0.0]]])
  assert not cam.strength(np.full((2, 2, 2), -1.0)).any()


def test_maps_on_frames():
  """Linear between a pathway's frames, and between the middles of cells."""
  maps = np.zeros((2, 2, 2), np.float32)
  maps[0, 0, 0], maps[1, :, 1] = 1.0, 3.0
  found = cam.on_frames(maps, (0, 4), 6, 8)
  assert found.shape == (6, 8, 8) and found.dtype == np.float32
  # The middle of a cell lies between pixels 1 and 2, and 5 and 6.
  at = lambda place: np.clip((place + 0.5) / 4 - 0.5, 0, 1)
  y, x = at(np.arange(8))[:, None], at(np.arange(8))[None]
  first, second = (1 - y) * (1 - x), 3.0 * (x + 0 * y)
  np.testing.assert_allclose(found[0], first, atol=1e-6)
  np.testing.assert_allclose(found[1], 0.75 * first + 0.25 * second, atol=1e-6)
  np.testing.assert_allclose(found[4], second, atol=1e-6)
  np.testing.assert_allclose(found[5], second, atol=1e-6)
  with pytest.raises(ValueError, match="a position for each time step"):
    cam.on_frames(maps, (0, 2, 4), 6, 8)


def test_colours_get_brighter_evenly():
  """Neither colour blindness nor a gray print changes the order."""
  colors = map_overlay.colors(np.linspace(0, 1, 256)) / 255.0
  linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
  luminance = linear @ [0.2126, 0.7152, 0.0722]
  lightness = 116 * np.cbrt(luminance) - 16  # CIE 1976, above 0.9 % grey.
  steps = np.diff(lightness[32:])
  assert steps.min() > -0.1 and lightness[-1] > 95
  assert np.abs(np.diff(lightness[32::32])).std() < 3.0
  frames = np.full((1, 4, 4, 3), 200, np.uint8)
  plain = map_overlay.blended(frames, np.zeros((1, 4, 4)))
  assert len(np.unique(plain)) <= 3 and plain.max() < 120  # Dimmed gray.
  assert (map_overlay.blended(frames, np.ones((1, 4, 4)))[0, 0, 0] > [200, 200, 100]).all()


@pytest.mark.parametrize(
  "place, words",
  [
    ((0, 0, 0), "start of the clip, upper left"),
    ((4, 3, 4), "middle of the clip, middle centre"),
    ((7, 7, 7), "end of the clip, lower right"),
  ],
)
def test_where_a_map_is_strongest_in_words(place, words):
  maps = np.full((8, 8, 8), 0.5)
  maps[place] = 1.0
  assert map_overlay.where(maps) == f"strongest at the {words}"
  assert "nothing" in map_overlay.where(np.zeros((8, 8, 8)))


def _explanation(**changes):
  """What a network of one slow step for two frames says of a clip of 4 frames."""
  given = {
    "clip_id": "c7",
    "narration": "cut onion",
    "labels": ("cut",),
    "task": "verb",
    "frames": np.zeros((4, 8, 8, 3), np.uint8),
    "seconds": (0.5, 0.75, 1.0, 1.25),
    "strength": np.zeros((4, 8, 8), np.float32),
    "grid": (2, 3, 4),
    "shown": "cut",
    "shown_probability": 0.25,
    "predicted": "cut",
    "predicted_probability": 0.25,
  }
  return explain.Explanation(**{**given, **changes})


def test_captions_say_task_class_score_time_and_coarseness():
  wrong = _explanation(predicted="peel", predicted_probability=0.5)
  unlabelled = _explanation(labels=())
  block = map_overlay.Block(("a", "b", "c"), (_explanation(), wrong, unlabelled))
  assert block.heading == "c7: cut onion, verb: cut; 0.50 to 1.25 s"
  cells = "2 steps x 3 x 4 cells over 4 frames"
  assert block.caption(0) == f"a says verb cut, score 0.25 (right); map of cut: {cells}"
  assert (
    block.caption(1) == f"b says verb peel, score 0.50 (wrong); map of cut, score 0.25: {cells}"
  )
  assert block.caption(2) == f"c says verb cut, score 0.25; map of cut: {cells}"


def test_times_are_in_the_frames_of_the_clip_alone():
  """And the gaps have the gray that a page asks for."""
  own, maps = map_overlay.strips(map_overlay.Block(("a",), (_explanation(),)), side=64, between=128)
  assert own.shape == maps.shape == (64, 4 * 64 + 3 * 4, 3)
  for number in range(4):
    left = number * 68
    corner = own[48:, left : left + 64]
    assert corner.max() > 200 and not own[:40, left : left + 64].any()
    assert maps[:, left : left + 64].max() < 10
  assert (own[:, 64:68] == 128).all()


def test_most_changed():
  change = np.array([0.1, np.nan, -0.5, 0.5, 0.0, 0.2])
  assert clip_choice.most_changed(change, 3).tolist() == [2, 3, 5]
  assert clip_choice.most_changed(change, 9).tolist() == [2, 3, 5, 0, 4]


@pytest.mark.parametrize(
  "methods, sources, names",
  [
    (["fpv_only", "sum_l"], ["a", "b"], ("fpv_only", "sum_l")),
    (["sum_l", "sum_l"], ["runs/a", "runs/b"], ("a", "b")),
    (["sum_l", "sum_l"], ["x/seed_0/a", "x/seed_1/a"], ("seed_0/a", "seed_1/a")),
    (["", "sum_l"], ["a.npz", "b"], ("a.npz", "b")),
    (["sum_l", "sum_l"], ["a", "a"], ("a", "a")),
    (["sum_l"], ["runs/a"], ("sum_l",)),
  ],
)
def test_names_of_networks(methods, sources, names):
  assert clip_choice.network_names(methods, sources) == names


def _video(dataset, row, size=32):
  """The middle test view of a clip, restated: 8 frames at stride 2."""
  from sum_l_jax.data import transforms
  from sum_l_jax.video import decode

  transform = transforms.ClipTransform(
    num_frames=8, stride=2, crop_size=size, short_side=(size, size)
  )
  indices = transform.test_indices(dataset.clips[row].num_frames, 0, 1)
  frames = [decode.decode_jpeg(x) for x in dataset.read_frames(row, indices)]
  return transform.test(frames)[0]


@pytest.mark.parametrize("view, task", [("ego", "verb"), ("exo", "noun")])
def test_explaining_a_checkpoint(view, task, finished, tiny_ego, tiny_exo):
  weights = weight_files.read_weights(finished[0])
  dataset = records.ClipDataset(*((tiny_ego, "val") if view == "ego" else (tiny_exo, "train")))
  explainer = explain.Explainer(weights, view=view, task=task, batch_size=2)
  rows = [3, 0, 4]
  seen = explainer(dataset, rows, show="label")
  network = Network(
    lambda: models.make_model(
      backbone="tiny", tasks={view: {"verb": 3, "noun": 4}}, embedding_dim=None
    )
  )
  trees = [
    {view: {k: v for k, v in tree[view].items() if k != "projection"}}
    for tree in (weights.params, weights.stats)
  ]
  video = np.stack([_video(dataset, row) for row in rows])
  outputs, _ = jax.jit(lambda p, s, v: network.apply(p, s, {view: {"video": v}}, train=False))(
    *trees, video
  )
  logits = np.asarray(outputs[view]["logits"][task])
  probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  names = dataset.tasks[task].class_names
  for item, row, own, frames in zip(seen, rows, probabilities, video):
    clip = dataset.clips[row]
    label = clip.labels[task][0]
    assert (item.clip_id, item.narration) == (clip.clip_id, clip.narration)
    assert item.labels == (names[label],) and item.shown == names[label]
    assert item.shown_probability == pytest.approx(own[label], rel=1e-4)
    assert item.predicted == names[own.argmax()]
    assert item.predicted_probability == pytest.approx(own.max(), rel=1e-4)
    assert item.right == (own.argmax() == label)
    np.testing.assert_array_equal(item.frames, frames)
    assert item.strength.shape == (8, 32, 32) and item.grid[0] == 8
    # 8 frames at stride 2, slightly after the middle of the clip.
    first = round(max(clip.num_frames - 15, 0) / 9 * 5)
    moments = np.minimum(first + 2 * np.arange(8), clip.num_frames - 1) / clip.fps
    np.testing.assert_allclose(item.seconds, moments)
    assert item.task == task
  everyone = explainer.right_probability(dataset)
  for row, own in zip(rows, probabilities):
    label = dataset.clips[row].labels[task][0]
    assert everyone[row] == pytest.approx(own[label], rel=1e-4)
  named = explainer(dataset, rows[:1], class_name=names[1])[0]
  assert named.shown == names[1]


def test_an_exo_tower_that_shares_the_encoder(finished, tiny_exo):
  weights = weight_files.read_weights(finished[0])
  params, stats = dict(weights.params), weights.stats
  params["exo"] = {k: v for k, v in params["exo"].items() if k != "encoder"}
  shared = weight_files.Weights(params, stats, weights.card, "shared")
  own = dict(
    weights.params, exo=dict(weights.params["exo"], encoder=weights.params["ego"]["encoder"])
  )
  copied = weight_files.Weights(own, stats, weights.card, "own")
  dataset = records.ClipDataset(tiny_exo, "train")
  a, b = (explain.Explainer(w, view="exo")(dataset, [0])[0] for w in (shared, copied))
  assert a.shown_probability == b.shown_probability
  np.testing.assert_array_equal(a.strength, b.strength)
  without = weight_files.Weights(params, dict(stats, exo={}), weights.card, "without statistics")
  with pytest.raises(ValueError, match="without statistics"):
    explain.Explainer(without, view="exo")


def test_the_evaluations_scores_are_used_where_they_fit(finished, tiny_ego):
  workdir = finished[0]
  dataset = records.ClipDataset(tiny_ego, "val")
  weights = weight_files.read_weights(workdir)
  explainer = explain.Explainer(weights, view="ego")
  explainer.right_probability = None  # Not needed.
  found = clip_choice.right_probability(explainer, workdir, dataset)
  with np.load(workdir / "scores_val.npz") as stored:
    labels = stored["labels_verb"]
    np.testing.assert_array_equal(found, stored["scores_verb"][np.arange(5), labels])
  # Scores of other weights are not used.
  other = explain.Explainer(_changed(weights), view="ego")
  own = clip_choice.right_probability(other, workdir, dataset)
  assert not np.allclose(own, found)
  np.testing.assert_array_equal(own, other.right_probability(dataset))


def _changed(weights):
  """Other weights: the first verb has become likelier."""
  params = jax.tree.map(np.copy, weights.params)
  params["ego"]["heads"]["verb"]["bias"][0] += 1.0
  return weight_files.Weights(params, weights.stats, weights.card, "changed")


def _run(capsys, *arguments):
  code = main([str(a) for a in arguments])
  captured = capsys.readouterr()
  return code, captured.out, captured.err


def test_command_against_another_network(finished, tiny_ego, tmp_path, capsys):
  weights = weight_files.read_weights(finished[0])
  weight_files.write_weights(tmp_path / "other.npz", _changed(weights))
  output = tmp_path / "cam.png"
  code, out, _ = _run(
    capsys,
    f"--checkpoint={finished[0]}",
    f"--against={tmp_path / 'other.npz'}",
    f"--dataset={tiny_ego}",
    "--split=val",
    "--number=2",
    f"--output={output}",
  )
  assert code == 0 and "2 clips" in out
  dataset = records.ClipDataset(tiny_ego, "val")
  # From the stored scores of one, and from the network of the other.
  before = explain.Explainer(_changed(weights), view="ego").right_probability(dataset)
  with np.load(finished[0] / "scores_val.npz") as stored:
    after = stored["scores_verb"][np.arange(5), stored["labels_verb"]]
  chosen = np.argsort(-np.abs(after - before), kind="stable")[:2]
  lines = out.split("probability of the right class")[1].splitlines()[1:3]
  for line, row in zip(lines, chosen):
    assert line.split() == [
      dataset.clips[row].clip_id,
      f"{before[row]:.2f}",
      "->",
      f"{after[row]:.2f}",
    ]
  with Image.open(output) as image:
    # A margin, and eight frames of 112 pixels.
    assert image.width == 2 * 12 + 8 * 112 + 7 * 4


def test_command_writes_a_film(finished, tiny_exo, tmp_path, capsys):
  code, out, _ = _run(
    capsys,
    f"--checkpoint={finished[0]}",
    f"--dataset={tiny_exo}",
    "--split=train",
    "--ids=exo_train_004,exo_train_001",
    "--method=grad_cam",
    "--stage=s2",
    "--class=cut",
    f"--output={tmp_path}/cam.gif",
  )
  assert code == 0
  assert out.index("exo_train_004") < out.index("exo_train_001")
  with Image.open(tmp_path / "cam.gif") as image:
    assert image.n_frames == 8 and image.info["loop"] == 0
    # 12 frames a second, every second one shown.
    assert image.info["duration"] == pytest.approx(1000 / 6, abs=10)


def test_films_as_mp4(tmp_path):
  """Sides that are odd, which the codec can't have; the order of the frames."""
  pictures = [np.full((31, 45, 3), 40 * t, np.uint8) for t in range(6)]
  canvas.write(tmp_path / "film.mp4", pictures, fps=7.5)
  with av.open(str(tmp_path / "film.mp4")) as film:
    assert film.streams.video[0].average_rate == 7.5
    frames = [f.to_ndarray(format="rgb24") for f in film.decode(video=0)]
  assert [f.shape for f in frames] == [(32, 46, 3)] * 6
  for frame, picture in zip(frames, pictures):
    assert abs(int(frame[10, 10, 0]) - int(picture[0, 0, 0])) < 8


@pytest.mark.parametrize(
  "changes, message",
  [
    (("--task=colour",), "has no task 'colour'; it has"),
    (("--class=fly",), "has no class 'fly'; it has ['take', 'put', 'cut']"),
    (("--stage=s2",), "of the last stage"),
    (("--method=grad_cam", "--stage=s9"), "must be one of"),
    (("--ids=nobody",), "has no clip 'nobody'"),
    (("--number=0",), "--number must be 1 or more"),
    (("--output=cam.bmp",), "must end in one of"),
    (("--output=nowhere/cam.png",), "there is no folder"),
    (("--batch_size=0",), "must be 1 or more"),
    (("--split=spring",), "has no split 'spring'"),
  ],
)
def test_command_refuses(changes, message, finished, tiny_ego, tmp_path, capsys):
  code, _, err = _run(
    capsys,
    f"--checkpoint={finished[0]}",
    f"--dataset={tiny_ego}",
    "--split=val",
    f"--output={tmp_path}/cam.png",
    *changes,
  )
  assert code == 2 and message in err, err


def test_a_network_without_the_view_is_refused(finished, tiny_ego):
  exo = weight_files.read_weights(finished[0] / "exo")
  with pytest.raises(ValueError, match="no ego encoder: it is of stage 'exo'"):
    explain.Explainer(exo, view="ego")


@pytest.mark.parametrize("on_device", [False, True])
def test_pictures_of_training_pairs(on_device, tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.exo.color_lighting = 0.0
  trainer = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1))
  data = trainer.data
  with trainer.stream(start_step=0) as stream:
    batch = next(stream)
  given = jax.device_put(batch) if on_device else batch
  pictures = input_pictures.input_pictures(given, ego=data.ego, exo=data.exo, number=3, columns=2)
  assert pictures.dtype == np.uint8 and pictures.shape[0] == 3
  assert pictures.shape[2] == 2 * 128 + 3
  # The pixels of the batch are in the picture, four times as large.
  line, side = 18, 128
  for row, picture in enumerate(pictures):
    top = line + 3
    for view in ("ego", "exo"):
      shown = picture[top : top + side : 4, :side:4]
      np.testing.assert_array_equal(shown, batch[view]["video"][row, 0])
      shown = picture[top : top + side : 4, side + 3 :: 4]
      np.testing.assert_array_equal(shown, batch[view]["video"][row, -1])
      top += side + 3 + line + 3
    assert (picture[:line] < 100).any()  # There is text.


def test_pictures_of_one_view(tiny_ego, tiny_exo, tiny_tables):
  config = read.default_config()
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  config.method = "fpv_only"
  trainer = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1))
  data = trainer.data
  with trainer.stream(start_step=0) as stream:
    batch = next(stream)
  pictures = input_pictures.input_pictures(batch, ego=data.ego, exo=())
  assert pictures.shape[0] == 4 and pictures.shape[1] < 200
