"""The pages' tables come from benchmarks/results, and the studies' tasks give the right texts."""

import gzip
import importlib
import json
import re
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from switch_jax import gin_config
from switch_jax.data.catalogue.registry import get_mixture_or_task, get_tasks, mixing_rates
from switch_jax.model.flops import forward_flops
from switch_jax.tasks.english import DATA, VOCABULARY
from switch_jax.utils.errors import UserError
from tests.tasks.records import preprocess, score, texts
from tests.tasks.test_records import TRIVIA

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.parametrize(
    ("command", "tables"),
    [
        ("study.py study PICTURE", 1),
        ("study.py long_study PICTURE HEADLINE", 2),
        ("languages.py PICTURE", 1),
        ("downstream.py PICTURE", 1),
        ("paper_in_small.py PICTURE", 8),
        ("routing_in_small.py", 2),
        ("settings_in_small.py", 4),
    ],
)
def test_a_script_prints_the_rows_of_its_tables_on_the_pages(
    command, tables, monkeypatch, capsys, tmp_path
):
    for flag in ("picture", "headline"):
        command = command.replace(flag.upper(), f"--{flag}={tmp_path}/{flag}.png")
    script, *flags = command.split()
    monkeypatch.setattr(sys, "argv", [script, *flags])
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    runpy.run_path(str(BENCHMARKS / script))
    printed = set(capsys.readouterr().out.splitlines())
    pages = [f"docs/{page}.md" for page in ("study", "experiments", "training_small_models")]
    text = "\n".join((ROOT / page).read_text() for page in [*pages, "benchmarks/README.md"])
    told = [set(table.splitlines()[2:]) for table in re.findall(r"(?:^\|.*\n)+", text, re.M)]
    own = [rows for rows in told if rows & printed]
    assert len(own) == tables and [row for rows in own for row in rows - printed] == []
    assert (tmp_path / "picture.png").exists() == ("picture" in command)
    if "headline" in command:
        drawn, shown = (plt.imread(folder / "headline.png") for folder in (tmp_path, ROOT / "docs"))
        assert drawn.shape == shown.shape and np.abs(drawn - shown).mean() < 1e-3


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The tasks, as by `import benchmarks.tasks` in a gin file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield importlib.import_module("benchmarks.tasks")


@pytest.mark.parametrize(
    ("name", "models", "task"),
    [
        ("study", ("t5_study", "switch_study"), "large_english_span_corruption"),
        ("long_study", ("t5_study", "switch_study"), "large_code_span_corruption"),
        ("languages", ("t5_study", "switch_study"), "large_multilingual"),
        ("facts", ("t5_demo", "switch_demo"), "english_and_facts"),
    ],
)
def test_the_two_models_of_a_study_have_the_same_flops_and_all_ids(name, models, task, monkeypatch):
    monkeypatch.chdir(ROOT)
    flops = set()
    for model in models:
        files = [f"models/{model}.gin", f"benchmarks/gin/{name}.gin"]
        bindings = ["MODEL_DIR=/run", "INITIAL_CHECKPOINT_PATH=/pretrained"]
        config = gin_config.read(files, bindings).config
        assert config.data.mixture_or_task_name == task
        vocabulary = get_tasks(task)[0].output_features["targets"].vocabulary
        assert vocabulary.vocab_size <= config.model.num_embeddings
        flops.add(forward_flops(config.model, config.data.task_feature_lengths))
    assert len(flops) == 1


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("large_english_span_corruption", "large_english/train.txt.gz"),
        ("large_code_span_corruption", "large_code/train.txt"),
    ],
)
def test_built_text_is_read_where_the_makefile_builds_it(name, file, tmp_path, monkeypatch):
    path = tmp_path / "runs" / file
    path.parent.mkdir(parents=True)
    write = gzip.open if file.endswith(".gz") else open
    with write(path, "wt", encoding="utf-8") as text:
        text.write("a passage\n")
    (line,) = (
        get_mixture_or_task(name).source.get_dataset("train", shuffle=False).as_numpy_iterator()
    )
    assert line == b"a passage"


def test_languages_are_sampled_by_their_size(registered, tmp_path, monkeypatch):
    tasks = get_tasks("large_multilingual")
    assert len(tasks) == 100
    with pytest.raises(UserError, match=r"no file runs/large_multilingual/\w+\.train.txt.gz"):
        mixing_rates("large_multilingual", tasks)
    (tmp_path / "runs/large_multilingual").mkdir(parents=True)
    for task in tasks:
        code = task.name.split(".")[1]
        Path(registered.built_files(code)["train"]).write_bytes(bytes(1000 if code == "ja" else 10))
    rates = mixing_rates("large_multilingual", tasks)
    assert max(rates) / min(rates) == pytest.approx(100**0.3)


def test_a_fact_is_a_question_with_the_answer_masked():
    rows = get_mixture_or_task("factbook_facts").get_dataset(
        {"inputs": 48, "targets": 32}, split="train", shuffle=False, seed=0
    )
    found = {
        tuple(VOCABULARY.decode(row[name]) for name in ("inputs", "targets"))
        for row in rows.as_numpy_iterator()
    }
    for question, answer in (
        ("what is the capital of Guyana?", "Georgetown"),
        ("which country has the capital city Georgetown?", "Guyana"),
        ("what is the highest point in Guyana?", "Mount Roraima"),
        ("when did Malawi become independent?", "6 July 1964"),
        ("what is the national anthem of Norway called?", "Ja, vi elsker dette landet"),
    ):
        assert (f"{question} <extra_id_0>", f"<extra_id_0> {answer}") in found
    tasks = get_tasks("english_and_facts")
    names, rates = [task.name for task in tasks], mixing_rates("english_and_facts", tasks)
    rates = dict(zip(names, rates, strict=True))
    assert rates.pop("factbook_facts") == pytest.approx(4 * sum(rates.values()))


def test_the_questions_of_the_validation_set_are_among_the_facts(registered):
    known = dict(registered.read_questions())
    with gzip.open(DATA / "factbook_qa_open.validation.jsonl.gz", "rt", encoding="utf-8") as lines:
        asked = [json.loads(line) for line in lines]
    assert len(asked) == 202
    for record in asked:
        question = record["question"].replace("which city is", "what is")
        assert known[question] in record["answer"]["aliases"]
    examples = preprocess("factbook_qa_cloze", TRIVIA.records, TRIVIA.data_set)
    assert texts(examples)[0] == ("Who wrote Kim? <extra_id_0>", "<extra_id_0> Rudyard Kipling")
    answers = ["<extra_id_0> kipling", "a spy kids!"]
    assert score("factbook_qa_cloze", examples, answers) == {"em": 100, "f1": 100}
    assert score("factbook_qa_cloze", examples, ["<extra_id_0> Kim", "x"]) == {"em": 0, "f1": 0}
