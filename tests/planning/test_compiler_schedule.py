"""Cycles of printed instruction bundles, by hand."""

from switch_jax.planning.compiler_schedule import count_cycles, cycles_by_operation

STRAIGHT = """\
// header
     0   : { %p1 = inlined_call_operand.hbm [shape: bf16[8]]  ;;  %s2 = smov 0 }
     0x1 LB: > { %s3 = sphi %s2, %s9 /* phi */  ;;  %v4 = vld [vmem:%s3]  /* Start region 12 */ }
     0x2   : > { %s9 = sadd.s32 1, %s3 }
     0x3   : > { %p5 = scmp.ge.s32.totalorder %s9, 42 /* loop exit test */ }
     0x4   : > { %8 = sbr.rel (!%p5) target = $region12 }
     0x5   : > { %v1 = vadd
               continued on the next line }
     0x6   : > { %v2 = vadd }
     0x7   : > { %v3 = vadd }
     0x8   : > { %v4 = vadd }
     0x9   : { %v9 = vst }
"""


def test_a_loop_counts_its_bundles_and_delay_slots_in_each_iteration():
    # Bundles 1 to 8 (the branch takes effect four later), 42 times, and two outside.
    assert count_cycles(STRAIGHT) == 8 * 42 + 2


def test_a_loop_that_ends_on_data_counts_once():
    unknown = STRAIGHT.replace("scmp.ge.s32.totalorder %s9, 42", "sld [smem:%s9]")
    assert count_cycles(unknown) == 10


def test_inner_loops_multiply():
    inner = """\
     0   : { %s1 = smov 0  ;;  %s2 = smov 0 }
     0x1 LB: > { %s3 = sphi %s1, %s4  /* Start region 1 */ }
     0x2 LB: >> { %s5 = sphi %s2, %s6  /* Start region 2 */ }
     0x3   : >> { %s6 = sadd.s32 2, %s5  ;;  %p7 = scmp.ge.s32.totalorder %s6, 10 }
     0x4   : >> { %8 = sbr.rel (!%p7) target = $region2 }
     0x5   : >> { nop }
     0x6   : >> { nop }
     0x7   : >> { nop }
     0x8   : >> { nop }
     0x9   : > { %s4 = sadd.s32 1, %s3  ;;  %p9 = scmp.ge.s32.totalorder %s4, 3 }
     0xa   : > { %10 = sbr.rel (!%p9) target = $region1 }
"""
    # Inner: bundles 2 to 8, 5 iterations; outer: 1, 9 and 10, 3 iterations; bundle 0 once.
    assert count_cycles(inner) == 3 * (7 * 5 + 3) + 1


# A grid of 2 x 3 steps in one loop, as for Pallas kernels: each counter goes around at its size.
GRID = """\
     0   : { %s1 = smov 0  ;;  %s2 = smov 0 }
     0x1 LB: > { %s3 = sphi %s1, %s4 /* iteration index, stage = 0 */  ;;  %s5 = sphi %s1, %s6 /* iteration index, stage = 0 iter bound = 1 */  /* Start region 1 */ }
     0x2   : > { %s7 = sphi %s2, %s8 /* phi copy :: iteration index, stage = 1 iter bound = 1 */ }
     0x3   : > { %s9 = sadd.s32 1, %s5  ;;  %10 = sst [smem:[#allocation7_spill]] %s7 }
     0x4   : > { %p11 = scmp.ge.s32.totalorder %s9, 3  ;;  %s12 = sld [smem:[#allocation7_spill]] }
     0x5   : > { %p13 = scmp.ne.s32.totalorder %s12, 0 /* Start region 2 */ }
     0x6   : > { %14 = sbr.rel (%p13) target = $region3 }
     0x7   : > { nop }
     0x8   : > { nop }
     0x9   : > { nop }
     0xa   : > { nop }
     0xb   : > { %v15 = vadd }
     0xc   : > { %v16 = vadd }
     0xd   : > { %s4 = sadd.s32 1, %s3 /* Start/End empty region 3 */ }
     0xe   : > { %p17 = scmp.ge.s32.totalorder %s4, 6 }
     0xf   : > { %18 = sbr.rel (!%p17) target = $region1 }
"""  # noqa: E501


def test_work_at_one_step_of_a_dimension_counts_for_those_steps_alone():
    # Of 15 bundles in the loop, 11 and 12 run at 2 of 6 steps.
    assert count_cycles(GRID) == 6 * (15 - 2) + 2 * 2 + 1
    at_all_others = GRID.replace("scmp.ne", "scmp.eq")
    assert count_cycles(at_all_others) == 6 * (15 - 2) + 4 * 2 + 1
    twice = GRID.replace(
        "0x6   : > { %14", "0x6   : > { %21 = sbr.rel (%p13) target = $region3  ;;  %14"
    )
    assert count_cycles(twice) == count_cycles(GRID)
    negated = GRID.replace("sbr.rel (%p13)", "sbr.rel (!%p13)")
    assert count_cycles(negated) == count_cycles(at_all_others)


def test_a_branch_on_anything_else_skips_nothing():
    for changed in (
        GRID.replace("scmp.ne.s32.totalorder %s12", "scmp.ne.s32.totalorder %s99"),
        GRID.replace("iter bound = 1", "some bound"),
        # Two values are kept in the same place: which one is loaded is not known.
        GRID.replace("{ %p17", "{ %19 = sst [smem:[#allocation7_spill]] %s4  ;;  %p17"),
        GRID.replace("{ %p17", "{ %19 = sst [smem:[#allocation7_spill]] (%p11), %s4  ;;  %p17"),
        # Two loops whose counters have the same name, and go around at different sizes.
        GRID.replace("{ %p17", "{ %p20 = scmp.ge.s32.totalorder %s9, 7  ;;  %p17"),
    ):
        assert count_cycles(changed) == 6 * 15 + 1


def test_only_the_files_of_the_named_operations_are_read(tmp_path):
    (tmp_path / "124-all-reduce.2-01-final_bundles.txt").write_text(STRAIGHT)
    (tmp_path / "123-gather_fusion.1-01-final_bundles.txt").write_text(STRAIGHT)
    (tmp_path / "123-gather_fusion.1-00-schedule-analysis_final_bundles.txt").write_text("x")
    (tmp_path / "vmem_report.html").write_text("x")
    names = {"gather_fusion.1", "sort.3"}
    assert cycles_by_operation(tmp_path, names) == {"gather_fusion.1": 8 * 42 + 2}
