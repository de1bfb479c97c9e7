"""Official files as they arrive: with marks of Windows, cut off, or of another kind."""

from __future__ import annotations

from etils import epath
import pytest

from sum_l_jax.evaluation.benchmarks import caption_files
from sum_l_jax.evaluation.benchmarks import charades_ego_map
from sum_l_jax.evaluation.benchmarks import ego2exo_files
from sum_l_jax.evaluation.benchmarks import egoexolearn
from sum_l_jax.evaluation.benchmarks import egoexolearn_tables
from sum_l_jax.evaluation.benchmarks import egomcq
from sum_l_jax.evaluation.benchmarks import egtea_accuracy
from sum_l_jax.evaluation.benchmarks import epic100_mir
from sum_l_jax.evaluation.benchmarks import epic100_recognition
from sum_l_jax.evaluation.benchmarks import keystep_files
from tests.support import choice_files
from tests.support import ego_exo_files
from tests.support import epic100_files
from tests.support import official_egoexolearn
from tests.support import recipe_captions


def _classes(folder):
  path = folder / charades_ego_map.CLASSES_FILE
  path.write_text("".join(f"c{i:03d} Doing {i}\n" for i in range(157)))
  return path, lambda: charades_ego_map.read_class_names(epath.Path(folder))


def _actions(folder):
  path = folder / "action_idx.txt"
  path.write_text("Take_Cup 2\nCut_Apple 3\n")
  return path, lambda: egtea_accuracy.read_actions(epath.Path(folder))


def _clips(folder):
  path = folder / "test_split1.txt"
  path.write_text("OP01-R01-A-0 2 1 1\nOP01-R01-A-1 3 1 1\n")
  return path, lambda: egtea_accuracy.read_split(epath.Path(path), [2, 3])


def _valid(folder):
  path = folder / "valid_verbs.txt"
  path.write_text("93\n17\n")
  return path, lambda: egoexolearn_tables.read_valid(epath.Path(path), "verb")


def _captions(folder):
  path = recipe_captions.write(folder / "data") / "yc2/captiondata/yc2_eval_wacv25.json"
  return path, lambda: caption_files.read_steps(epath.Path(path))


def _association(folder):
  path = choice_files.write_association(folder / "association_test_hard.json")
  return path, lambda: egoexolearn.read_questions(epath.Path(path))


def _egomcq(folder):
  path = choice_files.write_egomcq(folder / "egomcq.json")
  return path, lambda: egomcq.read_questions(epath.Path(path))


def _ego2exo(folder):
  path = folder / "ego2exo.json"
  ego_exo_files.write_json(path, ego_exo_files.ego2exo())
  return path, lambda: ego2exo_files.read(epath.Path(path))


def _keysteps(folder):
  (folder / "annotations").mkdir()
  ego_exo_files.write_benchmark(folder)
  path = folder / "annotations/keystep_benchmark/keystep_segment_val.json"
  return path, lambda: keystep_files.read_segments(epath.Path(path), 4)


def _taxonomy(folder):
  official_egoexolearn.write_taxonomies(folder)
  path = folder / "narration_verb_taxonomy.csv"
  return path, lambda: egoexolearn_tables.read_taxonomy(epath.Path(path), "verb")


def _sentences(folder):
  rows = [epic100_files.row(f"P01_{i}", i % 3, [i % 4]) for i in range(4)]
  clips = folder / "EPIC_100_retrieval_test.csv"
  epic100_files.write_rows(clips, epic100_files.COLUMNS, rows)
  path = folder / "EPIC_100_retrieval_test_sentence.csv"
  pairs = [(row[0], row[8]) for row in rows]
  epic100_files.write_rows(path, ("narration_id", "narration"), pairs)
  return path, lambda: epic100_mir.read_gallery(epath.Path(folder)).texts


_FILES = (
  *(_classes, _actions, _clips, _valid, _captions, _association, _egomcq, _ego2exo, _keysteps),
  *(_taxonomy, _sentences),
)


@pytest.mark.parametrize("make", _FILES)
def test_marks_of_windows_change_nothing(tmp_path, make):
  path, read = make(tmp_path)
  wanted, text = read(), path.read_bytes()
  path.write_bytes(b"\xef\xbb\xbf" + text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
  assert read() == wanted


@pytest.mark.parametrize("damaged", [b"\xff\xfe{\x00", b"", b"9" * 5000], ids=["utf16", "no", "9"])
@pytest.mark.parametrize("make", _FILES)
def test_a_file_of_another_kind_is_named(tmp_path, make, damaged):
  path, read = make(tmp_path)
  path.write_bytes(damaged)
  with pytest.raises(ValueError, match=r"Take|Save|Rename") as error:
    read()
  assert path.name in str(error.value)


@pytest.mark.parametrize("make", [_taxonomy, _sentences])
def test_a_row_that_is_cut_off_is_named(tmp_path, make):
  path, read = make(tmp_path)
  header, first = path.read_text().splitlines()[:2]
  # The taxonomy's first column is its label, so this leaves the group out.
  path.write_text(f"{header}\n{first.split(',')[0]}\n")
  with pytest.raises(ValueError, match=f"{path.name}, line 2: 1 cells, the header has 2"):
    read()


@pytest.mark.parametrize("column, cell", [(10, "97"), (10, "-1"), (12, "9e19"), (8, ""), (0, "")])
def test_classes_and_texts_of_epic(tmp_path, column, cell):
  """A class beyond the official ones would take its number of columns in memory."""
  row = epic100_files.row("P01_0", 0, [0])
  for name in ("train", "validation"):
    epic100_files.write_rows(tmp_path / f"EPIC_100_{name}.csv", epic100_files.COLUMNS, [row])
  row[column] = cell
  epic100_files.write_rows(
    tmp_path / "EPIC_100_validation.csv",
    epic100_files.COLUMNS,
    [epic100_files.row("a", 0, [0]), row],
  )
  name = epic100_files.COLUMNS[column]
  with pytest.raises(ValueError, match=f"validation.csv, line 3: {name} .*Take the official file"):
    epic100_recognition.read_actions(epath.Path(tmp_path))
  with pytest.raises(ValueError, match=r"from 0 to 299, like \[17, 52\]; got '\[1, 300\]'"):
    epic100_mir.parse_classes("[1, 300]", "a file")


def test_seconds_beyond_a_float(tmp_path):
  path, read = _captions(tmp_path)
  path.write_text(
    path.read_text().replace("0.4,", "1" * 400 + ",", 1).replace("0.4]", "9" * 401 + "]", 1)
  )
  with pytest.raises(ValueError, match="timestamps must be two numbers of seconds"):
    read()
