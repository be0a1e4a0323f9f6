"""C4; and mC4's 107 tasks and their rates."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from t5.data.preprocessors import full_lm, prefix_lm, span_corruption

from switch_jax.data.catalogue.registry import get_mixture_or_task, get_tasks
from switch_jax.tasks import mc4
from tests.tasks.records import rates_of

CODES = """
    af am ar az be bg bg-Latn bn ca ceb co cs cy da de el el-Latn en eo es et eu fa fi fil fr fy ga
    gd gl gu ha haw hi hi-Latn hmn ht hu hy id ig is it iw ja ja-Latn jv ka kk km kn ko ku ky la lb
    lo lt lv mg mi mk ml mn mr ms mt my ne nl no ny pa pl ps pt ro ru ru-Latn sd si sk sl sm sn so
    sq sr st su sv sw ta te tg th tr uk ur uz vi xh yi yo zh zh-Latn zu
""".split()


@pytest.mark.parametrize("mixture", ["mc4", "mc4_prefix_lm", "mc4_full_lm"])
def test_mc4_has_mt5_s_107_tasks_with_its_splits(mixture):
    names = [f"{mixture}.{code.replace('-', '_')}" for code in CODES]
    assert sorted(task.name for task in get_tasks(mixture)) == sorted(names)
    assert len(names) == 107
    for code, name in zip(CODES, names, strict=True):
        data_set = get_mixture_or_task(name).source.tfds_dataset
        assert data_set.name == "c4/multilingual:3.0.1"
        assert data_set._map_split("train") == code
        assert data_set._map_split("validation") == f"{code}-validation"
        step = {"mc4": span_corruption, "mc4_prefix_lm": prefix_lm, "mc4_full_lm": full_lm}[mixture]
        assert step in get_mixture_or_task(name).preprocessors


def test_mc4_is_sampled_by_the_number_of_examples_to_the_power_of_0_3():
    rates = rates_of("mc4")
    for other in ("mc4_prefix_lm", "mc4_full_lm"):
        assert list(rates_of(other).values()) == list(rates.values())
    share = {name: rate / sum(rates.values()) for name, rate in rates.items()}
    file = Path(mc4.__file__).parent / "data" / "mc4_examples.tsv"
    rows = re.findall(r"^([a-zA-Z-]+)\t(\d+)$", file.read_text(), re.M)
    counts = {f"mc4.{code.replace('-', '_')}": float(count) for code, count in rows}
    weights = np.exp(0.3 * np.log(list(counts.values())))
    assert share == pytest.approx(dict(zip(counts, weights / weights.sum(), strict=True)))
    # As TFDS's catalogue prints them.
    printed = {"af": 2_152_243, "bg_Latn": 162_461, "en": 3_079_081_989, "yo": 46_214}
    assert {code: counts[f"mc4.{code}"] for code in printed} == printed
    # ln(3079081989 / 46214) = 11.1068; exp(0.3 * 11.1068) = 28.0.
    assert share["mc4.en"] / share["mc4.yo"] == pytest.approx(28.0, abs=0.05)


def test_c4_is_the_version_that_tfds_makes():
    assert get_mixture_or_task("c4_span_corruption").source.tfds_dataset.name == "c4/en:3.1.0"
    assert str(tfds.builder("c4/en").version) == "3.1.0"
