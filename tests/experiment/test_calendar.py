"""When a stage reports, saves and evaluates."""

from __future__ import annotations

import itertools

import pytest

from sum_l_jax.experiment import loop


@pytest.mark.parametrize("start, save, evaluate", itertools.product((0, 3), (0, 2, 5), (0, 3)))
def test_what_is_due(start, save, evaluate):
  """A multiple of its period after the start, and the end; 0 is the end alone."""
  calendar = loop.Calendar(
    start, 12, log_every=4, save_every=save, evaluate_every=evaluate, total=12
  )
  multiples = lambda every: {*range(0, 12, every)} if every else set()
  saves = {12} | {k for k in multiples(save) if k > start}
  evaluations = {12} | {k for k in multiples(evaluate) if k > start}
  for step in range(start, 13):
    due = calendar.due(step, asked=False)
    assert (due.save, due.evaluate) == (step in saves, step in evaluations), step
    # What is saved or scored was looked at first.
    assert due.flush == (step % 4 == 0 or due.save or due.evaluate), step


def test_a_run_that_is_asked_to_stop_saves_and_scores_nothing():
  calendar = loop.Calendar(0, 12, log_every=4, save_every=0, evaluate_every=1, total=12)
  for step in (0, 1, 5, 12):
    assert calendar.due(step, asked=True) == loop.Due(flush=True, save=True, evaluate=False)
