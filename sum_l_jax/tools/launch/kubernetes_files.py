"""A JobSet of Kubernetes: pods on TPUs or GPUs that train as one job.

Pods on GPUs are told outright who they are. On TPUs, JAX finds out from the
variables that Kubernetes Engine sets. Neither needs any right in the cluster.
"""

from __future__ import annotations

from typing import Any
from typing import ClassVar

import yaml

from sum_l_jax.system import processes
from sum_l_jax.tools.launch import launch_plan

_JOB = "worker"
_CONTAINER = "train"
# Machines may come up one by one.
_CONNECT_SECONDS = 3600
# Each pod's number is that of its Job times the pods of a Job, plus its own.
# `exec`, so that the signal to stop arrives.
_WHO = (
  'exec "$@" --coordinator_address="$COORDINATOR"'
  ' --num_processes="$((JOBS * PODS))" --process_id="$((JOB_INDEX * PODS + JOB_COMPLETION_INDEX))"'
)


class _Key(str):
  """A key of a dict: a name of Kubernetes, which needs no quotes."""


def _quoted(dumper: yaml.representer.BaseRepresenter, text: str) -> yaml.Node:
  return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


def _plain(dumper: yaml.representer.BaseRepresenter, text: str) -> yaml.Node:
  return dumper.represent_scalar("tag:yaml.org,2002:str", str(text))


class _Dumper(yaml.SafeDumper):
  """Quotes all texts: readers of YAML disagree on 1e3, 0o7, 1:30, no and y."""

  yaml_representers: ClassVar[dict[Any, Any]] = {
    **yaml.SafeDumper.yaml_representers,
    str: _quoted,
    _Key: _plain,
  }


def _with_plain_keys(value: Any) -> Any:
  if isinstance(value, dict):
    return {_Key(key): _with_plain_keys(item) for key, item in value.items()}
  return [_with_plain_keys(item) for item in value] if isinstance(value, list) else value


def _literal(text: str) -> str:
  """The text as it must be written where Kubernetes replaces $(NAME)."""
  return text.replace("$", "$$")


def _variable(name: str, value: str) -> dict[str, Any]:
  return {"name": name, "value": _literal(value)}


def _who_am_i(plan: launch_plan.Plan) -> list[dict[str, Any]]:
  """Variables that `_WHO` reads; an indexed Job sets JOB_COMPLETION_INDEX itself."""
  index = "metadata.annotations['jobset.sigs.k8s.io/job-index']"
  return [
    _variable("COORDINATOR", f"{plan.name}-{_JOB}-0-0.{plan.name}"),
    _variable("JOBS", str(plan.slices)),
    _variable("PODS", str(plan.hosts)),
    {"name": "JOB_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}},
  ]


def _probes(plan: launch_plan.Plan) -> dict[str, Any]:
  """Probes that end a pod whose training hangs: it doesn't die by itself.

  They read what process 0 writes into the workdir, so all pods say the same. The
  first one waits until this start of the run has written something.
  """
  if not plan.stall_seconds:
    return {}
  command = [_literal(text) for text in plan.status()]
  probe = {"exec": {"command": [*command, f"--max_age={plan.stall_seconds}"]}, "timeoutSeconds": 60}
  # Waiting for the others, reading the checkpoint and compiling.
  start = 2 * _CONNECT_SECONDS // 60
  return {
    "startupProbe": {**probe, "periodSeconds": 60, "failureThreshold": start},
    "livenessProbe": {**probe, "periodSeconds": 300, "failureThreshold": 3},
  }


def _container(plan: launch_plan.Plan) -> dict[str, Any]:
  tpu = plan.tpu
  variables = [_variable(name, value) for name, value in plan.variables().items()]
  command = [_literal(text) for text in plan.command(connect_seconds=_CONNECT_SECONDS)]
  if tpu:
    started: dict[str, Any] = {"command": command}
    devices = {"google.com/tpu": tpu.chips_per_host}
  else:
    variables += _who_am_i(plan)
    started = {"command": ["sh", "-c", _literal(_WHO), "sh"], "args": command}
    devices = {"nvidia.com/gpu": plan.gpus}
  return {
    "name": _CONTAINER,
    "image": plan.image,
    **started,
    "env": variables,
    "resources": {"limits": devices},
    **_probes(plan),
    # The processes that read clips hand them over in shared memory; copies of
    # shards have a place on the local disk.
    "volumeMounts": [
      {"name": "shm", "mountPath": "/dev/shm"},
      {"name": "scratch", "mountPath": launch_plan.SCRATCH},
    ],
  }


def _pod(plan: launch_plan.Plan) -> dict[str, Any]:
  tpu = plan.tpu
  selector = {}
  tolerations = [{"key": "google.com/tpu" if tpu else "nvidia.com/gpu", "operator": "Exists"}]
  if tpu:
    selector["cloud.google.com/gke-tpu-accelerator"] = tpu.label
    selector["cloud.google.com/gke-tpu-topology"] = tpu.topology
  elif plan.accelerator.startswith("nvidia-"):
    selector["cloud.google.com/gke-accelerator"] = plan.accelerator
  if plan.spot:
    selector["cloud.google.com/gke-spot"] = "true"
    tolerations.append({"key": "cloud.google.com/gke-spot", "operator": "Exists"})
  return {
    "restartPolicy": "Never",
    # The first process of a namespace doesn't die of a signal that it doesn't
    # handle yet; with this, the training is not the first one.
    "shareProcessNamespace": True,
    "terminationGracePeriodSeconds": plan.grace_seconds,
    **({"serviceAccountName": plan.service_account} if plan.service_account else {}),
    **({"nodeSelector": selector} if selector else {}),
    "tolerations": tolerations,
    "containers": [_container(plan)],
    "volumes": [
      {"name": "shm", "emptyDir": {"medium": "Memory"}},
      {"name": "scratch", "emptyDir": {}},
    ],
  }


def _job(plan: launch_plan.Plan) -> dict[str, Any]:
  """One Job: a slice of TPUs, or a group of machines with GPUs."""
  pods = plan.tpu.hosts if plan.tpu else plan.hosts
  return {
    "parallelism": pods,
    "completions": pods,
    "completionMode": "Indexed",
    # One pod that ends takes the others with it; all are made again together.
    "backoffLimit": 0,
    "podFailurePolicy": {
      "rules": [
        {
          "action": "FailJob",
          "onExitCodes": {
            "containerName": _CONTAINER,
            "operator": "In",
            "values": [processes.STOPPED],
          },
        },
        {
          "action": "FailJob",
          "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
      ]
    },
    "template": {"spec": _pod(plan)},
  }


def jobset(plan: launch_plan.Plan) -> str:
  """Makes the YAML of a JobSet.

  A run that ends with status 75 has saved because it was asked to stop; it and a
  pod that was taken away are started again without end. Other ends count
  towards `max_restarts`.
  """
  metadata: dict[str, Any] = {"name": plan.name}
  if plan.queue:
    metadata["labels"] = {"kueue.x-k8s.io/queue-name": plan.queue}
  if plan.tpu:
    # All pods of a slice belong on the machines of one slice.
    metadata["annotations"] = {
      "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }
  value = {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": metadata,
    "spec": {
      "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
      "failurePolicy": {
        "maxRestarts": plan.max_restarts,
        # The old process 0 is gone before a new one takes the workdir.
        "restartStrategy": "BlockingRecreate",
        "rules": [
          {
            "name": "stoppedOrTakenAway",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
          }
        ],
      },
      "replicatedJobs": [{"name": _JOB, "replicas": plan.slices, "template": {"spec": _job(plan)}}],
    },
  }
  text = yaml.dump(
    _with_plain_keys(value), Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=False
  )
  return _head(plan) + text


def _head(plan: launch_plan.Plan) -> str:
  """Comments about what the cluster must have."""
  lines = ["kubectl apply -f this file. The cluster needs the JobSet controller, 0.7 or newer, and"]
  if plan.tpu:
    lines.append(
      f"{plan.slices} node pool(s) of {plan.tpu.hosts} {plan.tpu.machine} with --tpu-topology="
      f"{plan.tpu.topology}{' --spot' if plan.spot else ''}."
    )
  else:
    lines.append(f"{plan.slices * plan.hosts} machine(s) with {plan.gpus} GPUs each.")
  return "".join(f"# {line}\n" for line in lines)
