"""The functions of `switch_jax`, against the commands and Hugging Face folders."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import switch_jax
from gin import config as gin
from switch_jax.cli import main
from switch_jax.run_folder import RunFolder
from switch_jax.utils.errors import UserError
from tests.conversion.folders import (
    VOCABULARY,
    WIDE,
    WIDE_TENSORS,
    convert,
    with_vocabulary,
    write_folder,
)
from tests.conversion.t5x.checkpoints import t5x_tensors, tied, write_checkpoint
from tests.docs.pages import DOCS

SMALL = ["MESH_DATA=1", "BATCH_SIZE=2", "TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 8}"]
TEXTS = ["Where is Paris?", "Who wrote it, and when <extra_id_0>?", "One."]
TARGETS = ["In France.", "Nobody", "Two and three"]
# The examples of the docs, in their order.
FENCED = r"(?ms)^```python\n(.*?)^```$"
WHOLE, CONFIG, ASKING, ROUTING = re.findall(FENCED, (DOCS / "python.md").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What the first two examples of the docs define, with a run of the second one's config.

    Run and model are smaller than there, and it imports a module of tasks.
    """
    reading, train, rest = WHOLE.partition("switch_jax.train(config)\n")
    names, folder = {}, tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(reading, names)  # noqa: S102
        names["from_gin"] = names["config"]
        exec(CONFIG, names)  # noqa: S102
        config = names["config"].replace("run", train_steps=4, eval_steps=1)
        layers = {"num_encoder_layers": 1, "num_decoder_layers": 1, "sparse_step": 1}
        config = config.replace("model", **layers, scan_layers=False)
        names["config"] = dataclasses.replace(config, imports=("tests.cli.answers",))
        exec(train + rest, names)  # noqa: S102
    return {**names, "run": folder / "runs/small"}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A Hugging Face folder of a Switch model."""
    folder = tmp_path_factory.mktemp("theirs") / "switch-tiny"
    return with_vocabulary(write_folder(folder, WIDE, WIDE_TENSORS))


@pytest.fixture(scope="module")
def run(theirs):
    """A run with the same parameters."""
    return convert(theirs, theirs.parent / "run", *(f"--gin.{binding}" for binding in SMALL))


@pytest.fixture(scope="module")
def model(run):
    return switch_jax.load(run)


def infer(run, folder, *flags):
    """What `switch_jax infer` answers."""
    records = [{"inputs": i, "targets": t} for i, t in zip(TEXTS, TARGETS, strict=True)]
    file, output = folder / "in.jsonl", folder / f"out{len(list(folder.iterdir()))}.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(["infer", str(run), f"--input={file}", f"--output={output}", *flags]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_texts_and_scores_are_those_of_infer(model, run, tmp_path):
    greedy = [row["prediction"] for row in infer(run, tmp_path)]
    assert model.generate(TEXTS) == greedy
    assert len(set(greedy)) > 1 and all(greedy), "the model says different things"
    sampling = {"temperature": 1.5, "top_k": 20, "seed": 3, "max_new_tokens": 5}
    flags = [f"--{name}={value}" for name, value in sampling.items()]
    sampled = [row["prediction"] for row in infer(run, tmp_path, *flags)]
    assert model.generate(TEXTS, **sampling) == sampled != greedy
    scores = model.score(TEXTS, TARGETS)
    np.testing.assert_array_equal(scores, [row["score"] for row in infer(run, tmp_path, "--score")])
    assert model.generate([]) == model.score([], []) == []


def test_the_scores_of_what_is_generated_are_those_of_infer(model, run, tmp_path):
    options = {"num_beams": 2, "length_penalty": 1.0, "max_new_tokens": 5}
    rows = infer(run, tmp_path, *(f"--{name}={value}" for name, value in options.items()))
    texts, scores = model.generate(TEXTS, return_scores=True, **options)
    assert texts == [row["prediction"] for row in rows] == model.generate(TEXTS, **options)
    assert scores == [row["score"] for row in rows] and all(score < 0 for score in scores)


def test_its_repr_says_what_it_is(model, run, theirs):
    tied = [n for n in WIDE_TENSORS if not n.endswith(("embed_tokens.weight", "lm_head.weight"))]
    size = sum(WIDE_TENSORS[name].size for name in tied)
    kind = f"Switch Transformer, 4 experts, {size:,} parameters"
    assert repr(model) == f"<InteractiveModel {run}, step 0: {kind}>"
    loaded = switch_jax.load(theirs, gin_bindings=SMALL)
    format = "Hugging Face SwitchTransformersForConditionalGeneration"
    assert repr(loaded) == f"<InteractiveModel {theirs}, a {format}: {kind}>"
    assert (model.step, loaded.step) == (0, None)


def test_it_shows_its_config_parameters_and_vocabularies(model):
    assert model.config.model.num_experts == WIDE["num_experts"]
    assert model.config.run.batch_size == 2 and model.config.data.lengths == (16, 8)
    table = model.parameters["token_embedding"]["embedding"]
    np.testing.assert_array_equal(table, WIDE_TENSORS["shared.weight"])
    ids = model.vocabularies["inputs"].encode("Where is Paris?")
    assert model.vocabularies["targets"].decode(ids) == "Where is Paris?"


def test_the_experts_of_a_text(model):
    """Against the choices of the model itself, which are compared with transformers' router."""
    routing = switch_jax.route(model, TEXTS[0], TARGETS[0])
    vocabularies, stack_of = model.vocabularies, model.config.model.stack
    for stack, name, text in ("encoder", "inputs", TEXTS[0]), ("decoder", "targets", TARGETS[0]):
        tokens, found = vocabularies[name].encode(text), routing[stack]
        ends = ("", "</s>") if stack == "encoder" else ("<start>", "")
        assert found.tokens[0].startswith(ends[0]) and found.tokens[-1].endswith(ends[1])
        own = found.tokens[:-1] if stack == "encoder" else found.tokens[1:]
        assert own == [vocabularies[name].tokenizer.IdToPiece(token) for token in tokens]
        assert found.cut == 0
        layers = list(stack_of(stack).sparse_layers)
        assert found.layers == layers
        assert found.experts.shape == found.gates.shape == (len(layers), len(tokens) + 1, 1)
        assert 1 / WIDE["num_experts"] < found.gates.min() and found.gates.max() <= 1
        line = str(found).splitlines()[1].split()
        assert line[-2:] == [str(found.experts[-1, 0, 0]), f"({found.gates[-1, 0, 0]:.2f})"]
    assert "".join(routing["encoder"].tokens) == TEXTS[0].replace(" ", "▁").join(["▁", "</s>"])
    alone = switch_jax.route(model, TEXTS[0])
    assert list(alone) == ["encoder"]
    np.testing.assert_array_equal(alone["encoder"].experts, routing["encoder"].experts)


def test_tokens_that_are_cut_off_are_counted(model):
    long = switch_jax.route(model, "One. " * 20, "Two ▁")
    pieces = model.vocabularies["inputs"].tokenizer.EncodeAsPieces("One. " * 20)
    assert long["encoder"].tokens == [*pieces[:15], "</s>"]
    left = len(pieces) - 15
    last = f"the text is longer by {left} tokens, which TASK_FEATURE_LENGTHS cuts off"
    assert long["encoder"].cut == left and str(long["encoder"]).splitlines()[-1] == last
    assert long["decoder"].cut == 0 and all(t.strip() for t in long["decoder"].tokens)


def test_a_text_that_is_cut_off_is_warned_of(model):
    encode = model.vocabularies["inputs"].encode
    long = "One. " * 20
    with pytest.warns(
        UserWarning, match=r"inputs\[1\] is longer by (\d+) tokens .*cut off$"
    ) as warned:
        model.generate([TEXTS[0], long])
    assert warned[0].filename == __file__
    left = len(encode(long)) - 15
    assert f"by {left} tokens than TASK_FEATURE_LENGTHS = {{'inputs': 16" in str(warned[0].message)
    with pytest.warns(UserWarning, match=r"inputs\[0\] .* and is cut off, as are 2 more$"):
        model.score([long, TEXTS[0]], [long, long])


def test_a_hugging_face_folder_answers_as_the_converted_one(model, theirs, tmp_path):
    unconverted = switch_jax.load(theirs, gin_bindings=SMALL)
    bindings = [f"--gin.{binding}" for binding in SMALL]
    answered = [row["prediction"] for row in infer(theirs, tmp_path, *bindings)]
    assert answered == model.generate(TEXTS)
    with pytest.raises(UserError, match="one model, without checkpoints: leave out 'best'"):
        switch_jax.load(theirs, "best", gin_bindings=SMALL)
    assert unconverted.generate(TEXTS) == answered
    assert unconverted.config.model == model.config.model


def test_a_t5x_checkpoint_answers_as_its_twin(model, tmp_path):
    tensors = tied(t5x_tensors(WIDE_TENSORS))
    folder = write_checkpoint(tmp_path / "base/checkpoint_7", tensors).parent
    (folder / "config.gin").write_text("from t5x import models\n")  # T5X's
    loaded = switch_jax.load(folder, gin_bindings=[*SMALL, f"VOCABULARY='{VOCABULARY}'"])
    assert loaded.generate(TEXTS) == model.generate(TEXTS)


def test_two_models_in_a_process_and_the_gin_of_the_user(model, run, theirs, tmp_path):
    gin.clear_config()
    gin.parse_config("MINE = 3\nDataConfig.random_seed = %MINE")
    before = gin.config_str()
    tensors = {**WIDE_TENSORS, "shared.weight": WIDE_TENSORS["shared.weight"][::-1].copy()}
    tensors = {
        n: tensors["shared.weight"] if t.shape == (1152, 32) else t for n, t in tensors.items()
    }
    folder = with_vocabulary(write_folder(tmp_path / "other", WIDE, tensors))
    expected = model.generate(TEXTS)
    other = switch_jax.load(folder, batch_size=4, gin_bindings=SMALL)
    again = switch_jax.load(run, checkpoint=0)
    assert gin.config_str() == before and "MINE" in before
    assert other.config.run.batch_size == 4 and again.config.run.batch_size == 2
    assert other.generate(TEXTS) != expected
    assert again.generate(TEXTS) == model.generate(TEXTS) == expected
    gin.clear_config()


def test_the_examples_of_asking_run(run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/tuned").symlink_to(run)
    names = {"switch_jax": switch_jax}
    exec(ASKING + ROUTING, names)  # noqa: S102
    assert isinstance(names["answers"][0], str) and names["scores"][0] < 0


def test_a_config_from_gin_and_one_without(trained):
    from_gin, config = trained["from_gin"], trained["config"]
    assert isinstance(from_gin, switch_jax.Config)
    assert from_gin.run == dataclasses.replace(
        switch_jax.load_config("runs/demo_switch.gin").run, model_dir="runs/small", train_steps=200
    )
    assert (from_gin.model.num_experts, from_gin.imports) == (16, ())
    assert isinstance(config.model, switch_jax.ModelConfig) and config.model.num_experts == 4
    files = ["models/t5_base.gin", "runs/pretrain.gin"]
    several = switch_jax.load_config(files, ["MODEL_DIR=x", "MIXTURE_OR_TASK_NAME=answers"])
    assert (several.model.num_experts, several.data.mixture_or_task_name) == (0, "answers")


def test_a_trained_run_is_that_of_the_command(trained, monkeypatch, capsys):
    """It goes on with it: the config is read as it was, its module of tasks included."""
    run, config = trained["run"], trained["config"]
    assert RunFolder(run).checkpoint_steps() == [4]
    monkeypatch.chdir(run.parents[1])
    assert switch_jax.load_config(run / "config.gin") == config
    assert main(["train", f"--gin_file={run / 'config.gin'}", "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert "nothing to do" in told and "->" not in told, "and nothing is changed"


def _lines(folder):
    return [json.loads(line) for line in (folder / "eval/metrics.jsonl").read_text().splitlines()]


def test_evaluate_gives_what_eval_writes_and_prints(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    copy = tmp_path / "copy"
    shutil.copytree(trained["run"], copy, ignore=shutil.ignore_patterns("eval"))
    flags = ["--task=exact_answers", "--checkpoint=best", "--max_examples=3", "--num_beams=2"]
    flags += ["--max_new_tokens=4", "--batch_size=8", "--gin.GROUP_SIZE=64"]
    assert main(["eval", str(copy), *flags]) == 0
    table = capsys.readouterr().out

    def evaluate(folder):
        options = {"max_examples": 3, "num_beams": 2, "max_new_tokens": 4, "batch_size": 8}
        return switch_jax.evaluate(
            folder, "exact_answers", "best", gin_bindings=["GROUP_SIZE=64"], **options
        )

    records = evaluate(trained["run"])
    written = _lines(copy)
    assert records == written and [r["kind"] for r in records] == ["teacher_forced", "generated"]
    assert all(record in _lines(trained["run"]) for record in records)
    metrics, printed = records[0]["metrics"], " ".join(table.split())
    for kind in ("", "content_"):
        quality, of = metrics[f"{kind}neg_log_perplexity"], f"{metrics[f'{kind}tokens']:.0f} tokens"
        assert f" {of} {kind}neg_log_perplexity {quality:.4f} nats " in printed
        assert f" {of} {kind}accuracy {100 * metrics[f'{kind}accuracy']:.2f} % " in printed
    assert " 3 examples exact " in printed and "cross_entropy" not in printed
    assert evaluate(copy) == written == _lines(copy), "what eval has computed is found"
    assert records[1]["decoding"] == "2 beams, length penalty 0.6, at most 4 tokens"
    assert records[1]["examples"] == 3


def test_the_import_and_the_config_load_nothing_else():
    program = (
        "import sys, switch_jax\n"
        "names = {'jax', 'numpy', 'tensorflow', 'gin', 'switch_jax.api'}\n"
        "print(sorted(names & set(sys.modules)))\n"
        "switch_jax.Config, switch_jax.RunConfig, switch_jax.UserError\n"
        "print(sorted(names & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n[]\n"


def test_its_names_are_there_and_no_others():
    for name in switch_jax.__all__:
        assert name in dir(switch_jax) and getattr(switch_jax, name) is not None
    assert switch_jax.UserError is UserError
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        switch_jax.lode  # noqa: B018


DEMO = "runs/demo_switch.gin"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda *_: switch_jax.load_config(None), "gin_files = None: write a path, or a list of"),
        (
            lambda *_: switch_jax.load_config(DEMO, "TRAIN_STEPS=3"),
            "gin_bindings = 'TRAIN_STEPS=3': write a list of texts, as ",
        ),
        (lambda *_: switch_jax.train(DEMO), "config is of type str: make one with swi"),
        (
            lambda _, model: switch_jax.train(
                dataclasses.replace(model.config, imports=("no_tasks",))
            ),
            "cannot import 'no_tasks' (No module named 'no_tasks')",
        ),
        (lambda *_: switch_jax.load("none"), "no folder none to take a model from: give the MOD"),
        (lambda *_: switch_jax.load("."), ". holds no model: a MODEL_DIR has a config.gin, a Hug"),
        (
            lambda run, _: switch_jax.load(run, "best"),
            "no checkpoint that was saved at a step with an evaluation",
        ),
        (
            lambda run, _: switch_jax.load(run, gin_bindings=["MESH_EXPERT=3"]),
            "NUM_EXPERTS = 4 and MESH_EXPERT = 3: neither divides",
        ),
        (
            lambda run, _: switch_jax.load(run, gin_bindings=["VOCABULARY='byte'"]),
            "another vocabulary (ByteVocabulary) than ",
        ),
        (
            lambda run, _: switch_jax.evaluate(run, "english_span_corupt"),
            "did you mean english_span_corruption",
        ),
        (
            lambda run, _: switch_jax.evaluate(run, "english_span_corruption", split="tests"),
            "has no split 'tests': its splits are ",
        ),
        (lambda _, model: model.generate("a"), "inputs = 'a': write a list of texts, as"),
        (lambda _, model: model.generate(iter("a")), "inputs = <str_ascii_iterator object at 0x"),
        (lambda _, model: model.score(["a"], "c"), "targets = 'c': write a list of texts, as "),
        (lambda _, model: model.generate(["a", 3]), "inputs[1] = 3: write a text"),
        (lambda _, model: model.generate(["a"], top_k=2), "top_k = 2 does not go with temperat"),
        (
            lambda _, model: model.generate(["a"], max_tokens=5),
            "no option 'max_tokens' (did you mean max_new_tokens?): the options are max_new_",
        ),
        (
            lambda _, model: model.generate(["a"], do_sample=True),
            "no option 'do_sample': a temperature above 0 samples",
        ),
        (
            lambda _, model: model.generate(["a"], num_return_sequences=3),
            "no option 'num_return_sequences': a text has one output; repeat it in the list",
        ),
        (
            lambda _, model: model.generate(["a"], max_length=9),
            "'max_length': it is max_new_tokens",
        ),
        (
            lambda _, model: model.generate(["a"], output_scores=True),
            "'output_scores': it is return_scores",
        ),
        (lambda _, model: model.generate(["a"], eos_id=7), "no option 'eos_id': the options are "),
        (lambda run, _: switch_jax.evaluate(run, num_beam=4), "(did you mean num_beams?)"),
        (lambda _, model: model.score(["a", "b"], ["c"]), "2 inputs and 1 targets: write a targ"),
        (lambda _, model: model.generate(["\udc00"]), "inputs[0] = '\\udc00' is no text: 'utf-"),
        (lambda _, model: switch_jax.route(model, ["a"]), "text = ['a']: write a text"),
        (lambda _, model: switch_jax.route(model, "a", 3), "target = 3: write a text"),
        (lambda run, _: switch_jax.load(run, batch_size="2"), "batch_size = '2': it must be a who"),
        (lambda *_: switch_jax.load(3), "path = 3: write a path"),
    ],
)
def test_a_mistake_is_one_line(call, message, run, model):
    with pytest.raises(switch_jax.UserError) as error:
        call(run, model)
    assert message in str(error.value) and "\n" not in str(error.value)
