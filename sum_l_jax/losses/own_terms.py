"""Terms of the loss that come from outside this library, by name.

A config file that registers a function and names it in `config.loss.own_terms` trains
with it; docs/library.md has an example.
"""

from __future__ import annotations

from collections.abc import Callable
import re

import jax

from sum_l_jax import types

# (outputs, batch) -> [], as the arguments of `Objective` are.
OwnTerm = Callable[[types.Outputs, types.Batch], jax.Array]

# Names of `Objective`'s results that are no terms.
_DIAGNOSTICS = ("selected_pairs", "pair_similarity", "positives")
_TERMS: dict[str, OwnTerm] = {}


def register_term(name: str, function: OwnTerm) -> None:
  """Registers a term of your own, to be named in `config.loss.own_terms`.

  A second registration under a name replaces the first, as when a notebook's cell runs
  again.

  Args:
    name: name of the term: letters, digits and "_". The log has it as `loss/<name>`.
    function: maps outputs and batch, as `Objective` takes them, to a number `[]`. It
      is traced by JAX, so it consists of functions of `jax.numpy`. A view that the
      method does not train is absent from both.

  Raises:
    ValueError: the name is none, or is one of this library's own.
  """
  check_name(name)
  _TERMS[name] = function


def find(name: str) -> OwnTerm:
  """The registered term of that name.

  Raises:
    ValueError: nobody has registered it; names the choices.
  """
  if name not in _TERMS:
    raise ValueError(
      f"There is no term of the loss {name!r}; registered are {sorted(_TERMS)}. A term of your own"
      " must be registered first (sum_l_jax.losses.register_term): import its module in the config"
      " file."
    )
  return _TERMS[name]


def check_name(name: str) -> None:
  """Raises ValueError for a name that a term of one's own can't have."""
  if not re.fullmatch(r"[A-Za-z]\w*", name) or name in (*types.TERMS, *_DIAGNOSTICS):
    raise ValueError(
      f"A term of your own needs a name of letters, digits and '_' that is none of"
      f" {(*types.TERMS, *_DIAGNOSTICS)}, got {name!r}."
    )


def value(name: str, function: OwnTerm, outputs: types.Outputs, batch: types.Batch) -> jax.Array:
  """Computes a term, `[]`.

  >>> import jax.numpy as jnp
  >>> size = lambda outputs, batch: jnp.mean(jnp.abs(outputs["ego"]["embedding"]))
  >>> outputs = {"ego": {"embedding": jnp.array([[0.6, -0.8], [1.0, 0.0]])}}
  >>> round(float(value("size", size, outputs, {})), 4)
  0.6

  Raises:
    ValueError: it looks for what is not there, or is no number `[]`.
  """
  try:
    found = function(outputs, batch)
  except KeyError as error:
    has = {view: sorted(part) for view, part in outputs.items()}
    given = {view: sorted(part) for view, part in batch.items()}
    raise ValueError(
      f"The term {name!r} looked for {error}, which is not there. The outputs are {has}, the batch"
      f" {given}. Choose a method that has it, or leave the term out."
    ) from error
  if getattr(found, "shape", None) != ():
    raise ValueError(
      f"The term {name!r} must be one number of shape [], got"
      f" {getattr(found, 'shape', type(found).__name__)}. Take the mean over the batch."
    )
  return found
