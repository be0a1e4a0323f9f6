import dataclasses

from switch_jax.reports import summary
from switch_jax.reports.comparison import caveats, compare, compare_all
from switch_jax.reports.configurations import group_runs
from tests.reports.by_hand import run, seed

DENSE = run("dense", 0, [(100, -6.0), (200, -5.0), (300, -4.0)])


def test_skipped_steps_are_reported():
    sparse = run("switch", 8, [(50, -9.0), (200, -3.0)])
    assert "Steps skipped as bad" not in dict(summary.final_numbers([DENSE, sparse], "t"))
    skipping = dataclasses.replace(sparse, skipped_steps=3)
    rows = dict(summary.final_numbers([DENSE, skipping], "t"))
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
    assert dict(summary.facts_table(runs))["initial_checkpoint"] == ["not stated", "none"]


def test_only_the_values_of_the_configs_that_differ_have_a_row():
    texts = [
        "A = 1\nM.a = %A\nM.b = \\\n    2\nM.c = 1\nRunConfig.model_dir = 'x'\n",
        "M.a = 1\nM.b = 3\nM.c = %C\nC = 4\nM.new = 5\nRunConfig.model_dir = 'y'\n",
        "",
    ]
    runs = [dataclasses.replace(DENSE, config=text) for text in texts]
    assert summary.config_differences(runs) == [("M.b", ["2", "3", ""]), ("M.c", ["1", "4", ""])]
    assert summary.config_differences(runs[:1]) == []


def test_a_field_that_a_config_lacks_has_its_default_in_the_table_of_differences():
    texts = [
        "ModelConfig.embed_dim = 64\n",
        "ModelConfig.embed_dim = 64\nModelConfig.scale = 0.1\n",
    ]
    runs = [dataclasses.replace(DENSE, config=text) for text in texts]
    assert summary.config_differences(runs) == [("ModelConfig.scale", ["1", "0.1"])]


def test_final_numbers_and_their_text_table():
    dense = run("dense", 0, [(100, -2.0)], train_steps=200, parameters=1_234_567)
    going = run("new", 8, [(50, -3.0)], task=None)
    rows = dict(summary.final_numbers([dense, going], "t"))
    assert rows["Held-out neg. log perplexity [nats]"] == ["-2.000", "not yet"]
    assert rows["Held-out perplexity"] == ["7.389", "not yet"]
    assert rows["Steps"] == ["100 of 200", "50"]
    assert rows["Parameters"] == ["1,234,567", "not stated"]
    table = summary.text_table(["dense", "new"], [("Steps", ["100", "5"])])
    assert table == "       dense  new\nSteps    100    5"


def test_values_without_sentinels_and_eos_have_rows_where_a_run_has_them():
    label = "Held-out without sentinels and EOS: neg. log perplexity [nats]"
    new = run("new", 8, [(100, -3.0)], content=[-4.25])
    rows = dict(summary.final_numbers([DENSE, new], "t"))
    assert rows[label] == ["", "-4.250"]
    assert label not in dict(summary.final_numbers([DENSE], "t"))


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
    head, rows = summary.comparison_table(compare_all(group_runs([*dense, *sparse, *lost]), "t"))
    assert head == [
        "reaches the dense run's final value at step",
        "speed-up in steps",
        "speed-up in time",
        "lead at the end [nats]",
        "without sentinels and EOS",
        "ahead from step",
    ]
    # The first seed is behind by 0.5 at step 100, and at 200 ahead by 2/3: 100 + 100 * 3/7 = 142.9.
    assert rows == [
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
    assert summary._over_seeds([1.0, None, float("nan")], "{:.1f}".format) == "1.0, 1 of 3 seeds"


def test_when_each_configuration_reaches_a_threshold():
    """By hand: -5.0 lies halfway between -6 and -4, and a step takes a second."""
    two = [seed(i, "two", 0, [(0, -9.0), (100, -6.0), (200 + 100 * i, -4.0)]) for i in (0, 1)]
    half = [seed(i, "half", 4, [(0, -9.0), (100, -6.0), (300, -4.0 - 1.5 * i)]) for i in (0, 1)]
    half.append(seed(2, "half", 4, [(0, -9.0)], task=None))  # not evaluated yet
    at_once, never = run("at_once", 8, [(100, -4.5)]), run("never", 8, [(100, -5.5)])
    began = run("began", 0, [(0, -4.75), (100, -4.5)], teacher_checkpoint="a/checkpoints/4")
    found = group_runs([*two, *half, at_once, never, began])
    head, rows = summary.threshold_table(found, "t", -5.0)
    assert head == ["reaches -5 at step", "after a training time of"]
    assert dict(rows) == {
        "two (2 seeds)": ["175 (150 to 200)", "175 s (150 s to 3.33 min)"],
        "half (3 seeds)": ["200, 1 of 3 seeds", "3.33 min, 1 of 3 seeds"],
        "at_once": ["at most 100", "at most 100 s"],
        "never": ["–", "–"],
        "began": ["0", "0 s"],
    }
