"""The shared part of the benchmarks: order of calls, ratios, records."""

from __future__ import annotations

import json

import pytest

from benchmarks import measure


def test_calls_come_in_turn_and_are_timed_each():
  now, calls = [0.0], []

  def work(name, seconds):
    def function():
      calls.append(name)
      now[0] += seconds

    return function

  times = measure.interleave({"a": work("a", 2.0), "b": work("b", 3.0)}, 4, clock=lambda: now[0])
  assert "".join(calls) == "ab" + "ab" + "ba" + "ab" + "ba"
  assert times == {"a": [2.0] * 4, "b": [3.0] * 4}


def test_a_timed_call_can_follow_one_of_its_own():
  calls = []
  functions = {name: lambda name=name: calls.append(name) for name in "ab"}
  times = measure.interleave(functions, 2, warm_up=0, settle=2)
  assert "".join(calls) == "aaabbb" + "bbbaaa"
  assert [len(seconds) for seconds in times.values()] == [2, 2]


def test_a_ratio_is_taken_round_by_round():
  # The machine was ten times slower in the last round, which no ratio shows.
  times = {"a": [1.0, 3.0, 20.0], "b": [2.0, 4.0, 40.0]}
  assert measure.ratio(times, "a", "b") == {"median": 0.5, "low": 0.5, "high": 0.75}
  assert measure.spread(times["a"]) == {"median": 3.0, "low": 1.0, "high": 20.0}


@pytest.mark.parametrize("functions, rounds", [({}, 1), ({"a": int}, 0)])
def test_nothing_to_time_is_an_error(functions, rounds):
  with pytest.raises(ValueError, match="at least one function and one round"):
    measure.interleave(functions, rounds)


def test_a_result_says_how_and_where_it_was_made(tmp_path):
  path = tmp_path / "results" / "x.json"
  measure.write(path, "python -m benchmarks.x --quick", {"ratio": 1.5})
  record = json.loads(path.read_text(encoding="utf-8"))
  assert record["command"] == "python -m benchmarks.x --quick"
  assert record["results"] == {"ratio": 1.5}
  environment = record["environment"]
  assert environment["versions"]["jax"] and environment["processor"]
  assert 1 <= environment["cores_of_process"] <= environment["cores_of_machine"]
  assert environment["date"].endswith("+00:00")
  assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_a_number_that_is_not_finite_is_not_written(tmp_path):
  with pytest.raises(ValueError):
    measure.write(tmp_path / "x.json", "", {"ratio": float("nan")})
  assert not (tmp_path / "x.json").exists()


def test_both_clocks_time_the_same_calls(monkeypatch):
  now = {"wall": 0.0, "processor": 0.0}
  monkeypatch.setattr(measure.time, "perf_counter", lambda: now["wall"])
  monkeypatch.setattr(measure.time, "process_time", lambda: now["processor"])

  def work(wall, processor):
    now["wall"] += wall
    now["processor"] += processor

  times = measure.interleave_clocks({"a": lambda: work(3.0, 4.0), "b": lambda: work(1.0, 0.5)}, 2)
  assert times == {
    "wall": {"a": [3.0, 3.0], "b": [1.0, 1.0]},
    "processor": {"a": [4.0, 4.0], "b": [0.5, 0.5]},
  }
