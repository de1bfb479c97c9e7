"""A whole small run whose every path is in a bucket, and one that meets faults."""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

from etils import epath
import numpy as np
import pytest

from data_prep import build_dataset
from data_prep import mine_pairs
from sum_l_jax import __main__
from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import narration_table
from sum_l_jax.system import retries
from sum_l_jax.system import storage
from tests.support import environments
from tests.support import fault_proxy
from tests.support import numbered_video
from tests.support import runs
from tests.support import storage_server

ROOT = pathlib.Path(__file__).parents[2]
VERBS = ("cut", "wash", "open")


def _command(config, workdir, data) -> list[str]:
  return [
    sys.executable,
    "-m",
    "tests.support.short_back_offs",
    "sum_l_jax.main",
    f"--config={config}",
    f"--workdir={workdir}",
    f"--config.ego.dataset={data}/ego",
    f"--config.exo.datasets=('{data}/exo',)",
    f"--config.narrations={data}/narrations.npz",
    f"--config.pairs.table={data}/pairs.npz",
    "--config.checkpoint.every=2 steps",
  ]


def _train(config, workdir, data, *more, environment, wait_for=""):
  """Runs main; kills it once its log says something, if that is given."""
  process = subprocess.Popen(
    [*_command(config, workdir, data), *more],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    env=environments.training(**environment),
  )
  said = io.StringIO()
  for line in process.stderr:
    said.write(line)
    if wait_for and re.search(wait_for, line):
      process.kill()
  wanted = -signal.SIGKILL if wait_for else 0
  assert process.wait(timeout=60) == wanted, said.getvalue()[-5000:]
  return said.getvalue()


def _run_command(*arguments: str) -> None:
  with pytest.raises(SystemExit) as end:
    __main__.main(arguments)
  assert not end.value.code


def _build(folder: pathlib.Path, output: epath.Path, view: str) -> None:
  """Two videos with 16 clips, one of which validates the ego view."""
  folder.mkdir()
  rows = ["clip_id,path,start_seconds,stop_seconds,narration,verb"]
  for video in ("a", "b"):
    numbered_video.write_video(folder / f"{video}.mp4", list(range(75)))
    rows += [
      f"{video}{k},{video}.mp4,{k * 0.25:.2f},{k * 0.25 + 0.5:.2f},{verb} it {view},{verb}"
      for k, verb in enumerate((VERBS * 3)[:8])
    ]
  (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
  arguments = [
    "--dataset=manifest",
    f"--view={view}",
    f"--annotations={folder / 'manifest.csv'}",
    "--processes=1",
    f"--output={output}",
    *(["--validation_videos=b"] if view == "ego" else ["--split=train"]),
  ]
  assert build_dataset.main(arguments) == 0


def test_a_whole_small_run(bucket, tmp_path, capsys):
  """Built, mined, trained with a kill, resumed, evaluated, predicted, reported."""
  for view in ("ego", "exo"):
    _build(tmp_path / view, bucket / view, view)
  texts = [f"{verb} it {view}" for verb in VERBS for view in ("ego", "exo")]
  vectors = np.random.default_rng(0).standard_normal((len(texts), 16))
  narration_table.NarrationTable(texts, vectors, model="random-16").save(
    bucket / "narrations.npz", command="tests"
  )
  mined = [f"--ego={bucket}/ego", f"--exo={bucket}/exo", f"--narrations={bucket}/narrations.npz"]
  assert mine_pairs.main([*mined, f"--output={bucket}/pairs.npz", "--top_k=2"]) == 0

  config = runs.write_config(
    tmp_path / "config.py", ego=tmp_path / "ego", exo=tmp_path / "exo", tables=tmp_path
  )
  workdir = bucket / "run"
  train = lambda *more, **options: _train(
    config,
    workdir,
    bucket,
    "--config.eval.splits=('validation',)",
    "--config.eval.during_split=validation",
    *more,
    environment=storage_server.environment(os.environ["STORAGE_EMULATOR_HOST"]),
    **options,
  )
  train(wait_for=f"Saved: {workdir}/exo/checkpoints/4")
  assert weight_files.find_checkpoint(workdir / "exo").name == "4"
  said = train()
  assert "exo: goes on from step 4" in said
  for stage in ("exo", "joint"):
    assert weight_files.find_checkpoint(workdir / stage).name == "6"
  trained = storage.read_text(workdir / "result.json")

  storage.remove(workdir / "result.json")
  train("--mode=eval")
  again = storage.read_text(workdir / "result.json")
  metrics = [json.loads(text)["splits"]["validation"]["metrics"] for text in (trained, again)]
  assert metrics[0] == metrics[1]

  capsys.readouterr()
  video = str(tmp_path / "ego" / "b.mp4")
  _run_command("predict", f"--checkpoint={workdir}", "--format=json", "--window=0.5", video)
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert lines and all(line["classes"][0] in VERBS for line in lines)

  _run_command("report", str(workdir))
  assert "<html" in storage.read_text(workdir / "report.html")


@pytest.fixture(name="tiny")
def tiny_fixture(bucket, tiny_ego, tiny_exo, tiny_tables):
  """The folder of a bucket with the data of the run `finished`."""
  for name, folder in (("ego", tiny_ego), ("exo", tiny_exo)):
    storage.upload_folder(folder, bucket / name, last="dataset_info.json")
  for name in ("narrations.npz", "pairs.npz"):
    storage.upload(tiny_tables / name, bucket / name)
  return bucket


@pytest.fixture(name="config")
def config_fixture(tiny_ego, tiny_exo, tiny_tables, tmp_path):
  return runs.write_config(tmp_path / "small.py", ego=tiny_ego, exo=tiny_exo, tables=tiny_tables)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_faults_of_the_network_change_nothing(share, tiny, config, storage_url, finished, tmp_path):
  with fault_proxy.FaultProxy(
    storage_url, share=share, kinds=fault_proxy.TRANSIENT, seconds=0.05
  ) as proxy:
    _train(config, tiny / "run", tiny, environment=storage_server.environment(proxy.url))
  assert proxy.requests > 100
  assert sum(proxy.faults.values()) > share * proxy.requests / 2
  for stage in ("exo", "joint"):
    runs.assert_same_weights(tiny / "run" / stage, finished[0] / stage)


def test_a_bucket_that_stays_away_ends_a_run_with_an_error(tiny, config, storage_url):
  """Within a bound that is a setting, wherever the run is."""
  with fault_proxy.FaultProxy(storage_url, kinds=("503",)) as proxy:
    process = subprocess.Popen(
      [
        *_command(config, tiny / "run", tiny),
        # Would go on for hours.
        "--config.exo_stage.total=1000000 steps",
      ],
      cwd=ROOT,
      stderr=subprocess.PIPE,
      text=True,
      env=environments.training(
        **storage_server.environment(proxy.url), **{retries.PATIENCE_VARIABLE: "3"}
      ),
    )
    said = io.StringIO()
    for line in process.stderr:
      said.write(line)
      if "Saved: " in line:
        proxy.share = 1.0
    assert process.wait(timeout=60) == 2, said.getvalue()[-5000:]
  last = said.getvalue()[said.getvalue().rindex("\nerror: ") :]
  assert "503" in last and "Complete is step" in last
  assert "Traceback" not in said.getvalue()
