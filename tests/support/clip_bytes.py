"""All that a clip data set holds, byte by byte."""

from __future__ import annotations

import json

from array_record.python import array_record_module

from sum_l_jax.data import records


def content(folder):
  """Card and text of the index, and by split the fingerprint and the records in order.

  How the records are divided into shards is left out; it is checked by reading them.
  """
  card = records.read_card(folder)
  found = {"card": json.dumps(card | {"shards": None})}
  for split, shards in records.read_shards(card).items():
    raw = []
    for shard in shards:
      reader = array_record_module.ArrayRecordReader(str(folder / shard.name))
      raw += reader.read(list(range(reader.num_records())))
      reader.close()
    data = records.ClipDataset(folder, split)
    frames = [list(data.read_frames(i, range(c.num_frames))) for i, c in enumerate(data.clips)]
    index = (folder / records.clips_file(split)).read_text()
    found[split] = (index, data.fingerprint, raw, frames)
  skipped = folder / "skipped.csv"
  found["skipped"] = skipped.read_text() if skipped.exists() else ""
  return found
