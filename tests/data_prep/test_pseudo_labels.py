"""Labels of one view by the other's narrations: from the command to a training."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch

from data_prep import pseudo_labels
from sum_l_jax import build
from sum_l_jax import types
from sum_l_jax.config import read
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.data import transferred_labels
from sum_l_jax.system import devices
from tests.support import runs
from tests.support import tiny_data


@pytest.fixture(name="made", scope="module")
def made_fixture(tiny_ego, tiny_tables, tmp_path_factory):
  """Exo clips with other tasks, their table and pairs, and the labels that they are given."""
  folder = tmp_path_factory.mktemp("pseudo")
  exo = tiny_data.write_tiny(folder / "exo", "exo", {"train": 11, "val": 5}, multi_label=True)
  exo_texts = {clip.narration for clip in records.ClipDataset(exo, "train").clips}
  ego_texts = {clip.narration for clip in records.ClipDataset(tiny_ego, "train").clips}
  texts = sorted(exo_texts | ego_texts)
  # One axis a word: a narration tells its verb and its noun.
  words = sorted({word for text in texts for word in text.split()})
  vectors = np.array([[1.0 * (w in text.split()) for w in words] for text in texts])
  table = narration_table.NarrationTable(texts, vectors, model="words")
  runs.write_pairs(tiny_ego, exo, table, folder)
  return folder, exo, table


def test_the_command_labels_by_narrations_and_training_takes_it(made, tiny_ego, capsys):
  folder, exo, table = made
  output = folder / "labels.npz"
  options = [f"--source={tiny_ego}", f"--target={exo}", f"--output={output}"]
  assert pseudo_labels.main([*options, f"--narrations={folder / 'narrations.npz'}"]) == 0
  said = capsys.readouterr().out
  assert "labels of 11 clips" in said and "verb: 3 of 3 classes occur" in said
  clips = records.ClipDataset(exo, "train").clips
  found = transferred_labels.TransferredLabels.load(output)
  assert {name: task.kind for name, task in found.tasks.items()} == dict.fromkeys(
    ("verb", "noun"), "softmax"
  )
  for place, (name, task) in enumerate(tiny_data.SOFTMAX_TASKS.items()):
    words = [task.class_names[label] for label in found.labels[name]]
    assert words == [clip.narration.split()[place] for clip in clips]

  config = runs.small(read.default_config(), ego=tiny_ego, exo=exo, tables=folder)
  config.exo.pseudo_labels = str(output)
  config.joint_stage.batch_size = 6
  trainer = build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1))
  assert trainer.tasks["exo"] == trainer.tasks["ego"] == tiny_data.SOFTMAX_TASKS
  assert trainer.opened.fingerprints["exo_labels"] == found.fingerprint
  plain = records.ClipDataset(exo, "train")
  assert trainer.opened.fingerprints["exo"] == [plain.fingerprint]
  with trainer.stream(start_step=0) as stream:
    batch = next(stream)["exo"]
  for name, labels in batch["labels"].items():
    np.testing.assert_array_equal(labels, found.labels[name][batch["clip"]])
  # The class loss of the exo view is the cross entropy of these labels.
  rng = np.random.default_rng(0)
  logits = {name: rng.standard_normal((6, k)) for name, k in (("verb", 3), ("noun", 4))}
  view = {"logits": logits, "embedding": np.eye(6, table.dim, dtype=np.float32)}
  _, terms = jax.jit(trainer.objective)({"exo": view}, {"exo": batch})
  expected = sum(
    torch.nn.functional.cross_entropy(
      torch.tensor(logits[name]), torch.tensor(found.labels[name][batch["clip"]]).long()
    ).item()
    for name in logits
  )
  np.testing.assert_allclose(terms["exo_cls"], expected, rtol=1e-5)


def test_multi_label_sources_and_quality(made, tiny_ego):
  """The other way round: the exo clips' sets of nouns are given to ego clips."""
  _, exo, table = made
  source, target = (records.ClipDataset(folder, "train") for folder in (exo, tiny_ego))
  found, lines = pseudo_labels.label(source, [target], table, tasks=["noun"], penalty=1e-6)
  assert list(found.tasks) == ["noun"] and found.tasks["noun"].kind == types.MULTI_LABEL
  names = source.tasks["noun"].class_names
  taught = {clip.narration.split()[1]: set(clip.labels["noun"]) for clip in source.clips}
  for clip, row in zip(target.clips, found.labels["noun"]):
    noun = clip.narration.split()[1]
    if noun in taught:
      assert set(np.flatnonzero(row).tolist()) == taught[noun], names
  assert len(lines) == 1 and lines[0].startswith("noun: ") and "are labelled rightly" in lines[0]
  # The ego clips' own nouns are of the other kind, and are not compared.
  assert "own label" not in lines[0]
  same, lines = pseudo_labels.label(source=target, target=[target], table=table, tasks=["verb"])
  assert "100.0% of 17 target clips have their own label, and 0 show a class" in lines[0]
  relabelled = same.relabel([target])[0]
  assert [c.labels for c in relabelled.clips] == [{"verb": c.labels["verb"]} for c in target.clips]
  assert relabelled.annotation_fingerprint == target.annotation_fingerprint


def test_labels_of_other_data_and_damage_are_refused(made, tiny_ego, tiny_exo, tmp_path):
  folder, exo, table = made
  source = records.ClipDataset(tiny_ego, "train")
  found, _ = pseudo_labels.label(source, [records.ClipDataset(exo, "train")], table)
  with pytest.raises(ValueError, match="were made for data sets with.*data_prep.pseudo_labels"):
    found.relabel([records.ClipDataset(tiny_exo, "train")])
  with pytest.raises(ValueError, match=r"must have labels of \['action'\]; it has"):
    pseudo_labels.label(source, [source], table, tasks=["action"])
  found.labels["verb"][3] = 7
  found.save(tmp_path / "labels.npz")
  with pytest.raises(ValueError, match="labels of 'verb' are int32 .11,., or name a class"):
    transferred_labels.TransferredLabels.load(tmp_path / "labels.npz")
  config = runs.small(read.default_config(), ego=tiny_ego, exo=exo, tables=folder)
  config.ego.pseudo_labels = str(folder / "labels.npz")
  with pytest.raises(ValueError, match="config.ego.pseudo_labels=.*were made for"):
    build.Trainer.open(build.resolve(config), "joint", devices.make_mesh(1))
