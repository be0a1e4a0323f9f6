"""The page and the picture, through the command."""

import base64
import contextlib
import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from switch_jax.errors import UserError
from switch_jax.reports.findings import read_findings
from switch_jax.reports.pictures import main_charts
from tests.reports.evaluated import add_scores, generated
from tests.reports.pages import headings, make_report

SECTIONS = ["Held-out quality", "Training curves", "Optimisation and speed"]
SPEED_UP = "Speed-up over training"
TABLES = ["Final numbers", "The runs", "Operative gin config"]


def charts(page):
    """Title -> the words inside the chart's SVG."""
    figures = re.findall(r'<h3>(.*?)</h3>.*?src="data:image/svg\+xml;base64,(.*?)"', page, re.S)
    found = {}
    for title, data in figures:
        root = ET.fromstring(base64.b64decode(data))
        texts = root.iter("{http://www.w3.org/2000/svg}text")
        found[title] = ["".join(text.itertext()) for text in texts]
    return found


class Loads(HTMLParser):
    """Collects whatever a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        names = {"src", "href", "srcset", "data", "action", "poster"}
        self.found += [v for k, v in attrs if k in names and not v.startswith("data:")]
        self.found += [tag] * (tag in {"script", "link", "iframe", "object"})


@pytest.fixture(scope="module")
def pair(tmp_path_factory, write_run):
    """The folder, the page and the terminal's text of a report of a dense and a sparse run."""
    folder = tmp_path_factory.mktemp("pair")
    dense = write_run(folder / "dense", num_experts=0, steps=400, rate=100)
    sparse = write_run(folder / "switch_8e", num_experts=8, steps=400, rate=70)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        page = make_report(
            dense, sparse, output=folder / "out" / "report.html", flags=["--threshold=-5"]
        )
    return folder, page, printed.getvalue()


def test_the_page_has_every_section(pair):
    _, page, _ = pair
    routing = ["Load of the experts: switch_8e", "Dropped tokens and router entropy: switch_8e"]
    assert headings(page) == [SECTIONS[0], SPEED_UP, *SECTIONS[1:], *routing, *TABLES]
    assert "footnote 9" in page
    assert "ModelConfig.num_experts = 8" in page


def test_every_chart_names_its_axes_and_says_how_to_read_it(pair):
    _, page, _ = pair
    found = charts(page)
    for title, words in {
        "Held-out quality against steps": ["step", "neg. log perplexity [nats]", "switch_8e"],
        "Held-out quality against time": ["training time [s]", "dense"],
        "Training quality against steps": ["step", "neg. log perplexity [nats]"],
        "Learning rate": ["step", "learning rate"],
        "Throughput": ["tokens / s"],
        "Encoder layer 1 (Switch)": ["step", "expert", "load / even load"],
        "Decoder layer 3 (Switch)": ["step", "expert", "load / even load"],
        "Tokens dropped, encoder": ["tokens dropped [%]", "layer 1", "layer 3"],
        "Router entropy, decoder": ["router entropy [nats]"],
    }.items():
        assert set(words) <= set(found[title]), title
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    assert len(captions) == page.count("<figure>") == 4 + 2 + 2 + 4 + 4 + 4
    assert all(len(caption) > 40 for caption in captions)


def test_the_threshold_has_a_table_on_the_page_and_in_the_terminal(pair):
    _, page, printed = pair
    head, cells = "reaches -5 at step", r"<tr><th>switch_8e</th><td>(\d+)</td><td>(.*? s)</td>"
    step, time = re.search(cells, page[page.index(head) :]).groups()
    assert re.search(rf"switch_8e +{step} +{re.escape(time)}\n", printed[printed.index(head) :])


def test_a_threshold_without_its_sign_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"a negative log perplexity is below 0; write .*=-1\.5$"):
        make_report("none", output=tmp_path / "report.html", flags=["--threshold=1.5"])


def test_the_speed_up_is_marked_in_the_chart(pair):
    _, page, _ = pair
    row = re.search(r"<tr><th>switch_8e</th><td>.*?</td><td>(.*?)</td>", page)
    assert f"{row[1]}× speed-up" in charts(page)["Held-out quality against steps"]


def test_the_picture_lies_beside_the_page_and_both_are_named(pair):
    folder, _, printed = pair
    assert (folder / "out" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "Switch with 8 experts reached the dense model's final quality in " in printed
    assert f"page:    {folder}/out/report.html" in printed
    assert f"picture: {folder}/out/report.png" in printed


def test_the_page_loads_nothing(pair):
    _, page, _ = pair
    loads = Loads()
    loads.feed(page)
    assert loads.found == []
    assert not [x for x in ("http:", "https:", "url(", "@import") if x in page]


def test_the_same_run_gives_the_same_page(make_run, tmp_path):
    folder = make_run("dense", num_experts=0, steps=40)
    pages = [make_report(folder, output=tmp_path / f"{i}.html") for i in range(2)]
    assert pages[0] == pages[1]


def test_text_is_escaped(make_run, page_of):
    folder = make_run("<b>run</b>", num_experts=0, steps=100)
    page = page_of(folder)
    assert "# if steps &lt; 10:" in page and "steps < 10" not in page
    assert "facts &lt;synthetic&gt;" in page and "<synthetic>" not in page
    assert "run&lt;/b&gt;" in page and "<b>run" not in page


def test_a_dollar_in_a_name_is_no_formula(make_run, page_of):
    names, tasks = ["$\\frac{$", "lr_$1_$2"], ("$x_{$", "$^$")
    folders = [make_run(name, num_experts=4, steps=200, tasks=tasks) for name in names]
    for folder in folders:
        add_scores(folder, [generated(100, "$qa_{$", **{"$f_{1$": 50.0})])
    page = page_of(*folders)
    words = [word for texts in charts(page).values() for word in texts]
    assert {*names, "$f_{1$"} <= set(words)


def test_run_json_is_shown_as_it_is(pair):
    _, page, _ = pair
    for cell in ("11,111,103", "2,500,000", "data 1 · expert 2 · model 1", "cpu x 2", "2,048"):
        assert f"<td>{cell}</td>" in page


def test_a_dense_run_alone_has_no_routing_and_no_speed_up(make_run, page_of):
    page = page_of(make_run("dense", num_experts=0, steps=200))
    assert headings(page) == SECTIONS + TABLES
    assert "peed-up" not in page


@pytest.mark.usefixtures("no_charts")
def test_a_distilled_model_has_its_share_on_the_page_and_in_the_terminal(make_run, capsys, page_of):
    runs = [make_run(name, num_experts=0, steps=40, eval_every=20) for name in ("dense", "pupil")]
    runs.append(make_run("teacher", num_experts=4, steps=40, eval_every=20, final=-3.0))
    file = runs[1] / "run.json"
    facts = json.loads(file.read_text()) | {"teacher_checkpoint": "/x/teacher/checkpoints/40"}
    file.write_text(json.dumps(facts))
    page = page_of(*runs)
    (row,) = re.findall(r"<th>pupil</th>((?:<td>[^<]*</td>){4})</tr>", page)
    share = re.findall("<td>(.*?)</td>", row)[-1]
    assert share.endswith(" %")
    assert re.search(rf"^pupil .* {share}$", capsys.readouterr().out, re.M)


def test_a_run_without_evaluations_yet(make_run, page_of):
    folder = make_run("young", num_experts=4, steps=40, train_steps=1000)
    page = page_of(folder)
    assert "Not evaluated on held-out text yet. Still at step 40 of 1,000." in page
    assert "Held-out quality" not in headings(page)


def test_a_run_with_a_single_line(make_run, page_of):
    folder = make_run("new", num_experts=4, steps=20, train_steps=1000)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert "Training curves" in headings(page_of(folder))


def test_a_run_evaluated_only_at_step_0(tmp_path, page_of):
    line = {"kind": "eval", "step": 0, "seconds": 0.0, "task": "t", "neg_log_perplexity": -7.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line))
    page = page_of(tmp_path)
    assert headings(page) == ["Held-out quality", *TABLES]
    assert "no config.gin in the run folder" in page


@pytest.mark.usefixtures("no_charts")
def test_a_half_written_line_is_mentioned(make_run, page_of):
    folder = make_run("going", num_experts=0, steps=100)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "trai')
    page = page_of(folder)
    assert f"{folder}/metrics.jsonl: 1 of 7 records left out (line 7: it is half-written)." in page


def test_runs_of_unequal_length_and_several_tasks(make_run, page_of):
    short = make_run("short", num_experts=0, steps=200, tasks=("all", "facts"))
    long = make_run("long", num_experts=16, steps=500, tasks=("all", "facts"))
    page = page_of(short, long)
    assert "Held-out numbers by task" in headings(page)
    assert "Held-out task: all" in page


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_run_without_a_number_that_can_be_drawn_has_no_charts(tmp_path, page_of, value):
    lines = [
        {"kind": kind, "step": 10, "neg_log_perplexity": value, "loss": value}
        for kind in ("train", "eval")
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert headings(page_of(tmp_path)) == TABLES
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_diverged(tmp_path, page_of):
    nan = float("nan")
    lines = [
        {"kind": kind, "step": step, "seconds": step, "neg_log_perplexity": value, "loss": -value}
        for step, value in ((10, -5.0), (20, nan), (30, nan))
        for kind in ("train", "eval")
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = page_of(tmp_path)
    assert "<strong>nan</strong>" in page


def test_a_large_model_stays_small_on_the_page(make_run, page_of):
    stacks = {"encoder": [1, 3, 5], "decoder": [1, 3, 5]}
    folder = make_run("big", num_experts=256, steps=2000, eval_every=500, stacks=stacks)
    page = page_of(folder)
    assert "A row is the mean of 2 neighbouring experts." in page
    assert len(page) < 2_000_000


@pytest.fixture(scope="module")
def study(tmp_path_factory, write_run):
    """The folders and the page of a study: a dense model with two seeds, and 2, 4 and 8 experts."""
    folder = tmp_path_factory.mktemp("study")
    options = {"steps": 400, "train_every": 50, "eval_every": 50}
    runs = [
        write_run(
            folder / f"experts_{n}", num_experts=n, rate=100 - 5 * n, content=n > 2, **options
        )
        for n in (8, 4, 2)
    ]
    runs += [
        write_run(folder / f"dense_{i}", num_experts=0, rate=110, seed=i, **options) for i in (0, 1)
    ]
    return runs, make_report(*runs, output=folder / "report.html")


def test_a_study_has_a_verdict_card_and_curve_for_each_number_of_experts(study):
    _, page = study
    assert "<h1>Training report: dense, and 2, 4, 8 experts</h1>" in page
    cards = re.findall(r'<div class="card".*?<b>(.*?)</b>', page)
    assert cards == ["dense", "2 experts", "4 experts", "8 experts"]
    verdicts = re.findall(r"<p>(Switch with \d experts) reached the dense model", page)
    assert verdicts == [f"Switch with {n} experts" for n in (2, 4, 8)]
    found = charts(page)
    for title in ("Held-out quality against steps", "Training loss", "Throughput"):
        assert set(cards) <= set(found[title]), title
        assert found[title].count("dense") == 1
    assert {"dense", "2", "4", "8", "parameters"} <= set(found["Held-out loss against parameters"])
    assert {"2 experts", "4 experts", "8 experts"} <= set(found["Speed-up in steps over training"])
    assert "band = from the lower to the higher of 2 seeds" in page


@pytest.mark.usefixtures("no_charts")
def test_a_card_is_the_mean_of_the_seeds_that_have_got_furthest(write_run, tmp_path, page_of):
    finals = {0: -4.25, 1: -4.75}
    options = {"num_experts": 0, "train_steps": 400, "rate": 1}
    runs = [
        write_run(tmp_path / f"dense_{i}", steps=400, final=x, seed=i, **options)
        for i, x in finals.items()
    ]
    runs.append(write_run(tmp_path / "dense_2", steps=200, final=-9.0, seed=2, **options))
    page = page_of(*runs)
    (card,) = re.findall(r'<div class="card".*?</div>', page)
    # Held-out values of these runs are 0.1 below those of training.
    assert "<b>dense</b><strong>-4.600</strong>" in card
    assert "final held-out" in card and "Mean of 2 seeds, -4.850 to -4.350." in card
    assert "dense_2 is still at step 200 of 400." in card


def test_a_study_folds_away_its_routers(study):
    _, page = study
    assert page.count("<details><summary>Load of the experts: ") == 3
    assert "<h2>Load of the experts" not in page


def test_values_without_sentinels_and_eos_are_shown_of_runs_that_have_them(study, pair):
    title = "Held-out quality without sentinels and EOS"
    words = charts(study[1])[title]
    assert {"4 experts", "8 experts"} <= set(words) and not {"dense", "2 experts"} & set(words)
    assert title not in charts(pair[1])


def test_the_picture_of_a_study_has_quality_size_and_speed_up(study):
    shown = main_charts(read_findings(study[0]))
    assert [chart.title for chart in shown] == [
        "Held-out quality against steps",
        "Held-out quality against time",
        "Held-out loss against parameters",
        "Speed-up in steps over training",
    ]


DOWNSTREAM = ["Downstream against upstream", "Downstream scores"]


def test_fine_tuned_runs_are_shown_with_what_they_started_from(make_tunings, capsys, page_of):
    tuned = make_tunings()
    page = page_of(*tuned)
    assert headings(page)[:2] == DOWNSTREAM
    assert "Downstream numbers" in headings(page) and "peed-up" not in page
    assert "Downstream over seeds" not in headings(page) and "over seeds" not in page
    assert "<td>72.50 % at step 100</td>" in page and "<td>dense_for_qa, step 8</td>" in page
    words = charts(page)["qa against upstream quality"]
    assert {"best average [%]", "dense", "sparse", "switch8_qa"} <= set(words)
    printed = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    best = printed["qa: average [%], best"].split("  ")
    assert [cell.strip() for cell in best if cell][1:] == [
        f"{score} % at step 100" for score in ("60.00", "65.00", "72.50", "61.00", "63.00", "75.00")
    ]
    last = printed["qa: average [%], last"].split()[4::2]
    assert last == ["59.00", "64.00", "70.00", "60.00", "62.00", "74.00"]


def test_seeds_of_fine_tuned_runs_are_shown_as_one(make_seeds, capsys, page_of):
    page = page_of(*make_seeds(2)[:4])
    words = charts(page)["qa against upstream quality"]
    assert words.count("dense_4k") == 1 and "dense_4k_0" not in words
    assert "Downstream over seeds" in headings(page)
    head = [f"dense_{step}k (2 seeds)" for step in (4, 6)]
    cells = ["61.00 ± 1.41", "66.00 ± 1.41"]
    assert "".join(f"<th>{name}</th>" for name in head) in page
    assert f"<tr><th>qa: best average [%]</th><td>{cells[0]}</td><td>{cells[1]}</td></tr>" in page
    printed = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
    assert ["", *head] in printed and ["qa: best average [%]", *cells] in printed


def test_fine_tuned_runs_may_have_different_tasks(make_tunings, page_of):
    page = page_of(*make_tunings("qa"), *make_tunings("nli"))
    found = charts(page)
    assert {f"{task} against upstream quality" for task in ("qa", "nli")} <= set(found)
    assert "dense4_nli" not in found["qa against upstream quality"]
    assert "Of dense4_nli, unlike other runs." in page


def test_scores_of_runs_of_unknown_origin(make_tuned, page_of):
    scores = [generated(100, "qa", average=50.0)]
    gone = make_tuned("gone", 8, "/nowhere/checkpoints/4", scores, tail='{"kind": "gen')
    page = page_of(gone)
    assert headings(page)[0] == DOWNSTREAM[1] and DOWNSTREAM[0] not in headings(page)
    assert "<td>checkpoints, step" not in page and "<td>not known</td>" in page
    assert "eval/metrics.jsonl: 1 of 2 records left out (line 2: it is half-written)." in page


def test_the_picture_has_upstream_and_scores_first(make_tunings):
    titles = [chart.title for chart in main_charts(read_findings(make_tunings()))]
    assert titles[:2] == ["qa against upstream quality", "qa: average"]
    # Each fine-tuned run has its own held-out task: the page has their curves, and so the picture.
    assert "Held-out quality against steps" in titles


@pytest.mark.parametrize("output", ["report", "report.png"])
def test_the_page_needs_an_html_name(make_run, tmp_path, output):
    with pytest.raises(UserError, match=r"ends in \.html"):
        make_report(make_run("dense", num_experts=0, steps=20), output=tmp_path / output)
