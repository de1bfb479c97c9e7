"""Submissions: the official scorer restated, round trips, and refusals."""

from __future__ import annotations

import json
import re
import zipfile

import numpy as np
import pytest
from scipy import special

from sum_l_jax import types
from sum_l_jax.evaluation.labels import evaluate
from sum_l_jax.evaluation.labels import label_metrics
from sum_l_jax.evaluation.labels import result_files
from sum_l_jax.tools.submit import challenges
from sum_l_jax.tools.submit import submission
from sum_l_jax.tools.submit.__main__ import main

COUNT = 60
LEVELS = {"sls_pt": 2, "sls_tl": 3, "sls_td": 5}
FLAGS = [f"--{name}={level}" for name, level in LEVELS.items()]
E100, E55 = challenges.EPIC100, challenges.EPIC55
TASKS = {
  task: types.Task(task, types.SOFTMAX, tuple(map(str, range(classes))))
  for task, classes in E100.classes.items()
}


def draw(seed, *, classes=E100.classes, count=COUNT, labels=None, gain=0.0):
  """Probabilities as a network gives them, better with more gain."""
  rng = np.random.default_rng(seed)
  logits = {t: rng.normal(0, 2, (count, k)) for t, k in classes.items()}
  if labels:
    for task, y in labels.items():
      logits[task][np.arange(count), y] += gain
  return {t: special.softmax(x, axis=1).astype(np.float32) for t, x in logits.items()}


def ids_of(count=COUNT):
  return [f"P{1 + i // 10:02d}_101_{i}" for i in range(count)]


def write_run(folder, scores, *, split="test", ids=None, skipped=(), labels=None):
  """A workdir as evaluation leaves it."""
  folder.mkdir(exist_ok=True)
  ids = ids or ids_of(len(scores["verb"]))
  scores = {t: s.copy() for t, s in scores.items()}
  for values in scores.values():
    values[[ids.index(clip) for clip in skipped]] = np.nan
  labels = labels or {t: np.full(len(ids), -1) for t in scores}
  result_files.write_scores(folder, split, clip_ids=ids, scores=scores, labels=labels)
  path = folder / "result.json"
  content = json.loads(path.read_text()) if path.is_file() else {"splits": {}}
  content["splits"][split] = {"skipped": list(skipped), "metrics": {}}
  path.write_text(json.dumps(content))
  return folder


def official_accuracies(text, labels):
  """The official scorer, restated from its rules, on a JSON file's text.

  Softmax over the 100 highest scores of each task, products of all their
  pairs, the 100 best of which are the actions.
  """
  entries = json.loads(text)["results"].values()
  scores = {
    task: np.array([[e[task][str(c)] for c in range(len(e[task]))] for e in entries])
    for task in ("verb", "noun")
  }
  out = {}
  for task, values in scores.items():
    ranks = values.argsort(axis=1)[:, ::-1]
    for k in (1, 5):
      out[f"{task}_top{k}"] = np.mean((ranks[:, :k] == labels[task][:, None]).any(axis=1))
  hits = {1: [], 5: []}
  for i in range(len(scores["verb"])):
    best, chances = {}, {}
    for task, values in scores.items():
      best[task] = values[i].argsort()[::-1][:100]
      chances[task] = special.softmax(values[i][best[task]])
    products = chances["verb"][:, None] * chances["noun"][None, :]
    order = products.ravel().argsort()[::-1][:100]
    verbs, nouns = np.unravel_index(order, products.shape)
    for k in hits:
      hits[k].append(
        any(
          best["verb"][v] == labels["verb"][i] and best["noun"][n] == labels["noun"][i]
          for v, n in zip(verbs[:k], nouns[:k])
        )
      )
  out.update({f"action_top{k}": np.mean(hit) for k, hit in hits.items()})
  return out


def test_the_file_scores_what_the_evaluation_says(tmp_path):
  """Scores the file of a labelled split."""
  rng = np.random.default_rng(0)
  labels = {t: rng.integers(0, k, COUNT) for t, k in E100.classes.items()}
  scores = draw(1, labels=labels, gain=6.0)
  expected = evaluate.summarise(scores, labels, TASKS, np.ones(COUNT, bool))
  run = write_run(tmp_path / "run", scores, split="validation", labels=labels)
  output = tmp_path / "new" / "submission.zip"
  assert main([str(run), "--split=validation", f"--output={output}", *FLAGS]) == 0
  with zipfile.ZipFile(output) as archive:
    text = archive.read("test.json")
  found = official_accuracies(text, labels)
  assert len(set(found.values())) > 4 and 0 < found["action_top1"] < 1
  for name, value in found.items():
    assert value == pytest.approx(expected[name]), name


def test_the_product_is_the_official_action():
  """Scores are random, with more than 100 nouns; logarithms are needed."""
  rng = np.random.default_rng(8)
  labels = {t: rng.integers(0, 6, 300) for t in E100.classes}
  scores = draw(9, count=300, labels=labels, gain=4.0)
  scored = lambda values: official_accuracies(
    json.dumps(
      {
        "results": {
          str(i): {t: dict(enumerate(x[i].tolist())) for t, x in values.items()} for i in range(300)
        }
      }
    ),
    labels,
  )
  found = scored({t: np.log(s.astype(np.float64)) for t, s in scores.items()})
  assert scored(scores)["action_top5"] != found["action_top5"]
  for k in (1, 5):
    hits = label_metrics.action_hits(scores, labels, k, definition="product")
    assert found[f"action_top{k}"] == hits.mean()


def write_good(path, challenge=E100, levels=LEVELS, count=4):
  members = {
    member: submission.Predictions(
      tuple(ids_of(count)), draw(seed, classes=challenge.classes, count=count)
    )
    for seed, member in enumerate(challenge.members)
  }
  submission.write_submission(path, members, challenge=challenge, supervision=levels)
  return members


@pytest.mark.parametrize("challenge, levels", [(E100, LEVELS), (E55, {})])
def test_round_trip(challenge, levels, tmp_path):
  path = tmp_path / "s.zip"
  members = write_good(path, challenge, levels)
  found = submission.read_submission(path, challenge=challenge)
  assert found.supervision == levels and found.challenge is challenge
  assert list(found.members) == list(challenge.members)
  for member, predictions in members.items():
    again = found.members[member]
    assert again.ids == predictions.ids
    for task, scores in predictions.scores.items():
      np.testing.assert_allclose(
        np.exp(again.scores[task]), scores / scores.sum(axis=1)[:, None], rtol=1e-6
      )
  first = path.read_bytes()
  write_good(path, challenge, levels)
  assert path.read_bytes() == first
  assert [p.name for p in tmp_path.iterdir()] == ["s.zip"]


def test_what_is_written(tmp_path):
  """The literal file, of which a scorer knows nothing but its format."""
  path = tmp_path / "s.zip"
  scores = {t: np.zeros((1, k)) for t, k in E100.classes.items()}
  scores["verb"][0, [3, 5]] = 0.75, 0.25
  scores["noun"][0, 299] = 1.0
  submission.write_submission(
    path,
    {"test.json": submission.Predictions(("P01_101_0",), scores)},
    challenge=E100,
    supervision=LEVELS,
  )
  with zipfile.ZipFile(path) as archive:
    assert archive.namelist() == ["test.json"]
    content = json.loads(archive.read("test.json"))
  results_ = content.pop("results")
  assert content == {"version": "0.2", "challenge": "action_recognition", **LEVELS}
  assert list(results_) == ["P01_101_0"]
  entry = results_["P01_101_0"]
  assert list(entry["verb"]) == [str(c) for c in range(97)]
  assert list(entry["noun"]) == [str(c) for c in range(300)]
  assert (entry["verb"]["3"], entry["verb"]["5"]) == (-0.287682, -1.386294)
  # A probability of 0: that of the smallest float32.
  assert entry["verb"]["0"] == entry["noun"]["0"] == -103.27893
  assert entry["noun"]["299"] == 0


def test_epic55_files_and_ids(tmp_path, capsys):
  """Clips of EPIC-KITCHENS-55 are called video_uid; entries are uids."""
  for seed, split in enumerate(("test_seen", "test_unseen")):
    run = write_run(
      tmp_path / "run",
      draw(seed, classes=E55.classes, count=3),
      split=split,
      ids=[f"P01_11_{1924 + i}" for i in range(3)],
    )
  output = tmp_path / "s.zip"
  arguments = [str(run), "--challenge=epic55", f"--output={output}"]
  assert main([*arguments, *FLAGS]) == 2
  assert "must be left out: the format of epic55" in capsys.readouterr().err
  assert main(arguments) == 0
  with zipfile.ZipFile(output) as archive:
    assert archive.namelist() == ["seen.json", "unseen.json"]
    content = json.loads(archive.read("unseen.json"))
  assert list(content["results"]) == ["1924", "1925", "1926"]
  assert set(content) == {"version", "challenge", "results"}
  assert content["version"] == "0.1"
  for name in ("s1", "s2"):
    (tmp_path / f"{name}.csv").write_text("uid,video_id\n1924,P\n1925,P\n1926,P\n")
  lists = f"{tmp_path / 's1.csv'},{tmp_path / 's2.csv'}"
  check = ["--check", str(output), "--challenge=epic55"]
  assert main([*check, f"--annotations={lists}"]) == 0
  assert main([*check, f"--annotations={tmp_path / 's1.csv'}"]) == 2
  assert "one for each of ['seen.json', 'unseen.json']" in (capsys.readouterr().err)


def tampered(tmp_path, change):
  """Writes a good file, changes its content, writes it back."""
  path = tmp_path / "s.zip"
  write_good(path)
  with zipfile.ZipFile(path) as archive:
    content = json.loads(archive.read("test.json"))
  text = change(content)
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("test.json", json.dumps(content) if text is None else text)
  return path


def first(content):
  return content["results"]["P01_101_0"]


@pytest.mark.parametrize(
  "change, words",
  [
    (lambda c: c.update(version="0.1"), "version must be '0.2' for epic100"),
    (lambda c: c.update(challenge="action_detection"), "challenge must be"),
    (lambda c: c.update(sls_pt=6), "sls_pt must be a whole number from 0 to 5"),
    (lambda c: c.update(sls_td=-1), "sls_td .* got -1"),
    (lambda c: c.update(sls_tl=True), "sls_tl .* got True"),
    (lambda c: c.update(sls_tl=2.5), "sls_tl .* got 2.5"),
    (lambda c: c.pop("sls_tl") and None, "an object of .*'sls_tl'"),
    (lambda c: c.update(extra=1), "got .*'extra'"),
    (lambda c: c.update(results={}), "an entry for each clip"),
    (lambda c: c.update(results=[1]), "an entry for each clip"),
    (lambda c: first(c).update(action={"0,1": 1.0}), "left to the scorer"),
    (lambda c: first(c).pop("noun") and None, "'P01_101_0' must have scores"),
    (lambda c: c["results"].update(P01_101_0=3), "got no object"),
    (lambda c: first(c)["verb"].pop("7") and None, r"missing are \['7'\]"),
    (lambda c: first(c)["noun"].update({"300": 0}), "got 301 classes"),
    (lambda c: first(c)["noun"].update({"01": 0}), r"unknown are \['01'\]"),
    (lambda c: first(c)["verb"].update({"4": "1"}), "no numbers are .*: '1'"),
    (lambda c: first(c)["verb"].update({"4": None}), "no numbers are .*None"),
    (lambda c: first(c)["verb"].update({"4": True}), "no numbers are .*True"),
    (lambda c: first(c).update(verb=[0.0] * 97), r"got \[0.0"),
    (lambda c: first(c)["verb"].update({"4": float("nan")}), "NaN is not a"),
    (lambda c: first(c)["verb"].update({"4": float("inf")}), "Infinity is not"),
    (
      lambda c: re.sub('"3": [-0-9.]+', '"3": -1e999', json.dumps(c), count=1),
      "a verb score that is infinite",
    ),
    (
      lambda c: json.dumps(c).replace('"3": -', '"3": 9' + "9" * 5000, 1),
      "a verb score that is infinite",
    ),
    (lambda c: json.dumps(c).replace('"3": ', '"3": 0.5, "3": ', 1), "the key '3' occurs twice"),
    (
      lambda c: json.dumps(c).replace('"P01_101_1"', '"P01_101_0"'),
      "the key 'P01_101_0' occurs twice",
    ),
    (lambda c: json.dumps(c)[:-1], "s.zip, test.json: "),
    (lambda c: "[" * 100000, "s.zip, test.json: "),
    (lambda c: b"\xff\xfe\x00", "s.zip, test.json: "),
    (lambda c: "3", "it must be an object"),
  ],
)
def test_the_reader_refuses(change, words, tmp_path):
  path = tampered(tmp_path, lambda c: text if isinstance(text := change(c), (str, bytes)) else None)
  with pytest.raises(ValueError, match=words):
    submission.read_submission(path)


def test_the_reader_accepts_any_order_and_whole_numbers(tmp_path):
  def change(content):
    entry = first(content)
    entry["verb"] = dict(reversed([*entry["verb"].items()]))
    entry["verb"]["4"] = -7

  path = tampered(tmp_path, change)
  found = submission.read_submission(path).members["test.json"]
  write_good(tmp_path / "good.zip")
  good = submission.read_submission(tmp_path / "good.zip").members["test.json"]
  expected = good.scores["verb"].copy()
  expected[0, 4] = -7
  np.testing.assert_array_equal(found.scores["verb"], expected)


@pytest.mark.parametrize(
  "names, words",
  [
    (["other.json"], r"exactly \['test.json'\].*it holds 1 files"),
    (["folder/test.json"], "in no folder"),
    (["test.json", "notes.txt"], "it holds 2 files"),
    (["test.json", "test.json"], "it holds 2 files"),
    ([], "it holds 0 files"),
  ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_zip_must_be_flat_and_complete(names, words, tmp_path):
  path = tmp_path / "s.zip"
  with zipfile.ZipFile(path, "w") as archive:
    for name in names:
      archive.writestr(name, "{}")
  with pytest.raises(ValueError, match=words):
    submission.read_submission(path)


def test_zips_that_lie_or_burst(tmp_path, monkeypatch):
  path = tmp_path / "s.zip"
  with pytest.raises(FileNotFoundError, match="There is no submission"):
    submission.read_submission(path)
  path.write_bytes(b"no zip")
  with pytest.raises(ValueError, match="can't be read as a zip file"):
    submission.read_submission(path)
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("test.json", b" " * 5000)
  size = path.stat().st_size
  monkeypatch.setattr(submission, "MAX_BYTES", 4000)
  with pytest.raises(ValueError, match="would unpack to 5,000 bytes"):
    submission.read_submission(path)
  # The directory says less than the stream holds: no more is unpacked.
  content = path.read_bytes().replace((5000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
  path.write_bytes(content)
  with pytest.raises(ValueError, match="can't be read as a zip file"):
    submission.read_submission(path)
  monkeypatch.setattr(submission, "MAX_BYTES", size - 1)
  with pytest.raises(ValueError, match="is larger than"):
    submission.read_submission(path)


def test_ids_are_those_of_the_official_list(tmp_path, capsys):
  output = tmp_path / "s.zip"
  write_good(output)
  path = tmp_path / "EPIC_100_test_timestamps.csv"
  rows = ["narration_id,participant_id", *(f"{i},P01" for i in ids_of(4))]
  path.write_text("\n".join(rows) + "\n")
  check = [f"--check={output}", f"--annotations={path}"]
  assert main(check) == 0
  assert "4 clips, 97 verbs and 300 nouns, SLS-2-3-5, the clips of" in (capsys.readouterr().out)
  path.write_text("\n".join([*rows[:-2], "P09_101_1,P09", ""]))
  assert main(check) == 2
  error = capsys.readouterr().err
  assert "exactly the 3 clips" in error
  assert "1 are missing (P09_101_1)" in error
  assert "2 are unknown to it (P01_101_2, P01_101_3)" in error
  path.write_text("uid\n1\n")
  assert main(check) == 2
  assert "a filled column 'narration_id'" in capsys.readouterr().err
  path.unlink()
  assert main(check) == 2
  assert "There is no annotation file" in capsys.readouterr().err


def test_skipped_clips(tmp_path, capsys):
  skipped = ["P01_101_3", "P02_101_11"]
  run = write_run(tmp_path / "run", draw(1), skipped=skipped)
  output = tmp_path / "s.zip"
  arguments = [str(run), f"--output={output}", *FLAGS]
  assert main(arguments) == 2
  error = capsys.readouterr().err
  assert "2 of 60 clips could not be read" in error
  assert "P01_101_3, P02_101_11" in error and "--missing=uniform" in error
  assert not output.exists()
  assert main([*arguments, "--missing=uniform"]) == 0
  assert "test: 2 clips filled uniformly: P01_101_3, P02_101_11" in (capsys.readouterr().out)
  found = submission.read_submission(output).members["test.json"]
  assert found.ids == tuple(ids_of())
  for task, classes in E100.classes.items():
    np.testing.assert_allclose(found.scores[task][[3, 11]], -np.log(classes), atol=1e-6)


def test_runs_are_averaged(tmp_path, capsys):
  """One run skipped a clip; the other has another order and ensemble of views."""
  a, b = draw(1), draw(2)
  order = np.random.default_rng(0).permutation(COUNT)
  ids = ids_of()
  runs = [
    write_run(tmp_path / "a", a, skipped=ids[:1]),
    write_run(tmp_path / "b", {t: 3 * s[order] for t, s in b.items()}, ids=[ids[i] for i in order]),
  ]
  output = tmp_path / "s.zip"
  assert main([*map(str, runs), f"--output={output}", *FLAGS]) == 0
  out = capsys.readouterr().out
  assert "mean of 2 run(s)" in out
  assert "test: 1 times a run lacked a clip that another run has" in out
  found = submission.read_submission(output).members["test.json"]
  assert found.ids == tuple(ids)
  for task in E100.classes:
    mean = (a[task] + b[task]) / 2
    mean[0] = b[task][0]
    np.testing.assert_allclose(np.exp(found.scores[task]), mean, rtol=2e-6)


def test_runs_that_do_not_fit(tmp_path, capsys):
  output = f"--output={tmp_path / 's.zip'}"
  run = write_run(tmp_path / "run", draw(1, count=3))
  other = write_run(tmp_path / "other", draw(1, count=4))
  small = write_run(tmp_path / "small", draw(1, classes=E55.classes, count=3))
  twice = write_run(tmp_path / "twice", draw(1, count=2), ids=["a", "a"])
  stale = write_run(tmp_path / "stale", draw(1, count=3))
  write_run(stale, draw(1, count=3), skipped=ids_of()[:1])
  (stale / "result.json").write_text('{"splits": {"test": {"skipped": []}}}')
  empty = tmp_path / "empty"
  for arguments, words in (
    ([run, other], "the first has 3, run 2 has 4, and 3 are in both"),
    ([small], "has the classes {'verb': 97, 'noun': 300}, the run"),
    ([twice], "1 different narration_ids for 2 clips"),
    ([stale], "0 clips were skipped, the scores of 'test' lack 1"),
    ([empty], "has no scores of split 'test'; it has those of none"),
    ([run, "--split=validation"], "it has those of ['test']"),
    ([run, "--split=a,b"], "must name 1 for epic100"),
    ([], "Give workdirs of evaluated runs"),
    ([run, "--check=x.zip"], "or --check=FILE.zip"),
  ):
    assert main([*map(str, arguments), output, *FLAGS]) == 2
    assert words in capsys.readouterr().err
  assert main([str(run), *FLAGS]) == 2
  assert "--output=FILE.zip is missing" in capsys.readouterr().err
  assert not (tmp_path / "s.zip").exists()


@pytest.mark.parametrize("name", LEVELS)
def test_supervision_has_no_default(name, tmp_path, capsys):
  run = write_run(tmp_path / "run", draw(1, count=3))
  flags = [flag for flag in FLAGS if name not in flag]
  arguments = [str(run), f"--output={tmp_path / 's.zip'}", *flags]
  assert main(arguments) == 2
  error = capsys.readouterr().err
  assert f"{name} must be a whole number from 0 to 5, got nothing" in error
  for level, text in enumerate(challenges.SUPERVISION[name][1]):
    assert f"  {level}  {text}" in error
  assert main([*arguments, f"--{name}=6"]) == 2
  assert f"{name} must be a whole number from 0 to 5, got 6" in (capsys.readouterr().err)
  with pytest.raises(SystemExit):
    main(["--help"])
  assert challenges.supervision_text(name).splitlines()[3] in (capsys.readouterr().out)


def test_the_writer_refuses(tmp_path):
  path = tmp_path / "s.zip"
  good = draw(1, count=2)

  def write(scores=good, ids=("a", "b"), member="test.json", levels=LEVELS):
    submission.write_submission(
      path, {member: submission.Predictions(ids, scores)}, challenge=E100, supervision=levels
    )

  for change, words in (
    (lambda s: s.fill(np.nan), "finite, not negative and not all 0"),
    (lambda s: s.fill(0), "not all 0"),
    (lambda s: s.__isub__(1), "not negative"),
    (lambda s: s.fill(np.inf), "finite"),
  ):
    bad = {t: s.copy() for t, s in good.items()}
    change(bad["noun"])
    with pytest.raises(ValueError, match=words):
      write(bad)
  with pytest.raises(ValueError, match=r"must be \[2, 97\], got \[2, 300\]"):
    write({**good, "verb": good["noun"]})
  with pytest.raises(ValueError, match=r"\['noun', 'verb'\], got .*\['verb'\]"):
    write({"verb": good["verb"]})
  with pytest.raises(ValueError, match="got 2 with 1 different"):
    write(ids=("a", "a"))
  with pytest.raises(ValueError, match="must consist of"):
    write(member="seen.json")
  with pytest.raises(ValueError, match="sls_tl must be"):
    write(levels={**LEVELS, "sls_tl": None})
  assert not list(tmp_path.iterdir())
  # An older file stays when a newer one fails.
  write()
  before = path.read_bytes()
  with pytest.raises(TypeError):
    write(ids=("a", object()))
  assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
