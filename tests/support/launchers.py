"""What starts processes elsewhere, played on this machine: Kubernetes and Slurm."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
import pathlib
import re
import sys
from typing import Any

import yaml


def expand(text: str, variables: Mapping[str, str]) -> str:
  """Replaces $(NAME) and $$ in a command or variable, as Kubernetes documents it.

  >>> expand("$(A) $(B) $$(A) $$ $A", {"A": "1"})
  '1 $(B) $(A) $ $A'
  """

  def replace(found: re.Match[str]) -> str:
    return "$" if found[0] == "$$" else variables.get(found[1], found[0])

  return re.sub(r"\$\$|\$\(([^)]*)\)", replace, text)


def pods(text: str) -> Iterator[tuple[list[str], dict[str, str]]]:
  """The command and the variables of each pod of a JobSet.

  Those that an indexed Job sets are among them. The names of pods lead to this
  machine.
  """
  jobset = yaml.safe_load(text)
  name = jobset["metadata"]["name"]
  for replicated in jobset["spec"]["replicatedJobs"]:
    for job in range(replicated["replicas"]):
      spec = replicated["template"]["spec"]
      assert spec["completionMode"] == "Indexed"
      assert spec["completions"] == spec["parallelism"]
      (container,) = spec["template"]["spec"]["containers"]
      for index in range(spec["completions"]):
        annotations = {"jobset.sigs.k8s.io/job-index": str(job)}
        variables = {
          "JOB_COMPLETION_INDEX": str(index),
          "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        }
        for one in container["env"]:
          value = _value(one, annotations, variables)
          # The headless service of the JobSet has its name.
          first = f"{name}-{replicated['name']}-0-0.{name}"
          variables[one["name"]] = "127.0.0.1" if value == first else value
        words = container["command"] + container.get("args", [])
        yield [expand(word, variables) for word in words], variables


def _value(one: Mapping[str, Any], annotations: Mapping[str, str], variables) -> str:
  if "value" in one:
    return expand(one["value"], variables)
  path = one["valueFrom"]["fieldRef"]["fieldPath"]
  return annotations[re.fullmatch(r"metadata\.annotations\['(.+)'\]", path)[1]]


# `srun` for tasks of this machine: sets what Slurm sets in each.
_SRUN = """\
import os, subprocess, sys
count = int(os.environ["TASKS"])
command = sys.argv[1:]
while command[0].startswith("--"):
  command = command[1:]
step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": str(count)}
step["SLURM_STEP_TASKS_PER_NODE"] = f"1(x{count})"
own = {**os.environ, **step, "SLURM_LOCALID": "0"}
tasks = []
for i in range(count):
  with open(os.path.join(os.environ["LOGS"], f"task{i}.log"), "w") as log:
    environment = {**own, "SLURM_PROCID": str(i)}
    tasks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
sys.exit(max(task.wait() for task in tasks))
"""
# Writes down how it was called.
_NOTE = """\
import json, os, sys
with open(os.environ["NOTES"], "a") as file:
  file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
sys.exit(int(os.environ.get("STATUS_" + os.path.basename(sys.argv[0]), "0")))
"""


# Answers one kind of call with the next line of a file of JSON.
_ANSWER = """\
import json, sys
if {to!r} in sys.argv:
  with open({answers!r}) as file:
    first, *rest = file.read().splitlines()
  with open({answers!r}, "w") as file:
    file.write("\\n".join(rest))
  print(json.loads(first))
"""


def answer(program: pathlib.Path, file: pathlib.Path, answers: Sequence[str], *, to: str) -> None:
  """Makes a program of `fake_path` answer calls that have a word.

  Args:
    program: the program.
    file: file for the answers that are left.
    answers: one for each call.
    to: the word.
  """
  file.write_text("\n".join(map(json.dumps, answers)), encoding="utf-8")
  _write(program, _ANSWER.format(to=to, answers=str(file)) + _NOTE)


def _write(path: pathlib.Path, code: str) -> None:
  path.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
  path.chmod(0o755)


def fake_path(folder: pathlib.Path, *noted: str, srun: bool = False) -> str:
  """Makes programs that aren't here, and returns a PATH that begins with them.

  Args:
    folder: where to make them.
    *noted: names of programs that only append their arguments to $NOTES.
    srun: whether to make an `srun` that starts $TASKS tasks here, which write to
      $LOGS/task0.log and so on.
  """
  folder.mkdir(exist_ok=True)
  for name in noted:
    _write(folder / name, _NOTE)
  if srun:
    _write(folder / "srun", _SRUN)
  return f"{folder}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
