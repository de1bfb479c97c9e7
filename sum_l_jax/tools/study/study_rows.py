"""The paper's tables as data: which runs, compared with which.

A row is a set of config arguments and fields on top of the config file that
the study is given. Figures of the paper are in percent, from its Tables 1 to 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools

from sum_l_jax import loss_options
from sum_l_jax.system import addresses
from sum_l_jax.system import checked_json
from sum_l_jax.system import storage

Figures = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a table.

  Attributes:
    name: name of its runs' folders.
    label: name in the table.
    arguments: arguments of the config file, such as {"method": "sum_l"}.
    fields: fields of the config, such as {"loss.mask_duplicates": 0.99}.
    exo_start: whether the ego encoder starts from stage one, too.
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
    name: name on the command line.
    title: title above the table.
    rows: rows in order; all others are compared with the first.
    primary: the one comparison that the study is for; None where its rows aren't all
      here.
    contrasts: further comparisons, (row, with which row).
  """

  name: str
  title: str
  rows: tuple[Row, ...]
  primary: tuple[str, str] | None
  contrasts: tuple[tuple[str, str], ...] = ()

  def __post_init__(self) -> None:
    names = [row.name for row in self.rows]
    if len(names) < 2 or len(set(names)) < len(names):
      raise ValueError(
        f"Study {self.name!r} needs two rows or more with different names, got {names}."
      )
    for pair in self._named():
      unknown = set(pair) - set(names)
      if unknown or len(set(pair)) < 2:
        raise ValueError(
          f"Study {self.name!r}: a comparison must name two of the rows {names}, got {tuple(pair)}."
        )

  def _named(self) -> tuple[tuple[str, str], ...]:
    return (self.primary, *self.contrasts) if self.primary else self.contrasts

  def comparisons(self) -> list[tuple[str, str]]:
    """Lists every (row, with which row), the primary one first."""
    baseline = self.rows[0].name
    first = [self.primary] if self.primary else []
    pairs = [(row.name, baseline) for row in self.rows[1:]]
    return list(dict.fromkeys([*first, *pairs, *self.contrasts]))

  def with_rows(self, wanted: Sequence[str]) -> Study:
    """The study with some of its rows; all where none are named.

    What was chosen as the primary comparison stays it, or there is none: no other
    comparison becomes it because of the rows that were run.

    Raises:
      ValueError: a row is unknown; lists those that there are.
    """
    if not wanted:
      return self
    known = [row.name for row in self.rows]
    unknown = set(wanted) - set(known)
    if unknown:
      raise ValueError(f"--rows: {sorted(unknown)} are not among the rows {known} of {self.name}.")
    rows = tuple(row for row in self.rows if row.name in wanted)
    kept = {row.name for row in rows}
    primary = self.primary if self.primary and kept.issuperset(self.primary) else None
    contrasts = tuple(pair for pair in self.contrasts if kept.issuperset(pair))
    return dataclasses.replace(self, rows=rows, primary=primary, contrasts=contrasts)


_MAP = ("action_map_sklearn",)
_TOP1 = ("verb_top1", "noun_top1")
# Table 1 has two data sets; metrics that a run lacks have no column.
_BOTH = ("action_map_sklearn", "verb_top1", "verb_top5", "noun_top1", "noun_top5")
_METHODS = {
  "fpv_only": "FPV only",
  "typical_cl": "Typical CL",
  "triplet": "Triplet",
  "sum_l": "SUM-L",
}


def _methods(metrics: Sequence[str], *figures: Sequence[float]) -> tuple[Row, ...]:
  """The rows of the methods, with their figures of the metrics in this order."""
  return tuple(
    Row(name, label, {"method": name}, paper=dict(zip(metrics, values)))
    for (name, label), values in zip(_METHODS.items(), figures)
  )


def _map(percent: float) -> Figures:
  """The figure of a row whose table has mAP alone."""
  return {"action_map_sklearn": percent}


# The exo encoder's start is left to the config.
_own_start = functools.partial(Row, exo_from_stage_one=False)
# The ego encoder starts from the exo encoder.
_exo_start = functools.partial(Row, exo_start=True)

# What a sceptic asks for beside Table 1.
_CONTROLS = (
  Row("labels_only", "both label losses alone (L_f, L_t)", {"terms": "none"}),
  _exo_start("fpv_only_exo_start", "FPV only, from the exo encoder", {"method": "fpv_only"}),
  _exo_start("sum_l_exo_start", "SUM-L, from the exo encoder", {"method": "sum_l"}),
)
_CONTROL_CONTRASTS = (("sum_l", "labels_only"), ("sum_l_exo_start", "fpv_only_exo_start"))
_PRIMARY = ("sum_l", "fpv_only")

_TABLE_1 = _methods(
  _BOTH,
  (24.7, 61.1, 87.1, 45.8, 70.4),
  (25.1, 60.5, 86.2, 45.3, 68.6),
  (25.2, 61.5, 86.8, 45.7, 69.7),
  (26.3, 62.3, 87.2, 47.3, 70.9),
)
_TERMS = (
  Row("fpv_only", "FPV only", {"method": "fpv_only"}, paper=_map(24.7)),
  Row("aw", "L_aw", {"terms": "aw"}, paper=_map(25.6)),
  Row("aw_m", "L_aw + L_m", {"terms": "aw_m"}, paper=_map(26.3)),
  Row("a_m", "L_a + L_m", {"terms": "a_m"}, paper=_map(26.1)),
  Row("m", "L_m (not in the paper)", {"terms": "m"}),
  Row("none", "L_t alone (not in the paper)", {"terms": "none"}),
)
_EXO_ENCODERS = (
  Row("fpv_only", "FPV only", {"method": "fpv_only"}, paper=_map(24.7)),
  Row("frozen", "frozen", {"exo_encoder": "frozen"}, paper=_map(25.8)),
  _own_start("shared", "shared with ego", {"exo_encoder": "shared"}, paper=_map(25.3)),
  _own_start("same_init", "initialised like ego", {"exo_encoder": "same_init"}, paper=_map(26.1)),
  Row("original", "original", {"exo_encoder": "original"}, paper=_map(26.3)),
)
_GRADED = {"loss.cross_view": "graded"}
_MASK = {"loss.mask_duplicates": 0.99}
_SWITCHES = (
  Row("sum_l", "SUM-L"),
  Row("graded", "graded positives", fields=_GRADED),
  Row("mask_duplicates", "equal narrations are no negatives", fields=_MASK),
  Row("top_5", "one of the 5 most similar narrations", fields={"pairs.top_k": 5}),
  # Graded positives are never negatives: the mask acts on L_m alone.
  Row("graded_mask", "graded positives, mask in L_m", fields=_GRADED | _MASK),
)
# The weights of the alignment terms in Eq. 12, times 5.
_TIMES_5 = {
  f"loss.weights.{term}": 5.0 * loss_options.WEIGHTS[term]
  for term in ("ego_exo", "ego_text", "exo_text")
}
_EXO_LABELS = {"loss.weights.exo_cls": 1.0}
_SHARED = {"exo_encoder": "shared"}
# All start the ego encoder from the exo encoder, which carries more than any
# loss: what does a joint training add to that?
_EXO_START = (
  _exo_start("fpv_only", "FPV only", {"method": "fpv_only"}),
  # Narrations are fixed vectors: here no exo clip reaches the ego encoder.
  _exo_start("m", "L_m alone", {"terms": "m"}),
  _exo_start("sum_l", "SUM-L", {"method": "sum_l"}),
  _exo_start("weights_5", "alignment terms times 5", fields=_TIMES_5),
  _exo_start("aw_1", "L_aw with weight 1", fields={"loss.weights.ego_exo": 1.0}),
  _exo_start("exo_labels", "exo labels with weight 1", fields=_EXO_LABELS),
  _exo_start("frozen", "exo encoder frozen", {"exo_encoder": "frozen"}),
  _own_start("shared", "one encoder for both views", _SHARED, exo_start=True),
  _own_start(
    "shared_labels", "one encoder, exo labels with weight 1", _SHARED, _EXO_LABELS, exo_start=True
  ),
  _exo_start("graded_5", "graded positives, alignment terms times 5", fields=_GRADED | _TIMES_5),
)
_TABLE_2 = "Charades-Ego, SlowFast-R101"
_TABLE_3 = "EPIC-KITCHENS-55, SlowFast-R50"

STUDIES: Mapping[str, Study] = {
  study.name: study
  for study in (
    Study(
      "table1",
      "Table 1: methods, and controls",
      (*_TABLE_1, *_CONTROLS),
      _PRIMARY,
      _CONTROL_CONTRASTS,
    ),
    Study(
      "table2",
      f"Table 2, without Ego-Exo weights: {_TABLE_2}",
      _methods(_MAP, (27.4,), (27.9,), (28.1,), (28.5,)),
      _PRIMARY,
    ),
    Study(
      "table2_ee",
      f"Table 2, from Ego-Exo weights: {_TABLE_2}",
      _methods(_MAP, (29.5,), (29.1,), (28.6,), (30.7,)),
      _PRIMARY,
    ),
    Study(
      "table3",
      f"Table 3, without Ego-Exo weights: {_TABLE_3}",
      _methods(_TOP1, (63.1, 48.4), (63.9, 49.6), (63.9, 48.8), (65.0, 49.5)),
      _PRIMARY,
    ),
    Study(
      "table3_ee",
      f"Table 3, from Ego-Exo weights: {_TABLE_3}",
      _methods(_TOP1, (65.8, 49.5), (63.8, 48.4), (63.9, 49.6), (66.7, 50.2)),
      _PRIMARY,
    ),
    Study(
      "table4",
      "Table 4: EPIC-KITCHENS-100 validation, SlowFast-R101 from Ego-Exo weights",
      _methods(_TOP1, (), (), (), (67.0, 53.4)),
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
      _PRIMARY,
      tuple((row.name, "m") for row in _EXO_START[2:]),
    ),
    Study(
      "switches", "Beyond the paper: switches of the objective", _SWITCHES, ("graded", "sum_l")
    ),
  )
}


def read(name: str) -> Study:
  """Finds a study by name, or reads a JSON file of the user's own.

  The file has the attributes of `Study` and `Row` as keys; `name` is the name
  of the file.

  Args:
    name: one of `STUDIES`, or a path that ends in .json.

  Raises:
    ValueError: it is neither, or the file isn't as described.
    FileNotFoundError: no such file.
  """
  if not name.endswith(".json"):
    if name not in STUDIES:
      raise ValueError(
        f"--study must be one of {', '.join(STUDIES)} or a .json file, got {name!r}."
      )
    return STUDIES[name]
  path = addresses.path(name)
  try:
    content = checked_json.decode(storage.read_bytes(path), checked_json.Object)
    checked_json.refuse_unknown(content, Study)
    return checked_json.check({"name": path.stem, "title": path.stem, **content}, Study)
  except checked_json.JsonError as error:
    raise ValueError(
      f"{name} doesn't describe a study ({error}). It must be JSON like"
      ' {"primary": ["sum_l", "fpv_only"], "rows": [{"name": "fpv_only",'
      ' "label": "FPV only", "arguments": {"method": "fpv_only"}},'
      ' {"name": "sum_l", "label": "SUM-L", "fields": {"loss.sigma":'
      " 0.2}}]}."
    ) from error
