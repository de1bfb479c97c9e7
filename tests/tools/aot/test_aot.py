"""The command that compiles a step for chips that are not there.

TPU programs need libtpu; here the same code compiles for this machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from data_prep.sources import epic_kitchens
from data_prep.toy_kitchen import vocabulary
from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.tools import chips
from sum_l_jax.tools import program_costs
from sum_l_jax.tools import workload
from sum_l_jax.tools.aot import compiler
from sum_l_jax.tools.aot import hlo
from sum_l_jax.tools.aot import program_report
from sum_l_jax.tools.aot import topologies
from sum_l_jax.tools.aot.__main__ import _read
from sum_l_jax.tools.aot.__main__ import main
from tests.support import compiled_step

ROOT = pathlib.Path(__file__).parents[3]
SMALL = [
  "--config.frames.count=2",
  "--config.frames.crop_size=16",
  "--config.frames.short_side=(16,16)",
]


def test_known_data_sets_are_those_of_their_builders():
  for name, release in (("epic55", epic_kitchens.EPIC55), ("epic100", epic_kitchens.EPIC100)):
    known = workload.find("ego", f"data/{name}/ego", "", "")
    assert dict(known.classes) == release.num_classes
  for view in (types.EGO, types.EXO):
    known = workload.find(view, f"data/toy_kitchen_3/{view}", "", "")
    tasks = vocabulary.tasks(view)
    assert dict(known.classes) == {n: t.num_classes for n, t in tasks.items()}
    assert known.clips[view] == vocabulary.COUNTS[view]["train"]
  generic = workload.find("exo", "data/toy_kitchen/generic", "", "")
  assert dict(generic.classes) == {n: t.num_classes for n, t in vocabulary.tasks("generic").items()}


def test_classes_given_as_text():
  found = workload.parse_classes("--ego_classes", "action:157:multi")
  assert (dict(found.classes), found.kind) == ({"action": 157}, types.MULTI_LABEL)
  assert workload.parse_classes("x", "a:2,b:3").tasks["b"].num_classes == 3


def test_several_pools_have_the_heads_of_all():
  lemma, charades = (
    workload.find("exo", f"data/{n}/exo", "", "") for n in ("lemma", "charades_ego")
  )
  kinetics = workload.parse_classes("x", "action:400")
  tasks = workload.unite([lemma, charades, kinetics]).tasks
  assert {name: (task.kind, task.num_classes) for name, task in tasks.items()} == {
    "verb": ("multi_label", 25),
    "noun": ("multi_label", 64),
    "action_multi_label": ("multi_label", 157),
    "action_softmax": ("softmax", 400),
  }
  batch = workload.abstract_batch(
    {"exo": tasks},
    batch_size=4,
    clips={"exo": (2, 8)},
    embedding_dim=None,
    sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    united=["exo"],
  )
  assert {name: known.shape for name, known in batch["exo"]["known"].items()} == {
    name: (4, task.num_classes) for name, task in tasks.items()
  }
  # Pools that are alike need no more than one of them.
  assert workload.unite([lemma, lemma]).tasks == lemma.tasks
  assert not workload.unite([lemma, lemma]).united


@pytest.mark.parametrize(
  "text", ["verb", "verb:", "verb:0", ":3", "a:3:many", "a:3,b:4:multi", "verb:-1"]
)
def test_unreadable_classes(text):
  with pytest.raises(ValueError, match="--ego_classes must be tasks with"):
    workload.parse_classes("--ego_classes", text)


def test_an_unknown_data_set_names_the_option():
  with pytest.raises(ValueError, match="--ego_classes=verb:125"):
    workload.find("ego", "data/mine/ego", "--ego_classes", "")


@pytest.mark.parametrize(
  "name, message",
  [
    ("v5e", "--topology must be a TPU"),
    ("v9:2x2", "chips: v4, v5e, v5p, v6e"),
    ("v5e:2x4x", "--topology must be a TPU"),
    ("gpu:8", "GPUs: a100, h100; got 'gpu:8'"),
    ("gpu:h100:0", "such as .*gpu:h100:8"),
    ("gpu:t4:1", "GPUs: a100, h100"),
    ("cpu:0", "between 1 and"),
    ("cpu:1000", "between 1 and"),
  ],
)
def test_wrong_topologies_are_explained(name, message):
  with pytest.raises(ValueError, match=message):
    topologies.make_mesh(name)


@pytest.mark.parametrize(
  "name, package, message",
  [
    ("v5e:2x4", "libtpu", "pip install 'libtpu=="),
    ("gpu:h100:1", "jax_cuda", r"pip install -e '\.\[cuda12\]'"),
  ],
)
def test_without_a_compiler_the_way_to_it_is_named(name, package, message, monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *rest: None if name.startswith(package) else find(name, *rest),
  )
  with pytest.raises(ValueError, match=message):
    topologies.make_mesh(name)


def test_clocks_follow_from_the_peaks():
  """Cores x units of 128 x 128, two operations each a cycle."""
  for name, units in (("v4", 8), ("v5e", 4), ("v5p", 8)):
    chip = chips.CHIPS[name]
    assert chip.clock_hz == pytest.approx(chip.peak_flops / (2 * 128 * 128 * units), rel=0.01)


def test_a_matrix_product_costs_what_it_costs():
  program = (
    jax.jit(lambda a, b: a @ b)
    .lower(
      jax.ShapeDtypeStruct((64, 128), jnp.float32), jax.ShapeDtypeStruct((128, 32), jnp.float32)
    )
    .compile()
  )
  costs, memory = program_costs.read_costs(program), program_costs.read_memory(program)
  assert costs["flops"] == 2 * 64 * 128 * 32
  assert costs["bytes_accessed"] == 4 * (64 * 128 + 128 * 32 + 64 * 32)
  assert memory["arguments"] == 4 * (64 * 128 + 128 * 32)
  assert memory["outputs"] == 4 * 64 * 32
  assert memory["total"] == sum(memory[k] for k in ("arguments", "outputs", "temporaries", "code"))
  text = hlo.Program(program.as_text() or "")
  assert text.cycles is None and not text.collectives
  assert sum(o.bytes for o in text.operations) == costs["bytes_accessed"]


def test_estimates_of_time_and_headroom():
  summary = program_report.summarize(compiled_step.compiled())
  # 3e6 cycles at 1.5 GHz; a thousandth of a second's peak; a hundredth of a
  # second's traffic; 100 steps.
  assert summary["step_seconds"] == pytest.approx(
    {"cycles": 2e-3, "arithmetic": 1e-3, "memory": 1e-2}
  )
  assert summary["epoch_seconds"] == pytest.approx(
    {"cycles": 0.2, "arithmetic": 0.1, "memory": 1.0}
  )
  assert summary["headroom"] == int(15.75 * 2**30) - 6 * 10**9
  assert summary["batch_per_chip"] == 8
  assert summary["layers"] == {"ego/slow/s2": {"backward": 3_000_000}}
  (operation,) = summary["operations"]
  assert operation["milliseconds"] == pytest.approx(2.0)
  text = program_report.format_report([summary])
  for part in (
    "2.00 ms",
    "10.0 ms",
    "6.00 GB",
    "(estimates)",
    "ego/slow/s2/0/a/mul [backward]",
    "Compiled, not run.",
  ):
    assert part in text, part


def test_two_programs_side_by_side():
  half = compiled_step.compiled(512_500_000)
  text = program_report.format_report(
    [program_report.summarize(c) for c in (compiled_step.compiled(), half)]
  )
  (line,) = [li for li in text.splitlines() if "memory traffic" in li]
  assert line.split()[-6:] == ["8.19", "GB", "4.10", "GB", "x", "0.50"]


def test_attention_and_all_else_are_told_apart():
  """Kernels by the model: twice the time of products whose heads fill the matrix unit."""
  compiled = compiled_step.compiled(text=compiled_step.KERNEL, costs={"flops": 5.0})
  summary = program_report.summarize(compiled)
  clock, peak = 1.5e9, 197e12
  # Two products of 256 queries with 256 keys, two clips, two heads of 64 channels.
  operations = 3 * 2 * 2 * (2 * 2 * 256 * 256) * 64
  of_kernels = 2 * (2 * operations) / peak
  rest = 3 * 2 * (2 * 256) * 128 * 128
  assert summary["attention"] == {
    "kernels": 3,
    "operations": operations,
    "kernel_seconds": pytest.approx(of_kernels),
    "seconds": pytest.approx(3 * 1000 / clock + of_kernels),
    "rest_operations": rest,
    "rest_seconds": pytest.approx((3 * 2300 + 7) / clock),
    "rest_floor": pytest.approx(rest / peak),
    "rest_over_floor": pytest.approx((3 * 2300 + 7) / clock / (rest / peak)),
  }
  assert summary["flops"] == operations + rest
  assert summary["step_seconds"]["cycles"] == pytest.approx((3 * 3300 + 7) / clock + of_kernels)
  lines = program_report.format_report([summary]).splitlines()
  assert any(line.startswith("  of it kernels, by a model") for line in lines)


def test_a_kernel_that_is_not_known_leaves_the_time_open():
  text = compiled_step.KERNEL.replace("splash_mha_fwd_residuals", "another")
  summary = program_report.summarize(compiled_step.compiled(text=text))
  assert summary["step_seconds"]["cycles"] is None
  assert summary["attention"]["seconds"] is None and summary["attention"]["kernels"] == 3


def test_loops_that_nothing_counts_are_told():
  text = compiled_step.KERNEL.replace("direction=LT", "direction=NE")
  summary = program_report.summarize(compiled_step.compiled(text=text))
  assert "how often 1 loop(s) run" in program_report.format_report([summary])


def test_arithmetic_is_not_known_of_a_program_with_loops_and_no_products():
  """XLA counts the body of a loop once, however often it runs."""
  summary = program_report.summarize(compiled_step.compiled(text=compiled_step.LOOP))
  assert summary["step_seconds"] == {
    "cycles": pytest.approx(35 / 1.5e9),
    "arithmetic": None,
    "memory": pytest.approx(
      hlo.Program(compiled_step.LOOP).main_bytes / chips.CHIPS["v5e"].bandwidth
    ),
  }
  lines = program_report.format_report([summary]).splitlines()
  for start in ("  arithmetic", "  accessed, by XLA's count"):
    (line,) = [line for line in lines if line.startswith(start)]
    assert line.endswith("not known")


def test_what_exchanges_take_at_least():
  """A ring sends everything but its own part around, twice for a sum."""
  chip = chips.CHIPS["v5e"]
  rows = [{"kind": "all-reduce", "bytes": 400e6}, {"kind": "all-gather", "bytes": 100e6}]
  found = program_costs.exchange_seconds(rows, 8, chip)
  assert found == pytest.approx((2 * 7 / 8 * 400e6 + 7 / 8 * 100e6) / 200e9)
  assert program_costs.exchange_seconds([], 8, chip) == 0
  # Two of the eight exchange halves.
  row = {"kind": "all-gather", "bytes": 100e6, "group": 2}
  assert program_costs.exchange_seconds([row], 8, chip) == pytest.approx(50e6 / chip.links)
  assert program_costs.exchange_seconds(rows, 8, chips.CPU) is None
  assert program_costs.exchange_seconds([{"kind": "new", "bytes": 1}], 8, chip) is None


def test_a_program_that_does_not_fit_is_said_so():
  summary = program_report.summarize(
    compiled_step.compiled(
      text="", memory={}, costs={}, problem="RESOURCE_EXHAUSTED: Used 17.02G of 15.75G hbm."
    )
  )
  assert not summary["fits"]
  text = program_report.format_report([summary])
  assert "DOES NOT FIT: RESOURCE_EXHAUSTED: Used 17.02G of 15.75G" in text


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--topology=cpu:1", "--config.precision=x"], "config.precision"),
    (["--topology=cpu:1", "--config.model.x=1"], "no config field"),
    (["--topology=cpu:1", "--compare.model.x=1"], "no config field"),
    (["--topology=cpu:1", "--batch_per_chip=-1"], "--batch_per_chip must be"),
    (["--topology=cpu:1", "--output=nowhere/a.json"], "no folder 'nowhere'"),
    (["--topology=v5e:2"], "--topology must be a TPU"),
  ],
)
def test_errors_are_one_block(arguments, message, capsys, monkeypatch):
  monkeypatch.setattr("sum_l_jax.tools.aot.__main__._ENVIRONMENT", {})
  # What compiles, when all else is right, is not the subject.
  monkeypatch.setattr(compiler, "lower_step", None)
  status = main(["--config=configs/demo.py", *arguments])
  assert status == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and message in error


def test_the_batch_that_is_asked_for_is_the_one_that_is_checked():
  """96 chunks do not divide the 32 pairs of the demo's own batch."""
  asked = argparse.Namespace(topology="cpu:1", stage="", batch_per_chip=96)
  path, fields = "configs/demo.py:backbone=vit_tiny", ["--config.joint_stage.chunks=96"]
  settings, stage = _read(asked, path, fields)
  assert (stage, settings.joint_stage.batch_size, settings.joint_stage.chunks) == ("joint", 96, 96)
  with pytest.raises(ValueError, match="chunks must divide"):
    asked.batch_per_chip = 64
    _read(asked, path, fields)


def test_the_step_is_compiled_for_two_devices(tmp_path):
  """The demo's ego tower: every kernel's gradient is summed over devices."""
  output = tmp_path / "out.json"
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "sum_l_jax.tools.aot",
      "--topology=cpu:2",
      "--config=configs/demo.py:method=fpv_only",
      "--batch_per_chip=2",
      "--compare.mesh.fsdp=2",
      "--compare.mesh.whole_below=64",
      f"--output={output}",
      *SMALL,
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    env=os.environ
    | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
  )
  assert done.returncode == 0, done.stderr
  program, shared = json.loads(output.read_text())["programs"]
  assert (program["chips"], program["batch_size"]) == (2, 4)
  assert program["fits"] and program["flops"] > 0
  config = build.read_settings("configs/demo.py:method=fpv_only", SMALL)
  tasks = {"ego": workload.KNOWN["toy_kitchen"].tasks}
  network = compiler.build.build_network(config, tasks, embedding_dim=None)
  params, stats = network.shapes
  size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  summed = sum(row["elements"] for row in program["collectives"] if row["kind"] == "all-reduce")
  # The gradient, and sums for BatchNorm forwards and backwards and the log.
  assert size(params) <= summed <= size(params) + 4 * size(stats) + 1000
  # Parameters and AdamW's two moments, BatchNorm's statistics, the batch.
  state = 4 * (3 * size(params) + size(stats))
  batch = 2 * 2 * 16 * 16 * 3
  assert state + batch <= program["memory"]["arguments"] <= state + batch + 256
  # Where both share one state, each has half of what is large and has an even side.
  halves = lambda tree: [
    x.size for x in jax.tree.leaves(tree) if x.size >= 64 and any(n % 2 == 0 for n in x.shape)
  ]
  state -= 2 * (3 * sum(halves(params)) + sum(halves(stats)))
  assert state + batch <= shared["memory"]["arguments"] <= state + batch + 256
  gathered = [row for row in shared["collectives"] if row["kind"] == "all-gather"]
  assert sum(row["elements"] for row in gathered) >= sum(halves(params))
  assert {row["group"] for row in gathered} == {2} and shared["fsdp"] == 2
  layers = set(program["layers"])
  assert {"ego/slow/s1", "ego/slow/s4", "ego/heads", "loss"} <= layers
  assert "error" not in done.stderr.lower()
  for part in ("floor by main memory", "exchanges between chips", "state shared by 2;"):
    assert part in done.stdout
