"""The page, through the command."""

import base64
import contextlib
import html
import io
import json
import re
import xml.etree.ElementTree as ET

import pytest

from switch_jax.cli import main
from tests.reports.by_hand import write_lines

SECTIONS = ["Held-out quality", "Training curves", "Optimisation and speed"]
SPEED_UP = "Speed-up over training"
TABLES = ["The runs", "Settings"]


def headings(page):
    return [html.unescape(text) for text in re.findall("<h2>(.*?)</h2>", page)]


def charts(page):
    """Title -> the words inside the chart's SVG."""
    figures = re.findall(r'<h3>(.*?)</h3>.*?src="data:image/svg\+xml;base64,(.*?)"', page, re.S)
    found = {}
    for title, data in figures:
        root = ET.fromstring(base64.b64decode(data))
        texts = root.iter("{http://www.w3.org/2000/svg}text")
        found[title] = ["".join(text.itertext()) for text in texts]
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory, make_run):
    """The page and the terminal's text of a report of a dense and a sparse run."""
    folder = tmp_path_factory.mktemp("pair")
    dense = make_run(folder / "dense", num_experts=0, steps=400, rate=100)
    sparse = make_run(folder / "switch_8e", num_experts=8, steps=400, rate=70)
    output = folder / "report.html"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["report", str(dense), str(sparse), f"--output={output}"]) == 0
    return output.read_text(encoding="utf-8"), printed.getvalue()


def test_the_page_has_every_section(pair):
    page, _ = pair
    routing = ["Load of the experts: switch_8e", "Routers: switch_8e"]
    assert headings(page) == [SECTIONS[0], SPEED_UP, *SECTIONS[1:], *routing, *TABLES]
    assert "footnote 9" in page
    assert "\nNUM_EXPERTS = 8\n" in page and "\nACTIVATION = &#39;relu&#39;\n" in page
    rows = re.findall("<tr><th.*?>(.*?)</th>", page[page.index("<h2>The runs</h2>") :])
    assert rows[:3] == ["", "Settings that differ", "NUM_<wbr>EXPERTS"]
    assert "<th>NUM_<wbr>EXPERTS</th><td>0</td><td>8</td>" in page
    assert "<td>data 1 · expert 2 · model 1</td>" in page


def test_every_chart_names_its_axes_and_says_how_to_read_it(pair):
    page, _ = pair
    found = charts(page)
    for title, words in {
        "Held-out quality against steps": ["step", "neg. log perplexity [nats]", "switch_8e"],
        "Held-out quality against time": ["training time [s]", "dense"],
        "Training quality against steps": ["step", "neg. log perplexity [nats]"],
        "Learning rate": ["step", "learning rate"],
        "Throughput": ["tokens / s"],
        "Gradient norm": ["gradient norm"],
        "Speed-up in time over training": ["speed-up in time", "switch_8e"],
        "Encoder layer 1 (Switch)": ["step", "expert", "load / even load"],
        "Decoder layer 3 (Switch)": ["step", "expert", "load / even load"],
        "Tokens dropped, encoder": ["tokens dropped [%]", "layer 1", "layer 3"],
        "Router entropy, decoder": ["router entropy [nats]"],
    }.items():
        assert set(words) <= set(found[title]), title
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    assert len(captions) == page.count("<figure>") == 3 + 2 + 2 + 4 + 4 + 4
    assert all(len(caption) > 40 for caption in captions)


def test_the_sentence_the_mark_and_the_terminal_say_the_same(pair):
    page, printed = pair
    finding = (
        r"switch_8e reaches dense's final -\d\.\d+ at step (\d+) of 400: (\d\.\d\d) times soon"
    )
    (found,) = re.findall(finding, html.unescape(page))
    assert re.findall(finding, printed) == [found]
    words = charts(page)["Held-out quality against steps"]
    assert {f"{found[1]}× speed-up", f"at step {found[0]}"} <= set(words)
    assert printed.splitlines()[-1].startswith("page: ")


def test_the_page_loads_nothing(pair):
    page, _ = pair
    assert set(re.findall(r' (src|href|srcset|data|action|poster)="(?!data:)', page)) == set()
    assert not re.findall(r"<(?:script|link|iframe|object)|https?:|url\(|@import", page)


@pytest.mark.usefixtures("no_charts")
def test_text_is_escaped(make_run, page_of):
    folder = make_run("<b>run</b>", num_experts=0, steps=100)
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**facts, "<i>_x": 1}))
    page = page_of(folder)
    assert "<th>&lt;i&gt;_<wbr>x</th>" in page
    assert "facts, a &lt; b" in page and "a < b" not in page
    assert "facts &lt;synthetic&gt;" in page and "<synthetic>" not in page
    assert "run&lt;/b&gt;" in page and "<b>run" not in page


def test_a_dollar_in_a_name_is_no_formula(make_run, page_of):
    names = ["$\\frac{$", "lr_$1_$2"]
    folders = [make_run(name, num_experts=0, steps=20) for name in names]
    page = page_of(*folders)
    assert all(set(names) <= set(words) for words in charts(page).values())
    assert page == page_of(*folders), "the same runs give the same page"


@pytest.mark.usefixtures("no_charts")
def test_a_dense_run_alone_has_no_routing_and_no_speed_up(make_run, page_of):
    page = page_of(make_run("dense", num_experts=0, steps=200))
    assert headings(page) == SECTIONS + TABLES
    assert "peed-up" not in page and "sooner" not in page


@pytest.mark.usefixtures("no_charts")
def test_a_run_without_evaluations_yet(make_run, page_of):
    folder = make_run("young", num_experts=4, steps=20, train_steps=1000)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    page = page_of(folder)
    assert "Not evaluated on held-out text yet. Still at step 20 of 1,000." in page
    assert headings(page)[:2] == SECTIONS[1:]


@pytest.mark.usefixtures("no_charts")
def test_a_card_has_the_last_value_and_how_far_the_run_is(make_run, page_of):
    folder = make_run("going", num_experts=0, steps=20, train_steps=90)
    line = {"kind": "eval", "step": 20, "seconds": 300.0, "task": "t", "neg_log_perplexity": -2.0}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line))
    (card,) = re.findall(r'<div class="card".*?</div>', page_of(folder))
    assert "<b>going</b><strong>-2.000</strong>" in card
    assert "latest held-out neg. log perplexity [nats] (perplexity 7.389) at step 20, after" in card
    assert "after 5 min. Still at step 20 of 90." in card


def test_a_run_evaluated_only_at_step_0(tmp_path, page_of):
    line = {"kind": "eval", "step": 0, "seconds": 0.0, "task": "t", "neg_log_perplexity": -7.0}
    page = page_of(write_lines(tmp_path, [line]))
    assert headings(page) == ["Held-out quality", *TABLES]
    assert "no config.json in the run folder" in page


@pytest.mark.parametrize("first", [-5.0, None])
def test_a_run_that_diverged(tmp_path, page_of, first):
    lines = [
        {"kind": kind, "step": step, "seconds": step, "neg_log_perplexity": value, "loss": value}
        for step, value in ((10, first), (20, float("nan")))
        for kind in ("train", "eval")
    ]
    page = page_of(write_lines(tmp_path, lines))
    assert "<strong>nan</strong>" in page
    assert headings(page) == (SECTIONS if first else []) + TABLES  # nothing that can be drawn


@pytest.mark.usefixtures("no_charts")
def test_runs_without_a_record_are_left_out_and_named(make_run, tmp_path, page_of, capsys):
    (tmp_path / "begun").mkdir()
    page = page_of(tmp_path / "begun", make_run("good", num_experts=0, steps=40))
    assert "<h1>Training report: good</h1>" in page
    told = f"{tmp_path}/begun has no record of a run: it is no training's MODEL_DIR"
    assert f"Left out: {told}" in html.unescape(page)
    assert capsys.readouterr().err.startswith(f"switch_jax report: {told}")


@pytest.mark.usefixtures("no_charts")
def test_the_folder_of_the_page_is_not_made(make_run, tmp_path, capsys):
    output = tmp_path / "nowhere/report.html"
    assert main(["report", str(make_run("a", num_experts=0, steps=40)), f"--output={output}"]) == 2
    said = f"--output={output}: there is no folder {output.parent}: make it first\n"
    assert capsys.readouterr().err == f"switch_jax report: {said}"
    assert not output.parent.exists()


def test_a_folder_that_is_not_there_is_named_and_does_not_hide_the_others(
    make_run, tmp_path, capsys
):
    good, absent = make_run("good", num_experts=0, steps=40), tmp_path / "goood"
    output = tmp_path / "report.html"
    told = f"switch_jax report: there is no folder {absent}\n"
    assert main(["report", str(absent), str(good), f"--output={output}"]) == 2
    assert capsys.readouterr().err == told
    page = output.read_text(encoding="utf-8")
    assert "Training report: good" in page and f"Left out: there is no folder {absent}." in page
    output.unlink()
    assert main(["report", str(absent), f"--output={output}"]) == 2
    assert capsys.readouterr().err == told and not output.exists()
