"""Batches over several devices, simulated in a process of their own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax.system import devices
from tests.support import free_ports

ROOT = pathlib.Path(__file__).resolve().parents[2]

FOUR_DEVICES = """
import jax, numpy as np
from sum_l_jax.system import devices
from sum_l_jax.models.layers import packing

mesh = devices.make_mesh()
assert mesh.shape == {"data": 4, "fsdp": 1}, mesh
assert devices.make_mesh(fsdp=2).devices.tolist() == [jax.devices()[:2], jax.devices()[2:]]
seen = []
def step(state, batch):
  seen.append(packing.clips_of_a_chip(64))
  return state + batch.sum()
state = jax.device_put(1.0)
batch = devices.put_batch(np.arange(8.0), mesh)
result = devices.jit_over(mesh, step, donate=True)(state, batch)
# Layers know the mesh while they are traced, not otherwise.
assert seen == [16] and packing.clips_of_a_chip(64) == 64, seen
assert result.sharding.is_fully_replicated and float(result) == 29
assert float(state) == 1  # On CPU nothing is given up.
rows = {"video": np.arange(8 * 3, dtype=np.uint8).reshape(8, 3),
        "labels": {"verb": np.arange(8, dtype=np.int32)}}
put = devices.put_batch(rows, mesh)
assert put["video"].sharding == devices.batch_sharding(mesh)
for i, shard in enumerate(put["video"].addressable_shards):
  assert shard.device == jax.devices()[i]
  np.testing.assert_array_equal(shard.data, rows["video"][2 * i:2 * i + 2])
np.testing.assert_array_equal(put["labels"]["verb"], rows["labels"]["verb"])
total = jax.jit(lambda x: x.sum())(put["labels"]["verb"])
assert int(total) == 28
try:
  devices.put_batch(np.zeros((6, 2)), mesh)
except ValueError as error:
  assert "batch size 6 and 4 devices. Take 4 or 8" in str(error), error
else:
  raise AssertionError("6 rows on 4 devices went through")
assert devices.make_mesh(2).devices.size == 2
print("passed")
"""


def test_four_devices():
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    "PYTHONPATH": str(ROOT),
  }
  done = subprocess.run(
    [sys.executable, "-c", FOUR_DEVICES],
    env=environment,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0 and "passed" in done.stdout, done.stderr


TWO_PROCESSES = """
import sys
import jax, numpy as np
from sum_l_jax.system import devices

port, index = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(index))
mesh = devices.make_mesh()
assert mesh.size == 4 and len(jax.local_devices()) == 2
mine = 4 * int(index) + np.arange(4, dtype=np.float32)
# The training loop forbids implicit transfers, too.
with jax.transfer_guard("disallow"):
  rows = devices.put_batch({"x": mine}, mesh)["x"]
assert rows.shape == (8,)
# Rows in the order of the hosts: weights tell them apart.
weighted = jax.jit(lambda x: (x * (1 + jax.numpy.arange(8.0))).sum())(rows)
assert float(weighted) == sum(i * (i + 1) for i in range(8)), weighted
try:
  devices.make_mesh(2)
except ValueError as error:
  assert "all 4 devices must take part" in str(error), error
else:
  raise AssertionError("a mesh without one of the processes went through")
print("passed")
"""


def test_two_processes():
  port = str(free_ports.free_port())
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    "PYTHONPATH": str(ROOT),
  }
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", TWO_PROCESSES, port, str(index)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  try:
    for process in processes:
      out, errors = process.communicate(timeout=240)
      assert process.returncode == 0 and "passed" in out, errors
  finally:
    for process in processes:
      process.kill()


OPTION = "xla_cpu_experimental_ynn_fusion_type"


def test_programs_on_cpu_are_free_of_one_threaded_fusions(monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  assert devices.compiler_options("cpu") == {OPTION: ""}
  assert not devices.compiler_options("tpu")
  rows, kernel = jnp.ones((4, 28, 28, 64)), jnp.ones((3, 3, 64, 64))
  convolve = lambda x, kernel: jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  text = lambda f: f.lower(rows, kernel).compile().as_text()
  assert "ynn" in text(jax.jit(convolve))
  assert "ynn" not in text(devices.jit_over(devices.make_mesh(1), convolve))


def test_large_products_are_fusions_of_their_own(monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
  ones = {OPTION: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
  block = {"up": {"kernel": shape(12, 768, 3072), "bias": shape(12, 3072)}}
  assert devices.compiler_options("cpu", block) == ones
  assert not devices.compiler_options("tpu", block)
  # Convolutions of a wide network, a projection, and the blocks of a small transformer.
  for small in (shape(3, 1, 1, 2048, 1024), shape(2304, 384), shape(4, 96, 384)):
    assert devices.compiler_options("cpu", {"kernel": small}) == {OPTION: ""}
  mesh = devices.make_mesh(1)
  x, kernel = shape(8, 1024), shape(1024, 2048)
  text = lambda params: (
    devices.jit_over(mesh, jnp.matmul, params=params).lower(x, kernel).compile().as_text()
  )
  assert "ynn" in text(kernel)
  assert "ynn" not in text(())


def test_flags_of_the_user_win(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=x --{OPTION}=dot")
  assert not devices.compiler_options("cpu")


def test_an_option_that_this_xla_lacks_is_left_out(monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  monkeypatch.setattr(devices, "_OPTIONS", {"cpu": {"xla_cpu_no_such": "1"}})
  assert not devices.compiler_options("cpu")


def test_prefetch_keeps_order_and_stays_bounded():
  mesh = devices.make_mesh(1)
  asked = []

  def batches():
    for i in range(5):
      asked.append(i)
      yield {"x": np.full((2, 1), i, np.int32)}

  seen = []
  for batch in devices.prefetch_to_device(batches(), mesh, size=2):
    assert isinstance(batch["x"], jax.Array)
    seen.append(int(batch["x"][0, 0]))
    assert len(asked) <= seen[-1] + 2
  assert seen == [0, 1, 2, 3, 4]


def test_bad_arguments():
  with pytest.raises(ValueError, match="num_devices must be between 1 and"):
    devices.make_mesh(10_000)
  with pytest.raises(
    ValueError, match=r"mesh\.fsdp must divide the number of devices, 1, .* got 2"
  ):
    devices.make_mesh(1, fsdp=2)
  with pytest.raises(ValueError, match="size must be at least 1"):
    next(devices.prefetch_to_device([], devices.make_mesh(1), size=0))
