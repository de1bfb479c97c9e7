"""Terms of one's own beside those of Eq. 12."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sum_l_jax import losses
from sum_l_jax.losses import own_terms
from sum_l_jax.losses.objective import Objective


def _spread(outputs, batch):
  del batch
  return jnp.mean(outputs["ego"]["embedding"] ** 2)


def _arrays():
  z = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
  text = z / np.linalg.norm(z, axis=1, keepdims=True)
  return {"ego": {"embedding": jnp.asarray(z)}}, {"ego": {"narration": jnp.asarray(text)}}


def test_it_is_added_with_its_weight():
  outputs, batch = _arrays()
  plain = Objective(tasks={}, weights={"ego_text": 0.5})
  more = Objective(tasks={}, weights={"ego_text": 0.5, "spread": 0.3}, own={"spread": _spread})
  total, terms = jax.jit(more)(outputs, batch)
  expected = float(np.mean(np.square(outputs["ego"]["embedding"])))
  assert float(terms["spread"]) == pytest.approx(expected, rel=1e-6)
  assert float(total) == pytest.approx(float(plain(outputs, batch)[0]) + 0.3 * expected, rel=1e-6)
  assert hash(more) != hash(plain) and more != plain
  # Without a weight it is not computed.
  off = Objective(tasks={}, weights={"ego_text": 0.5}, own={"broken": lambda o, b: o["none"]})
  assert "broken" not in off(outputs, batch)[1]


def test_what_is_wrong_with_one_is_said():
  outputs, batch = _arrays()

  def total(function):
    return Objective(tasks={}, weights={"mine": 1.0}, own={"mine": function})(outputs, batch)

  with pytest.raises(ValueError, match=r"'mine' looked for 'exo'.*outputs are {'ego'"):
    total(lambda o, b: o["exo"]["embedding"].mean())
  with pytest.raises(ValueError, match=r"'mine' must be one number of shape \[\], got \(4,\)"):
    total(lambda o, b: o["ego"]["embedding"].mean(1))
  with pytest.raises(ValueError, match="got float. Take"):
    total(lambda o, b: 1.0)


@pytest.mark.parametrize("name", ["ego_cls", "selected_pairs", "a b", ""])
def test_a_name_must_be_free(name):
  with pytest.raises(ValueError, match="needs a name"):
    losses.register_term(name, _spread)
  with pytest.raises(ValueError, match="needs a name"):
    Objective(tasks={}, own={name: _spread})


def test_names_are_looked_up():
  losses.register_term("spread", _spread)
  losses.register_term("spread", _spread)
  assert own_terms.find("spread") is _spread
  with pytest.raises(ValueError, match=r"no term of the loss 'spred'; registered are \['spread'\]"):
    own_terms.find("spred")


def test_weights_of_classes_against_torch():
  """In softmax tasks a weight per clip, in multi-label ones torch's pos_weight."""
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(1)
  logits = rng.standard_normal((5, 3)).astype(np.float32)
  labels, many = rng.integers(0, 3, 5), rng.integers(0, 2, (5, 3)).astype(np.float32)
  weights = (0.5, 2.0, 1.25)
  tensor, weight = torch.tensor(logits), torch.tensor(weights)
  expected = torch.nn.functional.cross_entropy(
    tensor, torch.tensor(labels), weight=weight, reduction="none"
  )
  values = losses.softmax_cross_entropy(logits, jnp.asarray(labels), class_weights=weights)
  np.testing.assert_allclose(values, expected, rtol=1e-5)
  expected = torch.nn.functional.binary_cross_entropy_with_logits(
    tensor, torch.tensor(many), pos_weight=weight, reduction="none"
  ).mean(1)
  values = losses.sigmoid_cross_entropy(logits, jnp.asarray(many), positive_weights=weights)
  np.testing.assert_allclose(values, expected, rtol=1e-5)
  for kind, own in (("softmax", jnp.asarray(labels)), ("multi_label", jnp.asarray(many))):
    objective = Objective(
      tasks={"ego": {"verb": kind}},
      weights={"ego_cls": 1.0},
      class_weights={"ego": {"verb": weights}},
    )
    outputs = {"ego": {"logits": {"verb": jnp.asarray(logits)}}}
    total, _ = jax.jit(objective)(outputs, {"ego": {"labels": {"verb": own}}})
    by_hand = (
      losses.softmax_cross_entropy(logits, own, class_weights=weights).mean()
      if (kind == "softmax")
      else values.mean()
    )
    assert float(total) == pytest.approx(float(by_hand), rel=1e-6)
  with pytest.raises(ValueError, match="weight for each of the 3 classes, got 2"):
    losses.softmax_cross_entropy(logits, jnp.asarray(labels), class_weights=(1.0, 2.0))
