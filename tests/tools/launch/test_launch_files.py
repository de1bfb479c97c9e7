"""Launch files: validators accept them, and shells and Kubernetes pass on what was given."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from sum_l_jax.system import processes
from sum_l_jax.tools.launch import __main__
from sum_l_jax.tools.launch import launch_plan
from sum_l_jax.tools.launch import tpu_types
from tests.support import launchers

ROOT = pathlib.Path(__file__).parents[3]
# Where pip puts the programs of the extra `test`.
BIN = pathlib.Path(sys.executable).parent
PLAIN = {
  "name": "epic55",
  "config": "configs/epic55.py:backbone=slowfast_r50",
  "workdir": "gs://bucket/epic55",
  "fields": ["--config.precision=bfloat16"],
  "image": "europe-docker.pkg.dev/project/images/sum_l_jax:1",
  "project": "project",
  "zone": "europe-west4-b",
  "cluster": "cluster",
}
TPU = {"accelerator": "v5litepod-32", "slices": 2, "spot": True, "service_account": "trainer"}
MACHINES = {**TPU, "service_account": "trainer@project.iam.gserviceaccount.com"}
GPU = {"accelerator": "nvidia-h100-80gb", "slices": 2, "hosts": 3}
HOSTILE = """a 'b' "c" $(HOME) $$(HOME) $HOME ${HOME} `id` \\ # ; & | > * ! é"""
EVIL = {
  "workdir": f"gs://bucket/{HOSTILE}",
  "fields": [f"--config.narrations={HOSTILE}"],
  "environment": ["NUMBER=1e3", "WORD=no", "TIME=1:30", "OCTAL=0o7", f"TEXT={HOSTILE}"],
}


def make(kind, *parts):
  values = {name: value for part in (PLAIN, *parts) for name, value in part.items()}
  return launch_plan.make(values, kind)


def text_of(kind, *parts, end=""):
  found = __main__.files(make(kind, *parts), kind)
  (text,) = (text for name, text in found.items() if name.endswith(end))
  return text


SCRIPTS = [
  ("slurm", {"hosts": 2, "cpus": 8}, ".sbatch"),
  ("xpk", TPU, ".sh"),
  ("queued_resource", MACHINES, "epic55.sh"),
  ("queued_resource", {**MACHINES, "slices": 1}, "epic55.sh"),
  ("queued_resource", MACHINES, "start.sh"),
]


@pytest.mark.parametrize("kind, part, end", SCRIPTS)
def test_scripts_pass_shellcheck(kind, part, end, tmp_path):
  script = tmp_path / "script"
  for more in ({}, EVIL):
    if kind == "xpk" and more:
      more = {**EVIL, "environment": []}
    script.write_text(text_of(kind, part, more, end=end), encoding="utf-8")
    # Dollars within single quotes are what a user has given.
    options = ["--exclude=SC2016"] if more else []
    done = subprocess.run([BIN / "shellcheck", *options, script], capture_output=True, text=True)
    assert not done.returncode, done.stdout


def test_the_image_passes_hadolint():
  done = subprocess.run(
    [BIN / "hadolint", ROOT / "Dockerfile"],
    capture_output=True,
    text=True,
  )
  assert not done.returncode, done.stdout


def test_the_image_has_what_it_installs():
  """Its arguments are extras of setup.py, and what installing reads is let through."""
  text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
  (accelerators,) = re.findall(r"(?m)^ +(.+)\) extras=.+ACCELERATOR", text)
  (extras,) = re.findall(r"(?m)^ARG EXTRAS=(.+)$", text)
  declared = (ROOT / "setup.py").read_text(encoding="utf-8")
  for name in [*accelerators.split(" | "), *extras.split(",")]:
    assert f'"{name}": ' in declared, name
  ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
  let_through = {line.removeprefix("!") for line in ignored if line.startswith("!")}
  assert all((ROOT / name).exists() for name in let_through)
  read = {"README.md", "configs", "constraints.txt", "data_prep", "setup.py", "sum_l_jax"}
  assert read <= let_through and "*" in ignored


def _keys(value, names):
  """The value has these keys and no others: JobSet's own, by its API reference."""
  assert set(value) <= set(names), set(value) - set(names)
  return value


@pytest.mark.parametrize("parts", [(TPU,), (GPU,), (TPU, EVIL), (GPU, EVIL, {"queue": "q"})])
def test_jobsets_are_valid(parts):
  jobset = _keys(
    yaml.safe_load(text_of("jobset", *parts)), {"apiVersion", "kind", "metadata", "spec"}
  )
  assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  spec = _keys(jobset["spec"], {"network", "failurePolicy", "replicatedJobs"})
  _keys(spec["network"], {"enableDNSHostnames", "publishNotReadyAddresses", "subdomain"})
  policy = _keys(spec["failurePolicy"], {"maxRestarts", "restartStrategy", "rules"})
  assert policy["restartStrategy"] in ("Recreate", "BlockingRecreate", "InPlaceRestart")
  for rule in policy["rules"]:
    _keys(rule, {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"})
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
  (replicated,) = spec["replicatedJobs"]
  _keys(replicated, {"name", "replicas", "template"})
  job = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "job"},
    **replicated["template"],
  }
  kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
  pod = job["spec"]["template"]["spec"]
  # What the schema doesn't say: a policy for failures needs it.
  assert pod["restartPolicy"] == "Never"
  # A signal ends a process that doesn't handle it yet, unless it is the first.
  assert pod["shareProcessNamespace"]
  # Names of pods have at most 63 characters, with a suffix of their own.
  pods = job["spec"]["completions"]
  longest = f"{'n' * 32}-{replicated['name']}-{replicated['replicas']}-{pods}-abcde"
  assert len(longest) <= 63
  paths = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
  assert paths == ["/dev/shm", "/scratch"]
  mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
  assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_pods_whose_training_hangs_are_started_again():
  def probes(plan):
    (job,) = yaml.safe_load(__main__.files(plan, "jobset")["epic55.yaml"])["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    return [container[name] for name in ("startupProbe", "livenessProbe") if name in container]

  plan = make("jobset", GPU, EVIL, {"stall_seconds": 900})
  for probe in probes(plan):
    command = [launchers.expand(word, {}) for word in probe["exec"]["command"]]
    assert command == ["python", "-m", "sum_l_jax", "status", plan.workdir, "--max_age=900"]
    # It starts Python and asks a bucket.
    assert probe["timeoutSeconds"] >= 30
  start, live = probes(plan)
  # The others may come up for an hour, and then there is something to compile.
  assert start["periodSeconds"] * start["failureThreshold"] >= 2 * 3600
  assert live["failureThreshold"] > 1
  assert not probes(make("jobset", GPU, {"stall_seconds": 0}))


def test_a_run_that_saved_and_a_pod_that_was_taken_away_are_started_again_without_end():
  spec = yaml.safe_load(text_of("jobset", GPU, {"max_restarts": 3}))["spec"]
  (replicated,) = spec["replicatedJobs"]
  job = replicated["template"]["spec"]
  exit_rule, pod_rule = job["podFailurePolicy"]["rules"]
  assert exit_rule["onExitCodes"]["values"] == [processes.STOPPED]
  assert exit_rule["onExitCodes"]["operator"] == "In"
  (container,) = job["template"]["spec"]["containers"]
  assert exit_rule["onExitCodes"]["containerName"] == container["name"]
  assert [c["type"] for c in pod_rule["onPodConditions"]] == ["DisruptionTarget"]
  # Both fail the Job for this reason, which the JobSet doesn't count.
  (rule,) = spec["failurePolicy"]["rules"]
  assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
  assert spec["failurePolicy"]["maxRestarts"] == 3 and job["backoffLimit"] == 0


def test_texts_are_texts_for_every_reader_of_yaml():
  """Readers of YAML 1.2 take 1e3 and 0o7 for numbers, those of 1.1 no for false."""
  text = text_of("jobset", GPU, EVIL)
  for value in ("1e3", "no", "1:30", "0o7"):
    assert f'value: "{value}"' in text
  assert text.isascii()


# Prints what a process got.
DUMP = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


def wanted(plan, python="python"):
  given = [f"--config={plan.config}", f"--workdir={plan.workdir}"]
  # Tasks of Slurm start together; other machines may come up one by one.
  given += [] if python != "python" else ["--connect_seconds=3600"]
  return [python, "-m", "sum_l_jax.main", *given, *plan.fields]


def test_pods_get_what_was_given_and_know_who_they_are():
  plan = make("jobset", GPU, EVIL)
  found = []
  for command, variables in launchers.pods(__main__.files(plan, "jobset")["epic55.yaml"]):
    assert command[4] == "python"
    command[4:5] = [sys.executable, "-c", DUMP, "python"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    arguments, environment = json.loads(done.stdout)
    count = len(wanted(plan))
    assert arguments[:count] == wanted(plan)
    found.append(arguments[count:])
    assert environment["TEXT"] == HOSTILE and environment["NUMBER"] == "1e3"
  # Two Jobs of three pods are one job of six.
  assert found == [
    ["--coordinator_address=127.0.0.1", "--num_processes=6", f"--process_id={i}"] for i in range(6)
  ]


def test_pods_on_tpus_get_what_was_given_and_leave_the_rest_to_jax():
  plan = make("jobset", TPU, EVIL)
  found = list(launchers.pods(__main__.files(plan, "jobset")["epic55.yaml"]))
  # 32 chips are eight machines of four.
  assert len(found) == 2 * 8
  for command, variables in found:
    assert command == wanted(plan) and variables["TEXT"] == HOSTILE


def _noted(text, tmp_path, *programs, **variables):
  """Runs a script with programs that note how they are called."""
  script, notes = tmp_path / "script", tmp_path / "notes"
  script.write_text(text, encoding="utf-8")
  environment = {"PATH": launchers.fake_path(tmp_path / "bin", *programs), "NOTES": str(notes)}
  environment |= {"HOME": str(tmp_path), **variables}
  done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True)
  lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
  return done.returncode, [json.loads(line) for line in lines]


@pytest.mark.parametrize("status, requeued", [(0, False), (processes.STOPPED, True), (1, False)])
def test_slurm_gets_what_was_given_and_a_run_that_saved_is_queued_again(status, requeued, tmp_path):
  plan = make("slurm", {"hosts": 2, "gpus": 4}, {**EVIL, "workdir": HOSTILE})
  text = __main__.files(plan, "slurm")["epic55.sbatch"]
  returned, notes = _noted(
    text, tmp_path, "srun", "scontrol", SLURM_JOB_ID="7", STATUS_srun=str(status)
  )
  assert returned == status
  assert notes[0] == ["srun", "--kill-on-bad-exit=1", *wanted(plan, ".venv/bin/python")]
  assert notes[1:] == ([["scontrol", "requeue", "7"]] if requeued else [])
  options = dict(re.findall(r"#SBATCH --([a-z-]+)=(.+)", text))
  assert (options["nodes"], options["gpus-per-node"], options["ntasks-per-node"]) == ("2", "4", "1")
  assert options["signal"] == "TERM@300"


def test_xpk_gets_what_was_given(tmp_path):
  evil = {**EVIL, "environment": ["TEXT=a 'b' $HOME `id` # c"]}
  plan = make("xpk", TPU, evil, {"accelerator": "v5e-32"})
  status, (note,) = _noted(__main__.files(plan, "xpk")["epic55-xpk.sh"], tmp_path, "xpk")
  assert not status and note[:3] == ["xpk", "workload", "create"]
  options = [argument.split("=", 1) for argument in note[3:]]
  assert ["--env", "TEXT=a 'b' $HOME `id` # c"] in options
  given = {name: value for name, *value in options}
  assert given["--tpu-type"] == ["v5litepod-32"] and given["--num-slices"] == ["2"]
  # It is started in a subshell that gets the signal to stop.
  code = f"({given['--command'][0]})".replace("exec python", 'exec "$DUMP" -c "$CODE" python')
  done = subprocess.run(
    ["bash", "-c", code],
    env={"DUMP": sys.executable, "CODE": DUMP},
    capture_output=True,
    text=True,
    check=True,
  )
  assert json.loads(done.stdout)[0] == wanted(plan)


def test_workers_get_what_was_given(tmp_path):
  plan = make("queued_resource", MACHINES, EVIL, {"max_restarts": 2})
  text = __main__.files(plan, "queued_resource")["epic55-start.sh"]
  text = text.replace("/run/sum_l", str(tmp_path / "run")).replace(
    "/var/log/sum_l.log", str(tmp_path / "log")
  )
  programs = ("docker", "gcloud", "sleep")
  status, notes = _noted(text, tmp_path, *programs)
  assert not status, (tmp_path / "log").read_text()
  assert notes[0][:3] == ["gcloud", "auth", "configure-docker"]
  assert notes[1] == ["docker", "pull", plan.image]
  (run,) = (note for note in notes if note[:2] == ["docker", "run"])
  image = run.index(plan.image)
  assert run[image + 1 :] == wanted(plan)
  assert f"--env=TEXT={HOSTILE}" in run[:image] and {"--network=host", "--init"} < set(run[:image])
  assert "--volume=/var/tmp/sum_l:/scratch" in run[:image]


def _starts(text, tmp_path, **variables):
  _, notes = _noted(text, tmp_path, "docker", "gcloud", "sleep", **variables)
  return sum(note[:2] == ["docker", "run"] for note in notes)


def test_workers_start_again_what_did_not_end_well(tmp_path):
  text = text_of("queued_resource", MACHINES, {"max_restarts": 2}, end="start.sh")
  run = tmp_path / "run"
  text = text.replace("/run/sum_l", str(run)).replace("/var/log/sum_l.log", str(tmp_path / "log"))
  text = text.replace("until docker pull", "true || until docker pull")
  assert _starts(text, tmp_path, STATUS_docker="75") == 3
  # `stop` was called meanwhile.
  text = text.replace("  sleep 10\n", f'  touch "{run}/stop"\n')
  (tmp_path / "notes").unlink()
  assert _starts(text, tmp_path, STATUS_docker="75") == 1


def test_gcloud_gets_what_was_given(tmp_path):
  """Flags are those of `gcloud compute tpus queued-resources create`."""
  known = {
    "--project",
    "--zone",
    "--node-id",
    "--node-count",
    "--node-prefix",
    "--accelerator-type",
    "--runtime-version",
    "--scopes",
    "--service-account",
    "--spot",
    "--metadata-from-file",
  }
  for slices, nodes in ((1, ["epic55"]), (2, ["epic55-0", "epic55-1"])):
    folder = tmp_path / str(slices)
    folder.mkdir()
    text = text_of("queued_resource", MACHINES, {"slices": slices}, end="epic55.sh")
    status, (create,) = _noted(f"set -- create\n{text}", folder, "gcloud")
    assert not status
    assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "epic55"]
    flags = [word.partition("=")[0] for word in create[6:]]
    assert set(flags) <= known and len(set(flags)) == len(flags)
    assert ("--node-id" in flags) == (slices == 1) and "--spot" in flags
    (folder / "notes").unlink()
    status, notes = _noted(f"set -- stop\n{text}", folder, "gcloud")
    assert not status and [note[5] for note in notes] == 2 * nodes
    # None starts again while the others still end.
    said = [("touch" in note[-1], "docker stop --time=300" in note[-1]) for note in notes]
    assert said == slices * [(True, False)] + slices * [(False, True)]
    (folder / "notes").unlink()
    assert _noted(text, folder, "gcloud") == (2, [])


def test_machines_that_were_taken_away_are_created_again_until_the_run_is_finished(tmp_path):
  text = text_of("queued_resource", MACHINES, EVIL, end="epic55.sh")
  script = tmp_path / "script"
  script.write_text(text, encoding="utf-8")
  path = launchers.fake_path(tmp_path / "bin", "gcloud", "python", "sleep")
  # What each call of `gcloud ... describe` and of `status` answers, one after the other.
  states = ["ACTIVE", "SUSPENDED", "", "FAILED", "ACTIVE"]
  answers = ["running"] * len(states) + ["finished"]
  launchers.answer(tmp_path / "bin" / "gcloud", tmp_path / "states", states, to="describe")
  statuses = [json.dumps({"state": answer}, indent=1) for answer in answers]
  launchers.answer(tmp_path / "bin" / "python", tmp_path / "statuses", statuses, to="status")
  notes = tmp_path / "notes"
  done = subprocess.run(
    ["bash", script, "keep"],
    env={"PATH": path, "NOTES": str(notes), "HOME": str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert not done.returncode, done.stderr
  calls = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
  asked = [call for call in calls if call[0] == "python"]
  workdir = EVIL["workdir"]
  assert asked == [["python", "-m", "sum_l_jax", "status", workdir, "--json"]] * len(answers)
  did = [call[4] for call in calls if call[0] == "gcloud" and call[4] != "describe"]
  # A request that isn't there is not deleted, nor one whose state can't be had.
  assert did == ["delete", "create", "create", "delete", "create", "delete"]
  assert all("--quiet" in call for call in calls if call[4:5] == ["delete"])


@pytest.mark.parametrize("name", tpu_types.names())
def test_slices_have_as_many_chips_as_their_topology(name):
  tpu = tpu_types.find(name)
  assert math.prod(map(int, tpu.topology.split("x"))) == tpu.chips
  assert tpu.hosts * tpu.chips_per_host == tpu.chips
  assert int(name.rpartition("-")[2]) in (tpu.chips, 2 * tpu.chips)


@pytest.mark.parametrize(
  "name, topology, hosts, label",
  [  # Rows of Google's tables.
    ("v5litepod-32", "4x8", 8, "tpu-v5-lite-podslice"),
    ("v5e-32", "4x8", 8, "tpu-v5-lite-podslice"),
    ("v6e-1", "1x1", 1, "tpu-v6e-slice"),
    ("v6e-256", "16x16", 64, "tpu-v6e-slice"),
    ("v5p-8", "2x2x1", 1, "tpu-v5p-slice"),
    ("v5p-256", "4x4x8", 32, "tpu-v5p-slice"),
    ("v4-32", "2x2x4", 4, "tpu-v4-podslice"),
    ("tpu7x-64", "2x4x4", 8, "tpu7x"),
  ],
)
def test_rows_of_the_tables(name, topology, hosts, label):
  tpu = tpu_types.find(name)
  assert (tpu.topology, tpu.hosts, tpu.label) == (topology, hosts, label)
  number = int(name.rpartition("-")[2])
  # JAX sees the two cores of these as one device.
  devices = number // 2 if name.startswith(("v4", "v5p")) else number
  assert make("jobset", {"accelerator": name}).devices == devices


@pytest.mark.parametrize(
  "kind, values, words",
  [
    ("jobset", {"image": ""}, "needs --image"),
    ("xpk", {**TPU, "cluster": ""}, "needs --cluster"),
    ("slurm", {"name": "Epic 55"}, "--name='Epic 55'"),
    ("slurm", {"name": "a" * 33}, "at most 32"),
    ("slurm", {"hosts": 0}, "--hosts must be at least 1"),
    ("slurm", {"environment": ["A B=1"]}, "NAME=VALUE"),
    ("slurm", {"environment": ["A"]}, "NAME=VALUE"),
    ("slurm", {"workdir": "runs/a\nb"}, "can't be printed"),
    ("slurm", {"slices": 2}, "no --slices"),
    ("slurm", {"time_limit": "1 #"}, "--time_limit must be"),
    ("slurm", TPU, "for GPUs"),
    ("jobset", {"accelerator": "v5litepod-33"}, "has the sizes 1, 4, 8"),
    ("jobset", {"accelerator": "v5litpod-32"}, "did you mean 'v5litepod-32'"),
    ("jobset", {**TPU, "accelerator": "v5litepod-4"}, "Take a larger slice"),
    ("jobset", {**TPU, "hosts": 2}, "--hosts is for GPUs; v5litepod-32 has 8 machines"),
    ("jobset", {**TPU, "workdir": "runs/epic55"}, "lost with it"),
    ("xpk", GPU, "take jobset"),
    ("xpk", {**TPU, "environment": ['A="b"']}, "With xpk"),
    ("queued_resource", GPU, "take jobset"),
    ("queued_resource", TPU, "NAME@PROJECT.iam.gserviceaccount.com"),
    ("jobset", MACHINES, "an account of Kubernetes"),
    ("queued_resource", {"accelerator": "tpu7x-64"}, "don't offer tpu7x-64"),
    ("jobset", {**TPU, "slices": "two"}, "slices"),
  ],
)
def test_plans_that_can_not_be(kind, values, words):
  with pytest.raises(ValueError) as error:
    make(kind, values)
  assert words in str(error.value)


def _call(capsys, *arguments):
  status = __main__.main(list(arguments))
  captured = capsys.readouterr()
  return status, captured.out + captured.err


def test_a_description_is_written_and_read_again(tmp_path, capsys):
  options = [
    "--name=epic55",
    "--config=configs/epic55.py",
    f"--workdir={tmp_path}/run",
    "--config.seed=3",
    "--hosts=2",
    "--environment=A=1",
    "--environment=B=2",
  ]
  status, said = _call(capsys, "slurm", *options, f"--output={tmp_path}/a")
  assert not status and f"Next: sbatch {tmp_path}/a/epic55.sbatch" in said, said
  status, said = _call(
    capsys,
    "slurm",
    f"--from={tmp_path}/a/epic55.json",
    "--hosts=4",
    "--config.seed=5",
    "--config.precision=bfloat16",
    f"--output={tmp_path}/b",
  )
  assert not status, said
  first, second = (
    launch_plan.make(launch_plan.read((tmp_path / n / "epic55.json").read_text()), "slurm")
    for n in "ab"
  )
  assert second == dataclasses.replace(
    first, hosts=4, fields=("--config.seed=5", "--config.precision=bfloat16")
  )
  assert first.environment == ("A=1", "B=2") and first.hosts == 2


@pytest.mark.parametrize(
  "more, words",
  [
    (["--config.sed=1"], "seed"),
    (["--config.seed=x"], "seed"),
    (["--hosts=3"], "batch_size must be a multiple of the 24 devices, got 64"),
    (["--config.joint_stage.batch_size=12"], "the 8 devices, got 12"),
    (["--from=FILE"], "plan.json' is no description of a launch: unknown key 'host' (did"),
    (["--from=OTHER"], "got `str` - at `$.hosts`"),
    (["--from=nothing.json"], "--from: there is no 'nothing.json'"),
    (["--nodes=2"], "unrecognized arguments: --nodes=2"),
  ],
)
def test_mistakes_are_found_before_anything_is_written(more, words, tmp_path, capsys):
  (tmp_path / "plan.json").write_text('{"host": 2}', encoding="utf-8")
  (tmp_path / "other.json").write_text('{"hosts": "two"}', encoding="utf-8")
  for word, name in (("FILE", "plan.json"), ("OTHER", "other.json")):
    more = [option.replace(word, str(tmp_path / name)) for option in more]
  plain = ["--name=a", "--config=configs/epic55.py", "--workdir=b", f"--output={tmp_path}/out"]
  with contextlib.suppress(SystemExit):
    assert __main__.main(["slurm", *plain, *more]) == 2
  assert words in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


def test_a_config_of_the_image_alone_is_said_to_be_unchecked(tmp_path, capsys):
  options = ["--name=a", "--config=/image/own.py", "--workdir=b", f"--output={tmp_path}"]
  status, said = _call(capsys, "slurm", *options)
  assert not status and "There is no /image/own.py here" in said
