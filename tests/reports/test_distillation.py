"""The share of a teacher's gain, against numbers of the paper's Table 6."""

from switch_jax.reports.configurations import group_runs
from switch_jax.reports.distillation import HEADS, distillation_table
from tests.reports.by_hand import run

DENSE = run("dense", 0, [(100, -1.636)], parameters=223)
TEACHER = run("switch", 64, [(100, -1.444)], parameters=3800)
OF_TEACHER = {"parameters": 223, "teacher_checkpoint": "somewhere/switch/checkpoints/100"}
MIXED = run("mixed", 0, [(100, -1.58)], **OF_TEACHER)
CONTROL = run("control", 0, [(100, -1.639)], **OF_TEACHER)


def test_the_shares_are_those_of_table_6():
    rows = distillation_table(group_runs([DENSE, TEACHER, MIXED, CONTROL]), "t")
    assert len(HEADS) == 4
    assert rows == [
        ("mixed", ["-1.580", "-1.636", "-1.444", "29 %"]),
        ("control", ["-1.639", "-1.636", "-1.444", "-2 %"]),
    ]


def test_without_the_teacher_or_a_model_of_the_students_size_there_is_no_share():
    larger = run("larger", 0, [(100, -1.5)], parameters=739)
    for others in ([DENSE], [TEACHER], [TEACHER, larger]):
        assert distillation_table(group_runs([*others, MIXED]), "t") == []
    unmeasured = run("switch", 64, [(100, -1.0)], task=None)
    (row,) = distillation_table(group_runs([DENSE, unmeasured, MIXED]), "t")
    assert row[1][-1] == "–"
