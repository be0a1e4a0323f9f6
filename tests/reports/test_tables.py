import dataclasses
import math

from switch_jax.reports import tables
from switch_jax.reports.comparison import caveats, compare
from tests.reports.by_hand import findings, run, seed

DENSE = run("dense", 0, [(100, -6.0), (200, -5.0), (300, -4.0)])


def rows_of(table, *runs):
    return dict(table(findings(*runs)).rows)


def test_skipped_steps_are_reported():
    sparse = run("switch", 8, [(50, -9.0), (200, -3.0)])
    assert "Steps skipped as bad" not in rows_of(tables.final_numbers, DENSE, sparse)
    skipping = dataclasses.replace(sparse, skipped_steps=3)
    rows = rows_of(tables.final_numbers, DENSE, skipping)
    assert rows["Steps skipped as bad"] == ["0", "3"]
    (note,) = caveats([compare(DENSE, skipping, "t")])
    assert note.startswith("switch skipped 3 steps as bad (docs")
    (note,) = caveats([compare(DENSE, dataclasses.replace(skipping, rollbacks=2), "t")])
    assert note.startswith(
        "switch skipped 3 steps as bad and returned 2 times to a checkpoint and went on with new "
        "data (docs/bad_steps.md), so it did not learn from the same batches"
    )


def test_what_a_run_does_not_state_is_reported_from_what_it_had_not():
    runs = [run("old", 0, [(1, -4.0)]), run("new", 0, [(1, -4.0)], initial_checkpoint=None)]
    assert rows_of(tables.facts, *runs)["initial_checkpoint"] == ["not stated", "none"]


def test_only_the_values_of_the_configs_that_differ_have_a_row():
    texts = [
        "A = 1\nM.a = %A\nM.b = \\\n    2\nM.c = 1\nRunConfig.model_dir = 'x'\n",
        "M.a = 1\nM.b = 3\nM.c = %C\nC = 4\nM.new = 5\nRunConfig.model_dir = 'y'\n",
        "",
    ]
    runs = [dataclasses.replace(DENSE, config=text) for text in texts]
    assert tables.config_differences(findings(*runs)).rows == [
        ("M.b", ["2", "3", ""]),
        ("M.c", ["1", "4", ""]),
    ]
    assert tables.config_differences(findings(*runs[:1])).rows == []


def test_a_field_that_a_config_lacks_has_its_default_in_the_table_of_differences():
    texts = [
        "ModelConfig.embed_dim = 64\n",
        "ModelConfig.embed_dim = 64\nModelConfig.scale = 0.1\n",
    ]
    runs = [dataclasses.replace(DENSE, config=text) for text in texts]
    assert tables.config_differences(findings(*runs)).rows == [("ModelConfig.scale", ["1", "0.1"])]


def test_final_numbers_and_their_text_table():
    dense = run("dense", 0, [(100, -2.0)], train_steps=200, parameters=1_234_567)
    going = run("new", 8, [(50, -3.0)], task=None)
    rows = rows_of(tables.final_numbers, dense, going)
    assert rows["Held-out neg. log perplexity [nats]"] == ["-2.000", "not yet"]
    assert rows["Held-out perplexity"] == ["7.389", "not yet"]
    assert rows["Steps"] == ["100 of 200", "50"]
    assert rows["Parameters"] == ["1,234,567", "not stated"]
    table = tables.Table(["dense", "new"], [("Steps", ["100", "5"])])
    assert str(table) == "       dense  new\nSteps    100    5"


def test_values_without_sentinels_and_eos_have_rows_where_a_run_has_them():
    label = "Held-out without sentinels and EOS: neg. log perplexity [nats]"
    new = run("new", 8, [(100, -3.0)], content=[-4.25])
    rows = rows_of(tables.final_numbers, DENSE, new)
    assert rows[label] == ["", "-4.250"]
    assert label not in rows_of(tables.final_numbers, DENSE)


def test_the_table_of_comparisons_has_mean_and_range_over_seeds():
    dense = [seed(i, "dense", 0, [(100, -5.0), (400, -4.0)], content=[-6, -5]) for i in (0, 1)]
    # Reach -4 at steps 200 and 100, which the first seed does after a start that is behind.
    points = [(50, -7.0), (100, -5.5), (200, -4.0), (400, -3.75)], [(100, -4.0), (400, -3.5)]
    content = [-8, -6, -5, -4.5], [-5, -4]
    sparse = [
        seed(i, "switch", 8, p, content=c)
        for i, (p, c) in enumerate(zip(points, content, strict=True))
    ]
    lost = [seed(0, "other", 4, [(100, -6.0), (400, -4.5)])]
    table = tables.speedups(findings(*dense, *sparse, *lost))
    assert table.head == [
        "reaches the dense run's final value at step",
        "speed-up in steps",
        "speed-up in time",
        "lead at the end [nats]",
        "without sentinels and EOS",
        "ahead from step",
    ]
    # The first seed is behind by 0.5 at step 100, and at 200 ahead by 2/3: 100 + 100 * 3/7 = 142.9.
    assert table.rows == [
        ("4 experts", ["–", "–", "–", "-0.500", "–", "–"]),
        (
            "8 experts (2 seeds)",
            [
                "150 (100 to 200)",
                "3.00 (2.00 to 4.00)",
                "3.00 (2.00 to 4.00)",
                "+0.375 (+0.250 to +0.500)",
                "+0.750 (+0.500 to +1.000)",
                "121 (100 to 143)",
            ],
        ),
    ]


def test_numbers_that_only_some_seeds_have():
    assert tables._over_seeds([1.0, math.nan, math.nan], "{:.1f}".format) == "1.0, 1 of 3 seeds"


def test_when_each_configuration_reaches_a_threshold():
    """By hand: -5.0 lies halfway between -6 and -4, and a step takes a second."""
    two = [seed(i, "two", 0, [(0, -9.0), (100, -6.0), (200 + 100 * i, -4.0)]) for i in (0, 1)]
    half = [seed(i, "half", 4, [(0, -9.0), (100, -6.0), (300, -4.0 - 1.5 * i)]) for i in (0, 1)]
    half.append(seed(2, "half", 4, [(0, -9.0)], task=None))  # not evaluated yet
    at_once, never = run("at_once", 8, [(100, -4.5)]), run("never", 8, [(100, -5.5)])
    began = run("began", 0, [(0, -4.75), (100, -4.5)], teacher_checkpoint="a/checkpoints/4")
    table = tables.threshold(findings(*two, *half, at_once, never, began, threshold=-5.0))
    assert table.head == ["reaches -5 at step", "after a training time of"]
    assert dict(table.rows) == {
        "two (2 seeds)": ["175 (150 to 200)", "175 s (150 s to 3.33 min)"],
        "half (3 seeds)": ["200, 1 of 3 seeds", "3.33 min, 1 of 3 seeds"],
        "at_once": ["at most 100", "at most 100 s"],
        "never": ["–", "–"],
        "began": ["0", "0 s"],
    }


# The paper's Table 6.
BASELINE = run("dense", 0, [(100, -1.636)], parameters=223)
TEACHER = run("switch", 64, [(100, -1.444)], parameters=3800)
OF_TEACHER = {"parameters": 223, "teacher_checkpoint": "somewhere/switch/checkpoints/100"}
MIXED = run("mixed", 0, [(100, -1.58)], **OF_TEACHER)
CONTROL = run("control", 0, [(100, -1.639)], **OF_TEACHER)


def test_the_share_of_a_teachers_gain_is_that_of_table_6():
    table = tables.distillation(findings(BASELINE, TEACHER, MIXED, CONTROL))
    assert len(table.head) == 4
    assert table.rows == [
        ("mixed", ["-1.580", "-1.636", "-1.444", "29 %"]),
        ("control", ["-1.639", "-1.636", "-1.444", "-2 %"]),
    ]


def test_without_the_teacher_or_a_model_of_the_students_size_there_is_no_share():
    larger = run("larger", 0, [(100, -1.5)], parameters=739)
    for others in ([BASELINE], [TEACHER], [TEACHER, larger]):
        assert not tables.distillation(findings(*others, MIXED))
    unmeasured = run("switch", 64, [(100, -1.0)], task=None)
    (row,) = tables.distillation(findings(BASELINE, unmeasured, MIXED)).rows
    assert row[1][-1] == "–"


def test_runs_of_different_tasks_have_each_its_own_value_with_its_task():
    a, b, none = (run("r", 0, [(100, -4.0)], task=task) for task in ("a", "b", None))
    rows = rows_of(tables.final_numbers, a, b, none)
    assert rows["Held-out task"] == ["a", "b", ""]
    assert rows["Held-out neg. log perplexity [nats]"] == ["-4.000", "-4.000", "not yet"]
    assert "Held-out task" not in rows_of(tables.final_numbers, a, none)
