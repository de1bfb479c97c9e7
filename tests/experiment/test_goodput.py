"""Where the time went: every moment once, whatever lies within what."""

from __future__ import annotations

import pytest

from sum_l_jax.experiment import goodput
from tests.support import clocks


@pytest.fixture(name="now")
def now_fixture():
  return clocks.Now()


def test_every_moment_counts_once(now):
  clock = goodput.Clock(before=3.0, now=now)
  now.time += 7  # Still starting.
  clock.enter(goodput.STEPS)
  now.time += 20
  with clock.within(goodput.SAVING):
    now.time += 5
    with clock.within(goodput.EVALUATING):
      now.time += 11
    now.time += 2
  now.time += 1
  found = clock.seconds()
  assert found[goodput.STARTING] == 10 and found[goodput.STEPS] == 21
  assert found[goodput.SAVING] == 7 and found[goodput.EVALUATING] == 11
  assert sum(found.values()) == 3 + 7 + 20 + 5 + 11 + 2 + 1


def test_compilations_within_others_count_once(now):
  clock = goodput.Clock(now=now)
  clock.enter(goodput.STEPS)
  now.time += 10  # Traced from 104 to 107, with one inside from 105 to 106.
  now.time = 106.0
  clock.compiled(1.0)
  now.time = 107.0
  clock.compiled(3.0)
  now.time = 109.0
  clock.compiled(2.0)  # The compiler, after that.
  now.time = 110.0
  found = clock.seconds()
  assert found[goodput.COMPILING] == 5
  assert found[goodput.STEPS] == 5
  # One that seems to have begun before the kind did is cut.
  clock.enter(goodput.EVALUATING)
  now.time += 1
  clock.compiled(4.0)
  assert clock.seconds()[goodput.COMPILING] == 6
  assert sum(clock.seconds().values()) == 11


def test_what_followed_the_checkpoint_is_lost():
  kept = {goodput.STARTING: 10.0, goodput.STEPS: 50.0, goodput.COMPILING: 5.0}
  totals = {**kept, goodput.STEPS: 80.0, goodput.EVALUATING: 4.0, goodput.LOST: 7.0}
  totals |= {goodput.DOWN: 3.0}
  found = goodput.carried_on(totals, kept)
  assert found[goodput.STEPS] == 50 and found[goodput.EVALUATING] == 0
  assert found[goodput.LOST] == 7 + 30 + 4 and found[goodput.DOWN] == 3
  assert sum(found.values()) == sum(totals.values())
  assert goodput.carried_on(totals, {})[goodput.LOST] == sum(totals.values()) - 3


def test_the_table_sums_to_the_wall_clock():
  rows = goodput.rows({goodput.STEPS: 3600.0, goodput.INPUT: 1200.0})
  assert rows[0] == ["steps", "1:00:00", "75.0"] and rows[-1] == ["wall clock", "1:20:00", "100.0"]


class Result:
  """An array that the test finishes."""

  def __init__(self):
    self.ready = False

  def is_ready(self):
    return self.ready

  def block_until_ready(self):
    assert self.ready


def test_while_the_devices_compute_nobody_waits():
  devices = goodput.Devices()
  done, busy = Result(), Result()
  done.ready = True
  devices.begun(done)
  devices.close()
  assert 0 < devices.busy_until(1e9) < 1e9
  devices.begun(busy)
  assert devices.busy_until(1e9) == 1e9
  devices.close()


def test_the_line_has_the_share_of_steps_and_what_took_longest():
  seconds = {goodput.STEPS: 5400.0, goodput.COMPILING: 120.0, goodput.INPUT: 480.0}
  assert goodput.line(seconds) == (
    "goodput 90.0%: 1:30:00 of 1:40:00 were steps; waiting for input 8.0%, compiling 2.0%"
  )
  assert goodput.line({}).startswith("goodput 0.0%")
