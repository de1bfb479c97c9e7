"""TFDS data sets that were not built here, as sources of clips."""

from __future__ import annotations

import re

import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds

from data_prep import build_dataset
from data_prep.clips import clip_dataset
from sum_l_jax import types
from sum_l_jax.data import records


class Gestures(tfds.core.GeneratorBasedBuilder):
  """Six clips of one colour each, whose number is in its red."""

  VERSION = tfds.core.Version("1.2.0")

  def _info(self):
    return self.dataset_info_from_configs(
      description="gestures",
      homepage="https://example.org/gestures",
      citation="@misc{gestures}",
      disable_shuffling=True,
      features=tfds.features.FeaturesDict(
        {
          "video": tfds.features.Video((None, 32, 48, 3)),
          "action": tfds.features.ClassLabel(names=["wave_hand", "clap"]),
          "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["x", "y", "z"])),
          "caption": tfds.features.Text(),
          "file": tfds.features.Text(),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {
      "train": self._generate_examples(range(4)),
      "test": self._generate_examples(range(4, 6)),
    }

  def _generate_examples(self, numbers):
    for i in numbers:
      frames = np.full((3 + i, 32, 48, 3), (40 * i, 100, 30), np.uint8)
      labels = {"action": i % 2, "tags": list(range(i % 3))}
      yield i, {"video": frames, "caption": f"caption {i}", "file": f"f{i}.avi", **labels}


@pytest.fixture(name="address", scope="module", params=["array_record", "tfrecord"])
def address_fixture(tmp_path_factory, request):
  pytest.importorskip("tensorflow", reason="TFDS writes and reads such files with TensorFlow")
  folder = tmp_path_factory.mktemp("tfds")
  Gestures(data_dir=folder, file_format=request.param).download_and_prepare()
  return f"tfds:gestures/1.2.0@{folder}"


def _run(capsys, *options):
  status = build_dataset.main([str(option) for option in options])
  captured = capsys.readouterr()
  return status, " ".join((captured.out + captured.err).split())


def test_a_tfds_data_set_becomes_clips(address, tmp_path, capsys):
  folder = tmp_path / "exo"
  options = [f"--dataset={address}", "--view=exo", "--fps=25", f"--output={folder}"]
  status, text = _run(capsys, *options)
  assert status == 0 and "4 train, 2 test clips; action (2 classes), tags (3 classes)" in text
  for split, numbers in (("train", range(4)), ("test", range(4, 6))):
    data = records.ClipDataset(folder, split)
    assert (data.name, data.view) == ("gestures", "exo")
    assert data.tasks["action"] == types.Task("action", types.SOFTMAX, ("wave_hand", "clap"))
    assert data.tasks["tags"].kind == types.MULTI_LABEL
    for clip, i in zip(data.clips, numbers, strict=True):
      assert (clip.num_frames, clip.fps) == (3 + i, 25.0)
      assert clip.labels == {"action": (i % 2,), "tags": tuple(range(i % 3))}
      assert clip.narration.startswith(("wave hand", "clap")[i % 2])
      jpegs = data.read_frames(i - numbers[0], range(clip.num_frames))
      for frame in jpegs:
        image = simplejpeg.decode_jpeg(frame)
        assert image.shape == (32, 48, 3)
        np.testing.assert_allclose(image.mean((0, 1)), (40 * i, 100, 30), atol=4)
  assert clip_dataset.read_about(folder).homepage == "https://example.org/gestures"
  assert _run(capsys, *options)[1].startswith("kept, it is complete")


def test_fields_are_named_by_options(address, tmp_path, capsys):
  folder = tmp_path / "ego"
  status, _ = _run(
    capsys,
    f"--dataset={address}",
    "--view=ego",
    "--fps=10",
    "--tfds_video=video",
    "--tfds_narration=caption",
    "--tfds_labels=action",
    "--tfds_id=file",
    "--short_side=16",
    "--name=mine",
    f"--output={folder}",
  )
  assert status == 0
  data = records.ClipDataset(folder, "train")
  assert (data.name, list(data.tasks)) == ("mine", ["action"])
  assert [(c.clip_id, c.narration) for c in data.clips] == [
    (f"f{i}.avi", f"caption {i}") for i in range(4)
  ]
  assert simplejpeg.decode_jpeg_header(data.read_frames(0, [0])[0])[:2] == (16, 24)


@pytest.mark.parametrize(
  "change, words",
  [
    ({"dataset": "tfds:gestures"}, "must be tfds:NAME/VERSION@DIR"),
    ({"dataset": "tfds:gestures/9.9.9@/nowhere"}, "no dataset_info.json. Prepare it"),
    ({"fps": None}, "needs --fps"),
    ({"view": None}, "needs --view=ego"),
    ({"tfds_video": "vidio"}, "--tfds_video must name .*did you mean 'video'"),
    ({"tfds_labels": "caption"}, "--tfds_labels must name .*action, tags"),
    ({"tfds_narration": "capton"}, "did you mean 'caption'"),
    ({"annotations": "x.csv"}, "--annotations is not for"),
    ({"dataset": "manifest"}, "needs --annotations"),
  ],
)
def test_errors_say_what_is_wrong(address, tmp_path, capsys, change, words):
  options = {"dataset": address, "fps": 25, "view": "exo"} | change
  given = [f"--{name}={value}" for name, value in options.items() if value is not None]
  status, text = _run(capsys, *given, f"--output={tmp_path / 'out'}")
  assert status == 2
  assert re.search(words, text)
