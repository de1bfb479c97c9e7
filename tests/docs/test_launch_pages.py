"""The pages name launch files that their own commands write."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import subprocess
import sys

import pytest
import yaml

from sum_l_jax.system import storage
from sum_l_jax.tools.launch import __main__
from tests.support import environments
from tests.support import pages
from tests.support import runs
from tests.support import storage_server

LAUNCH = "sum_l_jax.tools.launch"
_USE = re.compile(r"(?:bash|sh|sbatch|kubectl apply -f) (launch/\S+)(?: (\w+))?")


@pytest.fixture(name="written", scope="module")
def written_fixture(tmp_path_factory):
  """The folder in which the pages' commands have written their files."""
  folder = tmp_path_factory.mktemp("pages")
  with contextlib.chdir(folder):
    for code, command in pages.COMMANDS:
      if command[0] == LAUNCH and code.whole:
        assert __main__.main(command[1:]) == 0, f"{code}"
  return folder


def test_files_that_are_started_are_written(written):
  used = [(code, *found) for code in pages.CODE for found in _USE.findall(code.text)]
  assert {name.rpartition(".")[2] for _, name, _ in used} == {"sh", "yaml", "sbatch"}
  for code, name, word in used:
    assert (written / name).is_file(), f"{code}: nothing writes {name}"
    if word:
      text = (written / name).read_text(encoding="utf-8")
      assert re.search(rf"(?m)^  {word}\)", text), f"{code}: {name} has no {word!r}"


def test_the_script_on_the_page_is_the_one_that_is_written(written):
  page = (pages.DOCS / "gpu_slurm.md").read_text(encoding="utf-8")
  (shown,) = re.findall(r"(?s)```sh\n(#!/bin/bash\n.+?)```", page)
  script = (written / "launch/epic55.sbatch").read_text(encoding="utf-8")
  assert re.sub(r"(?m)^# needs .+\n", "", shown) == script


def test_the_node_pool_on_the_page_has_the_machines_of_the_jobset(written):
  page = (pages.DOCS / "tpu_pods.md").read_text(encoding="utf-8")
  (pool,) = re.findall(r"(?m)^gcloud container node-pools create .+--tpu-topology.+$", page)
  found = dict(re.findall(r"--([\w-]+)=(\S+)", pool))
  text = (written / "launch/epic55.yaml").read_text(encoding="utf-8")
  said = f"{found['num-nodes']} {found['machine-type']} with --tpu-topology={found['tpu-topology']}"
  assert said in text and "--spot" in pool


def test_the_pool_of_gpus_on_the_page_is_the_one_that_the_jobset_asks_for(written):
  page = (pages.DOCS / "tpu_pods.md").read_text(encoding="utf-8")
  (kind, count), *_ = re.findall(r"--accelerator=type=([\w-]+),count=(\d+)", page)
  (nodes,) = re.findall(r"node-pools create gpus .+--num-nodes=(\d+)", page)
  jobset = yaml.safe_load((written / "launch/epic55-gpu.yaml").read_text(encoding="utf-8"))
  (job,) = jobset["spec"]["replicatedJobs"]
  pod = job["template"]["spec"]["template"]["spec"]
  assert pod["nodeSelector"]["cloud.google.com/gke-accelerator"] == kind
  assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": int(count)}
  assert job["replicas"] * job["template"]["spec"]["completions"] == int(nodes)


def test_the_run_on_the_page_trains_from_and_to_a_bucket(
  written, storage_url, bucket, finished, tiny_ego, tiny_exo, tiny_tables, tmp_path
):
  """With its addresses, on small data; then its `status` command."""
  del bucket  # Sends the clients to the server.
  plan = json.loads((written / "launch/epic55.json").read_text(encoding="utf-8"))
  name = re.match(r"gs://([^/]+)/", plan["workdir"])[1]
  storage_server.make_bucket(storage_url, name)
  root = f"gs://{name}"
  storage.upload_folder(tiny_ego, f"{root}/data/epic55/ego")
  storage.upload_folder(tiny_exo, f"{root}/data/lemma/exo")
  storage.upload_folder(tiny_tables, f"{root}/data/epic55")
  for place in ("weights/slowfast_r50", "runs/lemma"):
    storage.upload_folder(finished[0], f"{root}/{place}")
  config = runs.write_config(
    tmp_path / "small.py", ego=tmp_path / "ego", exo=tmp_path / "exo", tables=tmp_path
  )
  # Compiled once for many tests, in float32.
  fields = [field for field in plan["fields"] if "precision" not in field]
  scratch = [field.replace("=/scratch/", f"={tmp_path}/scratch/") for field in fields]
  assert scratch != fields
  command = [f"--config={config}", f"--workdir={plan['workdir']}", "--config.stages=('joint',)"]
  done = subprocess.run(
    [sys.executable, "-m", "sum_l_jax.main", *command, *scratch],
    env=environments.training(),
    cwd=pages.ROOT,
    capture_output=True,
    text=True,
    timeout=400,
  )
  assert not done.returncode, done.stdout + done.stderr
  assert list((tmp_path / "scratch/shards").rglob("*")) and storage.names(f"{root}/jax")
  assert "joint 6/6" in done.stderr and storage.is_file(f"{plan['workdir']}/result.json")
  asked = [c for _, c in pages.COMMANDS if plan["workdir"] in c]
  assert {name for name, *_ in asked} == {"sum_l_jax.tools.status"}
  for name, *options in asked:
    assert importlib.import_module(f"{name}.__main__").main(options) == 0
