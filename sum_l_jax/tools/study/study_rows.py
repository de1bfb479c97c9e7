"""The paper's tables as data: which runs, compared with which.

A row is a set of config arguments and fields on top of the config file that
the study is given. Figures of the paper are in percent, from its Tables 1 to 6.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import pathlib

from sum_l_jax import loss_options

Figures = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a table.

  Attributes:
    name: of its runs' folders.
    label: as the table calls it.
    arguments: of the config file, such as {"method": "sum_l"}.
    fields: of the config, such as {"loss.mask_duplicates": 0.99}.
    exo_start: the ego encoder starts from stage one, too.
    exo_from_stage_one: False leaves it to the config where the exo encoder
      starts, whatever stage one gave.
    paper: the paper's figures in percent, by metric.
  """

  name: str
  label: str
  arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
  fields: Mapping[str, object] = dataclasses.field(default_factory=dict)
  exo_start: bool = False
  exo_from_stage_one: bool = True
  paper: Figures = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Study:
  """A table.

  Attributes:
    name: on the command line.
    title: above the table.
    rows: in order; the first is what all others are compared with.
    contrasts: further comparisons, (row, with which row).
    primary: the one comparison that the study is for.
  """

  name: str
  title: str
  rows: tuple[Row, ...]
  primary: tuple[str, str]
  contrasts: tuple[tuple[str, str], ...] = ()

  def __post_init__(self):
    names = [row.name for row in self.rows]
    if len(names) < 2 or len(set(names)) < len(names):
      raise ValueError(
        f"Study {self.name!r} needs two rows or more with different names, got {names}."
      )
    for pair in (self.primary, *self.contrasts):
      unknown = set(pair) - set(names)
      if unknown or len(set(pair)) < 2:
        raise ValueError(
          f"Study {self.name!r}: a comparison must name two of the rows {names}, got {tuple(pair)}."
        )

  def comparisons(self) -> list[tuple[str, str]]:
    """Every (row, with which row), the primary one first."""
    baseline = self.rows[0].name
    pairs = [(row.name, baseline) for row in self.rows[1:]]
    return list(dict.fromkeys([self.primary, *pairs, *self.contrasts]))


def _methods(paper: Mapping[str, Figures]) -> tuple[Row, ...]:
  labels = {
    "fpv_only": "FPV only",
    "typical_cl": "Typical CL",
    "triplet": "Triplet",
    "sum_l": "SUM-L",
  }
  return tuple(
    Row(name, label, {"method": name}, paper=paper.get(name, {})) for name, label in labels.items()
  )


def _table(columns: tuple[str, ...], **rows) -> dict[str, Figures]:
  """Figures by row; a number alone is that of the only column."""
  return {name: dict(zip(columns, v if isinstance(v, tuple) else (v,))) for name, v in rows.items()}


_MAP = ("action_map_sklearn",)
_TOP1 = ("verb_top1", "noun_top1")

# What a sceptic asks for beside Table 1.
_CONTROLS = (
  Row("labels_only", "both label losses alone (L_f, L_t)", {"terms": "none"}),
  Row(
    "fpv_only_exo_start", "FPV only, from the exo encoder", {"method": "fpv_only"}, exo_start=True
  ),
  Row("sum_l_exo_start", "SUM-L, from the exo encoder", {"method": "sum_l"}, exo_start=True),
)
_CONTROL_CONTRASTS = (("sum_l", "labels_only"), ("sum_l_exo_start", "fpv_only_exo_start"))
_PRIMARY = ("sum_l", "fpv_only")

# Table 1 has two data sets; metrics that a run lacks have no column.
_TABLE_1 = _table(
  ("action_map_sklearn", "verb_top1", "verb_top5", "noun_top1", "noun_top5"),
  fpv_only=(24.7, 61.1, 87.1, 45.8, 70.4),
  typical_cl=(25.1, 60.5, 86.2, 45.3, 68.6),
  triplet=(25.2, 61.5, 86.8, 45.7, 69.7),
  sum_l=(26.3, 62.3, 87.2, 47.3, 70.9),
)
_TERMS = (
  Row("fpv_only", "FPV only", {"method": "fpv_only"}, paper={"action_map_sklearn": 24.7}),
  Row("aw", "L_aw", {"terms": "aw"}, paper={"action_map_sklearn": 25.6}),
  Row("aw_m", "L_aw + L_m", {"terms": "aw_m"}, paper={"action_map_sklearn": 26.3}),
  Row("a_m", "L_a + L_m", {"terms": "a_m"}, paper={"action_map_sklearn": 26.1}),
  Row("m", "L_m (not in the paper)", {"terms": "m"}),
  Row("none", "L_t alone (not in the paper)", {"terms": "none"}),
)
_EXO_ENCODERS = (
  Row("fpv_only", "FPV only", {"method": "fpv_only"}, paper={"action_map_sklearn": 24.7}),
  Row("frozen", "frozen", {"exo_encoder": "frozen"}, paper={"action_map_sklearn": 25.8}),
  Row(
    "shared",
    "shared with ego",
    {"exo_encoder": "shared"},
    exo_from_stage_one=False,
    paper={"action_map_sklearn": 25.3},
  ),
  Row(
    "same_init",
    "initialised like ego",
    {"exo_encoder": "same_init"},
    exo_from_stage_one=False,
    paper={"action_map_sklearn": 26.1},
  ),
  Row("original", "original", {"exo_encoder": "original"}, paper={"action_map_sklearn": 26.3}),
)
_SWITCHES = (
  Row("sum_l", "SUM-L"),
  Row("graded", "graded positives", fields={"loss.cross_view": "graded"}),
  Row(
    "mask_duplicates", "equal narrations are no negatives", fields={"loss.mask_duplicates": 0.99}
  ),
  Row("top_5", "one of the 5 most similar narrations", fields={"pairs.top_k": 5}),
  # Graded positives are never negatives: the mask acts on L_m alone.
  Row(
    "graded_mask",
    "graded positives, mask in L_m",
    fields={"loss.cross_view": "graded", "loss.mask_duplicates": 0.99},
  ),
)


def _weights(factor: float) -> dict[str, float]:
  """The alignment terms' weights of Eq. 12, times a factor."""
  defaults = loss_options.WEIGHTS
  return {
    f"loss.weights.{term}": factor * defaults[term] for term in ("ego_exo", "ego_text", "exo_text")
  }


# All start the ego encoder from the exo encoder, which carries more than any
# loss: what does a joint training add to that?
_EXO_START = (
  Row("fpv_only", "FPV only", {"method": "fpv_only"}, exo_start=True),
  # Narrations are fixed vectors: here no exo clip reaches the ego encoder.
  Row("m", "L_m alone", {"terms": "m"}, exo_start=True),
  Row("sum_l", "SUM-L", {"method": "sum_l"}, exo_start=True),
  Row("weights_5", "alignment terms times 5", fields=_weights(5.0), exo_start=True),
  Row("aw_1", "L_aw with weight 1", fields={"loss.weights.ego_exo": 1.0}, exo_start=True),
  Row(
    "exo_labels", "exo labels with weight 1", fields={"loss.weights.exo_cls": 1.0}, exo_start=True
  ),
  Row("frozen", "exo encoder frozen", {"exo_encoder": "frozen"}, exo_start=True),
  Row(
    "shared",
    "one encoder for both views",
    {"exo_encoder": "shared"},
    exo_start=True,
    exo_from_stage_one=False,
  ),
  Row(
    "shared_labels",
    "one encoder, exo labels with weight 1",
    {"exo_encoder": "shared"},
    {"loss.weights.exo_cls": 1.0},
    exo_start=True,
    exo_from_stage_one=False,
  ),
  Row(
    "graded_5",
    "graded positives, alignment terms times 5",
    fields={"loss.cross_view": "graded", **_weights(5.0)},
    exo_start=True,
  ),
)

STUDIES: Mapping[str, Study] = {
  study.name: study
  for study in (
    Study(
      "table1",
      "Table 1: methods, and controls",
      (*_methods(_TABLE_1), *_CONTROLS),
      _PRIMARY,
      _CONTROL_CONTRASTS,
    ),
    Study(
      "table2",
      "Table 2, without Ego-Exo weights: Charades-Ego, SlowFast-R101",
      _methods(_table(_MAP, fpv_only=27.4, typical_cl=27.9, triplet=28.1, sum_l=28.5)),
      _PRIMARY,
    ),
    Study(
      "table2_ee",
      "Table 2, from Ego-Exo weights: Charades-Ego, SlowFast-R101",
      _methods(_table(_MAP, fpv_only=29.5, typical_cl=29.1, triplet=28.6, sum_l=30.7)),
      _PRIMARY,
    ),
    Study(
      "table3",
      "Table 3, without Ego-Exo weights: EPIC-KITCHENS-55, SlowFast-R50",
      _methods(
        _table(
          _TOP1,
          fpv_only=(63.1, 48.4),
          typical_cl=(63.9, 49.6),
          triplet=(63.9, 48.8),
          sum_l=(65.0, 49.5),
        )
      ),
      _PRIMARY,
    ),
    Study(
      "table3_ee",
      "Table 3, from Ego-Exo weights: EPIC-KITCHENS-55, SlowFast-R50",
      _methods(
        _table(
          _TOP1,
          fpv_only=(65.8, 49.5),
          typical_cl=(63.8, 48.4),
          triplet=(63.9, 49.6),
          sum_l=(66.7, 50.2),
        )
      ),
      _PRIMARY,
    ),
    Study(
      "table4",
      "Table 4: EPIC-KITCHENS-100 validation, SlowFast-R101 from Ego-Exo weights",
      _methods(_table(_TOP1, sum_l=(67.0, 53.4))),
      _PRIMARY,
    ),
    Study(
      "table5",
      "Table 5: alignment terms",
      _TERMS,
      ("aw_m", "fpv_only"),
      (("aw_m", "a_m"), ("aw_m", "none")),
    ),
    Study(
      "table6",
      "Table 6: where the exo encoder comes from",
      _EXO_ENCODERS,
      ("original", "fpv_only"),
      (("original", "same_init"), ("original", "frozen")),
    ),
    Study(
      "exo_start",
      "What carries more from the exo data than their encoder's weights",
      _EXO_START,
      ("sum_l", "fpv_only"),
      tuple((row.name, "m") for row in _EXO_START[2:]),
    ),
    Study(
      "switches", "Beyond the paper: switches of the objective", _SWITCHES, ("graded", "sum_l")
    ),
  )
}


def read(name: str) -> Study:
  """A study by name, or from a JSON file of one's own.

  The file has the attributes of `Study` and `Row` as keys; `name` is that of
  the file.

  Args:
    name: one of `STUDIES`, or a path that ends in .json.

  Raises:
    ValueError: neither; or a file that isn't as described.
    FileNotFoundError: no such file.
  """
  if not name.endswith(".json"):
    if name not in STUDIES:
      raise ValueError(
        f"--study must be one of {', '.join(STUDIES)} or a .json file, got {name!r}."
      )
    return STUDIES[name]
  path = pathlib.Path(name)
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = tuple(Row(**row) for row in content.pop("rows"))
    content["primary"] = tuple(content["primary"])
    content["contrasts"] = tuple(map(tuple, content.get("contrasts", ())))
    return Study(**{"name": path.stem, "title": path.stem, **content}, rows=rows)
  except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(
      f"{name} doesn't describe a study ({error!r}). It must be JSON like"
      ' {"primary": ["sum_l", "fpv_only"], "rows": [{"name": "fpv_only",'
      ' "label": "FPV only", "arguments": {"method": "fpv_only"}},'
      ' {"name": "sum_l", "label": "SUM-L", "fields": {"loss.sigma":'
      " 0.2}}]}."
    ) from error
