"""Finds the stored features that settings name, and what networks know of them.

A view with `input` "tokens" has folders of features. Which one belongs to a split of
a data set is told by their cards, which know the clips by their fingerprints.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING
from typing import Any

from sum_l_jax import models
from sum_l_jax.config import stored_features
from sum_l_jax.config.schema import Settings
from sum_l_jax.data import feature_card
from sum_l_jax.data import feature_store
from sum_l_jax.data import records
from sum_l_jax.models.stored_tokens import StoredSpec

# A step is assembled where there is nothing to read clips or checkpoints with.
if TYPE_CHECKING:
  from sum_l_jax.checkpoint import weight_files
  from sum_l_jax.data import transforms


def card(settings: Settings, view: str) -> feature_card.FeatureCard:
  """What the features of a view are; their folders must agree in it.

  Raises:
    FileNotFoundError, ValueError: there are none, they are damaged, or of several
      encoders.
  """
  folders = settings.view(view).features
  cards = [feature_card.read(folder) for folder in folders]
  first = cards[0]
  for folder, other in zip(folders[1:], cards[1:]):
    for name, one, two in zip(_FORM, _form(first), _form(other), strict=True):
      if one != two:
        raise ValueError(
          f"config.{view}.features must be of one encoder and form, but {folders[0]!r} has {name}"
          f" {one}, and {folder!r} has {two}."
        )
  _check_frames(settings, view, first)
  return first


_FORM = ("the encoder", "the frames", "the pixels", "the kind", "the type", "tokens and channels")


def _form(of: feature_card.FeatureCard) -> tuple[Any, ...]:
  """What the features of a view have in common, whatever their views are."""
  return (
    (of.encoder.name, of.encoder.weights, of.encoder.options),
    of.frames,
    of.pixels,
    of.kind,
    of.dtype,
    of.shape[1:],
  )


def _check_frames(settings: Settings, view: str, of: feature_card.FeatureCard) -> None:
  """Raises ValueError where the config names other frames than the encoder was given."""
  if stored_features.framed(settings):
    return  # They are those of the other view.
  given = {
    "frames.count": (settings.frames.count, of.frames.count),
    "frames.stride": (settings.frames.stride, of.frames.stride),
    "eval.crop_size": (settings.eval.crop_size, of.frames.crop_size),
  }
  for field, (value, stored) in given.items():
    if value not in (0, stored):
      raise ValueError(
        f"config.{field}={value}, but the features of config.{view}.features were extracted with"
        f" {stored}. Leave it at 0, or extract them again ({feature_card.COMMAND})."
      )


def find_store(
  settings: Settings, view: str, dataset: records.ClipDataset, *, training: bool
) -> feature_store.FeatureStore:
  """Opens the features of a data set, or of the split that it is a part of.

  Args:
    settings: settings whose view has features.
    view: "ego" or "exo".
    dataset: the clips.
    training: whether views that were drawn, as training draws them, go before test
      views; without it they are of no use.

  Raises:
    FileNotFoundError, ValueError: no folder has features of these clips.
  """
  card(settings, view)
  whole, found, others = dataset.whole, {}, []
  for folder in settings.view(view).features:
    of = feature_card.read(folder)
    is_its = of.dataset.fingerprints.get(whole.split) == whole.fingerprint
    if is_its and whole.split in of.splits:
      found.setdefault(of.views.drawn, folder)
    others.append(f"{folder!r} of {of.dataset.name}/{of.dataset.view}: {', '.join(of.splits)}")
  order = (feature_card.TEST_VIEWS,)
  if training:
    order = (feature_card.TRAIN_VIEWS, *order)
  for drawn in order:
    if drawn in found:
      store = feature_store.FeatureStore(found[drawn], whole.split)
      store.check(whole)
      return store
  what = "test views" if found else "features"
  raise ValueError(
    f"config.{view}.features has no {what} of {whole!r} at {str(whole.directory)!r}, by its"
    f" fingerprint {whole.fingerprint}: there are {'; '.join(others)}. Extract them"
    f" ({feature_card.COMMAND}) and add their folder."
  )


def find_stores(
  settings: Settings, view: str, datasets: Iterable[records.ClipDataset], *, training: bool
) -> tuple[feature_store.FeatureStore, ...]:
  """The features of several data sets, see `find_store`; none where a view gets frames."""
  if not settings.stored(view):
    return ()
  return tuple(find_store(settings, view, data, training=training) for data in datasets)


def specs(settings: Settings, views: Iterable[str]) -> dict[str, StoredSpec]:
  """What the towers of those of the views get that have features."""
  found = {}
  for view in (view for view in views if settings.stored(view)):
    of = card(settings, view)
    _, tokens, width = of.shape
    found[view] = StoredSpec(width, tokens, tokens == 1 or mean_is_pooled(of.encoder.name))
  return found


def mean_is_pooled(backbone: str) -> bool:
  """Whether an encoder's pooled feature is known to be the mean of its tokens."""
  entry = models.BACKBONES.get(backbone)
  if entry is None:
    return False
  if entry.vit is None:
    return entry.spec is not None
  vit = entry.vit
  return (vit.pooling, vit.final_norm) == ("mean", "tokens") and vit.attention != "frame"


def transform(settings: Settings, view: str) -> transforms.ClipTransform:
  """Which frames a stored test view shows."""
  from sum_l_jax.data import transforms

  frames = card(settings, view).frames
  return transforms.ClipTransform.for_testing(
    frames.count, frames.stride, frames.crop_size, frames.sampling
  )


def pixels(settings: Settings, view: str) -> models.PixelSpec:
  """What the encoder's pixels looked like."""
  return models.PixelSpec.from_json(card(settings, view).pixels)


def described(settings: Settings, views: Sequence[str]) -> dict[str, Any]:
  """What a checkpoint says of the features of its views, as JSON values."""
  found = {}
  for view in (view for view in views if settings.stored(view)):
    of = card(settings, view)
    found[view] = {
      "encoder": dataclasses.asdict(of.encoder),
      "frames": dataclasses.asdict(of.frames),
      "pixels": dict(of.pixels),
      "kind": of.kind,
      "dtype": of.dtype,
      "tokens": of.shape[1],
      "channels": of.shape[2],
    }
  return found


def check_trained_on(settings: Settings, weights: weight_files.Weights, view: str) -> None:
  """Makes sure that weights were trained on features like those of the settings.

  Raises:
    ValueError: they were trained on frames, or on features of another encoder or form.
  """
  from sum_l_jax.checkpoint import weight_files

  saved = weight_files.features_of(weights, view)
  if saved is None:
    raise ValueError(
      f"The {view} view of {weights.source} was trained on frames, but config.{view}.input="
      f"{settings.view(view).input!r}. Set it to 'frames'."
    )
  given = described(settings, (view,))[view]
  weight_files.check_trained_with(
    weights, *((f"{view} features with {name}", saved.get(name), given[name]) for name in given)
  )


def digest(store: feature_store.FeatureStore) -> str:
  """Hex digest of all that training sees of a split's features."""
  of = store.card
  said: Mapping[str, Any] = {
    "encoder": [of.encoder.name, of.encoder.weights, of.encoder.options],
    "form": [of.kind, of.dtype, *of.shape],
    "views": dataclasses.asdict(of.views),
    "unreadable": sorted(store.unreadable),
    "shards": [[shard.records, shard.crc32c] for shard in store.shards.files],
  }
  return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
