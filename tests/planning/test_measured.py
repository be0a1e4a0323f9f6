"""Files of doctor's, written by hand, and what plans make of them."""

import json

import pytest

from switch_jax.errors import UserError
from switch_jax.planning.measured import ALL_PARTS, Exchange, Speeds, read_measured


def _check(name, **numbers):
    return {"name": name, "verdict": "ok", "text": "", "numbers": numbers}


def _file(tmp_path, *checks, kind="TPU v5p"):
    file = tmp_path / "doctor.json"
    found = [_check("devices", devices=4), *checks]
    file.write_text(json.dumps({"device_kind": kind, "checks": found}))
    return str(file)


SPEEDS = [_check("products", flops_per_second=4e14), _check("memory", bytes_per_second=2e12)]


def test_ratios_are_of_both_steps_and_the_sparse_one_counts_where_both_have_a_part(tmp_path):
    def step(name, seconds, parts, planned):
        whole = sum(planned.values())
        return _check(
            name,
            seconds=seconds,
            parts=parts,
            planned_parts=planned,
            planned_seconds=whole,
            flops_per_second=seconds * 1e12,
        )

    sparse = step(
        "step", 6.0, {"attention": 2.0, "experts": 4.0}, {"attention": 1.0, "experts": 3.0}
    )
    dense = step(
        "step of the dense model", 5.0, {"attention": 3.0, "dense_ffn": 2.0},
        {"attention": 1.0, "dense_ffn": 4.0},
    )  # fmt: skip
    measured = read_measured(_file(tmp_path, *SPEEDS, sparse, dense))
    assert measured.part_ratio("attention") == 2.0
    assert measured.part_ratio("experts") == pytest.approx(4 / 3)
    assert measured.part_ratio("dense_ffn") == 0.5
    assert measured.part_ratio("logits") == 1.5  # of all parts: 6 s for 4 s planned
    assert measured.flops_per_second == 6e12
    assert (measured.device_kind, measured.devices) == ("TPU v5p", 4)


def test_exchanges_and_small_parts_do_not_correct_others(tmp_path):
    measured = {"attention": 2.0, "router": 0.3, "exchanges": 6.0}
    planned = {"attention": 1.0, "router": 1e-3, "exchanges": 1.0}
    step = _check(
        "step",
        seconds=8.3,
        parts=measured,
        planned_parts=planned,
        planned_seconds=2.001,
        flops_per_second=1.0,
    )
    found = read_measured(_file(tmp_path, *SPEEDS, step))
    assert set(found.part_ratios) == {"attention", "exchanges", ALL_PARTS}
    assert found.part_ratio("router") == pytest.approx(2.3 / 1.001)


def test_a_step_without_a_trace_corrects_all_parts_alike(tmp_path):
    step = _check(
        "step", seconds=6.0, parts={}, planned_parts={"attention": 3.0}, planned_seconds=3.0,
        flops_per_second=1.0,
    )  # fmt: skip
    found = read_measured(_file(tmp_path, *SPEEDS, step))
    assert found.part_ratio("attention") == found.part_ratio("experts") == 2.0


def test_without_a_plan_of_the_step_nothing_is_corrected_but_exchanges(tmp_path):
    exchanges = [
        _check(
            "all-to-all over expert", bytes_per_second=50e9, small_seconds=1e-5,
            planned_bytes_per_second=100e9,
        ),
        _check(
            "all-reduce over data", bytes_per_second=25e9, small_seconds=1e-5,
            planned_bytes_per_second=100e9,
        ),
    ]  # fmt: skip
    step = _check(
        "step", seconds=6.0, parts={"attention": 6.0}, planned_parts={}, planned_seconds=0,
        flops_per_second=5.0,
    )  # fmt: skip
    measured = read_measured(_file(tmp_path, *SPEEDS, *exchanges, step))
    assert measured.part_ratio("attention") == 1.0 and measured.flops_per_second == 5.0
    assert measured.speeds.exchange_ratio("all-to-all", "expert") == 2.0
    assert measured.speeds.exchange_ratio("all-reduce", "data") == 4.0
    assert measured.speeds.exchange_ratio("all-gather", "model") == 3.0  # their mean


def test_a_file_without_a_step_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no step that was measured: .* without --quick"):
        read_measured(_file(tmp_path, *SPEEDS))


def test_an_exchange_takes_as_long_as_a_small_one_at_least():
    speeds = Speeds(1e12, 1e9, {"all-to-all over expert": Exchange(1e6, 0.25)})
    assert speeds.exchange_seconds("all-to-all", 1e6, "expert") == 1.0
    assert speeds.exchange_seconds("all-to-all", 10, "expert") == 0.25
    assert speeds.exchange_seconds("all-gather", 1e9, "data") == 1.0  # not measured: by memory
    gathered = Speeds(1e12, 1e9, {"all-gather over data": Exchange(1e6, 0.1, 3e6)})
    assert gathered.exchange_ratio("reduce-scatter", "data") == 3.0
    assert speeds.exchange_ratio("all-to-all", "expert") == 1.0  # nothing is planned


@pytest.mark.parametrize("text", ["", "[]", '{"checks": []}', '{"checks": 3}', "null"])
def test_another_file_is_refused_in_words(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(UserError, match="other.json is not what `switch_jax doctor --output="):
        read_measured(str(file))


def test_a_speed_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="0 is no speed"):
        read_measured(_file(tmp_path, SPEEDS[0], _check("memory", bytes_per_second=0)))


def test_a_file_without_speeds_and_one_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="have failed: it has no 'products'"):
        read_measured(_file(tmp_path))
    with pytest.raises(UserError, match="none.json cannot be read: No such file"):
        read_measured(str(tmp_path / "none.json"))
