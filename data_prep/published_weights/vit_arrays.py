"""Arrays of published vision transformers to ours, and back.

The stacks of `models/vit.py` have a first axis that counts the blocks, and
kernels are [in, out] everywhere, also that of the patches.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re

import numpy as np

from data_prep.published_weights import vit_names
from data_prep.published_weights.vit_names import Format
from data_prep.published_weights.vit_names import Place
from sum_l_jax.models import backbones
from sum_l_jax.models import vit
from sum_l_jax.models.layers import resize
from sum_l_jax.models.vit_spec import VitSpec
from sum_l_jax.system import command_line

Shape = tuple[int, ...]
_STACK = re.compile(r"(blocks|time_blocks|joint_blocks)/")
# An array of ours that a format has no place for is exported under this name.
OWN = "sum_l_jax."


@dataclasses.dataclass
class Found:
  """What became of an encoder's arrays.

  Attributes:
    arrays: ours by flat name.
    used: names in the file that were read.
    missing: names that are not in the file.
    other_shapes: names with the shape in the file and the one that is wanted.
    new: ours that the file has no array for, and what they start with.
    resized: what was said of arrays that were brought to another length.
  """

  arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  used: set[str] = dataclasses.field(default_factory=set)
  missing: list[str] = dataclasses.field(default_factory=list)
  other_shapes: list[str] = dataclasses.field(default_factory=list)
  new: dict[str, str] = dataclasses.field(default_factory=dict)
  resized: list[str] = dataclasses.field(default_factory=list)

  @property
  def fits(self) -> bool:
    """Whether every array was found, in its shape."""
    return not (self.missing or self.other_shapes)


def blocks(form: Format, tensors: Mapping[str, np.ndarray]) -> tuple[int, int]:
  """Depth and width of the main stack of a file; zeros where it has none."""
  place = vit_names.find(form, "blocks/block/norm1/scale")
  assert place is not None
  if "{n}" not in place.name:
    found = tensors.get(place.name, np.zeros((0, 0)))
    return (len(found), found.shape[-1]) if found.ndim == 2 else (0, 0)
  depth = 0
  while place.name.format(n=depth) in tensors:
    depth += 1
  return depth, tensors[place.name.format(n=0)].shape[-1] if depth else 0


def read(
  form: Format,
  spec: VitSpec,
  shapes: Mapping[str, Shape],
  tensors: Mapping[str, np.ndarray],
  *,
  values: bool = True,
) -> Found:
  """Finds all arrays of an encoder in a file.

  Args:
    form: format of the file.
    spec: the encoder.
    shapes: shape of each of its arrays, by flat name.
    tensors: arrays of the file, with canonical names.
    values: whether to fill `arrays`; else only names and shapes are compared.
  """
  found = Found()
  for ours, shape in shapes.items():
    own = tensors.get(OWN + ours)
    if own is not None and own.shape == shape:
      found.used.add(OWN + ours)
      found.arrays[ours] = own.astype(np.float32)
      continue
    place = vit_names.find(form, ours)
    stacked = bool(_STACK.match(ours))
    depth = shape[0] if stacked else 1
    one = shape[1:] if stacked else shape
    if ours in form.start and (place is None or place.name not in tensors):
      found.new[ours] = form.start[ours]
      found.arrays[ours] = _start(form.start[ours], shape)
      continue
    if place is None:
      found.missing.append(f"{ours} (which {form.title} has not)")
      continue
    rows = []
    for n in range(depth):
      row = _read_one(form, spec, place, n if stacked else None, ours, one, tensors, found)
      if row is None:
        break
      if values:
        rows.append(row)
    if values and len(rows) == depth:
      found.arrays[ours] = np.stack(rows) if stacked else np.array(rows[0], order="C")
  return found


def choose(
  form: Format,
  tensors: Mapping[str, np.ndarray],
  shapes_of: Callable[[str], Mapping[str, Shape]],
  *,
  source: str,
  side: int = 0,
) -> tuple[str, list[str]]:
  """The backbone that a file's arrays fit, by their shapes.

  Args:
    form: format of the file.
    tensors: its arrays, with canonical names.
    shapes_of: gives the shape of each array of a backbone's encoder.
    source: the file, for messages.
    side: side in pixels that the file says it was trained at, or 0. It decides
      between networks that have the same arrays, as V-JEPA 2 g at 256 and 384.

  Returns:
    Name of the backbone, and lines for the report.

  Raises:
    ValueError: there is none; names those of the family.
  """
  family = {
    name: entry.vit
    for name, entry in backbones.BACKBONES.items()
    if entry.vit and any(f"{name}_".startswith(f"{start}_") for start in form.backbones)
  }
  depth, width = blocks(form, tensors)
  problems: list[str] = []
  fitting: list[str] = []
  for name, spec in family.items():
    if (spec.depth, spec.width) != (depth, width):
      continue
    found = read(form, spec, shapes_of(name), tensors, values=False)
    if found.fits:
      fitting.append(name)
    else:
      first = [f"without {x}" for x in found.missing] + found.other_shapes
      problems.append(f"it does not fit {name} ({command_line.some(first, 3)})")
  places = tensors.get("pos_embed")
  if places is not None and fitting:  # Left over in files of networks that rotate.
    rows = places.size // width
    of_table = [name for name in fitting if rows % int(np.prod(family[name].grid[1:])) == 0]
    if not of_table:
      problems.append(
        f"it has a table of {rows} positions, as V-JEPA 1 has, whose networks add it and are none"
        " of these"
      )
    fitting = sorted(of_table, key=lambda name: -family[name].image)
  fitting.sort(key=lambda name: family[name].image != side)
  if fitting:
    others = [f"note         the same arrays fit {', '.join(fitting[1:])}: choose with --backbone"]
    return fitting[0], others if fitting[1:] else []
  rows = [
    f"{name} ({spec.depth} blocks of {spec.width}, {spec.frames} frames of {spec.image} pixels in"
    f" patches of {spec.patch[1]})"
    for name, spec in family.items()
  ]
  what = "; ".join(problems) or "none of them has as many blocks and channels"
  raise ValueError(
    f"{source} holds {form.title} with {depth} blocks of {width} channels, and no backbone of its"
    f" family fits: {what}. There are {', '.join(rows)}. Another size is a row of its own"
    " (sum_l_jax.models.register_vit), chosen as backbone in"
    " data_prep.published_weights.convert.Options."
  )


def _start(kind: str, shape: Shape) -> np.ndarray:
  if kind == "sinusoids":
    return vit.sincos_table(*shape)
  return {"ones": np.ones, "zeros": np.zeros}[kind](shape, np.float32)


def _read_one(
  form: Format,
  spec: VitSpec,
  place: Place,
  block: int | None,
  ours: str,
  shape: Shape,
  tensors: Mapping[str, np.ndarray],
  found: Found,
) -> np.ndarray | None:
  """One array, of one block where there are several; None where it can't be had."""
  names = [name.format(n=block) for name in (place.name, place.added) if name]
  missing = [name for name in names if name not in tensors and name not in found.missing]
  if any(name not in tensors for name in names):
    found.missing += missing
    return None
  found.used.update(names)
  wanted = their_shape(place, shape, spec)
  parts = []
  for name in names:
    value = tensors[name]
    if block is not None and "{n}" not in place.name:
      if value.ndim < 2 or not block < len(value):
        found.other_shapes.append(f"{name} {value.shape}, without a block {block}")
        return None
      value = value[block]
    if ours in form.resized and _plain(value.shape)[1:] == _plain(wanted)[1:]:
      value = _resized(value.reshape(-1, wanted[-1]), wanted, name, found)
    fits = _plain(value.shape) == _plain(wanted)
    if form.flat_patches and place.layout == "patches" and value.ndim == 2:
      fits = value.shape == (wanted[0], np.prod(wanted[1:]))
    if not fits:
      found.other_shapes.append(f"{name} {value.shape}, wanted {wanted}")
      return None
    parts.append(value.reshape(wanted).astype(np.float32, copy=False))
  value = parts[0] if len(parts) == 1 else parts[0] + parts[1]
  if place.third is not None:
    value = value[place.third * len(value) // 3 : (place.third + 1) * len(value) // 3]
  return _to_ours(value, place, shape)


def _plain(shape: Sequence[int]) -> Shape:
  """A shape without axes of 1."""
  return tuple(size for size in shape if size != 1)


def _resized(value: np.ndarray, wanted: Shape, name: str, found: Found) -> np.ndarray:
  """Positions of more or fewer frames: interpolated or cut, as the authors do."""
  have, want = len(value), wanted[-2]
  if have == want:
    return value
  found.resized.append(f"{name} from {have} to {want} frames")
  if have > want:
    return value[:want]
  return (resize.weights(have, want, "linear") @ value).astype(np.float32)


def their_shape(place: Place, shape: Shape, spec: VitSpec) -> Shape:
  """The shape in the file of one of our arrays (of one block)."""
  match place.layout:
    case "linear":
      shape = shape[::-1]
    case "patches":
      shape = (shape[1], 3, *spec.patch)
    case "heads":
      shape = (*shape[:-1], spec.heads, shape[-1] // spec.heads)
    case "joined_heads":
      shape = (shape[1], spec.heads, shape[0] // spec.heads)
  return shape if place.third is None else (3 * shape[0], *shape[1:])


def _to_ours(value: np.ndarray, place: Place, shape: Shape) -> np.ndarray:
  match place.layout:
    case "linear":
      return value.T
    case "patches":  # Ours are flattened frame, row, column, channel.
      return value.transpose(2, 3, 4, 1, 0).reshape(shape)
    case "joined_heads":
      return value.reshape(shape[::-1]).T
    case _:
      return value.reshape(shape)


def _to_theirs(value: np.ndarray, place: Place, spec: VitSpec) -> np.ndarray:
  """The inverse of `_to_ours`, for the layouts of PyTorch."""
  if place.layout == "patches":
    return value.reshape(*spec.patch, 3, -1).transpose(4, 3, 0, 1, 2)
  return value.T if place.layout == "linear" else value


def write(form: Format, spec: VitSpec, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Gives an encoder's arrays their names and layouts; `read` undoes it.

  What the format has no place for, and what isn't as it starts, gets a name of
  this library's.

  Args:
    form: a format of PyTorch's.
    spec: the encoder.
    arrays: ours by flat name.
  """
  out: dict[str, np.ndarray] = {}
  thirds: dict[str, dict[int, np.ndarray]] = {}
  for ours, array in arrays.items():
    place = vit_names.find(form, ours)
    array = np.asarray(array)
    if place is None:
      kind = form.start.get(ours)
      if kind is None or not np.array_equal(array, _start(kind, array.shape)):
        out[OWN + ours] = array
      continue
    stacked = bool(_STACK.match(ours))
    for n, one in enumerate(array if stacked else array[None]):
      value = _to_theirs(one, place, spec)
      if place.layout == "patches" and form.image_patches:
        value = value[:, :, 0]
      value = np.ascontiguousarray(value[None] if ours in form.leading else value)
      name = place.name.format(n=n)
      if place.third is None:
        out[name] = value
      else:
        thirds.setdefault(name, {})[place.third] = value
  for name, parts in thirds.items():
    out[name] = np.concatenate([parts[i] for i in range(3)])
  return out
