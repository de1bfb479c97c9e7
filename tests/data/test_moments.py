"""Untrimmed videos: a span a video and epoch, labelled by what it touches.

Built from official files by the real builder. The oracle is the reference's
frame list: each frame has the classes whose span its time lies in, and a sample
those of all frames from its first to its last.
"""

from __future__ import annotations

from fractions import Fraction
import itertools

import numpy as np
import pytest

from data_prep import build_dataset
from data_prep import doctor
from data_prep import embed_narrations
from data_prep.mining import pair_summary
from data_prep.mining import pseudo_pairs
from sum_l_jax.config import durations
from sum_l_jax.data import examples
from sum_l_jax.data import feature_card
from sum_l_jax.data import feature_store
from sum_l_jax.data import finding
from sum_l_jax.data import loader
from sum_l_jax.data import moments
from sum_l_jax.data import narration_table
from sum_l_jax.data import records
from sum_l_jax.data import stored_clips
from sum_l_jax.data import transforms
from tests.support import charades_files
from tests.support import feature_sets

# Actions, seconds of film, and the text of each video.
EGO = {
  "AAAAAEGO": ("c092 1.00 3.00;c147 0.00 1.20;c003 5.80 6.00", 6, "Somebody tidies up."),
  "BBBBBEGO": ("c005 0.50 1.00", 2, "Somebody sits."),
  "CCCCCEGO": ("", 4, "Nobody is there."),
}
EXO = {
  "AAAAA": ("c001 0.00 1.00;c002 3.00 4.50;c001 4.80 5.00;c001 0.50 0.70", 5, "A man cooks."),
  "DDDDD": ("c003 0.00 2.00", 4, "A woman reads."),
}
SPANS = {63: (32, 2), 57: (8, 8)}


def transform(span=63):
  return transforms.ClipTransform(*SPANS[span], 32, (36, 44))


def classes_of_frames(video, first, last):
  """Classes of the frames from first to last, by the clock; 24 a second."""
  found = set()
  for part in filter(None, {**EGO, **EXO}[video][0].split(";")):
    code, start, stop = part.split()
    for frame in range(first, last + 1):
      if Fraction(start) <= Fraction(frame, 24) <= Fraction(stop):
        found.add(int(code[1:]))
  return tuple(sorted(found))


def text_of(video, labels):
  return ", ".join(f"Doing thing {label}" for label in labels) or {**EGO, **EXO}[video][2]


@pytest.fixture(name="built", scope="module")
def built_fixture(tmp_path_factory):
  folder = tmp_path_factory.mktemp("charades")
  charades_files.write(folder, train=EGO | EXO, test={"EEEEEEGO": ("c001 0.1 0.4", 1, "X.")})
  for view in ("ego", "exo"):
    if view == "exo":
      charades_files.write_labels(folder, "test", {"EEEEE": ("c001 0.1 0.4", 1, "X.")})
      charades_files.write_frames(folder / "frames", "EEEEE", 24)
    options = ["--dataset=charades_ego", f"--annotations={folder}", f"--media={folder / 'frames'}"]
    options += [f"--view={view}", f"--output={folder / view}", "--processes=1"]
    assert build_dataset.main(options) == 0
  return folder


@pytest.fixture(name="ego")
def ego_fixture(built):
  return records.ClipDataset(built / "ego", "train")


@pytest.fixture(name="exo")
def exo_fixture(built):
  return records.ClipDataset(built / "exo", "train")


def test_an_epoch_shows_each_video_once(ego):
  assert [clip.clip_id for clip in ego.clips] == list(EGO)
  assert [clip.num_frames for clip in ego.clips] == [144, 48, 96]
  views = {"ego": examples.ViewClips([ego], transform())}
  with loader.TrainStream(views, batch_size=3, seed=0) as stream:
    assert stream.num_clips == 3
    assert all(sorted(next(stream)["ego"]["clip"]) == [0, 1, 2] for _ in range(4))
  # 60 epochs of three videos: 60 updates of three, and not ten times as many.
  assert durations.Clock(len(ego), 3).steps("60 epochs", "x") == 60


def test_parts_divide_a_window_of_a_video_and_at_test_time_all_of_it(ego):
  """The narration is that of the very window; labels are of the frames that are seen."""
  parts = transforms.ClipTransform(8, 1, 32, (36, 44), sampling="parts")
  reader = examples.ClipReader(examples.ViewClips([ego], parts))
  window = 63  # 2.625 s at 24 a second.
  for number, (video, clip) in enumerate(zip(EGO, ego.clips, strict=True)):
    span, firsts = min(window, clip.num_frames), set()
    for seed in range(200):
      drawn, places = reader.draw(0, number, np.random.default_rng(seed), None)
      # The first of eight parts is the window's first eighth.
      rng = np.random.default_rng(seed)
      start = int(rng.integers(0, clip.num_frames - span + 1))
      shares = (np.arange(8) + rng.random(8)) / 8
      np.testing.assert_array_equal(places, start + np.floor(shares * span))
      assert drawn.info.labels["action"] == classes_of_frames(video, places[0], places[-1])
      text = text_of(video, classes_of_frames(video, start, start + span - 1))
      assert ego.moments.clips[drawn.moment].narration == text
      firsts.add(start)
    assert {0, clip.num_frames - span} <= firsts
    whole = np.floor((np.arange(8) + 0.5) * clip.num_frames / 8)
    np.testing.assert_array_equal(reader.test_indices(0, number, 0, 1), whole)


@pytest.mark.parametrize("span", sorted(SPANS))
def test_spans_lie_anywhere_and_are_labelled_by_what_they_touch(ego, span):
  reader = examples.ClipReader(examples.ViewClips([ego], transform(span)))
  asked = []
  read = ego.read_frames
  ego.read_frames = lambda clip, frames: asked.append(frames) or read(clip, frames)
  for number, (video, clip) in enumerate(zip(EGO, ego.clips, strict=True)):
    starts = set()
    for seed in range(250):
      drawn, inputs = reader.train_example(0, number, np.random.default_rng(seed))
      first, last = min(asked[-1]), max(asked[-1])
      labels = classes_of_frames(video, first, last)
      assert drawn.info.labels["action"] == labels, (video, first)
      assert len(inputs["video"]) == SPANS[span][0]
      if span == 63:  # The length of the windows: the text is of the very span.
        assert ego.moments.clips[drawn.moment].narration == text_of(video, labels)
      starts.add(first)
    if clip.num_frames > span:
      # From the first frame to the last, each start, ends included.
      assert {0, clip.num_frames - span} <= starts
      assert len(starts) > 0.9 * (clip.num_frames - span + 1)


def test_each_window_has_its_moment(ego, exo):
  """Every start of a window, by the clock; a moment for each set that there is."""
  for data, videos in ((ego, EGO), (exo, EXO)):
    for number, (video, clip) in enumerate(zip(videos, data.clips, strict=True)):
      sets = []
      for start in range(max(clip.num_frames - 63, 0) + 1):
        moment = data.moments.at(number, start, 63)
        labels = classes_of_frames(video, start, min(start + 62, clip.num_frames - 1))
        assert data.moments.clips[moment].labels["action"] == labels
        assert data.moments.clip[moment] == number
        assert data.moments.pairable[moment] == bool(labels)
        sets.append(labels)
      assert len(set(sets)) == np.sum(data.moments.clip == number)


def test_partners_show_what_their_narration_says(built, ego, exo):
  texts = embed_narrations.read_narrations([built / "ego", built / "exo"])
  assert {"Doing thing 92, Doing thing 147", "Nobody is there."} <= set(texts)
  vectors = np.random.default_rng(2).standard_normal((len(texts), 8))
  table = narration_table.NarrationTable(texts, vectors, model="random-8")
  pairs = pseudo_pairs.mine(ego, [exo], table, top_k=1)
  table.save(built / "narrations.npz", command="tests")
  pairs.save(built / "pairs.npz")
  tables = {name: built / f"{name}.npz" for name in ("narrations", "pairs")}
  found = doctor.examine([built / "ego", built / "exo"], **tables)
  assert [f for f in found if f.severity == finding.ERROR] == []
  summary = pair_summary.summarize(pairs, ego, [exo])
  assert summary.num_pairs == len(ego.moments) > 3
  views = {v: examples.ViewClips([d], transform()) for v, d in (("ego", ego), ("exo", exo))}
  # Candidates by their classes; windows in which nothing is done are none.
  candidates = sorted({c.narration for c in exo.moments.clips if c.labels["action"]})
  both = "Doing thing 1, Doing thing 2"  # At the end of the first video.
  assert candidates == ["Doing thing 1", both, "Doing thing 2", "Doing thing 3"]
  cosines = table.lookup(candidates)
  with loader.TrainStream(views, pairs=pairs, narrations=table, batch_size=6, seed=1) as stream:
    for batch in itertools.islice(stream, 8):
      for row in range(6):
        labels = tuple(np.flatnonzero(batch["ego"]["labels"]["action"][row]))
        own = table.lookup([text_of(list(EGO)[batch["ego"]["clip"][row]], labels)])[0]
        np.testing.assert_array_equal(batch["ego"]["narration"][row], own)
        best = candidates[int(np.argmax(cosines @ own))]
        shown = tuple(np.flatnonzero(batch["exo"]["labels"]["action"][row]))
        assert text_of(list(EXO)[batch["exo"]["clip"][row]], shown) == best
        np.testing.assert_array_equal(batch["exo"]["narration"][row], table.lookup([best])[0])


def test_clips_of_one_narration_are_their_own_moments(tiny_exo):
  data = records.ClipDataset(tiny_exo, "train")
  assert data.moments.clips is data.clips
  assert data.moments.clip.tolist() == list(range(len(data)))
  assert data.moments.at(4, -3, 63) == 4 and data.moments.allows(4, 63) is None


def test_test_clips_are_whole_videos(built):
  test = records.ClipDataset(built / "ego", "test")
  assert [(c.num_frames, c.labels["action"], c.actions) for c in test.clips] == [(24, (1,), {})]
  assert len(test.moments) == 1 and test.moments.pairable.all()


def test_touched_includes_both_ends():
  actions = [(5, 10, 20), (6, 20, 30), (5, 40, 41)]
  assert moments.touched(actions, 0, 9) == ()
  assert moments.touched(actions, 0, 10) == (5,)
  assert moments.touched(actions, 20, 20) == (5, 6)
  assert moments.touched(actions, 31, 39) == ()


def test_stored_views_are_labelled_by_what_they_touch(ego, tmp_path):
  """A view that shows the moment is drawn of the six, if any does."""
  count, span = 6, 15
  values = np.arange(count, dtype=np.float32)[None, :, None, None].repeat(len(ego), 0)
  frames = feature_card.FeatureFrames(8, 2, 32)
  feature_sets.write(tmp_path / "set", ego.directory, {"train": values}, frames=frames)
  store = feature_store.FeatureStore(tmp_path / "set", "train")
  shown = transforms.ClipTransform.for_testing(8, 2, 32)
  reader = stored_clips.make_reader(examples.ViewClips([ego], shown, features=[store]))
  found = 0
  for moment, clip in enumerate(ego.moments.clip):
    length = ego.clips[clip].num_frames
    of = [shown.test_indices(length, view, count) for view in range(count)]
    showing = {v for v in range(count) if ego.moments.at(clip, int(of[v][0]), span) == moment}
    for seed in range(10):
      drawn, inputs = reader.train_example(0, int(clip), np.random.default_rng(seed), moment)
      view = int(inputs["tokens"][0, 0])
      labels = classes_of_frames(list(EGO)[clip], of[view][0], of[view][-1])
      assert drawn.info.labels["action"] == labels
      if showing:
        assert view in showing and drawn.moment == moment
        found += 1
  assert found > 30
