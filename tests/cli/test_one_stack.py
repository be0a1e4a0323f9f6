"""Commands and Python with a decoder alone: a run of two steps, and what it is asked."""

import json

import numpy as np
import pytest

import switch_jax
from switch_jax.cli import main
from switch_jax.run_folder import RunFolder
from tests.cli.answers import QUESTIONS

# The same model, as one of text that goes on.
AS_TEXT = ["MIXTURE_OR_TASK_NAME=bible_full_lm", "TASK_FEATURE_LENGTHS={'targets': 40}"]


@pytest.fixture(scope="module")
def gin(tmp_path_factory):
    file = tmp_path_factory.mktemp("alone") / "alone.gin"
    file.write_text(
        "import tests.cli.answers\n"
        "include 'models/switch_demo.gin'\ninclude 'runs/demo.gin'\n"
        "MIXTURE_OR_TASK_NAME = 'answers'\nTASK_FEATURE_LENGTHS = {'inputs': 32, 'targets': 8}\n"
        "NUM_ENCODER_LAYERS = 0\nNUM_DECODER_LAYERS = 2\nGROUP_SIZE = 40\nBATCH_SIZE = 8\n"
        "MESH_EXPERT = 1\nTRAIN_STEPS = 2\nEVAL_PERIOD = 2\nEVAL_STEPS = 1\nINFER_EVAL = True\n"
    )
    return file


@pytest.fixture(scope="module")
def run(gin):
    folder = gin.parent / "run"
    assert main(["train", f"--gin_file={gin}", f"--gin.MODEL_DIR={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def model(run):
    return switch_jax.load(run)


def refused(capsys, *arguments):
    """The one line with which a command ends."""
    assert main(list(map(str, arguments))) == 2
    (*_, line) = capsys.readouterr().err.strip().splitlines()
    return line


def test_eval_computes_perplexity_and_the_metrics_of_tasks(run):
    records = switch_jax.evaluate(run)
    kinds = {(r["task"], r["kind"]) for r in records if r["kind"] == "generated"}
    assert kinds == {(t, "generated") for t in ("exact_answers", "probable_answers", "answers")}
    (given,) = (r for r in records if (r["task"], r["kind"]) == ("exact_answers", "teacher_forced"))
    assert given["metrics"]["tokens"] == 10 + 10 + 3, "an answer, its EOS, and a digit of 10"
    log_prob = switch_jax.load(run).score(QUESTIONS, [str(i + 1) for i in range(10)])
    (own,) = (r for r in records if (r["task"], r["kind"]) == ("probable_answers", "generated"))
    np.testing.assert_allclose(own["metrics"]["log_prob"], sum(log_prob), rtol=1e-5)


def test_infer_and_python_give_the_same(run, model, tmp_path):
    file, texts, answers = tmp_path / "in.jsonl", [*QUESTIONS[:2], ""], ["5", "six", "7"]
    rows = [{"inputs": i, "targets": t} for i, t in zip(texts, answers, strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def infer(*flags):
        output = tmp_path / f"{len(flags)}.jsonl"
        assert main(["infer", str(run), f"--input={file}", f"--output={output}", *flags]) == 0
        return [json.loads(line) for line in output.read_text().splitlines()]

    found, scores = model.generate(texts, return_scores=True, max_new_tokens=5, num_beams=2)
    predicted = infer("--max_new_tokens=5", "--num_beams=2")
    assert [r["prediction"] for r in predicted] == found
    assert [r["score"] for r in predicted] == scores
    assert [r["score"] for r in infer("--score")] == model.score(texts, answers)


def test_text_goes_on_from_nothing_and_from_a_prompt(run):
    model = switch_jax.load(run, gin_bindings=AS_TEXT)
    vocabulary = model.vocabularies["targets"]
    prompt = "In the beginning God"
    (own, nothing), scores = model.generate([prompt, ""], return_scores=True)
    ids = len(vocabulary.encode(prompt + own)) - len(vocabulary.encode(prompt))
    assert ids <= 20 and len(vocabulary.encode(nothing)) <= 20, "half of a row"
    assert model.generate([""]) == [nothing] and np.isfinite(scores).all()
    # The chain rule, as all of it fits into a row: in words, and with nothing before them.
    whole, (first, second) = model.score([""], ["In the"]), model.score(["", "In"], ["In", "the"])
    eos = model.score(["In"], [""])
    np.testing.assert_allclose(whole[0], first - eos[0] + second, rtol=1e-5)
    with pytest.warns(UserWarning, match=r"inputs\[0\] is longer by \d+ tokens"):
        model.generate(["In the beginning " * 20])


def test_route_shows_one_stack(run, model):
    ((stack, routing),) = switch_jax.route(model, "In the", "end").items()
    assert stack == "decoder" and routing.tokens == ["<start>", "▁In", "▁the", "</s>", "▁end"]
    assert routing.experts.shape == (2, 5, 1)
    alone = switch_jax.route(model, "In the")["decoder"]
    assert alone.tokens == routing.tokens[:4], "what would come next is no part of it"
    np.testing.assert_array_equal(alone.experts, routing.experts[:, :4])
    np.testing.assert_allclose(alone.gates, routing.gates[:, :4], rtol=1e-5)
    text = switch_jax.load(run, gin_bindings=AS_TEXT)
    whole = switch_jax.route(text, "In the")["decoder"]
    assert whole.tokens == ["<start>", "▁In", "▁the"]
    start = switch_jax.route(text, "")["decoder"]
    assert start.tokens == ["<start>"]
    np.testing.assert_allclose(start.gates, whole.gates[:, :1], rtol=1e-5)
    with_itself = switch_jax.route(text, "In", "the")["decoder"]
    assert with_itself.tokens == ["<start>", "▁In", "▁the"], "EOS is predicted, and not read"
    np.testing.assert_array_equal(with_itself.experts, whole.experts)
    cut = switch_jax.route(text, "In the " * 40 + "beginning")["decoder"]
    assert len(cut.tokens) == 40 and cut.tokens[-1] == "ing", "the end is kept"


def test_experts_teach_a_dense_decoder_and_begin_as_copies_of_it(gin, run, capsys):
    start = ["train", f"--gin_file={gin}", "--gin.INFER_EVAL=False", "--gin.TRAIN_STEPS=1"]
    student, sparse = gin.parent / "student", gin.parent / "upcycled"
    taught = [*start, "--gin_file=runs/distill.gin", f"--gin.TEACHER_DIR={run}"]
    assert main([*taught, f"--gin.MODEL_DIR={student}", "--gin.NUM_EXPERTS=0"]) == 0
    assert "its probabilities make up 0.25 of the loss" in capsys.readouterr().out
    upcycle = [f"--gin.INITIAL_CHECKPOINT_PATH={student}", "--gin.UPCYCLE=copy"]
    assert main([*start, f"--gin.MODEL_DIR={sparse}", *upcycle]) == 0
    assert "drawn at random: decoder/router" in capsys.readouterr().out
    assert RunFolder(sparse).checkpoint_steps() == [1]
    other = [*taught, f"--gin.MODEL_DIR={gin.parent / 'other'}", "--gin.NUM_ENCODER_LAYERS=1"]
    message = f"switch_jax train: the teacher in {run} consists of decoder, and the model of enc"
    assert refused(capsys, *other).startswith(message)


def test_what_does_not_go_is_refused_in_one_line(gin, run, tmp_path, capsys):
    convert = ["convert", run, tmp_path / "theirs"]
    line = refused(capsys, *convert)
    assert "cannot be this model: ACTIVATION 'swiglu' -> 'relu', TIE_EMBEDDINGS" in line
    line = refused(capsys, *convert, "--model_type=switch_transformers")
    assert line.startswith("switch_jax convert: ") and "NUM_ENCODER_LAYERS = 0" in line
    text = [f"--gin.{binding}" for binding in AS_TEXT]
    line = refused(capsys, "infer", run, *text, "--task=bible_full_lm", "--max_new_tokens=40")
    assert "--max_new_tokens = 40 leaves no room for a prompt in a row of TASK_FEATURE" in line
    line = refused(capsys, "eval", run, *text, "--task=exact_answers")
    assert "exact_answers has inputs, and TASK_FEATURE_LENGTHS" in line
    start = ["train", f"--gin_file={gin}", f"--gin.MODEL_DIR={tmp_path / 'run'}"]
    line = refused(capsys, *start, "--gin.ENCODER_ROUTER_TYPE=experts_choose")
    assert "does not go with NUM_ENCODER_LAYERS = 0" in line
    assert not (tmp_path / "run").exists()
