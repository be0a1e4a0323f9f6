"""Runs whose last evaluations are of different steps, beside each other."""

import dataclasses

import pytest

from switch_jax.reports.page import _card
from switch_jax.reports.seeds import average_seeds
from switch_jax.reports.table import table
from tests.reports.by_hand import findings, run
from tests.reports.test_seeds import DENSE, seeds_of

LONG = run("long", 0, [(100, -4.0), (200, -3.0), (300, -2.0)])
GOING = run("going", 8, [(100, -3.5), (200, -2.5)], train_steps=300)
APART = run("apart", 8, [(150, -3.5), (250, -2.5)])
NO_STEP = "there is no step at which all were evaluated"


def cards(*runs):
    """The value and the text of each run's card."""
    found = findings(*runs)
    return [_card(found, one)[1:] for one in found.runs]


def test_cards_show_the_last_step_at_which_all_were_evaluated():
    assert cards(LONG, GOING) == [
        (
            "-3.000",
            "held-out neg. log perplexity [nats] (perplexity 20.09) at step 200, the last at which "
            "all were evaluated, after 3.33 min. The final value, at step 300, is -2.000.",
        ),
        (
            "-2.500",
            "latest held-out neg. log perplexity [nats] (perplexity 12.18) at step 200, the last "
            "at which all were evaluated, after 3.33 min. Still at step 200 of 300.",
        ),
    ]


def test_the_last_step_in_common_may_be_before_both_ends():
    other = run("other", 8, [(100, -3.5), (250, -2.5)])
    assert [value for value, _ in cards(LONG, other)] == ["-4.000", "-3.500"]


def test_cards_of_runs_that_end_at_the_same_step_show_the_final_value():
    text = "final held-out neg. log perplexity [nats] (perplexity 7.389) at step 300, after 5 min."
    other = run("other", 8, [(50, -3.5), (300, -2.0)])
    assert cards(LONG, other) == [("-2.000", text)] * 2
    assert cards(LONG, run("not_yet", 8, [(100, -3.5)], task=None))[0] == ("-2.000", text)


def test_without_a_step_in_common_cards_and_notes_say_so():
    (value, text), (other, _) = cards(LONG, APART)
    assert (value, other) == ("-2.000", "-2.500")
    assert text.endswith(f" at step 300, after 5 min. Not to be compared: {NO_STEP}.")
    assert findings(LONG, APART).notes[-1] == f"last values do not compare: {NO_STEP}"
    assert not any(NO_STEP in note for note in findings(LONG, GOING).notes)


def test_a_model_before_its_first_step_is_no_step_in_common():
    begun = run("begun", 8, [(0, -9.0)])
    beside = run("beside", 0, [(0, -9.0), (100, -4.0)])
    assert [value for value, _ in cards(begun, beside)] == ["-9.000", "-4.000"]
    assert all(NO_STEP in text for _, text in cards(begun, beside))


def test_a_run_that_diverged_is_not_shown_at_a_step_before_that():
    diverged = run("diverged", 8, [(100, -3.5), (200, -2.5), (300, float("nan"))])
    assert [value for value, _ in cards(LONG, diverged)] == ["-2.000", "nan"]


def test_the_mean_of_seeds_keeps_its_spread_at_the_step_in_common():
    (mean,) = average_seeds(seeds_of("dense", 0, DENSE))
    assert cards(mean, GOING)[0][0] == "-5.000 ± 0.100"


def test_a_run_of_another_task_is_not_called_unevaluated():
    other = run("other", 8, [(100, -3.0)], task="of_another")
    assert cards(LONG, other) == [("–", "No task is common to all.")] * 2


@pytest.mark.parametrize("other", [GOING, APART])
def test_the_table_says_of_which_step_the_last_values_are(other):
    rows = table(findings(LONG, other))["Last values"]
    last = str(other.evals["t"].step[-1])
    assert rows["Last evaluated at step"] == ["300", last]
    same = dataclasses.replace(LONG, name="same")
    assert "Last evaluated at step" not in table(findings(LONG, same))["Last values"]


def test_the_table_compares_at_a_step_that_all_have():
    rows = table(findings(LONG, GOING))["Last values"]
    label = "Held-out neg. log perplexity at step {}, the last that all have [nats]"
    assert rows[label.format(200)] == ["-3.000", "-2.500"]
    rows = table(findings(LONG, APART))["Last values"]
    assert not any("the last that all have" in row for row in rows)
