"""The parts of the check, in the order of their worth."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

BACKBONES = ("slow_r50", "slowfast_r50", "slowfast_r101")
_SMALL = ("tiny",)
PRECISIONS = ("bfloat16", "float32")
DEVICE = "device"
# Tables of `convolution.FORMULATIONS` that differ from each other.
TABLES = ("native", "cpu", "tpu")
KINDS = ("pointwise", "spatial", "temporal", "lateral", "volume")


def table_of(backend: str | None) -> str:
  """The one of `TABLES` that `model.conv=auto` takes: a GPU's is "native"."""
  return backend if backend in TABLES else TABLES[0]


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How large everything is.

  Attributes:
    miniature: whether all is as small as it can be.
    batch: clips of each view; 0 follows the chip's memory.
  """

  miniature: bool = False
  batch: int = 0


@dataclasses.dataclass(frozen=True)
class Part:
  """What runs in a process of its own.

  Attributes:
    kind: what it does, a function of `part_work`.
    backbone: backbone, where it has one.
    precision: type of the activations, where it has one.
    choice: table or kind of convolutions, where it has one.
    needs: seconds below which it isn't begun. They are guesses.
  """

  kind: str
  backbone: str = ""
  precision: str = ""
  choice: str = ""
  needs: float = 0.0

  @property
  def name(self) -> str:
    """Its name in the JSON, "step/slow_r50/bfloat16"."""
    return "/".join(filter(None, (self.kind, self.backbone, self.precision, self.choice)))


def plan(backbones: Sequence[str], sizes: Sizes) -> Mapping[str, Part]:
  """All parts by name, the most useful first.

  Is the chip right, how fast is the step that people run, could it be faster by
  another way of computing convolutions, and how does PyTorch compare; then the
  same in float32, and for the larger networks.

  Args:
    backbones: backbones by importance; none takes `BACKBONES`.
    sizes: how large everything is.
  """
  first, *others = backbones or (_SMALL if sizes.miniature else BACKBONES)
  fast, full = PRECISIONS
  parts = [
    Part(DEVICE),
    Part("parity", "tiny", needs=30),
    Part("step", first, fast, needs=40),
    *(Part("step", name, fast, needs=60) for name in others[:1]),
    *(Part("table", first, fast, table, needs=30) for table in TABLES),
    *_against_torch(first, fast),
    Part("step", first, full, needs=40),
    *(Part("formulations", precision=fast, choice=kind, needs=15) for kind in KINDS),
    *(Part("step", name, full, needs=60) for name in others[:1]),
    *(part for name in others[:1] for part in _against_torch(name, fast)),
    *(Part("step", name, p, needs=90) for name in others[1:] for p in PRECISIONS),
    *(Part("parity", name, needs=90) for name in (first, *others) if name != "tiny"),
    *(part for name in others[1:] for part in _against_torch(name, fast)),
    Part("attention"),
  ]
  return {part.name: part for part in parts}


def _against_torch(backbone: str, precision: str) -> tuple[Part, Part]:
  """The same step in both frameworks, each in a process of its own."""
  return (
    Part("torch", backbone, precision, needs=60),
    Part("peer", backbone, precision, needs=40),
  )
