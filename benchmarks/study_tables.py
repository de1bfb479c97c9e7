"""Makes the tables of docs/experiments.md and README.md from committed results of studies.

  python -m benchmarks.study_tables          # writes summaries and pages again
  python -m benchmarks.study_tables --check  # ends with 1 where they differ

`benchmarks/results/study_NAME_by_seed.csv` holds the numbers of single runs, as
`sum_l_jax study` writes them (`table_by_seed.csv` of its workdir), and
`study_NAME_plan.json` its `study.json`, with the runs that are still to be made, by
row, as `not_run`. The summaries `study_NAME.csv` and `.md` are made from these two.
Of the first seven studies only the summaries were kept: their tables are made from
`study_NAME.csv`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import csv
import dataclasses
import json
import pathlib
import sys

from benchmarks import page_tables
from sum_l_jax.tools.study import study_rows
from sum_l_jax.tools.study import study_table

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = pathlib.Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "experiments.md"
README = ROOT / "README.md"
BY_SEED = "_by_seed.csv"

# Row and, for a difference, the row that it is compared with.
Key = tuple[str, str]
# The same in a study of its own, where a table shows several.
InStudy = tuple[str, str, str]
_COLUMNS = {
  "verb_top1": "verb",
  "noun_top1": "noun",
  "action_top1": "action",
  "action_top1_unseen": "action, unseen combinations",
}
_WITHOUT_UNSEEN = ("verb_top1", "noun_top1", "action_top1")


@dataclasses.dataclass(frozen=True)
class PageTable:
  """A table of the page.

  Attributes:
    study: name of the study.
    lines: text of each line, and what it shows; a third name is the study of the line.
    head: text above the first column.
    spread: whether means have their standard deviation.
    columns: metrics.
    best: metric whose highest mean is bold.
  """

  study: str
  lines: Mapping[str, Key | InStudy]
  head: str = ""
  spread: bool = True
  columns: Sequence[str] = tuple(_COLUMNS)
  best: str = ""

  def places(self) -> dict[str, tuple[str, Key]]:
    """The study of each line, and what the line shows of it."""
    return {
      label: (line[2] if len(line) == 3 else self.study, (line[0], line[1]))
      for label, line in self.lines.items()
    }


def _rows(**labels: str) -> dict[str, Key | InStudy]:
  """Lines of rows alone, label by row."""
  return {label: (row, "") for row, label in labels.items()}


TABLES = {
  "table1": PageTable(
    "table1",
    _rows(
      fpv_only="FPV only",
      typical_cl="Typical CL",
      triplet="Triplet",
      sum_l="SUM-L",
      fpv_only_exo_start="FPV only, from the exo encoder",
      sum_l_exo_start="SUM-L, from the exo encoder",
    ),
  ),
  "table1_differences": PageTable(
    "table1",
    {
      "SUM-L - FPV only (primary: action)": ("sum_l", "fpv_only"),
      "Typical CL - FPV only": ("typical_cl", "fpv_only"),
      "Triplet - FPV only": ("triplet", "fpv_only"),
      "label losses alone - FPV only": ("labels_only", "fpv_only"),
      "FPV only, from the exo encoder - FPV only": ("fpv_only_exo_start", "fpv_only"),
      "SUM-L - FPV only, both from the exo encoder": ("sum_l_exo_start", "fpv_only_exo_start"),
    },
    head="difference",
  ),
  "table5": PageTable(
    "table5",
    {
      "L_aw": ("aw", "fpv_only"),
      "L_aw + L_m (SUM-L; primary: action)": ("aw_m", "fpv_only"),
      "L_a + L_m": ("a_m", "fpv_only"),
      "L_m alone (not in the paper)": ("m", "fpv_only"),
      "L_t alone (not in the paper)": ("none", "fpv_only"),
    },
    head="difference",
  ),
  "table6": PageTable(
    "table6",
    {
      "frozen": ("frozen", "fpv_only"),
      "shared with ego": ("shared", "fpv_only"),
      "initialised like ego": ("same_init", "fpv_only"),
      "original (SUM-L; primary: action)": ("original", "fpv_only"),
    },
    head="difference to FPV only",
  ),
  "switches": PageTable(
    "switches",
    {
      "graded positives (primary: action)": ("graded", "sum_l"),
      "equal narrations are no negatives": ("mask_duplicates", "sum_l"),
      "one of the 5 most similar narrations": ("top_5", "sum_l"),
      "graded positives, mask in L_m": ("graded_mask", "sum_l"),
    },
    head="difference to SUM-L",
  ),
  "exo_start_validation": PageTable(
    "exo_start_validation",
    _rows(
      fpv_only="FPV only",
      m="L_m alone",
      sum_l="SUM-L",
      weights_5="alignment terms times 5",
      aw_1="L_aw with weight 1",
      exo_labels="exo labels with weight 1",
      frozen="exo encoder frozen",
      shared="one encoder for both views",
      shared_labels="one encoder, exo labels with weight 1",
      graded_5="graded positives, alignment terms times 5",
    ),
    head="all from the exo encoder",
    spread=False,
    columns=_WITHOUT_UNSEEN,
    best="action_top1",
  ),
  "exo_start_test": PageTable(
    "exo_start_test",
    {
      "graded times 5 - L_m alone times 5 (primary: action)": ("graded_5", "m_5"),
      "graded times 5 - FPV only": ("graded_5", "fpv_only"),
      "L_m alone times 5 - FPV only": ("m_5", "fpv_only"),
      "L_m alone - FPV only": ("m", "fpv_only"),
      "SUM-L - L_m alone": ("sum_l", "m"),
    },
    head="difference, all from the exo encoder",
  ),
}
_OBJECTIVES = {
  "ego_nce": ("EgoNCE in place of L_m", ("0p1", "0p5", "1")),
  "ego_exo_nce": ("EgoExoNCE, which contains L_m", ("0p1", "0p5", "1")),
  "sup_con": ("L_m, SupCon on labels across views", ("0p02", "0p1", "0p5")),
  "sigmoid": ("L_m, sigmoid on labels across views", ("0p02", "0p1", "0p5")),
  "graded": ("L_m, graded by narrations", ("0p02", "0p1", "0p5")),
  "max_margin": ("L_m, max-margin of pairs", ("0p1", "0p5", "2")),
  "adaptive": ("L_m, adaptive max-margin of pairs", ("0p1", "0p5", "2")),
}
_LAGTRAN = {"lagtran": ("L_m, exo labels by narrations (LaGTran)", ("0p1", "0p3", "1"))}


def _baselines(suffix: str) -> dict[str, Key]:
  """The rows that every objective is compared with."""
  names = {"fpv_only": "FPV only", "m": "L_m alone", "sum_l": "SUM-L"}
  if "_one" in suffix:  # FPV only has one encoder wherever it stands.
    names = {"m": "L_m alone", "m_paper": "L_m alone, the paper's weight", "sum_l": "SUM-L"}
  return {label: (f"{name}{suffix}", "") for name, label in names.items()}


for _suffix, _objectives, _head in (
  # With two encoders LaGTran's labels don't reach the ego encoder.
  ("_exo", _OBJECTIVES, "all from the exo encoder"),
  ("_one", {**_OBJECTIVES, **_LAGTRAN}, "all with one encoder"),
):
  TABLES[f"objectives_validation{_suffix}"] = PageTable(
    f"objectives_validation{_suffix}",
    {
      **_baselines(_suffix),
      **{
        f"{label}, {weight.replace('p', '.')}": (f"{name}{_suffix}_{weight}", "")
        for name, (label, weights) in _objectives.items()
        for weight in weights
      },
    },
    head=_head,
    spread=False,
    columns=_WITHOUT_UNSEEN,
    best="action_top1",
  )
for _suffix, _objectives, _head in (
  ("", _OBJECTIVES, "all from the common pretraining"),
  ("_exo", _OBJECTIVES, "all from the exo encoder"),
  ("_one", {**_OBJECTIVES, **_LAGTRAN}, "all with one encoder"),
  ("_one_exo", {**_OBJECTIVES, **_LAGTRAN}, "all with one encoder, from the exo encoder"),
):
  _place = f"objectives{_suffix or '_common'}"
  _names = {label: f"{name}{_suffix}" for name, (label, _) in _objectives.items()}
  TABLES[_place] = PageTable(
    "objectives",
    {**_baselines(_suffix), **{label: (name, "") for label, name in _names.items()}},
    head=_head,
  )
  _names = {"SUM-L": f"sum_l{_suffix}", **_names}
  for _part, _against, _words in (
    ("differences", "m", ""),
    ("paper_differences", "m_paper", " with the paper's weight"),
  ):
    if (f"{_against}{_suffix}", "") in _baselines(_suffix).values():
      TABLES[f"{_place}_{_part}"] = PageTable(
        "objectives",
        {
          label + (" (primary: action)" if name == "sup_con_exo" else ""): (
            name,
            f"{_against}{_suffix}",
          )
          for label, name in _names.items()
        },
        head=f"difference to L_m alone{_words}",
      )
TABLES["objectives_starts"] = PageTable(
  "objectives",
  {
    "L_m alone, two encoders": ("m_exo", "m"),
    "L_m alone, one encoder": ("m_one_exo", "m_one"),
    "L_m alone with the paper's weight, one encoder": ("m_paper_one_exo", "m_paper_one"),
    "FPV only": ("fpv_only_exo", "fpv_only"),
  },
  head="from the exo encoder - from the common pretraining",
)
TABLES["objectives_encoders"] = PageTable(
  "objectives",
  {
    "L_m alone, from the common pretraining": ("m_one", "m"),
    "L_m alone, from the exo encoder": ("m_one_exo", "m_exo"),
  },
  head="one encoder - two encoders",
)
for _study_name in ("vit_tiny", "vit_tiny_frozen"):
  TABLES[_study_name] = PageTable(
    _study_name,
    _rows(
      fpv_only="FPV only",
      typical_cl="Typical CL",
      triplet="Triplet",
      sum_l="SUM-L",
      m="L_m alone",
    ),
  )
  TABLES[f"{_study_name}_differences"] = PageTable(
    _study_name,
    {
      "SUM-L - FPV only (primary: action)": ("sum_l", "fpv_only"),
      "Typical CL - FPV only": ("typical_cl", "fpv_only"),
      "Triplet - FPV only": ("triplet", "fpv_only"),
      "L_m alone - FPV only": ("m", "fpv_only"),
      "SUM-L - L_m alone": ("sum_l", "m"),
    },
    head="difference",
  )


README_TABLES = {
  "gains": PageTable(
    "table1",
    {
      "SUM-L": ("sum_l", "fpv_only"),
      "L_m alone, which sees no exo clip": ("m", "fpv_only", "table5"),
      "SUM-L with one encoder for both views": ("shared", "fpv_only", "table6"),
      "SUM-L, both from the exo encoder": ("sum_l_exo_start", "fpv_only_exo_start"),
      "L_m alone times 5, both from the exo encoder": ("m_5", "fpv_only", "exo_start_test"),
      "SUM-L, vision transformer": ("sum_l", "fpv_only", "vit_tiny"),
      "L_m alone, vision transformer": ("m", "fpv_only", "vit_tiny"),
    },
    head="over first-person training alone",
    columns=_WITHOUT_UNSEEN,
  ),
}


def read_summary(path: pathlib.Path) -> dict[Key, dict[str, study_table.Summary]]:
  """Reads `study_NAME.csv`: summaries by metric, of rows and differences."""
  found: dict[Key, dict[str, study_table.Summary]] = {}
  with path.open(encoding="utf-8", newline="") as file:
    for line in csv.DictReader(file):
      summary = {k: float(line[k]) if line[k] else None for k in ("mean", "sd", "low", "high")}
      values = found.setdefault((line["row"], line["against"]), {})
      values[line["metric"]] = {"count": int(line["seeds"]), **summary}
  return found


def _cell(table: PageTable, key: Key, summary: study_table.Summary, best: bool) -> str:
  if key[1]:
    null = not summary["mean"] and not summary["sd"]
    return "0" if null else study_table.difference_cell(summary)
  text = study_table.mean_cell(summary if table.spread else {**summary, "sd": None})
  return f"**{text}**" if best else text


def page_table(table: PageTable) -> str:
  """A table of the page, in Markdown."""
  places = table.places()
  read = {study: read_summary(RESULTS / f"study_{study}.csv") for study, _ in places.values()}
  summaries = {label: read[study][key] for label, (study, key) in places.items()}
  top = max(row[table.best]["mean"] for row in summaries.values()) if table.best else 0
  text = [
    f"| {table.head} | {' | '.join(_COLUMNS[name] for name in table.columns)} |".replace(
      "|  |", "| |"
    ),
    "|" + "---|" * (1 + len(table.columns)),
  ]
  for label, (_, key) in places.items():
    values = summaries[label]
    cells = [
      _cell(table, key, values[name], name == table.best and values[name]["mean"] == top)
      for name in table.columns
    ]
    text.append(f"| {label} | {' | '.join(cells)} |")
  return "\n".join(text) + "\n"


def seeds_table(study: str) -> str:
  """The primary metric of each run of a study, in percent."""
  plan = json.loads((RESULTS / f"study_{study}_plan.json").read_text(encoding="utf-8"))
  results = read_by_seed(study)
  labels = {row.name: row.label for row in _study(study, plan).rows}
  seeds = sorted({seed for runs in results.values() for seed in runs})
  text = [f"| | {' | '.join(f'seed {seed}' for seed in seeds)} |", "|" + "---|" * (1 + len(seeds))]
  for row, runs in results.items():
    cells = [
      study_table.mean_cell({"mean": runs[seed][plan["primary_metric"]], "sd": None})
      if seed in runs
      else "-"
      for seed in seeds
    ]
    text.append(f"| {labels[row]} | {' | '.join(cells)} |")
  return "\n".join(text) + "\n"


def read_by_seed(study: str) -> study_table.Results:
  """The committed numbers of a study's runs."""
  path = RESULTS / f"study_{study}{BY_SEED}"
  return study_table.read_csv_by_seed(path.read_text(encoding="utf-8"))


def studies_by_seed() -> list[str]:
  """The studies whose runs' numbers are committed."""
  paths = sorted(RESULTS.glob(f"study_*{BY_SEED}"))
  return [path.name.removeprefix("study_").removesuffix(BY_SEED) for path in paths]


def _study(name: str, plan: Mapping[str, object]) -> study_rows.Study:
  """The study with the rows of its plan."""
  return study_rows.read(str(plan.get("study", name))).with_rows(plan["rows"])


def summaries(study: str) -> dict[pathlib.Path, str]:
  """`study_NAME.csv` and `.md`, made from the numbers of its runs."""
  plan = json.loads((RESULTS / f"study_{study}_plan.json").read_text(encoding="utf-8"))
  about = {name: plan[name] for name in ("split", "primary_metric")}
  table = study_table.build(
    _study(study, plan),
    read_by_seed(study),
    # The rows of the committed studies are of rendered clips.
    about={**about, "compare_with_paper": False, "command": plan.get("command", "")},
  )
  return {
    RESULTS / f"study_{study}.csv": study_table.as_csv(table),
    RESULTS / f"study_{study}.md": study_table.as_markdown(table),
  }


def pages() -> dict[pathlib.Path, str]:
  """The pages with their tables."""
  tables = {name: page_table(table) for name, table in TABLES.items()}
  tables |= {f"{name}_by_seed": seeds_table(name) for name in studies_by_seed()}
  first = {name: page_table(table) for name, table in README_TABLES.items()}
  return {PAGE: page_tables.fill(PAGE, tables), README: page_tables.fill(README, first)}


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  parser = argparse.ArgumentParser(
    "python -m benchmarks.study_tables", description=__doc__.splitlines()[0]
  )
  parser.add_argument("--check", action="store_true", help="write nothing")
  check = parser.parse_args(arguments).check
  # Summaries first: the pages are made from them.
  changed = []
  for study in studies_by_seed():
    changed += page_tables.put(summaries(study), check)
  changed += page_tables.put(pages(), check)
  return page_tables.report(changed, ROOT, check)


if __name__ == "__main__":
  sys.exit(main())
