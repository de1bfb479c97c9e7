"""Shell scripts that start a run: on Cloud TPU machines, through XPK, under Slurm."""

from __future__ import annotations

from collections.abc import Sequence
import re
import shlex

from sum_l_jax.system import processes
from sum_l_jax.tools.launch import launch_plan

# Machines may come up one by one.
_CONNECT_SECONDS = 3600


def _join(first: str, options: Sequence[str], indent: str) -> str:
  """A command for a shell: its first words, and an option a line, quoted."""
  return f" \\\n{indent}".join([first, *map(shlex.quote, options)])


def _training(command: Sequence[str], indent: str) -> str:
  """The command of each process, for a shell."""
  return _join(shlex.join(command[:3]), command[3:], indent)


def _exports(plan: launch_plan.Plan) -> str:
  return "".join(
    f"export {name}={shlex.quote(value)}\n" for name, value in plan.variables().items()
  )


def _fill(template: str, **values: object) -> str:
  """Puts values in place of @NAME@; the dollar is the shell's own."""
  return re.sub(r"@([A-Z]+)@", lambda found: str(values[found[1]]), template)


_SLURM = """\
#!/bin/bash
#SBATCH --job-name=@NAME@
#SBATCH --nodes=@HOSTS@
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=@GPUS@
@CPUS@#SBATCH --time=@TIME@
#SBATCH --signal=TERM@@GRACE@
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=@NAME@-%j.log

@EXPORTS@srun --kill-on-bad-exit=1 \\
  @COMMAND@
status=$?
# The run has saved because it was asked to stop: it goes on from there.
if [ "$status" = @STOPPED@ ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def slurm(plan: launch_plan.Plan) -> str:
  """Makes a script for `sbatch`: one task on each machine, with all of its GPUs."""
  return _fill(
    _SLURM,
    NAME=plan.name,
    HOSTS=plan.hosts,
    GPUS=plan.gpus,
    CPUS=f"#SBATCH --cpus-per-task={plan.cpus}\n" if plan.cpus else "",
    TIME=plan.time_limit,
    GRACE=plan.grace_seconds,
    EXPORTS=_exports(plan),
    COMMAND=_training(plan.command(plan.python), "    "),
    STOPPED=processes.STOPPED,
  )


def xpk(plan: launch_plan.Plan) -> str:
  """Makes the command of XPK.

  XPK starts the command in a subshell and sends it the signal to stop; with
  `exec`, the training is that subshell. It fails the job at any status that it
  isn't told of.
  """
  tpu = plan.tpu
  assert tpu is not None
  options = [
    f"--workload={plan.name}",
    f"--project={plan.project}",
    f"--zone={plan.zone}",
    f"--cluster={plan.cluster}",
    f"--tpu-type={tpu.name}",
    f"--num-slices={plan.slices}",
    f"--docker-image={plan.image}",
    f"--max-restarts={plan.max_restarts}",
    f"--restart-on-exit-codes=1,2,{processes.STOPPED}",
    f"--termination-grace-period-seconds={plan.grace_seconds}",
    *(["--spot"] if plan.spot else []),
    *(f"--env={name}={value}" for name, value in plan.variables().items()),
    f"--command=exec {shlex.join(plan.command(connect_seconds=_CONNECT_SECONDS))}",
  ]
  return f"#!/bin/sh\n{_join('xpk workload create', options, '  ')}\n"


_START = """\
#!/bin/bash
# Runs on every worker, as root, whenever its machine starts.
set -u
export HOME=/root
mkdir -p /run/sum_l
# A second call, by `start`, waits for the first one to end.
exec 9> /run/sum_l/lock && flock 9
exec >> /var/log/sum_l.log 2>&1
rm -f /run/sum_l/stop
image=@IMAGE@
@LOGIN@until docker pull "$image"; do sleep 10; done
for restart in $(seq 0 @RESTARTS@); do
  docker rm --force sum_l > /dev/null 2>&1
  echo "start $restart"
  docker run --name=sum_l --init --privileged --network=host --shm-size=16g \\
    --stop-timeout=@GRACE@ --volume=/var/tmp/sum_l:@SCRATCH@ \\
    @VARIABLES@"$image" \\
    @COMMAND@
  status=$?
  echo "status $status"
  if [ "$status" = 0 ]; then
    break
  fi
  sleep 10
  if [ -e /run/sum_l/stop ]; then
    break
  fi
done
"""

_CONTROL = """\
#!/bin/bash
# bash @FILE@ create | keep | state | log | stop | start | delete
set -euo pipefail
where=(--project=@PROJECT@ --zone=@ZONE@)
workers=(--worker=all)
request=@NAME@
nodes=(@NODES@)

on_each() {
  local node
  for node in "${nodes[@]}"; do
    gcloud compute tpus tpu-vm ssh "$node" "${where[@]}" "${workers[@]}" --command="$1"
  done
}

case "${1:-}" in
  create)
    gcloud compute tpus queued-resources create "$request" "${where[@]}" \\
      @CREATE@ \\
      --metadata-from-file=startup-script="$(dirname "$0")"/@START@
    ;;
  keep) # Creates them again when they were taken away, and deletes them at the end.
    until @STATUS@ --json | grep -q '"state": "finished"'; do
      case "$(bash "$0" state || true)" in
        SUSPENDED | FAILED)
          bash "$0" delete --quiet || true
          bash "$0" create || true
          ;;
        "") bash "$0" create || true ;;
      esac
      sleep 300
    done
    bash "$0" delete --quiet
    ;;
  state)
    gcloud compute tpus queued-resources describe "$request" "${where[@]}" \\
      --format='value(state.state)'
    ;;
  log)
    workers=(--worker=0)
    on_each 'tail -n 100 /var/log/sum_l.log'
    ;;
  stop) # Saves on all workers. The machines stay, and cost money.
    # All workers end together, and none of them may start again.
    on_each 'sudo touch /run/sum_l/stop'
    on_each 'sudo docker stop --time=@GRACE@ sum_l'
    ;;
  start)
    on_each 'sudo nohup google_metadata_script_runner startup > /dev/null 2>&1 < /dev/null &'
    ;;
  delete) # The machines too.
    gcloud compute tpus queued-resources delete "$request" "${where[@]}" --force "${@:2}"
    ;;
  *)
    sed -n 's/^# //p;2q' "$0" >&2
    exit 2
    ;;
esac
"""


def queued_resource(plan: launch_plan.Plan) -> tuple[str, str]:
  """Makes two scripts for TPU machines that Google Cloud gives when it has some.

  Returns:
    The script that one calls, and the one that each worker runs when it starts.
  """
  tpu = plan.tpu
  assert tpu is not None
  several = plan.slices > 1
  nodes = [f"{plan.name}-{i}" for i in range(plan.slices)] if several else [plan.name]
  create = [
    *(
      [f"--node-count={plan.slices}", f"--node-prefix={plan.name}"]
      if several
      else [f"--node-id={plan.name}"]
    ),
    f"--accelerator-type={tpu.name}",
    f"--runtime-version={tpu.runtime}",
    "--scopes=https://www.googleapis.com/auth/cloud-platform",
    *([f"--service-account={plan.service_account}"] if plan.service_account else []),
    *(["--spot"] if plan.spot else []),
  ]
  control = _fill(
    _CONTROL,
    FILE=f"{plan.name}.sh",
    PROJECT=shlex.quote(plan.project),
    ZONE=shlex.quote(plan.zone),
    NAME=plan.name,
    NODES=" ".join(nodes),
    STATUS=shlex.join(plan.status()),
    CREATE=_join(create[0], create[1:], "      "),
    START=f"{plan.name}-start.sh",
    GRACE=plan.grace_seconds,
  )
  host = plan.image.partition("/")[0]
  login = ""
  if re.fullmatch(r"[a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io", host):
    login = f"gcloud auth configure-docker {host} --quiet\n"
  start = _fill(
    _START,
    IMAGE=shlex.quote(plan.image),
    LOGIN=login,
    RESTARTS=plan.max_restarts,
    GRACE=plan.grace_seconds,
    SCRATCH=launch_plan.SCRATCH,
    VARIABLES="".join(
      f"--env={shlex.quote(f'{name}={value}')} \\\n    " for name, value in plan.variables().items()
    ),
    COMMAND=_training(plan.command(connect_seconds=_CONNECT_SECONDS), "      "),
  )
  return control, start
