"""Programs' texts, read; every number here was counted by hand."""

from __future__ import annotations

import pytest

from sum_l_jax.tools.aot import hlo
from tests.support import compiled_step


def test_a_fusion_is_one_operation():
  program = hlo.Program(compiled_step.MATMUL)
  assert program.cycles == 14676 + 3479
  fusion, convert, exchange = program.operations
  assert (fusion.instruction.opcode, fusion.cycles) == ("fusion", 14676)
  # Reads both arguments in float32, writes bfloat16.
  assert fusion.bytes == 4 * (512 * 512 + 512 * 256) + 2 * 512 * 256
  assert convert.bytes == (2 + 4) * 512 * 256
  assert exchange.instruction.cycles is None


def test_collectives_of_the_matrix_product():
  program = hlo.Program(compiled_step.MATMUL)
  (found,) = program.collectives
  assert (found.kind, found.dtype, found.times) == ("all-reduce", "bf16", 1)
  assert (found.elements, found.bytes) == (131072, 262144)
  (exchange,) = (o.instruction for o in program.operations if "all-reduce" in o.instruction.opcode)
  assert "slow/s2" in exchange.op_name


def test_traffic_with_main_memory():
  program = hlo.Program(compiled_step.ASYNC)
  found = {o.instruction.name: o.main_bytes for o in program.operations}
  whole = 4 * 4 * 8 * 128
  assert found == {
    "ss": whole // 4,
    "sd": 0,
    "cs": whole,
    "cd": 0,
    "cc": 0,
    "add": 2 * whole,  # One of the two is in fast memory.
    "out": whole + 2 * 8 * 128,  # Padded to 128.
  }
  assert program.main_bytes == sum(found.values())


def test_a_loop_counts_as_often_as_it_runs():
  program = hlo.Program(compiled_step.LOOP)
  assert program.cycles == 3 * 10 + 5
  turned = [o for o in program.operations if o.times == 3]
  assert next(o.instruction.opcode for o in turned) == "multiply"
  # Twice read, once written.
  assert turned[0].bytes == 3 * 3 * 8 * 4


def test_a_kernel_s_attributes_end_no_computation():
  """They have lines that begin with "}}", and what stands behind them counts."""
  program = hlo.Program(compiled_step.KERNEL)
  # Each turn: 2000 + 500 + 300 + 500; and the copy of the first number.
  assert program.cycles == 3 * 3300 + 7
  (kernel,) = (o for o in program.operations if o.instruction.opcode == "custom-call")
  assert kernel.instruction.target == "tpu_custom_call" and kernel.times == 3
  assert hlo.read_origin(kernel.instruction.op_name).layer[:3] == ("ego", "blocks", "attend")


def test_a_scan_is_counted_by_its_condition():
  program = hlo.Program(compiled_step.KERNEL)
  assert {o.times for o in program.operations if o.instruction.opcode == "fusion"} == {3}
  assert not program.uncounted_loops
  # In each of three turns two clips of 256 tokens meet a matrix of 128 x 128.
  assert sum(n for _, n in program.products) == 3 * 2 * (2 * 256) * 128 * 128


@pytest.mark.parametrize(
  "before, after",
  [
    ("direction=LT", "direction=NE"),
    ("%limit = s32[]{:T(128)} constant(3)", "%limit = s32[]{:T(128)} negate(%turn.1)"),
    ("%one = s32[]{:T(128)} constant(1)", "%one = s32[]{:T(128)} constant(0)"),
  ],
)
def test_a_loop_that_nothing_counts_is_told(before, after):
  assert before in compiled_step.KERNEL
  program = hlo.Program(compiled_step.KERNEL.replace(before, after))
  assert program.uncounted_loops == 1
  assert program.cycles == 3300 + 7 and {o.times for o in program.operations} == {1}


def test_a_stack_over_blocks_counts_once_in_all_turns():
  """Each turn reads the matrix of its block, and writes its own tokens."""
  found = {o.instruction.name: o for o in hlo.Program(compiled_step.KERNEL).operations}
  assert found["projected"].main_bytes == 3 * (2 * 128 * 128 + 4)
  assert found["projected"].bytes == 3 * (2 * 128 * 128 + 4 + 2 * 2 * (2 * 256 * 128))
  # 64 channels take the place of 128.
  assert found["keep"].main_bytes == 3 * (2 * (2 * 2 * 256 * 128) + 4)
  assert found["keep"].bytes == 3 * (4 + 2 * 2 * (2 * 2 * 256 * 64))


def test_operations_of_convolutions():
  """Padding and dilation do not count; a batch of products is a dilated dimension."""
  found = {i.name: n for i, n in hlo.Program(compiled_step.CONVOLUTIONS).products}
  # At the edges a row of three meets two.
  assert found["same"] == 2 * (2 * 3 * 7) * (3 * 8 - 2) * (3 * 10 - 2)
  assert found["dot"] == 2 * 4 * 16 * 32 * 8
  assert found["batch"] == found["dot"]
  assert found["shared"] == 2 * 4 * 16 * 32 * 8


def test_each_exchange_counts_once():
  found = {(c.kind, c.dtype, c.elements): c for c in hlo.Program(compiled_step.LOOP).collectives}
  assert set(found) == {
    ("all-reduce", "f32", 24),  # In the loop.
    ("all-gather", "f32", 128),  # In two fusions, of one channel.
    ("all-gather", "f32", 64),  # A pair, without its operand.
    ("all-reduce", "f32", 10),  # A tuple of 8 and 2 ...
    ("all-reduce", "bf16", 4),  # ... and 4.
  }
  assert found["all-reduce", "f32", 24].times == 3
  assert found["all-reduce", "bf16", 4].bytes == 8


def test_exchanges_of_a_state_that_chips_share():
  program = hlo.Program(compiled_step.SHARED)
  assert program.uncounted_loops == 0
  found = sorted(
    (c.kind, c.dtype, c.group, c.times, c.elements, c.bytes) for c in program.collectives
  )
  assert found == [
    # In two fusions.
    ("all-gather", "bf16", 8, 1, 96 * 96, 2 * 96 * 96),
    # Two on one channel, and two turns of a product in parts.
    ("collective-permute", "bf16", 0, 1, 12 * 96, 2 * 12 * 96),
    ("collective-permute", "bf16", 0, 1, 12 * 96, 2 * 12 * 96),
    ("collective-permute", "bf16", 0, 2, 2 * 12 * 96, 4 * 12 * 96),
    # Of two chips, a pair; of eight, what an async-start calls; and a sum of which
    # parts are kept.
    ("reduce-scatter", "f32", 2, 1, 64, 256),
    ("reduce-scatter", "f32", 8, 1, 64, 256),
    ("reduce-scatter", "f32", 8, 1, 96 * 48 + 16 * 125, 4 * (96 * 48 + 16 * 125)),
  ]


@pytest.mark.parametrize(
  "text, chips",
  [
    ("replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add", 4),
    ("channel_id=2, replica_groups=[2,4]<=[8], dimensions={0}", 4),
    ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=4,'axis_2'=3] {'axis_1'}, dimensions={1}", 4),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", 8),
    ("replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}", 4),
    ("replica_groups={}", 0),
    ("channel_id=3", 0),
  ],
)
def test_how_many_chips_exchange(text, chips):
  assert hlo.read_group(text) == chips


@pytest.mark.parametrize(
  "text, dense, padded",
  [
    ("f32[]", 4, 4),
    ("pred[7]{0}", 7, 7),
    ("s4[6]{0}", 3, 3),
    ("f8e4m3fn[2,3]{1,0}", 6, 6),
    ("c64[2]{0}", 16, 16),
    # 8 channels take the place of 128.
    (
      "bf16[8,32,56,56,8]{4,3,2,1,0:T(8,128)(2,1)}",
      2 * 8 * 32 * 56 * 56 * 8,
      2 * 8 * 32 * 56 * 56 * 128,
    ),
    # W is the fastest, C the next: 56 to 128 and 3 to 8.
    ("f32[2,56,56,3]{2,3,1,0:T(8,128)}", 4 * 2 * 56 * 56 * 3, 4 * 2 * 56 * 8 * 128),
  ],
)
def test_sizes_and_padding(text, dense, padded):
  (array,) = hlo.read_arrays(text)
  assert (array.bytes, array.padded_bytes) == (dense, padded)


@pytest.mark.parametrize(
  "name, layer, primitive, phase",
  [
    (
      "jit(step)/jvp(ego)/slow/s2/0/a/conv_general_dilated",
      "ego/slow/s2/0/a",
      "conv_general_dilated",
      "forward",
    ),
    ("jit(step)/transpose(jvp(exo))/fast/s1/reduce_sum", "exo/fast/s1", "reduce_sum", "backward"),
    (
      "jit(step)/transpose(jvp(ego))/slow/s2/0/checkpoint/rematted_computation/b/mul",
      "ego/slow/s2/0/b",
      "mul",
      "recomputed",
    ),
    ("jit(step)/jvp(loss)/nd,md->nm/dot_general", "loss", "dot_general", "forward"),
    ("jit(step)/jvp(loss)/jit(_where)/select_n;jit(step)/mul", "loss", "select_n", "forward"),
    ("jit(step)/jvp()/jit(_fold_in)/Model.__call__/add", "", "add", "forward"),
    ("", "", "", "forward"),
  ],
)
def test_names_of_operations(name, layer, primitive, phase):
  origin = hlo.read_origin(name)
  assert "/".join(origin.layer) == layer
  assert (origin.primitive, origin.phase) == (primitive, phase)


def test_a_text_that_is_no_program():
  with pytest.raises(ValueError, match="no ENTRY"):
    hlo.Program("HloModule nothing\n")
