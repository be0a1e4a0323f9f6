import math

import pytest

from switch_jax.reports.comparison import caveats, compare_all
from switch_jax.reports.configurations import group_runs
from switch_jax.reports.verdict import furthest_ahead, verdicts
from tests.reports.by_hand import run, seed

DENSE = [(100, -6.0), (200, -5.0), (300, -4.0)]


def verdict(points, **options):
    comparisons = compare_all(
        group_runs([run("dense", 0, DENSE), run("switch", 8, points, **options)]), "t"
    )
    (text,) = verdicts(comparisons)
    return text


def test_sooner_and_ahead():
    # At -4 after 2/3 of the way from 100 to 200, with 1.5 seconds a step: 167 of 300 steps, and 250
    # of 300 seconds. Half a nat behind at 100, and 1.5 ahead at 200: level at 125.
    points = [(100, -6.5), (200, -3.5), (300, -3.0)]
    assert verdict(points, seconds_per_step=1.5) == (
        "Switch with 8 experts reached the dense model's final quality in 61 % of its steps and "
        "92 % of its time, and ended 1 nats ahead. It was ahead from step 125 on."
    )


def test_sooner_in_steps_and_later_in_time():
    points = [(100, -5.0), (200, -4.5), (300, -3.87)]
    assert verdict(points, seconds_per_step=1.2) == (
        "Switch with 8 experts reached the dense model's final quality in 93 % of its steps and "
        "112 % of its time, and ended 0.13 nats ahead. It was ahead throughout."
    )


def test_never_and_behind():
    points = [(100, -5.5), (200, -5.25), (300, -4.02)]
    assert verdict(points) == (
        "Switch with 8 experts did not reach the dense model's final quality, and ended 0.02 nats "
        "behind. It was behind from step 167 on."
    )
    assert verdict([(100, -7.0), (300, -4.5)]).endswith("It was behind throughout.")


def test_reached_and_then_behind():
    assert verdict([(100, -7.0), (200, -4.0), (300, -4.25)]) == (
        "Switch with 8 experts reached the dense model's final quality in 67 % of its steps and "
        "67 % of its time, but ended 0.25 nats behind. It was behind from step 280 on."
    )


def test_level():
    assert "did not reach" in verdict([(100, -7.0), (300, -4.0001)])
    assert ", and ended level. It was behind throughout." in verdict([(100, -7.0), (300, -4.0001)])


def test_a_lead_is_rounded_once():
    # 0.14506 to two digits is 0.15, and 0.145 would be 0.14.
    assert "ended 0.15 nats ahead" in verdict([(100, -7.0), (300, -4 + 0.14506)])
    assert "ended 0.0014 nats behind" in verdict([(100, -7.0), (300, -4 - 0.0014)])


def of_other_flops(*curves, dense=((0, -8.0), *DENSE)):
    """The verdict on seeds of a sparse model beside a dense one of 3 times the FLOPs."""
    runs = [
        seed(i, "dense", 0, dense, flops_per_token=3.0, seconds_per_step=2.0)
        for i in range(len(curves))
    ]
    runs += [seed(i, "switch", 8, points, flops_per_token=1.0) for i, points in enumerate(curves)]
    (text,) = verdicts(compare_all(group_runs(runs), "t"))
    return text


def test_beside_a_model_of_more_flops_the_verdict_says_how_long_each_takes():
    # The sparse run has its best value, -4.5, at step 200, in 200 s. The dense one has it halfway
    # between steps 200 and 300, of 2 s each: in 500 s.
    points = [(0, -8.0), (100, -7.0), (200, -4.5), (300, -4.6)]
    assert of_other_flops(points) == (
        "Switch with 8 experts did not reach the dense model's final quality, and ended 0.6 nats "
        "behind. It was behind from step 245 on. To -4.500, the best value that both reached, the "
        "dense model took 2.5 times as long."
    )
    # Another seed: -4.75 at step 300, in 300 s; the dense run at step 225, in 450 s.
    assert of_other_flops(points, [(0, -8.0), (300, -4.75)]).endswith(
        "To -4.625, the best value that both reached, the dense model took 2 times (1.5 to 2.5) "
        "as long. These are means over 2 seeds, with the range."
    )


def test_how_long_each_takes_is_left_out_where_it_is_said_or_not_known():
    assert "as long" not in of_other_flops([(0, -8.0), (200, -4.0), (300, -3.5)])
    # Without step 0, the first evaluation is an upper bound.
    assert "as long" not in of_other_flops([(200, -4.5)])
    assert "as long" not in of_other_flops(
        [(0, -8.0), (300, -5.0)], dense=[(100, -5.0), (300, -4.0)]
    )
    assert "as long" not in verdict([(0, -8.0), (300, -4.5)])  # of the same FLOPs
    without_time = {"seconds_per_step": 0.0, "flops_per_token": 1.0}
    assert "as long" not in verdict([(0, -8.0), (300, -4.5)], **without_time)


def test_unequal_lengths_are_compared_at_the_last_step_of_both():
    assert verdict([(100, -7.0), (200, -4.5)]) == (
        "Switch with 8 experts did not reach the dense model's final quality, but was 0.5 nats "
        "ahead at step 200, the last that both have. It was ahead from step 167 on."
    )


def test_a_run_that_is_still_going():
    assert verdict([(100, -7.0), (200, -4.5)], train_steps=300) == (
        "So far, Switch with 8 experts has not reached the dense model's latest quality, but is "
        "0.5 nats ahead at step 200, the last that both have. It has been ahead from step 167 on."
    )
    assert verdict([(100, -7.0), (200, -4.0)], train_steps=300).startswith(
        "So far, Switch with 8 experts has reached the dense model's latest quality in 67 % of"
    )


def test_a_bound_and_runs_that_do_not_overlap():
    text = verdict([(100, -3.0), (300, -2.0)])
    assert "in at most 33 % of its steps and 33 % of its time, and ended 2 nats ahead" in text
    assert verdict([(400, -3.0)]) == (
        "Switch with 8 experts reached the dense model's final quality in at most 133 % of its "
        "steps and 133 % of its time."
    )


def over_seeds(*curves):
    runs = [seed(i, "dense", 0, DENSE) for i in range(len(curves))]
    runs += [seed(i, "switch", 8, points) for i, points in enumerate(curves)]
    (text,) = verdicts(compare_all(group_runs(runs), "t"))
    return text


def test_seeds_have_a_mean_and_a_range():
    # At -4 in steps 200 and 150. Behind by 0.5 at 100 and ahead by 1 at 200: level at 133; behind
    # by 0.25 at 100 and ahead by 1.5 at 150: level at 107.
    first = [(100, -6.5), (200, -4.0), (300, -3.75)]
    second = [(100, -6.25), (150, -4.0), (300, -3.5)]
    assert over_seeds(first, second) == (
        "Switch with 8 experts reached the dense model's final quality in 58 % (50 to 67 %) of its "
        "steps and 58 % (50 to 67 %) of its time, and ended 0.38 nats ahead (0.25 to 0.5). It was "
        "ahead from step 120 on (107 to 133). These are means over 2 seeds, with the range."
    )


def test_seeds_that_disagree():
    first, second = [(100, -6.0), (300, -3.5)], [(100, -6.0), (300, -4.25)]
    assert over_seeds(first, second) == (
        "Switch with 8 experts reached the dense model's final quality with 1 of 2 seeds, in 87 % "
        "of its steps and 87 % of its time, and ended 0.12 nats ahead (0.25 nats behind to 0.5 "
        "nats ahead). It was ahead at the end with 1 of 2 seeds. These are means over 2 seeds, "
        "with the range."
    )


@pytest.mark.parametrize("experts", [(2, 4), (8, 8)])
def test_models_are_called_by_experts_where_that_tells_them_apart(experts):
    runs = [run("dense", 0, DENSE)]
    leads = (-3.75, -3.5)
    runs += [
        run(name, n, [(100, -6.0), (300, x)])
        for name, n, x in zip(("a", "b"), experts, leads, strict=True)
    ]
    comparisons = compare_all(group_runs(runs), "t")
    named = ["a", "b"] if experts == (8, 8) else [f"Switch with {n} experts" for n in experts]
    found = verdicts(comparisons)
    assert [text.split(" reached")[0] for text in found] == named
    assert furthest_ahead(comparisons) == found[1:]
    assert furthest_ahead([]) == []


def test_several_dense_models_are_called_by_name():
    runs = [run("small", 0, DENSE), run("large", 0, DENSE), run("s", 8, [(100, -7.0), (300, -3.0)])]
    found = verdicts(compare_all(group_runs(runs), "t"))
    assert ["small's final" in found[0], "large's final" in found[1]] == [True, True]


def test_a_run_that_diverged_is_not_ahead_at_the_end():
    runs = [run("dense", 0, DENSE), run("switch", 8, [(100, -7.0), (200, -4.5), (300, math.nan)])]
    comparisons = compare_all(group_runs(runs), "t")
    (text,) = verdicts(comparisons)
    assert "but was 0.5 nats ahead at step 200, the last that both have" in text
    (caveat,) = caveats(comparisons[0].pairs)
    assert caveat == "switch's final value is not a number: it may have diverged."


def test_runs_without_a_seed_in_common_are_pairs_and_not_seeds():
    points = [(100, -6.5), (200, -3.5), (300, -3.0)]
    runs = [seed(n, "dense", 0, DENSE) for n in (0, 1)]
    runs += [seed(n, "switch", 8, points) for n in (2, 3)]
    (text,) = verdicts(compare_all(group_runs(runs), "t"))
    assert text.endswith("These are means over 4 pairs of runs, with the range.")
