"""What a training starts from, compared with what the paper starts from."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from sum_l_jax import types
from sum_l_jax.config.schema import EXO_STAGE
from sum_l_jax.config.schema import JOINT_STAGE
from sum_l_jax.config.schema import Settings

_STAGE_ONE = (
  "Train it in this run with --config.stages=\"('exo','joint')\", or give the workdir of a run of"
  " configs/exo_lemma.py as --config.init.exo=RUN. exo_encoder=same_init does without."
)


def check(settings: Settings, published: Mapping[str, str]) -> str:
  """Checks that a training starts from what its config names.

  Args:
    settings: resolved settings.
    published: backbone -> option of `data_prep.convert_weights` that names its
      published weights; "" where their file does.

  Returns:
    A warning for the log where an encoder with published weights starts from
    random ones, else "".

  Raises:
    ValueError: the exo encoder must come from stage one or from the ego
      encoder's start, and there is none.
  """
  own_exo = settings.uses_exo and not settings.model.share_encoder
  if JOINT_STAGE in settings.stages and own_exo:
    _check_exo(settings)
  empty = [view for view in types.VIEWS if _starts_random(settings, view, own_exo)]
  warnings = []
  for backbone in dict.fromkeys(map(settings.backbone, empty)):
    option = published.get(backbone)
    if option is not None:
      own = [view for view in empty if settings.backbone(view) == backbone]
      warnings.append(_warning(backbone, option, own))
  return " ".join(warnings)


def _warning(backbone: str, option: str, empty: Sequence[str]) -> str:
  """Says how to get the published weights of the views that start without."""
  fields = " and ".join(f"config.init.{view}" for view in empty)
  verb, who = ("is", "encoder starts") if len(empty) == 1 else ("are", "encoders start")
  folder = f"weights/{backbone}"
  given = " ".join(f"--config.init.{view}={folder}" for view in empty)
  instead, page = "there are published weights of the same network", "encoders"
  if option:
    instead = "the paper starts from Kinetics-400 weights of the same network"
    page = "pytorch_weights"
  command = " ".join(
    part for part in ("python -m data_prep convert_weights", option, "--input=FILE") if part
  )
  return (
    f"{fields} {verb} empty: the {' and the '.join(empty)} {who}"
    f" from random weights, while {instead}. Get them with `{command} --output={folder}`"
    f" (docs/{page}.md lists the files), and give {given}."
  )


def _starts_random(settings: Settings, view: str, own_exo: bool) -> bool:
  """Whether an encoder that is trained starts from random weights."""
  if settings.stored(view):
    return False
  if view == types.EGO:
    return JOINT_STAGE in settings.stages and not settings.init.ego
  trained = EXO_STAGE in settings.stages or (JOINT_STAGE in settings.stages and own_exo)
  return trained and not settings.init.exo


def _check_exo(settings: Settings) -> None:
  """Raises ValueError where Table 6's row has not got what it starts from."""
  init = settings.init
  if init.exo_from == "stage_one" and EXO_STAGE not in settings.stages and not init.exo:
    row = "frozen" if settings.model.freeze_exo else "original"
    raise ValueError(
      f"exo_encoder={row} takes the exo encoder that stage one trained, but config.stages has no"
      f" 'exo' and config.init.exo is empty. {_STAGE_ONE}"
    )
  if init.exo_from == "ego" and not (init.ego and init.exo == init.ego):
    raise ValueError(
      "exo_encoder=same_init starts both encoders from the same weights, but"
      f" config.init.ego={init.ego!r} and config.init.exo={init.exo!r}: give weights as"
      " --config.init.ego=RUN alone, which both then start from."
    )
