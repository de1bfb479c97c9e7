"""Networks as ONNX files, computed by onnxruntime, which shares no code with JAX."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sum_l_jax
from sum_l_jax import models
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.models import backbones
from sum_l_jax.models import encoder
from sum_l_jax.models import vit_spec
from sum_l_jax.tools.export import export_format
from sum_l_jax.tools.export import exported_model
from sum_l_jax.tools.export import onnx_file
from sum_l_jax.tools.export import onnx_program
from sum_l_jax.tools.export.__main__ import main
from sum_l_jax.train.state import Network
from tests.support import mini_convnets
from tests.support import mini_vits

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TOLERANCE = 1e-4


def _row(backbone):
  """What distinguishes a backbone from the others once all are of one size."""
  entry = backbones.BACKBONES[backbone]
  name = mini_convnets.register(backbone) if entry.spec else mini_vits.register(backbone)[0]
  mini = backbones.BACKBONES.pop(name)
  return repr((mini.spec, mini.vit, mini.windows))


def _different():
  """A backbone of each kind: sizes of one family are the same network in miniature."""
  rows = {}
  for backbone in backbones.BACKBONES:
    if backbone not in ("tiny", "vit_tiny"):
      rows.setdefault(_row(backbone), backbone)
  return ["tiny", "vit_tiny", *rows.values()]


def _instance(backbone):
  """Name, frames and pixels of a small instance."""
  if backbone in ("tiny", "vit_tiny"):
    return backbone, 8, 56 if backbone == "vit_tiny" else 32
  if backbone in vit_spec.SPECS:
    return *mini_vits.register(backbone)[:1], 4, 2 * max(vit_spec.SPECS[backbone].patch[1:])
  return mini_convnets.register(backbone), backbones.BACKBONES[backbone].num_frames, 32


def _random(shapes, seed=0):
  """Random values in every parameter and statistic, by flat names."""
  rng = np.random.default_rng(seed)
  arrays = {}
  for name, shape in weight_files.flatten(shapes).items():
    values = rng.standard_normal(shape.shape, np.float32)
    if name.endswith("var"):
      values = 0.5 + np.abs(values)
    elif len(shape.shape) > 1:
      values /= np.float32(np.sqrt(np.prod(shape.shape[:-1])))
    else:
      values = np.float32("scale" in name) + np.float32(0.3) * values
    arrays[name] = values
  return arrays


def _network(backbone, *, head=None, window=0, conv=export_format.ONNX_CONV):
  probe = models.ProbeOptions.of_head(head, depth=2, heads=2) if head else None
  options = models.EncoderOptions(conv=conv, attention="plain", pool_window=window)
  return Network(
    lambda: models.make_model(
      backbone=backbone,
      tasks={"ego": {"verb": 5, "noun": 3}},
      embedding_dim=None,
      probe=probe,
      options=options,
    )
  )


def _logits(network):
  """(arrays, video) -> logits by task."""

  def run(arrays, video):
    tree = weight_files.unflatten(arrays)
    inputs = {"ego": {"video": video}}
    outputs, _ = network.apply(tree["params"], tree.get("stats", {}), inputs, train=False)
    return dict(outputs["ego"]["logits"])

  return run


def _session(model):
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = 1
  session = onnxruntime.InferenceSession(model.SerializeToString(), options)
  names = [output.name for output in session.get_outputs()]
  return lambda video: dict(zip(names, session.run(names, {"video": video})))


def _assert_same_logits(network, video_shape, *, batch="batch"):
  run = _logits(network)
  params, stats = network.shapes
  arrays = _random({"params": params, "stats": stats})
  model = onnx_program.make_model(
    run, arrays, video_shape=[batch, *video_shape], metadata={}, producer="a test"
  )
  onnx.checker.check_model(model, full_check=True)
  video = np.random.default_rng(1).integers(0, 256, (2, *video_shape), np.uint8)
  expected, got = jax.jit(run)(arrays, video), _session(model)(video)
  assert got.keys() == expected.keys()
  for task, values in expected.items():
    assert np.std(values) > 0.05  # Else nothing would be compared.
    np.testing.assert_allclose(got[task], values, atol=TOLERANCE * max(1, np.abs(values).max()))
  return model


@pytest.mark.parametrize("backbone", _different())
def test_every_backbone_gives_its_logits(backbone):
  name, frames, side = _instance(backbone)
  _assert_same_logits(_network(name), (frames, side, side, 3))


def test_other_formulations_of_convolutions_give_the_same():
  """Products, slices and pads in place of convolutions in three dimensions."""
  _assert_same_logits(_network(_instance("slowfast_r50")[0], conv="cpu"), (32, 32, 32, 3))


@pytest.mark.parametrize("head", ["attentive", "pooler"])
def test_probes_give_their_logits(head):
  _assert_same_logits(_network(_instance("avion_b")[0], head=head), (4, 32, 32, 3))


def test_windows_that_are_pooled_and_a_fixed_batch():
  """Positions of a map; their sums are a pooling of ONNX."""
  network = _network(_instance("slow_r50")[0], window=1)
  model = _assert_same_logits(network, (8, 64, 64, 3), batch=2)
  (size, *_) = model.graph.input[0].type.tensor_type.shape.dim
  assert size.dim_value == 2


class _Sorts(nnx.Module):
  """An encoder that does what no network here does."""

  feature_dim = 3

  def __init__(self, options, rng):
    del options
    self.scale = nnx.Param(jnp.asarray(rng.standard_normal(3), jnp.float32))

  def __call__(self, video, *, train, prepare, key=None):
    x = prepare(video).mean((1, 2, 3))
    return encoder.Encoding(jnp.sort(x, axis=-1) * self.scale[...])


def _weights(backbone, network, frames, side):
  params, stats = network.shapes
  tree = weight_files.unflatten(_random({"params": params, "stats": stats}))
  names = {"verb": list("abcde"), "noun": list("xyz")}
  card = {
    "stage": "joint",
    "backbone": backbone,
    "tasks": {"ego": names},
    "kinds": {"ego": {"verb": "softmax", "noun": "multi_label"}},
    "config": "{}",
    "pixels": {"ego": {"channel_order": "BGR"}},
    "frames": {"count": frames, "stride": 2, "crop_size": side, "fps": 30.0},
  }
  return weight_files.Weights(tree["params"], tree.get("stats", {}), card, "here")


def _write(folder, weights, batch="dynamic"):
  folder.mkdir()
  run, arrays = exported_model.make_function(weights, file_format="onnx")
  card = exported_model.make_card(weights, file_format="onnx", batch=batch)
  exported_model.write_model(folder, run, arrays, card)
  return exported_model.load_exported(folder)


def test_an_operation_that_is_not_known_is_refused_by_name(tmp_path):
  backbones.register_backbone("sorts", _Sorts, num_frames=4, stride=1)
  weights = _weights("sorts", _network("sorts"), 4, 16)
  with pytest.raises(ValueError, match="'sorts' can't be exported as ONNX: JAX's operation 'sort'"):
    _write(tmp_path / "model", weights)


def test_large_arrays_lie_beside_the_model(tmp_path, monkeypatch):
  """One file of protobuf holds 2 GiB."""
  weights = _weights("tiny", _network("tiny"), 8, 32)
  small = _write(tmp_path / "small", weights)
  assert {p.name for p in (tmp_path / "small").iterdir()} == {"card.json", "model.onnx"}
  monkeypatch.setattr(onnx_file, "MOST_IN_ONE_FILE", 1000)
  large = _write(tmp_path / "large", weights)
  files = {path.name: path.stat().st_size for path in (tmp_path / "large").iterdir()}
  assert files.keys() == {"card.json", "model.onnx", "model.onnx.data"}
  assert files["model.onnx"] < 100_000 < files["model.onnx.data"]
  video = np.random.default_rng(0).integers(0, 256, (3, 8, 32, 32, 3), np.uint8)
  for task, values in small.score_batch(video).items():
    np.testing.assert_array_equal(large.score_batch(video)[task], values)
  (tmp_path / "large" / "model.onnx.data").unlink()
  with pytest.raises(FileNotFoundError, match="model.onnx.data' is missing"):
    sum_l_jax.load_exported(tmp_path / "large")


@pytest.fixture(scope="module", name="exported")
def exported_fixture(finished, tmp_path_factory):
  folder = tmp_path_factory.mktemp("onnx") / "model"
  arguments = [f"--checkpoint={finished[0]}", f"--output={folder}", "--format=onnx"]
  assert main(arguments) == 0
  return folder


def test_the_command_writes_what_onnxruntime_reads_alone(finished, exported):
  """The README's program, without JAX and this package, gives the checkpoint's scores."""
  model = sum_l_jax.load(finished[0])
  clips = np.random.default_rng(0).integers(0, 256, (3, *model.recipe.video_shape), np.uint8)
  expected = model.score_batch(clips)
  code = re.search(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)[1]
  np.save(exported / "clip.npy", clips)
  guard = "import sys\nfor name in ('jax', 'flax', 'onnx', 'sum_l_jax'): sys.modules[name] = None\n"
  done = subprocess.run(
    [sys.executable, "-c", guard + code], cwd=exported, capture_output=True, text=True, timeout=300
  )
  assert done.returncode == 0, done.stderr
  printed = {}
  for line in done.stdout.splitlines():
    number, task, name, score = re.fullmatch(r"(\d+) (\w+) (.+) (\S+)", line).groups()
    printed.setdefault((int(number), task), []).append((name, float(score)))
  assert len(printed) == 3 * len(expected)
  for (number, task), best in printed.items():
    row = expected[task][number]
    order = np.argsort(-row, kind="stable")[:5]
    assert [name for name, _ in best] == [model.class_names[task][k] for k in order]
    np.testing.assert_allclose([score for _, score in best], row[order], atol=1e-5)


def test_the_file_carries_names_and_pixels(finished, exported):
  card = json.loads((exported / "card.json").read_text())
  session = onnxruntime.InferenceSession(exported / "model.onnx")
  metadata = session.get_modelmeta().custom_metadata_map
  assert metadata.keys() == {*onnx_file.METADATA}
  for name, text in metadata.items():
    assert json.loads(text) == card[name]
  assert card["platforms"] == ["onnxruntime"]
  (video,) = session.get_inputs()
  assert (video.name, video.type) == ("video", "tensor(uint8)")
  assert video.shape == ["batch", *sum_l_jax.load(finished[0]).recipe.video_shape]


def test_it_is_loaded_again(finished, exported):
  loaded, model = sum_l_jax.load_exported(exported), sum_l_jax.load(finished[0])
  assert loaded.recipe == model.recipe
  clips = np.random.default_rng(3).integers(0, 256, (5, *model.recipe.video_shape), np.uint8)
  for task, values in model.score_batch(clips).items():
    np.testing.assert_allclose(loaded.score_batch(clips)[task], values, atol=1e-5)


def test_damaged_files_and_missing_libraries(finished, exported, tmp_path, monkeypatch, capsys):
  for path in exported.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  data = (tmp_path / "model.onnx").read_bytes()
  (tmp_path / "model.onnx").write_bytes(data[:-100])
  with pytest.raises(ValueError, match="model.onnx' is not the file that was exported"):
    sum_l_jax.load_exported(tmp_path)
  with pytest.raises(ValueError, match="can't load .*model.onnx"):
    onnx_file.read(tmp_path)
  for library in ("onnx", "onnxruntime"):
    monkeypatch.setitem(sys.modules, library, None)
  with pytest.raises(ImportError, match=r"onnxruntime is not installed: .*sum_l_jax\[onnx\]"):
    sum_l_jax.load_exported(exported)
  arguments = [f"--checkpoint={finished[0]}", f"--output={tmp_path / 'new'}", "--format=onnx"]
  assert main(arguments) == 2
  assert "onnx is not installed: pip install 'sum_l_jax[onnx]'" in capsys.readouterr().err
  assert not (tmp_path / "new").exists()
