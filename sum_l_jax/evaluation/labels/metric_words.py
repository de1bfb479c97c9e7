"""Names of metrics for people: "verb, top-1" for `verb_top1`."""

from __future__ import annotations

from sum_l_jax.evaluation.labels import result_files

# By the end of a name; a longer end before one that ends like it.
_WORDS = {
  "_top1_both": "top-1 of verb and of noun",
  "_top5_both": "top-5 of verb and of noun",
  "_top1": "top-1",
  "_top5": "top-5",
  "_class_mean": "top-1, mean over classes",
  "_map_sklearn": "mean average precision",
  "_map_charades": "mean average precision as in Charades",
}


def group_of(name: str) -> str:
  """The part of the clips, "seen" of "verb_top1_seen"; "" of all clips."""
  # The longer name first: "unseen" ends in "seen".
  groups = sorted(result_files.GROUPS, key=len, reverse=True)
  return next((group for group in groups if name.endswith(f"_{group}")), "")


def words(name: str) -> str:
  """Says in words what a metric is; a name that is not known stays as it is.

  >>> words("verb_top1"), words("action_top5_both")
  ('verb, top-1', 'action, top-5 of verb and of noun')
  >>> words("noun_top1_unseen")
  'noun, top-1, unseen label combinations'
  """
  group = group_of(name)
  stem = name.removesuffix(f"_{group}") if group else name
  end = next((end for end in _WORDS if stem.endswith(end)), "")
  if not end:
    return name
  text = f"{stem.removesuffix(end).replace('_', ' ')}, {_WORDS[end]}"
  return f"{text}, {result_files.GROUPS[group]}" if group else text
