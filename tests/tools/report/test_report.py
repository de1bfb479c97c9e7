"""The report of a run: right numbers, nothing from elsewhere, safe to open."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from sum_l_jax.checkpoint import weight_files
from sum_l_jax.data import pairing
from sum_l_jax.data import records
from sum_l_jax.evaluation.labels import metric_words
from sum_l_jax.tools.report import charts
from sum_l_jax.tools.report.__main__ import main
from sum_l_jax.tools.report.__main__ import write_report
from sum_l_jax.train import metric_log
from tests.support import html_pages

SECTIONS = (
  "results",
  "trained",
  "curves",
  "pairs",
  "maps",
  "classes",
  "retrieval",
  "settings",
  "environment",
)


@pytest.fixture(name="workdir", scope="module")
def _workdir(finished, tmp_path_factory):
  """A copy of the finished run, to write into."""
  folder = tmp_path_factory.mktemp("report") / "run"
  shutil.copytree(finished[0], folder)
  return folder


@pytest.fixture(name="baseline", scope="module")
def _baseline(workdir):
  """Another run on the same clips: worse, and one clip was not readable."""
  folder = workdir.parent / "base"
  shutil.copytree(workdir, folder)
  with np.load(folder / "scores_val.npz") as stored:
    arrays = dict(stored)
  for task in ("verb", "noun"):
    arrays[f"scores_{task}"] = np.roll(arrays[f"scores_{task}"], 1, axis=1)
    arrays[f"scores_{task}"][2] = np.nan
  np.savez(folder / "scores_val.npz", **arrays)
  weights = weight_files.read_weights(folder)
  assert weights.step == 6
  return folder


@pytest.fixture(name="compared", scope="module")
def _compared(workdir, baseline):
  path = write_report(workdir, baseline=baseline, number=2)
  assert path == workdir / "report.html"
  return path.read_text(encoding="utf-8")


@pytest.fixture(name="alone", scope="module")
def _alone(workdir, compared):
  del compared  # Written first: both have one name.
  return write_report(workdir, number=1).read_text(encoding="utf-8")


def test_sections_and_safety(alone, compared):
  for text in (alone, compared):
    page = html_pages.check_is_safe(text)
    assert tuple(page.texts)[1:] == SECTIONS
    assert len(text) < 1_200_000
  assert "No baseline was given" in html_pages.Page(alone).text("classes")
  assert "Retrieval was not measured" in html_pages.Page(alone).text("retrieval")


def test_numbers_of_the_result(alone, workdir):
  page = html_pages.Page(alone)
  result = json.loads((workdir / "result.json").read_text())
  entry = result["splits"]["val"]
  percent = lambda x: f"{100 * x:.1f}"
  for name, value in entry["metrics"].items():
    if name.endswith(("_seen", "_unseen")):
      continue
    row = page.row(metric_words.words(name))
    assert row[1] == percent(value)
    low, high = entry["intervals"].get(name, (None, None))
    assert row[2] == ("-" if low is None else f"{percent(low)} to {percent(high)}")
    assert row[3] == percent(entry["constant_guess"][name])
  parts = [n.removesuffix("_seen") for n in entry["metrics"] if n.endswith("_seen")]
  for name in parts:
    shown = [metric_words.words(name), percent(entry["metrics"][f"{name}_seen"])]
    assert shown in [r[:2] for r in page.rows]
  # Every definition is there, beside the names of the page and of the file.
  explained = [row[1:] for row in page.rows if len(row) == 3]
  for name, meaning in result["definitions"].items():
    assert any(meaning == text and found.endswith(name) for found, text in explained), name
  for package, version in result["versions"].items():
    assert page.row(package)[2] == version
  assert result["checkpoint_sha256"] in page.text("environment")


def test_what_was_trained(alone, workdir, tiny_ego):
  page = html_pages.Page(alone)
  weights = weight_files.read_weights(workdir)
  encoder = sum(x.size for x in weight_files.flatten(weights.params["ego"]["encoder"]).values())
  assert f"encoder {encoder:,}" in page.row("ego parameters")[1]
  assert page.row("joint")[1:3] == ["6 steps", "4"]
  assert page.row("exo")[1:3] == ["6 steps", "4"]
  train = records.ClipDataset(tiny_ego, "train")
  assert page.row(str(tiny_ego), "ego", "train")[3:] == [
    "17",
    "12",
    "3 verb, 4 noun",
    train.fingerprint,
  ]
  assert page.row("joint_stage.total") == ["joint_stage.total", "6 steps", "30 epochs"]
  fields = [r[0] for r in page.rows]
  # Unchanged, or filled in by method and objective.
  assert "loss.sigma" not in fields and "loss.cross_view" not in fields


def test_starts_and_circumstances(alone, workdir):
  page = html_pages.Page(alone)
  (start,) = json.loads((workdir / "starts.json").read_text())
  row = page.row("start 1")
  assert start["devices"] in row[3] and start["processor"] in row[4] and start["host"] in row[4]
  assert row[2].startswith(start["commit"][:12] or "not known")
  for name, version in start["versions"].items():
    assert page.row(name)[1] == version
  # The introduction says the most of it.
  text = page.text("")
  assert (
    re.search(r"Training took \d+ min \d+ s; devices: ", text)
    and f"jax {start['versions']['jax']}" in text
  )
  assert start["processor"] in text


def test_where_the_time_went(alone, workdir):
  page = html_pages.Page(alone)
  seconds = json.loads((workdir / "status.json").read_text())["seconds"]
  total = sum(seconds.values())
  assert page.row("compiling")[2] == f"{100 * seconds['compiling'] / total:.1f}"
  assert page.row("wall clock")[2] == "100.0"


def test_command(alone, workdir, tmp_path, capsys):
  """The command of this tool, and the one that made the run."""
  assert "does not say which command" in html_pages.Page(alone).text("settings")
  folder = tmp_path / "run"
  shutil.copytree(workdir, folder)
  (folder / "command.txt").write_text("python -m x --name='a b'\n")
  assert main([str(folder), "--number=0"]) == 0
  assert capsys.readouterr().out == f"wrote {folder / 'report.html'}\n"
  page = html_pages.Page((folder / "report.html").read_text())
  assert "python -m x --name='a b'" in page.text("settings")
  assert "No maps were asked for" in page.text("maps")


def test_comparison_with_a_baseline(compared, workdir, baseline):
  page = html_pages.Page(compared)
  scores = []
  for folder in (workdir, baseline):
    with np.load(folder / "scores_val.npz") as stored:
      # The clip that the baseline lacks is left out of both.
      scores.append({k: np.delete(v, 2, axis=0) for k, v in stored.items()})
  assert "4 clips" in page.text("classes")
  heads = [r for r in page.rows if r[0] == "class"]
  assert heads and heads[0][3:] == ["base, %", "gain, points"]
  for task, names in (("verb", ("take", "put", "cut")), ("noun", ("cup", "pan", "apple", "knife"))):
    labels = scores[0][f"labels_{task}"]
    right = [s[f"scores_{task}"].argmax(axis=1) == labels for s in scores]
    for number, name in enumerate(names):
      own = labels == number
      if not own.any():
        continue
      a, b = (100 * r[own].mean() for r in right)
      row = page.row(name, str(own.sum()))
      assert row[2:] == [f"{a:.1f}", f"{b:.1f}", f"{a - b:+.1f}"]
    a, b = (100 * r.mean() for r in right)
    row = page.row(f"{task}, top-1")
    assert row[4] == f"{b:.1f}" and row[5].split()[0] == f"{a - b:+.1f}"
  assert "probability of the right verb changes most" in page.text("maps")


def test_a_baseline_is_beside_the_run_everywhere(compared, workdir):
  page = html_pages.Page(compared)
  encoder = page.row("ego parameters")
  assert encoder[1] == encoder[2] != "-"
  assert page.row("what") == ["what", "run", "base"]
  assert page.row("joint, base")[1:4] == page.row("joint, run")[1:4]
  assert page.row("wall clock")[2] == page.row("wall clock")[4] == "100.0"
  assert page.row("package")[-1] == "training of base"
  assert page.row("run, start 1")[1:] == page.row("base, start 1")[1:]
  assert "0 config fields that differ between the two runs" in page.text("settings")
  alts = [a["alt"] for a in page.of("img")]
  assert any("Line chart, Stage joint: losses" in alt and "; of base: total" in alt for alt in alts)
  # The baseline's own result is the same file; its scores are others.
  result = json.loads((workdir / "result.json").read_text())["splits"]["val"]["metrics"]
  chart = next(alt for alt in alts if alt.startswith("Bar chart in percent"))
  assert f"verb, top-1 {100 * result['verb_top1']:.1f}, base " in chart


def test_a_run_that_goes_on_beside_a_baseline(workdir, baseline, tmp_path):
  """Its curves can be compared before it is evaluated."""
  folder = tmp_path / "run"
  shutil.copytree(workdir, folder)
  (folder / "result.json").unlink()
  page = html_pages.check_is_safe(
    write_report(folder, baseline=baseline, number=0).read_text(encoding="utf-8")
  )
  assert "has not been evaluated" in page.text("results")
  assert any("; of base: total" in a["alt"] for a in page.of("img"))


def test_a_split_that_can_not_be_compared_has_no_difference(workdir, baseline, tmp_path):
  """Scores of another split of the baseline are damaged, or of other labels."""
  run, other = tmp_path / "run", tmp_path / "base"
  for source, folder in ((workdir, run), (baseline, other)):
    shutil.copytree(source, folder)
    result = json.loads((folder / "result.json").read_text())
    result["splits"] = {"train": result["splits"]["val"]} | result["splits"]
    (folder / "result.json").write_text(json.dumps(result))
    shutil.copy(folder / "scores_val.npz", folder / "scores_train.npz")
  (other / "scores_train.npz").write_bytes(b"damaged")
  page = html_pages.Page(write_report(run, baseline=other, number=0).read_text(encoding="utf-8"))
  text = page.text("results")
  assert "train: the runs can't be compared." in text and "scores_train.npz" in text
  rows = [row for row in page.rows if row and row[0] == "verb, top-1"]
  assert [row[-2] == "-" for row in rows[:2]] == [True, False]


def test_a_run_that_went_on_since_its_evaluation_says_so(workdir, tmp_path):
  """Maps would be of weights that the numbers beside them are not of."""
  folder = tmp_path / "run"
  shutil.copytree(workdir, folder)
  result = json.loads((folder / "result.json").read_text())
  (folder / "result.json").write_text(
    json.dumps(result | {"checkpoint_sha256": "0" * 64, "checkpoint": "runs/x/joint/3"})
  )
  status = json.loads((folder / "status.json").read_text())
  (folder / "status.json").write_text(json.dumps(status | {"state": "running"}))
  told = "The results and scores are of runs/x/joint/3. Everything else on this page is of"
  text = write_report(folder, number=0).read_text(encoding="utf-8")
  html = html_pages.Page(text)
  assert told in html.text("") and "Training running after" in html.text("")
  shutil.copy(workdir / "result.json", folder)
  html = html_pages.Page(write_report(folder, number=0).read_text(encoding="utf-8"))
  assert told not in html.text("") and "Training took" in html.text("")


def test_probes_of_a_grid(workdir, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(workdir, folder)
  probes = [
    {"learning_rate": rate, "weight_decay": 0.1, "score": score, "metrics": {"verb_top1": score}}
    for rate, score in ((0.01, 0.25), (0.003, 0.5))
  ]
  table = {"split": "val", "chosen": 1, "chosen_by": "top-1", "probes": probes}
  (folder / "joint" / "probes.json").write_text(json.dumps(table))
  page = html_pages.Page(write_report(folder, number=0).read_text(encoding="utf-8"))
  assert page.row("probe")[1:] == ["learning rate", "weight decay", "score, %", "verb, top-1, %"]
  assert page.row("0")[1:] == ["0.01", "0.1", "25.0", "25.0"]
  assert page.row("1, chosen")[1:] == ["0.003", "0.1", "50.0", "50.0"]


def test_rows_of_the_confusion_have_their_counts(workdir, monkeypatch, tmp_path):
  drawn, draw = {}, charts.confusion

  def note(title, shares, clips, names, alt):
    drawn[title.partition(":")[0]] = clips, names
    return draw(title, shares, clips, names, alt)

  monkeypatch.setattr(charts, "confusion", note)
  write_report(workdir, number=0, output=tmp_path / "page.html")
  with np.load(workdir / "scores_val.npz") as stored:
    labels = stored["labels_verb"]
  clips, names = drawn["verb"]
  verbs = ("take", "put", "cut")
  assert dict(zip(names, clips.tolist())) == {
    name: int((labels == i).sum()) for i, name in enumerate(verbs) if (labels == i).any()
  }


def test_maps_of_both_networks(compared, workdir, baseline):
  page = html_pages.Page(compared)
  # Equal methods are told apart by their folders.
  says = [
    t.split(" says ")[0] for t in page.texts["maps"] if re.match(r"\w+ says verb \w+, score 0\.", t)
  ]
  assert says == ["base", "run", "base", "run"]
  with np.load(workdir / "scores_val.npz") as a, np.load(baseline / "scores_val.npz") as b:
    rows = np.arange(5), a["labels_verb"]
    change = np.abs(a["scores_verb"][rows] - b["scores_verb"][rows])
    order = np.argsort(-np.where(np.isnan(change), -1, change), kind="stable")
    ids = a["clip_id"][order[:2]]
  text = page.text("maps")
  assert all(str(name) in text for name in ids)
  maps = [a["alt"] for a in page.of("img") if a["alt"].startswith("Map of")]
  assert len(maps) == 4


def test_pairs_and_curves(alone, tiny_ego, tiny_exo, tiny_tables, workdir):
  page = html_pages.Page(alone)
  table = pairing.PairTable.load(tiny_tables / "pairs.npz")
  best = table.similarity[table.ego_rows, 0]
  text = page.text("pairs")
  assert "17 ego clips" in text
  assert f"{np.mean(best > 0.5):.1%} of the clips" in text
  assert f"median cosine of the best partner {np.median(best):.3f}" in text
  assert f"best, cosine {table.similarity[:, 0].max():.3f}" in text
  assert f"worst, cosine {table.similarity[:, 0].min():.3f}" in text
  alts = [a["alt"] for a in page.of("img")]
  # Each pair has a picture of either clip, beside its narration.
  for view, folder in (("ego", tiny_ego), ("exo", tiny_exo)):
    narrations = {clip.narration for clip in records.ClipDataset(folder, "train").clips}
    frames = [
      image for image in page.of("img") if image["alt"].startswith(f"{view.capitalize()} clip of ")
    ]
    assert len(frames) == text.count(", cosine ")
    for image in frames:
      narration = image["alt"].partition(": ")[2]
      assert narration in narrations and narration in text
      assert image["src"].startswith("data:image/webp;base64,UklGR")
  scalars = metric_log.read(workdir / "joint")
  used = scalars["train/loss/selected_pairs"].values
  # One evaluation at the end, so one interval of the log.
  assert any(f"pairs that pass the filter {used[0]:.3g}" in alt for alt in alts)
  loss = scalars["train/loss"].values
  assert any(f"total {loss[0]:.3g}" in alt and "ego and text" in alt for alt in alts)
  added = scalars["train/weighted/ego_text"].values
  shares = next(alt for alt in alts if "what each term adds to the loss" in alt)
  assert f"total {loss[0]:.3g}" in shares and f"ego and text {added[0]:.3g}" in shares
  assert any("joint: learning rate" in alt for alt in alts)
  assert any("exo: losses" in alt for alt in alts)


def test_unfinished_and_unusual_runs(workdir, tmp_path):
  """What is absent is said in one line, and the rest is there."""
  folder = tmp_path / "run"
  shutil.copytree(workdir, folder)
  fields = json.loads((folder / "config.json").read_text())
  for path in (*folder.glob("*/metrics.jsonl"), folder / "result.json"):
    path.unlink()
  shutil.rmtree(folder / "joint")
  # Stage one alone.
  (folder / "config.json").write_text(json.dumps(fields | {"stages": ["exo"]}))
  page = html_pages.check_is_safe(write_report(folder).read_text())
  assert tuple(page.texts)[1:] == SECTIONS
  assert "has not been evaluated" in page.text("results")
  assert "no metrics.jsonl" in page.text("curves")
  assert "exo stage alone" in page.text("pairs")
  assert "no ego encoder" in page.text("maps")
  # First-person training, nothing saved yet.
  shutil.rmtree(folder / "exo")
  (folder / "starts.json").unlink()
  (folder / "config.json").write_text(
    json.dumps(fields | {"method": "fpv_only", "stages": ["joint"]})
  )
  page = html_pages.check_is_safe(write_report(folder).read_text())
  assert "no exo clips, so no pairs" in page.text("pairs")
  assert "There is no checkpoint" in page.text("maps")
  assert "Neither a checkpoint nor a result" in page.text("environment")
  assert "There is no starts.json" in page.text("environment")
  # Data that has gone.
  (folder / "config.json").write_text(
    json.dumps(fields | {"ego.dataset": "gone", "stages": ["joint"]})
  )
  page = html_pages.Page(write_report(folder).read_text())
  assert "can't be shown" in page.text("pairs")
  assert "No clip data set in 'gone'" in page.text("trained")


def test_texts_of_others_are_escaped(workdir, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(workdir, folder)
  fields = json.loads((folder / "config.json").read_text())
  fields |= {"init.ego": html_pages.EVIL, "prepare.directory": html_pages.EVIL}
  (folder / "config.json").write_text(json.dumps(fields))
  result = json.loads((folder / "result.json").read_text())
  result["splits"]["val"]["dataset"] = html_pages.EVIL
  result["definitions"][html_pages.EVIL] = html_pages.EVIL
  (folder / "result.json").write_text(json.dumps(result))
  (folder / "command.txt").write_text(html_pages.EVIL)
  page = html_pages.check_is_safe(write_report(folder, number=0).read_text())
  assert page.row("ego starts from")[1] == html_pages.EVIL
  assert page.row("-", html_pages.EVIL)[2] == html_pages.EVIL
  assert html_pages.EVIL in page.text("settings")


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["nowhere"], "is no workdir of a run"),
    (["{run}", "--split=spring"], "no labelled split 'spring'; it has ['val']"),
    (["{run}", "--number=-1"], "must be 0 or more"),
    (["{run}", "--baseline=nowhere"], "has neither config.json nor result.json"),
  ],
)
def test_command_refuses(arguments, message, workdir, capsys):
  code = main([a.format(run=workdir) for a in arguments])
  assert code == 2
  assert message in capsys.readouterr().err
