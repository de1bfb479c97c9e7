"""toy_kitchen: what the builder asks of the writer, and the command."""

from __future__ import annotations

import json

import pytest

from data_prep.clips import clip_dataset
from data_prep.toy_kitchen import builder
from data_prep.toy_kitchen import vocabulary
from data_prep.toy_kitchen.__main__ import main
from sum_l_jax.data import records


@pytest.fixture
def written(monkeypatch):
  """Records calls of the writer instead of rendering thousands of clips."""
  calls = []
  monkeypatch.setattr(
    clip_dataset,
    "write_clip_dataset",
    lambda directory, **kwargs: calls.append((directory, kwargs)),
  )
  return calls


def test_build_writes_one_folder_a_view(tmp_path, written):
  found = builder.build(tmp_path, seed=7, ego_train=100, processes=1)
  assert found == {"ego": tmp_path / "ego", "exo": tmp_path / "exo"}
  (_, ego), (_, exo) = written
  assert [call[0] for call in written] == list(found.values())
  assert ego["name"] == exo["name"] == "toy_kitchen"
  assert (ego["view"], exo["view"]) == ("ego", "exo")
  assert ego["tasks"] == vocabulary.tasks("ego")
  assert list(ego["splits"]) == ["train", "validation", "test"]
  assert list(exo["splits"]) == ["train", "validation"]
  assert ego["metadata"]["seed"] == 7
  assert ego["metadata"]["counts"]["train"] == 100
  clip = next(iter(ego["splits"]["test"]()))
  assert clip.clip_id == "ego_test_00000"


def test_a_small_set_survives_writing_and_reading(tmp_path, monkeypatch):
  small = {"ego": {"train": 76, "validation": 2, "test": 3}}
  monkeypatch.setattr(vocabulary, "COUNTS", small)
  found = builder.build(tmp_path, views=("ego",), ego_train=76, processes=1)
  card = records.read_card(found["ego"])
  assert card["splits"] == {"train": 76, "validation": 2, "test": 3}
  lines = (found["ego"] / "clips_test.jsonl").read_text().splitlines()
  assert [json.loads(line)["clip_id"] for line in lines] == [
    "ego_test_00000",
    "ego_test_00001",
    "ego_test_00002",
  ]


def test_the_command_passes_its_options_on(tmp_path, monkeypatch, capsys):
  seen = {}

  def build(root, **kwargs):
    seen.update(kwargs, root=root)
    return {"generic": tmp_path / "generic"}

  monkeypatch.setattr(builder, "build", build)
  arguments = [f"--output={tmp_path}", "--seed=3", "--views=ego,generic"]
  assert main(arguments) == 0
  assert seen == {
    "root": str(tmp_path),
    "seed": 3,
    "views": ["ego", "generic"],
    "ego_train": 400,
    "processes": 2,
  }
  assert "generic" in capsys.readouterr().out


@pytest.mark.parametrize(
  "options, words",
  [
    ({"views": ()}, "at least one"),
    ({"views": ("side",)}, "generic.*side"),
    ({"seed": -1}, "seed.*-1"),
    ({"ego_train": 10}, "ego_train.*76.*10"),
    ({"ego_train": 5000}, "ego_train.*1600.*5000"),
  ],
)
def test_errors_name_the_option(tmp_path, written, options, words):
  with pytest.raises(ValueError, match=words):
    builder.build(tmp_path, **options)
  assert not written
