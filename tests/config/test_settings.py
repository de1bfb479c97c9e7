"""Settings: defaults, units, choices, contradictions."""

from __future__ import annotations

import ast
import json
import pathlib

import pytest

from sum_l_jax.config import settings

ROOT = pathlib.Path(__file__).parents[2]


def test_defaults_resolve_to_the_paper():
  config = settings.resolve(settings.default_config())
  assert config.loss.cross_view == "weighted"
  assert config.loss.negatives == "cross"
  assert config.model.projection_prenorm == "false"
  assert dict(config.loss.weights) == {
    "ego_cls": 1.0,
    "exo_cls": 0.1,
    "ego_exo": 0.02,
    "ego_text": 0.1,
    "exo_text": 0.1,
  }


def test_released_switches_the_cross_view_term_off():
  config = settings.default_config()
  config.objective = "released"
  config = settings.resolve(config)
  assert config.loss.weights.ego_exo == 0
  assert config.loss.weights.ego_text == 0.1
  assert config.loss.negatives == "cross_and_same"
  assert config.model.projection_prenorm == "true"


@pytest.mark.parametrize(
  "method, terms, cross_view",
  [
    ("sum_l", {"ego_cls", "exo_cls", "ego_exo", "ego_text", "exo_text"}, "weighted"),
    ("fpv_only", {"ego_cls"}, None),
    ("typical_cl", {"ego_cls", "exo_cls", "ego_exo"}, "decoupled"),
    ("triplet", {"ego_cls", "exo_cls", "ego_exo"}, "triplet"),
  ],
)
def test_methods(method, terms, cross_view):
  config = settings.default_config()
  config.method = method
  config = settings.resolve(config)
  assert {t for t, w in config.loss.weights.items() if w} == terms
  if cross_view:
    assert config.loss.cross_view == cross_view
  assert settings.uses_exo(config) == (method != "fpv_only")


@pytest.mark.parametrize(
  "text, steps",
  [
    ("30 epochs", 12222),
    ("1 epoch", 407),
    ("0.5 epochs", 204),
    ("300 steps", 300),
    ("300steps", 300),
    ("7_steps", 7),
    ("10 percent", 100),
    ("10%", 100),
  ],
)
def test_durations(text, steps):
  got = settings.steps(text, field="x", num_clips=26074, batch_size=64, total=1000)
  assert got == steps


@pytest.mark.parametrize("text", ["30", "epochs", "3 days", "-1 steps", ""])
def test_unreadable_durations(text):
  with pytest.raises(ValueError, match="config.joint_stage.total must be a"):
    settings.steps(text, field="joint_stage.total", num_clips=10, batch_size=2)


def test_percent_of_nothing():
  with pytest.raises(ValueError, match="cannot be a percentage"):
    settings.steps("10 percent", field="x", num_clips=10, batch_size=2)


@pytest.mark.parametrize("field", sorted(settings.CHOICES))
def test_choices_are_listed(field):
  config = settings.default_config()
  *sections, name = field.split(".")
  node = config
  for section in sections:
    node = node[section]
  node[name] = "nonsense"
  with pytest.raises(ValueError, match=f"config.{field} must be one of") as e:
    settings.resolve(config)
  assert "'nonsense'" in str(e.value)
  assert str(settings.CHOICES[field][0]) in str(e.value)


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"method": "fpv_only", "loss.cross_view": "weighted"}, "fpv_only"),
    ({"method": "triplet", "loss.cross_view": "info_nce"}, "triplet"),
    ({"method": "fpv_only", "model.share_encoder": True}, "share_encoder"),
    ({"model.share_encoder": True, "init.exo": "x"}, "share_encoder"),
    ({"method": "fpv_only", "model.freeze_exo": True}, "freeze_exo"),
    ({"model.share_encoder": True, "model.freeze_exo": True}, "freeze_exo"),
    ({"init.ego": "exo_stage"}, "config.stages"),
    ({"stages": ("joint", "exo")}, "in this order"),
    ({"stages": ()}, "config.stages"),
    ({"stages": ("later",)}, "config.stages"),
    ({"stop_at": "joint"}, "config.stop_at"),
    ({"frames.crop_size": 300}, "a crop must fit"),
    ({"loss.temperature": 0.0}, "config.loss.temperature must be positive"),
    ({"loss.target_temperature": -0.1}, "config.loss.target_temperature must be positive"),
    ({"loss.mask_duplicates": 1.1}, "mask_duplicates must be 0 .*got 1.1"),
    ({"loss.mask_duplicates": -0.5}, r"cosine in \(0, 1\], got -0.5"),
    ({"method": "typical_cl", "loss.cross_view": "graded"}, "typical_cl"),
    ({"joint_stage.batch_size": 0}, "config.joint_stage.batch_size"),
    ({"eval.crops": 2}, "config.eval.crops must be 1 or 3"),
    ({"model.dropout": 1.5}, "config.model.dropout"),
    ({"joint_stage.factors": (1.0,)}, "same length"),
    ({"model.bn_group_size": 24}, "bn_group_size must be 0 .*joint_stage.batch_size=64, got 24"),
    ({"loss.negatives_group": 24}, "negatives_group must be 0 .*got 24"),
    ({"loss.negatives_group": 1}, "at least 2, got 1"),
  ],
)
def test_contradictions_and_ranges(changes, words):
  config = settings.default_config()
  with config.ignore_type():
    config.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=words):
    settings.resolve(config)


@pytest.mark.parametrize(
  "name, suggestion",
  [
    ("loss.tempature", "loss.temperature"),
    ("batch_size", "batch_size"),
    ("exo.dataset", "exo.datasets"),
    ("nope", "sum_l_jax/config/settings.py"),
  ],
)
def test_unknown_field(name, suggestion):
  with pytest.raises(ValueError, match=f"no config field '{name}'") as e:
    settings.check_field_name(name)
  assert suggestion in str(e.value)


def test_known_fields_pass():
  for name in settings.flatten(settings.default_config()):
    settings.check_field_name(name)
  settings.check_field_name("loss.weights")


def test_arguments():
  got = settings.parse_arguments("b=2", a="1", b="1")
  assert got == {"a": "1", "b": "2"}
  for wrong in ("c=1", "a"):
    with pytest.raises(ValueError, match=r"out of \['a', 'b'\]"):
      settings.parse_arguments(wrong, a="1", b="1")
  with pytest.raises(ValueError, match="backbone must be one of"):
    settings.set_backbone(settings.default_config(), "resnet")


def test_config_files_are_found_from_anywhere(tmp_path, monkeypatch):
  root = pathlib.Path(settings.__file__).resolve().parents[2]
  monkeypatch.chdir(tmp_path)
  for given in ("configs/demo.py:method=triplet", "demo.py:method=triplet"):
    found = settings.find_file(given)
    assert found == f"{root / 'configs' / 'demo.py'}:method=triplet"
  # One's own file of the same name goes first; others stay what they are.
  (tmp_path / "demo.py").write_text("")
  for given in ("demo.py", "configs/no_such.py:a=1", "elsewhere/demo.py"):
    assert settings.find_file(given) == given


def test_every_field_is_read_somewhere():
  """A field that nobody reads would be a promise that nothing keeps."""
  read = set()
  for path in (ROOT / "sum_l_jax").rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      # Assignments don't count: the defaults are assignments.
      if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        read.add(node.attr)
  fields = settings.flatten(settings.default_config())
  weights = {f for f in fields if f.startswith("loss.weights.")}
  for name in fields.keys() - weights:
    if name.startswith("init."):  # Read by view: config.init[view].
      name = "init"
    assert name.rsplit(".", 1)[-1] in read, name


def test_workdir_differences_ignore_runtime_fields():
  config = settings.default_config()
  old = settings.to_json(settings.resolve(config))
  config.log_every_steps = 3
  config.eval.clips = 2
  config.stop_at = "joint:3"
  config.seed = 5
  config.loss.temperature = 0.1
  new = settings.to_json(settings.resolve(config))
  assert settings.differences(old, new) == ["loss.temperature: 0.06 -> 0.1", "seed: 0 -> 5"]
  assert settings.differences(old, old) == []


@pytest.mark.parametrize(
  "terms, expected",
  [
    ("none", (0.0, 0.0, 0.0, "weighted")),
    ("aw", (0.02, 0.0, 0.0, "weighted")),
    ("m", (0.0, 0.1, 0.1, "weighted")),
    ("a_m", (0.02, 0.1, 0.1, "filtered")),
    ("aw_m", (0.02, 0.1, 0.1, "weighted")),
  ],
)
def test_rows_of_table_5(terms, expected):
  config = settings.default_config()
  settings.set_ablation(config, terms=terms, exo_encoder="original")
  loss = settings.resolve(config).loss
  assert (
    loss.weights.ego_exo,
    loss.weights.ego_text,
    loss.weights.exo_text,
    loss.cross_view,
  ) == expected
  assert (loss.weights.ego_cls, loss.weights.exo_cls) == (1.0, 0.1)


def test_rows_of_table_6():
  def made(kind):
    config = settings.default_config()
    config.stages = ("exo", "joint")
    settings.set_ablation(config, terms="aw_m", exo_encoder=kind)
    config.init.ego = "kinetics"  # As the command line does, later.
    return settings.resolve(config)

  fields = lambda c: (c.model.freeze_exo, c.model.share_encoder, c.init.exo, tuple(c.stages))
  both = ("exo", "joint")
  assert fields(made("original")) == (False, False, "", both)
  assert fields(made("frozen")) == (True, False, "", both)
  assert fields(made("shared")) == (False, True, "", ("joint",))
  assert fields(made("same_init")) == (False, False, "kinetics", ("joint",))
  config = settings.default_config()
  for name in ("terms", "exo_encoder"):
    choice = {"terms": "m", "exo_encoder": "shared", name: "x"}
    with pytest.raises(ValueError, match=f"{name} must be one of"):
      settings.set_ablation(config, **choice)


def test_a_skip_list_changes_what_is_learnt_and_older_runs_have_none():
  config = settings.default_config()
  new = settings.to_json(settings.resolve(config))
  fields = json.loads(new)
  del fields["ego.skip_list"], fields["exo.skip_list"]
  old = json.dumps(fields)
  assert settings.differences(old, new) == []
  config.ego.skip_list = "skip.txt"
  listed = settings.to_json(settings.resolve(config))
  assert settings.differences(old, listed) == ["ego.skip_list: '' -> 'skip.txt'"]


def test_switches_beyond_the_paper_are_off_and_older_runs_had_none():
  config = settings.default_config()
  new = settings.to_json(settings.resolve(config))
  fields = json.loads(new)
  assert fields["loss.cross_view"] == "weighted"
  assert fields["loss.mask_duplicates"] == 0.0
  del fields["loss.mask_duplicates"], fields["loss.target_temperature"]
  assert settings.differences(json.dumps(fields), new) == []
  config.loss.cross_view = "graded"
  config.loss.mask_duplicates = 1.0
  switched = settings.resolve(config)
  assert switched.loss.cross_view == "graded"
  assert settings.differences(new, settings.to_json(switched)) == [
    "loss.cross_view: 'weighted' -> 'graded'",
    "loss.mask_duplicates: 0.0 -> 1.0",
  ]
