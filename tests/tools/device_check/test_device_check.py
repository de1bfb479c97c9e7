"""The check of a chip, in miniature, on this machine's processor."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest
import torch
from torch.utils import flop_counter

from sum_l_jax import build
from sum_l_jax.models import backbones
from sum_l_jax.models.layers import convolution
from sum_l_jax.tools import chips
from sum_l_jax.tools.device_check import check_parts
from sum_l_jax.tools.device_check import check_report
from sum_l_jax.tools.device_check import gradient_parity
from sum_l_jax.tools.device_check import layer_formulations
from sum_l_jax.tools.device_check import part_process
from sum_l_jax.tools.device_check import part_work
from sum_l_jax.tools.device_check import torch_peer
from sum_l_jax.tools.device_check.__main__ import main

ROOT = pathlib.Path(__file__).parents[3]
SIZES = check_parts.Sizes(miniature=True)
PLAN = check_parts.plan([], SIZES)
# Whatever reads clips, videos or checkpoints, or draws.
ABSENT = (
  "array_record av cv2 google.cloud grain gcsfs jinja2 matplotlib orbax PIL pyarrow simplejpeg"
  " tenacity tensorboard tensorflow tensorflow_datasets tensorstore torch tqdm"
)


def work(name, sizes=SIZES):
  found = {}
  for part in part_work.run(PLAN[name], sizes):
    json.dumps(part, allow_nan=False)
    found |= part
  return found


def test_the_first_parts_matter_most():
  names = list(check_parts.plan([], check_parts.Sizes()))
  assert names[:3] == ["device", "parity/tiny", "step/slow_r50/bfloat16"]
  for backbone in check_parts.BACKBONES:
    for precision in check_parts.PRECISIONS:
      assert f"step/{backbone}/{precision}" in names
  # A peer is compared with what comes before it.
  assert names.index("torch/slow_r50/bfloat16") < names.index("peer/slow_r50/bfloat16")
  assert set(check_parts.KINDS) == set(convolution.KINDS)
  # "gpu" is the table of "native".
  assert {*check_parts.TABLES, "gpu"} == set(convolution.FORMULATIONS)


def test_this_machine_is_described():
  found = work("device")
  assert found["platform"] == "cpu" and found["conv_auto"] == "cpu"
  assert found["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize(
  "kind, name, peak, peak_float32",
  [
    ("NVIDIA H100 80GB HBM3", "H100", 989e12, 494e12),
    ("NVIDIA H100 PCIe", "H100 PCIe", 756e12, 378e12),
    ("NVIDIA H200", "H200", 989e12, 494e12),
    ("NVIDIA A100-SXM4-40GB", "A100", 312e12, 156e12),
    ("NVIDIA L4", "L4", 121e12, 60e12),
    ("TPU v5 lite", "v5e", 197e12, 197e12),
  ],
)
def test_chips_by_the_name_that_they_give(kind, name, peak, peak_float32):
  chip = chips.find(kind)
  assert (chip.name, chip.peak_flops, chip.peak_flops_float32) == (name, peak, peak_float32)


@pytest.mark.parametrize("kind", ["NVIDIA L40S", "cpu", "TPU v9", "NVIDIA GeForce RTX 4090"])
def test_of_other_chips_no_peak_is_known(kind):
  assert chips.find(kind) is None


def test_the_processor_agrees_with_itself_to_the_last_bit():
  found = work("parity/tiny")
  assert found["loss_of_processor"] > 1 and found["gradient_norm_of_processor"] > 1
  for name in (gradient_parity.EXACT, "float32"):
    assert found[name] == {"loss": 0.0, "gradient": 0.0}
  assert 1e-4 < found["bfloat16"]["gradient"] < 0.5
  assert found["agrees"]


def exactly_compared():
  """Another way of computing on the same device, in float32 alone."""
  found = {}
  for part in gradient_parity.compare("tiny", jax.devices()[0], conv=convolution.NATIVE):
    found |= part
    if "agrees" in found:
      break
  return found


def test_another_way_of_computing_differs_by_roundings():
  found = exactly_compared()
  assert 0 < found[gradient_parity.EXACT]["gradient"] < 1e-4
  assert found["agrees"]


def test_a_wrong_gradient_is_seen(monkeypatch):
  def wrong(x, kernel, strides):
    return native(x, kernel.at[..., 0, :].set(0), strides)  # Blind to one channel.

  native = convolution.formulations.native
  monkeypatch.setattr(convolution.formulations, "native", wrong)
  assert exactly_compared()["agrees"] is False


def test_numbers_of_a_step_belong_together(monkeypatch):
  chip = chips.Chip("x", peak_flops=2e9, peak_flops_float32=1e9)
  monkeypatch.setattr(chips, "find", lambda kind: chip)
  found = work("step/tiny/float32")
  assert found["views"] == 2 and found["batch"] == 2
  assert found["lowest"] <= found["seconds"] <= found["highest"]
  assert found["clips_per_second"] == pytest.approx(4 / found["seconds"])
  share = found["model_flops"] / found["seconds"] / 1e9
  assert found["share_of_peak"] == pytest.approx(share)
  assert found["loss_is_finite"]
  planned = found["memory"]["planned"]
  assert planned["total"] == sum(
    planned[part] for part in ("arguments", "outputs", "temporaries", "code")
  )


def test_arithmetic_is_what_pytorch_counts():
  """Its convolutions and products, on shapes alone."""
  ours = part_work.model_flops("slow_r50", batch=2, stage=build.EXO_STAGE, small=False)
  spec = backbones.BACKBONES["slow_r50"].spec
  with torch.device("meta"):
    network = torch_peer.Classifier(spec, {"verb": 125, "noun": 352}, 0.5)
    video = torch.zeros(2, 3, 8, 224, 224, dtype=torch.uint8)
  with flop_counter.FlopCounterMode(display=False) as counter:
    sum(z.sum() for z in network(video).values()).backward()
  # XLA counts no positions beyond the edges, but what is added elsewhere.
  assert ours == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_half_the_clips_where_all_do_not_fit():
  tried = []

  def measure(batch):
    tried.append(batch)
    if batch > 4:
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")
    return {"batch": batch}

  assert part_work.halving(measure, 16) == {"batch": 4}
  assert tried == [16, 8, 4]
  with pytest.raises(RuntimeError, match="something else"):
    part_work.halving(lambda batch: _raise(RuntimeError("something else")), 16)
  with pytest.raises(RuntimeError, match="out of memory"):
    part_work.halving(lambda batch: _raise(RuntimeError("CUDA out of memory.")), 2)


def test_a_step_is_not_measured_twice():
  found = {"device": {"conv_auto": "gpu"}, "step/tiny/bfloat16": {"seconds": 0.3}}
  part = PLAN["table/tiny/bfloat16/native"]
  outcome = part_process.run(part, [], found=found, left=600)
  assert outcome.skipped == "It is what step/tiny/bfloat16 has measured."


def _raise(error):
  raise error


@pytest.mark.parametrize("kind", convolution.KINDS)
def test_each_way_of_a_convolution_is_timed(kind):
  layer = layer_formulations.LAYERS[kind]
  assert convolution.kind_of(layer.kernel[:3], layer.strides) == kind
  found = work(f"formulations/bfloat16/{kind}")
  assert set(found["ways"]) == set(convolution.EXACT[kind])
  assert found["auto"] == convolution.FORMULATIONS["cpu"][kind]
  for way in found["ways"].values():
    rate = found["operations"] / way["seconds"]
    assert way["operations_per_second"] == pytest.approx(rate)


def test_both_frameworks_take_the_same_step():
  theirs = work("torch/tiny/bfloat16")
  ours = work("peer/tiny/bfloat16", check_parts.Sizes(miniature=True, batch=theirs["batch"]))
  for found in (theirs, ours):
    assert found["clips_per_second"] == pytest.approx(found["batch"] / found["seconds"])
  parts = {"torch/tiny/bfloat16": theirs, "peer/tiny/bfloat16": ours}
  record = check_report.Record("command", 1.0, found=parts).to_json()
  ratio = record["ratio_to_torch"]["tiny/bfloat16"]
  assert ratio * ours["clips_per_second"] == pytest.approx(theirs["clips_per_second"])


def _way(seconds):
  return {"seconds": seconds}


def test_what_auto_should_take():
  found = {
    "device": {"conv_auto": "gpu"},
    # A GPU takes XLA's own convolutions, as the table "native" does.
    "step/slow_r50/bfloat16": _way(0.3),
    "table/slow_r50/bfloat16/cpu": _way(0.2),
    "formulations/bfloat16/temporal": {
      "auto": "native",
      "ways": {"native": _way(4.0), "plane": _way(2.0), "few": {"failed": "no"}},
    },
  }
  conv = check_report.Record("command", 1.0, found=found).to_json()["convolutions"]
  assert conv["step_seconds"] == {"native": 0.3, "cpu": 0.2}
  assert (conv["auto"], conv["fastest"]) == ("gpu", "cpu")
  assert conv["auto_over_fastest"] == pytest.approx(1.5)
  row = conv["alone"]["temporal"]
  assert row == {"auto": "native", "fastest": "plane", "auto_over_fastest": 2.0}


def test_without_time_each_part_says_why_it_is_left_out(tmp_path, capsys):
  output = tmp_path / "check.json"
  assert main(["--miniature", "--minutes=0.01", f"--output={output}"]) == 0
  record = json.loads(output.read_text())
  assert list(record["parts"]) == ["device"]
  assert set(record["skipped"]) == set(PLAN) - {"device"} and not record["failed"]
  assert "s of --minutes were left" in record["skipped"]["step/tiny/bfloat16"]
  assert record["skipped"]["attention"] == "The ways of computing attention are not timed yet."
  assert "| network | precision |" in capsys.readouterr().out


def test_a_processor_is_no_chip(capsys):
  assert main(["--minutes=0.01"]) == 2
  assert "JAX sees no GPU or TPU here" in capsys.readouterr().err


@pytest.mark.parametrize(
  "arguments, text",
  [
    (["--minutes=0"], "--minutes must be more than 0"),
    (["--part=step/none"], "--part must be one of device, parity/tiny"),
    (["--output=x.txt"], "--output must end in .json"),
    (["--backbones=nothing"], "backbone must be one of"),
    (["--backbones=slow_r50,slow_r50"], "names slow_r50 twice"),
  ],
)
def test_mistakes_are_named(capsys, arguments, text):
  assert main(["--miniature", *arguments]) == 2
  assert text in capsys.readouterr().err


def _run_script(tmp_path, monkeypatch, body, part=PLAN["step/tiny/float32"], left=60.0):
  script = tmp_path / "python"
  script.write_text(f"#!/bin/sh\necho '{{\"ways\": 1}}'\n{body}\n")
  script.chmod(0o755)
  monkeypatch.setattr(sys, "executable", str(script))
  return part_process.run(part, [], found={}, left=left)


def test_a_part_that_crashes_leaves_what_it_had(tmp_path, monkeypatch):
  outcome = _run_script(tmp_path, monkeypatch, "echo 'F0 check failed' >&2; kill -ABRT $$")
  assert outcome.found["ways"] == 1
  assert outcome.failed == "F0 check failed (signal 6)"


def test_an_error_is_quoted(tmp_path, monkeypatch):
  body = "echo 'Traceback' >&2; echo 'ValueError: no' >&2; echo 'bye' >&2; exit 3"
  assert _run_script(tmp_path, monkeypatch, body).failed == "ValueError: no (exit status 3)"


def test_a_part_ends_with_its_time(tmp_path, monkeypatch):
  part = dataclasses.replace(PLAN["step/tiny/float32"], needs=0.5)
  outcome = _run_script(tmp_path, monkeypatch, "sleep 600 & wait", part=part, left=1.0)
  assert outcome.found["ways"] == 1 and not outcome.failed
  assert outcome.skipped.startswith("Its time was up after 1 s")


def test_a_difference_or_a_failure_shows_in_the_status():
  good = {"parity/tiny": {"agrees": True}}
  assert check_report.Record("c", 1.0, found=good).status == 0
  assert check_report.Record("c", 1.0, found={"parity/tiny": {"agrees": False}}).status == 1
  assert check_report.Record("c", 1.0, failed={"step": "no"}).status == 1


def test_it_needs_nothing_that_reads_data(tmp_path):
  """A step, where the libraries for data and checkpoints are not installed."""
  for name in ABSENT.split():
    file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True)
    top = name.partition(".")[0]
    file.write_text(f"raise ModuleNotFoundError('No module named {name}', name={top!r})\n")
  done = subprocess.run(
    [sys.executable, "-m", "sum_l_jax", "device_check", "--miniature", "--part=step/tiny/float32"],
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout)["clips_per_second"] > 0
