import dataclasses
import re

import numpy as np

from switch_jax.reports.table import differences, table, text_lines
from tests.reports.by_hand import findings, run, series

DENSE = run("dense", 0, [(100, -3.0), (200, -2.0)], train_steps=200, parameters=1_234_567)


def results(*runs):
    return table(findings(*runs))["Last values"]


def test_only_the_settings_that_differ_have_a_row():
    settings = [
        {"A": 1, "B": 2, "C": None, "D": 1.0},
        {"A": 1, "B": 3, "C": "x", "D": 1, "E": 5},
        {},
    ]
    runs = [dataclasses.replace(DENSE, settings=values) for values in settings]
    assert differences(runs) == {"B": ["2", "3", "–"], "C": ["None", "'x'", "–"]}
    assert differences(runs[:1]) == differences([DENSE]) == {}


def test_the_last_values_by_hand():
    going = run("new", 8, [(50, -3.0)], task=None)
    router = series([(50, 0.0)], load=[[0.5, 0.5]], dropped=[0.25], entropy=[0.5])
    other = series([(50, 0.0)], load=[[0.5, 0.5]], dropped=[0.75], entropy=[0.75])
    going = dataclasses.replace(going, routers={"encoder": {"layer 1": router, "layer 3": other}})
    rows = results(DENSE, going)
    assert rows["Held-out neg. log perplexity [nats]"] == ["-2.000", "–"]
    assert rows["Held-out perplexity"] == ["7.389", "–"]
    assert rows["Training neg. log perplexity [nats]"] == ["-2.000", "-3.000"]
    assert (rows["Steps"], rows["Training time"]) == (["200", "50"], ["3.33 min", "0.833 min"])
    assert rows["Tokens dropped, mean of layers"] == ["–", "50.00 %"]
    assert rows["Router entropy, mean of layers [nats]"] == ["–", "0.625"]
    left_out = {"Bad steps skipped", "Held-out token accuracy", "Throughput, median [tokens/s]"}
    assert not left_out & set(rows)


def test_the_throughput_is_the_median_of_what_is_known():
    speeds = [1000.0, np.nan, 9000.0, 2000.0]
    curve = series([(i, -1.0) for i in range(4)], tokens_per_second=speeds)
    fast = dataclasses.replace(DENSE, train=curve, skipped_steps=3)
    rows = results(fast, DENSE)
    assert rows["Throughput, median [tokens/s]"] == ["2,000", "–"]
    assert rows["Bad steps skipped"] == ["3", "0"]


def test_two_accuracies_have_names_and_units_that_tell_them_apart():
    curve = series([(10, -2.0)], accuracy=[0.8712], generated_accuracy=[46.88])
    rows = results(dataclasses.replace(DENSE, evals={"t": curve}))
    assert rows["Held-out token accuracy"] == ["87.12 %"]
    assert rows["Generated text: accuracy"] == ["46.880"]


def test_run_json_is_shown_as_it_is():
    other = run("new", 8, [(50, -3.0)], initial_checkpoint=None, mesh={"data": 1, "expert": 2})
    rows = table(findings(DENSE, other))["run.json"]
    assert rows["parameters"] == ["1,234,567", "not stated"]
    assert rows["mesh"] == ["not stated", "data 1 · expert 2"]
    assert rows["initial_checkpoint"] == ["not stated", "none"]
    assert rows["folder"] == ["dense", "new"] and "name" not in rows


def test_the_terminal_gets_the_parameters_as_far_as_run_json_has_them():
    new = run("new", 8, [(200, -1.0)], parameters=5_000_000, active_parameters=1_300_000)
    old = run("old", 0, [(200, -1.0)])
    cells = [re.split("  +", line) for line in text_lines(findings(old, DENSE, new))]
    assert ["Parameters", "not stated", "1,234,567", "5,000,000"] in cells
    assert ["Parameters, active per token", "not stated", "not stated", "1,300,000"] in cells
    assert not any("Parameters" in line for line in text_lines(findings(old)))


def test_the_terminal_gets_the_numbers_the_sentences_and_the_notes():
    sparse = run("switch", 8, [(100, -2.5), (200, -1.0)], batch_tokens=4096)
    lines = text_lines(findings(DENSE, sparse))
    assert lines[0].split() == ["dense", "switch"]
    assert ["Held-out", "perplexity", "7.389", "2.718"] in [line.split() for line in lines]
    assert lines[-3].startswith(
        "switch reaches dense's final -2.000 at step 133 of 200: 1.50 times"
    )
    assert lines[-2].startswith("note: with one seed of each run ")
    assert lines[-1].startswith("note: dense and switch differ in batch_tokens (2,048 and 4,096)")
