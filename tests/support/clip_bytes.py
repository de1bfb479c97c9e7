"""All that a clip data set holds, byte by byte."""

from __future__ import annotations

from array_record.python import array_record_module

from sum_l_jax.data import records


def content(folder):
  """Texts of card and index, and by split the fingerprint and the records in their order."""
  card = (folder / records.CARD_FILE).read_text()
  found = {"card": card}
  for split in records.read_card(folder)["splits"]:
    data = records.ClipDataset(folder, split)
    raw = []
    for path in data.split_info().filepaths:
      reader = array_record_module.ArrayRecordReader(str(path))
      raw += reader.read(list(range(reader.num_records())))
      reader.close()
    found[split] = ((folder / records.clips_file(split)).read_text(), data.fingerprint, raw)
  skipped = folder / "skipped.csv"
  found["skipped"] = skipped.read_text() if skipped.exists() else ""
  return found
