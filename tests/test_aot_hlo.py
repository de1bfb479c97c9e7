"""Programs' texts, read; every number here was counted by hand."""

from __future__ import annotations

import pytest

from sum_l_jax.aot import hlo

# What the TPU compiler makes of the gradient of a matrix product over 8 chips,
# shortened; the names and numbers are its own.
MATMUL = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[512,256])}

FileNames
1 "f.py"

%convert.1 (param_0.9: f32[512,512]) -> bf16[512,512] {
  %param_0.9 = f32[512,512]{1,0:T(8,128)} parameter(0)
  ROOT %convert.21 = bf16[512,512]{1,0:T(8,128)(2,1)} convert(%param_0.9), metadata={op_name="jit(f)/jvp()/convert_element_type" stack_frame_id=3}
}

%fused_computation.1 (param_0.15: f32[512,512], param_1.15: f32[512,256]) -> bf16[512,256] {
  %param_0.15 = f32[512,512]{1,0:T(8,128)} parameter(0)
  %param_1.15 = f32[512,256]{1,0:T(8,128)} parameter(1)
  %fusion.3 = bf16[512,512]{1,0:T(8,128)(2,1)} fusion(%param_0.15), kind=kLoop, calls=%convert.1
  ROOT %convolution.2 = bf16[512,256]{1,0:T(8,128)(2,1)S(1)} convolution(%fusion.3, %param_1.15), dim_labels=fb_io->bf, metadata={op_name="jit(f)/transpose(jvp(ego))/slow/s2/0/a/dot_general" stack_frame_id=3}, backend_config={"window_config":{"estimated_cycles":"999"}}
}

%add.clone (x.3: bf16[], y.1: bf16[]) -> bf16[] {
  %y.1 = bf16[]{:T(256)} parameter(1)
  %x.3 = bf16[]{:T(256)} parameter(0)
  ROOT %add.1 = bf16[]{:T(256)} add(%x.3, %y.1)
}

ENTRY %main.0_spmd (param.1: f32[512,256], param: f32[512,512]) -> f32[512,256] {
  %param.1 = f32[512,256]{1,0:T(8,128)} parameter(0), sharding={replicated}, metadata={op_name="w"}
  %param = f32[512,512]{1,0:T(8,128)} parameter(1), sharding={devices=[8,1]<=[8]}
  %fusion = bf16[512,256]{1,0:T(8,128)(2,1)S(1)} fusion(%param, %param.1), kind=kOutput, calls=%fused_computation.1, metadata={op_name="jit(f)/transpose(jvp(ego))/slow/s2/0/a/dot_general" stack_frame_id=3}, backend_config={"flag_configs":[],"window_config":{"estimated_cycles":"14676"}}
  %all-reduce = bf16[512,256]{1,0:T(8,128)(2,1)S(1)} all-reduce(%fusion), channel_id=1, replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, use_global_device_ids=true, to_apply=%add.clone, metadata={op_name="jit(f)/transpose(jvp(ego))/slow/s2/0/a/dot_general"}
  ROOT %convert.15 = f32[512,256]{1,0:T(8,128)} convert(%all-reduce), metadata={op_name="jit(f)/transpose(jvp())/convert_element_type"}, backend_config={"window_config":{"estimated_cycles":"3479"}}
}
"""
# Three turns of a loop; exchanges in pairs, within fusions, and of a tuple.
LOOP = """\
HloModule loop

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %y = f32[8]{0} multiply(%x, %x), backend_config={"window_config":{"estimated_cycles":"10"}}
  %sum = f32[8]{0} all-reduce(%y), channel_id=7, to_apply=%add
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %sum)
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %p.1 = (s32[], f32[8]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %three = s32[] constant(3)
  ROOT %less = pred[] compare(%i.1, %three), direction=LT
}

%beside (q: f32[4,8]) -> f32[16,8] {
  %q = f32[4,8]{1,0} parameter(0)
  ROOT %gather = f32[16,8]{1,0} all-gather(%q), channel_id=9, dimensions={0}
}

%beside.clone (q: f32[4,8]) -> f32[16,8] {
  %q.1 = f32[4,8]{1,0} parameter(0)
  ROOT %gather.1 = f32[16,8]{1,0} all-gather(%q.1), channel_id=9, dimensions={0}
}

ENTRY %main (a: f32[8], b: f32[4,8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = f32[4,8]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %init = (s32[], f32[8]{0}) tuple(%zero, %a)
  %loop = (s32[], f32[8]{0}) while(%init), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %one = f32[16,8]{1,0} fusion(%b), kind=kCustom, calls=%beside, backend_config={"window_config":{"estimated_cycles":"5"}}
  %two = f32[16,8]{1,0} fusion(%b), kind=kCustom, calls=%beside.clone
  %start = (f32[4,8]{1,0}, f32[8,8]{1,0}) all-gather-start(%b), channel_id=10, dimensions={0}
  %done = f32[8,8]{1,0} all-gather-done(%start)
  %both = (f32[8]{0}, /*index=1*/bf16[4]{0}, f32[2]{0}) all-reduce(%a, %a, %a), channel_id=11, to_apply=%add
  ROOT %out = f32[8]{0} get-tuple-element(%loop), index=1
}
"""


def test_a_fusion_is_one_operation():
  program = hlo.Program(MATMUL)
  assert program.cycles == 14676 + 3479
  fusion, convert, exchange = program.operations
  assert (fusion.instruction.opcode, fusion.cycles) == ("fusion", 14676)
  # Reads both arguments in float32, writes bfloat16.
  assert fusion.bytes == 4 * (512 * 512 + 512 * 256) + 2 * 512 * 256
  assert convert.bytes == (2 + 4) * 512 * 256
  assert exchange.instruction.cycles is None


def test_collectives_of_the_matrix_product():
  (found,) = hlo.Program(MATMUL).collectives
  assert (found.kind, found.dtype, found.times) == ("all-reduce", "bf16", 1)
  assert (found.elements, found.bytes) == (131072, 262144)
  assert "slow/s2" in found.op_name


def test_a_loop_counts_as_often_as_it_runs():
  program = hlo.Program(LOOP)
  assert program.cycles == 3 * 10 + 5
  turned = [o for o in program.operations if o.times == 3]
  assert [o.instruction.opcode for o in turned][0] == "multiply"
  # Twice read, once written.
  assert turned[0].bytes == 3 * 3 * 8 * 4


def test_each_exchange_counts_once():
  found = {(c.kind, c.dtype, c.elements): c
           for c in hlo.Program(LOOP).collectives}
  assert set(found) == {
      ("all-reduce", "f32", 24),   # In the loop.
      ("all-gather", "f32", 128),  # In two fusions, of one channel.
      ("all-gather", "f32", 64),   # A pair, without its operand.
      ("all-reduce", "f32", 10),   # A tuple of 8 and 2 ...
      ("all-reduce", "bf16", 4),   # ... and 4.
  }
  assert found["all-reduce", "f32", 24].times == 3
  assert found["all-reduce", "bf16", 4].bytes == 8


@pytest.mark.parametrize("text, dense, padded", [
    ("f32[]", 4, 4),
    ("pred[7]{0}", 7, 7),
    ("s4[6]{0}", 3, 3),
    ("f8e4m3fn[2,3]{1,0}", 6, 6),
    ("c64[2]{0}", 16, 16),
    # 8 channels take the place of 128.
    ("bf16[8,32,56,56,8]{4,3,2,1,0:T(8,128)(2,1)}", 2 * 8 * 32 * 56 * 56 * 8,
     2 * 8 * 32 * 56 * 56 * 128),
    # W is the fastest, C the next: 56 to 128 and 3 to 8.
    ("f32[2,56,56,3]{2,3,1,0:T(8,128)}", 4 * 2 * 56 * 56 * 3,
     4 * 2 * 56 * 8 * 128),
])  # fmt: skip
def test_sizes_and_padding(text, dense, padded):
  (array,) = hlo.read_arrays(text)
  assert (array.bytes, array.padded_bytes) == (dense, padded)


@pytest.mark.parametrize("name, layer, primitive, phase", [
    ("jit(step)/jvp(ego)/slow/s2/0/a/conv_general_dilated", "ego/slow/s2/0/a",
     "conv_general_dilated", "forward"),
    ("jit(step)/transpose(jvp(exo))/fast/s1/reduce_sum", "exo/fast/s1",
     "reduce_sum", "backward"),
    ("jit(step)/transpose(jvp(ego))/slow/s2/0/checkpoint/"
     "rematted_computation/b/mul", "ego/slow/s2/0/b", "mul", "recomputed"),
    ("jit(step)/jvp(loss)/nd,md->nm/dot_general", "loss", "dot_general",
     "forward"),
    ("jit(step)/jvp(loss)/jit(_where)/select_n;jit(step)/mul", "loss",
     "select_n", "forward"),
    ("jit(step)/jvp()/jit(_fold_in)/Model.__call__/add", "", "add", "forward"),
    ("", "", "", "forward"),
])  # fmt: skip
def test_names_of_operations(name, layer, primitive, phase):
  origin = hlo.read_origin(name)
  assert "/".join(origin.layer) == layer
  assert (origin.primitive, origin.phase) == (primitive, phase)


def test_a_text_that_is_no_program():
  with pytest.raises(ValueError, match="no ENTRY"):
    hlo.Program("HloModule nothing\n")
