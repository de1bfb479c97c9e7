r"""Says what is wrong with built clip data sets, before a training run does.

  python -m data_prep.doctor data/ego data/exo \
      --narrations=data/narrations.npz --pairs=data/pairs.npz

  # after copying: are all frames, byte for byte, those that were written?
  python -m data_prep.doctor data/ego data/exo --verify

  # decode the first and last frame of every clip, and list those that fail:
  python -m data_prep.doctor data/ego --deep --skip_list=data/ego_skip.txt

The list is for config.ego.skip_list or config.exo.skip_list. Make one for each
view, since ids are unique only within a data set. The exit status is 0 without
errors (warnings don't count), 1 with errors, and 2 after wrong usage.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import json
import sys
import textwrap

from etils import epath

from data_prep.checks import index_checks
from data_prep.checks import official_checks
from data_prep.checks import shard_checks
from data_prep.checks import table_checks
from sum_l_jax.data import finding
from sum_l_jax.data import records
from sum_l_jax.data.finding import Finding
from sum_l_jax.system import addresses
from sum_l_jax.system import command_line
from sum_l_jax.system import storage

_WIDTH = 88

Findings = list[Finding]


# Checks of a data set as a whole, by name; and those of the official ones.
_OF_ALL_SPLITS = {
  "nothing skipped": official_checks.check_skipped,
  "class names": index_checks.check_class_names,
  "variety": index_checks.check_variety,
  "narrations differ": index_checks.check_narrations_differ,
  "rates": index_checks.check_rates,
}
_OF_OFFICIAL = {
  "all clips": official_checks.check_total,
  "class lists": official_checks.check_class_lists,
  "quirks": official_checks.check_quirks,
}


def _run_check(name: str, found: Iterable[Finding], split: str = "") -> Findings:
  """What a check found, or one finding that says that all is well."""
  found = list(found) or [Finding.ok(name)]
  return [dataclasses.replace(f, split=f.split or split) for f in found]


def examine_dataset(
  directory: epath.Path,
  *,
  frames: int = 0,
  deep: bool = False,
  verify: bool = False,
  known: frozenset[str] | None = None,
) -> tuple[index_checks.Splits, Findings]:
  """Runs all checks of one data set.

  Args:
    directory: folder of the data set.
    frames: number of frames; clips with fewer are counted. 0 is off.
    deep: whether both ends of every clip are decoded.
    verify: whether all shards are read and compared with the digests taken when
      they were written.
    known: narrations that have a vector; None leaves that check out.

  Returns:
    The splits that can be read, and the findings.
  """
  splits, findings = index_checks.open_splits(directory)
  predicted = records.read_card(directory).get("unlabelled", ()) if splits else ()
  for split, data in splits.items():
    steps = {
      "number": official_checks.check_number(data),
      "order": index_checks.check_order(data),
      "records": shard_checks.check_records(data),
      "shards": shard_checks.check_files(data),
    }
    if data.labelled:
      steps["labels"] = index_checks.check_labels(data)
    if data.labelled or (not data.tasks and split not in predicted):
      steps["narrations"] = index_checks.check_narrations(data)
    steps["ids"] = index_checks.check_ids(data)
    if frames:
      steps["length"] = index_checks.check_length(data, frames)
    if known is not None and (data.labelled or data.narrated):
      steps["vectors"] = table_checks.check_embedded(data, known)
    steps[shard_checks.FRAMES] = shard_checks.check_frames(data, deep)
    if verify:
      steps[shard_checks.CONTENT] = shard_checks.check_content(data)
    for name, step in steps.items():
      findings += _run_check(name, step, split)
  if splits:
    official = official_checks.is_official(next(iter(splits.values())))
    for name, check in (_OF_ALL_SPLITS | (_OF_OFFICIAL if official else {})).items():
      findings += _run_check(name, check(splits))
  if len(splits) > 1:
    findings += _run_check("classes", index_checks.check_classes(splits))
    findings += _run_check("leakage", index_checks.check_leakage(splits))
  return splits, _of(directory, findings)


def _of(path: epath.Path, findings: Iterable[Finding]) -> Findings:
  """The findings, as those of a folder or file."""
  return [dataclasses.replace(f, dataset=str(path)) for f in findings]


def examine(
  directories: Sequence[epath.Path],
  *,
  narrations: epath.Path | None = None,
  pairs: epath.Path | None = None,
  frames: int = 0,
  deep: bool = False,
  verify: bool = False,
) -> Findings:
  """Examines data sets and the tables made of them.

  Args:
    directories: folders of the data sets.
    narrations: the narration table.
    pairs: the pair table; it needs `narrations`.
    frames: see `examine_dataset`.
    deep: see `examine_dataset`.
    verify: see `examine_dataset`.

  Returns:
    All findings, also the good ones.

  Raises:
    ValueError: pairs are not mined for such data sets.
    OSError: a file or folder is not there.
  """
  known, about_texts = table_checks.read_narrations(narrations) if narrations else (None, [])
  if pairs:
    _check_views(directories)
  findings, opened = [], []
  for directory in directories:
    splits, found = examine_dataset(directory, frames=frames, deep=deep, verify=verify, known=known)
    findings += found
    opened.append(splits)
  findings += _check_together(directories, opened)
  if narrations:
    findings += _of(narrations, _run_check("vectors", about_texts))
  if pairs and narrations:
    found = _pairs(pairs, opened, narrations)
    findings += _of(pairs, _run_check("pairs", found))
  return findings


def _check_together(
  directories: Sequence[epath.Path], opened: Sequence[index_checks.Splits]
) -> Iterator[Finding]:
  """Checks what shows only where data sets of one view train together."""
  views: dict[str, list[tuple[epath.Path, index_checks.Splits]]] = {}
  for directory, splits in zip(directories, opened, strict=True):
    if splits:
      views.setdefault(next(iter(splits.values())).view, []).append((directory, splits))
  for members in views.values():
    if len(members) > 1:
      together = ", ".join(str(path) for path, _ in members)
      for found in index_checks.check_pools([splits for _, splits in members]):
        yield dataclasses.replace(found, dataset=together)


def _check_views(directories: Sequence[epath.Path]) -> None:
  """Raises ValueError for the wrong data sets, before hours of decoding."""
  opened = [index_checks.open_splits(directory)[0] for directory in directories]
  if all(opened):
    table_checks.check_views(opened)


def _pairs(
  path: epath.Path, opened: Sequence[index_checks.Splits], narrations: epath.Path
) -> Iterator[Finding]:
  if all(opened):
    return table_checks.check_pairs(path, opened, narrations)
  text = "Not checked, since a data set can't be read. Mend that first."
  return iter([Finding.error("belongs", text)])


def as_text(findings: Sequence[Finding]) -> str:
  """The report for people: by data set, with the good checks of a split in one line."""
  lines = []
  for dataset in dict.fromkeys(f.dataset for f in findings):
    here = [f for f in findings if f.dataset == dataset]
    lines.append(dataset)
    for split in dict.fromkeys(f.split for f in here):
      of_split = [f for f in here if f.split == split]
      passed = [
        f"{f.check} ({f.message})" if f.message else f.check
        for f in of_split
        if f.severity == finding.OK
      ]
      label = f"{split}: " if split else ""
      if passed:
        lines += _wrap(finding.OK, label + ", ".join(passed))
      for f in of_split:
        if f.severity != finding.OK:
          lines += _wrap(f.severity, f"{label}{f.check}: {f.message}")
  errors, warnings = (
    sum(f.severity == severity for f in findings) for severity in (finding.ERROR, finding.WARNING)
  )
  return "\n".join([*lines, f"{errors} error(s), {warnings} warning(s)"])


def _wrap(severity: str, text: str) -> list[str]:
  return textwrap.wrap(
    text,
    _WIDTH,
    initial_indent=f"  {severity:<8} ",
    subsequent_indent=" " * 11,
    break_long_words=False,
    break_on_hyphens=False,
  )


def as_json(findings: Sequence[Finding]) -> list[dict]:
  """The errors and warnings as JSON values, each with at most `finding.MOST_CLIPS` ids."""
  return [
    {**dataclasses.asdict(f), "clips": list(f.clips[: finding.MOST_CLIPS])}
    for f in findings
    if f.severity != finding.OK
  ]


def skipped_clips(findings: Sequence[Finding]) -> list[str]:
  """The ids of the clips that can't be decoded, in order, each once."""
  undecodable = [
    f for f in findings if (f.check, f.severity) == (shard_checks.FRAMES, finding.ERROR)
  ]
  return list(dict.fromkeys(clip for f in undecodable for clip in f.clips))


def make_parser() -> argparse.ArgumentParser:
  """The options of the command."""
  parser = command_line.make_parser("data_prep.doctor", __doc__)
  add = parser.add_argument
  add(
    "directories",
    nargs="+",
    type=epath.Path,
    metavar="DIR",
    help="folders of data_prep.build_dataset",
  )
  add(
    "--narrations",
    type=epath.Path,
    metavar="FILE.npz",
    help="table written by data_prep.embed_narrations",
  )
  add(
    "--pairs",
    type=epath.Path,
    metavar="FILE.npz",
    help="table written by data_prep.mine_pairs from these data sets, the exo ones"
    " in the same order; needs --narrations",
  )
  add(
    "--frames",
    type=int,
    default=0,
    metavar="N",
    help="count clips with fewer frames (config.frames.count * stride)",
  )
  add(
    "--deep",
    action="store_true",
    help="decode the first and last frame of every clip (default: the first"
    f" of every {shard_checks.SAMPLE_EVERY}th clip)",
  )
  add(
    "--verify",
    action="store_true",
    help="read all shards, and compare every clip's frames with the digest taken"
    " when they were written",
  )
  add("--report", type=epath.Path, metavar="FILE.json", help="file of the errors and warnings")
  add(
    "--skip_list",
    type=epath.Path,
    metavar="FILE.txt",
    help="file of the ids of undecodable clips, one a line",
  )
  return parser


def _check_options(args: argparse.Namespace) -> None:
  """Raises ValueError or FileNotFoundError for options that can't be followed."""
  for path in args.directories:
    if not storage.is_dir(path):
      raise FileNotFoundError(
        f"There is no folder {str(path)!r}. Give folders that `python -m"
        " data_prep.build_dataset --output=DIR` wrote."
      )
  if len({addresses.resolved(path) for path in args.directories}) < len(args.directories):
    raise ValueError("A folder is given twice. Give each data set once.")
  if args.pairs and not args.narrations:
    raise ValueError("--pairs needs --narrations, the table they were mined with.")
  if args.frames < 0:
    raise ValueError(f"--frames must be 0 or more, got {args.frames}.")
  for option in ("narrations", "pairs"):
    path = getattr(args, option)
    if path and not storage.is_file(path):
      raise FileNotFoundError(f"--{option}: there is no file {str(path)!r}.")
  for path in filter(None, (args.report, args.skip_list)):
    storage.make_folder(path.parent)


def diagnose(args: argparse.Namespace) -> Findings:
  """Runs the command; errors as in `examine`."""
  _check_options(args)
  findings = examine(
    args.directories,
    narrations=args.narrations,
    pairs=args.pairs,
    frames=args.frames,
    deep=args.deep,
    verify=args.verify,
  )
  print(as_text(findings))
  if args.report:
    text = json.dumps(as_json(findings), indent=1, ensure_ascii=False)
    storage.write_text(args.report, text + "\n")
  if args.skip_list:
    ids = skipped_clips(findings)
    lines = "".join(f"{clip}\n" for clip in ids)
    storage.write_text(args.skip_list, lines)
    note = "" if args.deep else "; complete only with --deep"
    print(f"wrote {args.skip_list}: {len(ids)} clips{note}")
  return findings


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: arguments; None takes those of the process.

  Returns:
    The exit status: 0, 1 if errors were found, or 2 after wrong usage.
  """
  findings: Findings = []
  status = command_line.run(make_parser(), lambda args: findings.extend(diagnose(args)), argv)
  return status or int(any(f.severity == finding.ERROR for f in findings))


if __name__ == "__main__":
  sys.exit(main())
