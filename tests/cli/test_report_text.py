"""`switch_jax report --examples`: text of two runs, against what they are asked one by one."""

import html
import re

import pytest
import seqio

import switch_jax
from switch_jax.cli import main
from switch_jax.inference.continuations import continue_held_out
from tests.cli.answers import QUESTIONS

SMALL = (
    "include 'models/switch_demo.gin'\ninclude 'runs/demo.gin'\nGROUP_SIZE = 40\nBATCH_SIZE = 8\n"
    "MESH_EXPERT = 1\nTRAIN_STEPS = 30\nEVAL_PERIOD = None\n"
)
ANSWERS = (
    "import tests.cli.answers\nNUM_ENCODER_LAYERS = 1\nNUM_DECODER_LAYERS = 1\n"
    "MIXTURE_OR_TASK_NAME = 'answers'\nTASK_FEATURE_LENGTHS = {'inputs': 32, 'targets': 8}\n"
)
ALONE = (
    "NUM_ENCODER_LAYERS = 0\nNUM_EXPERTS = 0\nMIXTURE_OR_TASK_NAME = 'bible_full_lm'\n"
    "TASK_FEATURE_LENGTHS = {'targets': 40}\n"
)


def train(folder, gin):
    file = folder.with_suffix(".gin")
    file.write_text(SMALL + gin)
    assert main(["train", f"--gin_file={file}", f"--gin.MODEL_DIR={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def switch(tmp_path_factory):
    return train(tmp_path_factory.mktemp("answers") / "switch", ANSWERS)


@pytest.fixture(scope="module")
def alone(switch):
    """A decoder alone, which reads text."""
    return train(switch.parent / "alone", ALONE)


def test_each_run_goes_on_with_the_first_example_of_each_task(switch, tmp_path, capsys):
    dense, page = train(switch.parent / "dense", ANSWERS + "NUM_EXPERTS = 0\n"), tmp_path / "page"
    capsys.readouterr()
    assert main(["report", str(dense), str(switch), f"--output={page}", "--examples=3"]) == 0
    printed = capsys.readouterr().out
    model = switch_jax.load(switch)
    (of_dense, own) = (m.generate(QUESTIONS[:1])[0] for m in (switch_jax.load(dense), model))
    assert of_dense and own
    assert re.findall("(?m)^held-out text +(.*?)$", printed) == QUESTIONS[:1] * 2, "tasks in turn"
    assert re.findall("(?m)^goes on +(.*?)$", printed) == ["1", "1"]
    assert re.findall("(?m)^dense +(.*?)$", printed)[-2:] == [of_dense] * 2
    assert re.findall("(?m)^switch +(.*?)$", printed)[-2:] == [own] * 2

    shown = page.read_text(encoding="utf-8")
    (table,) = re.findall('(?s)<table class="texts">(.*?)</table>', shown)
    rows = re.findall("<tr><th.*?>(.*?)</th><td.*?>(.*?)</td></tr>", table)
    words = [("beginning", QUESTIONS[0]), ("goes on", "1"), ("dense", of_dense)]
    words.append(("switch", own))
    assert [(name, html.unescape(text)) for name, text in rows] == words * 2
    # The experts of the first one's tokens, and of what the first run with experts wrote.
    routed = re.findall('(?s)<p class="routed">(.*?)</p>', shown)
    for paragraph, (stack, routing) in zip(
        routed, switch_jax.route(model, QUESTIONS[0], own).items(), strict=True
    ):
        assert f"{stack} layer 0:" in paragraph
        gates = re.findall(r"expert (\d), gate (\d\.\d\d)", paragraph)
        expected = zip(routing.experts[0, :, 0], routing.gates[0, :, 0], strict=True)
        assert gates == [(str(expert), f"{gate:.2f}") for expert, gate in expected]


def test_text_without_inputs_is_cut_in_half(alone):
    found = continue_held_out({"alone": str(alone)}, 2)
    task = seqio.get_mixture_or_task("bible_full_lm")
    vocabulary = task.output_features["targets"].vocabulary
    rows = task.get_dataset({"targets": 40}, "validation", shuffle=False).as_numpy_iterator()
    ids = [row["targets"].tolist() for row in rows]
    for example, row in zip(found.examples, (ids[0], ids[20]), strict=True):
        half = len(row) // 2
        assert example.beginning == vocabulary.decode(row[:half])
        assert example.beginning + example.truth == vocabulary.decode(row)
    first = found.examples[0]
    assert [first.texts["alone"]] == switch_jax.load(alone).generate([first.beginning])
    assert not found.routings and not found.routed, "it is dense"


def test_runs_of_different_tasks_are_refused(switch, alone, tmp_path, capsys):
    page = tmp_path / "report.html"
    asked = ["report", str(switch), str(alone), f"--output={page}"]
    assert main([*asked, "--examples=1"]) == 2
    (*_, line) = capsys.readouterr().err.splitlines()
    assert line.startswith("switch_jax report: switch and alone differ in MIXTURE_OR_TASK_NAME")
    assert main([*asked, "--examples=-1"]) == 2
    assert "--examples = -1" in capsys.readouterr().err
    assert not page.exists()
    assert main(asked) == 0, "without text they are compared"
