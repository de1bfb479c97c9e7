"""What all tests share: the platform, absl flags, two tiny data sets."""

from __future__ import annotations

import gc
import os
import pathlib
import uuid

# Before anything imports JAX, and for the processes that tests start as well.
# Compilation is most of the suite's time: many tests run the same programs, and
# few compute enough to profit from an optimized one (see `optimized`).
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")

from tests.support import storage_server

# Clients of Cloud Storage read these when they are imported; whoever has an
# account must not use it in a test.
os.environ |= storage_server.SWITCHES

from absl import flags
from etils import epath
import jax
import numpy as np
import pytest

from sum_l_jax import main
from sum_l_jax.config import read
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.losses import own_terms
from sum_l_jax.models import backbones
from tests.support import runs
from tests.support import tiny_data


def pytest_configure(config):
  del config
  # Grain's worker processes refuse to start before absl flags are parsed.
  flags.FLAGS.mark_as_parsed()


def pytest_collection_finish():
  # Modules stay until the end. Looking through their objects took a fifth of
  # the time of `make quick`, again after each file (see `free_memory`).
  gc.collect()
  gc.freeze()


# What takes long starts a process, a whole training or a network of a published
# size. Tests whose module imports none of these, which ask for no finished run
# and are not marked as slow, are `make quick`: under three minutes on two cores
# that have compiled nothing yet. `--durations=30` shows what should be marked.
_LONG = {
  "multiprocessing",
  "subprocess",
  "sum_l_jax.main",
  "tests.support.golden_inputs",
  "tests.support.reference_networks",
}


def pytest_collection_modifyitems(items):
  for item in items:
    imported = {getattr(value, "__name__", "") for value in vars(item.module).values()}
    long = imported & _LONG or "finished" in item.fixturenames
    if not long and not item.get_closest_marker("slow"):
      item.add_marker("quick")


@pytest.fixture(autouse=True, scope="module")
def free_memory():
  """Compiled programs of one file are of no use to the next, and add up."""
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture(autouse=True)
def registered_names():
  """What a test, or a config file it reads, registers goes with the test."""
  tables = (backbones.BACKBONES, own_terms._TERMS)
  before = [set(table) for table in tables]
  yield
  for table, names in zip(tables, before):
    for name in table.keys() - names:
      del table[name]


@pytest.fixture(scope="session")
def tiny_ego(tmp_path_factory) -> pathlib.Path:
  """Folder of an ego data set: 17 train and 5 val clips, softmax tasks."""
  folder = tmp_path_factory.mktemp("tiny") / "ego"
  return tiny_data.write_tiny(folder, "ego", {"train": 17, "val": 5})


@pytest.fixture(scope="session")
def tiny_exo(tmp_path_factory) -> pathlib.Path:
  """Folder of an exo data set: 11 train clips, the same tasks as tiny_ego."""
  folder = tmp_path_factory.mktemp("tiny") / "exo"
  return tiny_data.write_tiny(folder, "exo", {"train": 11})


@pytest.fixture(scope="session")
def tiny_exo_multi_label(tmp_path_factory) -> pathlib.Path:
  """Folder of an exo data set: 9 train clips, multi_label tasks."""
  folder = tmp_path_factory.mktemp("tiny") / "exo_multi"
  return tiny_data.write_tiny(folder, "exo_multi", {"train": 9}, multi_label=True)


@pytest.fixture(scope="session")
def tiny_narrations(tiny_ego, tiny_exo, tiny_exo_multi_label) -> narration_table.NarrationTable:
  """Random unit vectors, D = 16, for the narrations of all tiny data sets."""
  texts = {
    clip.narration
    for folder, split in (
      (tiny_ego, "train"),
      (tiny_ego, "val"),
      (tiny_exo, "train"),
      (tiny_exo_multi_label, "train"),
    )
    for clip in records.ClipDataset(folder, split).clips
  }
  vectors = np.random.default_rng(7).standard_normal((len(texts), 16))
  return narration_table.NarrationTable(sorted(texts), vectors, model="random-16")


@pytest.fixture(scope="session")
def tiny_tables(tiny_ego, tiny_exo, tiny_narrations, tmp_path_factory) -> pathlib.Path:
  """Folder with `narrations.npz` and `pairs.npz` of tiny_ego and tiny_exo."""
  folder = tmp_path_factory.mktemp("tables")
  runs.write_pairs(tiny_ego, tiny_exo, tiny_narrations, folder)
  return folder


@pytest.fixture
def optimized():
  """Compiles as for users: where much is computed, or programs are the subject."""
  before = jax.config.values["jax_disable_most_optimizations"]
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def finished(tiny_ego, tiny_exo, tiny_tables, tmp_path_factory) -> tuple[pathlib.Path, str]:
  """An uninterrupted run of both stages, 6 steps each: workdir and table."""
  config = read.default_config()
  config.stages = ("exo", "joint")
  runs.small(config, ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)
  workdir = tmp_path_factory.mktemp("finished")
  return workdir, main.run(config, workdir)


@pytest.fixture(scope="session")
def storage_url() -> str:
  """Address of a server of Cloud Storage on this machine, with a bucket `tests`."""
  if reason := storage_server.missing():
    pytest.skip(reason)
  server = storage_server.StorageServer()
  server.make_bucket("tests")
  yield server.url
  server.stop()


@pytest.fixture
def bucket(storage_url, monkeypatch) -> epath.Path:
  """A folder of a bucket, empty, for this process and those that it starts."""
  for name, value in storage_server.environment(storage_url).items():
    monkeypatch.setenv(name, value)
  return epath.Path(f"gs://tests/{uuid.uuid4().hex[:12]}")
