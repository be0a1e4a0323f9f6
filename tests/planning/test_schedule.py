"""Cycles of printed instruction bundles, by hand."""

from switch_jax.planning.schedule import count_cycles, cycles_by_operation

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


def test_only_the_files_of_the_named_operations_are_read(tmp_path):
    (tmp_path / "124-all-reduce.2-01-final_bundles.txt").write_text(STRAIGHT)
    (tmp_path / "123-gather_fusion.1-01-final_bundles.txt").write_text(STRAIGHT)
    (tmp_path / "123-gather_fusion.1-00-schedule-analysis_final_bundles.txt").write_text("x")
    (tmp_path / "vmem_report.html").write_text("x")
    names = {"gather_fusion.1", "sort.3"}
    assert cycles_by_operation(tmp_path, names) == {"gather_fusion.1": 8 * 42 + 2}
