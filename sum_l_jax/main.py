"""Trains and evaluates SUM-L.

  python -m sum_l_jax.main --config=configs/demo.py --workdir=runs/demo
  python -m sum_l_jax.main --config=configs/epic55.py:method=fpv_only \
      --workdir=runs/fpv --config.ego.dataset=data/epic55 --config.seed=1

The same command again resumes where it stopped, and so does --workdir alone:

  python -m sum_l_jax.main --workdir=runs/demo
  python -m sum_l_jax.main --workdir=runs/demo --mode=eval
  python -m sum_l_jax.main --workdir=runs/demo --config.joint_stage.total="400 steps"

The last one extends a run. SIGTERM and Ctrl-C let a training finish its step and save;
the exit status is then 75.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import re
import shlex
import sys
import time
import traceback
from typing import TYPE_CHECKING
from typing import Any
from typing import NoReturn

from absl import app
from absl import flags
import absl.logging
from etils import epath
from ml_collections import config_flags

from sum_l_jax.config import extension
from sum_l_jax.config import field_names
from sum_l_jax.config import read
from sum_l_jax.config import starting_weights
from sum_l_jax.config import typed_arguments
from sum_l_jax.config.schema import JOINT_STAGE
from sum_l_jax.config.schema import Settings
from sum_l_jax.system import addresses
from sum_l_jax.system import commands
from sum_l_jax.system import compile_cache
from sum_l_jax.system import extras
from sum_l_jax.system import lease
from sum_l_jax.system import library_noise
from sum_l_jax.system import memory_errors
from sum_l_jax.system import multihost
from sum_l_jax.system import peers
from sum_l_jax.system import platform_errors
from sum_l_jax.system import processes
from sum_l_jax.system import retries
from sum_l_jax.system import run_files
from sum_l_jax.system import storage
from sum_l_jax.system import storage_errors
from sum_l_jax.system import text_cleaning

if TYPE_CHECKING:
  import jax

  from sum_l_jax.experiment import profile_window
  from sum_l_jax.experiment import run_status

# jax and what stands on it are imported after the flags are read: `--help`
# stays quick, and XLA's flags can still be set.

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Config file, e.g. configs/epic55.py:method=sum_l, or the workdir of a run, for its settings."
  " Without it, the settings are those that --workdir holds.",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of checkpoints, logged numbers and result.json."
)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "eval"],
  "train: train (or resume), then evaluate. eval: evaluate a checkpoint.",
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint",
  "",
  "With --mode=eval: a workdir, checkpoint folder or .npz file to evaluate"
  " in place of the workdir's own; WORKDIR/best is its best checkpoint.",
)
_MULTIHOST = flags.DEFINE_enum(
  "multihost",
  "auto",
  multihost.MODES,
  "Connect with the processes of other hosts: auto does on TPU pods, under"
  " Slurm and Open MPI 4, with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and"
  " JAX_PROCESS_ID in the environment, and with the next flags.",
)
_COORDINATOR = flags.DEFINE_string("coordinator_address", "", "Host of process 0, or host:port.")
_PORT = flags.DEFINE_integer(
  "coordinator_port", multihost.PORT, "Port of process 0; the next one is used too."
)
_PROCESSES = flags.DEFINE_integer("num_processes", 0, "Number of processes of the whole run.")
_PROCESS = flags.DEFINE_integer("process_id", -1, "Number of this process, from 0.")
_CONNECT_SECONDS = flags.DEFINE_integer(
  "connect_seconds", 300, "How long to wait for the other processes at the start.", lower_bound=1
)
_PROFILE = flags.DEFINE_string(
  "profile",
  "",
  "Record these steps with JAX's profiler: FIRST:LAST, counted from 0, or STAGE:FIRST:LAST where"
  " the stage isn't the last one (docs/performance.md).",
)
_PROFILE_HOSTS = flags.DEFINE_enum(
  "profile_hosts", "first", ["first", "all"], "Whether process 0 records, or every process."
)
_VERBOSE = flags.DEFINE_bool(
  "verbose",
  False,
  "Show what libraries log and what XLA advises; without it that is shown after an error.",
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show the stack trace of an error in the input.")

_HELP = ("h", "help", "helpshort", "helpfull", "?")
_OURS = ("sum_l_jax", "data_prep")


def _check_start(settings: Settings) -> None:
  """Refuses a start that the config's names exclude, and warns of a random one."""
  # A table of names; the offline scripts behind it are not imported.
  from data_prep.published_weights import choices

  warning = starting_weights.check(settings, choices.OPTIONS)
  if warning:
    absl.logging.warning("%s", warning)


def _say_left_out(config: read.Config, settings: Settings) -> None:
  """Says which stage of a config is not run, and why."""
  stages: Any = config.stages
  whole = dataclasses.replace(settings, stages=tuple(stages))
  if whole.stages != settings.stages:
    absl.logging.info(
      "Stage one (exo) is not needed and is left out: the joint stage takes nothing from it, since"
      " %s.",
      read.why_no_exo_stage(whole),
    )


def _make_workdir(workdir: epath.Path) -> None:
  try:
    # A folder that can't be written to should end a run before it has learnt.
    storage.check_writable(workdir)
  except Exception as error:
    advice = storage_errors.advice(error)
    if not (advice or isinstance(error, OSError)):
      raise
    way_out = advice or f"{error}. Make space, or give a folder that can."
    raise ValueError(f"--workdir={str(workdir)!r} can't be written to: {way_out}") from error


@contextlib.contextmanager
def _alone_in(workdir: epath.Path, what: str) -> Iterator[None]:
  """Holds the lease on the workdir; process 0 takes it for all.

  Raises:
    ValueError: another run holds it, or a process sees another workdir than
      process 0.
  """
  import jax

  held: list[lease.Lease] = []

  def take() -> str:
    try:
      held.append(lease.take(workdir, what=what, lost=_lost))
    except OSError as error:
      raise ValueError(f"The lease on {str(workdir)!r} can't be taken ({error}).") from error
    return held[0].nonce

  nonce = peers.from_first(take)
  try:
    if jax.process_index() > 0 and not lease.is_seen(workdir, nonce):
      raise ValueError(
        f"--workdir={str(workdir)!r} is not the folder that process 0 sees under this name. All"
        " processes must see the workdir in one shared folder, under the same path."
      )
    yield
  finally:
    for one in held:
      one.close()


def _lost(error: lease.LostError) -> None:
  # The other threads go on until all processes know it.
  storage.refuse_writes(error)
  others = peers.known()
  if others:
    others.end(str(error), 2)
  lease.end_process(error)


def _prepare_data(settings: Settings) -> None:
  """Builds the data of `config.prepare` where it is absent."""
  if not settings.prepare.recipe:
    return
  import jax

  # Offline work, which a run without a recipe does not import.
  from data_prep.toy_kitchen import recipes

  if jax.process_index() == 0:
    recipes.prepare(
      settings.prepare.recipe, epath.Path(settings.prepare.directory), seed=settings.prepare.seed
    )
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("data prepared")


def _start(settings: Settings) -> jax.sharding.Mesh:
  """Starts JAX: its compilation cache and the mesh of all devices."""
  import jax

  from sum_l_jax import build

  if reason := compile_cache.use(settings.storage.compilation_cache):
    absl.logging.warning("%s", reason)
  mesh = build.make_mesh(settings)
  multihost.meet()
  platform_errors.check(mesh.devices.flat[0].platform)
  gpus, tpu = bool(multihost.count_gpus(os.environ)), multihost.has_tpu()
  on_processor = mesh.devices.flat[0].platform == "cpu"
  if (gpus or tpu) and on_processor and "JAX_PLATFORMS" not in os.environ:
    absl.logging.warning("%s", platform_errors.unused(gpus=gpus, tpu=tpu))
  absl.logging.info(
    "process %d of %d, devices: %s", jax.process_index(), jax.process_count(), mesh.devices.tolist()
  )
  return mesh


def _train(
  settings: Settings,
  workdir: epath.Path,
  mesh: jax.sharding.Mesh,
  window: profile_window.Window | None,
  status: run_status.RunStatus,
  begins: Callable[[], None],
) -> bool:
  """Runs the stages in order; False where `stop_at` ended one early.

  `begins` is called once nothing refuses to go on with these settings.
  """
  import jax

  from sum_l_jax import build
  from sum_l_jax import build_data
  from sum_l_jax.experiment import best_watch
  from sum_l_jax.experiment import loop
  from sum_l_jax.experiment import run_findings

  if window:  # Before hours of another stage.
    window.check_end(loop.end_of(build.Trainer.open(settings, window.stage, mesh)))
  found = run_findings.examine(settings)
  if jax.process_index() == 0:
    run_findings.tell(found, workdir)
  settings = build_data.without_idle_stage(settings)
  best_watch.check(settings)
  for stage in settings.stages:
    start = time.monotonic()
    result = loop.train_stage(
      settings,
      stage,
      workdir=workdir,
      mesh=mesh,
      profile=window,
      status=status,
      begins=begins,
    )
    absl.logging.info("%s: at step %d after %.0f s", stage, result.step, time.monotonic() - start)
    if not result.finished:
      begins()
      absl.logging.info(
        "Stopped at step %d of stage %r as config.stop_at asks; the same"
        " command without it resumes.",
        result.step,
        stage,
      )
      status.stopped()
      return False
  begins()
  return True


def _read_window(
  settings: Settings, mode: str, text: str, hosts: str
) -> profile_window.Window | None:
  """Reads --profile, before anything takes long."""
  from sum_l_jax.experiment import profile_window

  if text and mode != "train":
    raise ValueError(f"--profile records steps of a training; it can't be had with --mode={mode}.")
  return profile_window.parse(text, settings.stages, hosts)


def run(
  config: read.Config,
  workdir: addresses.PathLike,
  *,
  mode: str = "train",
  checkpoint: str = "",
  command: str = "",
  profile: str = "",
  profile_hosts: str = "first",
  began: float | None = None,
) -> str:
  """Goes the whole way, from a config to `result.json`.

  Args:
    config: config as a config file makes it.
    workdir: folder of checkpoints, logged numbers and results.
    mode: "train" trains or resumes, then evaluates; "eval" only evaluates.
    checkpoint: what "eval" evaluates instead of the workdir's own checkpoint.
    command: the command that started this run, for the records.
    profile: which steps are recorded; see `experiment.profile_window.parse`.
    profile_hosts: "first" or "all", which processes record.
    began: moment at which this process began, seconds since 1970; None is now.

  Returns:
    The table, or "" where there is nothing to evaluate (a run that stopped
    early, or one of the exo stage alone).

  Raises:
    ValueError, FileNotFoundError: what a user can mend.
  """
  from sum_l_jax import build
  from sum_l_jax.experiment import run_settings

  workdir = addresses.path(workdir, what="--workdir")
  addresses.check(str(checkpoint), what="--checkpoint")
  settings = build.resolve(config)
  if settings.storage.patience_seconds:
    retries.set_patience(settings.storage.patience_seconds)
  window = _read_window(settings, mode, profile, profile_hosts)
  if mode == "train":
    _check_start(settings)
    _say_left_out(config, settings)
  if mode == "eval" and not (checkpoint or storage.exists(workdir)):
    raise FileNotFoundError(
      f"--mode=eval: there is no workdir {str(workdir)!r}. Give the workdir"
      " of a trained run, or --checkpoint."
    )
  if mode == "eval" and not settings.eval.splits:
    raise ValueError(
      "config.eval.splits is empty, so that there is nothing to evaluate. Name splits of the ego"
      " data set, such as --config.eval.splits=\"('validation',)\"."
    )
  _make_workdir(workdir)
  mesh = _start(settings)
  extensions: list[extension.Extension] = []
  with _alone_in(workdir, command or f"sum_l_jax.main.run, mode {mode!r}"):
    if mode == "train":
      # A command that is refused here is no start of the run that is there.
      extensions = run_settings.check(workdir, settings)
    run_settings.say_differences(workdir, settings)
    with _status(workdir if mode == "train" else None, mesh, began) as status, _trackers():
      return _run(
        settings,
        workdir,
        mesh,
        mode=mode,
        checkpoint=checkpoint,
        command=command,
        window=window,
        status=status,
        extensions=extensions,
      )


@contextlib.contextmanager
def _trackers() -> Iterator[None]:
  """Ends what was begun at Weights & Biases, however the work ends."""
  from sum_l_jax.train import wandb_writer

  failed = True
  try:
    yield
    failed = False
  finally:
    wandb_writer.close_all(failed=failed)


def _status(
  workdir: epath.Path | None, mesh: jax.sharding.Mesh, began: float | None
) -> run_status.RunStatus:
  """What says how the run goes: process 0 writes it, for a training."""
  import jax

  from sum_l_jax.experiment import run_status
  from sum_l_jax.system import interrupt

  return run_status.RunStatus(
    workdir if jax.process_index() == 0 else None,
    began=began,
    hosts=jax.process_count(),
    devices=f"{mesh.size} ({mesh.devices.flat[0].device_kind})",
    asked=interrupt.asked_at,
  )


def _run(
  settings: Settings,
  workdir: epath.Path,
  mesh: jax.sharding.Mesh,
  *,
  mode: str,
  checkpoint: str,
  command: str,
  window: profile_window.Window | None,
  status: run_status.RunStatus,
  extensions: list[extension.Extension],
) -> str:
  """Does the work of `run` in a workdir that is this run's own."""
  import jax

  from sum_l_jax.experiment import final
  from sum_l_jax.experiment import goodput
  from sum_l_jax.experiment import run_settings
  from sum_l_jax.experiment import run_starts
  from sum_l_jax.train import wandb_writer

  _prepare_data(settings)
  if peers.joined():
    from sum_l_jax.experiment import host_statement

    peers.compare(host_statement.make(settings, mode=mode, checkpoint=checkpoint))
  if mode == "train":

    @functools.cache
    def begins() -> None:
      # Not before: --workdir alone would go on with what was refused.
      if jax.process_index() == 0:
        run_settings.write(workdir, settings, extensions)
        if command:
          storage.write_text(workdir / run_files.COMMAND, command + "\n")
        run_starts.record(workdir, command=command, mesh=mesh)

    if not _train(settings, workdir, mesh, window, status, begins):
      return ""
  table = ""
  if JOINT_STAGE in settings.stages:
    from sum_l_jax.checkpoint import weight_files

    source = checkpoint or workdir
    if not checkpoint and settings.eval.checkpoint == "best":
      source = workdir / weight_files.BEST
    with status.clock.within(goodput.EVALUATING):
      table = final.evaluate_checkpoint(settings, source, workdir=workdir, mesh=mesh)
  else:
    absl.logging.info("This run has no ego encoder, the only one to be evaluated.")
  status.clock.enter(goodput.OTHER)
  if mode == "train" and jax.process_index() == 0:
    wandb_writer.summarize(final.numbers(workdir) if table else {})
    absl.logging.info("Time since the first start of this run:\n%s", status.table())
    absl.logging.info("%s", goodput.line(status.seconds()))
    if settings.report:
      status.write()
      _report(workdir)
  return table


def _report(workdir: epath.Path) -> None:
  """Writes the page of a run; a page that can't be made costs no run."""
  from sum_l_jax.tools.report.__main__ import write_report

  try:
    absl.logging.info("report: %s", write_report(workdir))
  except ImportError as error:
    if not extras.advice(error):
      raise
    absl.logging.info("There is no report; %s", extras.advice(error))
  except Exception as error:
    reason = storage_errors.advice(error)  # The clients of buckets have errors of their own.
    if not reason and not isinstance(error, (ValueError, OSError)):
      raise
    absl.logging.warning("There is no report: %s", reason or error)


def _is_worth_reading(record: logging.LogRecord) -> bool:
  """Keeps our own lines, and errors of other libraries (Orbax logs 20 a save).

  Of these the message is enough: a thread of Orbax logs where its error was raised, and
  hands the error on to whoever waits for it.
  """
  folders = pathlib.PurePath(record.pathname).parts[-3:-1]
  if any(part in _OURS for part in folders):
    return True
  if record.levelno >= logging.ERROR:
    record.exc_info = record.exc_text = None
    return True
  library_noise.keep(record)
  return False


def _set_up_logging(*, verbose: bool) -> None:
  absl.logging.set_verbosity(absl.logging.INFO)
  handler = absl.logging.get_absl_handler()
  if not verbose:
    handler.addFilter(_is_worth_reading)
    library_noise.hide()
    # A process that ends because of another one says so, and nothing more.
    peers.at_leaving.append(lambda _: library_noise.close(failed=False))
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))


def _connect() -> None:
  """Finds the other processes of this run, if there are any."""
  job = multihost.find_job(
    _MULTIHOST.value,
    os.environ,
    coordinator_address=_COORDINATOR.value,
    coordinator_port=_PORT.value,
    num_processes=_PROCESSES.value,
    process_id=_PROCESS.value,
    on_tpu=multihost.has_tpu(),
    num_gpus=multihost.count_gpus(os.environ),
  )
  if job:
    own = re.compile(r"--?process_id\b")
    shared = " ".join(argument for argument in sys.argv[1:] if not own.match(argument))
    multihost.connect(job, timeout=_CONNECT_SECONDS.value, shared=shared)
    if not _is_first():  # All say the same.
      absl.logging.set_verbosity(absl.logging.WARNING)


def _is_first() -> bool:
  import jax

  return jax.process_index() == 0


def main(argv: Sequence[str]) -> None:
  """Runs the command; its exit status says how it ended."""
  del argv  # `_parse` leaves nothing but the flags.
  _set_up_logging(verbose=_VERBOSE.value)
  try:
    _connect()
    table = run(
      _CONFIG.value,
      str(_WORKDIR.value),
      mode=_MODE.value,
      checkpoint=_CHECKPOINT.value,
      command=shlex.join(["python", "-m", "sum_l_jax.main", *sys.argv[1:]]),
      profile=_PROFILE.value,
      profile_hosts=_PROFILE_HOSTS.value,
      began=time.time() - processes.age(),
    )
  except processes.StoppedError as error:
    library_noise.close(failed=False)
    if _is_first():
      sys.stderr.write(f"\n{error}\n")
    sys.exit(processes.STOPPED)
  except (Exception, KeyboardInterrupt) as error:
    _fail(error)
  library_noise.close(failed=False)
  if table and _is_first():
    names = [run_files.RESULT]
    if _CONFIG.value.report and _MODE.value == "train":
      names.append(run_files.REPORT)
    written = [epath.Path(str(_WORKDIR.value)) / name for name in names]
    found = ", ".join(str(path) for path in written if storage.is_file(path))
    sys.stdout.write(f"\n{table}\n\nWritten: {found}\n")


def _fail(error: BaseException) -> NoReturn:
  """Ends the process after an error, and with it the others of the run.

  Raises:
    BaseException: the error itself, where it is not the user's to mend, or
      --debug asks for it, and this process is alone.
  """
  advice = platform_errors.advice(error) or storage_errors.advice(error)
  if advice and not _DEBUG.value:
    error = ValueError(advice)
  ours = isinstance(error, (ValueError, FileNotFoundError))
  library_noise.close(failed=not ours or isinstance(error, memory_errors.OutOfMemoryError))
  if ours and not _DEBUG.value and (hint := storage_errors.bucket_hint(error)):
    error = ValueError(f"{error}{hint}")
  others = peers.known()
  if others:
    text = others.explain(error)
    if not ours or _DEBUG.value:
      traceback.print_exception(error)
    others.end(text, 2 if ours and text == str(error).strip() else peers.STATUS)
  if _DEBUG.value or not ours:
    raise error
  sys.stderr.write(f"\nerror: {error}\n")
  if isinstance(error, processes.StalledError):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)
  sys.exit(2)


def _parse(argv: list[str]) -> list[str]:
  typed = list(argv[1:])
  if "--version" in typed:
    sys.stdout.write(f"{commands.version()}\n")
    sys.exit(0)
  asks = [name for name in (argument.lstrip("-") for argument in typed) if name in _HELP]
  if asks:
    return flags.FLAGS([argv[0], "--help" if asks[0] == "h" else f"--{asks[0]}"])
  try:
    arguments = typed_arguments.complete(typed)
    typed_arguments.check(arguments)
    # ml_collections reads the command line for itself.
    sys.argv[1:] = arguments
    _, *rest = flags.FLAGS([argv[0], *arguments])
    typed_arguments.check_rest(rest)
  except Exception as error:
    advice = storage_errors.advice(error)  # A workdir in a bucket is looked into.
    if not (advice or isinstance(error, (ValueError, flags.Error))):
      raise
    sys.stderr.write(f"\nerror: {advice or field_names.explain(error)}\nSee --help.\n")
    sys.exit(2)
  sys.argv[1:] = typed
  return [argv[0]]


if __name__ == "__main__":
  text_cleaning.install()
  processes.use_huge_pages()
  app.run(main, flags_parser=_parse)
