"""The tables of the experts' tokens."""

import errno
import json
import os
import re

import pytest

from switch_jax.reports.runs import read_run
from switch_jax.run_folder import layout
from tests.reports.pages import headings

pytestmark = pytest.mark.usefixtures("no_charts")


def expert(step, layer, number, share=0.5, **changes):
    """What `switch_jax eval` writes of an expert."""
    return {
        "kind": "expert_tokens",
        "step": step,
        "task": "facts",
        "split": "validation",
        "max_examples": None,
        "stack": "encoder",
        "layer": layer,
        "expert": number,
        "tokens": 200,
        "share": share,
        "frequent": ["▁<the>", "</s>"],
        "frequent_counts": [50, 3],
        "typical": ["▁Kenya"],
        "typical_ratios": [7.96],
    } | changes


def write(run, step, records, task="facts"):
    folder = run / "eval" / "expert_tokens"
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / f"{task}-validation-{step}.jsonl").write_text(text)


def test_the_page_has_a_table_for_each_layer_of_the_newest_checkpoint(make_run, page_of):
    run = make_run("switch", num_experts=4, steps=40)
    write(run, 900, [expert(900, 5, 0)])
    write(run, 1000, [expert(1000, layer, number) for layer in (1, 3) for number in (0, 1)])
    page = page_of(run)
    assert "Tokens of the experts: switch" in headings(page)
    titles = re.findall(r"<summary>(Encoder layer .*?)</summary>", page)
    assert titles == [f"Encoder layer {i}: facts (validation), step 1,000" for i in (1, 3)]
    rows = re.findall(r"<tr><th>\d</th><td>50\.0 %</td>.*?</tr>", page)
    assert len(rows) == 4
    words = re.sub("<.*?>", " ", rows[0]).split()
    frequent = ["▁&lt;the&gt;", "25.0", "%", "&lt;/s&gt;", "1.5", "%"]
    assert words == ["0", "50.0", "%", *frequent, "▁Kenya", "8.0×"]
    assert "The sign ▁ is the space before a word." in page


def test_only_the_newest_file_of_each_task_is_read(make_run):
    run = make_run("switch", num_experts=4, steps=40)
    write(run, 900, [{"kind": "expert_tokens"}])  # would be named as left out
    write(run, 1000, [expert(1000, 1, 0)])
    write(run, 50, [expert(50, 1, 0, task="more-facts", max_examples=3)], task="more-facts")
    (run / "eval" / "expert_tokens" / "notes.txt").write_text("mine")
    found = read_run(run)
    assert list(found.expert_tokens) == [
        "Encoder layer 1: facts (validation), step 1,000",
        "Encoder layer 1: more-facts (validation, max_examples = 3), step 50",
    ]
    assert found.left_out == ()


def test_of_several_seeds_the_first_with_tables_is_shown(make_run, page_of):
    options = {"num_experts": 4, "steps": 40}
    runs = [make_run(f"seed_{i}", seed=i, **options) for i in range(3)]
    for run in runs[1:]:
        write(run, 1000, [expert(1000, 1, 0, frequent=["the", "</s>"], typical=["Kenya"])])
    page = page_of(*runs)
    assert [h for h in headings(page) if "Tokens" in h] == ["Tokens of the experts: seed_1"]
    assert "The sign ▁" not in page, "no token has it"


def test_a_folder_that_cannot_be_listed_is_named(make_run, monkeypatch):
    run = make_run("switch", num_experts=4, steps=40)
    write(run, 1000, [expert(1000, 1, 0)])
    files = run / "eval" / "expert_tokens"

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(layout, "list_names", refuse)
    found = read_run(run)
    reason = "it cannot be listed (Permission denied)"
    assert (found.expert_tokens, found.left_out) == ({}, (f"{files} is left out: {reason}",))


def test_the_experts_of_attention_have_a_table_of_their_own(make_run):
    run = make_run("switch", num_experts=4, steps=40)
    sublayers = "attention", "feed_forward"
    write(run, 1000, [expert(1000, 1, i, sublayer=s) for s in sublayers for i in (0, 1)])
    titles = [title.partition(":")[0] for title in read_run(run).expert_tokens]
    assert titles == [f"Encoder layer 1 {sublayer}" for sublayer in sublayers]


def test_of_many_experts_those_with_the_most_tokens_are_shown(make_run, page_of):
    run = make_run("switch", num_experts=4, steps=40)
    shares = [0.001] * 6 + [0.02] * 64
    write(run, 1000, [expert(1000, 1, i, share) for i, share in enumerate(shares)])
    page = page_of(run)
    shown = re.findall(r"<tr><th>(\d+)</th><td>[\d.]+ %</td>", page)
    assert shown == [str(i) for i in range(6, 70)]
    assert "6 experts with fewer tokens are left out." in page


def test_a_damaged_record_is_left_out_and_named(make_run):
    run = make_run("switch", num_experts=4, steps=40)
    write(run, 1000, [expert(1000, 1, 0), expert(1000, 1, 1, frequent=["a"]), {"kind": "other"}])
    found = read_run(run)
    (experts,) = found.expert_tokens.values()
    assert [record["expert"] for record in experts] == [0]
    problem = "frequent has 1 tokens, and frequent_counts 2"
    file = f"{run}/eval/expert_tokens/facts-validation-1000.jsonl"
    assert found.left_out == (f"{file}: 1 of 3 records left out (line 2: {problem})",)


def test_a_run_that_was_not_evaluated_has_no_tables(make_run, page_of):
    page = page_of(make_run("switch", num_experts=4))
    assert "Tokens of the experts" not in page
