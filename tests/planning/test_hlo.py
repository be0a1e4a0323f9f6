"""Operations, loops and shapes of a printed program."""

import dataclasses

import pytest

from switch_jax.planning.hlo import operations
from switch_jax.planning.model_parts import model_part

TEXT = """\
HloModule jit_step, is_scheduled=true

%fused_product (p0: bf16[8,16], p1: bf16[16,32]) -> bf16[8,32] {
  %p0 = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[16,32]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.1 = bf16[8,32]{1,0:T(8,128)(2,1)} convolution(%p0, %p1), dim_labels=bf_io->bf
}

%gathering (p: f32[4]) -> f32[8] {
  %p = f32[4]{0} parameter(0)
  ROOT %all-gather.3 = f32[8]{0} all-gather(%p), replica_groups={{0,1}}, dimensions={0}
}

%all-reduce-scatter.3 (p: bf16[8,32]) -> bf16[4,32] {
  %p = bf16[8,32]{1,0} parameter(0)
  %all-reduce.4 = bf16[8,32]{1,0} all-reduce(%p), replica_groups={{0,1}}, to_apply=%add
  ROOT %dynamic-slice.4 = bf16[4,32]{1,0} dynamic-slice(%all-reduce.4, %i, %j), dynamic_slice_sizes={4,32}
}

%exchanging (p: bf16[8,32]) -> bf16[8,32] {
  %p = bf16[8,32]{1,0} parameter(0)
  ROOT %all-to-all.5 = bf16[8,32]{1,0} all-to-all(%p), replica_groups={{0,1}}, dimensions={0}
}, execution_thread="sparsecore"

%product_that_starts (p0: bf16[8,16], p1: bf16[16,32], p2: bf16[1,6,32]) -> bf16[8,32] {
  %p0 = bf16[8,16]{1,0} parameter(0)
  %p1 = bf16[16,32]{1,0} parameter(1)
  %p2 = bf16[1,6,32]{2,1,0} parameter(2)
  %all-gather.10 = bf16[4,6,32]{2,1,0} all-gather(%p2), replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="7"}
  %custom-call.10 = (bf16[1,6,32]{2,1,0}, bf16[4,6,32]{2,1,0}, u32[]) custom-call(%all-gather.10), custom_call_target="AsyncCollectiveStart"
  %convolution.10 = bf16[8,32]{1,0} convolution(%p0, %p1), dim_labels=bf_io->bf
  ROOT %tuple.10 = (bf16[8,32]{1,0}, bf16[1,6,32]{2,1,0}) tuple(%convolution.10, %custom-call.10)
}

%product_between (p2: bf16[1,6,32]) -> bf16[8,32] {
  %p2 = bf16[1,6,32]{2,1,0} parameter(0)
  %all-gather.11 = bf16[4,6,32]{2,1,0} all-gather(%p2), replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="7"}
  ROOT %tuple.11 = (bf16[8,32]{1,0}, bf16[4,6,32]{2,1,0}) tuple(%fusion.842, %all-gather.11)
}

%end_of_a_chain (p2: bf16[1,6,32]) -> bf16[4,6,32] {
  %p2 = bf16[1,6,32]{2,1,0} parameter(0)
  %all-gather.12 = bf16[4,6,32]{2,1,0} all-gather(%p2), replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="7"}
  ROOT %custom-call.12 = bf16[4,6,32]{2,1,0} custom-call(%p2, %all-gather.12, %p2), custom_call_target="AsyncCollectiveDone"
}

%body.1 (t: (s32[], bf16[8,32])) -> (s32[], bf16[8,32]) {
  %t = (s32[]{:T(128)}, bf16[8,32]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %fusion.7 = bf16[8,32]{1,0} fusion(%a, %b), kind=kOutput, calls=%fused_product, metadata={op_name="jit(step)/jvp()/while/body/attention/dot_general"}, backend_config={"window_config":{"estimated_cycles":"1000"}}
  %sort.1 = (s32[64]{0}, s32[64]{0}) sort(%k, %v), dimensions={0}, backend_config={"estimated_cycles":"9223372036854775807"}
  %fusion.8 = f32[8]{0} fusion(%c), kind=kCustom, calls=%gathering
  %fusion.9 = bf16[4,32]{1,0} fusion(%fusion.7), kind=kCustom, calls=%all-reduce-scatter.3
  ROOT %tuple.1 = (s32[], bf16[8,32]{1,0}) tuple(%i, %fusion.7)
}

%condition.1 (t: (s32[], bf16[8,32])) -> pred[] {
  %t = (s32[], bf16[8,32]{1,0}) parameter(0)
  %constant.5 = s32[]{:T(128)} constant(12)
  ROOT %compare.1 = pred[] compare(%i, %constant.5), direction=LT
}

ENTRY %main.9 (p: bf16[8,32]) -> bf16[8,32] {
  %p = bf16[8,32]{1,0} parameter(0)
  %while.2 = (s32[]{:T(128)}, bf16[8,32]{1,0:T(8,128)(2,1)}) while(%tuple.0), condition=%condition.1, body=%body.1
  %custom-call.4 = bf16[2]{0} custom-call(), custom_call_target="AllocateBuffer"
  %custom-call.6 = bf16[8,32]{1,0:S(1)} custom-call(%p, %p), custom_call_target="ConcatBitcast"
  %kernel.5 = bf16[8,32]{1,0} custom-call(%p), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"cost_estimate":{"flops":"77"}}}
  %call-start.6 = ((bf16[8,32]{1,0}), bf16[8,32]{1,0}) call-start(%p), async_execution_thread="sparsecore", to_apply=%exchanging
  %call-done.6 = bf16[8,32]{1,0} call-done(%call-start.6)
  %fusion.10 = (bf16[8,32]{1,0}, bf16[1,6,32]{2,1,0}) fusion(%a, %b, %c), kind=kOutput, calls=%product_that_starts, backend_config={"window_config":{"estimated_cycles":"400"}}
  %fusion.11 = bf16[8,32]{1,0} fusion(%c), kind=kOutput, calls=%product_between, backend_config={"window_config":{"estimated_cycles":"300"}}
  %async-collective-done.7 = bf16[4,6,32]{2,1,0} fusion(%c), kind=kCustom, calls=%end_of_a_chain
  ROOT %copy.3 = bf16[8,32]{1,0} copy(%g), backend_config={"estimated_cycles":"50"}
}
"""  # noqa: E501


BY_NAME = {o.name: o for o in operations(TEXT)}


def test_operations_of_a_loop_count_by_its_condition():
    looped, once = BY_NAME["fusion.7"], BY_NAME["copy.3"]
    assert (looped.count, looped.cycles, once.count, once.cycles) == (12, 1000, 1, 50)
    assert looped.op_name == "jit(step)/jvp()/while/body/attention/dot_general"


def test_bytes_of_operands_and_results_in_hbm():
    assert BY_NAME["kernel.5"].hbm_bytes == 2 * 8 * 32 * 2  # %p, and the result
    assert BY_NAME["custom-call.6"].hbm_bytes == 2 * 8 * 32 * 2  # %p twice; the result is in VMEM
    mixed = dataclasses.replace(BY_NAME["copy.3"], shape="(pred[8]{0}, f32[2,3]{1,0:S(1)}, s4[6])")
    assert mixed.hbm_bytes == 8 + 3  # `%g` is not in the text


def test_unknown_cycles_and_free_operations():
    assert BY_NAME["sort.1"].cycles is None and not BY_NAME["sort.1"].is_free
    assert all(BY_NAME[name].is_free for name in ("custom-call.4", "custom-call.6", "while.2"))


def test_flops_of_fused_products_and_of_kernels_with_an_estimate():
    flops = [BY_NAME[name].flops for name in ("fusion.7", "kernel.5", "copy.3")]
    assert flops == [2 * 8 * 16 * 32, 77, 0]


def test_a_collective_inside_a_fusion_is_found():
    gathers = [o for o in operations(TEXT) if o.opcode == "all-gather"]
    assert [(o.name, o.count) for o in gathers] == [("all-gather.3", 12)]


def test_a_collective_within_several_products_is_one_from_the_first_to_the_last():
    start, products = BY_NAME["chain-7"], [BY_NAME["fusion.10"], BY_NAME["fusion.11"]]
    assert (start.opcode, start.count) == ("all-gather-start", 1)
    assert start.shape == "(bf16[1,6,32]{2,1,0}, bf16[4,6,32]{2,1,0})"  # operand, and result
    ends = [o for o in operations(TEXT) if o.opcode == "all-gather-done"]
    assert [o.operand_names for o in ends] == [["chain-7"]]
    assert "all-gather.11" not in BY_NAME
    assert [product.cycles for product in products] == [400, 300]
    assert all(product.is_timed for product in products)
    # What only ends one has no product: the compiler has no figure for it, and none is missed.
    assert not BY_NAME["async-collective-done.7"].is_timed


def test_a_sum_of_which_a_device_keeps_a_slice_is_a_reduce_scatter():
    """A TPU has no other; the compiler knows no cycles of the fusion, and it computes nothing."""
    inner = BY_NAME["all-reduce.4"]
    assert (inner.opcode, inner.shape, inner.count) == ("reduce-scatter", "bf16[4,32]{1,0}", 12)
    assert not inner.is_timed and not BY_NAME["fusion.9"].is_timed


def test_what_another_core_does_takes_no_time_of_this_one():
    assert BY_NAME["all-to-all.5"].started_by == "call-start.6"
    assert BY_NAME["call-done.6"].operand_names == ["call-start.6"]
    for name in ("all-to-all.5", "call-start.6", "call-done.6"):
        assert not BY_NAME[name].is_timed
    on_this_core = dataclasses.replace(BY_NAME["all-to-all.5"], started_by="")
    assert on_this_core.is_timed


@pytest.mark.parametrize(
    ("op_name", "part"),
    [
        ("jit(step)/jvp()/while/body/attention/dot_general", "attention"),
        ("jit(step)/optimizer/experts/mul", "experts"),  # the innermost scope
        ("jit(step)/while/body/my_attention/add", "other"),  # part of a word
        ("jit(step)/teacher/attention/mul", "teacher"),  # all of it
    ],
)
def test_the_innermost_scope_decides_which_part_of_the_model_it_is(op_name, part):
    assert model_part(op_name) == part
