"""Which axis of an array is divided, counted by hand."""

from __future__ import annotations

import pytest

from sum_l_jax.system import sharding_rules

RULES = (*sharding_rules.RULES,)


def _axis(path, shape, *rules, count=8, whole_below=1000):
  table = [sharding_rules.read_rule(text) for text in (*rules, *RULES)]
  return sharding_rules.find_axis(table, path, shape, count=count, whole_below=whole_below)


@pytest.mark.parametrize(
  "path, shape, axis",
  [
    ("params/ego/encoder/patches/kernel", (588, 1024), 1),
    ("params/ego/heads/verb/kernel", (2304, 125), 0),
    # The largest that eight devices can share.
    ("params/exo/encoder/slow/s2/0/b/conv/kernel", (1, 3, 3, 64, 60), 3),
    ("params/exo/encoder/table", (36, 30), None),
    # Of equal ones the first.
    ("params/exo/encoder/x", (64, 64), 0),
    # 40 blocks of 1408 x 6144; never the axis that counts them.
    ("params/ego/encoder/blocks/block/mlp/up/kernel", (40, 1408, 6144), 2),
    ("opt_state/0/mu/ego/encoder/blocks/block/mlp/down/kernel", (40, 6144, 1408), 1),
    ("ema/ego/encoder/blocks/block/mlp/up/kernel", (1024, 56, 48), 1),
    # A block's own part is small, however many there are.
    ("params/ego/encoder/blocks/block/mlp/up/bias", (40, 999), None),
    ("params/ego/encoder/blocks/block/norm1/scale", (800, 8), None),
    ("stats/ego/encoder/slow/s2/0/b/norm/mean", (992,), None),
    ("stats/ego/encoder/slow/s2/0/b/norm/mean", (1000,), 0),
    ("step", (), None),
  ],
)
def test_the_default_table(path, shape, axis):
  assert _axis(path, shape) == axis


def test_the_first_rule_that_fits_holds():
  path, shape = "params/ego/heads/noun/kernel", (2304, 352)
  assert _axis(path, shape) == 0
  assert _axis(path, shape, "heads/.*/kernel -> -1", "heads -> 0") == 1
  assert _axis(path, shape, "heads/verb -> 1", "^params/ego -> whole") is None
  # A number also holds for what is small.
  assert _axis("params/ego/encoder/time", (16, 24), "time$ -> 1") == 1
  none = [sharding_rules.read_rule("encoder -> 0")]
  assert sharding_rules.find_axis(none, path, shape, count=8, whole_below=0) is None


@pytest.mark.parametrize(
  "text, message",
  [
    ("heads", "an arrow and an axis, such as 'heads/ -> 0'"),
    ("-> 0", "an arrow and an axis"),
    ("heads -> first", "'largest_inner' \\(not the first\\) or 'whole'; got 'heads -> first'"),
    ("heads( -> 0", "no regular expression: .*unterminated"),
  ],
)
def test_rules_that_cannot_be_read(text, message):
  with pytest.raises(ValueError, match=message):
    sharding_rules.read_rule(text)


@pytest.mark.parametrize("shape, rule", [((2304, 125), "verb -> 1"), ((2304,), "verb -> 1")])
def test_an_axis_that_cannot_be_shared_is_named(shape, rule):
  with pytest.raises(ValueError, match="divides axis 1 of params/verb, whose shape is .*8 devices"):
    _axis("params/verb", shape, rule)
